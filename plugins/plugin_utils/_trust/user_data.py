# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The people of gpu_users: what may be written of them, and what is wrong with it.

This plugin util is PRIVATE to the collection. Nothing here touches a machine or the network.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
import typing as t
from collections import defaultdict
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.errors import UnsupportedError
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.fetch import check_url

USER_SPEC: dict[str, dict[str, t.Any]] = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "uid": {"type": "int"},
    "gid": {"type": "int"},
    "groups": {"type": "list", "elements": "str"},
    "shell": {"type": "str"},
    "sudo": {"type": "str"},
    "keys": {"type": "list", "elements": "str", "default": []},
    "sources": {"type": "list", "elements": "raw", "default": []},
    "options": {"type": "dict", "default": {}},
    "expiry": {"type": "raw"},
    "exclusive": {"type": "bool", "default": False},
    "home": {"type": "str", "choices": ["keep", "archive", "remove"], "default": "keep"},
    "end_sessions": {"type": "bool", "default": False},
    "cert_accounts": {"type": "list", "elements": "str"},
    "cert_groups": {"type": "list", "elements": "str"},
}
_SOURCE_SPEC: dict[str, dict[str, t.Any]] = {
    "url": {"type": "str", "required": True},
    "team": {"type": "str"},
    "fingerprints": {"type": "list", "elements": "str", "default": []},
}
# What the keys are made of; the rest of a person is for the nodes.
_RESOLVED = ("keys", "sources", "options", "expiry")

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
_TEAM = re.compile(r"[A-Za-z0-9-]+(/[\w.-]+)?", re.ASCII)
_HOST_PORT = re.compile(r"(\[[^][\s]+\]|[^][:\s]+):([0-9]{1,5}|\*)")
# The options of sshd(8), in the order in which they are written: those after restrict take something back from it.
# sshd ignores the whole line for one that it does not know, or whose value it cannot read.
_FLAGS = (
    "restrict", "cert-authority", "agent-forwarding", "no-agent-forwarding", "port-forwarding", "no-port-forwarding",
    "pty", "no-pty", "user-rc", "no-user-rc", "X11-forwarding", "no-X11-forwarding", "no-touch-required",
    "verify-required",
)  # fmt: skip
_VALUES = {"command": re.compile(r".+"), "tunnel": re.compile(r"any|[0-9]+")}
_JOINED = {"from": re.compile(r"!?[^\s,!]+"), "principals": re.compile(r"[^\s,]+")}
_REPEATED = {
    "environment": re.compile(r"\w+=.*", re.ASCII),
    "permitopen": _HOST_PORT,
    "permitlisten": re.compile(r"[0-9]{1,5}|" + _HOST_PORT.pattern),
}


class UserError(ValueError):
    """Raised for a list of users that cannot be used."""


@dataclass(frozen=True)
class Source:
    """A source of keys: its URL, the team its users must be in, and the keys that may come."""

    url: str
    team: str = ""
    fingerprints: frozenset[str] = frozenset()

    @property
    def login(self) -> str:
        return urlsplit(self.url).path.rpartition("/")[2].removesuffix(".keys").lower()


@dataclass(frozen=True)
class Person:
    """A person as far as keys go; `others` is what is left for the nodes."""

    name: str
    present: bool
    keys: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()
    options: str = ""
    expiry: datetime.date | None = None
    others: dict[str, t.Any] = field(default_factory=dict)


def read_people(users: t.Sequence[dict[str, t.Any]]) -> list[Person]:
    """Check all of the list, and raise UserError with everything that is wrong."""
    people: list[Person] = []
    problems: list[str] = []
    names: dict[str, list[int]] = defaultdict(list)
    uids: dict[int, list[str]] = defaultdict(list)
    for number, user in enumerate(users, 1):
        who = f"user {user.get('name') or f'number {number}'}"
        try:
            person = _read_person(user)
        except UserError as error:
            problems.append(f"{who}: {error}")
            continue
        people.append(person)
        names[person.name].append(number)
        if "uid" in person.others:
            uids[person.others["uid"]].append(person.name)
    for name, numbers in names.items():
        if len(numbers) > 1:
            problems.append(f"user {name} is in the list {len(numbers)} times: as numbers {numbers}")
    for uid, owners in uids.items():
        if len(set(owners)) > 1:
            problems.append(f"uid {uid} belongs to {' and '.join(owners)}")
    if problems:
        raise UserError("; ".join(problems))
    return people


def _read_person(user: dict[str, t.Any]) -> Person:
    known = _validated(USER_SPEC, user)
    if not _NAME.fullmatch(known["name"]):
        raise UserError("a name is 1 to 32 letters, digits, _, - and dots, and begins with a letter or _")
    return Person(
        name=known["name"],
        present=known["state"] == "present",
        keys=tuple(known["keys"]),
        sources=tuple(_read_source(source) for source in known["sources"]),
        options=_read_options(known["options"]),
        expiry=_read_expiry(known["expiry"]),
        others={key: value for key, value in known.items() if key not in _RESOLVED and value is not None},
    )


def _validated(spec: dict[str, dict[str, t.Any]], given: dict[str, t.Any]) -> dict[str, t.Any]:
    checked = ArgumentSpecValidator(spec).validate(given)
    problems = [
        f"unknown field {error.msg}" if isinstance(error, UnsupportedError) else error.msg for error in checked.errors
    ]
    if problems:
        raise UserError(", ".join(problems))
    validated: dict[str, t.Any] = checked.validated_parameters
    return validated


def _read_source(given: t.Any) -> Source:
    if isinstance(given, str):
        given = {"url": given}
    if not isinstance(given, dict):
        raise UserError("a source is a URL, or a dictionary with url, team and fingerprints")
    known = _validated(_SOURCE_SPEC, given)
    source = Source(known["url"], known["team"] or "", frozenset(known["fingerprints"]))
    problem = check_url(source.url)
    if problem:
        raise UserError(f"source: {problem}")
    if source.team and not _TEAM.fullmatch(source.team):
        raise UserError(f"source: team is ORGANISATION/TEAM or ORGANISATION, not {source.team}")
    if source.team and not (source.login and urlsplit(source.url).path.endswith(".keys")):
        raise UserError("source: team needs a url that ends in /LOGIN.keys, it is the login that is looked for")
    for fingerprint in source.fingerprints:
        if not _FINGERPRINT.fullmatch(fingerprint):
            raise UserError(f"source: no fingerprint as ssh-keygen -l shows it: {fingerprint}")
    return source


def _read_expiry(given: t.Any) -> datetime.date | None:
    # YAML has made a date of what looks like one, JSON has not.
    if isinstance(given, str):
        try:
            given = datetime.datetime.fromisoformat(given)
        except ValueError:
            raise UserError(f"expiry is the last day, as YYYY-MM-DD, not {given}") from None
    if isinstance(given, datetime.datetime):
        return given.date()
    if given is None or isinstance(given, datetime.date):
        return given
    raise UserError(f"expiry is the last day, as YYYY-MM-DD, not {given}")


def _read_options(given: dict[str, t.Any]) -> str:
    if "expiry-time" in given:
        raise UserError("options: expiry-time is written for a person's expiry")
    known = (*_FLAGS, *_VALUES, *_JOINED, *_REPEATED)
    unknown = sorted(str(name) for name in set(given) - set(known))
    if unknown:
        raise UserError(f"options: unknown to sshd: {', '.join(unknown)}; known are {', '.join(known)}")
    written = []
    for name in _FLAGS:
        if given.get(name, False) not in (True, False):
            raise UserError(f"options: {name} is true or false")
        if given.get(name):
            written.append(name)
    for name, shape in _VALUES.items():
        if name in given:
            written.append(_quoted(name, _shaped(name, shape, given[name])))
    for name, shape in _JOINED.items():
        if name in given:
            written.append(_quoted(name, ",".join(_listed(name, shape, given[name]))))
    for name, shape in _REPEATED.items():
        if name in given:
            written += [_quoted(name, value) for value in _listed(name, shape, given[name])]
    return ",".join(written)


def _listed(name: str, shape: re.Pattern[str], values: t.Any) -> list[str]:
    if not isinstance(values, list) or not values:
        raise UserError(f"options: {name} is a list, and not an empty one")
    return [_shaped(name, shape, value) for value in values]


def _shaped(name: str, shape: re.Pattern[str], value: t.Any) -> str:
    text = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    # A backslash before the closing quote would take the quote away, and there is no way to write it.
    if not shape.fullmatch(text) or not text.isprintable() or text.endswith("\\"):
        raise UserError(f"options: {name}: sshd cannot read {str(value)!r}")
    if name == "from" and "/" in text:
        try:
            ipaddress.ip_network(text.lstrip("!"))
        except ValueError as error:
            raise UserError(f"options: from: {error}") from None
    return text


def _quoted(name: str, value: str) -> str:
    escaped = value.replace('"', '\\"')
    return f'{name}="{escaped}"'
