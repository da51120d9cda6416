# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""SSH client aliases in a file of our own, read by one Include line of the user's ssh_config(5).

This module util is PRIVATE to the collection. OpenSSH is the only parser of the user's configuration;
the format read here is that of the own file alone.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pwd
import re
import shutil
import socket
import stat
import subprocess
import tempfile
import time
import typing as t
from collections import Counter
from dataclasses import dataclass, replace

from ansible_collections.gpuops.fleet.plugins.module_utils._reach import failover as ssh_failover
from ansible_collections.gpuops.fleet.plugins.module_utils._reach.words import address_fault, jump_fault, user_fault

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

OWN_FILE = "gpuops.conf"
OWN_DIRECTORY = "config.d"
LOCK_FILE = ".gpuops.lock"
LOCK_SECONDS = 60
SSH_SECONDS = 30
# A name that no configuration means: what ssh says of it, it says of the file.
PROBE = "gpuops-fleet-probe.invalid"
# One ssh -G costs about 10 ms, and more in a large file: above this many names one of each shape is asked.
VERIFY_ALL = 100

HEADER = """\
# Managed by gpuops.fleet (module gpuops.fleet.ssh_alias): changes made here by hand are lost.
# Undo: run the module with state=absent for these aliases, or delete this file and the Include line that names it.
"""
MADE = "# Made by the module, removed with the last alias: "
MADE_PARTS = ("directory", OWN_DIRECTORY, "config")

NAME = re.compile(r"!?[A-Za-z0-9_.:%+*?\[\]][A-Za-z0-9_.:%+*?\[\]-]*\Z")
KEYWORD = re.compile(r"[A-Za-z][A-Za-z0-9]*\Z")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# OpenSSH before 8.7 knows no escapes, later releases know these: what is read differently is not written.
ESCAPE = re.compile(r"\"|\\(?:['\" \\]|\Z)")
NEEDS_QUOTES = re.compile(r"[\s'#]|^=|^\Z")
NOT_IN_INCLUDE = re.compile(r"[\x00-\x1f\x7f\"'\\*?\[\]#$%]")
# Values that ssh expands: ssh -G may print another text than was asked.
EXPANDED = re.compile(r"[%~$]")
PLAIN_LINE = re.compile(r"^(Host|  (?:HostName|Port|User|HostKeyAlias)) [A-Za-z0-9._-]+$", re.MULTILINE)
HOST_LINE = re.compile(rb"^\s*host(?:\s*=\s*|\s+)(.+)$", re.IGNORECASE | re.MULTILINE)

NAMED_OPTIONS = {
    "HostName": "hostname",
    "Port": "port",
    "User": "user",
    "IdentityFile": "identity_file",
    "CertificateFile": "certificate_file",
    "IdentitiesOnly": "identities_only",
    "HostKeyAlias": "host_key_alias",
    "UserKnownHostsFile": "known_hosts_file",
    "ProxyJump": "proxy_jump",
    "LocalForward": "local_forward",
    "RemoteForward": "remote_forward",
    "DynamicForward": "dynamic_forward",
    "ConnectTimeout": "connect_timeout",
    "ControlMaster": "control_master",
    "ControlPath": "control_path",
    "ControlPersist": "control_persist",
}
OPTION_OF = {keyword.lower(): option for keyword, option in NAMED_OPTIONS.items()}
# Seconds between two questions, and how many may stay without an answer. The kernel's own TCP keep-alives take no part
# where a session is to outlive an outage.
KEEPALIVE_PROFILES = {
    "interactive": {"ServerAliveInterval": 60, "ServerAliveCountMax": 120, "TCPKeepAlive": False},
    "bounded": {"ServerAliveInterval": 15, "ServerAliveCountMax": 4, "TCPKeepAlive": True},
    "transfer": {"ServerAliveInterval": 5, "ServerAliveCountMax": 3, "TCPKeepAlive": True},
}
# The shortest sun_path of all systems with OpenSSH (macOS, BSD) with its final NUL, and what ssh appends to a path
# while it makes the socket: a dot and 16 characters.
SOCKET_BYTES = 104
SOCKET_SUFFIX_BYTES = 17
TOKEN = re.compile(r"%(.)|\$\{([^}]+)\}")
UNKNOWN_KEYWORD = re.compile(r"Bad configuration option: ([A-Za-z0-9]+)")
FAULTS = {"hostname": address_fault, "user": user_fault, "host_key_alias": address_fault, "proxy_jump": jump_fault}
BLOCK_KEYWORDS = ("host", "match", "include")
COMPARED_AS_ASKED = ("hostname", "port", "user", "identityfile", "identitiesonly", "hostkeyalias")
# OpenSSH adds these up line by line; of all other keywords it reads the first line only.
# What of a block decides which machine ssh connects to, and on which way.
WAY_LINE = re.compile(rf"^(?:  (?:HostName|Port|User|ProxyJump) |{ssh_failover.MARK}).*$", re.MULTILINE)
# Without one of these there is no shared connection; an Include may lead to one.
SHARES = re.compile(rb"^[ \t]*(?:ControlPath|Include)\b", re.IGNORECASE | re.MULTILINE)
ONE_PER_LINE = ("identityfile", "certificatefile", "localforward", "remoteforward", "dynamicforward", "sendenv")
# The rest of the line is one command, or several arguments that never hold a blank themselves.
VERBATIM = (
    "proxycommand",
    "localcommand",
    "remotecommand",
    "knownhostscommand",
    "localforward",
    "remoteforward",
    "sendenv",
    "rekeylimit",
    "ipqos",
    "canonicaldomains",
    "canonicalizepermittedcnames",
    "permitremoteopen",
    "channeltimeout",
)


class AliasError(Exception):
    """Raised with what failed, what was seen and the remedy in one message, and the aliases it is about."""

    def __init__(self, message: str, names: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.names = tuple(names)


class RefusedAliasError(AliasError):
    """Raised for one alias as asked; C(what) is the reason without the rest of the message."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(
            f"alias {name!r}: {what}; correct this value in the task or inventory and run it again", [name]
        )
        self.what = what


@dataclass(frozen=True)
class Alias:
    """One Host block: its patterns, and its keywords with their values in the order of the block."""

    name: str
    settings: tuple[tuple[str, tuple[str, ...]], ...]
    failover: ssh_failover.Failover | None = None
    unknown: frozenset[str] = frozenset()
    """Keywords in lower case that this ssh does not know and that are to be left out."""


@dataclass(frozen=True)
class OwnFile:
    """The aliases in the own file (name to block), and what the module made around it."""

    blocks: dict[str, str]
    made: frozenset[str]


@dataclass(frozen=True)
class Change:
    """One file before and after; C(None) means that there is none."""

    path: str
    before: bytes | None
    after: bytes | None
    mode: int


def parse_alias(params: Mapping[str, t.Any]) -> Alias:
    """Check one alias as asked and bring it into ssh_config terms."""
    name = parse_name(params["name"])
    settings: list[tuple[str, tuple[str, ...]]] = []

    def refuse(what: str) -> t.NoReturn:
        raise RefusedAliasError(name, what)

    def add(label: str, keyword: str, values: Iterable[t.Any]) -> None:
        texts = tuple(_text(value) for value in values)
        lower = keyword.lower()
        if lower in ONE_PER_LINE:
            # ssh -G shows a repeated line once
            texts = tuple(dict.fromkeys(texts))
        for text in texts:
            if CONTROL.search(text):
                refuse(f"{label} {text!r} holds a newline or another control character")
            if not text.strip():
                refuse(f"{label} is empty")
            if lower not in VERBATIM and ESCAPE.search(text):
                refuse(f"{label} {text!r} holds a double quote or a backslash that ssh would read as an escape")
            if label in FAULTS and (fault := FAULTS[label](text)):
                refuse(f"{label} {text!r} {fault}")
        if texts:
            settings.append((keyword, texts))

    port = params.get("port")
    if port is not None and not 1 <= port <= 65535:
        refuse(f"port {port} is not between 1 and 65535")
    for keyword, label in NAMED_OPTIONS.items():
        value = params.get(label)
        if value is not None:
            if label == "control_persist" and value in ("True", "False"):
                value = value == "True"
            add(label, keyword, value if isinstance(value, list) else [value])
    timeout = params.get("connect_timeout")
    if timeout is not None and timeout < 1:
        refuse(f"connect_timeout {timeout} is not at least 1 second")
    keepalive = params.get("keepalive")
    if keepalive:
        for label in ("interval", "count"):
            if keepalive[label] is not None and keepalive[label] < 1:
                refuse(f"keepalive: {label} {keepalive[label]} is not at least 1")
        own = {"ServerAliveInterval": keepalive["interval"], "ServerAliveCountMax": keepalive["count"]}
        for keyword, value in (KEEPALIVE_PROFILES[keepalive["profile"]] if keepalive["profile"] else own).items():
            add("keepalive", keyword, [value])
    try:
        failover = ssh_failover.parse_failover(params.get("jump_hosts") or [], params.get("direct"))
    except ssh_failover.FailoverError as exc:
        refuse(str(exc))
    seen = {keyword.lower() for keyword, _values in settings}
    for keyword, value in (params.get("options") or {}).items():
        lower = keyword.lower()
        if not KEYWORD.match(keyword):
            refuse(f"options: {keyword!r} is not an ssh_config keyword")
        if lower in BLOCK_KEYWORDS:
            refuse(f"options: {keyword} would end the block of this alias")
        if lower in OPTION_OF:
            refuse(f"options: {keyword} has an option of its own, {OPTION_OF[lower]}")
        if lower in seen:
            refuse(f"options: {keyword} is there twice: use one list, or keepalive without it")
        seen.add(lower)
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(item, (str, int, float)) for item in values):
            refuse(f"options: {keyword} is neither a scalar nor a list of scalars")
        add(f"options: {keyword}", keyword, values)
    ways = [keyword for keyword, _values in settings if keyword.lower() in ("proxyjump", "proxycommand")]
    if failover and ways:
        refuse(f"jump_hosts and {ways[0]} are two ways to the same host, keep one")
    return Alias(name, tuple(settings), failover)


def check_socket(alias: Alias) -> None:
    """Refuse a ControlPath that does not fit into the address of a socket, for any plain name of an alias."""
    settings = {keyword: values[0] for keyword, values in alias.settings}
    control_path = settings.get("ControlPath", "none")
    if control_path.lower() == "none":
        return
    user = current_user()
    node = socket.gethostname()
    for host in (name for name in alias.name.split() if is_plain(name)):
        tokens = {
            "%": "%",
            "C": "0" * 40,
            "L": node.split(".")[0],
            "d": user.pw_dir,
            "h": settings.get("HostName", host).replace("%h", host),
            "i": str(user.pw_uid),
            "j": settings.get("ProxyJump", ""),
            "k": settings.get("HostKeyAlias", host),
            "l": node,
            "n": host,
            "p": settings.get("Port", "22"),
            "r": settings.get("User", user.pw_name),
            "u": user.pw_name,
        }

        path = _expand(re.sub(r"\A~(?=/)", lambda _found: user.pw_dir, control_path), tokens)
        limit = SOCKET_BYTES - 1 - SOCKET_SUFFIX_BYTES
        length = len(os.fsencode(path))
        if length > limit:
            raise AliasError(
                f"alias {alias.name!r}: control_path {control_path!r} is {path!r} for {host}, {length} bytes; there is"
                f" room for {limit}: {SOCKET_BYTES} in the address of a socket, less its end and the"
                f" {SOCKET_SUFFIX_BYTES} that ssh appends for a moment. Use a shorter path, such as"
                " control_path=~/.ssh/%C",
                [alias.name],
            )


def current_user() -> pwd.struct_passwd:
    """The user this run acts as, in the database that ssh too takes the home directory from."""
    try:
        return pwd.getpwuid(os.geteuid())
    except KeyError as exc:
        raise AliasError(
            f"this run has uid {os.geteuid()}, a user this machine does not know, and so ssh will not run either;"
            f" see: getent passwd {os.geteuid()}"
        ) from exc


def find_user(name: str) -> pwd.struct_passwd:
    """A user by name whom this run may act as."""
    try:
        user = pwd.getpwnam(name)
    except KeyError as exc:
        raise AliasError(f"owner {name!r}: this machine has no such user; see: getent passwd '{name}'") from exc
    if os.geteuid() not in (0, user.pw_uid):
        raise AliasError(
            f"owner {name!r} has uid {user.pw_uid}, but this run has uid {os.geteuid()};"
            f" run the module with become=true, or become_user={name}"
        )
    return user


def parse_name(name: str) -> str:
    """Check the patterns of a Host line; the result has single blanks."""
    if CONTROL.search(name):
        raise AliasError(f"alias {name!r}: the name holds a newline or another control character; use another name")
    patterns = name.split()
    if all(pattern.startswith("!") for pattern in patterns):
        raise AliasError(f"alias {name!r}: the name is empty or only negated, so it matches no host; add a pattern")
    for pattern in patterns:
        if not NAME.match(pattern):
            raise AliasError(
                f"alias {name!r}: {pattern!r} is no name or pattern for ssh; use letters, digits and"
                " . _ - : % + * ? [ ], a leading ! to negate, and blanks only between patterns"
            )
    return " ".join(patterns)


def refuse_duplicates(names: Iterable[str]) -> None:
    """Refuse a name that is there twice: only one of its blocks could win."""
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise AliasError(f"alias {', '.join(twice)}: the same name twice in one list; keep one of them")


def is_plain(name: str) -> bool:
    """Return whether all patterns of the name are host names that can be asked for."""
    return not ("*" in name or "?" in name or "!" in name)


def render_block(alias: Alias) -> str:
    """Render the Host block of one alias."""
    lines = [f"Host {alias.name}"]
    for keyword, values in alias.settings:
        words = [_argument(keyword, value) for value in values]
        start = "  # unknown to this ssh: " if keyword.lower() in alias.unknown else "  "
        lines += [
            f"{start}{keyword} {argument}"
            for argument in (words if keyword.lower() in ONE_PER_LINE else [" ".join(words)])
        ]
    return "\n".join(lines) + "\n" + (ssh_failover.render_note(alias.failover) if alias.failover else "")


def parse_own(content: bytes | None, path: str) -> OwnFile:
    """Read back the own file."""
    text = (content or b"").decode("utf-8", "surrogateescape")
    if not text:
        return OwnFile({}, frozenset())
    if not text.startswith(HEADER.split(":", 1)[0]):
        raise AliasError(f"{path} was not written by gpuops.fleet; move it away: mv {path} {path}.orig")
    header, *blocks = re.split(r"^(?=Host |Match )", text, flags=re.MULTILINE)
    made = [line[len(MADE) :].split() for line in header.splitlines() if line.startswith(MADE)]
    return OwnFile(
        {
            block.splitlines()[0][len("Host ") :]: block.rstrip("\n") + "\n"
            for block in blocks
            if block.startswith("Host ")
        },
        frozenset(word for words in made for word in words),
    )


def failovers(own: OwnFile) -> dict[str, ssh_failover.Failover]:
    """The aliases with jump hosts."""
    # Without a regular expression for each of the many that have none.
    found = {name: ssh_failover.read_note(block) for name, block in own.blocks.items() if ssh_failover.MARK in block}
    return {name: failover for name, failover in found.items() if failover}


def check_loops(own: OwnFile) -> None:
    """Refuse jump hosts that are reached through themselves: ssh would start itself without end."""
    loop = ssh_failover.find_loop(failovers(own))
    if loop:
        raise AliasError(
            f"jump_hosts: {' goes by '.join(loop)}, which has no end; both files are as before."
            f" Take {loop[0]} out of the aliases with jump_hosts, for example by the pattern !{loop[0]}",
            [jump_host.rpartition("@")[2].partition(":")[0] for jump_host in loop],
        )


def check_case(own: OwnFile) -> None:
    """Refuse jump hosts that ssh would use for another alias: unlike Host, Match takes capitals for small letters."""
    jumps = failovers(own)
    if not jumps:
        return
    plain = {host: jumps.get(name) for name in own.blocks if is_plain(name) for host in name.split()}
    alike: dict[str, list[str]] = {}
    for host in plain:
        alike.setdefault(host.lower(), []).append(host)
    for name, failover in jumps.items():
        if is_plain(name):
            others = [other for host in name.split() for other in alike[host.lower()]]
        else:
            others = [host for host in plain if ssh_failover.depends_on_case(name, host)]
        for other in others:
            if plain[other] != failover:
                raise AliasError(
                    f"alias {name!r} and {other!r}: ssh cannot keep the jump_hosts of one from the other, because"
                    " Match, which they need, takes capitals for small letters; both files are as before. Use names"
                    " that differ in more, or the same jump_hosts",
                    [name, other],
                )


def render_parts(own: OwnFile, probe: str) -> list[str]:
    """Render all blocks; plain names come first, because in ssh_config the first match wins."""
    jumps = failovers(own)
    plain = [name for name in own.blocks if is_plain(name)]
    parts = [own.blocks[name] for name in plain]
    parts += ssh_failover.render_matches({name: jumps[name] for name in plain if name in jumps}, probe)
    for name, block in own.blocks.items():
        if not is_plain(name):
            parts.append(block)
            if name in jumps:
                parts.append(ssh_failover.render_match([name], jumps[name], probe))
    return parts


def render_own(own: OwnFile, probe: str) -> bytes:
    """Render the own file."""
    made = " ".join(part for part in MADE_PARTS if part in own.made)
    parts = [HEADER + (f"{MADE}{made}\n" if made else ""), *render_parts(own, probe)]
    return "\n".join(parts).encode("utf-8", "surrogateescape")


def probe_command(own_directory: str, path: str) -> str:
    """The command of Match exec, to which the jump hosts are appended."""
    check_quotable(path)
    # sh, since a home may be mounted noexec
    command = f"sh {_shell_word(os.path.join(own_directory, ssh_failover.SCRIPT_FILE))}"
    if path == os.path.join(current_user().pw_dir, ".ssh", "config"):
        return command
    return f"{command} -F {_shell_word(path)}"


def check_quotable(path: str) -> None:
    """Refuse a path that ssh_config cannot name literally."""
    bad = NOT_IN_INCLUDE.search(path)
    if bad:
        raise AliasError(
            f"{path!r}: an Include line of ssh cannot name a path with {bad.group()!r}; set path to another directory"
        )


def include_line(own_path: str) -> bytes:
    """The Include line for the own file, without its line end."""
    check_quotable(own_path)
    quote = '"' if re.search(r"\s", own_path) else ""
    return f"Include {quote}{own_path}{quote}".encode("utf-8", "surrogateescape")


def without_include(main: bytes, include: bytes) -> bytes:
    """The user's configuration without our line, all else byte for byte."""
    return b"".join(line for line in main.splitlines(keepends=True) if line.rstrip(b"\r\n") != include)


def with_include(main: bytes, include: bytes) -> bytes:
    """The user's configuration with our line once, at byte 0, in the line ends of its first line."""
    own = without_include(main, include)
    return include + (b"\r\n" if re.match(rb"[^\n]*\r\n", own) else b"\n") + own


def hosts_to_verify(aliases: Sequence[Alias], own: OwnFile) -> list[tuple[Alias, str]]:
    """Which names to ask ssh for: all, or one of each shape where that would take too long.

    Two blocks have the same shape when they differ only in plain words, which ssh reads alike. A name that
    several blocks give is always asked for.
    """
    hosts = [(alias, host) for alias in aliases if is_plain(alias.name) for host in alias.name.split()]
    if len(hosts) <= VERIFY_ALL:
        return hosts
    uses = Counter(host for name in own.blocks for host in name.split())
    shapes = {
        (PLAIN_LINE.sub(r"\1", own.blocks[alias.name]), host if uses[host] > 1 else ""): (alias, host)
        for alias, host in hosts
    }
    return list(shapes.values())


def resolve(ssh: str, config: str, host: str, context: Sequence[str] = ()) -> dict[str, list[str]]:
    """Return what C(ssh -G) makes of a host name: lower-case keyword to its lines.

    The system-wide configuration is not read.
    """
    result = _run_ssh(ssh, config, ["-G", *context, "--", host])
    if result.returncode:
        lines = result.stderr.decode("utf-8", "replace").splitlines()
        raise AliasError(
            "; ".join(line for line in lines if not line.startswith("Pseudo-terminal")) or "no reason given"
        )
    resolved: dict[str, list[str]] = {}
    for line in result.stdout.decode("utf-8", "surrogateescape").splitlines():
        keyword, _blank, value = line.partition(" ")
        resolved.setdefault(keyword, []).append(value)
    return resolved


def moved(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Plain names that led somewhere else before, or are about to go."""
    return [
        host
        for name, block in before.items()
        if is_plain(name) and WAY_LINE.findall(block) != WAY_LINE.findall(after.get(name, ""))
        for host in name.split()
    ]


def stop_sharing(ssh: str, config: str, content: bytes, hosts: Iterable[str]) -> list[str]:
    """Have the shared connections of these names take no new session; what runs in them goes on.

    The configuration must still be the one by which they were made. Returns the names that had one.
    """
    if not SHARES.search(content):
        return []
    return [host for host in hosts if _run_ssh(ssh, config, ["-O", "stop", "--", host]).returncode == 0]


def check_config(ssh: str, config: str, content: bytes) -> None:
    """Refuse a configuration that ssh itself refuses."""
    if content.startswith(b"\xef\xbb\xbf"):
        raise AliasError(
            f"{config} starts with a byte order mark, which ssh rejects; nothing was changed."
            f" Remove it with: sed -i '1s/^\\xef\\xbb\\xbf//' '{config}'"
        )
    try:
        resolve(ssh, config, PROBE)
    except AliasError as exc:
        raise AliasError(
            f"ssh rejects {config}: {exc}; nothing was changed. Next: ssh -G -F '{config}' {PROBE}"
        ) from exc


def verify(ssh: str, config: str, asked: Iterable[tuple[Alias, str]], scratch: str) -> None:
    """Refuse a configuration in which ssh does not see the aliases exactly as asked."""
    for alias, host in asked:
        got = resolve(ssh, config, host)
        expected = {
            keyword.lower(): [value.lower() for value in values] if keyword == "HostName" else list(values)
            for keyword, values in alias.settings
            if keyword.lower() in COMPARED_AS_ASKED and not any(EXPANDED.search(value) for value in values)
        }
        others = [keyword.lower() for keyword, _values in alias.settings if keyword.lower() not in expected]
        if alias.failover:
            others.append("proxyjump")
        if others:
            # Only ssh knows its normal form of these: it says it of the block alone, for the same user, port and host.
            alone = resolve(ssh, _write_block(scratch, alias), host, _context(got))
            expected.update({keyword: alone[keyword] for keyword in others if keyword in alone})
        for keyword, values in expected.items():
            seen = got.get(keyword, [])
            if seen[: len(values)] != values:
                raise AliasError(
                    f"alias {host}: asked for {keyword} {', '.join(values)}, but ssh -G gives"
                    f" {', '.join(seen) or 'nothing'}; both files are as before. Look for another alias for {host},"
                    " or CanonicalizeHostname in your own configuration",
                    [alias.name],
                )


def ssh_version(ssh: str) -> str:
    """The release of the client, such as OpenSSH_9.2p1."""
    result = subprocess.run([ssh, "-V"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return result.stderr.decode("utf-8", "replace").replace(",", " ").partition(" ")[0].strip() or "ssh"


def leave_out_unknown(ssh: str, aliases: Sequence[Alias], scratch: str) -> list[Alias]:
    """The aliases with the keywords marked that this ssh does not know.

    C(IgnoreUnknown) is of no use for this: in the block of one host it does not hold for the others, which fail then,
    and at the top of the file, where the first value wins, it takes the place of the user's own.
    """
    path = os.path.join(scratch, "unknown")
    _write_scratch(path, "".join(render_block(alias) for alias in aliases).encode("utf-8", "surrogateescape"))
    try:
        resolve(ssh, path, PROBE)
    except AliasError as exc:
        unknown = frozenset(UNKNOWN_KEYWORD.findall(str(exc)))
        return [replace(alias, unknown=unknown) for alias in aliases]
    return list(aliases)


def check_blocks(ssh: str, aliases: Iterable[Alias], scratch: str) -> None:
    """Name the alias that ssh does not accept."""
    for alias in aliases:
        host = alias.name if is_plain(alias.name) and " " not in alias.name else PROBE
        try:
            resolve(ssh, _write_block(scratch, alias), host)
        except AliasError as exc:
            reason = str(exc).replace(f"{scratch}/block: ", "").replace(f"{scratch}/block ", "")
            remedy = "Correct this alias, see: man ssh_config"
            if UNKNOWN_KEYWORD.search(reason):
                remedy = "Correct the keyword, update OpenSSH, or set ignore_unknown=true to leave it out here"
            raise AliasError(
                f"alias {alias.name!r}: {ssh_version(ssh)} rejects it: {reason}; both files are as before. {remedy}",
                [alias.name],
            ) from exc


def check_changed(aliases: Sequence[Alias], own: OwnFile) -> None:
    """Refuse what ssh notices only when it connects."""
    for alias in aliases:
        check_socket(alias)
    check_case(own)
    check_loops(own)


def verify_before_writing(ssh: str, aliases: Sequence[Alias], own: OwnFile, user_config: bytes, scratch: str) -> None:
    """Verify copies of both files, so that the real ones are never wrong for a moment."""
    own_copy = os.path.join(scratch, OWN_FILE)
    main_copy = os.path.join(scratch, "config")
    _write_scratch(own_copy, render_own(own, "true"))
    _write_scratch(main_copy, with_include(user_config, include_line(own_copy)))
    hosts = hosts_to_verify(aliases, own)
    try:
        if not hosts:
            # Only patterns: no name shows what ssh makes of them, but it reads them all the same.
            resolve(ssh, main_copy, PROBE)
        verify(ssh, main_copy, hosts, scratch)
    except AliasError:
        check_blocks(ssh, aliases, scratch)
        raise


def find_shadows(ssh: str, aliases: Iterable[Alias], user_config: bytes, scratch: str) -> list[str]:
    """Names with a Host line of the user's own that gives another host, port or user than ours."""
    literal = {
        word
        for match in HOST_LINE.findall(user_config)
        for word in match.decode("utf-8", "replace").replace('"', " ").split()
    }
    config = os.path.join(scratch, "user_config")
    _write_scratch(config, user_config)
    shadows = []
    for alias in aliases:
        asked = {keyword.lower(): [value.lower() for value in values] for keyword, values in alias.settings}
        for host in alias.name.split():
            if host in literal and is_plain(host):
                before = resolve(ssh, config, host)
                if any(
                    [value.lower() for value in before[keyword]] != asked.get(keyword, before[keyword])
                    for keyword in ("hostname", "port", "user")
                ):
                    shadows.append(host)
    return shadows


def owner_of(path: str) -> int:
    """The owner of the directory of a file, or of the nearest directory above that exists."""
    directory = os.path.dirname(path)
    while not os.path.isdir(directory) and directory != "/":
        directory = os.path.dirname(directory)
    return os.stat(directory).st_uid


def check_place(path: str) -> None:
    """Refuse a place where the files cannot be kept."""
    home = os.path.dirname(os.path.dirname(path))
    target = os.path.realpath(path)
    if not os.path.isdir(home):
        raise AliasError(f"{path}: the directory {home} does not exist; create it, or set path to the file ssh reads")
    if os.path.isdir(target):
        raise AliasError(f"{path} is a directory, not a configuration; set path to the file, such as {path}/config")
    if os.path.exists(target):
        owner = os.stat(target).st_uid
        if owner != os.geteuid():
            raise AliasError(
                f"{path} belongs to uid {owner}, but its directory or this run to uid {os.geteuid()};"
                " nothing was changed. Run the module as its owner (become_user), or see:"
                f" ls -la '{os.path.dirname(path)}'"
            )


@contextlib.contextmanager
def made_directory(path: str) -> Iterator[None]:
    """Make a directory if it is missing, and remove it again after a failure."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        yield
        return
    try:
        yield
    except BaseException:
        remove_empty(path)
        raise


def remove_empty(path: str) -> None:
    """Remove a directory unless something is in it."""
    with contextlib.suppress(OSError):
        os.rmdir(path)


def has_other_mode(change: Change) -> bool:
    """Return whether a file that stays has another mode than it has to have."""
    return bool(change.before and change.after) and stat.S_IMODE(os.stat(change.path).st_mode) != change.mode


def remove_cache(script_path: str) -> None:
    """Remove what the script for Match exec keeps, and what a run that was killed left of the script itself."""
    shutil.rmtree(script_path + ssh_failover.CACHE_SUFFIX, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_staged(script_path))


def read_file(path: str) -> bytes | None:
    """The content of a regular file, C(None) where there is none."""
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def commit(changes: Sequence[Change]) -> None:
    """Replace all files, or none of them."""
    done: list[Change] = []
    try:
        # All bytes are on the disk before the first file is replaced, so a full disk cannot leave one half.
        for change in changes:
            if change.after is not None:
                _stage(change.path, change.after, change.mode)
        for change in changes:
            _replace(change.path, change.after)
            done.append(change)
    except OSError:
        for change in changes:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(_staged(change.path))
        undo(done)
        raise


def undo(changes: Sequence[Change]) -> None:
    """Put the files back as they were."""
    for change in reversed(changes):
        if change.before is not None:
            _stage(change.path, change.before, change.mode)
        _replace(change.path, change.before)


@contextlib.contextmanager
def locked(directory: str) -> Iterator[None]:
    """Hold the lock of the aliases below a directory; the lock file is gone afterwards."""
    path = os.path.join(directory, LOCK_FILE)
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The holder before us may have removed the file that we opened.
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                break
        except FileNotFoundError:
            pass
        except BlockingIOError as exc:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise AliasError(
                    f"{path} has been locked by another run for {LOCK_SECONDS} s; find it with: fuser -v '{path}'"
                ) from exc
            time.sleep(0.02)
        os.close(descriptor)
    try:
        yield
    finally:
        os.unlink(path)
        os.close(descriptor)


@contextlib.contextmanager
def acting_as(uid: int) -> Iterator[None]:
    """Do as the user would: root must not follow a user's links, own a user's files or run a user's Match exec."""
    if os.geteuid() != 0 or uid == 0:
        yield
        return
    try:
        user = pwd.getpwuid(uid)
    except KeyError as exc:
        raise AliasError(
            f"the directory of path belongs to uid {uid}, a user this machine does not know; see: getent passwd {uid}"
        ) from exc
    groups, gid = os.getgroups(), os.getegid()
    os.initgroups(user.pw_name, user.pw_gid)
    os.setegid(user.pw_gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(gid)
        os.setgroups(groups)


@contextlib.contextmanager
def scratch_directory() -> Iterator[str]:
    """A private directory for copies that only ssh reads."""
    with tempfile.TemporaryDirectory(prefix="gpuops-ssh-alias-") as scratch:
        yield scratch


def explain(error: OSError, path: str) -> str:
    """One message for an error of the file system."""
    where = os.fsdecode(error.filename) if error.filename else path
    directory = os.path.dirname(path)
    look = "df -h" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "ls -la"
    return f"{where}: {error.strerror}; both files are as before. Next: {look} '{directory}'"


def _expand(text: str, tokens: Mapping[str, str]) -> str:
    return TOKEN.sub(
        lambda found: tokens.get(found[1], "") if found[1] else os.environ.get(found[2], ""),
        text,
    )


def _text(value: t.Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _argument(keyword: str, value: str) -> str:
    return f'"{value}"' if keyword.lower() not in VERBATIM and NEEDS_QUOTES.search(value) else value


def _shell_word(path: str) -> str:
    # In any shell; Include lines have no path with a quote.
    return f"'{path}'" if re.search(r"[^A-Za-z0-9_./-]", path) else path


def _context(got: Mapping[str, Sequence[str]]) -> list[str]:
    return ["-l", got["user"][0], "-p", got["port"][0], "-o", f"HostName={got['hostname'][0].replace('%', '%%')}"]


def _write_block(scratch: str, alias: Alias) -> str:
    path = os.path.join(scratch, "block")
    parts = render_parts(OwnFile({alias.name: render_block(alias)}, frozenset()), "true")
    _write_scratch(path, "\n".join(parts).encode("utf-8", "surrogateescape"))
    return path


def _write_scratch(path: str, content: bytes) -> None:
    with open(path, "wb") as stream:
        stream.write(content)


def _run_ssh(ssh: str, config: str, arguments: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            [ssh, "-F", config, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={**os.environ, "LC_ALL": "C", ssh_failover.DEPTH_VARIABLE: str(ssh_failover.MAX_DEPTH)},
            timeout=SSH_SECONDS,
            check=False,
            preexec_fn=_drop_privileges if os.getuid() != os.geteuid() else None,  # noqa: PLW1509
        )
    except subprocess.TimeoutExpired as exc:
        raise AliasError(
            f"no answer in {SSH_SECONDS} s (a Match exec or a name look-up of this file may hang)"
        ) from exc


def _drop_privileges() -> None:
    uid, gid = os.geteuid(), os.getegid()
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def _staged(path: str) -> str:
    # A fixed name: what a killed run left behind is replaced by the next one. Hidden from Include config.d/*.
    return os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.gpuops-new")


def _stage(path: str, content: bytes, mode: int) -> None:
    staged = _staged(path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(staged)
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as stream:
        with contextlib.suppress(FileNotFoundError):
            group = os.stat(path).st_gid
            if group != os.fstat(descriptor).st_gid:
                os.fchown(descriptor, -1, group)
        os.fchmod(descriptor, stat.S_IMODE(mode))
        stream.write(content)
        stream.flush()
        os.fsync(descriptor)


def _replace(path: str, content: bytes | None) -> None:
    if content is not None:
        os.rename(_staged(path), path)
    else:
        for name in (path, _staged(path)):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
