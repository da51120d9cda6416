# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import pathlib
import pwd
import shlex
import typing as t

import pytest
from ansible_collections.gpuops.fleet.plugins.module_utils._reach.alias import resolve
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.config_hosts import (
    SshConfigError,
    host_names,
    host_variables,
    read_hosts,
    select_names,
)

HOME = pwd.getpwuid(os.getuid()).pw_dir
DEFAULTS = {
    "identityfile": ["~/.ssh/id_gpuops_a", "~/.ssh/id_gpuops_b"],
    "userknownhostsfile": ["/h/.ssh/known_hosts /h/.ssh/known_hosts2"],
    "addressfamily": ["any"],
}


def _write(path: pathlib.Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return str(path)


@pytest.fixture
def home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("Host a", ["a"]),
        ("Host a b a", ["a", "b"]),
        ("host a", ["a"]),
        ("HOST GPU-1", ["GPU-1"]),
        ("Host=a", ["a"]),
        ("Host = a b", ["a", "b"]),
        ('"Host" a', ["a"]),
        ("\tHost\ta\tb", ["a", "b"]),
        ("Host a\r", ["a"]),
        ("Host a   \t", ["a"]),
        ('Host "a" b', ["a", "b"]),
        ("Host 'a' b", ["a", "b"]),
        ('Host ga"m"ma', ["gamma"]),
        ("Host a # it's not b", ["a"]),
        ("Host a #b", ["a"]),
        ("Host 192.0.2.1 fe80::1", ["192.0.2.1", "fe80::1"]),
        ("Host a *.b ?c !d", ["a"]),
        ("Host *", []),
        ("Host !*.x *", []),
        ('Host "b c" -v ""', []),
        ("#Host a", []),
        ("  # Host a", []),
        ("Hostname a", []),
        ("HostKeyAlias a", []),
        ("Match host a", []),
        ("Match all\n  User x\nHost a", ["a"]),
        ("Match originalhost b exec true\nHost a c", ["a", "c"]),
        ("", []),
    ],
)
def test_names_of_a_file(tmp_path: pathlib.Path, line: str, names: list[str]) -> None:
    path = _write(tmp_path / "config", f"{line}\n  HostName %h.example\n")
    assert host_names(path) == names
    for name in names:
        assert resolve("ssh", path, name)["hostname"] == [f"{name.lower()}.example"]


@pytest.mark.parametrize(
    "line",
    [
        "Include extra",
        "include=extra",
        'Include "extra"',
        "Include ex*",
        "Include nothing extra",
        "Include ~/.ssh/extra",
        "Include {home}/.ssh/extra",
        "Host x*\n  Include extra",
        "Match host x\n  Include extra",
        "Include extra # 'quoted",
        "Include extra extra",
    ],
)
def test_included_files_count(home: pathlib.Path, line: str) -> None:
    _write(home / ".ssh/extra", "Host inner\n  User x\n")
    path = _write(home / "config", f"Host first\n{line.format(home=home)}\nHost last\n")
    assert host_names(path) == ["first", "inner", "last"]


def test_includes_may_nest_and_turn_in_circles(home: pathlib.Path) -> None:
    for level in range(16):
        _write(home / f".ssh/{level}", f"Host n{level}\nInclude {level + 1}\nInclude */../0\n")
    _write(home / ".ssh/dir/x", "Host never\n")
    assert host_names(str(home / ".ssh/0")) == [f"n{level}" for level in range(16)]


def test_an_included_file_that_cannot_be_read_is_left_out_as_ssh_does(home: pathlib.Path) -> None:
    (home / ".ssh/folder").mkdir(parents=True)
    assert host_names(_write(home / "config", "Include folder\nHost a\n")) == ["a"]


@pytest.mark.parametrize("name", ["missing", "folder"])
def test_a_file_that_cannot_be_read_is_an_error(tmp_path: pathlib.Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(SshConfigError, match=rf"^{tmp_path}/{name}: .* Next: ls -la {tmp_path}/{name}$"):
        host_names(str(tmp_path / name))


@pytest.mark.parametrize(
    ("include", "exclude", "left"),
    [
        (["*"], [], ["gpu-1", "gpu-2", "GPU-3", "bastion"]),
        (["gpu-*"], [], ["gpu-1", "gpu-2"]),
        (["gpu-[12]", "b*"], ["*-2"], ["gpu-1", "bastion"]),
        (["*"], ["*"], []),
        ([], [], []),
    ],
)
def test_globs(include: list[str], exclude: list[str], left: list[str]) -> None:
    assert select_names(["gpu-1", "gpu-2", "GPU-3", "bastion"], include, exclude) == left


def _variables(path: str = f"{HOME}/.ssh/config", **resolved: list[str]) -> dict[str, t.Any]:
    basis = {"hostname": ["192.0.2.1"], "port": ["22"], "user": ["me"]}
    return host_variables("gpu-1", {**DEFAULTS, **basis, **resolved}, DEFAULTS, path)


def test_the_plainest_host() -> None:
    assert _variables() == {
        "ansible_host": "192.0.2.1",
        "ansible_port": 22,
        "ansible_user": "me",
        "ansible_ssh_common_args": "",
    }


@pytest.mark.parametrize(
    ("resolved", "options"),
    [
        ({"proxyjump": ["a,me@b:33"]}, ["ProxyJump=a,me@b:33"]),
        ({"hostkeyalias": ["gpu-1"]}, ["HostKeyAlias=gpu-1"]),
        ({"userknownhostsfile": ["/k/1 /k/2"]}, ["UserKnownHostsFile=/k/1 /k/2"]),
        ({"userknownhostsfile": ["/dev/null"], "stricthostkeychecking": ["false"]}, []),
        ({"globalknownhostsfile": ["none"]}, []),
        ({"certificatefile": ["/c/1", "/c/2"]}, ["CertificateFile=/c/1", "CertificateFile=/c/2"]),
        ({"addressfamily": ["inet6"]}, ["AddressFamily=inet6"]),
        ({"proxycommand": ["via %h %p %n %%n '%r'"]}, ["ProxyCommand=via %h %p gpu-1 %%n '%r'"]),
        ({"remotecommand": ["tmux"], "localforward": ["1 [h]:2"], "controlpath": ["/s"], "forwardagent": ["yes"]}, []),
    ],
)
def test_what_else_leads_to_the_node(resolved: dict[str, list[str]], options: list[str]) -> None:
    variables = _variables(**resolved)
    words = shlex.split(variables["ansible_ssh_common_args"])
    assert (words[::2], words[1::2]) == (["-o"] * len(options), options)
    assert variables.get("ssh_bootstrap_proxy_jump") == resolved.get("proxyjump", [None])[0]


def test_one_address_behind_two_jump_hosts_is_two_connections() -> None:
    paths = [_variables(proxyjump=[jump])["ansible_control_path"] for jump in ("site-a", "site-b", "site-a")]
    assert paths[0] == paths[2] != paths[1]
    assert paths[0] % {"directory": "/cp"} == f"/cp/{paths[0][-10:]}"


def test_another_file_is_named_to_ssh() -> None:
    assert _variables("/etc/my fleet")["ansible_ssh_common_args"] == "-F '/etc/my fleet'"


@pytest.mark.parametrize(
    ("asked", "there", "key", "for_role", "others"),
    [
        (["{}/a"], ["a"], "a", "a", []),
        (["{}/a"], [], "a", None, []),
        (["{}/a", "{}/b"], ["b"], "b", "b", ["a"]),
        (["{}/a.pub"], ["a.pub"], "a.pub", None, []),
        (["{}/%n-%r-%p"], ["gpu-1-me-22"], "gpu-1-me-22", "gpu-1-me-22", []),
        (["none"], [], None, None, []),
    ],
)
def test_keys_that_were_configured(
    tmp_path: pathlib.Path, asked: list[str], there: list[str], key: str | None, for_role: str | None, others: list[str]
) -> None:
    for name in there:
        (tmp_path / name).touch()
    variables = _variables(identityfile=[file.format(tmp_path) for file in asked])
    assert variables.get("ansible_ssh_private_key_file") == (key and f"{tmp_path}/{key}")
    assert variables.get("ssh_bootstrap_key") == (for_role and f"{tmp_path}/{for_role}")
    options = shlex.split(variables["ansible_ssh_common_args"])
    assert [word for word in options if word != "-o"] == [f"IdentityFile={tmp_path}/{name}" for name in others]


@pytest.mark.parametrize(("there", "key"), [([], None), (["a"], "a"), (["b"], "b"), (["a", "b"], None)])
def test_a_usual_key_counts_only_alone(tmp_path: pathlib.Path, there: list[str], key: str | None) -> None:
    for name in there:
        (tmp_path / name).touch()
    usual = {"identityfile": [f"{tmp_path}/a", f"{tmp_path}/b"]}
    resolved = {"hostname": ["h"], "port": ["22"], "user": ["me"], **usual}
    variables = host_variables("gpu-1", resolved, usual, f"{HOME}/.ssh/config")
    assert variables.get("ssh_bootstrap_key") == (key and f"{tmp_path}/{key}")


def test_a_tilde_is_the_home_that_ssh_takes(home: pathlib.Path) -> None:
    assert _variables(identityfile=["~/.ssh/id_x"])["ansible_ssh_private_key_file"] == f"{HOME}/.ssh/id_x"


def test_values_come_from_ssh_itself(tmp_path: pathlib.Path) -> None:
    path = _write(
        tmp_path / "config",
        "Host gpu-1 gpu-2\n  HostName %h.example.org\n  IdentityFile /k/id\nMatch originalhost gpu-2\n  User two\n"
        "  ProxyJump gpu-1\nHost *\n  User all\n  Port 41022\n",
    )
    hosts = read_hosts("ssh", path, ["gpu-1", "gpu-2"])
    assert hosts["gpu-1"] == {
        "ansible_host": "gpu-1.example.org",
        "ansible_port": 41022,
        "ansible_user": "all",
        "ansible_ssh_common_args": f"-F {path}",
        "ansible_ssh_private_key_file": "/k/id",
    }
    assert hosts["gpu-2"]["ansible_user"] == "two"
    assert hosts["gpu-2"]["ssh_bootstrap_proxy_jump"] == "gpu-1"


def test_a_broken_configuration_is_one_message(tmp_path: pathlib.Path) -> None:
    path = _write(tmp_path / "config", "Host a b\n  Prot 22\n")
    with pytest.raises(SshConfigError) as caught:
        read_hosts("ssh", path, ["a", "b"])
    assert str(caught.value) == (
        f"a: ssh rejects {path}: {path}: line 2: Bad configuration option: prot; "
        f"{path}: terminating, 1 bad configuration options. Next: ssh -G -F {path} a"
    )
