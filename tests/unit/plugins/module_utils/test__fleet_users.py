# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import fcntl
import os
import pwd
import typing as t

import pytest
from ansible_collections.gpuops.fleet.plugins.module_utils._authorized_keys import BEGIN, END, fingerprint_of
from ansible_collections.gpuops.fleet.plugins.module_utils._fleet_users import (
    Account,
    FleetUsersError,
    Login,
    Person,
    State,
    check_account,
    describe_state,
    key_paths,
    keys_of_the_gone,
    one_at_a_time,
    read_person,
    sudoers_path,
    wanted_state,
)

ALICE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f alice"
BOB = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB8eHRwbGhkYFxYVFBMSERAPDg0MCwoJCAcGBQQDAgEA bob"
ME = Login("ops", frozenset({"SHA256:mine"}))
OPTIONS: dict[str, t.Any] = {
    "name": "alice", "state": "present", "uid": None, "gid": None, "groups": None, "shell": None, "sudo": "",
    "keys": [], "error": "", "exclusive": False, "home": "keep", "end_sessions": False,
}  # fmt: skip
HERS = Account(2001, 2001, frozenset({"video"}), "/bin/bash", "/home/alice")


def entry(name: str, uid: int) -> pwd.struct_passwd:
    return pwd.struct_passwd((name, "x", uid, uid, "", f"/home/{name}", "/bin/bash"))


ACCOUNTS = [entry("root", 0), entry("www-data", 33), entry("ops", 1000), entry("alice", 2001)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "-x"}, "cannot be the name of an account"),
        ({"name": "a b"}, "cannot be the name of an account"),
        ({"name": "../x"}, "cannot be the name of an account"),
        ({"sudo": "ALL\nroot ALL"}, "one line"),
        ({"keys": [{"line": f"{ALICE}\n{BOB}"}]}, "no line of authorized_keys"),
        ({"keys": [{"line": "hello"}]}, "no line of authorized_keys"),
    ],
)
def test_what_would_say_more_than_it_seems_is_refused(options: dict[str, t.Any], message: str) -> None:
    with pytest.raises(FleetUsersError, match=message):
        read_person({**OPTIONS, **options})


def test_account_is_as_wanted_and_what_is_not_said_stays() -> None:
    assert wanted_state(Person("alice"), State(HERS), set(), set()).account == HERS
    changed = wanted_state(Person("alice", groups=("a", "b"), shell="/bin/zsh", gid=7), State(HERS), set(), set())
    assert changed.account == Account(2001, 7, frozenset({"a", "b"}), "/bin/zsh", "/home/alice")
    new = wanted_state(Person("eve", uid=2005, sudo="ALL=(ALL) ALL"), State(), set(), set())
    assert new.account == Account(2005, 2005, frozenset(), "/bin/bash")
    assert new.sudo.endswith("\neve ALL=(ALL) ALL\n")


def test_keys_that_are_not_known_stay() -> None:
    there = {"/k": f"{BEGIN}\n{ALICE}\n{END}\n"}
    state = wanted_state(Person("alice", error="GitHub is down", exclusive=True), State(HERS, "", there), set(), set())
    assert state.keys == there


def test_key_is_taken_out_of_the_second_file_that_sshd_reads() -> None:
    state = wanted_state(Person("alice", lines=(ALICE,)), State(HERS, "", {"/1": "", "/2": f"{ALICE}\n"}), set(), set())
    assert state.keys == {"/1": f"{BEGIN}\n{ALICE}\n{END}\n", "/2": ""}


def test_absent_account_with_processes_is_locked_until_they_end() -> None:
    now = State(HERS, "alice ALL=(ALL) ALL\n", {"/k": f"{ALICE}\n"})
    person = Person("alice", present=False)
    locked = wanted_state(person, now, set(), set(), is_running=True)
    assert locked.account
    assert locked.account.locked
    assert (locked.sudo, locked.keys) == ("", {"/k": ""})
    assert wanted_state(person, locked, set(), set(), is_running=True) == locked
    assert wanted_state(person, now, set(), set()).account is None
    assert wanted_state(Person("alice", present=False, end_sessions=True), now, set(), set(), True).account is None


@pytest.mark.parametrize(
    ("person", "message"),
    [
        (Person("root", present=False), "logs in as ops"),
        (Person("ops", present=False), "logs in as ops"),
        (Person("www-data", present=False), "account of the system"),
        (Person("alice", uid=2002), "has the uid 2001 here.*usermod -u 2002 alice"),
        (Person("eve", uid=2001), "is that of alice"),
    ],
)
def test_accounts_of_others_and_our_own_are_safe(person: Person, message: str) -> None:
    now = next(
        (Account(each.pw_uid, each.pw_gid, frozenset(), "") for each in ACCOUNTS if each[0] == person.name), None
    )
    with pytest.raises(FleetUsersError, match=message):
        check_account(person, now, ACCOUNTS, ME)


def test_one_uid_of_two_names_is_nobodys_to_remove() -> None:
    with pytest.raises(FleetUsersError, match="alice and twin are one uid"):
        check_account(Person("alice", present=False), HERS, [*ACCOUNTS, entry("twin", 2001)], ME)


def test_keys_are_not_taken_away_while_nobody_knows_which_is_in_use() -> None:
    person = Person("ops", exclusive=True)
    check_account(person, None, ACCOUNTS, ME)
    with pytest.raises(FleetUsersError, match="not known by which key"):
        check_account(person, None, ACCOUNTS, Login("ops", frozenset()))


def test_keys_of_the_gone_are_those_that_nobody_else_uses() -> None:
    alice, bob = map(fingerprint_of, (ALICE, BOB))
    out = Person("bob", present=False, lines=(BOB,))
    assert keys_of_the_gone([out], {"bob": [ALICE]}) == {alice: "bob", bob: "bob"}
    assert keys_of_the_gone([out, Person("alice", lines=(ALICE,))], {"bob": [ALICE]}) == {bob: "bob"}
    assert keys_of_the_gone([out, Person("alice", error="?")], {"bob": [ALICE], "alice": [ALICE]}) == {bob: "bob"}


def test_sshd_says_where_keys_are() -> None:
    patterns = ".ssh/authorized_keys /etc/ssh/keys/%u %h/k%% /u/%U none"
    assert key_paths(patterns, "alice", 7, "/h/alice") == [
        "/h/alice/.ssh/authorized_keys", "/etc/ssh/keys/alice", "/h/alice/k%", "/u/7",
    ]  # fmt: skip


def test_sudo_reads_the_file_of_a_name_with_a_dot() -> None:
    assert "." not in os.path.basename(sudoers_path("alice.smith"))


def test_description_is_for_people() -> None:
    state = State(HERS, "# Written\nalice ALL=(ALL) ALL\n", {"/k": f"{ALICE}\n"})
    assert describe_state(state).splitlines() == [
        "account uid=2001 gid=2001 groups=video shell=/bin/bash",
        "sudo alice ALL=(ALL) ALL",
        f"key {fingerprint_of(ALICE)} alice",
    ]


def test_two_controllers_are_kept_apart() -> None:
    with one_at_a_time(), pytest.raises(FleetUsersError, match="another run"), one_at_a_time(0.0):
        pass
    handle = os.open("/etc", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(handle)
