# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import pwd
import resource
import shutil
import stat
import subprocess
import tempfile
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.gpuops.fleet.plugins.module_utils._reach import alias as ssh_alias_utils
from ansible_collections.gpuops.fleet.plugins.modules import ssh_alias
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if t.TYPE_CHECKING:
    from collections.abc import Iterator

SSH = shutil.which("ssh") or ""
pytestmark = pytest.mark.skipif(not SSH, reason="no OpenSSH client on this machine")
VERSION = ssh_alias_utils.ssh_version(SSH) if SSH else ""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")

USER_CONFIG = b"# mine\nHost web *.example.org\n\tUser  bob # me\n  SetEnv FOO=Bar\nMatch host db\n  Port 2200\n"
GPU_1: dict[str, t.Any] = {"name": "gpu-1", "hostname": "192.0.2.1", "port": 2201, "user": "root"}
GPU_2: dict[str, t.Any] = {"name": "gpu-2", "hostname": "192.0.2.2"}


def run(path: Path, *, check: bool = False, **params: t.Any) -> dict[str, t.Any]:
    args = {"path": str(path), **params, "_ansible_check_mode": check, "_ansible_diff": True}
    output = io.StringIO()
    with patch_module_args(args), contextlib.redirect_stdout(output), pytest.raises(SystemExit):
        ssh_alias.main()
    return t.cast("dict[str, t.Any]", json.loads(output.getvalue()))


def resolve(path: Path, host: str) -> str:
    command = [SSH, "-G", "-F", str(path), host]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    return result.stdout.decode(errors="surrogateescape")


def tree(directory: Path) -> dict[str, tuple[int, bytes | str]]:
    """All that is below a directory: mode, and content or link target."""
    found: dict[str, tuple[int, bytes | str]] = {}
    for path in sorted(directory.rglob("*")):
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else ""
        found[str(path.relative_to(directory))] = (stat.S_IMODE(path.lstat().st_mode), content)
    return found


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A user's configuration in a directory of its own."""
    directory = tmp_path / ".ssh"
    directory.mkdir(0o700)
    path = directory / "config"
    path.write_bytes(USER_CONFIG)
    path.chmod(0o644)
    return path


def test_one_alias(config: Path) -> None:
    result = run(config, **GPU_1)
    own = config.parent / "config.d" / "gpuops.conf"
    assert (result["changed"], result["aliases"], result["shadows"]) == (True, ["gpu-1"], [])
    assert (result["path"], result["aliases_file"]) == (str(config), str(own))
    assert config.read_bytes() == f"Include {own}\n".encode() + USER_CONFIG
    assert stat.S_IMODE(own.stat().st_mode) == 0o600
    assert stat.S_IMODE(own.parent.stat().st_mode) == 0o700
    assert {"hostname 192.0.2.1", "port 2201", "user root"} <= set(resolve(config, "gpu-1").splitlines())
    assert sorted(path.name for path in config.parent.rglob("*")) == ["config", "config.d", "gpuops.conf"]


def test_second_run_changes_nothing(config: Path) -> None:
    aliases = [GPU_1, GPU_2, {"name": "gpu-* !gpu-9", "user": "ubuntu", "options": {"SendEnv": ["A", "B"]}}]
    run(config, aliases=aliases)
    before = tree(config.parent)
    result = run(config, aliases=list(reversed(aliases)))
    assert (result["changed"], result["diff"]) == (False, [])
    assert tree(config.parent) == before


def test_a_run_for_some_keeps_the_others(config: Path) -> None:
    run(config, aliases=[GPU_1, GPU_2])
    run(config, **{**GPU_1, "port": 2299})
    assert "\nport 2299\n" in resolve(config, "gpu-1")
    assert "\nhostname 192.0.2.2\n" in resolve(config, "gpu-2")
    run(config, name="gpu-1", state="absent")
    assert "\nhostname gpu-1\n" in resolve(config, "gpu-1")
    assert "\nhostname 192.0.2.2\n" in resolve(config, "gpu-2")


def test_plain_names_win_over_wildcards_of_the_same_list(config: Path) -> None:
    run(config, aliases=[{"name": "gpu-*", "user": "ubuntu", "port": 22}, {"name": "gpu-1", "user": "root"}])
    assert "user root\n" in resolve(config, "gpu-1")
    assert "user ubuntu\n" in resolve(config, "gpu-2")


@pytest.mark.parametrize("user_config", [USER_CONFIG, b"", None, b"Host a\r\n Port 1\r\n", b"Host a\n  Port 1"])
def test_absent_leaves_no_trace(tmp_path: Path, user_config: bytes | None) -> None:
    path = tmp_path / ".ssh" / "config"
    if user_config is not None:
        path.parent.mkdir(0o700)
        path.write_bytes(user_config)
    before = tree(tmp_path)
    run(path, aliases=[GPU_1, GPU_2])
    assert path.exists()
    assert run(path, name="gpu-1", state="absent")["changed"]
    assert tree(tmp_path) != before
    assert run(path, name="gpu-2", state="absent")["changed"]
    assert tree(tmp_path) == before
    assert not run(path, name="gpu-2", state="absent")["changed"]


def test_absent_removes_what_a_killed_run_left(config: Path) -> None:
    own = Path(run(config, **GPU_1)["aliases_file"])
    (own.parent / ".gpuops.conf.gpuops-new").write_bytes(b"half")
    (config.parent / ".gpuops.lock").touch()
    run(config, name="gpu-1", state="absent")
    assert list(config.parent.iterdir()) == [config]


def test_absent_keeps_a_directory_of_the_user(config: Path) -> None:
    (config.parent / "config.d").mkdir(0o755)
    before = tree(config.parent)
    run(config, **GPU_1)
    run(config, name="gpu-1", state="absent")
    assert tree(config.parent) == before


def test_absent_works_on_a_broken_configuration(config: Path) -> None:
    run(config, **GPU_1)
    broken = config.read_bytes() + b"Nonsense\n"
    config.write_bytes(broken)
    assert run(config, name="gpu-1", state="absent")["changed"]
    assert config.read_bytes() == USER_CONFIG + b"Nonsense\n"


def test_new_configuration_is_private(tmp_path: Path) -> None:
    path = tmp_path / ".ssh" / "config"
    run(path, **GPU_1)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("exists", [True, False])
def test_check_mode_says_what_a_run_does(tmp_path: Path, exists: bool) -> None:
    path = tmp_path / ".ssh" / "config"
    if exists:
        path.parent.mkdir(0o700)
        path.write_bytes(USER_CONFIG)
    for params in (
        {"aliases": [GPU_1, GPU_2]},
        {"name": "gpu-1", "state": "absent"},
        {"name": "gpu-2", "state": "absent"},
    ):
        before = tree(tmp_path)
        predicted = run(path, check=True, **params)
        assert tree(tmp_path) == before
        done = run(path, **params)
        assert [predicted[key] for key in ("changed", "aliases", "diff")] == [
            done[key] for key in ("changed", "aliases", "diff")
        ]
        for diff in done["diff"]:
            file = Path(diff["after_header"])
            assert (file.read_text() if file.exists() else "") == diff["after"]


def test_symbolic_link_stays(config: Path, tmp_path: Path) -> None:
    target = tmp_path / "dotfiles"
    target.mkdir()
    config.rename(target / "ssh_config")
    config.symlink_to("../dotfiles/ssh_config")
    before = tree(tmp_path)
    run(config, **GPU_1)
    assert config.is_symlink()
    assert (target / "ssh_config").read_bytes().endswith(USER_CONFIG)
    assert "\nport 2201\n" in resolve(config, "gpu-1")
    run(config, name="gpu-1", state="absent")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o400])
def test_mode_stays(config: Path, mode: int) -> None:
    config.chmod(mode)
    run(config, **GPU_1)
    assert stat.S_IMODE(config.stat().st_mode) == mode


def test_own_file_is_closed_again(config: Path) -> None:
    own = Path(run(config, **GPU_1)["aliases_file"])
    own.chmod(0o644)
    assert run(config, **GPU_1)["changed"]
    assert stat.S_IMODE(own.stat().st_mode) == 0o600


@pytest.fixture
def home_of_user() -> Iterator[Path]:
    """A home directory of nobody, or of the user who runs the tests."""
    user = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        (home / ".ssh").mkdir()
        (home / ".ssh" / "config").write_bytes(USER_CONFIG)
        for path in (home, home / ".ssh", home / ".ssh" / "config"):
            os.chown(path, user.pw_uid, user.pw_gid)
        yield home


@needs_root
def test_root_acts_as_the_owner(home_of_user: Path) -> None:
    user = pwd.getpwnam("nobody")
    path = home_of_user / ".ssh" / "config"
    proof = home_of_user / "proof"
    path.write_bytes(USER_CONFIG + f'Match exec "id -u > {proof}; id -G >> {proof}"\n  Port 7\n'.encode())
    assert run(path, **GPU_1)["changed"]
    assert {(item.stat().st_uid, item.stat().st_gid) for item in home_of_user.rglob("*")} == {
        (user.pw_uid, user.pw_gid)
    }
    assert proof.read_text().split() == [str(user.pw_uid), str(user.pw_gid)]
    assert (os.geteuid(), os.getegid()) == (0, 0)


@needs_root
def test_unknown_owner_is_one_message(home_of_user: Path) -> None:
    os.chown(home_of_user / ".ssh", 54321, 54321)
    result = run(home_of_user / ".ssh" / "config", **GPU_1)
    assert "uid 54321, a user this machine does not know; see: getent passwd 54321" in result["msg"]


@needs_root
def test_foreign_file_is_refused(config: Path) -> None:
    os.chown(config, pwd.getpwnam("nobody").pw_uid, -1)
    before = tree(config.parent)
    assert "become_user" in run(config, **GPU_1)["msg"]
    assert tree(config.parent) == before


def test_crlf_configuration_gets_a_crlf_line(config: Path) -> None:
    config.write_bytes(b"Host a\r\n  Port 2222\r\n")
    run(config, **GPU_1)
    assert config.read_bytes().endswith(b"gpuops.conf\r\nHost a\r\n  Port 2222\r\n")
    assert "\nport 2201\n" in resolve(config, "gpu-1")
    assert "\nport 2222\n" in resolve(config, "a")


def test_path_with_a_blank(tmp_path: Path) -> None:
    path = tmp_path / "a b" / "config"
    run(path, **GPU_1)
    assert path.read_text() == f'Include "{tmp_path}/a b/config.d/gpuops.conf"\n'
    assert "\nport 2201\n" in resolve(path, "gpu-1")


def test_moved_include_line_comes_back_to_the_top(config: Path) -> None:
    run(config, **GPU_1)
    line, rest = config.read_bytes().split(b"\n", 1)
    config.write_bytes(b"Host *\n  Port 9\n" + line + b"\n" + rest)
    assert run(config, **GPU_1)["changed"]
    assert config.read_bytes() == line + b"\nHost *\n  Port 9\n" + rest


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xef\xbb\xbfHost a\n", "byte order mark.*sed -i"),
        (
            b"Host a\n  Prot 22\n",
            "line 2: Bad configuration option: prot; .*nothing was changed. Next: ssh -G -F",
        ),
        (b"Include CONFIG\n", "recursive"),
    ],
)
def test_configuration_that_ssh_rejects_is_refused(config: Path, content: bytes, message: str) -> None:
    config.write_bytes(content.replace(b"CONFIG", bytes(config)))
    before = tree(config.parent)
    result = run(config, **GPU_1)
    assert result["failed"]
    assert len(result["msg"].splitlines()) == 1
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(result["msg"])
    assert tree(config.parent) == before


@pytest.mark.parametrize(
    ("aliases", "message"),
    [
        (
            [GPU_1, {"name": "gpu-2", "options": {"Nonsense": 1}}],
            f"alias 'gpu-2': {VERSION} rejects it: line 2: Bad conf",
        ),
        (
            [GPU_1, {"name": "gpu-*", "options": {"Ciphers": "x"}}],
            f"alias 'gpu-*': {VERSION} rejects it: line 2: Bad SSH2",
        ),
        ([GPU_1, {"name": "gpu-2 gpu-1", "user": "bob"}], "alias gpu-1: asked for user bob, but ssh -G gives root"),
        ([GPU_1, GPU_1], "alias gpu-1: the same name twice"),
        ([GPU_1, {"name": "gpu 'x'"}], "alias \"gpu 'x'\": \"'x'\" is no name"),
    ],
)
@pytest.mark.parametrize("earlier", [[], [{"name": "gpu-0", "port": 2200}]])
def test_alias_that_cannot_be_had_changes_nothing(
    config: Path, earlier: list[dict[str, t.Any]], aliases: list[dict[str, t.Any]], message: str
) -> None:
    run(config, aliases=earlier)
    before = tree(config.parent)
    for check in (True, False):
        result = run(config, check=check, aliases=aliases)
        assert message in result["msg"]
        assert tree(config.parent) == before


@pytest.mark.parametrize(
    ("bad", "names"),
    [
        ({"name": "gpu-2", "options": {"Nonsense": 1}}, ["gpu-2"]),
        ({"name": "gpu-2", "hostname": "x$(y)"}, ["gpu-2"]),
        ({"name": "gpu-2", "jump_hosts": ["bob@gpu-2:22"]}, ["gpu-2"]),
        ({"name": "GPU-1", "jump_hosts": ["bastion"]}, ["GPU-1", "gpu-1"]),
    ],
)
def test_refused_aliases_are_left_out_for_the_role(config: Path, bad: dict[str, t.Any], names: list[str]) -> None:
    """One refused node must not take the aliases of all others with it."""
    gpu_3 = {"name": "gpu-3", "port": 2203}
    for check in (True, False):
        result = run(config, check=check, aliases=[GPU_1, bad, gpu_3], leave_out_refused=True)
        assert result["changed"]
        assert sorted(result["refused"]) == names
        assert all(name in message for name, message in result["refused"].items())
    own = (config.parent / "config.d" / "gpuops.conf").read_text()
    assert "Host gpu-3\n" in own
    assert ("Host gpu-1\n" in own) == ("gpu-1" not in names)
    assert "gpu-2" not in own


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"port": 0}, "alias 'gpu-1': port 0 is not between 1 and 65535; correct this value"),
        ({"port": 65536}, "alias 'gpu-1': port 65536 is not between 1 and 65535; correct this value"),
        ({"port": "ssh"}, "'port' is of type str"),
        ({"name": "gpu-1\nProxyCommand x"}, "the name holds a newline or another control character; use another name"),
        ({"name": '"gpu 1"'}, "is no name or pattern for ssh; use letters, digits and"),
        ({"name": "gpu'1"}, "is no name or pattern for ssh; use letters, digits and"),
        ({"name": "gpu-1 # x"}, "'#' is no name or pattern for ssh; use letters, digits and"),
        ({"name": "gpu#1"}, "'gpu#1' is no name or pattern for ssh; use letters, digits and"),
        ({"name": ""}, "the name is empty"),
        ({"user": "bob\nProxyCommand x"}, "user 'bob\\nProxyCommand x' holds a newline"),
        ({"identity_file": ["/k\r"]}, "identity_file '/k\\r' holds a newline or another control character"),
        ({"options": {"SetEnv": ["A=b", "C=d\n"]}}, "options: SetEnv 'C=d\\n' holds a newline"),
        ({"owner": "nobody-here"}, "no such user; see: getent passwd 'nobody-here'"),
    ],
)
def test_bad_input_is_one_message_and_changes_no_byte(config: Path, bad: dict[str, t.Any], message: str) -> None:
    run(config, **GPU_2)
    before = tree(config.parent)
    result = run(config, **{**GPU_1, **bad})
    assert message in result["msg"]
    assert len(result["msg"].splitlines()) == 1
    assert tree(config.parent) == before


@pytest.mark.parametrize("earlier", [[], [{"name": "gpu-1", "port": 2200}]])
def test_what_ssh_sees_after_writing_counts(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: list[dict[str, t.Any]]
) -> None:
    run(config, aliases=earlier)
    before = tree(config.parent)
    other_ssh = tmp_path / "bin" / "ssh"
    other_ssh.parent.mkdir()
    other_ssh.write_text(
        f'#!/bin/sh\ncase "$*" in *"-F {config} "*gpu-1) exec {SSH} -G -F none gpu-1;; esac\nexec {SSH} "$@"\n'
    )
    other_ssh.chmod(0o755)
    monkeypatch.setenv("PATH", str(other_ssh.parent), prepend=os.pathsep)
    assert (
        "asked for hostname 192.0.2.1, but ssh -G gives gpu-1; both files are as before" in run(config, **GPU_1)["msg"]
    )
    assert tree(config.parent) == before


def test_shadows_are_names_that_now_mean_another_place(config: Path) -> None:
    config.write_bytes(
        b'Host "gpu-1" x\n  Port 22\nHost gpu-2\n  HostName 192.0.2.2\nHost=gpu-3\n  User bob\nHost gpu-*\n'
    )
    aliases = [GPU_1, GPU_2, {"name": "gpu-3", "port": 22}, {"name": "gpu-4", "port": 24}]
    for _round in range(2):
        assert run(config, aliases=aliases)["shadows"] == ["gpu-1"]


def test_exclusive_is_the_whole_truth(config: Path) -> None:
    aliases = [GPU_1, {"name": "*-b", "user": "x"}, {"name": "gpu-*", "user": "y"}]
    run(config, aliases=[*aliases, GPU_2])
    assert run(config, aliases=aliases, exclusive=True)["changed"]
    assert "\nhostname gpu-2\n" in resolve(config, "gpu-2")
    assert "user x\n" in resolve(config, "gpu-b")
    assert not run(config, aliases=aliases, exclusive=True)["changed"]
    run(config, aliases=aliases[::-1], exclusive=True)
    assert "user y\n" in resolve(config, "gpu-b")
    run(config, **GPU_2, exclusive=True)
    assert "\nport 22\n" in resolve(config, "gpu-1")


def test_exclusive_with_an_empty_list_leaves_no_trace(config: Path) -> None:
    before = tree(config.parent)
    assert not run(config, aliases=[], exclusive=True)["changed"]
    run(config, aliases=[GPU_1, GPU_2])
    assert not run(config, aliases=[])["changed"]
    assert run(config, check=True, aliases=[], exclusive=True)["changed"]
    assert run(config, aliases=[], exclusive=True)["aliases"] == []
    assert tree(config.parent) == before
    assert "exclusive=true aliases=[]" in run(config, name="gpu-1", state="absent", exclusive=True)["msg"]


def test_backup(config: Path) -> None:
    before = config.read_bytes()
    assert "backup_file" not in run(config, check=True, backup=True, **GPU_1)
    backup = Path(run(config, backup=True, **GPU_1)["backup_file"])
    assert (backup.parent, backup.read_bytes(), stat.S_IMODE(backup.stat().st_mode)) == (config.parent, before, 0o644)
    assert "backup_file" not in run(config, backup=True, **GPU_2)


def test_backup_of_nothing(tmp_path: Path) -> None:
    assert "backup_file" not in run(tmp_path / ".ssh" / "config", backup=True, **GPU_1)


def test_unknown_keywords(config: Path) -> None:
    config.write_bytes(b"IgnoreUnknown UseKeychain\nHost *\n  UseKeychain yes\n")
    aliases = [
        {"name": "gpu-1", "port": 2201, "options": {"Future": "a b", "Compression": True}},
        {"name": "gpu-2", "options": {"UseKeychain": "yes"}},
    ]
    message = run(config, aliases=aliases)["msg"]
    assert f"alias 'gpu-1': {VERSION} rejects it: line 3: Bad configuration option: future" in message
    assert "update OpenSSH, or set ignore_unknown=true" in message
    assert run(config, aliases=aliases, ignore_unknown=True)["changed"]
    assert not run(config, aliases=aliases, ignore_unknown=True)["changed"]
    assert {"port 2201", "compression yes"} <= set(resolve(config, "gpu-1").splitlines())
    assert '\n  # unknown to this ssh: Future "a b"\n' in (config.parent / "config.d" / "gpuops.conf").read_text()
    bad: dict[str, t.Any] = {"name": "gpu-3", "options": {"Future": "a", "Ciphers": "x"}}
    assert "Bad SSH2 cipher spec" in run(config, **bad, ignore_unknown=True)["msg"]


JUMPS: list[dict[str, t.Any]] = [
    {"name": "a", "hostname": "127.0.0.1", "port": 1},
    {"name": "gpu-1", "hostname": "10.0.0.1", "jump_hosts": ["a", "root@127.0.0.1:2"]},
    {"name": "gpu-2", "jump_hosts": ["a", "root@127.0.0.1:2"], "direct": "forbid"},
    {"name": "gpu-9 gpu-8", "jump_hosts": ["root@127.0.0.1:2"], "direct": "allow"},
    {"name": "gpu-* !gpu-7", "jump_hosts": ["a"]},
]


def test_jump_hosts_come_and_go(config: Path) -> None:
    config.write_bytes(USER_CONFIG + b"Host gpu-*\n  ProxyJump mine\nHost none\n  ProxyCommand of-the-user\n")
    before, others = tree(config.parent), {host: resolve(config, host) for host in ("web", "gpu-7", "db", "a2", "none")}
    run(config, aliases=JUMPS)
    script = config.parent / "config.d" / ".gpuops-reach"
    assert stat.S_IMODE(script.stat().st_mode) == 0o700
    assert {host: resolve(config, host) for host in others} == others
    seen = {host: resolve(config, host) for host in ("gpu-1", "gpu-2", "gpu-3", "gpu-8", "a")}
    assert all("\nproxyjump a\n" in seen[host] for host in ("gpu-1", "gpu-2", "gpu-3"))
    assert not any("proxyjump" in seen[host] or "proxycommand" in seen[host] for host in ("gpu-8", "a"))
    assert (script.parent / ".gpuops-reach.cache").is_dir()
    assert not run(config, aliases=JUMPS)["changed"]
    script.chmod(0o600)
    assert [diff["after_header"] for diff in run(config, aliases=JUMPS)["diff"]] == [str(script)]

    assert not run(config, name="gpu-1", port=22, hostname="10.0.0.1").get("msg")
    assert "\nproxyjump a\n" in resolve(config, "gpu-2")
    names = [{"name": alias["name"]} for alias in JUMPS]
    run(config, aliases=names[2:], state="absent")
    assert sorted(path.name for path in script.parent.iterdir()) == ["gpuops.conf"]
    run(config, aliases=JUMPS)
    resolve(config, "gpu-2")
    run(config, aliases=names, state="absent")
    assert tree(config.parent) == before


def test_jump_hosts_that_lead_back_are_refused(config: Path) -> None:
    run(config, name="a", jump_hosts=["b"])
    before = tree(config.parent)
    message = run(config, name="*", jump_hosts=["a"])["msg"]
    assert message.startswith("jump_hosts: b goes by a goes by b, which has no end") or message.startswith(
        "jump_hosts: a goes by"
    )
    assert tree(config.parent) == before


def test_names_that_differ_in_case_only(config: Path) -> None:
    run(config, aliases=[{"name": "GPU-1", "port": 2201}, {"name": "gpu-1", "port": 2202}])
    assert "\nport 2201\n" in resolve(config, "GPU-1")
    assert "\nport 2202\n" in resolve(config, "gpu-1")
    before = tree(config.parent)
    for bad in ({"name": "GPU-1"}, {"name": "gpu-1"}, {"name": "GPU-* !other"}):
        message = run(config, **bad, jump_hosts=["a"])["msg"]
        assert "ssh cannot keep the jump_hosts of one from the other" in message
        assert tree(config.parent) == before
    jumps = {"jump_hosts": ["a"], "port": 2203}
    assert run(config, aliases=[{"name": "GPU-1", **jumps}, {"name": "gpu-1", **jumps}])["changed"]
    assert run(config, aliases=[{"name": "GPU-2", **jumps}, {"name": "Gpu-3 gpu-4", **jumps}])["changed"]
    for name in ("GPU-1", "gpu-1", "GPU-2", "Gpu-3"):
        assert {"proxyjump a", "port 2203"} <= set(resolve(config, name).splitlines())


def test_jump_hosts_do_not_lose_to_another_alias(config: Path) -> None:
    run(config, name="gpu-1", proxy_jump="c")
    assert (
        "alias gpu-1: asked for proxyjump a, but ssh -G gives c"
        in run(config, name="gpu-1 gpu-2", jump_hosts=["a"])["msg"]
    )


def test_include_all_of_the_directory_is_no_danger(config: Path) -> None:
    config.write_bytes(f"Include {config.parent}/config.d/*\n".encode() + USER_CONFIG)
    run(config, aliases=JUMPS)
    assert "\nproxyjump a\n" in resolve(config, "gpu-1")


def test_default_path_is_that_of_the_user_database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    args = {**GPU_1, "_ansible_check_mode": True}
    output = io.StringIO()
    with patch_module_args(args), contextlib.redirect_stdout(output), pytest.raises(SystemExit):
        ssh_alias.main()
    home = pwd.getpwuid(os.geteuid()).pw_dir
    assert json.loads(output.getvalue())["path"] == f"{home}/.ssh/config"


@needs_root
def test_owner_is_who_acts(home_of_user: Path) -> None:
    user = pwd.getpwnam("nobody")
    run(home_of_user / ".ssh" / "config", owner="nobody", **GPU_1)
    assert {item.stat().st_uid for item in home_of_user.rglob("*")} == {user.pw_uid}
    args = {**GPU_1, "owner": "nobody"}
    output = io.StringIO()
    with patch_module_args(args), contextlib.redirect_stdout(output), pytest.raises(SystemExit):
        ssh_alias.main()
    if not Path(user.pw_dir).exists():
        assert f"the directory {user.pw_dir} does not exist" in json.loads(output.getvalue())["msg"]


def test_owner_needs_root(config: Path) -> None:
    def work() -> None:
        if os.geteuid() == 0:
            os.setuid(pwd.getpwnam("nobody").pw_uid)
        os._exit(0 if "become=true" in run(config, owner="root", **GPU_1)["msg"] else 1)

    process = in_a_child(work)
    process.join(30)
    assert process.exitcode == 0


def test_immutable(config: Path) -> None:
    chattr = shutil.which("chattr")
    if not chattr or subprocess.run([chattr, "+i", str(config)], capture_output=True, check=False).returncode:
        pytest.skip("this user or file system cannot make a file immutable")
    try:
        before = tree(config.parent)
        assert "Operation not permitted; both files are as before" in run(config, **GPU_1)["msg"]
        assert tree(config.parent) == before
    finally:
        subprocess.run([chattr, "-i", str(config)], check=True)


def test_ten_megabytes(config: Path) -> None:
    content = USER_CONFIG + b"".join(b"Host n%d\n  Port 22\n" % index for index in range(500_000))
    assert len(content) > 10_000_000
    config.write_bytes(content)
    assert run(config, **GPU_1)["changed"]
    assert config.read_bytes().endswith(content)
    run(config, name="gpu-1", state="absent")
    assert config.read_bytes() == content


def test_path_is_a_directory(config: Path) -> None:
    before = tree(config.parent)
    message = run(config.parent, **GPU_1)["msg"]
    assert f"{config.parent} is a directory, not a configuration; set path to the file, such as {config}" in message
    assert tree(config.parent) == before


def test_no_home(tmp_path: Path) -> None:
    path = tmp_path / "nobody" / ".ssh" / "config"
    assert f"the directory {tmp_path}/nobody does not exist; create it" in run(path, **GPU_1)["msg"]
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(("name", "mode"), [(".ssh", 0o500), (".ssh", 0), (".ssh/config", 0)])
def test_no_permission(home_of_user: Path, name: str, mode: int) -> None:
    before = tree(home_of_user)
    (home_of_user / name).chmod(mode)
    message = run(home_of_user / ".ssh/config", **GPU_1)["msg"]
    (home_of_user / name).chmod(before[name][0])
    assert "Permission denied; both files are as before. Next: ls -la" in message
    assert tree(home_of_user) == before


def test_no_ssh(config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("ansible.module_utils.common.process.is_executable", lambda _path: False)
    assert "install the OpenSSH client" in run(config, **GPU_1)["msg"]


def in_a_child(work: t.Callable[[], object]) -> multiprocessing.process.BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


@pytest.mark.parametrize("limit", [50, 300, 1000])
def test_full_disk_leaves_both_files_as_they_were(config: Path, limit: int) -> None:
    config.write_bytes(USER_CONFIG + b"# filler\n" * 60)
    run(config, **GPU_1)
    before = tree(config.parent)
    many = [{"name": f"gpu-{index}", "port": 2300} for index in range(60)]

    def work() -> None:
        # Only the files next to the configuration are short of room, as on a full home.
        stage = ssh_alias_utils._stage

        def stage_in_little_room(path: str, content: bytes, mode: int) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            try:
                stage(path, content, mode)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

        ssh_alias_utils._stage = stage_in_little_room
        result = run(config, aliases=many)
        os._exit(0 if "File too large; both files are as before" in result["msg"] else 1)

    process = in_a_child(work)
    process.join(30)
    assert process.exitcode == 0
    assert tree(config.parent) == before


@pytest.mark.parametrize(
    ("user_config", "expected"),
    [
        # Include: in a Host or a Match block it holds for that block; its own Host and Match lines end with the file.
        ("Host web\n  Include DIRECTORY/port\n", {"web": "port 2201", "db": "port 22"}),
        ("Match host web\n  Include DIRECTORY/port\n", {"web": "port 2201", "db": "port 22"}),
        ("Host web\n  Include DIRECTORY/host-db\n  User bob\n", {"web": "user bob", "db": "user root"}),
        ("Include DIRECTORY/host-db\nPort 2209\n", {"web": "port 2209", "db": "port 2202"}),
        ("Include DIRECTORY/match-db\nPort 2209\n", {"web": "port 2209", "db": "port 2203"}),
        ("Include DIRECTORY/nested\n", {"db": "port 2202", "web": "port 22"}),
        ("Include DIRECTORY/none-* DIRECTORY/port\n", {"web": "port 2201"}),
        # The first value wins, and a negated pattern takes a host out of its line.
        ("Host web\n  User a\nHost *\n  User b\n", {"web": "user a", "db": "user b"}),
        ("Host * !db\n  Port 2203\n", {"web": "port 2203", "db": "port 22"}),
        ("Match host=web\n  Port 2204\n", {"web": "port 2204", "db": "port 22"}),
        ("Match originalhost web !user nobody-here\n  Port 2205\n", {"web": "port 2205"}),
        # Comments at the end of a line, and words with blanks.
        ("Host web # Host db\n  Port 2206 # 7\n", {"web": "port 2206", "db": "port 22"}),
        ('Host "web"\n  IdentityFile "/a b" # c\n', {"web": "identityfile /a b"}),
        # Tokens, in Match exec too.
        ("Host web\n  HostName %h.example.org\n", {"web": "hostname web.example.org"}),
        ('Match exec "test %n = web"\n  Port 2207\n', {"web": "port 2207", "db": "port 22"}),
        ("Host web\n  HostName x\nMatch host x\n  Port 2208\n", {"web": "port 2208"}),
        ("Host web\n  ControlPath /s/%%-%n:%p\n  Port 2209\n", {"web": "controlpath /s/%-web:2209"}),
        # A jump host for all but one, which has none or a command of its own.
        ("Host web\n  ProxyJump none\nHost *\n  ProxyJump a,b\n", {"web": "no proxyjump", "db": "proxyjump a,b"}),
        ("Host web\n  ProxyCommand nc %h\nHost *\n  ProxyJump a\n", {"web": "proxycommand nc %h", "db": "proxyjump a"}),
    ],
)
@pytest.mark.parametrize("eol", ["\n", "\r\n"])
def test_what_ssh_reads_stays_true(config: Path, user_config: str, expected: dict[str, str], eol: str) -> None:
    for name, content in {
        "port": "Port 2201\n",
        "host-db": "Host db\n  Port 2202\n  User root\n",
        "match-db": "Match host db\n  Port 2203\n",
        "nested": f"Include {config.parent}/host-db\n",
    }.items():
        (config.parent / name).write_text(content)
    config.write_bytes(user_config.replace("DIRECTORY", str(config.parent)).replace("\n", eol).encode())
    run(config, aliases=[*JUMPS, {"name": "gpu-5", "options": {"SetEnv": ["A=b c"]}}])
    for host, line in expected.items():
        lines = resolve(config, host).splitlines()
        keywords = {f"no {seen.split()[0]}" for seen in lines}
        assert line in lines or (line.startswith("no ") and line not in keywords), host


def test_what_ssh_says_of_an_alias_it_reads_back(config: Path, tmp_path: Path) -> None:
    keepalive = {"profile": "bounded"}
    run(config, aliases=[*JUMPS, {"name": "gpu-5", "user": "bob", "identity_file": ["/a"], "keepalive": keepalive}])
    for host in ("gpu-1", "gpu-5", "a", "web"):
        said = tmp_path / "said"
        said.write_text(resolve(config, host))
        assert resolve(said, host) == said.read_text()


# Names that the generated lines below mean, and one that they do not; gpu-9 is taken out of our own pattern too.
OTHERS = ("web", "gpu-9", "gpu-10", "db-1", "x.example.org", "elsewhere")
words = st.sampled_from(["web", "db-*", "*", "gpu-*", "gpu-1", "!web", "!gpu-*", "gpu-9", '"db-1"', "?.example.org"])
separators = st.sampled_from([" ", "\t", "  ", " = ", "=", "\t=\t"])
indents = st.sampled_from(["", "  ", "\t", " \t"])
ends = st.sampled_from(["", "", " ", "\t", " # Host gpu-1", "\t# \xe9"])
keyword_values = st.sampled_from(
    [
        ("User", "bob"),
        ("user", '"Bob"'),
        ("Port", "2022"),
        ("HOSTNAME", "%h.example.org"),
        ("HostName", "10.1.2.3"),
        ("HostKeyAlias", "same"),
        ("IdentityFile", '"~/.ssh/a key"'),
        ("IdentityFile", "~/.ssh/b"),
        ("CertificateFile", "'/c d'"),
        ("SendEnv", "LANG LC_*"),
        ("SetEnv", 'Foo=Bar "Baz=a b"'),
        ("ProxyCommand", "nc %h %p"),
        ("ProxyJump", "jump"),
        ("LocalForward", "8080 localhost:80"),
        ("ControlPath", "~/.ssh/%r@%h:%p"),
        ("IgnoreUnknown", "UseKeychain"),
        ("StrictHostKeyChecking", "accept-new"),
        ("CanonicalizeHostname", "no"),
    ]
)
matches = st.sampled_from(
    [
        "all",
        "host web,gpu-*",
        "host=web",
        "originalhost gpu-1 user bob",
        "!host db-1",
        "originalhost *,!gpu-*",
        'exec "test %n = web"',
        "!localuser nobody-here",
        "final all",
        "canonical",
    ]
)
# A relative name is one below ~/.ssh of the user, so the test replaces DIRECTORY.
includes = st.sampled_from(
    ["/nonexistent/gpuops-*.conf", "DIRECTORY/nested", "DIRECTORY/included", '"DIRECTORY/inc*" /none']
)


@st.composite
def config_lines(draw: st.DrawFn) -> str:
    kind = draw(st.sampled_from(["keyword"] * 4 + ["Host"] * 2 + ["Match", "Include", "comment"]))
    if kind == "comment":
        return draw(indents) + draw(st.sampled_from(["", "# Host gpu-1", "#Port 1", "# caf\xe9"]))
    if kind == "keyword":
        keyword, value = draw(keyword_values)
    elif kind == "Host":
        keyword, value = (
            draw(st.sampled_from(["Host", "host", "HOST"])),
            " ".join(draw(st.lists(words, min_size=1, max_size=3))),
        )
    else:
        keyword, value = kind, draw(matches if kind == "Match" else includes)
    return draw(indents) + keyword + draw(separators) + value + draw(ends)


@st.composite
def configs(draw: st.DrawFn, size: int) -> str:
    lines = draw(st.lists(config_lines(), max_size=size))
    eol = draw(st.sampled_from(["\n", "\r\n", ""]))
    text = "".join(line + (eol or draw(st.sampled_from(["\n", "\r\n"]))) for line in lines)
    return text if draw(st.booleans()) else text.rstrip("\r\n")


def asked(alias: dict[str, t.Any]) -> set[str]:
    """What C(ssh -G) has to say of an alias."""
    return {f"{key} {value}" for key, value in alias.items() if key in ("hostname", "port", "user")}


aliases_of_any_kind = st.fixed_dictionaries(
    {"port": st.integers(1, 65535)},
    optional={
        "hostname": st.sampled_from(["192.0.2.1", "node.example.org"]),
        "user": st.just("root"),
        "identity_file": st.just(["/k"]),
        "options": st.just({"SendEnv": ["A"], "Compression": True}),
    },
)
jumps: st.SearchStrategy[dict[str, t.Any]] = st.sampled_from(
    [{}, {"proxy_jump": "j"}, {"jump_hosts": ["j", "k"]}, {"jump_hosts": ["j"], "direct": "allow"}]
)

# Each with four operations, so 400 cases in about half a minute. More of them: GPUOPS_EXAMPLES=5000 pytest ...
EXAMPLES = int(os.environ.get("GPUOPS_EXAMPLES", "100"))


@pytest.mark.slow
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    text=configs(14),
    included=configs(5).filter(lambda text: "DIRECTORY/inc" not in text),
    others=st.lists(st.sampled_from(OTHERS), min_size=2, max_size=2, unique=True),
    first=aliases_of_any_kind,
    second=aliases_of_any_kind,
    changed=aliases_of_any_kind.map(lambda alias: {**alias, "hostname": "changed.example.org"}),
    jump=jumps,
    pattern=st.sampled_from([[], [{"name": "gpu-? !gpu-9", "options": {"Compression": True, "LogLevel": "ERROR"}}]]),
)
def test_other_names_mean_what_they_meant(
    tmp_path: Path,
    text: str,
    included: str,
    others: list[str],
    first: dict[str, t.Any],
    second: dict[str, t.Any],
    changed: dict[str, t.Any],
    jump: dict[str, t.Any],
    pattern: list[dict[str, t.Any]],
) -> None:
    path = tmp_path / "config"
    content = text.replace("DIRECTORY", str(tmp_path)).encode("latin-1")
    path.write_bytes(content)
    (tmp_path / "included").write_bytes(included.replace("DIRECTORY", str(tmp_path)).encode("latin-1"))
    (tmp_path / "nested").write_text("Port 2299\nHost db-1\n  User carol\n")
    before = {host: resolve(path, host) for host in others}

    def check(result: dict[str, t.Any], **aliases: dict[str, t.Any]) -> None:
        assert result.get("changed"), result
        assert {host: resolve(path, host) for host in others} == before
        for name, alias in aliases.items():
            assert asked(alias) <= set(resolve(path, name.replace("_", "-")).splitlines())

    both = [{"name": "gpu-1", **first}, {"name": "gpu-2", **second, **jump}, *pattern]
    check(run(path, aliases=both), gpu_1=first, gpu_2=second)
    check(run(path, name="gpu-2", **changed), gpu_2=changed)
    check(run(path, name="gpu-1", state="absent"), gpu_2=changed)
    run(path, aliases=[{"name": name} for name in ["gpu-2", *(alias["name"] for alias in pattern)]], state="absent")
    assert path.read_bytes() == content
    assert sorted(item.name for item in tmp_path.iterdir()) == ["config", "included", "nested"]
