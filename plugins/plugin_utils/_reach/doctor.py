# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Examine the way to a node over SSH, stage by stage, and name the cause of the first failure.

This plugin util is PRIVATE to the collection. What happens in a stage is in wire (bytes), key (key file),
client and messages (OpenSSH), node (the node itself) and paramiko_client (second opinion).
"""

from __future__ import annotations

import contextlib
import os
import random
import shlex
import socket
import subprocess
import tempfile
import time
import typing as t
from dataclasses import asdict, dataclass, field, replace

from ansible_collections.gpuops.fleet.plugins.module_utils._base.kexinit import Algorithms
from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import Problem
from ansible_collections.gpuops.fleet.plugins.module_utils._reach.words import (
    address_fault,
    jump_fault,
    port_fault,
    user_fault,
)
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.process import Program, run_command
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.shared import Shared, shared
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.text import printable
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach import client, messages, node, wire
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach import paramiko_client as second
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.causes import CAUSES, STAGES, SickError
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.client import Route, Target
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.key import check_keys

# A jump host is examined up to here.
_JUMP_STAGES = STAGES[: STAGES.index("login") + 1]
_MOST_JUMPS = 8
# A jump host is examined once in a run. That it is well holds to the end of the run, since each node logs in on it anew
# and so sees what has changed. That it is sick holds for these seconds: the run itself may mend it (sshd_policy hardens
# it, a role brings our key), or it comes up. With fewer, failed logins would add up where OpenSSH 9.8 and later turn an
# address away from 15 seconds of penalty on: each is 5, and 1 for the connection that is made before it.
_SICK_SECONDS = 10.0
# From the tenth login in progress on, OpenSSH begins to turn new ones away (MaxStartups); people log in there too.
_LOGINS_AT_ONCE = 8
# All stages of a node and of its jump hosts together end at this many times the limit of one stage.
_WHOLE = 4
# Servers turn an address away that fails often. With this pause, no attempt to log in is the fourth within 15 seconds.
_LOGIN_PAUSE = 8.0
# The login on a jump host says this when the next machine has answered.
_OPENED = "channel_input_open_confirmation"
# SSH_FXP_INIT and SSH_FXP_VERSION of the sftp protocol (draft-ietf-secsh-filexfer-02).
_SFTP_INIT, _SFTP_VERSION = b"\0\0\0\5\1\0\0\0\3", 2
# The biggest packet that OpenSSH's server sends.
_SFTP_BYTES = 1 << 18
# A server says its version in one go, so what has begun and does not go on is something else. One that has said nothing
# yet may be about to start on a busy node: that has the whole limit.
_SFTP_PATIENCE = 1.5
# A failure before the server named its methods: another client may still learn them.
_ASK_PARAMIKO = (
    "ssh_missing",
    "ssh_config_error",
    "no_matching_algorithm",
    "host_key_unknown",
    "host_key_changed",
    "host_cert_invalid",
)


@dataclass(frozen=True)
class Stage:
    stage: str
    status: str
    ms: int
    evidence: str


@dataclass
class _Note:
    """Result of the body of a stage."""

    evidence: str = ""
    warnings: list[SickError] = field(default_factory=list)
    status: str = "ok"


@dataclass(frozen=True)
class _Way:
    """An open login on a jump host, and how others share it."""

    name: str
    login: Program
    control_path: str

    @property
    def proxy(self) -> str:
        return shlex.join(client.shared_command(self.control_path, "-W", "[%h]:%p"))


@dataclass
class _Examination:
    """Observations so far, also when a later stage fails."""

    target: Target
    route: Route
    deadline: float
    names: tuple[str, ...] = STAGES
    stages: list[Stage] = field(default_factory=list)
    concerns: list[dict[str, t.Any]] = field(default_factory=list)
    jump_hosts: list[dict[str, t.Any]] = field(default_factory=list)
    server_version: str | None = None
    auth_methods: tuple[str, ...] | None = None
    host_key_fingerprint: str | None = None
    machine: str | None = None
    weak_key: str = ""
    tried_login: bool = False
    # Where the processes of a run share what they find of jump hosts, and since when bad news must be.
    folder: str = ""
    since: float = 0.0
    # The stages that another process has been through.
    shared: tuple[str, ...] = ()

    @classmethod
    def of(cls, target: Target, deadline: float, names: tuple[str, ...] = STAGES) -> _Examination:
        return cls(target, Route(target.host, 22, target.user or "", target.host, ""), deadline, names)

    @property
    def limit(self) -> float:
        """Seconds that the stage may take which starts now."""
        return max(min(self.target.timeout, self.deadline - time.monotonic()), 0.1)

    @property
    def place(self) -> str:
        port = self.target.port if self.target.port is not None else self.route.port
        return f"{self.target.alias} ({self.route.host}:{port})"

    @contextlib.contextmanager
    def stage(self, name: str) -> t.Iterator[_Note]:
        """Time a stage and record its end; the body notes the evidence of success."""
        start = time.monotonic()
        note = _Note()
        try:
            yield note
        except SickError as sick:
            note.status, note.evidence = "fail", sick.seen
            raise
        else:
            if note.warnings:
                note.status = "warn"
                note.evidence = ", ".join(filter(None, [note.evidence, *(warning.seen for warning in note.warnings)]))
                self.concerns += [render_cause(sick, name, self.target, self.route) for sick in note.warnings]
        finally:
            self.stages.append(Stage(name, note.status, round((time.monotonic() - start) * 1000), note.evidence))

    def skip(self, why: str, *names: str) -> None:
        self.stages += [Stage(name, "skipped", 0, why) for name in names]

    def skip_rest(self, why: str) -> None:
        done = {stage.stage for stage in self.stages}
        self.skip(why, *(name for name in self.names if name not in done))

    def listed(self) -> list[dict[str, t.Any]]:
        """The stages in their order; the key is looked at before anything is sent."""
        return [asdict(stage) for stage in sorted(self.stages, key=lambda stage: STAGES.index(stage.stage))]


class _JumpHostError(Exception):
    """A jump host is the reason; `cause` is its cause as it will be reported."""

    def __init__(self, name: str, cause: dict[str, t.Any]) -> None:
        super().__init__(name)
        self.name = name
        self.cause = cause


# --- pure -----------------------------------------------------------------------------------------------------------


def still_holds(finding: t.Mapping[str, t.Any], since: float, now: float) -> bool:
    """Return whether a process may take over what another one has found of a jump host.

    `since` is when it has looked itself: whoever tries again wants to know how it is now. Of several that try again the
    first one does it for all.
    """
    return not finding["sick"] or finding["when"] >= max(since, now - _SICK_SECONDS)


def pause_before(attempt: int, delay: float, jitter: float, tried_login: bool) -> float:
    """Seconds to wait before an attempt (the first repetition is attempt 2); `jitter` is from 0 to 1."""
    pause = delay * 2.0 ** (attempt - 2) * (1 + jitter / 4)
    return max(pause, _LOGIN_PAUSE) if tried_login else pause


def remedy_values(target: Target, route: Route) -> dict[str, str]:
    """The values of remedy templates, quoted for a shell."""
    identity = target.identity_file or os.path.expanduser("~/.ssh/id_ed25519")
    copy_id = ["-i", identity] if target.identity_file else []
    copy_id += ["-p", str(route.port)]
    if target.known_hosts_file:
        copy_id += ["-o", client.known_hosts_option(target.known_hosts_file)]
    if target.host_key_alias:
        copy_id += ["-o", f"HostKeyAlias={target.host_key_alias}"]
    if route.jump:
        copy_id += ["-o", f"ProxyJump={route.jump}"]
    return {
        "alias": shlex.quote(target.alias),
        "host": shlex.quote(route.host),
        "address": shlex.quote(route.host),
        "user": shlex.quote(route.user),
        "login": shlex.join([*client.client_arguments(target), client.destination(target)]),
        "copy_id": shlex.join([*copy_id, f"{route.user}@{route.host}"]),
        "identity": shlex.quote(identity),
        "known_hosts": shlex.quote(route.known_hosts),
        "known_name": shlex.quote(route.known_name),
        "fingerprint": "its fingerprint",
        "query": "kex",
    }


def render_cause(sick: SickError, stage: str, target: Target, route: Route) -> dict[str, t.Any]:
    """Fill in the entry of the table of causes."""
    cause = CAUSES[sick.code]
    values = {**remedy_values(target, route), **{key: shlex.quote(value) for key, value in sick.values.items()}}
    template = cause.remedy_with_password if target.password_given and cause.remedy_with_password else cause.remedy
    return {
        "code": cause.code,
        "stage": stage,
        "severity": cause.severity,
        "seen": sick.seen,
        "meaning": cause.meaning,
        "remedy": template.format_map(values),
        "transient": cause.transient,
    }


def check_inventory(target: Target) -> str:
    """Return the evidence for an address, port, user and jump hosts that ssh can be given."""
    if not target.host.strip():
        raise SickError("no_address", f"ansible_host={target.host!r}")
    if fault := address_fault(target.host):
        raise SickError("address_invalid", f"ansible_host={target.host!r} {fault}")
    if target.port is not None and (fault := port_fault(target.port)):
        raise SickError("port_invalid", f"ansible_port={target.port!r} {fault}")
    if target.user is not None and (fault := user_fault(target.user)):
        raise SickError("user_invalid", f"ansible_user={target.user!r} {fault}")
    for jump in client.asked_jumps(target.ssh_args):
        if fault := jump_fault(jump):
            raise SickError("jump_invalid", f"ProxyJump {jump!r} {fault}")
    return f"{target.host}, port {target.port or 'left to ssh'}"


def may_be_sftp_version(data: bytes) -> bool:
    """Return whether an answer can begin like this: a length of four bytes, and the type."""
    least, most = (int.from_bytes(data[:4].ljust(4, rest), "big") for rest in (b"\0", b"\xff"))
    return least < _SFTP_BYTES and most >= 5 and data[4:5] in (b"", bytes([_SFTP_VERSION]))


def judge_algorithms(ours: Algorithms | None, theirs: Algorithms) -> tuple[str, list[SickError]]:
    """OpenSSH has to get in; other clients should."""
    missing = wire.compare(ours, theirs) if ours else None
    if missing:
        raise SickError("no_matching_algorithm", _describe(missing, "ssh"), query=missing.query)
    agreed = ours and [
        wire.choose(*pair)
        for pair in ((ours.kex, theirs.kex), (ours.host_keys, theirs.host_keys), (ours.ciphers, theirs.ciphers))
    ]
    evidence = ", ".join(filter(None, agreed or []))
    if not second.INSTALLED:
        return f"{evidence}; paramiko is not installed, so it was not compared", []
    incompatible = wire.compare(second.algorithms(), theirs)
    if incompatible:
        return evidence, [SickError("paramiko_incompatible", _describe(incompatible, "paramiko"))]
    return evidence, []


def _describe(missing: wire.Incompatible, who: str) -> str:
    return f"no common {missing.kind}; server: {_short(missing.theirs)}; {who}: {_short(missing.ours)}"


def _short(names: t.Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


# --- the outside world ----------------------------------------------------------------------------------------------


def diagnose_patiently(
    target: Target, attempts: int, delay: float, deadline: float, folder: str = ""
) -> dict[str, t.Any]:
    """Examine again while the cause is one that may pass by itself; `attempts` of the report is how often it was.

    Processes with the same `folder` examine each jump host once.
    """
    end = time.monotonic() + deadline
    since = 0.0
    for attempt in range(1, attempts + 1):
        report, tried_login = _diagnose(target, folder, since)
        report["attempts"] = attempt
        since = time.monotonic()
        pause = pause_before(attempt + 1, delay, random.random(), tried_login)
        if report["ok"] or not report["cause"]["transient"] or attempt == attempts or time.monotonic() + pause > end:
            break
        time.sleep(pause)
    return report


def diagnose(target: Target, folder: str = "") -> dict[str, t.Any]:
    """Run the stages up to the first failure; the keys are those of the module's return values."""
    return _diagnose(target, folder, 0.0)[0]


def _diagnose(target: Target, folder: str, since: float) -> tuple[dict[str, t.Any], bool]:
    found = _Examination.of(target, time.monotonic() + _WHOLE * target.timeout)
    found.folder, found.since = folder, since
    cause = None
    with contextlib.ExitStack() as stack:
        try:
            _examine(found, stack)
        except SickError as sick:
            failed = found.stages[-1].stage
            _ask_paramiko(found, sick)
            cause = render_cause(sick, failed, target, found.route)
            found.skip_rest(f"{failed} failed")
        except _JumpHostError as jump:
            cause = jump.cause
            found.skip_rest(f"jump host {jump.name} failed")
    return {
        "ok": cause is None,
        "message": _message(found, cause),
        "stages": found.listed(),
        "jump_hosts": found.jump_hosts,
        "problems": [problem_of_cause(found.place, cause)] if cause else [],
        "cause": cause,
        "concerns": found.concerns,
        "machine": found.machine,
        "server_version": found.server_version,
        "auth_methods": list(found.auth_methods) if found.auth_methods is not None else None,
        "host_key_fingerprint": found.host_key_fingerprint,
    }, found.tried_login


def problem_of_cause(place: str, cause: t.Mapping[str, t.Any]) -> Problem:
    """Return a cause as a problem; place is the node with the address at which it was asked."""
    return Problem(f"{place}: {cause['meaning']}", cause["seen"], cause["remedy"])


def _message(found: _Examination, cause: dict[str, t.Any] | None) -> str:
    if cause:
        return str(problem_of_cause(found.place, cause))
    message = f"{found.place}: login works, user {found.route.user}, {sum(stage.ms for stage in found.stages)} ms"
    concerns = [f"{concern['meaning']}; next: {concern['remedy']}" for concern in found.concerns]
    return "; but ".join([message, *concerns])


def _examine(found: _Examination, stack: contextlib.ExitStack) -> None:
    with found.stage("inventory") as note:
        note.evidence = check_inventory(found.target)
        found.route = client.ask_route(found.target, found.limit)
        hops = _jump_hosts(found)
    # A socket's path has to be short, wherever temporary files go.
    place = "/tmp" if len(tempfile.gettempdir()) > 60 else None
    sockets = stack.enter_context(tempfile.TemporaryDirectory(prefix="doctor-", dir=place))
    found.folder = found.folder or sockets
    way = None
    for number in range(len(hops)):
        way = _go_through(hops[: number + 1], way, f"{sockets}/{number}", found, stack)
    _reach(found, way)
    with found.stage("key") as note:
        note.evidence, note.warnings, found.weak_key = check_keys(found.target.identity_file, found.route, found.limit)
    control_path = f"{sockets}/node"
    argv = client.login_command(found.target, control_path, way.proxy if way else "", "/bin/sh")
    login = stack.enter_context(Program(argv, stdin=subprocess.PIPE))
    login.say(node.SCRIPT.encode())
    _log_in(found, login)
    answer, arrival = _run_script(found, login)
    _try_sftp(found, login, control_path, answer.noise)
    _try_forwarding(found, login, control_path)
    # The shell has waited for more of the script.
    login.say_no_more()
    login.finish(min(found.limit, 1.0))
    for name, (evidence, warnings) in {
        "python": node.judge_python(answer),
        "sudo": node.judge_sudo(answer),
        "clock": node.judge_clock(answer, arrival),
        "disk": node.judge_disk(answer),
    }.items():
        with found.stage(name) as note:
            note.evidence, note.warnings = evidence, warnings


def _jump_hosts(found: _Examination) -> list[_Examination]:
    """The jump hosts on the way, the nearest first. A jump host may need another one."""
    hops: list[_Examination] = []
    last = found
    while last.route.jump:
        if len(hops) == _MOST_JUMPS:
            raise SickError("ssh_config_error", f"ProxyJump leads in a circle: {last.route.jump}")
        hop = _Examination.of(client.jump_host(last.route, last.target), found.deadline, _JUMP_STAGES)
        hop.route = client.ask_route(hop.target, hop.limit)
        hops.insert(0, hop)
        last = hop
    return hops


def _go_through(
    hops: t.Sequence[_Examination],
    way: _Way | None,
    control_path: str,
    found: _Examination,
    stack: contextlib.ExitStack,
) -> _Way:
    """Examine the last of these jump hosts up to the login, which stays open for what comes behind it."""
    hop = hops[-1]
    name = hop.target.alias
    cause = None
    try:
        login = _enter(hops, way, control_path, found, stack)
    except SickError as sick:
        failed = hop.stages[-1].stage
        cause = _of_jump_host(name, render_cause(sick, failed, hop.target, hop.route))
        hop.skip_rest(f"{failed} failed")
        raise _JumpHostError(name, cause) from sick
    finally:
        found.tried_login |= hop.tried_login
        found.concerns += [_of_jump_host(name, concern) for concern in hop.concerns]
        found.jump_hosts.append(
            {"host": name, "ok": cause is None, "stages": hop.listed(), "shared": list(hop.shared), "cause": cause}
        )
    return _Way(name, login, control_path)


def _enter(
    hops: t.Sequence[_Examination],
    way: _Way | None,
    control_path: str,
    found: _Examination,
    stack: contextlib.ExitStack,
) -> Program:
    """Log in on the last of these jump hosts. Another process may have found out what comes before, or why it fails."""
    hop = hops[-1]
    argv = client.login_command(hop.target, control_path, way.proxy if way else "")
    # All that decides how the way is; patience does not.
    key = ("jump host", *((replace(each.target, timeout=0.0), each.route) for each in hops))
    with _in_turn(hop, found, *key) as place:
        finding = place.get()
        if not finding or not still_holds(finding, found.since, time.monotonic()):
            try:
                login = _look(hop, way, argv, stack)
            except SickError as sick:
                place.put(_finding(hop, sick))
                raise
            place.put(_finding(hop, None))
            return login
    hop.stages = [Stage(**stage) for stage in finding["stages"]]
    hop.shared = tuple(stage.stage for stage in hop.stages)
    hop.concerns, hop.weak_key, hop.tried_login = (finding[name] for name in ("concerns", "weak_key", "tried_login"))
    if finding["sick"]:
        raise SickError(finding["sick"]["code"], finding["sick"]["seen"], **finding["sick"]["values"])
    try:
        with _in_turn(hop, found, *key, os.getpid() % _LOGINS_AT_ONCE):
            login = stack.enter_context(Program(argv))
            _log_in(hop, login)
    except SickError:
        # It may be gone, or have too much to do for a moment: the next process looks, again for all.
        with _in_turn(hop, found, *key) as place:
            if place.get() == finding:
                place.put(None)
        raise
    return login


@contextlib.contextmanager
def _in_turn(hop: _Examination, found: _Examination, *key: object) -> t.Iterator[Shared]:
    """Wait for other processes of the run; that is no time of the examination."""
    start = time.monotonic()
    with shared(found.folder, *key) as place:
        found.deadline += time.monotonic() - start
        hop.deadline = found.deadline
        yield place


def _look(hop: _Examination, way: _Way | None, argv: list[str], stack: contextlib.ExitStack) -> Program:
    """All stages of a jump host."""
    with hop.stage("inventory") as note:
        note.evidence = check_inventory(hop.target)
    _reach(hop, way)
    with hop.stage("key") as note:
        note.evidence, note.warnings, hop.weak_key = check_keys(None, hop.route, hop.limit)
    login = stack.enter_context(Program(argv))
    _log_in(hop, login)
    return login


def _finding(hop: _Examination, sick: SickError | None) -> dict[str, t.Any]:
    """Return the part of an examination that other processes can use; a login that worked is not one."""
    stages = hop.stages if sick else [stage for stage in hop.stages if stage.stage not in ("host_key", "login")]
    return {
        "when": time.monotonic(),
        "stages": [asdict(stage) for stage in stages],
        "concerns": hop.concerns,
        "weak_key": hop.weak_key,
        "tried_login": bool(sick) and hop.tried_login,
        "sick": {"code": sick.code, "seen": sick.seen, "values": sick.values} if sick else None,
    }


def _of_jump_host(name: str, cause: dict[str, t.Any]) -> dict[str, t.Any]:
    return {
        **cause,
        "meaning": f"jump host {name}: {cause['meaning']}",
        "remedy": f"for the jump host {name}: {cause['remedy']}",
    }


def _reach(found: _Examination, way: _Way | None) -> None:
    """The stages that need no login: up to what the server offers. The connection ends with them."""
    route = found.route
    with contextlib.ExitStack() as stack:
        if way:
            found.skip(f"{way.name} resolves it", "resolve")
            with found.stage("tcp") as note:
                connection = _connect_by(way, route, found.limit, stack)
                note.evidence = f"connected by {way.name}"
        elif route.command:
            found.skip(f"ssh goes through {route.via}", "resolve", "tcp", "banner", "algorithms")
            return
        else:
            with found.stage("resolve") as note:
                addresses = wire.resolve(route.host, route.port, found.limit)
                note.evidence = ", ".join(address for _family, address in addresses)
            with found.stage("tcp") as note:
                connection, address, errors = wire.connect(addresses, route.port, found.limit)
                stack.enter_context(connection)
                note.evidence = f"connected to {address}"
                if errors:
                    note.warnings.append(SickError("tcp_address_dead", wire.describe_connect_errors(errors)))
        line = wire.Wire(connection)
        with found.stage("banner") as note:
            note.evidence = found.server_version = wire.read_banner(line, found.limit)
        with found.stage("algorithms") as note:
            note.evidence, note.warnings = judge_algorithms(route.algorithms, wire.read_offer(line, found.limit))
            line.hang_up(min(found.limit, 0.5))


def _connect_by(way: _Way, route: Route, timeout: float, stack: contextlib.ExitStack) -> socket.socket:
    """Let a jump host connect to the next machine."""
    deadline = time.monotonic() + timeout
    way.login.read(timeout, lambda: messages.is_shared(way.login.stderr))
    before = len(way.login.stderr)
    argv = client.shared_command(way.control_path, "-W", f"[{route.host}]:{route.port}")
    ours, theirs = socket.socketpair()
    stack.enter_context(ours)
    with theirs:
        carrier = stack.enter_context(Program(argv, stdin=theirs.fileno(), stdout=theirs.fileno()))

    def said(words: str) -> bool:
        return words in way.login.stderr[before:]

    def decided() -> bool:
        return said(_OPENED) or said("open failed") or carrier.has_ended()

    way.login.read(deadline - time.monotonic(), decided)
    if said(_OPENED):
        return ours
    refused = messages.classify_forwarding(way.login.stderr[before:])
    if refused:
        code = "jump_forwarding_off" if refused.code == "forwarding_off" else refused.code
        raise SickError(code, f"{way.name} says: {refused.seen}")
    if carrier.has_ended():
        words = messages.last_words(carrier.finish(1).stderr.splitlines())
        raise SickError("jump_failed", f"{way.name}: {words}")
    raise SickError("tcp_timeout", f"{way.name} got no answer within {timeout:g} s")


def _log_in(found: _Examination, login: Program) -> None:
    """The stages host_key and login, as the client tells of them."""
    route = found.route
    found.tried_login = True
    try:
        with found.stage("host_key") as note:
            if not login.read(found.limit, lambda: messages.trusts_host_key(login.stderr, route)):
                _raise_failed_login(found, login)
            note.evidence = f"known as {route.known_name}"
        with found.stage("login") as note:
            if not login.read(found.limit, lambda: messages.is_authenticated(login.stderr, route)):
                _raise_failed_login(found, login)
            session = messages.read_session(login.stderr, route)
            key = session.accepted_key if session else None
            note.evidence = f"{route.user}, {key or 'without a key'}"
    finally:
        session = messages.read_session(login.stderr, route)
        if session:
            found.server_version = session.server_version or found.server_version
            found.auth_methods = session.auth_methods
            found.host_key_fingerprint = session.host_key_fingerprint


def _raise_failed_login(found: _Examination, login: Program) -> t.NoReturn:
    finished = login.finish(0)
    try:
        messages.classify_login(finished, found.route, found.target.timeout)
    except SickError as sick:
        if sick.code == "host_key_changed":
            raise _with_known_key(sick, found.route, found.limit) from sick
        if sick.code == "auth_key_refused" and found.weak_key:
            raise SickError("key_obsolete", f"{sick.seen} ({found.weak_key})") from sick
        raise
    raise SickError("unknown", f"exit code 0: {messages.last_words(finished.stderr.splitlines())}")


def _with_known_key(sick: SickError, route: Route, timeout: float) -> SickError:
    """Add the fingerprint of the key that was known so far."""
    values = dict(sick.values)
    line = int(values.pop("known_line", "0"))
    known_hosts = values.get("known_hosts", route.known_hosts)
    listed = run_command(["ssh-keygen", "-l", "-F", route.known_name, "-f", known_hosts], timeout)
    known = messages.parse_known_fingerprints(listed.stdout)
    fingerprint = known.get(line) or ", ".join(known.values()) or "unknown"
    return SickError(sick.code, f"{sick.seen} Known: {fingerprint} ({known_hosts}:{line})", **values)


def _run_script(found: _Examination, login: Program) -> tuple[node.Node, float]:
    """Return the answer of the node, and when it came."""
    with found.stage("command") as note:
        ended = login.read(found.limit, lambda: node.has_ended(login.stdout))
        arrival = time.time()
        printed = login.stdout.decode("utf-8", "replace")
        answer = node.parse_node(printed) if ended else None
        if not answer:
            messages.classify_login(login.finish(0), found.route, found.target.timeout)
            words = printable(" ".join(printed.split()))[:80] or "nothing"
            raise SickError("command_swallowed", f"exit status 0, no answer; printed: {words}")
        found.machine = answer.machine
        note.evidence, note.warnings = f"ran as {found.route.user}", node.judge_command(answer)
    return answer, arrival


def _try_sftp(found: _Examination, login: Program, control_path: str, noise: str) -> None:
    before = len(login.stderr)
    argv = [*client.shared_command(control_path, "-s"), "sftp"]
    with found.stage("sftp") as note, Program(argv, stdin=subprocess.PIPE) as program:
        program.say(_SFTP_INIT)
        end = time.monotonic() + found.limit
        program.read(found.limit, lambda: bool(program.stdout))
        patience = min(_SFTP_PATIENCE, end - time.monotonic())
        program.read(patience, lambda: len(program.stdout) >= 9 or not may_be_sftp_version(program.stdout))
        if len(program.stdout) >= 9 and may_be_sftp_version(program.stdout):
            note.evidence = f"version {int.from_bytes(program.stdout[5:9], 'big')}"
            return
        program.say_no_more()
        finished = program.finish(0.2)
        login.read(0.1, lambda: "rtype exit-" in login.stderr[before:])
        refused = messages.classify_sftp(finished, login.stderr[before:])
        printed = finished.stdout.strip()
        # Of much noise only the beginning may have come.
        if printed and noise.strip() and (printed.startswith(noise.strip()) or noise.strip().startswith(printed)):
            note.status, note.evidence = "skipped", "the start-up file that prints breaks it"
        elif refused:
            note.warnings.append(refused)
        else:
            note.status = "skipped"
            note.evidence = "the server takes one session a connection (MaxSessions)"


def _try_forwarding(found: _Examination, login: Program, control_path: str) -> None:
    """Ask for a connection on the node to a port that nobody listens on: a server that tries it allows it."""
    before = len(login.stderr)
    with found.stage("forwarding") as note:
        argv = client.shared_command(control_path, "-W", "127.0.0.1:1")
        run_command(argv, found.limit)
        login.read(0.2, lambda: "open failed" in login.stderr[before:])
        refused = messages.classify_forwarding(login.stderr[before:])
        if refused and refused.code == "forwarding_off":
            note.warnings.append(refused)
        elif refused:
            note.evidence = "allowed"
        else:
            note.status, note.evidence = "skipped", "the connection cannot be shared"


def _ask_paramiko(found: _Examination, sick: SickError) -> None:
    """Another client may learn what OpenSSH's could not, and shows which of the two is the limit."""
    if sick.code not in _ASK_PARAMIKO or found.route.via:
        return
    ask_all = not sick.code.startswith("host_")
    if not second.INSTALLED:
        if ask_all:
            sick.seen += "; paramiko is not installed, so it was not asked"
        return
    port = int(str(found.target.port or found.route.port))
    try:
        addresses = wire.resolve(found.route.host, port, found.limit)
        connection, _address, _errors = wire.connect(addresses, port, found.limit)
    except SickError:
        return
    opinion = second.ask(connection, found.route.user or os.environ.get("USER", "root"), found.limit)
    found.auth_methods = found.auth_methods or opinion.methods
    found.host_key_fingerprint = found.host_key_fingerprint or opinion.fingerprint
    if ask_all and opinion.methods:
        sick.seen += f"; paramiko gets through (offered: {', '.join(opinion.methods)}), so this ssh is the limit"
    elif ask_all:
        sick.seen += f"; paramiko fails too: {opinion.failure}"
