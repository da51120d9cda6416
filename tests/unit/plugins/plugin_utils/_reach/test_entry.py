# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.entry import EntryError, check_entry

ENTRY = {"name": "gpu-1", "hostname": "192.0.2.11", "port": "22", "user": "root", "connect_timeout": "10"}


def test_entry_as_ssh_alias_takes_it() -> None:
    given = {**ENTRY, "proxy_jump": "", "jump_hosts": "bastion-1, bastion-2", "direct": "allow", "identity_file": None}
    assert check_entry("gpu-1", given) == {
        "name": "gpu-1",
        "hostname": "192.0.2.11",
        "port": 22,
        "user": "root",
        "connect_timeout": 10,
        "jump_hosts": ["bastion-1", "bastion-2"],
        "direct": "allow",
    }


def test_zone_of_an_address_is_no_token_of_the_configuration() -> None:
    assert check_entry("gpu-1", {**ENTRY, "hostname": "fe80::1%eth0"})["hostname"] == "fe80::1%%eth0"


@pytest.mark.parametrize("host", ["gpu-1", "gpu node 1", "rack1/gpu-3", "2001:db8::1"])
def test_name_of_the_inventory_may_be_another_one(host: str) -> None:
    assert check_entry(host, ENTRY)["name"] == "gpu-1"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "rack1/gpu-3"}, "the alias (ssh_bootstrap_alias, else the name of the node) is 'rack1/gpu-3', which"),
        ({"hostname": ""}, "ansible_host is '', which is no address"),
        ({"hostname": None}, "ansible_host is None, which is no address"),
        ({"hostname": "127.0.0.1$(touch x)"}, "ansible_host is '127.0.0.1$(touch x)', which holds '$'"),
        (
            {"port": "2222 -oProxyCommand=x"},
            "ansible_port is '2222 -oProxyCommand=x', which is not a whole number",
        ),
        ({"user": "pw3$(touch x)"}, "ansible_user is 'pw3$(touch x)', which holds '$'"),
        (
            {"proxy_jump": "none -oProxyCommand=x"},
            "ssh_bootstrap_proxy_jump is 'none -oProxyCommand=x', which holds a blank",
        ),
        ({"port": ""}, "ansible_port is '', which is not a whole number from 1 to 65535"),
        ({"name": None}, "else the name of the node) is None, which is not made of"),
        ({"name": 5.5, "port": None, "hostname": [1]}, "ansible_host is [1], which is not one value"),
        ({"proxy_jump": "x:99999"}, "ssh_bootstrap_proxy_jump is 'x:99999', which is not a whole number"),
        ({"jump_hosts": ["a b"]}, "ssh_bootstrap_jump_hosts has 'a b', which is not an alias or [user@]host[:port]"),
        ({"jump_hosts": [["a", "b"]]}, "ssh_bootstrap_jump_hosts has ['a', 'b'], which is not an alias"),
        ({"jump_hosts": {"a": 1}}, "ssh_bootstrap_jump_hosts is {'a': 1}, which is not a list"),
        ({"jump_hosts": ["a"], "proxy_jump": "b"}, "jump_hosts and ProxyJump are two ways to the same host"),
        ({"connect_timeout": 0}, "ssh_bootstrap_timeout is 0, which is not a whole number from 1 to 86400"),
        ({"connect_timeout": 99999999999}, "ssh_bootstrap_timeout is 99999999999, which is not a whole number"),
    ],
)
def test_refused_by_the_name_of_the_variable(changes: dict[str, t.Any], words: str) -> None:
    with pytest.raises(EntryError) as refused:
        check_entry("gpu-7", {**ENTRY, **changes})
    message = str(refused.value)
    assert message.startswith("gpu-7: ")
    assert words in message
    assert message.endswith("Next: ansible-inventory --host gpu-7, and correct it there")


def test_all_faults_at_once_and_a_command_that_can_be_pasted() -> None:
    with pytest.raises(EntryError) as refused:
        check_entry("a;b", {**ENTRY, "user": "x y", "port": 0}, first_user="-l")
    message = str(refused.value)
    for variable in ("ansible_port", "ansible_user", "ssh_bootstrap_first_user", "the name of the node"):
        assert f"{variable} is " in message
    assert "Next: ansible-inventory --host 'a;b'" in message
