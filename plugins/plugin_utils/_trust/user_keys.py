# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The keys of people: from the inventory, from files and from URLs, for the members of teams.

This plugin util is PRIVATE to the collection. What cannot be known for certain is an error of that person, and the
nodes then leave that person's keys alone. Only a complete answer takes keys away.
"""

from __future__ import annotations

import datetime
import functools
import json
import os
import re
import shlex
import stat
import typing as t
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace

from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import Problem, ProblemError
from ansible_collections.gpuops.fleet.plugins.module_utils._base.public_key import (
    PublicKey,
    PublicKeyError,
    file_named,
    parse_line,
)
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.text import printable
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.fetch import (
    Answer,
    Fetch,
    FetchError,
    NoAnswer,
    check_url,
    origin,
    shown,
)
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.user_data import Person, Source, UserError

_THREADS = 8
_FILE_LIMIT = 1 << 20
# 100 members each.
_PAGES = 100
_REFUSED_RSA_BITS = 2048
_NEXT_PAGE = re.compile(r'<([^>]*)>[^,]*;\s*rel="?next"?')
_Value = t.TypeVar("_Value")


class SourceError(ProblemError):
    """Raised where the keys of a source are not known."""


@dataclass(frozen=True)
class GitHub:
    """The API that is asked for the members of teams. `token` may be empty."""

    url: str
    token: str = field(default="", repr=False)


@dataclass
class _Found:
    """Keys of one user found so far: by blob, each key with where it is from."""

    keys: dict[str, tuple[PublicKey, str]] = field(default_factory=dict)
    problem: Problem | None = None
    remarks: list[str] = field(default_factory=list)


class Sources:
    """Everything that people's sources need, fetched once. Reading one again raises the same SourceError again."""

    def __init__(self, people: t.Sequence[Person], fetch: Fetch, github: GitHub, now: datetime.datetime) -> None:
        problem = check_url(github.url)
        if problem:
            raise UserError(f"github_api_url: {problem}")
        # http.client would repeat such a token in its error.
        if not re.fullmatch(r"[!-~]*", github.token):
            raise UserError("github_token has blanks or other characters in it that no token has")
        self._fetch = _patient(fetch)
        self._github = github
        self._now = now
        sources = [(person, source) for person in people for source in person.sources]
        with ThreadPoolExecutor(_THREADS) as pool:
            self._keys = _started(pool, self._fetch_keys, (source.url for _person, source in sources))
            teams = (source.team for person, source in sources if source.team and person.present)
            self._members = _started(pool, self._fetch_members, teams)

    def keys(self, url: str) -> list[PublicKey]:
        return self._keys[url]()

    def members(self, team: str) -> frozenset[str]:
        return self._members[team]()

    def _fetch_keys(self, url: str) -> list[PublicKey]:
        try:
            answer = self._fetch(url, {})
            if answer.status == 404:
                raise SourceError("HTTP 404, no such user")
            if answer.status != 200:
                raise SourceError(self._status(answer))
            if "html" in answer.headers.get("content-type", "") or answer.body.lstrip().startswith(b"<"):
                raise SourceError("a web page, not keys")
            return _parse(answer.body, "an empty answer")
        except (FetchError, SourceError) as error:
            raise SourceError(f"{shown(url)}: {error}", remedy=f"curl -sSi {shlex.quote(shown(url))}") from None

    def _fetch_members(self, team: str) -> frozenset[str]:
        organisation, _slash, slug = team.partition("/")
        path = f"orgs/{organisation}/teams/{slug}/members" if slug else f"orgs/{organisation}/members"
        first = f"{self._github.url.rstrip('/')}/{path}?per_page=100"
        if not self._github.token:
            raise SourceError(f"who is in {team} is not known without a token", remedy="export GITHUB_TOKEN=...")
        members: set[str] = set()
        url = first
        try:
            for _page in range(_PAGES):
                answer = self._fetch(
                    url,
                    {
                        "Accept": "application/vnd.github+json",
                        "Authorization": f"Bearer {self._github.token}",
                        "X-GitHub-Api-Version": "2022-11-28",
                    },
                )
                members |= self._page(answer, url)
                following = _NEXT_PAGE.search(answer.headers.get("link", ""))
                if not following:
                    break
                if origin(following.group(1)) != origin(first):
                    other = shown(following.group(1))
                    raise SourceError(f"the next page is on another server, which must not get the token: {other}")
                url = following.group(1)
            else:
                raise SourceError(f"more than {_PAGES} pages")
            # To a token that may see less than all, GitHub shows less than all, and says that all is well.
            if not members:
                raise SourceError("no members at all that this token can see")
        except (FetchError, SourceError) as error:
            what = f"who is in {team} is not known: {shown(url)}: {error}"
            # A server may repeat the token in whatever it says.
            raise SourceError(
                what.replace(self._github.token, "TOKEN"),
                remedy=f'curl -sSi -H "Authorization: Bearer $GITHUB_TOKEN" {shlex.quote(shown(url))}',
            ) from None
        return frozenset(members)

    def _page(self, answer: Answer, url: str) -> set[str]:
        if answer.status == 401:
            raise SourceError("HTTP 401, the token is wrong or has expired")
        if answer.status == 404:
            raise SourceError("HTTP 404, no such team, or the token may not see it (it needs read:org)")
        if answer.status != 200:
            raise SourceError(self._status(answer))
        if "/public_members" in answer.url and "/public_members" not in url:
            raise SourceError("the token is of nobody in the organisation and sees only its public members")
        try:
            return {member["login"].lower() for member in json.loads(answer.body)}
        except (ValueError, TypeError, KeyError, AttributeError):
            raise SourceError("not a list of members") from None

    def _status(self, answer: Answer) -> str:
        until = ""
        retry = answer.headers.get("retry-after", "")
        reset = answer.headers.get("x-ratelimit-reset", "")
        if retry.isdecimal():
            until = _utc(self._now.timestamp() + int(retry[:9]))
        elif retry:
            until = printable(retry)
        elif reset.isdecimal() and (answer.status == 429 or answer.headers.get("x-ratelimit-remaining") == "0"):
            until = _utc(int(reset[:11]))
        if answer.status == 429 or (answer.status == 403 and until):
            return f"HTTP {answer.status}, too many requests" + (f"; wait until {until}" if until else "")
        return f"HTTP {answer.status}"


def resolve(
    people: t.Sequence[Person], sources: Sources, today: datetime.date
) -> tuple[list[dict[str, t.Any]], list[str]]:
    """Return what the nodes need to know of each user, and remarks for the operator."""
    everyone = {person.name: _collect(person, sources, today) for person in people}
    remarks = [remark for found in everyone.values() for remark in found.remarks]
    owners: dict[str, list[str]] = defaultdict(list)
    for name, found in everyone.items():
        for blob in found.keys:
            owners[blob].append(name)
    present = {person.name for person in people if person.present}
    for blob, names in owners.items():
        if len(names) == 1:
            continue
        fingerprint = everyone[names[0]].keys[blob][0].fingerprint
        remarks.append(f"{' and '.join(names)} have the same key {fingerprint}")
        # Else whoever leaves could take the key of somebody who stays along.
        for name in names if present.intersection(names) else []:
            if name not in present:
                del everyone[name].keys[blob]
                remarks.append(f"{name} is absent, but {fingerprint} stays valid: it is also a key of somebody else")
    return [_result(person, everyone[person.name]) for person in people], remarks


def _collect(person: Person, sources: Sources, today: datetime.date) -> _Found:
    found = _Found()
    for number, text in enumerate(person.keys, 1):
        path = file_named(text)
        read = functools.partial(_read_file, path) if path else functools.partial(_read_text, text, number)
        _add(person, found, path or "inventory", read)
    for source in person.sources:
        _add(person, found, shown(source.url), functools.partial(_of_source, person, source, sources, found))
    if person.present and person.expiry and person.expiry < today:
        found.remarks.append(f"{person.name}: the last day was {person.expiry:%Y-%m-%d}, no key lets in any more")
    if person.present and not found.keys and not found.problem:
        found.remarks.append(f"{person.name} has no keys")
    return found


def _add(person: Person, found: _Found, source: str, read: t.Callable[[], list[PublicKey]]) -> None:
    """Add what one entry of a person gives, or note why it gives nothing."""
    try:
        keys = read()
        for key in keys if person.present else []:
            _check(key, person, source)
    except SourceError as error:
        if person.present:
            found.problem = found.problem or replace(error.problem, what=f"{person.name}: {error.problem.what}")
        else:
            found.remarks.append(f"{person.name} is absent, and not all keys to take away are known: {error}")
        return
    for key in keys:
        if key.blob in found.keys:
            first = found.keys[key.blob][1]
            found.remarks.append(f"{person.name} has {key.fingerprint} twice: from {first} and from {source}")
            continue
        found.keys[key.blob] = (key, source)
        if key.weakness and person.present:
            found.remarks.append(f"{person.name}: {key.fingerprint} from {source} is weak: {key.weakness}")


def _check(key: PublicKey, person: Person, source: str) -> None:
    if key.options:
        raise SourceError(
            f"{source}: {key.fingerprint} has options before it; write them into the options of {person.name}"
        )
    if key.kind == "ssh-dss" or (key.kind == "ssh-rsa" and key.rsa_bits < _REFUSED_RSA_BITS):
        raise SourceError(
            f"{source}: {key.fingerprint} is too weak: {key.weakness}",
            remedy=f"{person.name} types: ssh-keygen -t ed25519",
        )


def _read_text(text: str, number: int) -> list[PublicKey]:
    try:
        return _parse(text.encode(errors="surrogatepass"), "an empty text")
    except SourceError as error:
        raise SourceError(
            f"number {number} of keys: {error}", remedy="give the whole line of a .pub file, or its path from / or ~"
        ) from None


def _read_file(path: str) -> list[PublicKey]:
    try:
        with open(os.path.expanduser(path), "rb", opener=_open_file) as file:
            data = file.read(_FILE_LIMIT + 1)
        if len(data) > _FILE_LIMIT:
            raise SourceError("more than 1 MB")
        return _parse(data, "an empty file")
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}", remedy=f"ls -l {shlex.quote(path)}") from None
    except ValueError:
        raise SourceError(f"{path!r} cannot be the name of a file") from None
    except SourceError as error:
        raise SourceError(f"{path}: {error}", remedy=f"ssh-keygen -l -f {shlex.quote(path)}") from None


def _open_file(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise SourceError("not a regular file")
    return descriptor


def _of_source(person: Person, source: Source, sources: Sources, found: _Found) -> list[PublicKey]:
    if person.present and source.team and source.login not in sources.members(source.team):
        found.remarks.append(f"{person.name}: {source.login} is not in {source.team}: no keys from {shown(source.url)}")
        return []
    keys = sources.keys(source.url)
    if not source.fingerprints:
        return keys
    there = {key.fingerprint for key in keys}
    strangers = there - source.fingerprints
    if strangers and person.present:
        raise SourceError(
            f"{shown(source.url)} has {', '.join(sorted(strangers))}, "
            f"its fingerprints may only be {', '.join(sorted(source.fingerprints))}",
            remedy=f"ask {person.name}, and write it into the fingerprints of this source",
        )
    for missing in sorted(source.fingerprints - there) if person.present else []:
        found.remarks.append(f"{person.name}: {missing} of the fingerprints is no longer at {shown(source.url)}")
    return [key for key in keys if key.fingerprint in source.fingerprints]


def _result(person: Person, found: _Found) -> dict[str, t.Any]:
    options = [person.options] if person.options else []
    if person.expiry:
        # Without a Z it is the time of the node: OpenSSH before 9.1 reads no other.
        options.append(f'expiry-time="{person.expiry:%Y%m%d}235959"')
    keys = [] if found.problem else [_key(person, ",".join(options), *of) for of in found.keys.values()]
    problem = asdict(found.problem) if found.problem else None
    return {**person.others, "keys": keys, "error": str(found.problem or ""), "problem": problem}


def _key(person: Person, options: str, key: PublicKey, source: str) -> dict[str, str]:
    comment = printable(" ".join(key.comment.split())) or person.name
    line = f"{options} {key.kind} {key.blob} {comment} from {printable(source)}"
    return {"line": line.lstrip(), "blob": key.blob, "fingerprint": key.fingerprint, "source": source}


def _parse(data: bytes, empty: str) -> list[PublicKey]:
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise SourceError("not a text") from None
    keys = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            keys.append(parse_line(line))
        except PublicKeyError as error:
            raise SourceError(f"line {number}: {error}") from None
    if not keys:
        raise SourceError(f"{empty}, no key in it")
    return keys


def _patient(fetch: Fetch) -> Fetch:
    """Do not wait for hundreds of answers of a server that gives none."""
    silent: Counter[t.Any] = Counter()

    def asked(url: str, headers: t.Mapping[str, str]) -> Answer:
        server = origin(url)
        if silent[server] >= _THREADS:
            raise FetchError(f"not asked: {server[1]} has not answered {_THREADS} times")
        try:
            return fetch(url, headers)
        except NoAnswer:
            silent[server] += 1
            raise

    return asked


def _started(
    pool: ThreadPoolExecutor, function: t.Callable[[str], _Value], arguments: t.Iterable[str]
) -> dict[str, t.Callable[[], _Value]]:
    return {argument: pool.submit(function, argument).result for argument in dict.fromkeys(arguments)}


def _utc(seconds: float) -> str:
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
