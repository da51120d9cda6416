# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The messages of C{ssh -v}, and the cause that they tell.

This plugin util is PRIVATE to the collection.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.process import Finished
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.text import printable
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.causes import SickError
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.client import Route

_ALGORITHM_QUERIES = {
    "key exchange method": "kex",
    "host key type": "HostKeyAlgorithms",
    "cipher": "cipher",
    "MAC": "mac",
}

# Anchored, since a server may put any text into its login banner. Searched in this order.
_LOGIN_PATTERNS = tuple(
    (re.compile(pattern), code)
    for pattern, code in (
        (r"^(?:debug1: )?kex_exchange_identification: banner line \d+: Exceeded MaxStartups", "max_startups"),
        (r"^(?:debug1: )?kex_exchange_identification: banner line \d+: Not allowed at this time", "penalties"),
        (r"^Connection timed out during banner exchange", "banner_timeout"),
        (r"^ssh: Could not resolve hostname .*: Temporary failure", "resolver_failed"),
        (r"^ssh: Could not resolve hostname ", "name_unknown"),
        (r"^ssh: connect to host .*: Connection refused", "tcp_refused"),
        (r"^ssh: connect to host .*: Connection timed out", "tcp_timeout"),
        (r"^ssh: connect to host ", "tcp_unreachable"),
        (r"^Unable to negotiate with .*: no matching .* found", "no_matching_algorithm"),
        (r"^@ +WARNING: REVOKED HOST KEY DETECTED!", "host_key_revoked"),
        (r"^Certificate invalid: ", "host_cert_invalid"),
        (r"^@ +WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!", "host_key_changed"),
        (r"^No .*host key is known for ", "host_key_unknown"),
        (r"^Host key verification failed", "host_key_unknown"),
        (r"^(?:Received d|D)isconnect(?:ed)? from .*: Too many authentication failures", "auth_too_many_failures"),
        (r'^Load key ".*": bad permissions', "key_permissions"),
        (r"^Cannot execute command-line and remote command", "ssh_config_error"),
    )
)
# Only when authentication had no say in it.
_BROKEN_PATTERNS = tuple(
    (re.compile(pattern), code)
    for pattern, code in (
        (r"Connection reset by ", "connection_reset"),
        (r"Broken pipe", "connection_reset"),
        (r"Connection closed by |Connection to .* closed by remote host|^Disconnected from ", "connection_closed"),
    )
)
# What a node says when the login is over and no command runs.
_COMMAND_PATTERNS = tuple(
    (re.compile(pattern), code)
    for pattern, code in (
        (r"^This account is (?:currently )?not available", "account_nologin"),
        (r"[Pp]assword (?:change required|has expired)", "password_expired"),
    )
)
_METHODS = re.compile(r"^debug1: Authentications that can continue: (\S+)")
_ACCEPTED = re.compile(r"^debug1: Server accepts key: (.*)")
_DENIED = re.compile(r"^(?:\S+: )?Permission denied \(([^)]*)\)")
_PARTIAL = re.compile(r'^Authenticated using "\S+" with partial success')
_AUTHENTICATED = re.compile(r"^(?:debug1: )?Authenticat(?:ed to .* using|ion succeeded )", re.MULTILINE)
_KEYS_CHANGED = re.compile(r"^debug1: SSH2_MSG_NEWKEYS received", re.MULTILINE)
_OBSOLETE = re.compile(r"no mutual signature |Skipping \S+ key .* not in Pubkey|^Load key .*: Invalid key length")
_LOAD_FAILED = re.compile(r'^Load key ".*": ')
_SYSTEM_CLOSED = re.compile(r"System is (?:booting up|going down)|/run/nologin|not permitted to log in")


@dataclass(frozen=True)
class Session:
    """Debug output of the client about the node itself, without that about jump hosts."""

    lines: tuple[str, ...]
    server_version: str | None
    auth_methods: tuple[str, ...] | None
    host_key_fingerprint: str | None
    accepted_key: str | None


def read_session(stderr: str, route: Route) -> Session | None:
    """Cut out what concerns the node from the output of C{ssh -v}; None when it was never reached."""
    lines = tuple(printable(line.strip()) for line in stderr.splitlines())
    starts = [
        number
        for number, line in enumerate(lines)
        if line.startswith(f"debug1: Authenticating to {route.host}:{route.port} as ")
    ]
    if not starts:
        return None
    own = lines[starts[-1] :]
    versions = _matches(r"remote software version (.+)$", lines[: starts[-1]])
    methods = _matches(_METHODS.pattern, own)
    # A banner of the node may look like this line too, and remedies have what is found here.
    fingerprints = _matches(r"^debug1: Server host (?:key|certificate): \S+ (SHA256:[A-Za-z0-9+/]+)", own)
    accepted = _matches(_ACCEPTED.pattern, own)
    return Session(
        lines=own,
        server_version=versions[-1] if versions else None,
        auth_methods=tuple(methods[0].split(",")) if methods else None,
        host_key_fingerprint=fingerprints[-1] if fingerprints else None,
        accepted_key=accepted[-1] if accepted else None,
    )


def trusts_host_key(stderr: str, route: Route) -> bool:
    """Return whether the key exchange is over, so the host key was accepted."""
    session = read_session(stderr, route)
    return bool(session and _first(_KEYS_CHANGED, session.lines))


def is_authenticated(stderr: str, route: Route) -> bool:
    session = read_session(stderr, route)
    return bool(session and _first(_AUTHENTICATED, session.lines))


def is_shared(stderr: str) -> bool:
    """Return whether the login's connection takes others now."""
    return "\ndebug1: Entering interactive session" in stderr


def classify_login(finished: Finished, route: Route, timeout: float) -> None:
    """Raise the cause that the exit code and the messages of C{ssh -v} tell; return when it ended well."""
    if finished.rc == 0:
        return
    session = read_session(finished.stderr, route)
    lines = session.lines if session else tuple(printable(line.strip()) for line in finished.stderr.splitlines())
    last = last_words(lines)

    if route.via and session is None:
        told = [line for line in lines if re.search(r"^Host key verification failed|Permission denied \(", line)]
        if told:
            raise SickError("jump_refused", f"{told[-1]} (through {route.via})")
        raise SickError("jump_failed", f"{last or f'no end after {timeout:g} s'} (through {route.via})")
    authenticated = _first(_AUTHENTICATED, lines)
    if finished.rc is None:
        _classify_hang(lines, bool(authenticated), timeout)
    if authenticated and (refused := _first(re.compile(r"^channel \d+: open failed: "), lines)):
        raise SickError("command_failed", f"no session: {refused}")
    if authenticated and (status := _matches(r"^debug1: Exit status (-?\d+)", lines)):
        printed = tuple(printable(line.strip()) for line in finished.stdout.splitlines())
        for pattern, code in _COMMAND_PATTERNS:
            if line := _first(pattern, (*printed, *lines)):
                raise SickError(code, line)
        said = lines[lines.index(authenticated) + 1 :]
        words = last_words(printed) or last_words(said) or "no message"
        raise SickError("command_failed", f"exit status {status[-1]}: {words}")
    if not authenticated:
        _classify_before_login(lines, route, session)
    for pattern, code in _BROKEN_PATTERNS:
        if line := _first(pattern, lines):
            raise SickError(code, line)
    raise SickError("unknown", f"exit code {finished.rc}: {last}")


def _classify_hang(lines: tuple[str, ...], authenticated: bool, timeout: float) -> t.NoReturn:
    latest = lines[-1].removeprefix("debug1: ") if lines else "no message"
    if authenticated:
        raise SickError("command_timeout", f"no end after {timeout:g} s")
    if not _first(_KEYS_CHANGED, lines):
        raise SickError("kex_timeout", f"no end after {timeout:g} s: {latest}")
    raise SickError("auth_timeout", f"no end after {timeout:g} s: {latest}")


def _classify_before_login(lines: tuple[str, ...], route: Route, session: Session | None) -> None:
    for pattern, code in _LOGIN_PATTERNS:
        line = _first(pattern, lines)
        if not line:
            continue
        values: dict[str, str] = {}
        if session and session.host_key_fingerprint:
            values["fingerprint"] = session.host_key_fingerprint
        if code == "no_matching_algorithm":
            values["query"] = next((query for kind, query in _ALGORITHM_QUERIES.items() if kind in line), "kex")
        elif code == "key_permissions":
            values["identity"] = line.split('"')[1]
        elif code == "host_key_unknown":
            line = f"{line} Offered: {values.get('fingerprint', 'unknown')}"
        elif code in ("host_key_changed", "host_key_revoked"):
            offending = _matches(r"^Offending .*key.* in (.+:\d+)$", lines)
            if offending:
                values["known_hosts"], _colon, values["known_line"] = offending[-1].rpartition(":")
            line = f"{line.strip('@ ')} Offered: {values.get('fingerprint', 'unknown')}"
        raise SickError(code, line, **values)

    denied = _first(_DENIED, lines)
    if _first(_PARTIAL, lines):
        raise SickError("auth_second_factor", denied or last_words(lines))
    accepted = max((number for number, line in enumerate(lines) if _ACCEPTED.search(line)), default=-1)
    if accepted >= 0:
        _classify_accepted(lines[accepted:], route, denied)
    if denied:
        _classify_denied(lines, denied)


def _classify_accepted(lines: tuple[str, ...], route: Route, denied: str) -> None:
    """The server takes the key, and yet there was no login."""
    seen = f"key accepted, then: {last_words(lines) or denied}"
    if _first(_SYSTEM_CLOSED, lines):
        raise SickError("system_closed", seen)
    if _first(re.compile("^Your account has expired"), lines):
        raise SickError("account_expired", seen)
    if _first(_METHODS, lines):
        raise SickError("auth_root_refused" if route.user == "root" else "auth_account_refused", seen)
    if _first(re.compile("Connection closed by "), lines):
        raise SickError("auth_account_refused", seen)
    if invalid := _first(_LOAD_FAILED, lines):
        raise SickError("key_invalid", invalid, identity=invalid.split('"')[1])
    if denied:
        raise SickError("key_passphrase", last_words(lines[:-1]) or lines[0].removeprefix("debug1: "))


def _classify_denied(lines: tuple[str, ...], denied: str) -> t.NoReturn:
    methods = _matches(_DENIED.pattern, lines)[-1].split(",")
    offered = _matches(r"^debug1: Offering public key: (.*)$", lines)
    values = {"identity": offered[-1].split(" ")[0]} if offered and offered[-1].startswith("/") else {}
    if "publickey" not in methods:
        raise SickError("auth_publickey_off", denied)
    obsolete = [line for line in lines if _OBSOLETE.search(line)]
    if obsolete and len(offered) <= sum("no mutual signature " in line for line in obsolete):
        raise SickError("key_obsolete", obsolete[-1].removeprefix("debug1: "))
    if not offered:
        if invalid := _first(_LOAD_FAILED, lines):
            raise SickError("key_invalid", invalid, identity=invalid.split('"')[1])
        raise SickError("auth_no_key", f"{denied} No key was offered.")
    if {"password", "keyboard-interactive"} & set(methods):
        raise SickError("auth_password_only", denied, **values)
    raise SickError("auth_key_refused", f"{denied} Offered: {offered[-1]}", **values)


def classify_forwarding(stderr: str) -> SickError | None:
    """Return the cause that the login's connection gives for a channel that was refused, None if there is none.

    `stderr` is the output since the channel was asked for.
    """
    refused = _matches(r"^channel \d+: open failed: (.*)$", [printable(line.strip()) for line in stderr.splitlines()])
    if not refused:
        return None
    code = next(
        (
            code
            for pattern, code in (
                ("administratively prohibited|unknown channel type", "forwarding_off"),
                ("Connection refused", "tcp_refused"),
                ("Connection timed out", "tcp_timeout"),
                ("Temporary failure in name resolution", "resolver_failed"),
                ("Name or service not known|No address associated|not known", "name_unknown"),
            )
            if re.search(pattern, refused[-1])
        ),
        "tcp_unreachable",
    )
    return SickError(code, refused[-1])


def classify_sftp(finished: Finished, login: str) -> SickError | None:
    """Return the cause why a client of the login's connection got no sftp, None if it cannot be shared.

    `login` is what the login said meanwhile: a program that started has an exit status, a refused request has none.
    """
    lines = [printable(line.strip()) for line in finished.stderr.splitlines()]
    if any(re.search(r"Session open refused by peer|^Control socket connect|^mux_client_", line) for line in lines):
        return None
    words = printable(finished.stdout.strip())[:80]
    if finished.rc is None:
        return SickError("sftp_failed", ": ".join(filter(None, ["no answer", words])))
    if finished.rc == 255 and not finished.stdout and "rtype exit-" not in login:
        return SickError("sftp_missing", "the server refuses the subsystem sftp")
    words = words or last_words(lines)
    return SickError("sftp_failed", ": ".join(filter(None, [f"exit code {finished.rc}", words])))


def parse_known_fingerprints(text: str) -> dict[int, str]:
    """Read C{ssh-keygen -l -F}: fingerprint by line number of the known_hosts file."""
    fingerprints = {}
    line_number = 0
    for line in text.splitlines():
        if found := re.match(r"# Host .* found: line (\d+)", line):
            line_number = int(found.group(1))
        elif fingerprint := re.search(r"SHA256:\S+", line):
            fingerprints[line_number] = fingerprint.group(0)
    return fingerprints


def last_words(lines: t.Sequence[str]) -> str:
    """Return the last three lines that are no debug output."""
    noise = ("debug1: ", "debug2: ", "Transferred: ", "Bytes per second: ", "OpenSSH_")
    return " | ".join([line for line in lines if line.strip() and not line.startswith(noise)][-3:])


def _matches(pattern: str, lines: t.Iterable[str]) -> list[str]:
    return [found.group(1) for line in lines if (found := re.search(pattern, line))]


def _first(pattern: re.Pattern[str], lines: t.Iterable[str]) -> str:
    return next((line for line in lines if pattern.search(line)), "")
