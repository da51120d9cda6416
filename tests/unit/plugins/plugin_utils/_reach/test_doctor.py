# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import multiprocessing
import multiprocessing.synchronize
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import threading
import time
import typing as t
from dataclasses import replace

import pytest
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach import doctor, paramiko_client
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.causes import CAUSES, STAGES, SickError
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.client import Route, Target
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.doctor import (
    diagnose,
    diagnose_patiently,
    may_be_sftp_version,
    pause_before,
    render_cause,
    still_holds,
)

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
needs_sshd = pytest.mark.skipif(SSHD is None, reason="sshd is not installed (apt-get install openssh-server)")

TARGET = Target("gpu-1", "192.0.2.7", port=2222, user="root", identity_file="/k/id")
ROUTE = Route("192.0.2.7", 2222, "root", "[192.0.2.7]:2222", "/k/known_hosts")


@pytest.mark.parametrize("code", CAUSES)
@pytest.mark.parametrize("password_given", [False, True])
def test_every_cause_renders(code: str, password_given: bool) -> None:
    cause = render_cause(SickError(code, "evidence"), "tcp", replace(TARGET, password_given=password_given), ROUTE)
    assert cause["seen"] == "evidence"
    assert (cause["stage"], cause["severity"]) == ("tcp", CAUSES[code].severity)
    assert cause["meaning"]
    assert cause["remedy"]
    assert "{" not in cause["remedy"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", True),
        (b"\0", True),
        (b"\0\0\0", True),
        (b"\0\3\xff\xff", True),
        (b"\0\0\0\5\2\0\0\0\3", True),
        (b"\0\0\0\x5f\2\0\0\0\3extension", True),
        (b"W", False),
        (b"\n", False),
        (b"\0\4", False),
        (b"\0\0\0\4", False),
        (b"\0\0\0\5\1", False),
        (b"Welcome\n", False),
    ],
)
def test_what_may_become_the_version_of_an_sftp_server(data: bytes, expected: bool) -> None:
    assert may_be_sftp_version(data) == expected


# --- live, on loopback ---


@contextlib.contextmanager
def _listener(answer: t.Callable[[socket.socket], object]) -> t.Iterator[int]:
    """Serve connections one by one with `answer`; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _peer = server.accept()
                    with connection, contextlib.suppress(OSError):
                        answer(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def _silent(connection: socket.socket) -> None:
    while connection.recv(1024):
        pass


def _http(connection: socket.socket) -> None:
    connection.recv(1024)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\n\r\n")


def _tarpit(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"x4\r\n")
        time.sleep(0.2)


def _mute_after_banner(connection: socket.socket) -> None:
    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
    _silent(connection)


@pytest.mark.parametrize(
    ("answer", "expected", "stage"),
    [
        (_silent, "banner_timeout", "banner"),
        (_http, "not_ssh", "banner"),
        (_tarpit, "tarpit", "banner"),
        (lambda connection: None, "banner_closed", "banner"),
        (lambda connection: connection.sendall(b"Exceeded MaxStartups\r\n"), "max_startups", "banner"),
        (lambda connection: connection.sendall(b"Not allowed at this time\r\n"), "penalties", "banner"),
        (_mute_after_banner, "kex_timeout", "algorithms"),
    ],
)
def test_listener(answer: t.Callable[[socket.socket], object], expected: str, stage: str) -> None:
    start = time.monotonic()
    with _listener(answer) as port:
        report = diagnose(Target("gpu-1", "127.0.0.1", port=port, ssh_config="none", timeout=1.5))
    assert report["cause"]["code"] == expected
    assert [entry["stage"] for entry in report["stages"] if entry["status"] == "fail"] == [stage]
    assert [entry["stage"] for entry in report["stages"]] == list(STAGES)
    assert report["message"].startswith(f"gpu-1 (127.0.0.1:{port}): {report['cause']['meaning']}: ")
    assert "\n" not in report["message"]
    assert time.monotonic() - start < 3


def test_all_stages_together_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_WHOLE", 0.02)
    start = time.monotonic()
    with _listener(_silent) as port:
        report = diagnose(Target("gpu-1", "127.0.0.1", port=port, ssh_config="none", timeout=30))
    assert not report["ok"]
    assert time.monotonic() - start < 5


def test_refused_port() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        report = diagnose(Target("gpu-1", "127.0.0.1", port=unused.getsockname()[1], ssh_config="none"))
    assert report["cause"]["code"] == "tcp_refused"
    assert not report["ok"]


def test_dropped_connection_requests_end_at_the_limit() -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _number in range(3):  # a full queue makes Linux drop the next requests, as a firewall does
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        time.sleep(0.1)
        start = time.monotonic()
        report = diagnose(Target("g", "127.0.0.1", port=server.getsockname()[1], ssh_config="none", timeout=0.5))
        assert time.monotonic() - start < 1.5
    assert report["cause"]["code"] == "tcp_timeout"
    assert "ping -c 3 127.0.0.1" in report["cause"]["remedy"]


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        ("no-such-host.invalid", 22, {"name_unknown", "resolver_failed"}),
        ("", 22, {"no_address"}),
        (" ", 22, {"no_address"}),
        ("ssh -p 22 root@gpu", 22, {"address_invalid"}),
        ("-oProxyCommand=touch${IFS}x", 22, {"address_invalid"}),
        ("127.0.0.1", 0, {"port_invalid"}),
        ("127.0.0.1", 65536, {"port_invalid"}),
        ("127.0.0.1", "ssh", {"port_invalid"}),
    ],
)
def test_bad_inventory(host: str, port: object, expected: set[str]) -> None:
    report = diagnose(Target("gpu-1", host, port=port, ssh_config="none"))
    assert report["cause"]["code"] in expected
    assert report["stages"][-1]["status"] == "skipped"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"host": "x$(touch touched)"}, "address_invalid"),
        ({"user": "u;touch touched"}, "user_invalid"),
        ({"user": "-oProxyCommand=touch${IFS}touched"}, "user_invalid"),
        ({"ssh_args": ("-J", "x&touch${IFS}touched")}, "jump_invalid"),
        ({"ssh_args": ("-Jx`touch`",)}, "jump_invalid"),
        ({"ssh_args": ("-o", "ProxyJump=bastion,-oProxyCommand=touch")}, "jump_invalid"),
        ({"ssh_args": ("-oproxyjump = none -oProxyCommand=touch",)}, "jump_invalid"),
    ],
)
def test_words_that_a_shell_reads_are_given_to_no_ssh(
    changes: dict[str, t.Any], code: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user's own ssh would run them even for C(ssh -G)."""
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "config"
    config.write_text('Match exec "true %h %r"\n  Compression yes\n')
    report = diagnose(replace(Target("gpu-1", "127.0.0.1", port=1, ssh_config=str(config)), **changes))
    assert report["cause"]["code"] == code
    assert list(tmp_path.iterdir()) == [config]


def test_bad_ssh_config_is_named_with_its_line(tmp_path: pathlib.Path) -> None:
    config = tmp_path / "config"
    config.write_text("Host *\n  Foo bar\n")
    report = diagnose(Target("gpu-1", "127.0.0.1", port=1, ssh_config=str(config)))
    assert report["cause"]["code"] == "ssh_config_error"
    assert f"{config}: line 2: Bad configuration option: foo" in report["message"]


def test_ssh_missing_on_the_controller(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert diagnose(Target("gpu-1", "127.0.0.1", port=1))["cause"]["code"] == "ssh_missing"


# --- live, with a real sshd ---


class Server(t.NamedTuple):
    port: int
    directory: pathlib.Path

    def target(self, **changes: t.Any) -> Target:
        target = Target(
            "gpu-1",
            "127.0.0.1",
            port=self.port,
            user=_user(),
            identity_file=str(self.directory / "id"),
            known_hosts_file=str(self.directory / "known_hosts"),
            ssh_config="none",
            timeout=30,
        )
        return replace(target, **changes)


def _user() -> str:
    return subprocess.run(["id", "-un"], check=True, capture_output=True, text=True).stdout.strip()


def _keygen(path: pathlib.Path, passphrase: str = "", kind: str = "ed25519") -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "", "-f", str(path)], check=True)
    return path.with_suffix(".pub").read_text().strip()


def _fingerprint(path: pathlib.Path) -> str:
    listed = subprocess.run(["ssh-keygen", "-l", "-f", str(path)], check=True, capture_output=True, text=True)
    return listed.stdout.split()[1]


@contextlib.contextmanager
def _sshd(directory: pathlib.Path, *settings: str) -> t.Iterator[Server]:
    assert SSHD is not None
    if os.getuid() == 0:
        pathlib.Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    host_key = _keygen(directory / "host_key")
    (directory / "authorized_keys").write_text(_keygen(directory / "id") + "\n")
    (directory / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    if not any(setting.startswith("Subsystem ") for setting in settings):
        settings = (*settings, "Subsystem sftp internal-sftp")
    config = [
        *settings,  # sshd takes the first value
        f"ListenAddress 127.0.0.1:{port}",
        f"HostKey {directory}/host_key",
        f"AuthorizedKeysFile {directory}/authorized_keys",
        "PidFile none",
        "StrictModes no",
        "UsePAM no",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
    ]
    (directory / "sshd_config").write_text("\n".join(config) + "\n")
    with (directory / "sshd.log").open("wb") as log:
        process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(directory / "sshd_config")], stderr=log)
    try:
        end = time.monotonic() + 10
        while "Server listening" not in (said := (directory / "sshd.log").read_text()):
            assert process.poll() is None, said
            assert time.monotonic() < end, said
            time.sleep(0.05)
        yield Server(port, directory)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Server]:
    with _sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@needs_sshd
def test_healthy_node(server: Server) -> None:
    known_hosts = (server.directory / "known_hosts").read_bytes()
    report = diagnose(server.target())
    assert report["ok"], report["message"]
    assert report["cause"] is None
    assert [(stage["stage"], stage["status"]) for stage in report["stages"]] == [(stage, "ok") for stage in STAGES]
    assert (report["concerns"], report["jump_hosts"]) == ([], [])
    assert report["machine"] == (
        f"{pathlib.Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    )
    assert "OpenSSH" in report["server_version"]
    assert report["auth_methods"] == ["publickey"]
    assert report["host_key_fingerprint"] == _fingerprint(server.directory / "host_key")
    assert (server.directory / "known_hosts").read_bytes() == known_hosts


@needs_sshd
def test_host_key_unknown(server: Server) -> None:
    empty = server.directory / "empty known hosts"
    report = diagnose(server.target(known_hosts_file=str(empty), ssh_args=("-o", "StrictHostKeyChecking=accept-new")))
    assert report["cause"]["code"] == "host_key_unknown"
    assert _fingerprint(server.directory / "host_key") in report["cause"]["remedy"]
    assert not empty.exists()


@needs_sshd
def test_host_key_changed_shows_both_fingerprints(server: Server, tmp_path: pathlib.Path) -> None:
    known_hosts = tmp_path / "known hosts"
    known_hosts.write_text(f"fleet-1 {_keygen(tmp_path / 'a', kind='ecdsa')}\nfleet-1 {_keygen(tmp_path / 'b')}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(known_hosts)], check=True, capture_output=True)
    report = diagnose(server.target(known_hosts_file=str(known_hosts), host_key_alias="fleet-1"))
    assert report["cause"]["code"] == "host_key_changed"
    evidence = report["cause"]["seen"]
    assert f"Offered: {_fingerprint(server.directory / 'host_key')}" in evidence
    assert f"Known: {_fingerprint(tmp_path / 'b')} ({known_hosts}:2)" in evidence
    assert f"ssh-keygen -R fleet-1 -f '{known_hosts}'" in report["cause"]["remedy"]


@needs_sshd
@pytest.mark.parametrize(
    ("passphrase", "mode", "authorized", "expected"),
    [
        ("", 0o600, False, "auth_key_refused"),
        ("", 0o644, False, "key_permissions"),
        ("secret", 0o600, True, "key_passphrase"),
        ("secret", 0o600, False, "auth_key_refused"),
    ],
)
def test_key(
    server: Server,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    passphrase: str,
    mode: int,
    authorized: bool,
    expected: str,
) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    public = _keygen(tmp_path / "other", passphrase)
    (tmp_path / "other").chmod(mode)
    keys = server.directory / "authorized_keys"
    before = keys.read_text()
    keys.write_text(before + public + "\n" if authorized else before)
    try:
        report = diagnose(server.target(identity_file=str(tmp_path / "other")))
    finally:
        keys.write_text(before)
    assert report["cause"]["code"] == expected
    assert str(tmp_path / "other") in report["cause"]["remedy"]


@needs_sshd
def test_refusal_of_a_short_key_is_named_as_such(server: Server, tmp_path: pathlib.Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "1024", "-N", "", "-f", str(tmp_path / "short")], check=True)
    report = diagnose(server.target(identity_file=str(tmp_path / "short")))
    assert report["cause"]["code"] == "key_obsolete"
    assert report["cause"]["seen"].endswith("(RSA 1024 bits)")


@needs_sshd
def test_key_file_missing_or_foreign(server: Server, tmp_path: pathlib.Path) -> None:
    (tmp_path / "putty.ppk").write_text("PuTTY-User-Key-File-3: ssh-ed25519\n")
    assert diagnose(server.target(identity_file=str(tmp_path / "putty.ppk")))["cause"]["code"] == "key_invalid"
    assert diagnose(server.target(identity_file=str(tmp_path / "nothing")))["cause"]["code"] == "key_missing"
    assert diagnose(server.target(identity_file=str(tmp_path)))["cause"]["code"] == "key_missing"


@needs_sshd
def test_password_is_the_way_in(tmp_path: pathlib.Path) -> None:
    with _sshd(tmp_path, "PasswordAuthentication yes", f"AuthorizedKeysFile {tmp_path}/none") as server:
        report = diagnose(server.target())
        given = diagnose(server.target(password_given=True))
    assert report["cause"]["code"] == given["cause"]["code"] == "auth_password_only"
    assert report["auth_methods"] == ["publickey", "password"]
    assert report["cause"]["remedy"].startswith("ssh-copy-id -i ")
    assert "password that was given" in given["cause"]["remedy"]
    assert (tmp_path / "sshd.log").read_text().count("Failed password") == 0


@needs_sshd
@pytest.mark.parametrize(
    ("settings", "ssh_args", "expected", "seen"),
    [
        (["ForceCommand echo no shell here; exit 1"], [], "command_failed", "exit status 1: no shell here"),
        (["ForceCommand sleep 60"], [], "command_timeout", "no end after 6 s"),
        (["DenyUsers *"], [], "auth_key_refused", "Permission denied (publickey)"),
        (
            ["AuthenticationMethods publickey,password", "PasswordAuthentication yes"],
            [],
            "auth_second_factor",
            "Permission denied (password)",
        ),
        (["Ciphers aes128-ctr"], ["-c", "aes256-ctr"], "no_matching_algorithm", "no common cipher; server: aes128-ctr"),
        (["ForceCommand true"], [], "command_swallowed", "exit status 0"),
        (["MaxSessions 0"], [], "command_failed", "open failed"),
        (["PubkeyAuthentication no", "PasswordAuthentication yes"], [], "auth_publickey_off", "(password)"),
    ],
)
def test_sshd_settings(
    tmp_path: pathlib.Path, settings: list[str], ssh_args: list[str], expected: str, seen: str
) -> None:
    with _sshd(tmp_path, *settings) as server:
        limit = 6 if expected == "command_timeout" else 30
        report = diagnose(server.target(ssh_args=tuple(ssh_args), timeout=limit))
    assert report["cause"]["code"] == expected
    assert seen in report["cause"]["seen"]


# A shell where one is asked for, and for sftp some bytes and no end.
NO_SFTP = 'case "$SSH_ORIGINAL_COMMAND" in /bin/sh) sh;; *) {}; sleep 60;; esac'
VERSION_CUT_OFF = r"printf '\0\0\0\5\2'"


@needs_sshd
@pytest.mark.parametrize(
    ("settings", "stage", "status", "concern"),
    [
        (["Subsystem none false"], "sftp", "warn", "sftp_missing"),
        (["Subsystem sftp /bin/false"], "sftp", "warn", "sftp_failed"),
        (["AllowTcpForwarding no"], "forwarding", "warn", "forwarding_off"),
        (["MaxSessions 1"], "sftp", "skipped", None),
        (["ForceCommand echo Welcome; sh"], "command", "warn", "shell_noise"),
        (["ForceCommand echo; sh"], "sftp", "warn", "sftp_failed"),
        ([f"ForceCommand {NO_SFTP.format('echo ok')}"], "sftp", "warn", "sftp_failed"),
        ([f"ForceCommand {NO_SFTP.format(VERSION_CUT_OFF)}"], "sftp", "warn", "sftp_failed"),
        (["SetEnv HOME=/nowhere"], "command", "warn", "home_missing"),
    ],
)
def test_what_is_not_well_on_a_node_that_can_be_reached(
    tmp_path: pathlib.Path, settings: list[str], stage: str, status: str, concern: str | None
) -> None:
    with _sshd(tmp_path, *settings) as server:
        report = diagnose(server.target())
    assert report["ok"], report["message"]
    stages = {entry["stage"]: entry for entry in report["stages"]}
    assert stages[stage]["status"] == status
    assert stages["sftp"]["ms"] < 2500, "the limit is 30 s"
    assert [found["code"] for found in report["concerns"]] == ([concern] if concern else [])
    if concern:
        assert (report["concerns"][0]["stage"], report["concerns"][0]["severity"]) == (stage, "warn")
        assert report["concerns"][0]["remedy"] in report["message"]


@pytest.fixture(name="jump_config")
def _jump_config(server: Server, tmp_path: pathlib.Path) -> str:
    (tmp_path / "none").touch()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = unused.getsockname()[1]
    hosts = {
        "node": ("ProxyJump hop",),
        "far": ("ProxyJump hop,hop2",),
        "behind-stranger": ("ProxyJump stranger",),
        "behind-closed": (f"ProxyJump me@hop2:{closed}",),
        "closed": (f"Port {closed}", "ProxyJump hop"),
        "stranger": (f"UserKnownHostsFile {tmp_path}/none",),
        "circle": ("ProxyJump circle2",),
        "circle2": ("ProxyJump circle",),
    }
    text = "".join(f"Host {name}\n" + "".join(f"  {line}\n" for line in lines) for name, lines in hosts.items())
    path = tmp_path / "config"
    path.write_text(
        f"{text}Host *\n  HostName 127.0.0.1\n  Port {server.port}\n  User {_user()}\n"
        f"  IdentityFile {server.directory}/id\n  UserKnownHostsFile {server.directory}/known_hosts\n"
    )
    return str(path)


@needs_sshd
@pytest.mark.parametrize(("name", "hops"), [("node", ["hop"]), ("far", ["hop", "hop2"])])
@pytest.mark.parametrize("by_argument", [False, True])
def test_each_machine_of_the_way_is_examined_and_logged_in_once(
    server: Server, jump_config: str, name: str, hops: list[str], by_argument: bool
) -> None:
    target = Target("gpu-1", name, ssh_config=jump_config, timeout=30)
    if by_argument:  # as the inventory says it
        target = Target("gpu-1", "127.0.0.1", ssh_args=("-F", jump_config, "-J", ",".join(hops)))
    log = server.directory / "sshd.log"
    before = log.read_text().count("Accepted publickey")
    report = diagnose(target)
    assert report["ok"], report["message"]
    assert [(hop["host"], hop["ok"], hop["cause"]) for hop in report["jump_hosts"]] == [
        (hop, True, None) for hop in hops
    ]
    for hop in report["jump_hosts"]:
        assert [stage["stage"] for stage in hop["stages"]] == list(STAGES[:8])
    by_hop = {stage["stage"]: stage["evidence"] for stage in report["stages"]}
    assert by_hop["resolve"] == f"{hops[-1]} resolves it"
    assert by_hop["tcp"] == f"connected by {hops[-1]}"
    assert "OpenSSH" in by_hop["banner"]
    assert log.read_text().count("Accepted publickey") - before == len(hops) + 1


@needs_sshd
@pytest.mark.parametrize(
    ("name", "code", "hop"),
    [
        ("behind-stranger", "host_key_unknown", "stranger"),
        ("behind-closed", "tcp_refused", "hop2"),
        ("closed", "tcp_refused", ""),
        ("circle", "ssh_config_error", ""),
    ],
)
def test_the_machine_that_fails_is_named(jump_config: str, name: str, code: str, hop: str) -> None:
    report = diagnose(Target("gpu-1", name, ssh_config=jump_config, timeout=30))
    assert report["cause"]["code"] == code
    assert (f"jump host {hop}: " in report["message"]) == bool(hop)
    assert [entry["host"] for entry in report["jump_hosts"] if not entry["ok"]] == ([hop] if hop else [])
    assert [stage["stage"] for stage in report["stages"]] == list(STAGES)
    if hop:
        assert report["stages"][-1]["evidence"] == f"jump host {hop} failed"
        assert report["cause"]["remedy"].startswith(f"for the jump host {hop}: ")


@needs_sshd
def test_a_jump_host_that_forwards_nothing(tmp_path: pathlib.Path) -> None:
    with _sshd(tmp_path, "AllowTcpForwarding no") as server:
        jump = f"{_user()}@127.0.0.1:{server.port}"
        config = tmp_path / "config"
        config.write_text(f"IdentityFile {tmp_path}/id\nUserKnownHostsFile {tmp_path}/known_hosts\n")
        report = diagnose(Target("gpu-1", "127.0.0.2", ssh_config=str(config), ssh_args=("-J", jump)))
    assert report["cause"]["code"] == "jump_forwarding_off"
    assert report["jump_hosts"][0]["ok"]


@needs_sshd
@pytest.mark.parametrize("jump", [False, True])
def test_the_look_at_the_first_bytes_takes_no_place_from_the_login(
    server: Server, jump_config: str, tmp_path: pathlib.Path, jump: bool
) -> None:
    with _sshd(tmp_path, "MaxStartups 1") as single:
        arguments = ("-F", jump_config, "-J", "hop") if jump else ()
        report = diagnose(single.target(ssh_config=None if jump else "none", ssh_args=arguments))
    assert report["ok"], report["message"]


# --- one jump host, many nodes: each is examined by a process of its own ---


def _examine(folder: str, start: multiprocessing.synchronize.Barrier, *arguments: t.Any) -> dict[str, t.Any]:
    start.wait(30)
    return diagnose_patiently(*arguments, folder)


def _examine_at_once(folder: pathlib.Path, number: int, *arguments: t.Any) -> list[dict[str, t.Any]]:
    """Let so many processes that share a folder begin at the same moment."""
    fork = multiprocessing.get_context("fork")
    with fork.Manager() as manager, concurrent.futures.ProcessPoolExecutor(number, fork) as pool:
        start = manager.Barrier(number)
        examinations = [pool.submit(_examine, str(folder), start, *arguments) for _number in range(number)]
        return [examination.result(60) for examination in examinations]


@pytest.fixture(name="folder")
def _folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """What Ansible makes for a run."""
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@contextlib.contextmanager
def _jump_host(directory: pathlib.Path, *settings: str) -> t.Iterator[tuple[Server, tuple[str, ...]]]:
    """An sshd that counts, and the arguments of ssh that lead through it."""
    place = directory / "jump"
    place.mkdir()
    with _sshd(place, "LogLevel VERBOSE", *settings) as server:
        config = directory / "jump_config"
        config.write_text(
            f"Host jump\n  HostName 127.0.0.1\n  Port {server.port}\n  User {_user()}\n  IdentitiesOnly yes\n"
            f"  IdentityFile {place}/id\n  UserKnownHostsFile {place}/known_hosts\n"
        )
        yield server, ("-F", str(config), "-J", "jump")


def _counted(server: Server) -> tuple[int, int, int]:
    """Connections, logins, and logins that failed."""
    log = (server.directory / "sshd.log").read_text()
    return tuple(log.count(words) for words in ("Connection from", "Accepted publickey", "Failed publickey"))


@needs_sshd
def test_a_jump_host_is_examined_once_for_many_nodes(
    server: Server, tmp_path: pathlib.Path, folder: pathlib.Path
) -> None:
    with _jump_host(tmp_path) as (jump, arguments):
        target = server.target(ssh_config=None, ssh_args=arguments)
        reports = _examine_at_once(folder, 8, target, 1, 1.0, 1.0)
        later = diagnose(target, str(folder))
        assert _counted(jump) == (1 + 9, 9, 0)
    assert [report["message"] for report in [*reports, later] if not report["ok"]] == []
    hops = [report["jump_hosts"][0] for report in [*reports, later]]
    assert [len(hop["shared"]) for hop in hops].count(0) == 1
    first = next(hop for hop in hops if not hop["shared"])
    for hop in hops:
        assert hop["stages"][:5] == first["stages"][:5]
        assert hop["shared"] in ([], [stage for stage in STAGES[:7] if stage != "host_key"])
        assert [stage["status"] for stage in hop["stages"]] == ["ok"] * 8
    # Another run has another folder.
    assert diagnose(target)["cause"]["code"] == "tcp_refused"


@needs_sshd
def test_a_jump_host_has_few_logins_in_progress(
    server: Server, tmp_path: pathlib.Path, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_LOGINS_AT_ONCE", 1)
    # More than that, since sshd may not have noticed yet that the last one is in.
    with _jump_host(tmp_path, "MaxStartups 3") as (_jump, arguments):
        reports = _examine_at_once(folder, 8, server.target(ssh_config=None, ssh_args=arguments), 1, 1.0, 1.0)
    assert [report["message"] for report in reports if not report["ok"]] == []


@needs_sshd
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["AuthorizedKeysFile none"], "auth_key_refused"),
        (["AllowTcpForwarding no"], "jump_forwarding_off"),
    ],
)
def test_a_jump_host_that_lets_nobody_in_or_on_is_the_cause_of_all(
    server: Server, tmp_path: pathlib.Path, folder: pathlib.Path, settings: list[str], expected: str
) -> None:
    with _jump_host(tmp_path, *settings) as (jump, arguments):
        target = server.target(ssh_config=None, ssh_args=arguments)
        reports = _examine_at_once(folder, 6, target, 1, 1.0, 1.0)
        assert _counted(jump) == ((2, 0, 1) if expected == "auth_key_refused" else (1 + 6, 6, 0))
    assert {report["cause"]["code"] for report in reports} == {expected}
    assert len({report["message"] for report in reports}) == 1


@needs_sshd
def test_what_was_wrong_with_a_jump_host_is_forgotten(
    server: Server, tmp_path: pathlib.Path, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _jump_host(tmp_path) as (jump, arguments):
        target = server.target(ssh_config=None, ssh_args=arguments)
        keys = jump.directory / "authorized_keys"
        ours = keys.read_text()
        keys.write_text("")
        assert not diagnose(target, str(folder))["ok"]
        keys.write_text(ours)
        assert not diagnose(target, str(folder))["ok"]
        monkeypatch.setattr(doctor, "_SICK_SECONDS", 0.0)
        assert diagnose(target, str(folder))["ok"]
        # That it was well is no login: each node sees for itself.
        keys.write_text("")
        sick = diagnose(target, str(folder))
        assert sick["cause"]["code"] == "auth_key_refused"
        assert sick["cause"]["stage"] == "login"
        keys.write_text(ours)
        assert diagnose(target, str(folder))["jump_hosts"][0]["shared"] == []


def test_those_who_try_again_try_once_for_all(tmp_path: pathlib.Path, folder: pathlib.Path) -> None:
    asked = []

    def answer(connection: socket.socket) -> None:
        asked.append(1)
        connection.sendall(b"Exceeded MaxStartups\r\n")

    with _listener(answer) as port:
        target = Target("gpu-1", "127.0.0.1", ssh_config="none", ssh_args=("-J", f"127.0.0.1:{port}"), timeout=5)
        reports = _examine_at_once(folder, 6, target, 2, 2.0, 60.0)
    assert {(report["cause"]["code"], report["attempts"]) for report in reports} == {("max_startups", 2)}
    # Two, and more only where a machine is so busy that some begin when others have ended.
    assert 2 <= len(asked) <= 4


@pytest.mark.parametrize(
    ("sick", "when", "since", "expected"),
    [
        (None, 100.0, 0.0, True),
        (None, 100.0, 990.0, True),
        ({}, 995.0, 0.0, True),
        ({}, 989.0, 0.0, False),
        ({}, 995.0, 994.0, True),
        ({}, 995.0, 996.0, False),
    ],
)
def test_how_long_a_finding_holds(sick: object, when: float, since: float, expected: bool) -> None:
    finding = {"sick": sick if sick is None else {"code": "unknown"}, "when": when}
    assert still_holds(finding, since, 1000.0) == expected


@needs_sshd
def test_nothing_secret_is_shared(server: Server, tmp_path: pathlib.Path, folder: pathlib.Path) -> None:
    with _jump_host(tmp_path) as (jump, arguments):
        assert diagnose(server.target(ssh_config=None, ssh_args=arguments), str(folder))["ok"]
    (kept,) = folder.iterdir()
    assert json.loads(kept.read_text()).keys() == {"when", "stages", "concerns", "weak_key", "tried_login", "sick"}
    assert "PRIVATE KEY" not in kept.read_text()


@needs_sshd
def test_proxy_command_is_left_to_ssh(server: Server) -> None:
    proxy = f"ProxyCommand=ssh -F none -W %h:%p -i {server.directory}/id -p {server.port} 127.0.0.1 -o "
    proxy += f"UserKnownHostsFile={server.directory}/known_hosts"
    report = diagnose(server.target(ssh_args=("-o", proxy)))
    assert report["ok"], report["message"]
    assert [stage["stage"] for stage in report["stages"] if stage["status"] == "skipped"] == list(STAGES[1:5])


@needs_sshd
@pytest.mark.parametrize("keys", ["authorized_keys", "none"])
def test_one_login_and_nothing_left(tmp_path: pathlib.Path, keys: str) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with _sshd(tmp_path, f"AuthorizedKeysFile {tmp_path}/{keys}", "LogLevel VERBOSE") as server:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tempfile.tempdir", str(temporary))
            diagnose(server.target())
        text = (tmp_path / "sshd.log").read_text()
        running = subprocess.run(["ps", "-eo", "args"], check=True, capture_output=True, text=True).stdout
    assert text.count("Connection from") == 2
    assert text.count("Accepted publickey") + text.count("Failed publickey") == 1
    assert [line for line in running.splitlines() if line.startswith("ssh ") and str(tmp_path) in line] == []
    assert list(temporary.iterdir()) == []


@needs_sshd
def test_the_users_wish_to_learn_host_keys_is_not_ours(tmp_path: pathlib.Path) -> None:
    _keygen(tmp_path / "another", kind="ecdsa")
    with _sshd(tmp_path, f"HostKey {tmp_path}/another") as server:
        known_hosts = (tmp_path / "known_hosts").read_bytes()
        report = diagnose(server.target(ssh_args=("-o", "UpdateHostKeys=yes", "-o", "HashKnownHosts=yes")))
    assert report["ok"], report["message"]
    assert (tmp_path / "known_hosts").read_bytes() == known_hosts


@pytest.fixture(name="without_ssh")
def _without_ssh(server: Server, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Target:
    target = server.target()
    monkeypatch.setenv("PATH", str(tmp_path))
    return target


@needs_sshd
def test_paramiko_answers_where_ssh_cannot(server: Server, without_ssh: Target) -> None:
    report = diagnose(without_ssh)
    assert report["cause"]["code"] == "ssh_missing"
    assert "paramiko gets through (offered: publickey), so this ssh is the limit" in report["cause"]["seen"]
    assert report["auth_methods"] == ["publickey"]
    assert report["host_key_fingerprint"].startswith("SHA256:")


@needs_sshd
def test_without_paramiko_its_checks_say_so(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paramiko_client, "INSTALLED", False)
    report = diagnose(server.target())
    assert report["ok"]
    evidence = {stage["stage"]: stage["evidence"] for stage in report["stages"]}
    assert "paramiko is not installed" in evidence["algorithms"]


@needs_sshd
def test_without_both_it_says_so(without_ssh: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paramiko_client, "INSTALLED", False)
    assert "paramiko is not installed" in diagnose(without_ssh)["cause"]["seen"]


@needs_sshd
def test_a_server_that_only_openssh_understands(tmp_path: pathlib.Path) -> None:
    with _sshd(tmp_path, "Ciphers chacha20-poly1305@openssh.com") as server:
        report = diagnose(server.target())
    assert report["ok"]
    assert [concern["code"] for concern in report["concerns"]] == ["paramiko_incompatible"]
    assert "server: chacha20-poly1305@openssh.com; paramiko: " in report["concerns"][0]["seen"]


# --- more than one attempt ---


def test_pauses_double_and_spread() -> None:
    assert [pause_before(number, 2.0, 0.0, tried_login=False) for number in (2, 3, 4)] == [2.0, 4.0, 8.0]
    assert pause_before(2, 2.0, 1.0, tried_login=False) == 2.5


def test_four_logins_take_more_than_15_seconds() -> None:
    assert sum(pause_before(number, 0.0, 0.0, tried_login=True) for number in (2, 3)) > 15


@pytest.mark.parametrize(
    ("says", "attempts", "deadline", "expected"),
    [
        (b"Exceeded MaxStartups\r\n", 3, 60.0, 3),
        (b"Exceeded MaxStartups\r\n", 3, 0.05, 1),
        (b"220 mail ESMTP\r\n", 3, 60.0, 1),
    ],
)
def test_only_what_may_pass_is_tried_again(says: bytes, attempts: int, deadline: float, expected: int) -> None:
    asked = []

    def answer(connection: socket.socket) -> None:
        asked.append(1)
        connection.sendall(says)

    with _listener(answer) as port:
        target = Target("gpu-1", "127.0.0.1", port=port, ssh_config="none", timeout=1)
        report = diagnose_patiently(target, attempts, 0.1, deadline)
    assert (report["attempts"], len(asked)) == (expected, expected)


@needs_sshd
def test_it_stops_trying_when_all_is_well(server: Server) -> None:
    assert diagnose_patiently(server.target(), 3, 60.0, 600.0)["attempts"] == 1
