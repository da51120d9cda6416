# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import re
from dataclasses import replace

import pytest
from ansible_collections.gpuops.fleet.plugins.module_utils._base.kexinit import Algorithms
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.process import run_command
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.client import (
    Route,
    Target,
    jump_host,
    login_command,
    parse_route,
    shared_command,
)

TARGET = Target("gpu-1", "192.0.2.7", port=2222, user="root", identity_file="/k/id")
ROUTE = Route("192.0.2.7", 2222, "root", "[192.0.2.7]:2222", "/k/known_hosts")
JUMP = replace(ROUTE, jump="bastion")


def test_route_of_ssh_config() -> None:
    text = (
        "user me\nhostname 192.0.2.7\nport 2222\nproxyjump a@b:1,c\nuserknownhostsfile /x/kh /x/kh2\n"
        "identitiesonly yes\nidentityfile /k/a\nidentityfile ~/b\nidentityagent none\nkexalgorithms k1,k2\n"
    )
    route = parse_route(text, replace(TARGET, port=None))
    assert (route.host, route.port, route.user, route.known_name) == ("192.0.2.7", 2222, "me", "[192.0.2.7]:2222")
    assert (route.known_hosts, route.via) == ("/x/kh", "ProxyJump a@b:1,c")
    assert (route.identity_files, route.identities_only) == (("/k/a", os.path.expanduser("~/b")), True)
    assert (route.identity_agent, route.algorithms) == ("", Algorithms(("k1", "k2"), (), (), ()))
    plain = parse_route("user me\nhostname n\nport 22\nproxycommand none\nhostkeyalias fleet-1\n", TARGET)
    assert (plain.known_name, plain.via) == ("fleet-1", "")


@pytest.mark.parametrize(
    ("jump", "expected"),
    [
        ("bastion", Target("bastion", "bastion")),
        ("me@bastion:2200", Target("bastion", "bastion", port="2200", user="me")),
        ("a@corp@bastion", Target("bastion", "bastion", user="a@corp")),
        ("[2001:db8::1]:22", Target("2001:db8::1", "2001:db8::1", port="22")),
        ("one,me@two", Target("two", "two", user="me", ssh_args=("-J", "one"))),
    ],
)
def test_jump_host(jump: str, expected: Target) -> None:
    assert jump_host(replace(ROUTE, jump=jump), Target("gpu-1", "n")) == expected


@pytest.mark.parametrize("arguments", [("-F", "/x/config"), ("-v", "-F/x/config", "-C")])
def test_a_jump_host_gets_the_configuration_file_and_nothing_else(arguments: tuple[str, ...]) -> None:
    node = Target("gpu-1", "n", identity_file="/k/id", host_key_alias="gpu-1", port=1, ssh_args=arguments)
    assert jump_host(replace(ROUTE, jump="b"), node) == Target("b", "b", ssh_config="/x/config")


def test_the_login_asks_nobody_and_writes_nothing() -> None:
    command = login_command(TARGET, "/s", command="/bin/sh")
    for option in ("BatchMode=yes", "StrictHostKeyChecking=yes", "UpdateHostKeys=no", "AddKeysToAgent=no"):
        assert command.index(option) < command.index("-i"), "the first value wins"
    assert command[-5:] == ["-S", "/s", "-T", "root@192.0.2.7", "/bin/sh"]


def test_what_cannot_share_the_login_makes_none_of_its_own() -> None:
    finished = run_command(shared_command("/nowhere/socket", "-W", "127.0.0.1:1"), 5)
    assert finished.rc == 255
    # Which of them it says depends on whether ssh speaks first, or the way has ended first.
    assert re.search(
        "Connection closed by UNKNOWN port 65535|Connection to UNKNOWN port 65535: Broken pipe", finished.stderr
    )


def test_the_shared_jump_host_replaces_those_of_the_arguments() -> None:
    target = replace(TARGET, ssh_args=("-J", "a", "-C", "-Jb"))
    command = login_command(target, "/s", proxy="ssh -S /hop x")
    assert "ProxyCommand=ssh -S /hop x" in command
    assert [word for word in command if word.startswith("-J") or word in ("a", "b")] == []
    assert "-C" in command
