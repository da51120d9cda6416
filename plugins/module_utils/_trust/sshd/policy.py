# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Put a policy for sshd into force: try it beside the real files, judge it, change them with a way back.

This module util is PRIVATE to the collection. What sshd would do is in settings, which sshd runs and what it
offers in process, and the way back in guard.
"""

from __future__ import annotations

import glob
import grp
import hashlib
import json
import os
import pwd
import re
import tempfile
import typing as t
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.gpuops.fleet.plugins.module_utils._base.patterns import path_matches
from ansible_collections.gpuops.fleet.plugins.module_utils._base.public_key import PublicKeyError, parse_line
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.sshd import firewall, guard, process
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.sshd import settings as judge
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.sshd.effective import Effective, parse_effective
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.sshd.process import Listener, Run, Socket
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.sshd.settings import (
    Block,
    Login,
    SshdError,
)

CONFIG = "/etc/ssh/sshd_config"
DROP_IN = "/etc/ssh/sshd_config.d/00-gpuops.conf"
BANNER = "/etc/ssh/gpuops-banner"
PAM = "/etc/pam.d/sshd"
MODULI = "/etc/ssh/moduli"
MODULI_BEFORE = "/etc/ssh/moduli.before-gpuops"
_PRIVATE = b"PRIVATE KEY"
_TEXTS = (CONFIG, DROP_IN, BANNER, PAM, firewall.RULES, firewall.UNIT)
# Only the drop-in: others that lie there unread are not for us to bring into force.
INCLUDE = f"Include {DROP_IN}\n"
HEADER = """Written by gpuops.fleet, role sshd_hardening; changes made by hand are lost.
sshd takes the first value that it reads, so this file sorts before all others.
To undo all of it, also other files: the role with sshd_hardening_state: absent."""

Files = t.Dict[str, t.Optional[bytes]]


@dataclass(frozen=True)
class Policy:
    """The policy as the module has it in its options."""

    present: bool
    settings: t.Mapping[str, str]
    algorithms: t.Mapping[str, t.Sequence[str]]
    blocks: t.Sequence[Block]
    banner: str
    pam_auth: t.Sequence[str]
    moduli_bits: int
    replace_host_key: str
    allow_networks: t.Sequence[str]


@dataclass(frozen=True)
class Sshd:
    """The sshd of this machine, and how it runs."""

    program: str
    listeners: tuple[Listener, ...]
    waiting: Socket | None
    # From where this module's connection comes, and to which address and port.
    origin: tuple[str, str, int] | None
    run: Run

    @property
    def overriding(self) -> list[str]:
        """The options of the one that this connection came to."""
        return self.listeners[0].overriding if self.listeners else []

    def test(self, main: str) -> str:
        """Return what `sshd -t` has against these files, an empty text for nothing."""
        code, said = process.ask_sshd(self.run, [self.program, *self.overriding, "-f", main, "-t"])
        return said.strip() or f"sshd -t ended with {code}" if code else ""

    def effective(self, main: str, login: Login) -> Effective:
        command = [self.program, *self.overriding, "-f", main, "-T", "-C", login.criteria]
        code, said = process.ask_sshd(self.run, command)
        if code:
            raise SshdError(f"sshd -T ended with {code}: {said.strip()}")
        return parse_effective(said)


def find_sshd(run: Run) -> Sshd:
    """Find how sshd runs here. Raises SshdError where a change could not take effect, or would end it."""
    program = process.sshd_program()
    if not program:
        raise SshdError("there is no sshd on this machine", remedy="apt-get install openssh-server")
    found = process.listeners(run)
    # One that reads other files is somebody's own.
    ours = [listener for listener in found if os.path.realpath(listener.config) == os.path.realpath(CONFIG)]
    origin = process.origin()
    ours.sort(key=lambda listener: not origin or origin[2] not in [port for _address, port in listener.sockets])
    waiting = process.active_socket(run)
    if not ours and not waiting:
        seen = (
            ", ".join(f"{listener.program} {' '.join(listener.options)}" for listener in found) or "none that listens"
        )
        raise SshdError(f"no sshd of this machine reads {CONFIG} (found: {seen})", remedy="ps -ef | grep sshd")
    for listener in ours:
        process.check_reloadable(listener)
    # One that is told to read its files again ends without it.
    os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    return Sshd(program, tuple(ours), waiting, origin, run)


def find_logins(users: t.Sequence[str], sshd: Sshd) -> list[Login]:
    """The accounts of these users, and the way by which this module's connection came."""
    ports = [port for listener in sshd.listeners for _address, port in listener.sockets]
    ports += sshd.waiting.ports if sshd.waiting else []
    address, local_address, local_port = sshd.origin or ("127.0.0.1", "127.0.0.1", (*ports, 22)[0])
    if ports and local_port not in ports:
        raise SshdError(
            f"this connection came through another sshd: none that reads {CONFIG} listens at port {local_port}"
        )
    logins = []
    for user in users:
        try:
            account = pwd.getpwnam(user)
        except KeyError:
            raise SshdError(f"the inventory logs in as {user}, and this machine has no such user") from None
        groups = tuple(_group_name(gid) for gid in os.getgrouplist(user, account.pw_gid))
        logins.append(Login(user, address, local_address, local_port, account.pw_uid, groups))
    return logins


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def read(path: str) -> bytes | None:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        return None


def plan(policy: Policy, drop_in: str, present: Files) -> Files:
    """The files as they are to be, from those that are there; None is a file that is not there."""
    main = (present[CONFIG] or b"").decode("utf-8", "surrogateescape")
    without = main[len(INCLUDE) :] if main.startswith(INCLUDE) else main
    wanted: Files = {}
    if policy.present:
        wanted[DROP_IN] = drop_in.encode("utf-8", "surrogateescape")
        main = without if judge.includes(without, DROP_IN) else INCLUDE + without
        wanted[BANNER] = f"{policy.banner.rstrip()}\n".encode() if policy.banner else None
    else:
        wanted[DROP_IN] = wanted[BANNER] = None
        main = without
    wanted[CONFIG] = main.encode("utf-8", "surrogateescape")
    pam = present[PAM]
    if pam is not None:
        text = judge.with_pam_lines(pam.decode("utf-8", "surrogateescape"), policy.pam_auth if policy.present else [])
        wanted[PAM] = text.encode("utf-8", "surrogateescape")
    elif policy.present and policy.pam_auth:
        raise SshdError(f"there is no {PAM}, and sshd was to ask for more than a key by it")
    moduli, before = present[MODULI], present[MODULI_BEFORE]
    if moduli is not None:
        if policy.present and policy.moduli_bits:
            filtered = _filtered(moduli, policy.moduli_bits)
            wanted[MODULI] = filtered
            wanted[MODULI_BEFORE] = before if filtered == moduli else moduli
        elif before is not None:
            # A package may have brought another file since.
            wanted[MODULI] = before if len(moduli) < len(before) else moduli
            wanted[MODULI_BEFORE] = None
    return wanted


def _filtered(moduli: bytes, bits: int) -> bytes:
    return judge.without_small_moduli(moduli.decode("latin-1"), bits).encode("latin-1")


def _known_algorithms(policy: Policy, run: Run) -> dict[str, list[str]]:
    known = {}
    for keyword in policy.algorithms:
        if keyword not in judge.QUERIES:
            raise SshdError(f"{keyword} is no list of algorithms; there are {', '.join(judge.QUERIES)}")
        code, said = run(["ssh", "-Q", judge.QUERIES[keyword]])
        if code:
            raise SshdError(f"ssh -Q {judge.QUERIES[keyword]} ended with {code}: {said.strip()}")
        known[keyword] = said.split()
    return known


class _Authorized:
    """Key files of a user, as sshd finds them."""

    def __init__(self, login: Login) -> None:
        self.account = pwd.getpwnam(login.user)

    def types(self, pattern: str) -> list[str]:
        values = {"h": self.account.pw_dir, "u": self.account.pw_name, "U": str(self.account.pw_uid), "%": "%"}
        path = re.sub("%([huU%])", lambda token: values[token.group(1)], pattern)
        content = read(path if path.startswith("/") else f"{self.account.pw_dir}/{path}")
        return judge.key_types((content or b"").decode("utf-8", "replace"))


def _judge(
    sshd: Sshd, logins: t.Sequence[Login], main: str, settings: t.Mapping[str, str], directives: list[judge.Directive]
) -> tuple[Effective, list[int]]:
    """Raise what speaks against these files; return what they say, and at which ports sshd will listen."""
    for login in logins:
        effective = sshd.effective(main, login)
        ports = _ports(sshd, effective, settings)
        reasons = judge.refusals(
            effective, login, ports, _Authorized(login).types, lambda path: os.access(path, os.R_OK)
        )
        if reasons:
            what = f"sshd would refuse {login.user} from {login.address}: {'; '.join(reasons)}"
            raise _refusal(what, [reason.split()[0] for reason in reasons], directives)
        others = judge.differing(settings, effective)
        if others:
            now = ", ".join(f"{keyword} {value}" for keyword, value in others.items())
            raise _refusal(f"for {login.user} sshd would still say {now}", list(others), directives)
        _check_listening(sshd, effective, settings)
    return effective, ports


def _ports(sshd: Sshd, effective: Effective, settings: t.Mapping[str, str]) -> list[int]:
    """systemd's sockets follow us, and no file of others."""
    if sshd.waiting and "Port" not in settings:
        return list(sshd.waiting.ports)
    return sorted({int(port) for port in effective["port"]})


def _refusal(what: str, keywords: t.Sequence[str], directives: t.Sequence[judge.Directive]) -> SshdError:
    found = [str(line) for keyword in keywords for line in judge.foreign(keyword, directives, DROP_IN)]
    if found:
        return SshdError(f"{what}, because of {', '.join(found)}")
    return judge.AskedForError(f"{what}, which is what this change asks for")


def _check_listening(sshd: Sshd, effective: Effective, settings: t.Mapping[str, str]) -> None:
    """Raise SshdError if a reload would apply a pending edit of others that changes the listen addresses."""
    if sshd.waiting or "Port" in settings:
        return
    now = {f"{address}:{port}" for listener in sshd.listeners for address, port in listener.sockets}
    would = {re.sub(r"[\[\]]", "", place) for place in effective["listenaddress"]}
    if not os.path.exists("/proc/net/if_inet6"):
        would = {place for place in would if place.count(":") == 1}
    if would - now:
        raise SshdError(
            f"a reload would change where sshd listens: {', '.join(sorted(would - now))} is configured, "
            f"and nothing listens there now"
        )


# --- new host keys --------------------------------------------------------------------------------------------------


def _new_host_keys(fingerprint: str, effective: Effective, run: Run, scratch: str) -> Files:
    """New keys of all types, where one of those that are there has this fingerprint."""
    # There may be no public half beside it, and of a key that an agent has there is nothing else.
    paths = [path for path in effective.get("hostkey", []) if _PRIVATE in (read(path) or b"")]
    said = {path: run(["ssh-keygen", "-l", "-f", path])[1] for path in paths}
    if not any(fingerprint in line.split() for line in said.values()):
        return {}
    files: Files = {}
    for path in paths:
        kind = said[path].rstrip().rpartition("(")[2].rstrip(")").lower()
        size = ["-b", "4096"] if kind == "rsa" else []
        # Ansible may be told to leave what is in scratch.
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            new = os.path.join(folder, "key")
            code, error = run(["ssh-keygen", "-q", "-t", kind, *size, "-N", "", "-C", "", "-f", new])
            if code:
                raise SshdError(f"ssh-keygen -t {kind} ended with {code}: {error.strip()}")
            files[path], files[f"{path}.pub"] = read(new), read(f"{new}.pub")
    return files


def _shown_host_keys(files: Files, effective: Effective) -> list[str]:
    """The public halves of the keys that sshd shows, without their comments."""
    public = [f"{path}.pub" for path in effective.get("hostkey", [])]
    texts = [(files[path] if path in files else read(path)) or b"" for path in public]
    keys = [text.decode("utf-8", "replace").split()[:2] for text in texts]
    allowed = effective["hostkeyalgorithms"][0].replace("rsa-sha2-512", "ssh-rsa").split(",")
    return [" ".join(key) for key in keys if key and key[0] in allowed]


# --- the three things that the module does --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Change:
    """Files as they are, and those that are to be others."""

    present: Files
    changed: Files
    settings: t.Mapping[str, str]
    left_out: t.Sequence[str]
    drop_in: str

    @property
    def main(self) -> str:
        return (self.changed.get(CONFIG) or self.present[CONFIG] or b"").decode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class _Trial:
    """The answer of sshd for the changed files: its settings, the ports at which it would listen, and who set what."""

    effective: Effective
    ports: list[int]
    directives: list[judge.Directive]


def _prepare(policy: Policy, sshd: Sshd, login: Login, run: Run, scratch: str) -> _Change:
    """Return the change that brings the policy into force. Raises SshdError if sshd rejects the present files."""
    present: Files = {path: read(path) for path in _managed()}
    if present[CONFIG] is None:
        raise SshdError(f"there is no {CONFIG}", remedy="apt-get install --reinstall openssh-server")
    if said := sshd.test(CONFIG):
        raise SshdError(f"sshd rejects the files that are there already: {said}")
    effective = sshd.effective(CONFIG, login)
    algorithms = judge.choose_algorithms(policy.algorithms, _known_algorithms(policy, run))
    settings, left_out = judge.settle({**policy.settings, **algorithms}, effective)
    if policy.banner:
        settings["Banner"] = BANNER
    drop_in = judge.render(HEADER + _certificates(settings), settings, policy.blocks)
    wanted = plan(policy, drop_in, present)
    if sshd.waiting:
        wanted[sshd.waiting.drop_in] = _socket_drop_in(settings.get("Port", "")) if policy.present else None
    host_keys = _new_host_keys(policy.replace_host_key, effective, run, scratch) if policy.replace_host_key else {}
    present.update({path: read(path) for path in host_keys})
    wanted.update(host_keys)
    wanted[firewall.RULES] = wanted[firewall.UNIT] = None
    if policy.present and policy.allow_networks:
        ports = [int(port) for port in settings.get("Port", "").split()] or _ports(sshd, effective, settings)
        wanted[firewall.RULES] = firewall.render(policy.allow_networks, ports).encode()
        wanted[firewall.UNIT] = firewall.UNIT_TEXT.encode()
    changed = {path: content for path, content in wanted.items() if content != present.get(path)}
    if wanted[firewall.RULES] and not firewall.is_loaded(run):
        changed[firewall.RULES] = wanted[firewall.RULES]
    return _Change(
        present=present,
        changed=changed,
        settings=settings if policy.present else {},
        left_out=left_out,
        drop_in=drop_in if policy.present else "",
    )


def _certificates(settings: t.Mapping[str, str]) -> str:
    """Which host certificates there are: sshd reads them with its files, so another one is a change of the drop-in."""
    paths = settings.get("HostCertificate", "").split()
    digest = hashlib.sha256(b"".join(read(path) or b"" for path in paths)).hexdigest()[:16]
    return f"\nSHA-256 of the host certificates: {digest}" if paths else ""


def _managed() -> list[str]:
    """The files that this module may change, but for host keys."""
    sockets = glob.glob("/etc/systemd/system/ssh*.socket.d/00-gpuops.conf")
    return [CONFIG, DROP_IN, BANNER, PAM, MODULI, MODULI_BEFORE, firewall.RULES, firewall.UNIT, *sockets]


def _try(prepared: _Change, sshd: Sshd, logins: t.Sequence[Login], scratch: str) -> _Trial:
    """Have sshd judge the result beside the real files. Raises SshdError for what speaks against it."""
    staged = None
    if prepared.drop_in:
        staged = os.path.join(scratch, "drop-in.conf")
        Path(staged).write_text(prepared.drop_in, encoding="utf-8")
    main = os.path.join(scratch, "sshd_config")
    text = judge.with_other_drop_in(prepared.main, DROP_IN, staged, glob.glob)
    Path(main).write_text(text, encoding="utf-8", errors="surrogateescape")
    if said := sshd.test(main):
        raise SshdError(f"sshd rejects the result: {said}")

    def expand(pattern: str) -> set[str]:
        there = {DROP_IN} if prepared.drop_in and path_matches(DROP_IN, pattern) else set()
        return {*glob.glob(pattern), *there}

    def content(path: str) -> str:
        return prepared.drop_in if path == DROP_IN else (read(path) or b"").decode("utf-8", "replace")

    directives = judge.read_directives(CONFIG, prepared.main, expand, content)
    effective, ports = _judge(sshd, logins, main, prepared.settings, directives)
    return _Trial(effective, ports, directives)


def change(policy: Policy, users: t.Sequence[str], seconds: int, run: Run, scratch: str, dry: bool) -> dict[str, t.Any]:
    """Make the change, with the timer running; what the module returns."""
    recovered = not dry and guard.restore(run)
    sshd = find_sshd(run)
    logins = find_logins(users, sshd)
    prepared = _prepare(policy, sshd, logins[0], run, scratch)
    tried = _try(prepared, sshd, logins, scratch)
    _check_firewall(policy, prepared, logins, run, scratch)
    changed = prepared.changed
    result: dict[str, t.Any] = {
        "changed": bool(changed) or recovered,
        "pending": False,
        "token": _token(changed),
        "files": sorted(changed),
        "left_out": prepared.left_out,
        "exceptions": [str(line) for line in judge.exceptions(prepared.settings, tried.directives, DROP_IN)],
        "host_keys": _shown_host_keys(changed, tried.effective),
        "recovered": recovered,
        "diff": [_diff(path, prepared.present.get(path), content) for path, content in changed.items()],
    }
    if dry or (not changed and not _stale(sshd, tried.effective, tried.ports)):
        return result
    real = {path: os.path.realpath(path) for path in changed}
    guard.arm(list(real.values()), sshd.listeners, sshd.waiting, seconds, run)
    try:
        for path, content in changed.items():
            guard.write(real[path], content)
        _put_into_force(changed, sshd, tried, logins)
    except (OSError, SshdError):
        guard.restore(run)
        raise
    return {**result, "changed": True, "pending": True}


def _check_firewall(policy: Policy, prepared: _Change, logins: t.Sequence[Login], run: Run, scratch: str) -> None:
    """Raise SshdError for rules that nftables does not take, or that would shut out one of the logins."""
    if rules := prepared.changed.get(firewall.RULES):
        staged = Path(scratch, "firewall.nft")
        staged.write_bytes(rules)
        firewall.check(policy.allow_networks, logins, str(staged), run)


def _put_into_force(changed: Files, sshd: Sshd, tried: _Trial, logins: t.Sequence[Login]) -> None:
    """Have sshd and the firewall take over the files that were written. Raises SshdError where they have not."""
    ports = tried.ports
    process.reload(sshd.listeners, sshd.waiting, ports, sshd.run)
    if sshd.waiting and sshd.waiting.drop_in in changed:
        ports = _restart_socket(sshd.waiting, logins, sshd.run)
    if firewall.RULES in changed:
        for command in firewall.commands(changed[firewall.RULES] is not None):
            code, said = sshd.run(command)
            if code and changed[firewall.RULES] is not None:
                raise SshdError(f"{' '.join(command)} ended with {code}: {said.strip()}")
    if said := sshd.test(CONFIG):
        raise SshdError(f"sshd rejects the result: {said}")
    if offered := _stale(sshd, tried.effective, ports):
        raise SshdError(f"sshd has not taken its files over, it still offers {', '.join(offered)}")


def _stale(sshd: Sshd, effective: Effective, ports: t.Sequence[int]) -> list[str]:
    """Return what the running sshd offers other than its files say, by port."""
    found = process.doors(process.listeners(sshd.run), sshd.waiting, ports)
    offers = {door: process.differing_offer(door, effective) for door in found}
    return [f"at port {port} {offered}" for (_address, port), offered in offers.items() if offered]


def _restart_socket(waiting: Socket, logins: t.Sequence[Login], run: Run) -> list[int]:
    """Have systemd listen at the ports of its files, and return them: without our drop-in, only it knows which."""
    for command in (["systemctl", "daemon-reload"], ["systemctl", "restart", waiting.unit]):
        code, said = run(command)
        if code:
            raise SshdError(f"{' '.join(command)} ended with {code}: {said.strip()}")
    now = process.active_socket(run)
    ports = list(now.ports) if now else []
    for login in logins:
        if login.local_port not in ports:
            raise SshdError(f"{waiting.unit} does not listen at port {login.local_port}, by which {login.user} logs in")
    return ports


def _socket_drop_in(ports: str) -> bytes | None:
    """systemd listens in the place of sshd, so it must be told the ports."""
    if not ports:
        return None
    return "".join(["[Socket]\n", "ListenStream=\n", *(f"ListenStream={port}\n" for port in ports.split())]).encode()


def _token(files: Files) -> str:
    """Names a change by what it writes, so that a keep that is tried again after a lost connection finds it done."""
    written = {
        path: None if content is None else hashlib.sha256(content).hexdigest() for path, content in files.items()
    }
    return json.dumps(written, sort_keys=True)


def _diff(path: str, before: bytes | None, after: bytes | None) -> dict[str, str]:
    """Shows what is known to be for everybody's eyes: a private key may have any name."""

    def shown(content: bytes | None) -> str:
        if content is None:
            return ""
        if path in (MODULI, MODULI_BEFORE):
            return f"{len(re.findall(rb'^[0-9]', content, re.MULTILINE))} groups\n"
        text = content.decode("utf-8", "replace")
        is_known = path in _TEXTS or path.endswith(".socket.d/00-gpuops.conf") or _is_public_key(text)
        return text if is_known and _PRIVATE not in content else "not shown, since it may be a private key\n"

    return {"before_header": path, "after_header": path, "before": shown(before), "after": shown(after)}


def _is_public_key(text: str) -> bool:
    try:
        return not parse_line(text).options
    except PublicKeyError:
        return False


def keep(token: str, run: Run) -> bool:
    """Stop the timer; False when that is done already, and only its answer was lost."""
    if guard.keep(run):
        return True
    if _token({path: read(path) for path in json.loads(token)}) == token:
        return False
    raise SshdError("the time was up before the change was proven, and the node has put everything back")


def restore(run: Run) -> bool:
    """Put everything back at once."""
    return guard.restore(run)
