# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.gpuops.fleet.plugins.module_utils._reach.words import (
    address_fault,
    alias_fault,
    jump_fault,
    port_fault,
    user_fault,
)


@pytest.mark.parametrize(
    ("find_fault", "words"),
    [
        (alias_fault, ["gpu-1", "GPU_1.rack-2", "1", "a" * 64]),
        (
            address_fault,
            ["192.0.2.1", "gpu.example.org", "2001:db8::1", "::1", "[::1]", "fe80::1%eth0", "%h.x", "_srv"],
        ),
        (user_fault, ["root", "CORP\\alice", "alice@corp.example", "a b-c".replace(" ", "."), "x_1", "host+1"]),
        (jump_fault, ["none", "bastion", "bob@j1:2222,j2", "bob@[2001:db8::1]:22", "ssh://bob@j:22", "a@corp@j"]),
        (port_fault, [1, 22, 65535, "22", "022"]),
    ],
)
def test_words_that_people_use(find_fault: t.Callable[[t.Any], str], words: list[t.Any]) -> None:
    assert {word: find_fault(word) for word in words} == dict.fromkeys(words, "")


@pytest.mark.parametrize(
    ("find_fault", "words"),
    [
        (
            alias_fault,
            ["", "g*", "g?", "!g", "rack1/gpu-3", "gpü", "-x", ".x", "_x", "a b", "x\n", "x -oProxyCommand=y"],
        ),
        (
            address_fault,
            ["", " ", "-x", "=x", "a b", "a\tb", "a\n", "a\0b", "x$(y)", "x`y`", "x;y", "x|y", "x&y", "x>y", "x<y"]
            + ['x"y', "x'y", "x\\y", "x#y", "x{y}", "a,b", "a\u2028b", "a\u202eb", "a\u00a0b"],
        ),
        (user_fault, ["", "-l", "a b", "u;v", "u$v", "u`v`", "u\\", "u'v", 'u"v', "u\nv", "u(v)"]),
        (
            jump_fault,
            ["", "a,", "a,,b", "x&y", "a,-b", "bob@-b", "-l@b", "none -oProxyCommand=y", "a,b$(c)", "a b"]
            + ["a@b@-oX", "ssh://a@b@-o", "x:99999", "x:0", "x:", "[::1", "::1", "@x"],
        ),
        (port_fault, ["", 0, 65536, -1, "22 -oProxyCommand=y", "ssh", "2 2", "22\n", None, True, "٢٢", 22.5]),
    ],
)
def test_words_that_ssh_or_a_shell_would_read_otherwise(
    find_fault: t.Callable[[t.Any], str], words: list[t.Any]
) -> None:
    assert [word for word in words if not find_fault(word)] == []
