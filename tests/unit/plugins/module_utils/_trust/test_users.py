# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import pathlib
import pwd
import typing as t
from dataclasses import replace

import pytest
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.authorized_keys import BEGIN, END, fingerprint_of
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.users import (
    Account,
    FleetUsersError,
    Login,
    Machine,
    Person,
    State,
    _check_roots_own,
    check_account,
    check_rule,
    describe_state,
    doubts,
    gone_from,
    key_paths,
    keys_of_the_gone,
    login_sudoers_path,
    one_at_a_time,
    read_person,
    sudoers_path,
    wanted_state,
)

ALICE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f alice"
BOB = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB8eHRwbGhkYFxYVFBMSERAPDg0MCwoJCAcGBQQDAgEA bob"
EVE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB eve"
MINE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIC mine"
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


@pytest.mark.parametrize(
    "name",
    ["ALL", "WHEEL", "A", "A_1", "Defaults", "User_Alias", "Runas_Alias", "Host_Alias", "Cmnd_Alias", "Cmd_Alias"],
)
def test_name_that_means_others_in_sudoers_gets_no_rule(name: str) -> None:
    with pytest.raises(FleetUsersError, match=f"^{name}: in sudoers this name does not mean this account.*Next: "):
        check_rule(Person(name, sudo="ALL=(ALL) ALL"))
    check_rule(Person(name))
    check_rule(Person(name, present=False, sudo="ALL=(ALL) ALL"))


@pytest.mark.parametrize(
    "rule", [", ALL ALL=(ALL) ALL", " \t,bob ALL=(ALL) ALL", "ALL=(ALL) ALL \\", "ALL=(ALL) ALL\\ "]
)
def test_rule_that_goes_on_with_others_is_refused(rule: str) -> None:
    with pytest.raises(FleetUsersError, match="^alice: the sudo rule .* would go on with other users or another line"):
        check_rule(Person("alice", sudo=rule))


@pytest.mark.parametrize("name", ["alice", "Alice", "A-b", "A.B", "_A", "Defaults-x", "defaults", "All"])
@pytest.mark.parametrize("rule", ["ALL=(ALL:ALL) NOPASSWD: ALL", "a, b = /bin/ls, /bin/cat : ALL = /bin/true"])
def test_rule_of_one_user_is_theirs(name: str, rule: str) -> None:
    check_rule(Person(name, sudo=rule))


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
        (Person("eve", uid=999), "one of the system's"),
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
    out = Person("bob", present=False, lines=(ALICE, BOB))
    assert keys_of_the_gone([out]) == {alice: "bob", bob: "bob"}
    assert keys_of_the_gone([out, Person("alice", lines=(ALICE,))]) == {bob: "bob"}


@pytest.mark.parametrize(
    ("person", "wanted"),
    [
        # What is between the marks is known to be right for nobody but the owner of the file.
        (None, {BOB}),
        (Person("eve"), {BOB}),
        (Person("eve", error="GitHub is down"), set()),
        (Person("eve", present=False), {ALICE, BOB, EVE}),
    ],
)
def test_file_of_a_person_counts_for_that_account_alone(person: Person | None, wanted: set[str]) -> None:
    gone = keys_of_the_gone([person or Person("nobody"), Person("bob", present=False, lines=(BOB,))])
    assert gone == {fingerprint_of(BOB): "bob"}
    now = State(HERS, "", {"/k": f"{BEGIN}\n{ALICE}\n{BOB}\n{MINE}\n{END}\n", "/2": f"{BEGIN}\n{EVE}\n{END}\n"})
    own = {fingerprint_of(MINE)}
    assert gone_from(person, now, own, gone.keys()) == set(map(fingerprint_of, wanted))


def test_key_that_only_the_file_of_somebody_absent_says_is_theirs_is_named() -> None:
    now = {
        "bob": State(HERS, "", {"/k": f"{BEGIN}\n{BOB}\n{EVE}\n{ALICE}\n{MINE}\n{END}\n"}),
        "root": State(keys={"/r": f"# by hand\n{EVE}\n{MINE}\n{ALICE}\n{BOB}\n"}),
        "train": State(keys={"/t": EVE}),
    }
    people = [Person("bob", present=False, lines=(BOB,)), Person("alice", lines=(ALICE,)), Person("new", present=False)]
    (said,) = doubts(people, now, {fingerprint_of(MINE)})
    assert said.startswith(f"bob is absent, and had {fingerprint_of(EVE)} too, which is in the file of root and train ")
    assert doubts(people[1:], now, set()) == []


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


def test_two_controllers_are_kept_apart(tmp_path: pathlib.Path) -> None:
    lock = str(tmp_path / "lock")
    with one_at_a_time(lock), pytest.raises(FleetUsersError, match="fuser -v .*lock"), one_at_a_time(lock, 0.0):
        pass
    with one_at_a_time(lock, 0.0):
        # Nobody else may be able to hold it.
        assert os.stat(lock).st_mode & 0o777 == 0o600
    with pytest.raises(FleetUsersError, match="run as root"), one_at_a_time("/no/such/folder"):
        pass


@pytest.mark.parametrize("kind", ["fifo", "directory", "loop", "huge"])
def test_file_of_keys_that_is_none_is_told_and_holds_nobody_up(tmp_path: pathlib.Path, kind: str) -> None:
    path = tmp_path / ".ssh" / "authorized_keys"
    path.parent.mkdir()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    else:
        path.write_bytes(b"x" * (1 << 20) + b"y")
    me = pwd.struct_passwd((pwd.getpwuid(os.getuid()).pw_name, "x", os.getuid(), os.getgid(), "", str(tmp_path), ""))
    machine = Machine(lambda _command: (0, "authorizedkeysfile .ssh/authorized_keys\n"), str(tmp_path))
    state = machine.read_keys(me)
    assert str(path) not in state.keys
    assert state.sick.startswith(f"{path}: ")


def test_folder_in_which_a_link_could_be_laid_is_left_alone() -> None:
    _check_roots_own("/etc/ssh")
    with pytest.raises(PermissionError):
        _check_roots_own("/tmp/x")


def test_keys_of_the_gone_are_taken_also_from_those_whose_own_keys_are_not_known() -> None:
    person = Person("train", error="GitHub is down")
    now = State(HERS, "", {"/k": f"{ALICE}\n{BOB}\n", "/2": f"{BEGIN}\n{EVE}\n{END}\n"})
    state = wanted_state(person, now, set(), {fingerprint_of(BOB), fingerprint_of(EVE)})
    assert state.keys == {**now.keys, "/k": f"{ALICE}\n"}


@pytest.mark.parametrize("person", [Person("ops", groups=()), Person("ops", shell="/bin/false")])
def test_account_that_the_run_uses_loses_nothing_by_which_it_works(person: Person) -> None:
    now = Account(1000, 1000, frozenset({"sudo"}), "/bin/bash")
    with pytest.raises(FleetUsersError, match="this run logs in as ops"):
        check_account(person, now, ACCOUNTS, ME)
    check_account(Person("ops", groups=("sudo", "docker"), shell="/bin/bash"), now, ACCOUNTS, ME)


def test_home_is_kept_where_more_would_go_than_is_packed(tmp_path: pathlib.Path) -> None:
    machine = Machine(lambda _command: (0, ""), str(tmp_path))
    person = Person("bob", present=False, home="archive")
    machine.check_home(person, replace(HERS, home=str(tmp_path)))
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(FleetUsersError, match="it is a link"):
        machine.check_home(person, replace(HERS, home=str(tmp_path / "link")))
    with pytest.raises(FleetUsersError, match="is mounted in it"):
        machine.check_home(person, replace(HERS, home="/proc"))


def test_rule_of_a_user_that_was_made_to_log_in_is_not_that_of_a_person() -> None:
    names = ("a.b", "a_b", "login-a", "a")
    assert len({path(name) for path in (sudoers_path, login_sudoers_path) for name in names}) == 2 * len(names)
