# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import errno
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
from ansible_collections.gpuops.fleet.plugins.plugin_utils._ssh_causes import CAUSES
from ansible_collections.gpuops.fleet.plugins.plugin_utils._ssh_doctor import (
    STAGES,
    Finished,
    Route,
    SickError,
    Target,
    classify_banner,
    classify_connect_errors,
    classify_login,
    diagnose,
    parse_known_fingerprints,
    parse_route,
    read_session,
    render_cause,
    run_command,
)

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
needs_sshd = pytest.mark.skipif(SSHD is None, reason="sshd is not installed (apt-get install openssh-server)")

TARGET = Target("gpu-1", "192.0.2.7", port=2222, user="root", identity_file="/k/id")
ROUTE = Route("192.0.2.7", 2222, "root", "[192.0.2.7]:2222", "/k/known_hosts")
JUMP = replace(ROUTE, via="ProxyJump bastion")

# --- messages of OpenSSH 9.2 on Debian 12, with addresses replaced, unless a case says otherwise ---

START = """\
OpenSSH_9.2p1 Debian-2+deb12u10, OpenSSL 3.0.19 27 Jan 2026
debug1: Connecting to 192.0.2.7 [192.0.2.7] port 2222.
debug1: Connection established.
debug1: Local version string SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u10
debug1: Remote protocol version 2.0, remote software version OpenSSH_9.2p1 Debian-2+deb12u10
debug1: Authenticating to 192.0.2.7:2222 as 'root'
debug1: SSH2_MSG_KEXINIT sent
"""
KEX = f"""{START}\
debug1: SSH2_MSG_KEXINIT received
debug1: Server host key: ssh-ed25519 SHA256:ycV9Ucl4glKj/bl/3uaWIJP4uPiKXBdXno0mX9p2sYE
"""
KNOWN = f"""{KEX}\
debug1: Host '[192.0.2.7]:2222' is known and matches the ED25519 host key.
debug1: SSH2_MSG_NEWKEYS received
debug1: Will attempt key: /k/id ED25519 SHA256:tNSyzWA95PmX8/Wwea6MQot7ELqHV3Ma/EpEvSMriZc explicit
debug1: Authentications that can continue: publickey
debug1: Next authentication method: publickey
"""
OFFERED = f"""{KNOWN}\
debug1: Offering public key: /k/id ED25519 SHA256:tNSyzWA95PmX8/Wwea6MQot7ELqHV3Ma/EpEvSMriZc explicit
"""
ACCEPTED = f"""{OFFERED}\
debug1: Server accepts key: /k/id ED25519 SHA256:tNSyzWA95PmX8/Wwea6MQot7ELqHV3Ma/EpEvSMriZc explicit
"""
IN = f"""{ACCEPTED}\
Authenticated to 192.0.2.7 ([192.0.2.7]:2222) using "publickey".
debug1: Sending command: true
"""
DENIED = "debug1: No more authentication methods to try.\nroot@192.0.2.7: Permission denied (publickey).\n"
CHANGED = f"""{KEX}\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@\r
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\r
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@\r
The fingerprint for the ED25519 key sent by the remote host is\r
SHA256:ycV9Ucl4glKj/bl/3uaWIJP4uPiKXBdXno0mX9p2sYE.\r
Add correct host key in /k/known hosts to get rid of this message.\r
Offending ED25519 key in /k/known hosts:3\r
Host key for [192.0.2.7]:2222 has changed and you have requested strict checking.\r
Host key verification failed.\r
"""
NO_KEX = "Unable to negotiate with 192.0.2.7 port 2222: no matching key exchange method found. Their offer: x\r\n"
TOO_OPEN = f"""{ACCEPTED}\
@         WARNING: UNPROTECTED PRIVATE KEY FILE!          @\r
Permissions 0644 for '/k/id' are too open.\r
This private key will be ignored.\r
Load key "/k/id": bad permissions\r
"""
THROUGH_JUMP = f"""\
OpenSSH_9.2p1 Debian-2+deb12u10, OpenSSL 3.0.19 27 Jan 2026
debug1: Remote protocol version 2.0, remote software version OpenSSH_8.4
debug1: Authenticating to bastion:22 as 'me'
debug1: Server host key: ssh-ed25519 SHA256:thekeyofthebastion
debug1: Authentications that can continue: publickey,keyboard-interactive
Authenticated to bastion ([198.51.100.1]:22) using "publickey".
{OFFERED}debug1: Authentications that can continue: publickey
{DENIED}"""
JUMP_END = "kex_exchange_identification: Connection closed by remote host\nConnection closed by UNKNOWN port 65535\n"


def _code(finished: Finished, route: Route = ROUTE) -> str:
    with pytest.raises(SickError) as caught:
        classify_login(finished, route, 10)
    return caught.value.code


@pytest.mark.parametrize(
    ("expected", "rc", "stderr"),
    [
        pytest.param("host_key_unknown", 255, f"{KEX}No ED25519 host key is known for x and you …\n", id="new-host"),
        pytest.param("host_key_changed", 255, CHANGED, id="rebuilt"),
        pytest.param(
            "host_key_revoked",
            255,
            f"{KEX}@       WARNING: REVOKED HOST KEY DETECTED!               @\r\nHost key verification failed.\r\n",
            id="revoked",
        ),
        pytest.param("no_matching_algorithm", 255, START + NO_KEX, id="kex"),
        pytest.param(
            "auth_key_refused",
            255,
            f"{OFFERED}debug1: Authentications that can continue: publickey\n{DENIED}",
            id="key-refused",
        ),
        pytest.param(
            "auth_key_refused",
            255,
            f"{OFFERED}Permission denied (publickey,gssapi-with-mic).\r\n",
            id="key-refused-openssh-7.4-without-user",
        ),
        pytest.param(
            "auth_password_only",
            255,
            f"{OFFERED}root@192.0.2.7: Permission denied (publickey,password).\r\n",
            id="key-refused-password-offered",
        ),
        pytest.param(
            "auth_password_only",
            255,
            f"{KNOWN}root@192.0.2.7: Permission denied (keyboard-interactive).\r\n",
            id="no-publickey-at-all",
        ),
        pytest.param("auth_no_key", 255, f"{KNOWN}debug1: Trying private key: /k/id\n{DENIED}", id="no-key"),
        pytest.param(
            "auth_account_refused",
            255,
            f"{ACCEPTED}debug1: Authentications that can continue: publickey,password\n"
            "root@192.0.2.7: Permission denied (publickey,password).\r\n",
            id="root-login-forbidden",
        ),
        pytest.param(
            "auth_account_refused",
            255,
            f"{ACCEPTED}Your account has expired; please contact your system administrator.\n\n"
            "Connection closed by 192.0.2.7 port 2222\r\n",
            id="account-expired",
        ),
        pytest.param("key_passphrase", 255, ACCEPTED + DENIED, id="passphrase-without-agent"),
        pytest.param(
            "key_passphrase",
            255,
            f'{ACCEPTED}sign_and_send_pubkey: signing failed for ED25519 "/k/id" from agent: agent refused\r\n'
            + DENIED,
            id="agent-refuses",
        ),
        pytest.param("key_permissions", 255, TOO_OPEN + DENIED, id="key-0644"),
        pytest.param("key_invalid", 255, f'{KNOWN}Load key "/k/id": error in libcrypto\r\n{DENIED}', id="key-damaged"),
        pytest.param(
            "auth_second_factor",
            255,
            f'{ACCEPTED}Authenticated using "publickey" with partial success.\n'
            "debug1: Authentications that can continue: keyboard-interactive\n"
            "root@192.0.2.7: Permission denied (keyboard-interactive).\r\n",
            id="second-factor",
        ),
        pytest.param(
            "auth_too_many_failures",
            255,
            f"{OFFERED}Received disconnect from 192.0.2.7 port 2222:2: Too many authentication failures\r\n"
            "Disconnected from 192.0.2.7 port 2222\r\n",
            id="too-many",
        ),
        pytest.param("connection_reset", 255, f"{START}Connection reset by 192.0.2.7 port 2222\r\n", id="reset"),
        pytest.param(
            "connection_closed",
            255,
            "kex_exchange_identification: Connection closed by remote host\nConnection closed by 192.0.2.7 port 2222\n",
            id="closed",
        ),
        pytest.param(
            "connection_closed", 255, f"{IN}Connection to 192.0.2.7 closed by remote host.\r\n", id="closed-after-login"
        ),
        pytest.param(
            "max_startups",
            255,
            "debug1: kex_exchange_identification: banner line 0: Exceeded MaxStartups\n"
            "kex_exchange_identification: Connection closed by remote host\r\n",
            id="max-startups-between-stages",
        ),
        pytest.param(
            "penalties",
            255,
            "debug1: kex_exchange_identification: banner line 0: Not allowed at this time\n"
            "kex_exchange_identification: Connection closed by remote host\r\n",
            id="penalties-between-stages",
        ),
        pytest.param(
            "banner_timeout",
            255,
            "Connection timed out during banner exchange\r\nConnection to 192.0.2.7 port 2222 timed out\r\n",
            id="banner",
        ),
        pytest.param("tcp_refused", 255, "ssh: connect to host x port 1: Connection refused\r\n", id="refused"),
        pytest.param("tcp_timeout", 255, "ssh: connect to host x port 1: Connection timed out\r\n", id="timeout"),
        pytest.param("tcp_unreachable", 255, "ssh: connect to host x port 1: No route to host\r\n", id="no-route"),
        pytest.param(
            "name_unknown", 255, "ssh: Could not resolve hostname x: Name or service not known\r\n", id="no-name"
        ),
        pytest.param(
            "resolver_failed",
            255,
            "ssh: Could not resolve hostname x: Temporary failure in name resolution\r\n",
            id="no-resolver",
        ),
        pytest.param("kex_timeout", None, START, id="hangs-in-kex"),
        pytest.param("auth_timeout", None, OFFERED, id="hangs-in-auth"),
        pytest.param("command_timeout", None, IN, id="hangs-in-shell"),
        pytest.param("command_failed", 1, f"{IN}debug1: Exit status 1\n", id="nologin"),
        pytest.param("command_failed", 255, f"{IN}debug1: Exit status 255\n", id="command-says-255"),
        pytest.param("unknown", 255, "command-line: line 0: a message of a later OpenSSH\r\n", id="unknown"),
        pytest.param("unknown", 255, "", id="silence"),
    ],
)
def test_login_cause(expected: str, rc: int | None, stderr: str) -> None:
    assert _code(Finished(rc, "", stderr)) == expected


@pytest.mark.parametrize(
    ("expected", "rc", "stderr"),
    [
        pytest.param("auth_key_refused", 255, THROUGH_JUMP, id="node-behind-the-jump-refuses"),
        pytest.param("jump_refused", 255, f"Host key verification failed.\r\n{JUMP_END}", id="jump-host-key"),
        pytest.param("jump_refused", 255, f"me@bastion: Permission denied (publickey).\r\n{JUMP_END}", id="jump-login"),
        pytest.param(
            "jump_failed",
            255,
            f"channel 0: open failed: connect failed: Connection refused\r\nstdio forwarding failed\r\n{JUMP_END}",
            id="jump-cannot-connect",
        ),
        pytest.param("jump_failed", None, "", id="proxy-command-hangs"),
    ],
)
def test_login_cause_behind_a_jump(expected: str, rc: int | None, stderr: str) -> None:
    assert _code(Finished(rc, "", stderr), JUMP) == expected


def test_a_login_banner_does_not_mislead() -> None:
    banner = "# Permission denied (password) to all but staff. Connection reset by admin when idle.\n"
    stderr = f"{KNOWN}{banner}{OFFERED.removeprefix(KNOWN)}{DENIED}"
    with pytest.raises(SickError, match=r"^root@192.0.2.7: Permission denied \(publickey\)") as caught:
        classify_login(Finished(255, "", stderr), ROUTE, 10)
    assert caught.value.code == "auth_key_refused"


def test_the_session_is_that_of_the_node_not_of_the_jump_host() -> None:
    session = read_session(THROUGH_JUMP, JUMP)
    assert session is not None
    assert session.server_version == "OpenSSH_9.2p1 Debian-2+deb12u10"
    assert session.auth_methods == ("publickey",)
    assert session.host_key_fingerprint == "SHA256:ycV9Ucl4glKj/bl/3uaWIJP4uPiKXBdXno0mX9p2sYE"


def _remedy(stderr: str, target: Target = TARGET) -> str:
    with pytest.raises(SickError) as caught:
        classify_login(Finished(255, "", stderr), ROUTE, 10)
    return str(render_cause(caught.value, target, ROUTE)["remedy"])


@pytest.mark.parametrize(
    ("stderr", "expected"),
    [
        pytest.param(CHANGED, "ssh-keygen -R '[192.0.2.7]:2222' -f '/k/known hosts'", id="changed"),
        pytest.param(
            f"{OFFERED}root@192.0.2.7: Permission denied (publickey,password).\r\n",
            "ssh-copy-id -i /k/id -p 2222 root@192.0.2.7",
            id="password",
        ),
        pytest.param(TOO_OPEN + DENIED, "chmod 600 /k/id", id="permissions"),
        pytest.param(START + NO_KEX, "ssh -Q kex;", id="kex"),
        pytest.param(START + NO_KEX.replace("key exchange method", "MAC"), "ssh -Q mac;", id="mac"),
        pytest.param(
            f"{KEX}Host key verification failed.\r\n",
            "compare SHA256:ycV9Ucl4glKj/bl/3uaWIJP4uPiKXBdXno0mX9p2sYE with the provider's console, then: "
            "ssh -o StrictHostKeyChecking=accept-new -i /k/id -o IdentitiesOnly=yes -p 2222 root@192.0.2.7 true",
            id="unknown-key",
        ),
    ],
)
def test_remedy_has_the_real_values(stderr: str, expected: str) -> None:
    assert expected in _remedy(stderr)


def test_remedy_is_quoted_for_a_shell() -> None:
    target = replace(TARGET, alias="gpu $(x)", identity_file="/k/my key", known_hosts_file="/k/known hosts")
    stderr = f"{OFFERED}root@192.0.2.7: Permission denied (password).\r\n"
    assert _remedy(stderr, target) == (
        "ssh-copy-id -i '/k/my key' -p 2222 -o 'UserKnownHostsFile=\"/k/known hosts\"' root@192.0.2.7"
    )
    assert "-l 'gpu $(x)'" in _remedy(stderr, replace(target, password_given=True))


@pytest.mark.parametrize("code", CAUSES)
@pytest.mark.parametrize("password_given", [False, True])
def test_every_cause_renders(code: str, password_given: bool) -> None:
    cause = render_cause(SickError(code, "evidence"), replace(TARGET, password_given=password_given), ROUTE)
    assert cause["seen"] == "evidence"
    assert cause["meaning"]
    assert cause["remedy"]
    assert "{" not in cause["remedy"]


@pytest.mark.parametrize(
    ("data", "end", "expected"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "closed", "not_ssh"),
        (b"220 mail ESMTP\r\n", "open", "not_ssh"),
        (b"\x15\x03\x01\x00\x02\x02", "closed", "not_ssh"),
        (b"SSH-1.5-OpenSSH_2.1\n", "open", "ssh_protocol_old"),
        (b"Exceeded MaxStartups\r\n", "closed", "max_startups"),
        (b"Not allowed at this time\r\n", "reset", "penalties"),
        (b"", "closed", "banner_closed"),
        (b"", "reset", "banner_closed"),
        (b"", "open", "banner_timeout"),
    ],
)
def test_banner_cause(data: bytes, end: str, expected: str) -> None:
    with pytest.raises(SickError) as caught:
        classify_banner(data, end)
    assert caught.value.code == expected
    assert caught.value.seen.isprintable()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u7\r\n", "OpenSSH_9.2p1 Debian-2+deb12u7"),
        (b"SSH-1.99-Cisco-1.25\n", "Cisco-1.25"),
        (b"Welcome\r\nto the gate\r\nSSH-2.0-Go\r\n", "Go"),
        (b"SSH-2.0-evil\x1b[2J\r\n", "evil[2J"),
    ],
)
def test_banner_version(data: bytes, expected: str) -> None:
    assert classify_banner(data, "open") == expected


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([OSError(errno.ENETUNREACH, "x"), TimeoutError()], "tcp_timeout"),
        ([TimeoutError(), ConnectionRefusedError(errno.ECONNREFUSED, "x")], "tcp_refused"),
        ([OSError(errno.EHOSTUNREACH, "No route to host")], "tcp_unreachable"),
        ([OSError(errno.ETIMEDOUT, "x")], "tcp_timeout"),
    ],
)
def test_the_address_that_got_furthest_decides(errors: list[OSError], expected: str) -> None:
    assert classify_connect_errors([(f"192.0.2.{n}", error) for n, error in enumerate(errors)]).code == expected


def test_route_of_ssh_config() -> None:
    text = "user me\nhostname 192.0.2.7\nport 2222\nproxyjump a@b:1,c\nuserknownhostsfile /x/kh /x/kh2\n"
    assert parse_route(text, replace(TARGET, port=None)) == Route(
        "192.0.2.7", 2222, "me", "[192.0.2.7]:2222", "/x/kh", "ProxyJump a@b:1,c"
    )
    plain = parse_route("user me\nhostname n\nport 22\nproxycommand none\nhostkeyalias fleet-1\n", TARGET)
    assert (plain.known_name, plain.via) == ("fleet-1", "")


def test_known_fingerprints_by_line() -> None:
    text = "# Host n found: line 2 \nn RSA SHA256:aa \n# Host n found: line 9 CA\nn ED25519 SHA256:bb x\n"
    assert parse_known_fingerprints(text) == {2: "SHA256:aa", 9: "SHA256:bb"}


def test_run_command_ends_the_whole_group_at_its_limit(tmp_path: pathlib.Path) -> None:
    mark = tmp_path / "survived"
    start = time.monotonic()
    finished = run_command(["sh", "-c", f"echo early; (sleep 1.5; touch {mark}) & sleep 30"], 0.5)
    assert (finished.rc, finished.stdout) == (None, "early\n")
    assert time.monotonic() - start < 1.2
    time.sleep(1.5)
    assert not mark.exists()


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
        (_tarpit, "not_ssh", "banner"),
        (lambda connection: None, "banner_closed", "banner"),
        (lambda connection: connection.sendall(b"Exceeded MaxStartups\r\n"), "max_startups", "banner"),
        (lambda connection: connection.sendall(b"Not allowed at this time\r\n"), "penalties", "banner"),
        (_mute_after_banner, "kex_timeout", "login"),
    ],
)
def test_listener(answer: t.Callable[[socket.socket], object], expected: str, stage: str) -> None:
    start = time.monotonic()
    with _listener(answer) as port:
        report = diagnose(Target("gpu-1", "127.0.0.1", port=port, ssh_config="none", timeout=1.5))
    assert report["cause"]["code"] == expected
    assert [entry["stage"] for entry in report["stages"] if entry["status"] == "fail"] == [stage]
    assert [entry["stage"] for entry in report["stages"]] == list(STAGES)
    assert report["message"].startswith(f"gpu-1 (127.0.0.1:{port}): {report['cause']['meaning']}; seen: ")
    assert "\n" not in report["message"]
    assert time.monotonic() - start < 3


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
        for _attempt in range(100):
            if "Server listening" in (directory / "sshd.log").read_text():
                break
            assert process.poll() is None, (directory / "sshd.log").read_text()
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
    start = time.monotonic()
    report = diagnose(server.target())
    assert report["ok"], report["message"]
    assert report["cause"] is None
    assert {stage["status"] for stage in report["stages"]} == {"ok"}
    assert "OpenSSH" in report["server_version"]
    assert report["auth_methods"] == ["publickey"]
    assert report["host_key_fingerprint"] == _fingerprint(server.directory / "host_key")
    assert time.monotonic() - start < 3
    assert (server.directory / "known_hosts").read_bytes() == known_hosts


@needs_sshd
def test_host_key_unknown(server: Server) -> None:
    empty = server.directory / "empty known hosts"
    report = diagnose(server.target(known_hosts_file=str(empty)))
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
    evidence = report["stages"][-1]["evidence"]
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
        (["ForceCommand sleep 60"], [], "command_timeout", "no end after 3 s"),
        (["DenyUsers *"], [], "auth_key_refused", "Permission denied (publickey)"),
        (
            ["AuthenticationMethods publickey,password", "PasswordAuthentication yes"],
            [],
            "auth_second_factor",
            "Permission denied (password)",
        ),
        (["Ciphers aes128-ctr"], ["-c", "aes256-ctr"], "no_matching_algorithm", "no matching cipher found"),
    ],
)
def test_sshd_settings(
    tmp_path: pathlib.Path, settings: list[str], ssh_args: list[str], expected: str, seen: str
) -> None:
    with _sshd(tmp_path, *settings) as server:
        report = diagnose(server.target(ssh_args=tuple(ssh_args), timeout=3))
    assert report["cause"]["code"] == expected
    assert seen in report["cause"]["seen"]


@needs_sshd
def test_alias_behind_a_jump_host(server: Server, tmp_path: pathlib.Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        f"Host node bad\n  HostName localhost\n  HostKeyAlias [127.0.0.1]:{server.port}\n"
        "Host node\n  ProxyJump hop\nHost bad\n  ProxyJump lost\nHost lost\n  UserKnownHostsFile /dev/null\n"
        f"Host *\n  HostName 127.0.0.1\n  Port {server.port}\n  User {_user()}\n  BatchMode yes\n"
        f"  IdentityFile {server.directory}/id\n  UserKnownHostsFile {server.directory}/known_hosts\n"
    )
    report = diagnose(Target("gpu-1", "node", ssh_config=str(config)))
    assert report["ok"], report["message"]
    skipped = [stage["evidence"] for stage in report["stages"] if stage["stage"] in ("resolve", "tcp", "banner")]
    assert skipped == ["ssh goes through ProxyJump hop"] * 3
    assert "OpenSSH" in report["server_version"]
    assert diagnose(Target("gpu-1", "bad", ssh_config=str(config)))["cause"]["code"] == "jump_refused"


@needs_sshd
def test_one_login_per_call(tmp_path: pathlib.Path) -> None:
    with _sshd(tmp_path, f"AuthorizedKeysFile {tmp_path}/none", "LogLevel VERBOSE") as server:
        log = tmp_path / "sshd.log"
        diagnose(server.target())
        text = log.read_text()
    assert text.count("Connection from") == 2
    assert text.count("Failed publickey") == 1
