# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who has access to a node and how: what an audit has seen of it, and the connections to ask sshd about.

This plugin util is PRIVATE to the collection.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from ansible_collections.gpuops.fleet.plugins.module_utils._base.patterns import matches_one

# For documentation (RFC 5737), so that no rule for a network of one's own applies to it.
FOREIGN = "203.0.113.1"


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
    """A user who can log in; keys by the file that they are in."""

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
class Access:
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


def match_specs(access: Access) -> tuple[list[tuple[MatchLine, str]], list[MatchLine]]:
    """Return connections to which each Match block applies, and the blocks for which none can be named."""
    specs: list[tuple[MatchLine, str]] = []
    untestable = []
    # Many settings say something else of root.
    people = ["root", next((account.name for account in access.accounts if account.uid != 0), "nobody")]
    for line in access.matches:
        connection = {"host": FOREIGN, "addr": FOREIGN, "laddr": access.laddr, "lport": access.lport}
        try:
            for criterion, patterns in _criteria(line.criteria):
                if criterion != "all":
                    name, value = _example(criterion, patterns, access)
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


def _example(criterion: str, patterns: list[str], access: Access) -> tuple[str, str]:
    """The part of a connection that meets a criterion: its name for sshd -C, and a value."""
    names = {"user": "user", "host": "host", "address": "addr", "localaddress": "laddr", "localport": "lport"}
    if not patterns or criterion not in {"group", *names}:
        raise ValueError(criterion)
    chosen = [pattern for pattern in patterns if not pattern.startswith("!")]
    if not chosen:
        raise _NobodyError
    if criterion == "group":
        for group, gid, members in access.groups:
            if matches_one(group, patterns):
                people = [*members, *(account.name for account in access.accounts if str(account.gid) == gid)]
                if people:
                    return "user", people[0]
        raise _NobodyError
    value = chosen[0].partition("/")[0] if criterion in ("address", "localaddress") else chosen[0]
    if value == "*" and criterion in ("address", "localaddress"):
        value = FOREIGN
    filler = "1" if criterion in ("address", "localaddress") else "x"
    return names[criterion], value.replace("*", filler).replace("?", filler)
