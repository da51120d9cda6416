# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The answer of the audit's collector, split into facts. **PRIVATE** to the collection."""

from __future__ import annotations

import re
import shlex
import typing as t
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ansible_collections.gpuops.fleet.plugins.module_utils._base.patterns import matches_one
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.sshd import effective as sshd
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.collector import (
    CollectorError,
    command,
    quoted_script,
    read_sections,
)
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.text import printable

# For documentation (RFC 5737), so that no rule for a network of one's own applies to it.
FOREIGN = "203.0.113.1"
MOST_CHARACTERS = 8_000_000


@dataclass(frozen=True)
class FileMode:
    path: str
    mode: int
    uid: int


@dataclass(frozen=True)
class Key:
    """A public key, without its content."""

    bits: int
    fingerprint: str
    comment: str
    kind: str


@dataclass(frozen=True)
class Account:
    """Somebody who can log in; keys by the file that they are in."""

    name: str
    uid: int
    gid: int
    home: str
    paths: tuple[FileMode, ...] = ()
    keys: tuple[tuple[str, tuple[Key, ...]], ...] = ()
    unreadable: tuple[str, ...] = ()

    @property
    def all_keys(self) -> list[Key]:
        return [key for _path, keys in self.keys for key in keys]


@dataclass(frozen=True)
class MatchLine:
    """A Match line of sshd's configuration."""

    place: str
    criteria: str


@dataclass(frozen=True)
class Effective:
    """Output of sshd -T for one connection; empty settings where it refused, with the reason."""

    user: str
    address: str
    settings: dict[str, tuple[str, ...]]
    refusal: str = ""
    missing_files: tuple[str, ...] = ()
    match: MatchLine | None = None

    def get(self, keyword: str) -> str:
        return self.settings.get(keyword, ("",))[0]


@dataclass(frozen=True)
class Logins:
    """Source of the log, and logins and failures as (count, last time, user, address)."""

    source: str
    accepted: tuple[tuple[int, str, str, str], ...] = ()
    failed: tuple[tuple[int, str, str, str], ...] = ()


@dataclass(frozen=True)
class Doors:
    """Answer of the collector of one node; all but uid and login is empty where it did not run as root."""

    uid: int
    login: str = ""
    client: str = ""
    laddr: str = "127.0.0.1"
    lport: str = "22"
    sshd: str = ""
    superusers: tuple[str, ...] = ()
    passwords: tuple[tuple[str, str], ...] = ()
    accounts: tuple[Account, ...] = ()
    left_out: int = 0
    files: tuple[FileMode, ...] = ()
    matches: tuple[MatchLine, ...] = ()
    groups: tuple[tuple[str, str, tuple[str, ...]], ...] = ()
    drop_in: str = ""
    effective: tuple[Effective, ...] = ()
    loaded: int | None = None
    newer: tuple[tuple[int, str], ...] = ()
    host_keys: tuple[Key, ...] = ()
    host_key_files: tuple[FileMode, ...] = ()
    moduli: tuple[tuple[int, int], ...] = ()
    logins: Logins | None = None
    journal: str = ""
    untestable: tuple[MatchLine, ...] = ()


_SCRIPT = quoted_script(Path(__file__).with_name("collector.sh"))


def collector_command(marker: str, specs: Iterable[str] = ()) -> str:
    """Return the shell command that runs the collector on a node."""
    return command(_SCRIPT, "fleet_audit", marker, *specs)


def parse_answer(stdout: str, marker: str) -> Doors:
    """Read the whole answer. Raises CollectorError."""
    sections = read_sections(stdout, marker, (), MOST_CHARACTERS)
    try:
        return _doors(sections)
    except (KeyError, ValueError, IndexError) as error:
        raise CollectorError(f"the collector's answer makes no sense ({error!r})") from error


def parse_effective(stdout: str, marker: str, wanted: Sequence[MatchLine]) -> tuple[Effective, ...]:
    """Read the answer to connections that were asked for, each because of a Match line."""
    try:
        answers = _effective(read_sections(stdout, marker, (), MOST_CHARACTERS)["effective"])
    except (KeyError, ValueError, IndexError) as error:
        raise CollectorError(f"the collector's answer makes no sense ({error!r})") from error
    if len(answers) != len(wanted):
        raise CollectorError(f"the collector answered for {len(answers)} of {len(wanted)} connections")
    return tuple(replace(answer, match=line) for answer, line in zip(answers, wanted))


def match_specs(doors: Doors) -> tuple[list[tuple[MatchLine, str]], list[MatchLine]]:
    """Return connections to which each Match block applies, and the blocks for which none can be named."""
    specs: list[tuple[MatchLine, str]] = []
    untestable = []
    # Many settings say something else of root.
    people = ["root", next((account.name for account in doors.accounts if account.uid != 0), "nobody")]
    for line in doors.matches:
        connection = {"host": FOREIGN, "addr": FOREIGN, "laddr": doors.laddr, "lport": doors.lport}
        try:
            for criterion, patterns in _criteria(line.criteria):
                if criterion != "all":
                    name, value = _example(criterion, patterns, doors)
                    connection[name] = value
        except _NobodyError:
            continue
        except ValueError:
            untestable.append(line)
            continue
        for user in [connection["user"]] if "user" in connection else people:
            spec = {"user": user, **connection}
            specs.append((line, ",".join(f"{name}={value}" for name, value in spec.items())))
    return specs, untestable


class _NobodyError(Exception):
    """A criterion that no connection meets."""


def _criteria(text: str) -> list[tuple[str, list[str]]]:
    """Pairs of criterion and patterns; sshd takes `User a`, `User=a` and quotes."""
    words = shlex.split(re.sub(r"(?<=[A-Za-z])=", " ", text), comments=True)
    found = []
    while words:
        criterion = words.pop(0).lower()
        found.append((criterion, [] if criterion == "all" else words.pop(0).split(",") if words else []))
    return found


def _example(criterion: str, patterns: list[str], doors: Doors) -> tuple[str, str]:
    """The part of a connection that meets a criterion: its name for sshd -C, and a value."""
    names = {"user": "user", "host": "host", "address": "addr", "localaddress": "laddr", "localport": "lport"}
    if not patterns or criterion not in {"group", *names}:
        raise ValueError(criterion)
    chosen = [pattern for pattern in patterns if not pattern.startswith("!")]
    if not chosen:
        raise _NobodyError
    if criterion == "group":
        for group, gid, members in doors.groups:
            if matches_one(group, patterns):
                people = [*members, *(account.name for account in doors.accounts if str(account.gid) == gid)]
                if people:
                    return "user", people[0]
        raise _NobodyError
    value = chosen[0].partition("/")[0] if criterion in ("address", "localaddress") else chosen[0]
    if value == "*" and criterion in ("address", "localaddress"):
        value = FOREIGN
    filler = "1" if criterion in ("address", "localaddress") else "x"
    return names[criterion], value.replace("*", filler).replace("?", filler)


def _lines(text: str) -> t.Iterator[tuple[str, str]]:
    """First word and rest of each line, without the characters that would steer a terminal."""
    for line in text.split("\n"):
        if line:
            word, _space, rest = printable(line).partition(" ")
            yield word, rest


def _doors(sections: dict[str, str]) -> Doors:
    node = dict(line.split("=", 1) for line in sections["node"].splitlines() if "=" in line)
    connection = node.get("connection", "").split()
    client, laddr, lport = (
        (connection[0], connection[2], connection[3]) if len(connection) == 4 else ("", "127.0.0.1", "22")
    )
    doors = Doors(
        uid=int(node["uid"]),
        login=printable(node.get("login", "")),
        client=printable(client),
        laddr=printable(laddr),
        lport=printable(lport),
        sshd=printable(node["sshd"]),
    )
    if doors.uid != 0:
        return doors
    people = _kinds(sections["accounts"])
    files = _kinds(sections["files"])
    loaded = _kinds(sections["loaded"])
    moduli = (rest.split() for rest in _kinds(sections["moduli"]).get("moduli", []))
    keys = _kinds(sections["host_keys"])
    journal = _kinds(sections["journal"])
    return replace(
        doors,
        superusers=tuple(people.get("superuser", [])),
        passwords=tuple((name, state) for state, name in (rest.split(" ", 1) for rest in people.get("password", []))),
        accounts=tuple(_accounts(people.get("account", []), sections["effective"])),
        left_out=int(people["left_out"][0]),
        files=tuple(_mode(rest) for rest in files.get("file", [])),
        matches=tuple(_match(rest) for rest in files.get("match", []) if rest),
        groups=tuple(_group(rest) for rest in files.get("group", [])),
        drop_in=sections["drop_in"].strip(),
        effective=tuple(_effective(sections["effective"])),
        loaded=int(loaded["loaded"][0].split()[0]) if "loaded" in loaded else None,
        newer=tuple((int(when), path) for when, path in (rest.split(" ", 1) for rest in loaded.get("newer", []))),
        host_keys=tuple(_key(rest) for rest in keys.get("key", []) if rest),
        host_key_files=tuple(_mode(rest) for rest in keys.get("path", [])),
        moduli=tuple(sorted((int(bits), int(count)) for bits, count in moduli)),
        logins=_logins(_kinds(sections["logins"])),
        journal="persistent" if "persistent" in journal else "volatile" if "volatile" in journal else "",
    )


def _kinds(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for word, rest in _lines(text):
        found.setdefault(word, []).append(rest)
    return found


def _mode(rest: str) -> FileMode:
    mode, uid, path = rest.split(" ", 2)
    return FileMode(path, int(mode, 8), int(uid))


def _match(rest: str) -> MatchLine:
    path, number, line = rest.split(":", 2)
    return MatchLine(f"{path}:{number}", re.sub(r"(?i)^\s*match[\s=]+", "", line).strip())


def _group(rest: str) -> tuple[str, str, tuple[str, ...]]:
    name, gid, members = rest.split(" ", 2)
    return name, gid, tuple(member for member in members.split(",") if member)


def _key(rest: str) -> Key:
    """A line of ssh-keygen -l: bits, fingerprint, comment and (kind)."""
    # A remedy has the fingerprint in it.
    found = re.fullmatch(r"(\d+) (SHA256:[A-Za-z0-9+/]+) ?(.*) \(([\w-]+)\)", rest)
    if not found:
        raise ValueError(f"no fingerprint: {rest[:80]}")
    comment = found[3]
    # Without a comment OpenSSH shows one of these.
    nothing = comment == "no comment" or re.match(r"(ssh-|ecdsa-|sk-)\S+ AAAA", comment)
    return Key(int(found[1]), found[2], "" if nothing else comment, found[4])


def _accounts(lines: list[str], effective: str) -> list[Account]:
    accounts = {}
    for line in lines:
        name, uid, gid, home = line.split(":", 3)
        accounts[name] = Account(name, int(uid), int(gid), home)
    user = file = ""
    for word, rest in _lines(effective):
        if word == "user":
            user = rest
            continue
        if word not in ("path", "keys", "key", "unreadable"):
            continue
        account = accounts[user]
        if word == "path":
            account = replace(account, paths=(*account.paths, _mode(rest)))
        elif word == "unreadable":
            account = replace(account, unreadable=(*account.unreadable, rest))
        elif word == "keys":
            file = rest
            account = replace(account, keys=(*account.keys, (file, ())))
        else:
            account = replace(account, keys=(*account.keys[:-1], (file, (*account.keys[-1][1], _key(rest)))))
        accounts[user] = account
    return list(accounts.values())


def _effective(text: str) -> list[Effective]:
    found: list[Effective] = []
    for block in re.split(r"^spec ", text, flags=re.MULTILINE)[1:]:
        head, _newline, body = block.partition("\n")
        spec = dict(part.split("=", 1) for part in printable(head).split(","))
        kinds = _kinds(body)
        if "same" in kinds:
            found.append(replace(found[0], user=spec["user"], address=spec["addr"]))
            continue
        settings = {
            keyword: tuple(each) for keyword, each in sshd.parse_effective("\n".join(kinds.get("set", []))).items()
        }
        refused = "refused" in kinds and (" ".join(kinds["refused"][0].split()) or "sshd -T ended without a word")
        if not settings and not refused:
            raise ValueError(f"nothing about {printable(head)[:80]}")
        missing = tuple(kinds.get("missing", ()))
        found.append(Effective(spec["user"], spec["addr"], settings, refused or "", missing))
    return found


def _logins(kinds: dict[str, list[str]]) -> Logins | None:
    if "source" not in kinds:
        return None
    accepted = (rest.split(" ") for rest in kinds.get("accepted", []))
    failed = (rest.split(" ") for rest in kinds.get("failed", []))
    return Logins(
        kinds["source"][0],
        tuple((int(count), last, user, address) for count, last, user, address in accepted),
        tuple((int(count), last, "", address) for count, last, address in failed),
    )
