# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What sshd is to be set to, what it is set to, who set it, and whom it would refuse.

This module util is PRIVATE to the collection. Nothing here touches the machine. OpenSSH itself is the judge: what its
configuration means comes from sshd -T; files are only read to say where something stands.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
import typing as t
from dataclasses import dataclass, replace

from ansible_collections.gpuops.fleet.plugins.module_utils._base.patterns import matches, path_matches
from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import NODE, ProblemError
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.sshd.effective import ADDITIVE, Effective, plain

# Keywords that not every supported OpenSSH has (8.5, 8.7, 9.1 and 9.8 brought or renamed them): what an older one calls
# the same, if it has it. A sshd that knows such a keyword shows it in `sshd -T`.
_NEWER = {
    "pubkeyacceptedalgorithms": "PubkeyAcceptedKeyTypes",
    "challengeresponseauthentication": None,
    "requiredrsasize": None,
    "persourcepenaltyexemptlist": None,
}
# Of ours, those that take one value a line.
_ONE_PER_LINE = ("port", "hostcertificate")
_LINE = re.compile(r"\s*([A-Za-z][A-Za-z0-9]*)(?:\s*=\s*|\s+)(.*?)\s*$")
# The kinds of algorithm, and the argument of `ssh -Q` that lists what an OpenSSH has of them.
QUERIES = {
    "KexAlgorithms": "kex",
    "Ciphers": "cipher",
    "MACs": "mac",
    "HostKeyAlgorithms": "HostKeyAlgorithms",
    # OpenSSH 8.4 does not list them by their own name, and they are the same.
    "PubkeyAcceptedAlgorithms": "HostKeyAlgorithms",
}


class SshdError(ProblemError):
    """Raised on the node for a change that was not made, with the reason."""

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what, remedy=remedy, where=NODE)


class AskedForError(SshdError):
    """Raised where it is the change itself that speaks against it, and no file of the node."""


@dataclass(frozen=True)
class Block:
    """A Match block of the drop-in."""

    criteria: str
    settings: t.Mapping[str, str]


@dataclass(frozen=True)
class Login:
    """Somebody who must be let in: who, from where, to which address and port of the node."""

    user: str
    address: str
    local_address: str
    local_port: int
    uid: int
    groups: tuple[str, ...]

    @property
    def criteria(self) -> str:
        """The argument of `sshd -T -C`."""
        return (
            f"user={self.user},host={self.address},addr={self.address},"
            f"laddr={self.local_address},lport={self.local_port}"
        )


@dataclass(frozen=True)
class Directive:
    """One line of sshd's files, in the order in which sshd reads them."""

    path: str
    number: int
    keyword: str
    value: str
    match: str

    def __str__(self) -> str:
        within = f"{self.match}: " if self.match else ""
        return f"{self.path}:{self.number}: {within}{self.keyword} {self.value}"


def words(value: object) -> str:
    """A setting as sshd_config wants it, from what YAML makes of it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return " ".join(words(each) for each in value)
    return str(value)


def choose_algorithms(
    wanted: t.Mapping[str, t.Sequence[str]], known: t.Mapping[str, t.Sequence[str]]
) -> dict[str, str]:
    """Return of each list what this OpenSSH has, in the wanted order. Raises AskedForError for none."""
    chosen = {}
    for keyword, names in wanted.items():
        common = [name for name in names if name in known[keyword]]
        if not common:
            raise AskedForError(f"this OpenSSH has none of the {keyword} that this change asks for: {', '.join(names)}")
        chosen[keyword] = ",".join(common)
    return chosen


def settle(settings: t.Mapping[str, str], effective: Effective) -> tuple[dict[str, str], list[str]]:
    """Leave out keywords that this sshd does not have, or use their older name; return also those left out."""
    settled, left_out = {}, []
    for keyword, value in settings.items():
        name = keyword.lower()
        if name not in _NEWER or name in effective:
            settled[keyword] = value
        elif (older := _NEWER[name]) and older.lower() in effective:
            settled[older] = value
        else:
            left_out.append(keyword)
    return settled, left_out


def render(header: str, settings: t.Mapping[str, str], blocks: t.Sequence[Block]) -> str:
    """The drop-in's text."""
    lines = [f"# {line}" for line in header.splitlines()]
    for keyword, value in settings.items():
        lines += [f"{keyword} {each}" for each in (value.split() if keyword.lower() in _ONE_PER_LINE else [value])]
    for block in blocks:
        lines += ["", f"Match {block.criteria}"]
        lines += [f"    {keyword} {value}" for keyword, value in block.settings.items()]
    return "\n".join(lines) + "\n"


def differing(settings: t.Mapping[str, str], effective: Effective) -> dict[str, str]:
    """The settings that would not be in force, with what would be."""
    found = {}
    for keyword, value in settings.items():
        values = effective.get(keyword.lower(), [])
        now = (" " if keyword.lower() in ADDITIVE else ",").join(values)
        if plain(keyword, now) != plain(keyword, value):
            found[keyword] = now or "nothing"
    return found


def include_arguments(line: str) -> list[str] | None:
    """The patterns of an Include line; None for any other line."""
    match = _LINE.match(line)
    if not match or match.group(1).lower() != "include":
        return None
    try:
        return shlex.split(match.group(2), comments=True)
    except ValueError:
        return []


def _absolute(pattern: str) -> str:
    return pattern if pattern.startswith("/") else f"/etc/ssh/{pattern}"


def includes(text: str, path: str) -> bool:
    """Return whether the main file includes the drop-in, for everybody."""
    for line in text.splitlines():
        if re.match(r"\s*Match\s", line, re.IGNORECASE):
            return False
        if any(path_matches(path, _absolute(pattern)) for pattern in include_arguments(line) or []):
            return True
    return False


def with_other_drop_in(text: str, path: str, other: str | None, expand: t.Callable[[str], t.Iterable[str]]) -> str:
    """The main file with `other` in the place of the drop-in at `path`, or without it: how a change is tried."""
    lines = []
    for line in text.splitlines():
        patterns = include_arguments(line)
        if patterns and any(path_matches(path, _absolute(pattern)) for pattern in patterns):
            files: list[str] = []
            for pattern in map(_absolute, patterns):
                found = set(expand(pattern))
                if path_matches(path, pattern):
                    found.add(path)
                files += sorted(found)
            files = [other if file == path else file for file in files if file != path or other]  # type: ignore[misc]
            line = "Include " + " ".join(files) if files else ""
        lines.append(line)
    return "\n".join(lines) + "\n"


def read_directives(
    path: str, text: str, expand: t.Callable[[str], t.Iterable[str]], read: t.Callable[[str], str], depth: int = 0
) -> list[Directive]:
    """All directives in the order in which sshd reads them. A Match block ends with its file."""
    found: list[Directive] = []
    match = ""
    for number, line in enumerate(text.splitlines(), 1):
        patterns = include_arguments(line)
        if patterns is not None:
            for pattern in patterns:
                for file in sorted(expand(_absolute(pattern))):
                    # sshd itself goes 16 files deep
                    nested = read_directives(file, read(file), expand, read, depth + 1) if depth < 16 else []
                    found += [Directive(d.path, d.number, d.keyword, d.value, d.match or match) for d in nested]
            continue
        parts = _LINE.match(line)
        if not parts:
            continue
        keyword, value = parts.groups()
        if keyword.lower() == "match":
            match = "" if value.lower() == "all" else f"Match {value}"
        else:
            found.append(Directive(path, number, keyword, value, match))
    return found


def foreign(keyword: str, directives: t.Sequence[Directive], own: str) -> list[Directive]:
    """Return who else sets a keyword: lines before the drop-in `own`, and Match blocks, which always win."""
    before = [directive.path for directive in directives].index(own) if any(d.path == own for d in directives) else 0
    return [
        directive
        for place, directive in enumerate(directives)
        if directive.keyword.lower() == keyword.lower()
        and directive.path != own
        and (place < before or directive.match or keyword.lower() in ADDITIVE)
    ]


def exceptions(settings: t.Mapping[str, str], directives: t.Sequence[Directive], own: str) -> list[Directive]:
    """Match blocks of others that say something else than the drop-in: kept, and for some it is theirs that counts."""
    wanted = {keyword.lower(): (keyword, value) for keyword, value in settings.items()}
    return [
        directive
        for directive in directives
        if directive.match
        and directive.path != own
        and directive.keyword.lower() in wanted
        and plain(directive.keyword, directive.value) != plain(*wanted[directive.keyword.lower()])
    ]


# --- whom sshd would refuse -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Case:
    """One login, and what sshd would say of it; `kinds` are the types of its keys, None if they come from elsewhere."""

    effective: Effective
    login: Login
    ports: t.Sequence[int]
    kinds: t.Sequence[str] | None
    is_readable: t.Callable[[str], bool]

    def words(self, keyword: str) -> list[str]:
        return [word for value in self.effective.get(keyword.lower(), []) for word in value.split() if word != "none"]

    def names_user(self, keyword: str) -> bool:
        return any(_is_member([self.login.user], pattern, self.login.address) for pattern in self.words(keyword))

    def names_group(self, keyword: str) -> bool:
        return any(_is_member(self.login.groups, pattern) for pattern in self.words(keyword))

    def accepts_key(self) -> bool:
        lists = self.words("PubkeyAcceptedAlgorithms") or self.words("PubkeyAcceptedKeyTypes")
        accepted = ",".join(lists).split(",")
        return any(_accepts(accepted, kind) for kind in self.kinds or [])


# Keyword, when it refuses, and what it says then.
_REFUSALS: tuple[tuple[str, t.Callable[[_Case], bool], str], ...] = (
    ("DenyUsers", lambda case: case.names_user("DenyUsers"), "{words}"),
    ("DenyGroups", lambda case: case.names_group("DenyGroups"), "{words}"),
    ("AllowUsers", lambda case: bool(case.words("AllowUsers")) and not case.names_user("AllowUsers"), "{words}"),
    ("AllowGroups", lambda case: bool(case.words("AllowGroups")) and not case.names_group("AllowGroups"), "{words}"),
    (
        "PermitRootLogin",
        lambda case: case.login.uid == 0 and case.words("PermitRootLogin") in (["no"], ["forced-commands-only"]),
        "{words}",
    ),
    ("PubkeyAuthentication", lambda case: case.words("PubkeyAuthentication") not in ([], ["yes"]), "{words}"),
    (
        "AuthenticationMethods",
        lambda case: not {"any", "publickey"} & set(case.words("AuthenticationMethods") or ["any"]),
        "{words}, which wants more than a key",
    ),
    (
        "ForceCommand",
        lambda case: bool(case.words("ForceCommand")),
        "{words}, which runs instead of what is asked for",
    ),
    ("MaxSessions", lambda case: case.words("MaxSessions") == ["0"], "{words}, so that nothing can be run"),
    ("RefuseConnection", lambda case: case.words("RefuseConnection") == ["yes"], "{words}"),
    (
        "RevokedKeys",
        lambda case: not all(map(case.is_readable, case.words("RevokedKeys"))),
        "{words}, which cannot be read, so that every key is refused",
    ),
    (
        "Port",
        lambda case: case.login.local_port not in case.ports,
        "{ports}, and this login comes to port {port}",
    ),
    ("AuthorizedKeysFile", lambda case: case.kinds == [], "{words}, and there is no key for {user}"),
    (
        "PubkeyAcceptedAlgorithms",
        lambda case: bool(case.kinds) and not case.accepts_key(),
        "without the keys of {user}: {kinds}",
    ),
)


def refusals(
    effective: Effective,
    login: Login,
    ports: t.Sequence[int],
    key_types: t.Callable[[str], t.Sequence[str]],
    is_readable: t.Callable[[str], bool],
) -> list[str]:
    """Return why sshd, listening at these ports, would refuse this login although `sshd -t` passes.

    `key_types` reads a key file.
    """
    case = _Case(effective, login, ports, None, is_readable)
    if not case.words("TrustedUserCAKeys") and not case.words("AuthorizedKeysCommand"):
        case = replace(
            case, kinds=sorted({kind for file in case.words("AuthorizedKeysFile") for kind in key_types(file)})
        )
    return [
        f"{keyword} "
        + says.format(
            words=" ".join(case.words(keyword)),
            user=login.user,
            port=login.local_port,
            ports=" ".join(map(str, ports)),
            kinds=", ".join(case.kinds or []),
        )
        for keyword, refuses, says in _REFUSALS
        if refuses(case)
    ]


def key_types(text: str) -> list[str]:
    """The types of the keys in an authorized_keys file."""
    pattern = r"(?:^|[\s\"])((?:ssh|ecdsa|sk)-[A-Za-z0-9@.-]+) AAAA"
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return [match.group(1) for line in lines if (match := re.search(pattern, line))]


def _accepts(accepted: t.Sequence[str], kind: str) -> bool:
    if kind == "ssh-rsa":
        return any(name in accepted for name in ("ssh-rsa", "rsa-sha2-256", "rsa-sha2-512"))
    return kind in accepted


def _is_member(names: t.Iterable[str], pattern: str, address: str = "") -> bool:
    """Return whether a pattern of AllowUsers and its like means one of the names; also USER@ADDRESS."""
    name_pattern, at, place = pattern.partition("@")
    if at and address:
        try:
            if ipaddress.ip_address(address) not in ipaddress.ip_network(place, strict=False):
                return False
        except ValueError:
            if not matches(address, place):
                return False
    return any(matches(name, name_pattern) for name in names)


# --- PAM ------------------------------------------------------------------------------------------------------------

_PAM_BEGIN = "# Begin: written by gpuops.fleet, role sshd_hardening; changes made by hand are lost."
_PAM_END = "# End: written by gpuops.fleet, role sshd_hardening."


def with_pam_lines(text: str, lines: t.Sequence[str]) -> str:
    """A file of /etc/pam.d with these lines before all others, in the place of those that we put there before."""
    others = re.sub(rf"^{re.escape(_PAM_BEGIN)}\n.*?^{re.escape(_PAM_END)}\n", "", text, flags=re.DOTALL | re.MULTILINE)
    ours = [_PAM_BEGIN, *lines, _PAM_END] if lines else []
    return "".join(f"{line}\n" for line in ours) + others


# --- moduli ---------------------------------------------------------------------------------------------------------


def without_small_moduli(text: str, bits: int) -> str:
    """Leave out the groups of moduli(5) that are smaller; the file gives the place of the highest bit, from 0."""

    def is_small(line: str) -> bool:
        fields = line.split()
        return len(fields) == 7 and fields[4].isdigit() and int(fields[4]) + 1 < bits

    return "".join(line for line in text.splitlines(keepends=True) if not is_small(line))
