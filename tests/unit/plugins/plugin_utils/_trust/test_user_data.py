# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import datetime
import typing as t

import pytest
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.user_data import Source, UserError, read_people

PIN = "SHA256:" + "a" * 43
URL = "https://github.com/alice.keys"


def test_a_person_without_anything_has_the_defaults_and_nothing_else() -> None:
    (alice,) = read_people([{"name": "alice"}])
    assert alice.others == {
        "name": "alice", "state": "present", "exclusive": False, "home": "keep", "end_sessions": False
    }  # fmt: skip
    assert (alice.present, alice.keys, alice.sources, alice.options, alice.expiry) == (True, (), (), "", None)


def test_what_is_for_the_nodes_is_handed_on_with_its_type() -> None:
    for_nodes = {
        "name": "alice", "state": "absent", "uid": "2001", "gid": 2001, "groups": [], "shell": "/bin/sh",
        "sudo": "ALL=ALL", "exclusive": True, "home": "archive", "end_sessions": True, "cert_accounts": ["a"],
        "cert_groups": ["gpu"],
    }  # fmt: skip
    (alice,) = read_people([{**for_nodes, "keys": ["k"], "options": {"pty": True}, "expiry": "2027-03-31"}])
    assert alice.others == {**for_nodes, "uid": 2001}
    assert alice.present is False


def test_a_source_is_a_url_or_more() -> None:
    more = {"url": URL, "team": "acme/gpu", "fingerprints": [PIN]}
    (alice,) = read_people([{"name": "alice", "sources": [URL, more]}])
    assert alice.sources == (Source(URL), Source(URL, "acme/gpu", frozenset([PIN])))
    assert Source("https://github.example/Alice.keys").login == "alice"


@pytest.mark.parametrize(
    "expiry",
    [
        "2027-03-31",
        "2027-03-31T12:30:00",
        datetime.date(2027, 3, 31),
        datetime.datetime(2027, 3, 31, 12, 30, tzinfo=datetime.timezone.utc),
    ],
)
def test_expiry_is_a_day_however_yaml_hands_it_over(expiry: object) -> None:
    (alice,) = read_people([{"name": "alice", "expiry": expiry}])
    assert alice.expiry == datetime.date(2027, 3, 31)


@pytest.mark.parametrize(
    ("options", "written"),
    [
        ({}, ""),
        ({"restrict": False}, ""),
        # sshd reads them in turn: what restrict forbids, a later pty allows again.
        ({"pty": True, "restrict": True}, "restrict,pty"),
        ({"from": ["10.0.0.0/8", "!10.1.1.1", "*.example.org"]}, 'from="10.0.0.0/8,!10.1.1.1,*.example.org"'),
        ({"command": 'echo "a b"'}, 'command="echo \\"a b\\""'),
        ({"environment": ["A=1", "B=x y"]}, 'environment="A=1",environment="B=x y"'),
        ({"permitopen": ["node:22", "[::1]:*"], "permitlisten": [8080]},
         'permitopen="node:22",permitopen="[::1]:*",permitlisten="8080"'),
        ({"cert-authority": True, "principals": ["alice@gpu", "x"]}, 'cert-authority,principals="alice@gpu,x"'),
        ({"tunnel": 0}, 'tunnel="0"'),
    ],
)  # fmt: skip
def test_options_are_written_as_sshd_reads_them(options: dict[str, t.Any], written: str) -> None:
    (alice,) = read_people([{"name": "alice", "options": options}])
    assert alice.options == written


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"name": "al ice"}, "a name is"),
        ({"name": "a" * 33}, "a name is"),
        ({"name": "../root"}, "a name is"),
        ({"name": "alice\n"}, "a name is"),
        ({"colour": "red"}, "unknown field colour"),
        ({"state": "gone"}, "value of state must be one of: present, absent"),
        ({"home": "burn"}, "value of home must be one of"),
        ({"uid": "x"}, "uid"),
        ({"expiry": "31.3.2027"}, "YYYY-MM-DD, not 31.3.2027"),
        ({"expiry": 20270331}, "YYYY-MM-DD, not 20270331"),
        ({"options": {"no-shell": True}}, "unknown to sshd: no-shell; known are restrict"),
        ({"options": {"expiry-time": "20270331"}}, "expiry"),
        ({"options": {"restrict": "yes"}}, "restrict is true or false"),
        ({"options": {"from": "10.0.0.0/8"}}, "from is a list"),
        ({"options": {"from": []}}, "not an empty one"),
        ({"options": {"from": ["10.0.0.1/8"]}}, "10.0.0.1/8 has host bits set"),
        ({"options": {"from": ["a,b"]}}, "from: sshd cannot read 'a,b'"),
        ({"options": {"command": "ls \\"}}, "command: sshd cannot read"),
        ({"options": {"command": "ls\nssh-ed25519 AAAA"}}, "command: sshd cannot read"),
        ({"options": {"command": "ls\x1b[0m"}}, "command: sshd cannot read"),
        ({"options": {"command": None}}, "command: sshd cannot read"),
        ({"options": {"environment": ["A B=1"]}}, "environment: sshd cannot read"),
        ({"options": {"permitopen": ["node"]}}, "permitopen: sshd cannot read"),
        ({"options": {"tunnel": "tun0"}}, "tunnel: sshd cannot read"),
        ({"sources": [7]}, "a source is a URL"),
        ({"sources": [{"team": "acme"}]}, "missing required arguments: url"),
        ({"sources": [{"url": URL, "pin": 1}]}, "unknown field pin"),
        ({"sources": [{"url": URL, "fingerprints": ["MD5:aa"]}]}, "no fingerprint .*MD5:aa"),
        ({"sources": [{"url": URL, "team": "acme/gpu/x"}]}, "team is ORGANISATION"),
        ({"sources": [{"url": "https://example.org/keys", "team": "acme"}]}, "LOGIN.keys"),
        ({"sources": ["http://example.org/alice.keys"]}, "not https"),
        ({"sources": ["file:///etc/passwd"]}, "https://"),
        ({"sources": ["https://example.org/a b"]}, "blanks"),
        ({"sources": ["https://[::1/a"]}, "not a URL"),
    ],
)
def test_what_is_wrong_is_told_with_the_name_of_the_person(fields: dict[str, t.Any], told: str) -> None:
    with pytest.raises(UserError, match=told) as error:
        read_people([{"name": "alice", **fields}])
    assert str(error.value).startswith(f"user {fields.get('name', 'alice')}: ")


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(UserError) as error:
        read_people(
            [
                {"name": "alice", "uid": 7},
                {"name": "bob", "uid": 7},
                {"name": "bob"},
                {"uid": 8},
                {"name": "eve", "x": 1},
            ]
        )
    problems = str(error.value)
    for told in (
        "uid 7 belongs to alice and bob",
        "user bob is in the list 2 times: as numbers [2, 3]",
        "user number 4: missing required arguments: name",
        "user eve: unknown field x",
    ):
        assert told in problems


def test_credentials_in_a_url_are_refused_and_not_repeated() -> None:
    with pytest.raises(UserError, match=r"a URL with credentials for git\.example") as error:
        read_people([{"name": "alice", "sources": ["https://me:hunter2@git.example/alice.keys"]}])
    assert "hunter2" not in str(error.value)
