# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import typing as t
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from ansible_collections.gpuops.fleet.plugins.module_utils._base.patterns import matches_one
from ansible_collections.gpuops.fleet.plugins.module_utils._reach import failover as ssh_failover

if t.TYPE_CHECKING:
    from collections.abc import Iterator

SSH = shutil.which("ssh") or ""
needs_ssh = pytest.mark.skipif(not SSH, reason="no OpenSSH client on this machine")


def failover(*jump_hosts: str, direct: str = "forbid") -> ssh_failover.Failover:
    return ssh_failover.Failover(jump_hosts, direct)


@pytest.mark.parametrize(
    "jump_host",
    ["a", "jump-1.example.org", "192.0.2.1", "bob@a", "bob@a:2222", "a:22", "[2001:db8::1]", "bob@[::1]:22", "b.ob@a"],
)
def test_jump_host(jump_host: str) -> None:
    assert ssh_failover.parse_failover([jump_host], None) == failover(jump_host)


@pytest.mark.parametrize(
    ("jump_hosts", "direct", "reason"),
    [
        (["a b"], None, "not an alias"),
        (["a,b"], None, "not an alias"),
        (["-oProxyCommand=x"], None, "not an alias"),
        (["bob@-x"], None, "not an alias"),
        (["a'"], None, "not an alias"),
        (["$(id)"], None, "not an alias"),
        (["%h"], None, "not an alias"),
        (["a\n"], None, "not an alias"),
        (["../a"], None, "not an alias"),
        (["2001:db8::1"], None, "not an alias"),
        (["a:0"], None, "not between 1 and 65535"),
        (["a:65536"], None, "not between 1 and 65535"),
        (["a", "b", "a"], None, "twice"),
        ([], "allow", "no jump_hosts"),
    ],
)
def test_refused(jump_hosts: list[str], direct: str | None, reason: str) -> None:
    with pytest.raises(ssh_failover.FailoverError, match=reason):
        ssh_failover.parse_failover(jump_hosts, direct)


@pytest.mark.parametrize("direct", ["allow", "forbid"])
def test_note_is_read_back(direct: str) -> None:
    asked = failover("a", "bob@[::1]:22", direct=direct)
    assert ssh_failover.read_note(f"Host x\n  Port 22\n{ssh_failover.render_note(asked)}") == asked
    assert ssh_failover.read_note("Host x\n  Port 22\n") is None


@pytest.mark.parametrize(("direct", "say", "last"), [("forbid", "--last ", "a"), ("allow", "", "none")])
def test_match_blocks(direct: str, say: str, last: str) -> None:
    assert ssh_failover.render_match(["gpu-1 gpu-2", "gpu-*"], failover("a", "b", direct=direct), "reach") == (
        'Match originalhost gpu-1,gpu-2,gpu-* exec "reach a"\n'
        "  ProxyJump a\n"
        f'Match originalhost gpu-1,gpu-2,gpu-* exec "reach {say}b a"\n'
        "  ProxyJump b\n"
        "Match originalhost gpu-1,gpu-2,gpu-*\n"
        f"  ProxyJump {last}\n"
    )


def test_match_blocks_are_shared_by_equal_lists_only() -> None:
    asked = {
        "1": failover("a", "b"),
        "2": failover("b", "a"),
        "3": failover("a", "b"),
        "4": failover("a", "b", direct="allow"),
    }
    parts = ssh_failover.render_matches(asked, "reach")
    assert [part.split()[2] for part in parts] == ["1,3", "2", "4"]


@pytest.mark.parametrize(
    ("asked", "loop"),
    [
        ({"gpu-1": ["a", "b"], "a": ["c"], "b": ["c"]}, []),
        ({"gpu-* !gpu-1": ["gpu-1"]}, []),
        ({"gpu-1": ["gpu-1"]}, ["gpu-1", "gpu-1"]),
        ({"gpu-*": ["gpu-1"]}, ["gpu-1", "gpu-1"]),
        ({"gpu-?": ["bob@gpu-1:2222"]}, ["bob@gpu-1:2222", "bob@gpu-1:2222"]),
        ({"x": ["a"], "a": ["c", "b"], "b z": ["a"]}, ["a", "b", "a"]),
        ({"GPU-1": ["gpu-1"]}, ["gpu-1", "gpu-1"]),
        ({"gpu-*": ["GPU-1"]}, ["GPU-1", "GPU-1"]),
    ],
)
def test_loop(asked: dict[str, list[str]], loop: list[str]) -> None:
    assert ssh_failover.find_loop({name: failover(*jumps) for name, jumps in asked.items()}) == loop


@needs_ssh
@pytest.mark.parametrize(
    "name", ["a", "a b", "*", "gpu-*", "gpu-* !gpu-1", "!gpu-1 gpu-?", "g*-1", "[ab]", "a.b", "a*"]
)
def test_patterns_match_as_in_ssh(name: str, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(f"Host {name}\n  Port 7\n")
    for host in ("a", "b", "gpu-1", "gpu-2", "gpu-10", "axb", "a.b"):
        assert matches_one(host, name.split()) == ("\nport 7\n" in ask(config, host)), host


@needs_ssh
@pytest.mark.parametrize("name", ["gpu-1", "GPU-1", "gpu-*", "GPU-*", "gpu-* !GPU-1", "*"])
def test_case_counts_for_host_but_not_for_match(name: str, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(f"Host {name}\n  Port 7\nMatch originalhost {name.replace(' ', ',')}\n  User seen\n")
    for host in ("gpu-1", "GPU-1", "Gpu-2", "other"):
        seen = ask(config, host)
        assert ssh_failover.depends_on_case(name, host) == (("\nport 7\n" in seen) != ("user seen\n" in seen)), host


def ask(config: Path, host: str, **environment: str) -> str:
    return subprocess.run(
        [SSH, "-G", "-F", str(config), host],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    ).stdout


@dataclass
class Server:
    """What listens on a port: says the banner, or nothing where there is none."""

    banner: bytes = b"SSH-2.0-Test\r\n"
    visits: int = 0
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    open: list[socket.socket] = field(default_factory=list)

    @property
    def port(self) -> int:
        return t.cast("int", self.listener.getsockname()[1])

    def serve(self) -> None:
        while True:
            try:
                connection, _address = self.listener.accept()
            except OSError:
                return
            self.visits += 1
            connection.sendall(self.banner)
            self.open.append(connection)
            if self.banner:
                connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        # Only a shutdown wakes the thread up.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.open:
            connection.close()


@pytest.fixture
def servers() -> Iterator[dict[str, Server]]:
    started = {"a": Server(), "b": Server(), "mute": Server(b""), "other": Server(b"HTTP/1.1 400 Bad Request\r\n\r\n")}
    for server in started.values():
        threading.Thread(target=server.serve, daemon=True).start()
    yield started
    for server in started.values():
        if server.listener.fileno() >= 0:
            server.close()


@pytest.fixture
def script(tmp_path: Path, servers: dict[str, Server]) -> Path:
    """The script with aliases for the servers, beside a configuration in which gpu-1 goes by a or b."""
    path = tmp_path / "a b" / ssh_failover.SCRIPT_FILE
    path.parent.mkdir()
    path.write_text(ssh_failover.SCRIPT)
    probe = f"sh '{path}' -F '{tmp_path}/config'"
    (tmp_path / "config").write_text(
        "".join(f"Host {name}\n  HostName 127.0.0.1\n  Port {server.port}\n" for name, server in servers.items())
        + "Host behind-a\n  ProxyJump a,nonsense.invalid\nHost behind-mute\n  ProxyJump mute\n"
        + "Host round\n  ProxyJump round-2\nHost round-2\n  ProxyJump round\n"
        + "Host command\n  ProxyCommand false\n"
        + ssh_failover.render_match(["gpu-1"], failover("a", "b"), probe)
        + ssh_failover.render_match(["free"], failover("a", "b", direct="allow"), probe)
        + ssh_failover.render_match(["endless"], failover("endless-2"), probe)
        + ssh_failover.render_match(["endless-2"], failover("endless"), probe)
        + "Host gpu-* free\n  ProxyJump of-the-user\n"
    )
    return path


def run(script: Path, *arguments: str, shell: str = "sh", **environment: str) -> bool:
    command = [*shell.split(), str(script), "-F", str(script.parent.parent / "config"), *arguments]
    result = subprocess.run(command, capture_output=True, env={**os.environ, **environment}, timeout=20, check=False)
    assert (result.stdout, result.stderr) == (b"", b"")
    return result.returncode == 0


def proxy_jump(script: Path, host: str) -> str:
    found = re.search("^proxyjump (.+)$", ask(script.parent.parent / "config", host), re.MULTILINE)
    return found[1] if found else "none"


SHELLS = ("sh", "bash", "bash --posix", "busybox sh")


def need(shell: str) -> None:
    if not shutil.which(shell.split()[0]):
        pytest.skip(f"no {shell.split()[0]} on this machine")


@needs_ssh
@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("jump_host", "expected"),
    [
        ("a", True),
        ("bob@b", True),
        ("a:1", False),
        ("bob@127.0.0.1:PORT", True),
        ("[127.0.0.1]:PORT", True),
        ("[::1]:1", False),
        ("other", False),
        ("nonsense.invalid", False),
        ("command", True),
        ("behind-a", True),
    ],
)
def test_answer(script: Path, servers: dict[str, Server], shell: str, jump_host: str, expected: bool) -> None:
    need(shell)
    jump_host = jump_host.replace("PORT", str(servers["a"].port))
    assert run(script, jump_host, shell=shell) is expected


@needs_ssh
@pytest.mark.parametrize("jump_host", ["mute", "behind-mute"])
def test_a_server_that_accepts_but_is_hung_costs_two_seconds(script: Path, jump_host: str) -> None:
    start = time.monotonic()
    assert not run(script, jump_host)
    assert 1.5 < time.monotonic() - start < 4
    start = time.monotonic()
    assert not run(script, jump_host)
    assert time.monotonic() - start < 1


def run_at_once(script: Path, shell: str, number: int) -> list[int]:
    command = [*shell.split(), str(script), "-F", str(script.parent.parent / "config"), "a"]
    started = [subprocess.Popen(command) for _number in range(number)]
    return [process.wait(20) for process in started]


@needs_ssh
@pytest.mark.parametrize("shell", SHELLS)
def test_of_many_at_once_one_asks(script: Path, servers: dict[str, Server], shell: str) -> None:
    need(shell)
    assert run_at_once(script, shell, 12) == [0] * 12
    # One, and more only where a machine is so busy that the answer is too old for those that begin late.
    assert servers["a"].visits <= 4
    assert not list(script.parent.rglob("*.lock"))


@needs_ssh
def test_one_that_was_killed_is_not_waited_for_without_end(script: Path, servers: dict[str, Server]) -> None:
    lock = Path(f"{script}{ssh_failover.CACHE_SUFFIX}", "a.lock")
    lock.mkdir(parents=True)
    start = time.monotonic()
    assert run_at_once(script, "sh", 12) == [0] * 12
    assert time.monotonic() - start < 10
    # Of those who have waited, too, one asks, or a few that take each other's lock away.
    assert servers["a"].visits <= 6
    assert not lock.exists()


def processes_with(variable: str) -> list[str]:
    """The commands of all processes that have a variable in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if variable.encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def wait_for(condition: t.Callable[[], bool]) -> None:
    deadline = time.monotonic() + 1.5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def hung(tmp_path: Path) -> t.Callable[[str], dict[str, str]]:
    """An environment in which a program hangs, such as ssh-keyscan at a name server that does not answer."""

    def hang(program: str) -> dict[str, str]:
        fake = tmp_path / "bin" / program
        fake.parent.mkdir()
        fake.write_text("#!/bin/sh\ntrap '' HUP INT TERM\nexec sleep 60\n")
        fake.chmod(0o755)
        return {"PATH": f"{fake.parent}:{os.environ['PATH']}", "GPUOPS_TEST": str(tmp_path)}

    return hang


@needs_ssh
@pytest.mark.parametrize(
    ("program", "seconds", "shell"), [("ssh", 8, "sh"), *(("ssh-keyscan", 2, shell) for shell in SHELLS)]
)
def test_a_program_that_hangs_is_ended(
    script: Path, hung: t.Callable[[str], dict[str, str]], program: str, seconds: int, shell: str
) -> None:
    need(shell)
    environment = hung(program)
    start = time.monotonic()
    assert not run(script, "a", shell=shell, **environment)
    assert seconds - 0.5 < time.monotonic() - start < seconds + 2
    assert processes_with(f"GPUOPS_TEST={environment['GPUOPS_TEST']}") == []


@needs_ssh
@pytest.mark.parametrize("shell", SHELLS)
def test_the_interrupt_key_ends_it(script: Path, hung: t.Callable[[str], dict[str, str]], shell: str) -> None:
    need(shell)
    environment = hung("ssh-keyscan")
    variable = f"GPUOPS_TEST={environment['GPUOPS_TEST']}"
    command = [*shell.split(), str(script), "-F", str(script.parent.parent / "config"), "a"]
    process = subprocess.Popen(command, env={**os.environ, **environment}, start_new_session=True)
    wait_for(lambda: "sleep 60 " in processes_with(variable))
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(1.5)
    wait_for(lambda: processes_with(variable) == [])


@needs_ssh
@pytest.mark.parametrize("shell", SHELLS)
def test_nothing_is_left_behind(script: Path, tmp_path: Path, shell: str) -> None:
    need(shell)
    assert run(script, "a", shell=shell, GPUOPS_TEST=str(tmp_path))
    assert processes_with(f"GPUOPS_TEST={tmp_path}") == []


@needs_ssh
@pytest.mark.parametrize(("host", "without"), [("gpu-1", "a"), ("free", "none")])
def test_the_first_that_answers_wins_and_each_recovers(
    script: Path, servers: dict[str, Server], host: str, without: str
) -> None:
    cache = Path(f"{script}{ssh_failover.CACHE_SUFFIX}")
    port = servers["a"].port
    seen = [proxy_jump(script, host)]
    for down in ("a", "b"):
        servers[down].close()
        shutil.rmtree(cache)
        seen.append(proxy_jump(script, host))
    servers["a"] = Server(listener=socket.create_server(("127.0.0.1", port)))
    threading.Thread(target=servers["a"].serve, daemon=True).start()
    shutil.rmtree(cache)
    seen.append(proxy_jump(script, host))
    assert seen == ["a", "b", without, "a"]


@needs_ssh
def test_other_names_are_left_alone_and_cost_nothing(script: Path, servers: dict[str, Server]) -> None:
    for host in ("a", "gpu-2", "elsewhere"):
        assert proxy_jump(script, host) == ("of-the-user" if host == "gpu-2" else "none")
    assert {server.visits for server in servers.values()} == {0}


@needs_ssh
def test_one_answer_serves_a_fleet_and_no_later_jump_host_is_asked(script: Path, servers: dict[str, Server]) -> None:
    assert [proxy_jump(script, "gpu-1") for _node in range(3)] == ["a"] * 3
    assert (servers["a"].visits, servers["b"].visits) == (1, 0)


@needs_ssh
@pytest.mark.parametrize(
    ("kept", "expected"),
    [("{now} down", False), ("{old} down", True), ("{future} down", True), ("", True), ("x down", True), ("7", True)],
)
def test_no_answer_is_kept_for_five_seconds(script: Path, kept: str, expected: bool) -> None:
    cache = Path(f"{script}{ssh_failover.CACHE_SUFFIX}")
    cache.mkdir()
    now = int(time.time())
    (cache / "a").write_text(kept.format(now=now, old=now - 6, future=now + 60))
    assert run(script, "a") is expected


@needs_ssh
@pytest.mark.parametrize(("age", "expected"), [(0, True), (3, False)])
def test_an_answer_is_kept_for_a_second(script: Path, servers: dict[str, Server], age: int, expected: bool) -> None:
    servers["a"].close()
    cache = Path(f"{script}{ssh_failover.CACHE_SUFFIX}")
    cache.mkdir()
    (cache / "a").write_text(f"{int(time.time()) - age} up")
    assert run(script, "a") is expected


@needs_ssh
@pytest.mark.parametrize("shell", SHELLS)
def test_a_login_without_any_jump_host_says_so(script: Path, servers: dict[str, Server], shell: str) -> None:
    need(shell)
    config = script.parent.parent / "config"
    command = [*shell.split(), str(script), "-F", str(config), "--last", "b", "a"]

    def said() -> tuple[int, str]:
        shutil.rmtree(f"{script}{ssh_failover.CACHE_SUFFIX}", ignore_errors=True)
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        assert done.stdout == ""
        return done.returncode, done.stderr

    assert said() == (0, "")
    servers["b"].close()
    assert said() == (
        1,
        f"gpuops.fleet: no answer from the jump hosts a b; next: ssh -F {config} -v a\n",
    )


@needs_ssh
def test_without_a_place_to_keep_answers(script: Path, servers: dict[str, Server]) -> None:
    Path(f"{script}{ssh_failover.CACHE_SUFFIX}").touch()
    assert [proxy_jump(script, "gpu-1") for _node in range(2)] == ["a"] * 2
    assert servers["a"].visits == 2
    servers["a"].close()
    assert proxy_jump(script, "gpu-1") == "b"


@needs_ssh
def test_many_at_once(script: Path) -> None:
    command = ["sh", str(script), "-F", str(script.parent.parent / "config"), "a"]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE) for _index in range(20)]
    assert [(process.communicate()[1], process.returncode) for process in started] == [(b"", 0)] * 20
    assert [path.name for path in Path(f"{script}{ssh_failover.CACHE_SUFFIX}").iterdir()] == ["a"]


@needs_ssh
def test_jump_hosts_with_jump_hosts(script: Path, servers: dict[str, Server]) -> None:
    servers["a"].close()
    assert run(script, "gpu-1")
    servers["b"].close()
    shutil.rmtree(f"{script}{ssh_failover.CACHE_SUFFIX}")
    assert not run(script, "gpu-1")


@needs_ssh
@pytest.mark.parametrize("host", ["round", "endless"])
def test_jump_hosts_in_a_circle_end(script: Path, host: str) -> None:
    start = time.monotonic()
    assert proxy_jump(script, host)
    run(script, host)
    assert time.monotonic() - start < 5


@needs_ssh
def test_a_check_without_the_network(script: Path, servers: dict[str, Server]) -> None:
    servers["a"].close()
    depth = {ssh_failover.DEPTH_VARIABLE: str(ssh_failover.MAX_DEPTH)}
    assert "\nproxyjump a\n" in ask(script.parent.parent / "config", "gpu-1", **depth)


def test_shellcheck(tmp_path: Path) -> None:
    shellcheck = shutil.which("shellcheck")
    if not shellcheck:
        pytest.skip("no shellcheck on this machine")
    path = tmp_path / "script.sh"
    path.write_text(ssh_failover.SCRIPT)
    result = subprocess.run([shellcheck, str(path)], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "")
