# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.process import Finished
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.causes import CAUSES, SickError
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.client import Route, Target
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.doctor import render_cause
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.messages import (
    classify_forwarding,
    classify_login,
    classify_sftp,
    parse_known_fingerprints,
    read_session,
)
from hypothesis import given, settings, strategies

TARGET = Target("gpu-1", "192.0.2.7", port=2222, user="root", identity_file="/k/id")
ROUTE = Route("192.0.2.7", 2222, "root", "[192.0.2.7]:2222", "/k/known_hosts")
JUMP = replace(ROUTE, jump="bastion")

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
        pytest.param(
            "host_cert_invalid",
            255,
            f"{KEX}Certificate invalid: expired\r\nNo ED25519-CERT host key is known for [192.0.2.7]:2222 and you …\r\n"
            "Host key verification failed.\r\n",
            id="host-certificate",
        ),
        pytest.param("no_matching_algorithm", 255, START + NO_KEX, id="kex"),
        pytest.param(
            "ssh_config_error", 255, "Cannot execute command-line and remote command.\r\n", id="remote-command"
        ),
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
            "auth_publickey_off",
            255,
            f"{KNOWN}root@192.0.2.7: Permission denied (password,keyboard-interactive).\r\n",
            id="no-publickey-at-all",
        ),
        pytest.param("auth_no_key", 255, f"{KNOWN}debug1: Trying private key: /k/id\n{DENIED}", id="no-key"),
        pytest.param(
            "auth_root_refused",
            255,
            f"{ACCEPTED}debug1: Authentications that can continue: publickey,password\n"
            "root@192.0.2.7: Permission denied (publickey,password).\r\n",
            id="root-login-forbidden",
        ),
        pytest.param(
            "auth_account_refused",
            255,
            f"{ACCEPTED}Closed for maintenance\n\nConnection closed by 192.0.2.7 port 2222\r\n",
            id="pam-says-no",
        ),
        pytest.param(
            "system_closed",
            255,
            f'{ACCEPTED}"System is booting up. Unprivileged users are not permitted to log in yet. Please come back '
            'later. For technical details, see pam_nologin(8)."\n\nConnection closed by 192.0.2.7 port 2222\r\n',
            id="booting",
        ),
        pytest.param(
            "account_expired",
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
        pytest.param(
            "key_invalid",
            255,
            f'{ACCEPTED}Load key "/k/id": error in libcrypto\r\n{DENIED}',
            id="damaged-beside-its-pub",
        ),
        pytest.param(
            "key_obsolete",
            255,
            f"{OFFERED}debug1: send_pubkey_test: no mutual signature algorithm\n{DENIED}",
            id="dsa-key-openssh-8.4",
        ),
        pytest.param(
            "key_obsolete",
            255,
            f"{OFFERED}sign_and_send_pubkey: no mutual signature supported\r\n{DENIED}",
            id="dsa-key-openssh-9.2",
        ),
        pytest.param(
            "auth_key_refused",
            255,
            f"{OFFERED}debug1: send_pubkey_test: no mutual signature algorithm\n"
            f"debug1: Offering public key: /k/id2 ED25519 SHA256:x\n{DENIED}",
            id="a-second-key-was-refused",
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
        pytest.param("command_failed", 1, f"{IN}debug1: Exit status 1\n", id="no-words"),
        pytest.param(
            "account_nologin", 1, f"{IN}This account is currently not available.\ndebug1: Exit status 1\n", id="nologin"
        ),
        pytest.param(
            "password_expired",
            1,
            f"{IN}WARNING: Your password has expired.\nPassword change required but no TTY available.\n"
            "debug1: Exit status 1\n",
            id="password-expired",
        ),
        pytest.param(
            "command_failed",
            255,
            f"{IN}channel 1: open failed: connect failed: open failed\r\ndebug1: Exit status -1\n",
            id="no-sessions",
        ),
        pytest.param("command_failed", 255, f"{IN}debug1: Exit status 255\n", id="command-says-255"),
        pytest.param("unknown", 255, "command-line: line 0: a message of a later OpenSSH\r\n", id="unknown"),
        pytest.param("unknown", 255, f"{KNOWN}Bye, said the server of next year.\r\n", id="unknown-after-kex"),
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


def test_fingerprint_in_a_banner_is_no_command() -> None:
    session = read_session(f"{KNOWN}debug1: Server host key: ssh-ed25519 SHA256:x$(id){{{{x}}}}\n", ROUTE)
    assert session is not None
    assert session.host_key_fingerprint == "SHA256:x"


def _remedy(stderr: str, target: Target = TARGET) -> str:
    with pytest.raises(SickError) as caught:
        classify_login(Finished(255, "", stderr), ROUTE, 10)
    return str(render_cause(caught.value, "login", target, ROUTE)["remedy"])


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
    stderr = f"{OFFERED}root@192.0.2.7: Permission denied (publickey,password).\r\n"
    assert _remedy(stderr, target) == (
        "ssh-copy-id -i '/k/my key' -p 2222 -o 'UserKnownHostsFile=\"/k/known hosts\"' root@192.0.2.7"
    )
    assert "-l 'gpu $(x)'" in _remedy(stderr, replace(target, password_given=True))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("channel 3: open failed: administratively prohibited: open failed\r\n", "forwarding_off"),
        ("channel 0: open failed: unknown channel type: \r\n", "forwarding_off"),
        ("channel 3: open failed: connect failed: Connection refused\r\n", "tcp_refused"),
        ("channel 3: open failed: connect failed: Connection timed out\r\n", "tcp_timeout"),
        ("channel 3: open failed: connect failed: Name or service not known\r\n", "name_unknown"),
        ("channel 3: open failed: connect failed: Temporary failure in name resolution\r\n", "resolver_failed"),
        ("channel 3: open failed: connect failed: No route to host\r\n", "tcp_unreachable"),
    ],
)
def test_channel_that_was_not_opened(said: str, expected: str) -> None:
    refused = classify_forwarding(f"debug1: noise\n{said}")
    assert refused
    assert refused.code == expected


def test_no_word_of_a_channel_is_no_verdict() -> None:
    assert classify_forwarding("debug1: channel 2: new mux-control\n") is None


@pytest.mark.parametrize(
    ("finished", "login", "expected"),
    [
        (Finished(255, "", ""), "debug1: Sending subsystem: sftp\n", "sftp_missing"),
        (
            Finished(255, "", ""),
            "debug1: client_input_channel_req: channel 3 rtype exit-signal reply 0\n",
            "sftp_failed",
        ),
        (Finished(1, "", ""), "debug1: client_input_channel_req: channel 3 rtype exit-status reply 0\n", "sftp_failed"),
        (Finished(None, "", ""), "", "sftp_failed"),
        (
            Finished(255, "", "mux_client_request_session: session request failed: Session open refused by peer\r\n"),
            "",
            "",
        ),
        (Finished(255, "", "Control socket connect(/s): No such file or directory\r\n"), "", ""),
    ],
)
def test_no_sftp(finished: Finished, login: str, expected: str) -> None:
    sick = classify_sftp(finished, login)
    assert (sick.code if sick else "") == expected


def test_what_came_instead_of_sftp_is_shown() -> None:
    sick = classify_sftp(Finished(None, "Welcome\n", ""), "")
    assert sick
    assert sick.seen == "no answer: Welcome"


def test_known_fingerprints_by_line() -> None:
    text = "# Host n found: line 2 \nn RSA SHA256:aa \n# Host n found: line 9 CA\nn ED25519 SHA256:bb x\n"
    assert parse_known_fingerprints(text) == {2: "SHA256:aa", 9: "SHA256:bb"}


@given(strategies.text(), strategies.sampled_from([KNOWN, START, "", OFFERED]))
@settings(deadline=None)
def test_any_text_has_a_cause(text: str, start: str) -> None:
    assert _code(Finished(255, text, start + text)) in CAUSES


@given(strategies.text("abcdefghij \n.,:'\"()@"))
@settings(deadline=None)
def test_unknown_words_are_no_cause(text: str) -> None:
    assert _code(Finished(255, "", KNOWN + text)) == "unknown"
