# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import threading
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.sshd import process
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.sshd.process import Listener, Socket
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.sshd.settings import SshdError


def listener(*options: str, program: str = "/usr/sbin/sshd", unit: str = "ssh.service") -> Listener:
    return Listener(7, program, options, unit, (("0.0.0.0", 22),), ("one",))


@pytest.mark.parametrize(
    ("title", "program", "options"),
    [
        ("sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups\0\0\0", "/usr/sbin/sshd", ("-D",)),
        ("sshd: sshd [listener] 1 of 10-60 startups", "sshd", ()),
        ("/usr/sbin/sshd\0-D\0-p\0002222\0", "/usr/sbin/sshd", ("-D", "-p", "2222")),
        ("sshd: /usr/sbin/sshd -D -o Port=2222 -f /etc/x [listener] 0 of", "/usr/sbin/sshd",
         ("-D", "-o", "Port=2222", "-f", "/etc/x")),
    ],
)  # fmt: skip
def test_command_line(title: str, program: str, options: tuple[str, ...]) -> None:
    assert process.parse_title(title) == (program, options)


def test_options_that_win_over_files() -> None:
    assert listener("-D", "-p", "2222", "-oPort=1", "-o", "X=1", "-f", "/etc/x").overriding == [
        "-p", "2222", "-oPort=1", "-o", "X=1",
    ]  # fmt: skip
    assert listener("-f", "/etc/x").config == "/etc/x"
    assert listener("-D").config == "/etc/ssh/sshd_config"


def test_sockets_that_listen() -> None:
    with socket.socket() as four, socket.socket(socket.AF_INET6) as six:
        four.bind(("127.0.0.1", 0))
        six.bind(("::1", 0))
        for each in (four, six):
            each.listen()
        found = {**process.parse_listening(Path("/proc/net/tcp").read_text()),
                 **process.parse_listening(Path("/proc/net/tcp6").read_text())}  # fmt: skip
        for each in (four, six):
            assert found[str(os.fstat(each.fileno()).st_ino)] == each.getsockname()[:2]


def no_systemd(_command: t.Sequence[str]) -> tuple[int, str]:
    return 1, ""


def test_no_other_program_is_called_sshd() -> None:
    """Only this machine's own sshd, if it runs one."""
    assert all(found.sockets and found.program.endswith("sshd") for found in process.listeners(no_systemd))


def test_way_of_the_connection_is_found_above_sudo() -> None:
    command = "import os, sys; print(os.getpid(), flush=True); sys.stdin.read()"
    parent = subprocess.Popen(
        ["sh", "-c", f'env -u SSH_CONNECTION python3 -c "{command}"; true'],
        env={**os.environ, "SSH_CONNECTION": "192.0.2.1 50000 10.0.0.1 2222"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert parent.stdout
    pid = parent.stdout.readline().strip()
    assert process.origin(pid=pid) == ("192.0.2.1", "10.0.0.1", 2222)
    parent.communicate("")


def test_reload() -> None:
    service, by_hand = listener(), listener(unit="")
    assert process.reload_commands([service, by_hand], None) == [
        ["systemctl", "reload", "ssh.service"],
        ["kill", "-HUP", "7"],
    ]
    other = listener(unit="sshd-lan.service")
    assert process.reload_commands([service, other], Socket("ssh.socket", (22,))) == [
        ["systemctl", "stop", "ssh.service"],
        ["systemctl", "reload", "sshd-lan.service"],
    ]


def test_sshd_that_would_end_is_not_told() -> None:
    process.check_reloadable(listener(unit="", program="/bin/sh"))
    with pytest.raises(SshdError, match=r"started as /gone/sshd, which is not there any more.*Next: "):
        process.check_reloadable(listener(program="/gone/sshd", unit=""))
    process.check_reloadable(listener(program="sshd"))
    with pytest.raises(SshdError, match=r"started as sshd, without its whole path.*Next: "):
        process.check_reloadable(listener(program="sshd", unit=""))


def test_reload_that_did_not_happen_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "listeners", lambda _run: [listener()])
    with pytest.raises(SshdError, match=r"did not listen again within 0.1 s of: systemctl reload ssh.service"):
        process.reload([listener()], None, [22], lambda _command: (0, ""), patience=0.1)
    with pytest.raises(SshdError, match="systemctl reload ssh.service ended with 1: no"):
        process.reload([listener()], None, [22], lambda _command: (1, "no\n"))


def test_socket_of_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: t.Sequence[str]) -> tuple[int, str]:
        if "is-active" in command:
            return (0, "") if command[-1] == "ssh.socket" else (3, "")
        return 0, "0.0.0.0:22 (Stream)\n[::]:22 (Stream)\n[::]:2222 (Stream)\n"

    monkeypatch.setattr(process, "has_systemd", lambda: True)
    found = process.active_socket(run)
    assert found == Socket("ssh.socket", (22, 2222))
    assert found.service == "ssh.service"
    monkeypatch.setattr(process, "has_systemd", lambda: False)
    assert process.active_socket(run) is None


def test_doors() -> None:
    found = [
        Listener(7, "/usr/sbin/sshd", (), "", (("10.0.0.1", 22), ("0.0.0.0", 2222), ("::", 2222), ("::", 24)), ("one",))
    ]
    assert process.doors(found, None, [22, 24, 2222]) == [("10.0.0.1", 22), ("::1", 24), ("127.0.0.1", 2222)]
    assert process.doors([], Socket("ssh.socket", (22,)), [22, 23]) == [("localhost", 22), ("localhost", 23)]


def packet(*lists: str) -> bytes:
    payload = bytes([20]) + b"\0" * 16 + b"".join(struct.pack(">I", len(names)) + names.encode() for names in lists)
    payload += b"\0" * 30
    padding = 4
    return struct.pack(">IB", len(payload) + padding + 1, padding) + payload + b"\0" * padding


OFFER = ("mlkem,curve,ext-info-s,kex-strict-s-v00@openssh.com,gss-x", "ssh-ed25519", "aes", "aes", "hmac", "hmac")


@pytest.fixture
def serve() -> t.Iterator[t.Callable[[bytes], int]]:
    """Start a server that says something to one connection."""
    servers = []

    def start(data: bytes) -> int:
        server = socket.create_server(("localhost", 0))
        servers.append(server)

        def answer() -> None:
            connection, _address = server.accept()
            with connection:
                connection.sendall(data)
                time.sleep(0.1)

        threading.Thread(target=answer, daemon=True).start()
        return int(server.getsockname()[1])

    yield start
    for server in servers:
        server.close()


def test_offer(serve: t.Callable[[bytes], int]) -> None:
    assert process.offer(("localhost", serve(b"hello\r\nSSH-2.0-x\r\n" + packet(*OFFER)))) == {
        "KexAlgorithms": "mlkem,curve", "HostKeyAlgorithms": "ssh-ed25519", "Ciphers": "aes", "MACs": "hmac",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "ended the connection before it said SSH-"),
        (b"HTTP/1.0 400\r\n", "ended the connection"),
        (b"SSH-2.0-x\r\n", "does not answer as sshd"),
        (b"SSH-2.0-x\r\n" + struct.pack(">IB", 12, 4) + b"\1" * 11, "does not begin with a key exchange"),
        (b"SSH-2.0-x\r\n" + packet(*OFFER[:2])[:-60], "does not answer as sshd"),
        (b"SSH-2.0-x\r\n" + struct.pack(">IB", 26, 4) + b"\x14" + b"\0" * 24, "does not answer as sshd"),
        (b"SSH-2.0-x\r\n" + struct.pack(">IB", 4, 0) + b"\x14" + b"\0" * 24, "does not answer as sshd"),
        (b"SSH-2.0-x\r\n" + struct.pack(">IB", 0, 0) + packet(*OFFER), "does not answer as sshd"),
        (b"SSH-2.0-x\r\n" + struct.pack(">IB", 2**32 - 1, 4) + packet(*OFFER), "does not answer as sshd"),
        (b"\0" * 100_000, "does not answer as sshd"),
        (b"SSH-2.0-" + b"x" * 100_000 + b"\r\n" + packet(*OFFER), "does not answer as sshd"),
    ],
    ids=[
        "nothing", "http", "identification", "message", "truncated", "no-lists", "length-4", "length-0", "length-max",
        "zeros", "long-identification",
    ],
)  # fmt: skip
def test_no_offer(serve: t.Callable[[bytes], int], data: bytes, words: str) -> None:
    with pytest.raises(SshdError, match=words):
        process.offer(("localhost", serve(data)), patience=1)


@pytest.mark.parametrize(
    "begin",
    [b"", b"SSH-2.0-x\r\n", b"SSH-2.0-x\r\n" + struct.pack(">IB", 34000, 4)],
    ids=["banner", "no-packet", "packet"],
)
def test_listener_that_never_stops_talking_is_left(begin: bytes) -> None:
    said = 0
    with socket.create_server(("localhost", 0)) as server:

        def talk() -> None:
            nonlocal said
            connection, _address = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(begin)
                while said < 1 << 26:
                    said += connection.send(b"noise\r\n" * 1000)

        threading.Thread(target=talk, daemon=True).start()
        with pytest.raises(SshdError, match="does not answer as sshd"):
            process.offer(("localhost", server.getsockname()[1]), patience=2)
    assert said < 1 << 25


def test_listener_that_drips_is_left_in_time() -> None:
    with socket.create_server(("localhost", 0)) as server:

        def drip() -> None:
            connection, _address = server.accept()
            with connection, contextlib.suppress(OSError):
                for _second in range(100):
                    connection.sendall(b"x\r\n")
                    time.sleep(0.05)

        threading.Thread(target=drip, daemon=True).start()
        start = time.monotonic()
        with pytest.raises(SshdError, match="does not answer as sshd"):
            process.offer(("localhost", server.getsockname()[1]), patience=0.4)
    assert time.monotonic() - start < 3


def test_sshd_that_has_not_taken_its_files_over(serve: t.Callable[[bytes], int]) -> None:
    wanted = {"kexalgorithms": ["mlkem,curve"], "hostkeyalgorithms": ["ssh-ed25519,rsa-sha2-512"],
              "ciphers": ["aes"], "macs": ["hmac"]}  # fmt: skip
    data = b"SSH-2.0-x\r\n" + packet(*OFFER)
    assert process.differing_offer(("localhost", serve(data)), wanted) == {}
    assert process.differing_offer(("localhost", serve(data)), {**wanted, "kexalgorithms": ["mlkem"]}) == {
        "KexAlgorithms": "mlkem,curve"
    }
    assert process.differing_offer(("localhost", serve(data)), {**wanted, "hostkeyalgorithms": ["rsa-sha2-512"]}) == {
        "HostKeyAlgorithms": "ssh-ed25519"
    }


def test_directory_that_a_service_takes_along_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "sshd"
    monkeypatch.setattr(process, "_DIRECTORY", str(directory))
    taken = iter([True, True, False])

    def run(_command: t.Sequence[str]) -> tuple[int, str]:
        if next(taken):
            directory.rmdir()
        return (0, "port 22") if directory.exists() else (255, f"Missing privilege separation directory: {directory}")

    assert process.ask_sshd(run, ["sshd", "-T"]) == (0, "port 22")


def test_what_else_sshd_has_against_its_files_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_DIRECTORY", str(tmp_path / "sshd"))
    answers = iter([(255, "Bad configuration option: Prot")])
    assert process.ask_sshd(lambda _command: next(answers), ["sshd", "-t"]) == (255, "Bad configuration option: Prot")
