# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fetch small answers over https, from servers that may be slow, broken or hostile.

This plugin util is PRIVATE to the collection. It does not use open_url, which sets the opener of the whole process: of
several threads, each would then follow the redirects of another one.
"""

from __future__ import annotations

import base64
import functools
import http.client
import ipaddress
import queue
import ssl
import threading
import typing as t
import urllib.request
from dataclasses import asdict, dataclass
from urllib.error import HTTPError, URLError
from urllib.parse import urljoin, urlsplit

from ansible.module_utils.urls import make_context
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.shared import shared
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.text import printable

_LIMIT = 1 << 20
_HOPS = 5
_REDIRECTS = (301, 302, 303, 307, 308)


class FetchError(Exception):
    """No answer, with the reason."""


class NoAnswer(FetchError):
    """The server kept us waiting until the time was over."""


@dataclass(frozen=True)
class Answer:
    """Answer of a server; names of `headers` are in lower case, `url` is where the last redirect led."""

    status: int
    headers: t.Mapping[str, str]
    body: bytes
    url: str


Fetch = t.Callable[[str, t.Mapping[str, str]], Answer]


def check_url(url: str) -> str:
    """Return what is wrong with a URL, an empty text if it may be fetched."""
    if not (url.isascii() and url.isprintable()) or " " in url:
        return "the URL has blanks or other characters in it that a URL cannot have"
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        return "not a URL"
    if "@" in parts.netloc:
        return f"a URL with credentials for {host}; they would be in the logs"
    if not host or parts.scheme not in ("http", "https"):
        return f"{shown(url)} is not a URL that begins with https://"
    if parts.scheme == "http" and not _is_loopback(host):
        return f"{shown(url)} is not https: whoever is on the way could put in a key of his own"
    return ""


def shown(url: str) -> str:
    """A URL for messages: what follows the ? may be a secret."""
    return printable(url.partition("?")[0].partition("#")[0])


def origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"https": 443, "http": 80}.get(parts.scheme)


def fetch(url: str, headers: t.Mapping[str, str], timeout: float) -> Answer:
    """GET a URL; the time is for all of it, names, redirects and a body that drips."""
    answers: queue.SimpleQueue[Answer | FetchError] = queue.SimpleQueue()

    def follow() -> None:
        try:
            answers.put(_follow(url, headers, timeout))
        except FetchError as error:
            answers.put(error)
        except (OSError, http.client.HTTPException) as error:
            answers.put(_failure(error, timeout))
        except ValueError:
            answers.put(FetchError("not a name of a server"))

    # Timeouts of sockets are for each packet, and name servers know none at all. A daemon: nobody waits for it.
    threading.Thread(target=follow, daemon=True).start()
    try:
        answer = answers.get(timeout=timeout)
    except queue.Empty:
        raise _late(timeout) from None
    if isinstance(answer, FetchError):
        raise answer
    return answer


def once(fetch: Fetch, folder: str) -> Fetch:
    """Fetch each page once for all processes that share a folder."""

    def asked(url: str, headers: t.Mapping[str, str]) -> Answer:
        with shared(folder, url, sorted(headers.items())) as page:
            kept = page.get()
            if kept:
                return _thaw(kept)
            try:
                answer: Answer | FetchError = fetch(url, headers)
            except FetchError as error:
                answer = error
            page.put(_frozen(answer))
        if isinstance(answer, FetchError):
            raise answer
        return answer

    return asked


def _frozen(answer: Answer | FetchError) -> dict[str, t.Any]:
    if isinstance(answer, FetchError):
        return {"error": str(answer), "silent": isinstance(answer, NoAnswer)}
    return {**asdict(answer), "headers": dict(answer.headers), "body": base64.b64encode(answer.body).decode()}


def _thaw(fields: dict[str, t.Any]) -> Answer:
    if "error" in fields:
        raise (NoAnswer if fields["silent"] else FetchError)(fields["error"])
    return Answer(**{**fields, "body": base64.b64decode(fields["body"])})


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_arguments: t.Any, **_more: t.Any) -> None:
        return None


@functools.lru_cache(maxsize=1)
def _opener() -> urllib.request.OpenerDirector:
    # To read the certificates of all authorities takes longer than most answers.
    return urllib.request.build_opener(urllib.request.HTTPSHandler(context=make_context()), _NoRedirects())


def _follow(url: str, headers: t.Mapping[str, str], timeout: float) -> Answer:
    for _hop in range(_HOPS):
        answer = _get(url, headers, timeout)
        location = answer.headers.get("location")
        if answer.status not in _REDIRECTS or not location:
            return answer
        target = urljoin(url, location)
        problem = check_url(target)
        if not problem and url.startswith("https:") and not target.startswith("https:"):
            problem = f"{shown(target)} is not https"
        if not problem and "Authorization" in headers and origin(target) != origin(url):
            problem = f"{shown(target)} is another server, which must not get the token"
        if problem:
            raise FetchError(f"a redirect that is not followed: {problem}")
        url = target
    raise FetchError(f"more than {_HOPS} redirects")


def _get(url: str, headers: t.Mapping[str, str], timeout: float) -> Answer:
    request = urllib.request.Request(url, headers={"User-Agent": "gpuops.fleet", **headers})
    try:
        response = _opener().open(request, timeout=timeout)
    except HTTPError as error:
        error.close()
        return Answer(error.code, _lower(error.headers), b"", url)
    with response:
        body = response.read(_LIMIT + 1)
        if len(body) > _LIMIT:
            raise FetchError("more than 1 MB")
        # read() with a limit does not tell an early end from the end.
        if response.length:
            raise FetchError(f"truncated: {response.length} bytes of the body are missing")
        return Answer(response.status, _lower(response.headers), body, url)


def _lower(headers: t.Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _failure(error: Exception, timeout: float) -> FetchError:
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, TimeoutError):
        return _late(timeout)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return FetchError(f"TLS: {printable(cause.verify_message)}")
    words = cause.strerror or str(cause) if isinstance(cause, OSError) else f"{type(cause).__name__} {cause}"
    return FetchError(printable(words)[:200])


def _late(timeout: float) -> NoAnswer:
    return NoAnswer(f"no complete answer within {timeout:g} s")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
