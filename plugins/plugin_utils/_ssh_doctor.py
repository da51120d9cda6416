# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Examine the way to a node over SSH, stage by stage, and name the cause of the first failure.

This plugin util is PRIVATE to the collection. The connection protocol is RFC 4253, the messages are those of OpenSSH's
client with C{-v}.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shlex
import signal
import socket
import stat
import subprocess
import tempfile
import threading
import time
import typing as t
from dataclasses import asdict, dataclass, field

from ansible_collections.gpuops.fleet.plugins.plugin_utils._ssh_causes import CAUSES

STAGES = ("inventory", "resolve", "tcp", "banner", "key", "login")

_IDENTIFICATION = b"SSH-2.0-gpuops.fleet_doctor\r\n"
_BANNER_BYTES = 8192

# One authentication attempt, no prompt, and nothing written: known_hosts, agent and sockets stay as they are.
_LOGIN_OPTIONS = (
    "BatchMode=yes",
    "ControlMaster=no",
    "ControlPath=none",
    "StrictHostKeyChecking=yes",
    "NumberOfPasswordPrompts=0",
    "UpdateHostKeys=no",
    "CheckHostIP=no",
    "AddKeysToAgent=no",
    "ClearAllForwardings=yes",
    "FingerprintHash=sha256",
)

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
        (r"^@ +WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!", "host_key_changed"),
        (r"^No .*host key is known for ", "host_key_unknown"),
        (r"^Host key verification failed", "host_key_unknown"),
        (r"^(?:Received d|D)isconnect(?:ed)? from .*: Too many authentication failures", "auth_too_many_failures"),
        (r'^Load key ".*": bad permissions', "key_permissions"),
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
_METHODS = re.compile(r"^debug1: Authentications that can continue: (\S+)")
_ACCEPTED = re.compile(r"^debug1: Server accepts key: ")
_DENIED = re.compile(r"^(?:\S+: )?Permission denied \(([^)]*)\)")
_PARTIAL = re.compile(r'^Authenticated using "\S+" with partial success')
_AUTHENTICATED = re.compile(r"^(?:debug1: )?Authenticat(?:ed to .* using|ion succeeded )")


@dataclass(frozen=True)
class Target:
    """What to examine; `port` keeps what the inventory says, number or not."""

    alias: str
    host: str
    port: object = None
    user: str | None = None
    identity_file: str | None = None
    known_hosts_file: str | None = None
    host_key_alias: str | None = None
    ssh_config: str | None = None
    ssh_args: tuple[str, ...] = ()
    timeout: float = 10.0
    password_given: bool = False


@dataclass(frozen=True)
class Route:
    """The connection ssh would make, as C{ssh -G} tells it; `via` is empty for a direct one."""

    host: str
    port: int
    user: str
    known_name: str
    known_hosts: str
    via: str = ""


@dataclass(frozen=True)
class Stage:
    stage: str
    status: str
    ms: int
    evidence: str


@dataclass(frozen=True)
class Finished:
    """A process that ended, or was ended at its limit (then rc is None)."""

    rc: int | None
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Session:
    """What the client's debug output tells about the node itself, not about a jump host before it."""

    lines: tuple[str, ...]
    server_version: str | None
    auth_methods: tuple[str, ...] | None
    host_key_fingerprint: str | None


class SickError(Exception):
    """A stage failed: the code of the cause, what was seen, and values for the remedy."""

    def __init__(self, code: str, seen: str, **values: str) -> None:
        super().__init__(seen)
        self.code = code
        self.seen = " ".join(seen.split())
        self.values = values


@dataclass
class _Examination:
    """What is known so far, also when a later stage fails."""

    target: Target
    route: Route
    stages: list[Stage] = field(default_factory=list)
    server_version: str | None = None
    auth_methods: tuple[str, ...] | None = None
    host_key_fingerprint: str | None = None


# --- pure: classification -------------------------------------------------------------------------------------------


def check_inventory(target: Target) -> str:
    """Return the evidence for a usable address and port."""
    if not target.host.strip():
        raise SickError("no_address", f"ansible_host={target.host!r}")
    if target.host.startswith("-") or any(char.isspace() or not char.isprintable() for char in target.host):
        raise SickError("address_invalid", f"ansible_host={target.host!r}")
    if target.port is None:
        return f"{target.host}, port left to ssh"
    if not re.fullmatch(r"[0-9]{1,5}", str(target.port)) or not 1 <= int(str(target.port)) <= 65535:
        raise SickError("port_invalid", f"ansible_port={target.port!r}")
    return f"{target.host}, port {target.port}"


def parse_route(text: str, target: Target) -> Route:
    """Read the output of C{ssh -G}."""
    config: dict[str, str] = {}
    for line in text.splitlines():
        key, _blank, value = line.partition(" ")
        config.setdefault(key, value)
    host, port = config.get("hostname", target.host), int(config.get("port", "22"))
    via = [
        f"{label} {config[key]}"
        for key, label in (("proxyjump", "ProxyJump"), ("proxycommand", "ProxyCommand"))
        if config.get(key, "none") != "none"
    ]
    return Route(
        host=host,
        port=port,
        user=config.get("user", ""),
        known_name=config.get("hostkeyalias") or (host if port == 22 else f"[{host}]:{port}"),
        known_hosts=target.known_hosts_file or config.get("userknownhostsfile", "").split(" ")[0],
        via=", ".join(via),
    )


def classify_connect_errors(errors: t.Sequence[tuple[str, OSError]]) -> SickError:
    """Name the cause when no address accepted a connection: the one that got furthest decides."""
    codes = []
    for _address, error in errors:
        if isinstance(error, ConnectionRefusedError):
            codes.append("tcp_refused")
        elif isinstance(error, TimeoutError) or error.errno == errno.ETIMEDOUT:
            codes.append("tcp_timeout")
        else:
            codes.append("tcp_unreachable")
    code = min(codes, key=("tcp_refused", "tcp_timeout", "tcp_unreachable").index)
    seen = ", ".join(f"{address}: {error.strerror or 'timed out'}" for address, error in errors)
    return SickError(code, seen, address=errors[codes.index(code)][0])


def classify_banner(data: bytes, end: str) -> str:
    """Return the server's software version from its first bytes; `end` is open, closed or reset."""
    for line in data.splitlines():
        if line.startswith((b"SSH-2.0-", b"SSH-1.99-")):
            return _printable(line.decode("ascii", "replace")).split("-", 2)[2]
        if line.startswith(b"SSH-"):
            raise SickError("ssh_protocol_old", _escaped(line))
    if b"Exceeded MaxStartups" in data:
        raise SickError("max_startups", _escaped(data))
    if b"Not allowed at this time" in data:
        raise SickError("penalties", _escaped(data))
    if data:
        kind = "an HTTP server: " if data.startswith(b"HTTP/") else ""
        raise SickError("not_ssh", f"{kind}{_escaped(data)}")
    if end == "open":
        raise SickError("banner_timeout", "connected, no identification line")
    raise SickError("banner_closed", f"connection {end} before the identification line")


def read_session(stderr: str, route: Route) -> Session | None:
    """Cut out what concerns the node from the output of C{ssh -v}; None when it was never reached."""
    lines = tuple(_printable(line) for line in stderr.splitlines())
    starts = [
        number
        for number, line in enumerate(lines)
        if line.startswith(f"debug1: Authenticating to {route.host}:{route.port} as ")
    ]
    if not starts:
        return None
    own = lines[starts[-1] :]
    versions = _matches(r"remote software version (.+)$", lines[: starts[-1]])
    methods = _matches(r"^debug1: Authentications that can continue: (\S+)", own)
    fingerprints = _matches(r"^debug1: Server host (?:key|certificate): \S+ (SHA256:[^\s,]+)", own)
    return Session(
        lines=own,
        server_version=versions[-1] if versions else None,
        auth_methods=tuple(methods[0].split(",")) if methods else None,
        host_key_fingerprint=fingerprints[-1] if fingerprints else None,
    )


def classify_login(finished: Finished, route: Route, timeout: float) -> None:
    """Raise the cause that the exit code and the messages of C{ssh -v … true} tell; return when the login works."""
    if finished.rc == 0:
        return
    session = read_session(finished.stderr, route)
    lines = session.lines if session else tuple(_printable(line) for line in finished.stderr.splitlines())
    last = _last_words(lines)

    if route.via and session is None:
        told = [line for line in lines if re.search(r"^Host key verification failed|Permission denied \(", line)]
        if told:
            raise SickError("jump_refused", f"{told[-1]} (through {route.via})")
        raise SickError("jump_failed", f"{last or f'no end after {timeout:g} s'} (through {route.via})")
    authenticated = _first(_AUTHENTICATED, lines)
    if finished.rc is None:
        _classify_hang(lines, bool(authenticated), timeout)
    if authenticated and (status := _matches(r"^debug1: Exit status (-?\d+)", lines)):
        words = _last_words(tuple(_printable(line) for line in finished.stdout.splitlines())) or last
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
    if not any(line.startswith("debug1: SSH2_MSG_NEWKEYS received") for line in lines):
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

    accepted = max((number for number, line in enumerate(lines) if _ACCEPTED.search(line)), default=-1)
    denied = _first(_DENIED, lines)
    if _first(_PARTIAL, lines):
        raise SickError("auth_second_factor", denied or _last_words(lines))
    if accepted >= 0:
        told = _first(re.compile(r"Your account has expired|Connection closed by "), lines[accepted:])
        if told or _first(_METHODS, lines[accepted:]):
            raise SickError("auth_account_refused", f"key accepted, then: {told or denied}")
        if denied:
            seen = _last_words(lines[accepted:-1]) or lines[accepted].removeprefix("debug1: ")
            raise SickError("key_passphrase", seen)
    if not denied:
        return
    methods = _matches(_DENIED.pattern, lines)[-1].split(",")
    offered = _matches(r"^debug1: Offering public key: (.*)$", lines)
    values = {"identity": offered[-1].split(" ")[0]} if offered and offered[-1].startswith("/") else {}
    if {"password", "keyboard-interactive"} & set(methods):
        raise SickError("auth_password_only", denied, **values)
    if invalid := _first(re.compile(r'^Load key ".*": '), lines):
        raise SickError("key_invalid", invalid, identity=invalid.split('"')[1])
    if not offered:
        raise SickError("auth_no_key", f"{denied} No key was offered.")
    raise SickError("auth_key_refused", f"{denied} Offered: {offered[-1]}", **values)


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


def remedy_values(target: Target, route: Route) -> dict[str, str]:
    """The values of remedy templates, quoted for a shell."""
    identity = target.identity_file or os.path.expanduser("~/.ssh/id_ed25519")
    copy_id = ["-i", identity] if target.identity_file else []
    copy_id += ["-p", str(route.port)]
    if target.known_hosts_file:
        copy_id += ["-o", _known_hosts_option(target.known_hosts_file)]
    if target.host_key_alias:
        copy_id += ["-o", f"HostKeyAlias={target.host_key_alias}"]
    if route.via.startswith("ProxyJump "):
        copy_id += ["-o", f"ProxyJump={route.via.split(' ')[1].rstrip(',')}"]
    return {
        "alias": shlex.quote(target.alias),
        "host": shlex.quote(route.host),
        "address": shlex.quote(route.host),
        "user": shlex.quote(route.user),
        "login": shlex.join([*_client_arguments(target), _destination(target)]),
        "copy_id": shlex.join([*copy_id, f"{route.user}@{route.host}"]),
        "identity": shlex.quote(identity),
        "known_hosts": shlex.quote(route.known_hosts),
        "known_name": shlex.quote(route.known_name),
        "fingerprint": "its fingerprint",
        "query": "kex",
    }


def render_cause(sick: SickError, target: Target, route: Route) -> dict[str, t.Any]:
    """Fill in the entry of the table of causes."""
    cause = CAUSES[sick.code]
    values = {**remedy_values(target, route), **{key: shlex.quote(value) for key, value in sick.values.items()}}
    template = cause.remedy_with_password if target.password_given and cause.remedy_with_password else cause.remedy
    return {
        "code": cause.code,
        "seen": sick.seen,
        "meaning": cause.meaning,
        "remedy": template.format_map(values),
        "transient": cause.transient,
    }


def _client_arguments(target: Target) -> list[str]:
    arguments = []
    if target.ssh_config:
        arguments += ["-F", target.ssh_config]
    if target.identity_file:
        arguments += ["-i", target.identity_file, "-o", "IdentitiesOnly=yes"]
    if target.known_hosts_file:
        arguments += ["-o", _known_hosts_option(target.known_hosts_file)]
    if target.host_key_alias:
        arguments += ["-o", f"HostKeyAlias={target.host_key_alias}"]
    if target.port is not None:
        arguments += ["-p", str(target.port)]
    arguments += target.ssh_args
    return arguments


def _known_hosts_option(path: str) -> str:
    """ssh takes several files here, separated by blanks."""
    return f'UserKnownHostsFile="{path}"' if " " in path else f"UserKnownHostsFile={path}"


def _destination(target: Target) -> str:
    return f"{target.user}@{target.host}" if target.user else target.host


def _matches(pattern: str, lines: t.Iterable[str]) -> list[str]:
    return [found.group(1) for line in lines if (found := re.search(pattern, line))]


def _first(pattern: re.Pattern[str], lines: t.Iterable[str]) -> str:
    return next((line for line in lines if pattern.search(line)), "")


def _last_words(lines: t.Sequence[str]) -> str:
    """The last three lines meant for a person."""
    noise = ("debug1: ", "Transferred: ", "Bytes per second: ", "OpenSSH_")
    return " | ".join([line for line in lines if line.strip() and not line.startswith(noise)][-3:])


def _printable(text: str) -> str:
    return "".join(char for char in text if char.isprintable()).strip()


def _escaped(data: bytes) -> str:
    return repr(data[:80].strip())[2:-1]


# --- the outside world ----------------------------------------------------------------------------------------------


def diagnose(target: Target) -> dict[str, t.Any]:
    """Run the stages up to the first failure; the keys are those of the module's return values."""
    found = _Examination(target, Route(target.host, 22, target.user or "", target.host, ""))
    cause = None
    try:
        _examine(found)
    except SickError as sick:
        cause = render_cause(sick, target, found.route)
        failed = found.stages[-1].stage
        found.stages += [Stage(name, "skipped", 0, f"{failed} failed") for name in STAGES[len(found.stages) :]]
    place = f"{target.alias} ({found.route.host}:{target.port if target.port is not None else found.route.port})"
    return {
        "ok": cause is None,
        "stages": [asdict(stage) for stage in found.stages],
        "cause": cause,
        "message": f"{place}: {cause['meaning']}; seen: {cause['seen']}; next: {cause['remedy']}"
        if cause
        else f"{place}: login works, user {found.route.user}, {sum(stage.ms for stage in found.stages)} ms",
        "server_version": found.server_version,
        "auth_methods": list(found.auth_methods) if found.auth_methods is not None else None,
        "host_key_fingerprint": found.host_key_fingerprint,
    }


def _examine(found: _Examination) -> None:
    target = found.target
    with _stage(found, "inventory") as note:
        note(check_inventory(target))
        configured = run_command(["ssh", "-G", *_client_arguments(target), _destination(target)], target.timeout)
    direct = ("resolve", "tcp", "banner")
    if configured.rc != 0:
        found.stages += [Stage(name, "skipped", 0, "ssh does not start") for name in (*direct, "key")]
        with _stage(found, "login"):
            _raise_unusable_client(configured, target.timeout)
    found.route = route = parse_route(configured.stdout, target)
    if route.via:
        found.stages += [Stage(name, "skipped", 0, f"ssh goes through {route.via}") for name in direct]
    else:
        with _stage(found, "resolve") as note:
            addresses = _resolve(route, target.timeout)
            note(", ".join(address for _family, address in addresses))
        with _stage(found, "tcp") as note:
            connection, address = _connect(addresses, route.port, target.timeout)
            note(f"connected to {address}")
        with connection, _stage(found, "banner") as note:
            found.server_version = classify_banner(*_read_banner(connection, target.timeout))
            note(found.server_version)
    if target.identity_file:
        with _stage(found, "key") as note:
            note(_check_key(target.identity_file, target.timeout))
    else:
        found.stages.append(Stage("key", "skipped", 0, "no identity_file, ssh chooses"))
    with _stage(found, "login") as note:
        _login(found)
        note(f"`true` ran as {route.user}")


@contextlib.contextmanager
def _stage(found: _Examination, name: str) -> t.Iterator[t.Callable[[str], None]]:
    """Time a stage and record its end; the body notes the evidence of success."""
    start = time.monotonic()
    evidence = ""

    def note(text: str) -> None:
        nonlocal evidence
        evidence = text

    status = "ok"
    try:
        yield note
    except SickError as sick:
        status, evidence = "fail", sick.seen
        raise
    finally:
        found.stages.append(Stage(name, status, round((time.monotonic() - start) * 1000), evidence))


def run_command(argv: t.Sequence[str], timeout: float) -> Finished:
    """Run a program without terminal, input and questions; it and its children end at the limit."""
    env = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "SSH_ASKPASS")}
    env.update(LC_ALL="C", SSH_ASKPASS_REQUIRE="never")
    # Files, not pipes: a child that outlives the program (a proxy command) cannot hold up the reader.
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        try:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=env, start_new_session=True
            )
        except FileNotFoundError:
            return Finished(127, "", f"{argv[0]}: command not found")
        rc: int | None
        try:
            rc = process.wait(timeout)
        except subprocess.TimeoutExpired:
            rc = None
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        texts = []
        for stream in (stdout, stderr):
            stream.seek(0)
            texts.append(stream.read(1 << 20).decode("utf-8", "replace"))
        return Finished(rc, *texts)


def _raise_unusable_client(configured: Finished, timeout: float) -> t.NoReturn:
    if configured.rc == 127:
        raise SickError("ssh_missing", configured.stderr)
    if configured.rc is None:
        raise SickError("ssh_config_error", f"ssh -G did not end within {timeout:g} s (Match exec?)")
    lines = [_printable(line) for line in configured.stderr.splitlines()]
    raise SickError("ssh_config_error", next((line for line in lines if line), f"exit code {configured.rc}"))


def _resolve(route: Route, timeout: float) -> list[tuple[socket.AddressFamily, str]]:
    answers: list[t.Any] = []

    def ask() -> None:
        try:
            answers.append(socket.getaddrinfo(route.host, route.port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answers.append(error)

    # getaddrinfo knows no limit
    asker = threading.Thread(target=ask, daemon=True)
    asker.start()
    asker.join(timeout)
    if not answers:
        raise SickError("resolver_failed", f"no answer for {route.host} within {timeout:g} s")
    if isinstance(answers[0], Exception):
        again = isinstance(answers[0], socket.gaierror) and answers[0].errno == socket.EAI_AGAIN
        raise SickError("resolver_failed" if again else "name_unknown", f"{route.host}: {answers[0]}")
    return list(dict.fromkeys((family, str(address[0])) for family, _type, _proto, _name, address in answers[0]))


def _connect(
    addresses: t.Sequence[tuple[socket.AddressFamily, str]], port: int, timeout: float
) -> tuple[socket.socket, str]:
    deadline = time.monotonic() + timeout
    errors = []
    for number, (_family, address) in enumerate(addresses):
        share = (deadline - time.monotonic()) / (len(addresses) - number)
        try:
            return socket.create_connection((address, port), timeout=max(share, 0.01)), address
        except OSError as error:
            errors.append((address, error))
    raise classify_connect_errors(errors)


def _read_banner(connection: socket.socket, timeout: float) -> tuple[bytes, str]:
    """Read up to the identification line; return the bytes and whether the connection is open, closed or reset."""
    deadline = time.monotonic() + timeout
    data = b""
    greeted = False
    # SSH servers speak first, an HTTP server answers only when spoken to.
    patience = min(1.0, timeout / 2)
    while not re.search(rb"^SSH-[^\n]*\n", data, re.MULTILINE) and len(data) < _BANNER_BYTES:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            return data, "open"
        connection.settimeout(remaining if greeted else min(patience, remaining))
        try:
            chunk = connection.recv(1024)
        except TimeoutError:
            if not greeted:
                greeted = True
                with contextlib.suppress(OSError):
                    connection.sendall(_IDENTIFICATION)
            continue
        except OSError:
            return data, "reset"
        if not chunk:
            return data, "closed"
        data += chunk
    return data, "open"


def _check_key(path: str, timeout: float) -> str:
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise SickError("key_missing", f"{path} is not a regular file")
        with open(path, "rb") as file:
            private = b"PRIVATE KEY" in file.read(4096)
    except PermissionError as error:
        raise SickError("key_unreadable", f"{path}: {error.strerror}") from error
    except OSError as error:
        raise SickError("key_missing", f"{path}: {error.strerror}") from error
    mode = f"mode {stat.S_IMODE(status.st_mode):04o}"
    # ssh never opens the file of a key that the agent holds, and checks only files of its own user.
    checked = private and status.st_uid == os.getuid() and "SSH_AUTH_SOCK" not in os.environ
    if checked and status.st_mode & 0o077:
        raise SickError("key_permissions", f"{path}: {mode}")
    listed = run_command(["ssh-keygen", "-l", "-f", path], timeout)
    if found := re.match(r"(\d+) (\S+) .*\((\S+)\)$", listed.stdout.strip()):
        bits, fingerprint, kind = found.groups()
        return f"{kind} {bits} bits {fingerprint}, {mode}"
    if not private:
        raise SickError("key_invalid", _last_words(listed.stderr.splitlines()) or f"{path}: no key in it")
    return f"encrypted private key, {mode}"


def _login(found: _Examination) -> None:
    target, route = found.target, found.route
    deadline = time.monotonic() + target.timeout
    argv = ["ssh", "-v"]
    for option in (*_LOGIN_OPTIONS, f"ConnectTimeout={max(1, int(target.timeout))}"):
        argv += ["-o", option]
    finished = run_command([*argv, *_client_arguments(target), _destination(target), "true"], target.timeout)
    session = read_session(finished.stderr, route)
    if session:
        found.server_version = session.server_version or found.server_version
        found.auth_methods = session.auth_methods
        found.host_key_fingerprint = session.host_key_fingerprint
    try:
        classify_login(finished, route, target.timeout)
    except SickError as sick:
        if sick.code == "host_key_changed":
            raise _with_known_key(sick, route, max(deadline - time.monotonic(), 0.5)) from sick
        raise


def _with_known_key(sick: SickError, route: Route, timeout: float) -> SickError:
    """Add the fingerprint of the key that was known so far."""
    values = dict(sick.values)
    line = int(values.pop("known_line", "0"))
    known_hosts = values.get("known_hosts", route.known_hosts)
    known = parse_known_fingerprints(
        run_command(["ssh-keygen", "-l", "-F", route.known_name, "-f", known_hosts], timeout).stdout
    )
    fingerprint = known.get(line) or ", ".join(known.values()) or "unknown"
    return SickError(sick.code, f"{sick.seen} Known: {fingerprint} ({known_hosts}:{line})", **values)
