# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The answer of the audit's collector, split into facts. **PRIVATE** to the collection."""

from __future__ import annotations

import re
import typing as t
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from ansible_collections.gpuops.fleet.plugins.module_utils._trust.sshd import effective as sshd
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.collector import (
    CollectorError,
    command,
    quoted_script,
    read_sections,
)
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.text import printable
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.audit.access import (
    Access,
    Account,
    Effective,
    FileMode,
    Key,
    Logins,
    MatchLine,
)

MOST_CHARACTERS = 8_000_000


_SCRIPT = quoted_script(Path(__file__).with_name("collector.sh"))


def collector_command(marker: str, specs: Iterable[str] = ()) -> str:
    """Return the shell command that runs the collector on a node."""
    return command(_SCRIPT, "fleet_audit", marker, *specs)


def parse_answer(stdout: str, marker: str) -> Access:
    """Read the whole answer. Raises CollectorError."""
    sections = read_sections(stdout, marker, (), MOST_CHARACTERS)
    try:
        return _access(sections)
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


def _lines(text: str) -> t.Iterator[tuple[str, str]]:
    """First word and rest of each line, without the characters that would steer a terminal."""
    for line in text.split("\n"):
        if line:
            word, _space, rest = printable(line).partition(" ")
            yield word, rest


def _access(sections: dict[str, str]) -> Access:
    node = dict(line.split("=", 1) for line in sections["node"].splitlines() if "=" in line)
    connection = node.get("connection", "").split()
    client, laddr, lport = (
        (connection[0], connection[2], connection[3]) if len(connection) == 4 else ("", "127.0.0.1", "22")
    )
    access = Access(
        uid=int(node["uid"]),
        login=printable(node.get("login", "")),
        client=printable(client),
        laddr=printable(laddr),
        lport=printable(lport),
        sshd=printable(node["sshd"]),
    )
    if access.uid != 0:
        return access
    people = _kinds(sections["accounts"])
    files = _kinds(sections["files"])
    loaded = _kinds(sections["loaded"])
    moduli = (rest.split() for rest in _kinds(sections["moduli"]).get("moduli", []))
    keys = _kinds(sections["host_keys"])
    journal = _kinds(sections["journal"])
    return replace(
        access,
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
