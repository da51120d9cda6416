# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
import fcntl
import getpass
import multiprocessing
import os
import shutil
import stat
import typing as t
from pathlib import Path

import pytest
from ansible_collections.gpuops.fleet.plugins.module_utils._reach import alias as ssh_alias

SSH = shutil.which("ssh") or ""
needs_ssh = pytest.mark.skipif(not SSH, reason="no OpenSSH client on this machine")


def alias(name: str = "gpu-1", **params: t.Any) -> ssh_alias.Alias:
    return ssh_alias.parse_alias({"name": name, **params})


def own(*names: str) -> ssh_alias.OwnFile:
    return ssh_alias.OwnFile({name: ssh_alias.render_block(alias(name, port=2222)) for name in names}, frozenset())


def keepalive(profile: str | None = None, interval: int | None = None, count: int | None = None) -> dict[str, t.Any]:
    return {"profile": profile, "interval": interval, "count": count}


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"name": ""}, "empty"),
        ({"name": "  "}, "empty"),
        ({"name": "!gpu-1"}, "only negated"),
        ({"name": "gpu-1\ngpu-2"}, "newline"),
        ({"name": '"gpu 1"'}, "no name or pattern"),
        ({"name": "gpu'1"}, "no name or pattern"),
        ({"name": "gpu#1"}, "no name or pattern"),
        ({"name": "-oProxyCommand=x"}, "no name or pattern"),
        ({"name": "root@gpu-1"}, "no name or pattern"),
        ({"port": 0}, "not between 1 and 65535"),
        ({"port": 65536}, "not between 1 and 65535"),
        ({"hostname": "a b"}, "blank"),
        ({"hostname": "-oProxyCommand=x"}, "starts with '-'"),
        ({"hostname": ""}, "hostname is empty"),
        ({"hostname": "x$(touch touched)"}, "holds '\\$'"),
        ({"hostname": "x`touch touched`"}, "holds '`'"),
        ({"hostname": "a,b"}, "holds ','"),
        ({"host_key_alias": "x;touch"}, "holds ';'"),
        ({"proxy_jump": "x&touch"}, "holds '&'"),
        ({"proxy_jump": "a,bob@-oProxyCommand=x"}, "starts with '-'"),
        ({"proxy_jump": "a,,b"}, "is empty"),
        ({"user": "u;touch"}, "holds ';'"),
        ({"user": "bob\nProxyCommand x"}, "newline"),
        ({"user": "bob\0"}, "control character"),
        ({"identity_file": ["~/.ssh/id", 'a"b']}, "double quote"),
        ({"identity_file": ["a\\"]}, "backslash"),
        ({"options": {"ProxyCommand": "a\nb"}}, "newline"),
        ({"options": {"SendEnv": ["A", "B\nHost *"]}}, "newline"),
        ({"options": {"Host": "x"}}, "would end the block"),
        ({"options": {"match": "all"}}, "would end the block"),
        ({"options": {"Include": "x"}}, "would end the block"),
        ({"options": {"HostName": "x"}}, "option of its own, hostname"),
        ({"options": {"Compression": True, "compression": False}}, "there twice"),
        ({"options": {"Port 22": "x"}}, "not an ssh_config keyword"),
        ({"options": {"Compression": None}}, "neither a scalar nor a list"),
        ({"options": {"SetEnv": {"A": "b"}}}, "neither a scalar nor a list"),
        ({"options": {"LocalForward": "1 a:1"}}, "option of its own, local_forward"),
        ({"local_forward": ["1 a:1\nProxyCommand x"]}, "newline"),
        ({"connect_timeout": 0}, "not at least 1 second"),
        ({"keepalive": keepalive(interval=0, count=1)}, "interval 0 is not at least 1"),
        ({"keepalive": keepalive(interval=1, count=-1)}, "count -1 is not at least 1"),
        ({"keepalive": keepalive("bounded"), "options": {"tcpkeepalive": True}}, "there twice"),
        ({"jump_hosts": ["a b"]}, "not an alias"),
        ({"jump_hosts": ["a"], "proxy_jump": "b"}, "ProxyJump are two ways"),
        ({"jump_hosts": ["a"], "options": {"proxycommand": "b"}}, "proxycommand are two ways"),
        ({"direct": "allow"}, "no jump_hosts"),
    ],
)
def test_refused_with_the_alias_and_the_reason(params: dict[str, t.Any], reason: str) -> None:
    with pytest.raises(ssh_alias.AliasError, match=reason) as error:
        alias(**params)
    assert repr(params.get("name", "gpu-1")) in str(error.value)


def test_same_name_twice_is_refused() -> None:
    with pytest.raises(ssh_alias.AliasError, match="gpu-1: the same name twice"):
        ssh_alias.refuse_duplicates(["gpu-1", "gpu-2", "gpu-1"])


@pytest.mark.parametrize(
    ("params", "lines"),
    [
        ({}, []),
        ({"hostname": "192.0.2.1", "port": 22, "user": "DOM\\bob"}, ["HostName 192.0.2.1", "Port 22", "User DOM\\bob"]),
        ({"identities_only": False}, ["IdentitiesOnly no"]),
        ({"identity_file": ["~/a b", "c", "c"]}, ['IdentityFile "~/a b"', "IdentityFile c"]),
        ({"known_hosts_file": "/x#y"}, ['UserKnownHostsFile "/x#y"']),
        ({"options": {"ServerAliveInterval": 15, "Compression": True}}, ["ServerAliveInterval 15", "Compression yes"]),
        ({"options": {"SetEnv": ["A=b c", "B=d"]}}, ['SetEnv "A=b c" B=d']),
        ({"local_forward": ["1 a:1", "2 b:2"]}, ["LocalForward 1 a:1", "LocalForward 2 b:2"]),
        ({"options": {"ProxyCommand": 'sh -c "nc %h %p" # x'}}, ['ProxyCommand sh -c "nc %h %p" # x']),
        ({"options": {"UserKnownHostsFile2": "x"}}, ["UserKnownHostsFile2 x"]),
        ({"certificate_file": ["a b", "c"]}, ['CertificateFile "a b"', "CertificateFile c"]),
        ({"remote_forward": ["9", "10 a:1"]}, ["RemoteForward 9", "RemoteForward 10 a:1"]),
        ({"dynamic_forward": ["1080", "[::1]:1081"]}, ["DynamicForward 1080", "DynamicForward [::1]:1081"]),
        (
            {"keepalive": keepalive("interactive")},
            ["ServerAliveInterval 60", "ServerAliveCountMax 120", "TCPKeepAlive no"],
        ),
        ({"keepalive": keepalive("bounded")}, ["ServerAliveInterval 15", "ServerAliveCountMax 4", "TCPKeepAlive yes"]),
        ({"keepalive": keepalive("transfer")}, ["ServerAliveInterval 5", "ServerAliveCountMax 3", "TCPKeepAlive yes"]),
        (
            {"keepalive": keepalive(interval=20, count=5), "options": {"TCPKeepAlive": False}},
            ["ServerAliveInterval 20", "ServerAliveCountMax 5", "TCPKeepAlive no"],
        ),
        (
            {"control_master": "auto", "control_path": "~/.ssh/%C", "control_persist": "10m", "connect_timeout": 5},
            ["ConnectTimeout 5", "ControlMaster auto", "ControlPath ~/.ssh/%C", "ControlPersist 10m"],
        ),
        ({"control_persist": "True"}, ["ControlPersist yes"]),
        ({"jump_hosts": ["a", "b"]}, ["# jump_hosts: a b; direct: forbid"]),
        ({"jump_hosts": []}, []),
    ],
)
def test_block(params: dict[str, t.Any], lines: list[str]) -> None:
    assert ssh_alias.render_block(alias(**params)).splitlines() == ["Host gpu-1", *(f"  {line}" for line in lines)]


@needs_ssh
@pytest.mark.parametrize(
    ("params", "keyword", "expected"),
    [
        ({"hostname": "GPU.example.org"}, "hostname", ["gpu.example.org"]),
        ({"hostname": "%h.example.org"}, "hostname", ["gpu-1.example.org"]),
        ({"hostname": "2001:db8::1"}, "hostname", ["2001:db8::1"]),
        ({"user": "DOM\\bob"}, "user", ["DOM\\bob"]),
        ({"identity_file": ["a b", "it's", "c#d", "=e"]}, "identityfile", ["a b", "it's", "c#d", "=e"]),
        ({"host_key_alias": "fleet-1"}, "hostkeyalias", ["fleet-1"]),
        ({"known_hosts_file": "/x y"}, "userknownhostsfile", ["/x y"]),
        ({"proxy_jump": "bob@j1:2222,j2"}, "proxyjump", ["bob@j1:2222,j2"]),
        ({"options": {"SetEnv": ["A=b c", "B=#"]}}, "setenv", ["A=b c", "B=#"]),
        ({"options": {"SendEnv": "LANG LC_*"}}, "sendenv", ["LANG", "LC_*"]),
        ({"local_forward": ["1 a:1", "2 b:2"]}, "localforward", ["1 [a]:1", "2 [b]:2"]),
        ({"options": {"IPQoS": "lowdelay throughput"}}, "ipqos", ["lowdelay throughput"]),
        ({"options": {"RekeyLimit": ["1G", "1h"]}}, "rekeylimit", ["1073741824 3600"]),
        ({"options": {"ProxyCommand": "nc %h %p # x"}}, "proxycommand", ["nc %h %p # x"]),
        ({"options": {"IdentityAgent": "/a b"}}, "identityagent", ["/a b"]),
        ({"options": {"GlobalKnownHostsFile": ["/a b", "/c"]}}, "globalknownhostsfile", ["/a b /c"]),
        ({"certificate_file": ["/a b", "/c#d"]}, "certificatefile", ["/a b", "/c#d"]),
        ({"remote_forward": ["9", "10 a:1"]}, "remoteforward", ["9 [socks]:0", "10 [a]:1"]),
        ({"dynamic_forward": ["1080"]}, "dynamicforward", ["1080"]),
        ({"keepalive": keepalive("interactive")}, "serveralivecountmax", ["120"]),
        ({"connect_timeout": 5}, "connecttimeout", ["5"]),
        ({"control_persist": "10m"}, "controlpersist", ["600"]),
        ({"control_master": "auto"}, "controlmaster", ["auto"]),
        ({"control_path": "/a b/%r"}, "controlpath", [f"/a b/{getpass.getuser()}"]),
    ],
)
def test_ssh_reads_a_block_as_asked(
    params: dict[str, t.Any], keyword: str, expected: list[str], tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text(ssh_alias.render_block(alias(**params)))
    assert ssh_alias.resolve(SSH, str(config), "gpu-1")[keyword] == expected
    ssh_alias.verify(SSH, str(config), [(alias(**params), "gpu-1")], str(tmp_path))


@pytest.mark.parametrize(
    ("params", "fits"),
    [
        ({"control_path": "/" + "x" * 85}, True),
        ({"control_path": "/" + "x" * 86}, False),
        ({"control_path": "/" + "é" * 43}, False),
        ({"control_path": "/%C" + "x" * 45}, True),
        ({"control_path": "/%C" + "x" * 46}, False),
        ({"control_path": "/%r@%h:%p", "hostname": "h" * 60, "user": "u" * 21, "port": 22}, True),
        ({"control_path": "/%r@%h:%p", "hostname": "h" * 60, "user": "u" * 22, "port": 22}, False),
        ({"control_path": "/%h", "hostname": "%h." + "x" * 79}, True),
        ({"control_path": "/%h", "hostname": "%h." + "x" * 80}, False),
        ({"control_path": "/%%" + "x" * 84}, True),
        ({"control_path": "${GPUOPS_TEST}/x"}, False),
        ({"control_path": "~/" + "x" * 86}, False),
        ({"control_path": "/%n%n", "name": "short " + "n" * 43}, False),
        ({"control_path": "/" + "x" * 86, "name": "gpu-*"}, True),
        ({"control_path": "none"}, True),
    ],
)
def test_control_path_has_to_fit_into_a_socket(
    params: dict[str, t.Any], fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPUOPS_TEST", "/" + "e" * 100)
    asked = ssh_alias.parse_alias({"name": "gpu-1", **params})
    if fits:
        ssh_alias.check_socket(asked)
    else:
        with pytest.raises(ssh_alias.AliasError, match=r"[0-9]+ bytes; there is room for 86.*control_path=~/.ssh/%C"):
            ssh_alias.check_socket(asked)


def test_probe_names_the_configuration_that_is_not_the_default() -> None:
    home = Path("~").expanduser()
    assert ssh_alias.probe_command("/d/config.d", f"{home}/.ssh/config") == "sh /d/config.d/.gpuops-reach"
    assert ssh_alias.probe_command("/a b", "/a b/config") == "sh '/a b/.gpuops-reach' -F '/a b/config'"
    with pytest.raises(ssh_alias.AliasError, match="set path to another directory"):
        ssh_alias.probe_command("/a", "/a/b'c")


def test_own_file_is_read_back_byte_for_byte() -> None:
    jumps = {name: ssh_alias.render_block(alias(name, jump_hosts=["a"])) for name in ("gpu-4", "gpu-5", "x-*", "y-*")}
    blocks = {**own("gpu-*", "gpu-1", "gpu-2 gpu-3").blocks, **jumps}
    first = ssh_alias.OwnFile(blocks, frozenset({"config", "directory"}))
    content = ssh_alias.render_own(first, "true")
    again = ssh_alias.parse_own(content, "gpuops.conf")
    assert (again.blocks, again.made) == (first.blocks, first.made)
    assert ssh_alias.render_own(again, "true") == content


def test_wildcards_come_after_plain_names() -> None:
    content = ssh_alias.render_own(own("gpu-*", "gpu-1", "gpu-? !gpu-3", "gpu-2"), "true").decode()
    assert [line[5:] for line in content.splitlines() if line.startswith("Host ")] == [
        "gpu-1",
        "gpu-2",
        "gpu-*",
        "gpu-? !gpu-3",
    ]


def test_foreign_own_file_is_refused() -> None:
    with pytest.raises(ssh_alias.AliasError, match="not written by gpuops.fleet; move it away: mv /x/gpuops.conf"):
        ssh_alias.parse_own(b"Host mine\n", "/x/gpuops.conf")


@pytest.mark.parametrize(
    ("main", "expected"),
    [
        (b"", b"I\n"),
        (b"Host a\n Port 1", b"I\nHost a\n Port 1"),
        (b"Host a\r\n Port 1\r\n", b"I\r\nHost a\r\n Port 1\r\n"),
        (b"# c\nI\nHost a\n", b"I\n# c\nHost a\n"),
        (b"I\nI\n", b"I\n"),
        (b"Host a\n  I\n#I\n", b"I\nHost a\n  I\n#I\n"),
    ],
)
def test_include_line_is_there_once_and_first(main: bytes, expected: bytes) -> None:
    assert ssh_alias.with_include(main, b"I") == expected
    assert ssh_alias.with_include(expected, b"I") == expected
    assert ssh_alias.without_include(expected, b"I") == ssh_alias.without_include(main, b"I")


@pytest.mark.parametrize("path", ["/a*/x", "/a[1]/x", '/a"/x', "/a%h/x", "/a\n/x", "/${A}/x"])
def test_include_refuses_a_path_that_ssh_would_expand(path: str) -> None:
    with pytest.raises(ssh_alias.AliasError, match="set path to another directory"):
        ssh_alias.include_line(path)


@needs_ssh
def test_ssh_refusal_is_its_own_line(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("Host a\n  Prot 22\n")
    with pytest.raises(ssh_alias.AliasError, match="line 2: Bad configuration option: prot.*Next: ssh -G -F"):
        ssh_alias.check_config(SSH, str(config), config.read_bytes())


@needs_ssh
@pytest.mark.parametrize(
    ("config", "params", "keyword"),
    [
        ("Host gpu-1\n User bob\nHost *\n User root\n", {"user": "root"}, "user"),
        ("Host gpu-1\n Port 23\n", {"port": 22}, "port"),
        ("Host gpu-1\n IdentityFile b\n IdentityFile a\n", {"identity_file": ["a", "b"]}, "identityfile"),
        ("Host gpu-1\n ProxyJump b\n", {"proxy_jump": "a"}, "proxyjump"),
        ("Host gpu-1\n SendEnv B A\n", {"options": {"SendEnv": "A"}}, "sendenv"),
        ("Host gpu-1\n ControlPath /a-%r\n", {"control_path": "/b-%r"}, "controlpath"),
    ],
)
def test_verify_shows_asked_and_got(config: str, params: dict[str, t.Any], keyword: str, tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(config)
    with pytest.raises(ssh_alias.AliasError, match=f"alias gpu-1: asked for {keyword} .*, but ssh -G gives "):
        ssh_alias.verify(SSH, str(path), [(alias(**params), "gpu-1")], str(tmp_path))


@needs_ssh
def test_verify_lets_the_users_own_settings_fill_in(tmp_path: Path) -> None:
    path = tmp_path / "config"
    asked = alias(identity_file=["a"], control_path="/s/%r@%h:%p", options={"SendEnv": ["A"]})
    path.write_text(
        ssh_alias.render_block(asked) + "Host *\n User bob\n Port 23\n HostName x.y\n IdentityFile b\n SendEnv B\n"
    )
    ssh_alias.verify(SSH, str(path), [(asked, "gpu-1")], str(tmp_path))


def test_few_names_are_all_verified() -> None:
    aliases = [alias(f"gpu-{index}", port=22) for index in range(ssh_alias.VERIFY_ALL)] + [alias("*", port=22)]
    hosts = ssh_alias.hosts_to_verify(aliases, own(*(item.name for item in aliases)))
    assert len(hosts) == ssh_alias.VERIFY_ALL


def test_many_names_are_verified_by_shape() -> None:
    aliases = [alias(f"gpu-{index}", hostname=f"10.0.0.{index}", port=1 + index) for index in range(1000)]
    aliases += [alias("odd", identity_file=["a"]), alias("gpu-x gpu-7", user="bob")]
    blocks = {item.name: ssh_alias.render_block(item) for item in aliases}
    hosts = [host for _alias, host in ssh_alias.hosts_to_verify(aliases, ssh_alias.OwnFile(blocks, frozenset()))]
    assert "odd" in hosts
    assert hosts.count("gpu-7") == 2
    assert len(hosts) == 5


def test_commit_is_all_or_nothing(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"old")
    second.mkdir()
    with pytest.raises(OSError, match="directory"):
        ssh_alias.commit(
            [
                ssh_alias.Change(str(first), b"old", b"new", 0o640),
                ssh_alias.Change(str(second), None, b"new", 0o600),
            ]
        )
    assert first.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second"]


def test_commit_sets_the_mode_whatever_the_umask(tmp_path: Path) -> None:
    umask = os.umask(0o077)
    try:
        ssh_alias.commit([ssh_alias.Change(str(tmp_path / "config"), None, b"x", 0o644)])
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "config").stat().st_mode) == 0o644


def _count_up(directory: str, rounds: int) -> None:
    for _round in range(rounds):
        with ssh_alias.locked(directory):
            counter = Path(directory, "counter")
            counter.write_text(str(int(counter.read_text()) + 1))


def test_lock_lets_one_in_and_leaves_nothing(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_count_up, args=(str(tmp_path), 25)) for _index in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert counter.read_text() == "75"
    assert list(tmp_path.iterdir()) == [counter]


def test_lock_on_a_removed_file_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / ssh_alias.LOCK_FILE
    flock, calls = fcntl.flock, []

    def flock_after_the_holder_left(descriptor: int, operation: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            lock.unlink()
            lock.touch()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock_after_the_holder_left)
    with ssh_alias.locked(str(tmp_path)):
        assert len(calls) == 2


def test_lock_gives_up_with_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_alias, "LOCK_SECONDS", 0)
    refused = pytest.raises(ssh_alias.AliasError, match="locked by another run.*fuser -v")
    with ssh_alias.locked(str(tmp_path)), refused, ssh_alias.locked(str(tmp_path)):
        pass


@pytest.mark.parametrize(("number", "command"), [(errno.ENOSPC, "df -h '/d'"), (errno.EACCES, "ls -la '/d'")])
def test_file_system_errors_name_the_next_command(number: int, command: str) -> None:
    message = ssh_alias.explain(OSError(number, os.strerror(number), "/d/.config"), "/d/config")
    assert message == f"/d/.config: {os.strerror(number)}; both files are as before. Next: {command}"
