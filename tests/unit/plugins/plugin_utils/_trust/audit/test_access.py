# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.audit.access import (
    Access,
    Account,
    MatchLine,
    match_specs,
)

PEOPLE = (Account("root", 0, 0, "/root"), Account("gpu", 1000, 50, "/home/gpu"))
GROUPS = (("staff", "50", ()), ("wheel", "51", ("alice",)), ("empty", "52", ()))


def doors_with(criteria: str) -> Access:
    return Access(uid=0, accounts=PEOPLE, groups=GROUPS, matches=(MatchLine("f:1", criteria),))


@pytest.mark.parametrize(
    ("criteria", "wanted"),
    [
        ("all", [("root", "203.0.113.1", "22"), ("gpu", "203.0.113.1", "22")]),
        ("User backup", [("backup", "203.0.113.1", "22")]),
        ("User=backup,root", [("backup", "203.0.113.1", "22")]),
        ('User "!root,dev-*"', [("dev-x", "203.0.113.1", "22")]),
        ("user backup Address 10.0.0.0/8 # note", [("backup", "10.0.0.0", "22")]),
        ("Address 192.168.?.*", [("root", "192.168.1.1", "22"), ("gpu", "192.168.1.1", "22")]),
        ("Address *,!10.*", [("root", "203.0.113.1", "22"), ("gpu", "203.0.113.1", "22")]),
        ("Address fd00::/8 User a", [("a", "fd00::", "22")]),
        ("LocalPort 2222 User a", [("a", "203.0.113.1", "2222")]),
        ("Group wheel", [("alice", "203.0.113.1", "22")]),
        ("Group sta*", [("gpu", "203.0.113.1", "22")]),
        ("Group *,!staff", [("alice", "203.0.113.1", "22")]),
        ("Group empty", []),
        ("User !root", []),
    ],
)
def test_a_connection_is_found_that_a_match_block_applies_to(criteria: str, wanted: list[t.Any]) -> None:
    specs, untestable = match_specs(doors_with(criteria))
    parts = [dict(part.split("=", 1) for part in spec.split(",")) for _line, spec in specs]
    assert [(part["user"], part["addr"], part["lport"]) for part in parts] == wanted
    assert not untestable


@pytest.mark.parametrize("criteria", ["invalid-user", 'User "open', "RDomain 3", "User a Version OpenSSH_9*", "User"])
def test_a_match_block_that_cannot_be_tried_is_not_forgotten(criteria: str) -> None:
    assert match_specs(doors_with(criteria)) == ([], [MatchLine("f:1", criteria)])
