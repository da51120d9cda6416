# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The first bytes of an SSH connection: name, TCP, identification and the server's offer (RFC 4253, §4.2 and §7.1).

This plugin util is PRIVATE to the collection. All of this is plaintext and needs no login.
"""

from __future__ import annotations

import contextlib
import errno
import re
import socket
import threading
import time
import typing as t

from ansible_collections.gpuops.fleet.plugins.module_utils._base.kexinit import (
    KEXINIT,
    Algorithms,
    KexinitError,
    parse_kexinit,
    take_identification,
    take_packet,
    take_string,
)
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.text import escaped, printable
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.causes import SickError

_IDENTIFICATION = b"SSH-2.0-gpuops.fleet_doctor\r\n"
_BANNER_BYTES = 8192
_DISCONNECT, _IGNORE, _DEBUG = 1, 2, 4

Addresses = t.Sequence[tuple[socket.AddressFamily, str]]


class Incompatible(t.NamedTuple):
    """A kind of algorithm that two sides share none of; `query` is the argument of `ssh -Q`."""

    kind: str
    query: str
    ours: tuple[str, ...]
    theirs: tuple[str, ...]


class Wire:
    """A connection whose bytes are read in parts that each end at a limit."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.data = b""
        self.end = "open"
        self.waits = 0

    def read_more(self, timeout: float) -> bool:
        """Add what arrives next to `data`; False when nothing came in time, or the connection has ended."""
        self.connection.settimeout(max(timeout, 0.001))
        start = time.monotonic()
        try:
            chunk = self.connection.recv(4096)
        except TimeoutError:
            return False
        except OSError:
            self.end = "reset"
            return False
        if not chunk:
            self.end = "closed"
            return False
        self.data += chunk
        self.waits += time.monotonic() - start > 0.05
        return True

    def send(self, data: bytes) -> None:
        """A connection that breaks now is noticed when reading."""
        with contextlib.suppress(OSError):
            self.connection.sendall(data)

    def hang_up(self, timeout: float) -> None:
        """Wait until the server has noticed too, since it may take few connections at a time (MaxStartups)."""
        deadline = time.monotonic() + timeout
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
        while self.end == "open" and (remaining := deadline - time.monotonic()) > 0:
            self.read_more(remaining)


# --- pure: classification -------------------------------------------------------------------------------------------


def classify_connect_errors(errors: t.Sequence[tuple[str, OSError]]) -> SickError:
    """Name the cause when no address accepted a connection: the one that got furthest decides."""
    codes = []
    for _address, error in errors:
        if isinstance(error, ConnectionRefusedError):
            codes.append("tcp_refused")
        elif isinstance(error, TimeoutError) or error.errno == errno.ETIMEDOUT:
            codes.append("tcp_timeout")
        else:
            codes.append("tcp_unreachable")
    code = min(codes, key=("tcp_refused", "tcp_timeout", "tcp_unreachable").index)
    return SickError(code, describe_connect_errors(errors), address=errors[codes.index(code)][0])


def describe_connect_errors(errors: t.Sequence[tuple[str, OSError]]) -> str:
    return ", ".join(f"{address}: {error.strerror or 'timed out'}" for address, error in errors)


def classify_banner(data: bytes, end: str, drips: bool = False) -> str:
    """Return the server's software version from its first bytes; `end` is open, closed or reset."""
    for line in data.splitlines():
        if line.startswith((b"SSH-2.0-", b"SSH-1.99-")):
            return printable(line.decode("ascii", "replace").strip()).split("-", 2)[2]
        if line.startswith(b"SSH-"):
            raise SickError("ssh_protocol_old", escaped(line))
    if b"Exceeded MaxStartups" in data:
        raise SickError("max_startups", escaped(data))
    if b"Not allowed at this time" in data:
        raise SickError("penalties", escaped(data))
    if drips and end == "open":
        raise SickError("tarpit", escaped(data))
    if data:
        kind = "an HTTP server: " if data.lower().startswith((b"http/", b"<!doctype html", b"<html")) else ""
        raise SickError("not_ssh", f"{kind}{escaped(data)}")
    if end == "open":
        raise SickError("banner_timeout", "connected, no identification line")
    raise SickError("banner_closed", f"connection {end} before the identification line")


def parse_disconnect(payload: bytes) -> str:
    description, _position = take_string(payload, 5)
    return printable(description.decode("utf-8", "replace").strip())


def compare(ours: Algorithms, theirs: Algorithms) -> Incompatible | None:
    """The first kind of algorithm that both sides share none of."""
    pairs = [
        ("key exchange method", "kex", ours.kex, theirs.kex),
        ("host key type", "HostKeyAlgorithms", ours.host_keys, theirs.host_keys),
        ("cipher", "cipher", ours.ciphers, theirs.ciphers),
    ]
    # An AEAD cipher brings its own MAC.
    if not re.search("gcm|poly1305", choose(ours.ciphers, theirs.ciphers)):
        pairs.append(("MAC", "mac", ours.macs, theirs.macs))
    # A list that is not known excludes nothing.
    return next((Incompatible(*pair) for pair in pairs if pair[2] and not choose(pair[2], pair[3])), None)


def choose(ours: tuple[str, ...], theirs: tuple[str, ...]) -> str:
    """The algorithm that both sides will take (RFC 4253, §7.1), or nothing."""
    return next((name for name in ours if name in theirs), "")


# --- the outside world ----------------------------------------------------------------------------------------------


def resolve(host: str, port: int, timeout: float) -> Addresses:
    """All addresses of a name."""
    answers: list[t.Any] = []

    def ask() -> None:
        try:
            answers.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answers.append(error)

    # getaddrinfo knows no limit
    asker = threading.Thread(target=ask, daemon=True)
    asker.start()
    asker.join(timeout)
    if not answers:
        raise SickError("resolver_failed", f"no answer for {host} within {timeout:g} s")
    if isinstance(answers[0], Exception):
        again = isinstance(answers[0], socket.gaierror) and answers[0].errno == socket.EAI_AGAIN
        raise SickError("resolver_failed" if again else "name_unknown", f"{host}: {answers[0]}")
    return list(dict.fromkeys((family, str(address[0])) for family, _type, _proto, _name, address in answers[0]))


def connect(
    addresses: Addresses, port: int, timeout: float
) -> tuple[socket.socket, str, t.Sequence[tuple[str, OSError]]]:
    """Connect to the first address that takes it; return also that address and the errors of those before it."""
    deadline = time.monotonic() + timeout
    errors: list[tuple[str, OSError]] = []
    for number, (_family, address) in enumerate(addresses):
        share = (deadline - time.monotonic()) / (len(addresses) - number)
        try:
            return socket.create_connection((address, port), timeout=max(share, 0.01)), address, errors
        except OSError as error:
            errors.append((address, error))
    raise classify_connect_errors(errors)


def read_banner(wire: Wire, timeout: float) -> str:
    """Return the server's software version; what follows the identification line stays in the wire."""
    deadline = time.monotonic() + timeout
    greeted = False
    # SSH servers speak first, an HTTP server answers only when spoken to.
    patience = min(1.0, timeout / 2)
    while not (found := take_identification(wire.data)) and len(wire.data) < _BANNER_BYTES:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            break
        if wire.read_more(remaining if greeted else min(patience, remaining)):
            continue
        if wire.end != "open":
            break
        if not greeted:
            greeted = True
            wire.send(_IDENTIFICATION)
    said, wire.data = found or (wire.data, b"")
    version = classify_banner(said, wire.end, drips=wire.waits > 2)
    if not greeted:
        wire.send(_IDENTIFICATION)
    return version


def read_offer(wire: Wire, timeout: float) -> Algorithms:
    """Return what the server offers in its first packet of the key exchange."""
    deadline = time.monotonic() + timeout
    try:
        while True:
            packet = take_packet(wire.data)
            if packet:
                payload, wire.data = packet
                message = payload[0] if payload else None
                if message == KEXINIT:
                    return parse_kexinit(payload)
                if message == _DISCONNECT:
                    raise SickError("connection_closed", f"the server said: {parse_disconnect(payload)}")
                if message not in (_IGNORE, _DEBUG):
                    raise KexinitError(f"no key exchange, but message {message}: {escaped(payload)}")
            elif not wire.read_more(deadline - time.monotonic()):
                raise _no_offer(wire, timeout)
    except KexinitError as error:
        raise SickError("protocol_error", str(error)) from error


def _no_offer(wire: Wire, timeout: float) -> SickError:
    if wire.end == "reset":
        return SickError("connection_reset", "connection reset before the key exchange")
    if wire.end == "closed":
        return SickError("connection_closed", "connection closed before the key exchange")
    return SickError("kex_timeout", f"an identification, then no key exchange within {timeout:g} s")
