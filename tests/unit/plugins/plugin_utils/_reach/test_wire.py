# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
import socket
import struct
import typing as t

import pytest
from ansible_collections.gpuops.fleet.plugins.module_utils._base.kexinit import Algorithms
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.causes import CAUSES, SickError
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.wire import (
    Wire,
    classify_banner,
    classify_connect_errors,
    compare,
    read_banner,
    read_offer,
)
from hypothesis import given, settings, strategies


@pytest.mark.parametrize(
    ("data", "end", "expected"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "closed", "not_ssh"),
        (b"220 mail ESMTP\r\n", "open", "not_ssh"),
        (b"\x15\x03\x01\x00\x02\x02", "closed", "not_ssh"),
        (b"SSH-1.5-OpenSSH_2.1\n", "open", "ssh_protocol_old"),
        (b"Exceeded MaxStartups\r\n", "closed", "max_startups"),
        (b"Not allowed at this time\r\n", "reset", "penalties"),
        (b"", "closed", "banner_closed"),
        (b"", "reset", "banner_closed"),
        (b"", "open", "banner_timeout"),
    ],
)
def test_banner_cause(data: bytes, end: str, expected: str) -> None:
    with pytest.raises(SickError) as caught:
        classify_banner(data, end)
    assert caught.value.code == expected
    assert caught.value.seen.isprintable()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u7\r\n", "OpenSSH_9.2p1 Debian-2+deb12u7"),
        (b"SSH-1.99-Cisco-1.25\n", "Cisco-1.25"),
        (b"Welcome\r\nto the gate\r\nSSH-2.0-Go\r\n", "Go"),
        (b"SSH-2.0-evil\x1b[2J\r\n", "evil?[2J"),
    ],
)
def test_banner_version(data: bytes, expected: str) -> None:
    assert classify_banner(data, "open") == expected


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([OSError(errno.ENETUNREACH, "x"), TimeoutError()], "tcp_timeout"),
        ([TimeoutError(), ConnectionRefusedError(errno.ECONNREFUSED, "x")], "tcp_refused"),
        ([OSError(errno.EHOSTUNREACH, "No route to host")], "tcp_unreachable"),
        ([OSError(errno.ETIMEDOUT, "x")], "tcp_timeout"),
    ],
)
def test_the_address_that_got_furthest_decides(errors: list[OSError], expected: str) -> None:
    assert classify_connect_errors([(f"192.0.2.{n}", error) for n, error in enumerate(errors)]).code == expected


def test_a_tarpit_is_told_from_a_slow_server() -> None:
    with pytest.raises(SickError) as caught:
        classify_banner(b"x8r\r\nb2\r\n", "open", drips=True)
    assert caught.value.code == "tarpit"


OURS = Algorithms(("k1", "k2"), ("h1", "h2"), ("c-gcm@openssh.com", "c2"), ("m1",))


def _kexinit(offer: Algorithms, guess: bytes = b"") -> bytes:
    lists = [
        offer.kex,
        offer.host_keys,
        offer.ciphers,
        offer.ciphers,
        offer.macs,
        offer.macs,
        ("none",),
        ("none",),
        (),
        (),
    ]
    names = [",".join(names).encode() for names in lists]
    return b"\x14" + b"c" * 16 + b"".join(struct.pack(">I", len(n)) + n for n in names) + b"\0" + b"\0\0\0\0" + guess


def _packet(payload: bytes) -> bytes:
    padding = 8 - (len(payload) + 5) % 8 + 4
    return struct.pack(">IB", len(payload) + padding + 1, padding) + payload + b"\0" * padding


@pytest.mark.parametrize(
    ("theirs", "kind"),
    [
        (OURS, None),
        (Algorithms(("k9",), ("h1",), ("c2",), ("m1",)), "key exchange method"),
        (Algorithms(("k2",), ("h9",), ("c2",), ("m1",)), "host key type"),
        (Algorithms(("k2",), ("h2",), ("c9",), ("m1",)), "cipher"),
        (Algorithms(("k2",), ("h2",), ("c2",), ("m9",)), "MAC"),
        (Algorithms(("k2",), ("h2",), ("c2", "c-gcm@openssh.com"), ("m9",)), None),
    ],
)
def test_what_two_sides_do_not_share(theirs: Algorithms, kind: str | None) -> None:
    missing = compare(OURS, theirs)
    assert (missing.kind if missing else None) == kind


def test_a_list_that_is_not_known_excludes_nothing() -> None:
    assert compare(Algorithms((), (), (), ()), OURS) is None


def _talk(data: bytes, end: bool = True, timeout: float = 0.3) -> tuple[str, t.Any]:
    """Let a server say `data`; return how far the wire came, and with what."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        if end:
            theirs.shutdown(socket.SHUT_WR)
        wire = Wire(ours)
        try:
            read_banner(wire, timeout)
            return "offer", read_offer(wire, timeout)
        except SickError as sick:
            return sick.code, sick.seen


BANNER = b"SSH-2.0-OpenSSH_9.2\r\n"
DISCONNECT = b"\x01\0\0\0\x0b" + struct.pack(">I", 4) + b"away" + b"\0\0\0\0"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (BANNER + _packet(_kexinit(OURS)), "offer"),
        (b"Welcome\r\n" + BANNER + _packet(b"\x02\0\0\0\0") + _packet(_kexinit(OURS)), "offer"),
        (BANNER, "connection_closed"),
        (BANNER + _packet(_kexinit(OURS))[:40], "connection_closed"),
        (BANNER + _packet(DISCONNECT), "connection_closed"),
        (BANNER + b"no packet\r\n" * 9, "protocol_error"),
        (BANNER + _packet(b"\x05hello"), "protocol_error"),
        (BANNER + _packet(_kexinit(OURS)[:30]), "protocol_error"),
        (BANNER + _packet(_kexinit(OURS)[:-10] + b"\0\0\0\x09cut"), "protocol_error"),
    ],
)
def test_first_packet(data: bytes, expected: str) -> None:
    assert _talk(data)[0] == expected


def test_a_server_that_stops_after_its_banner() -> None:
    assert _talk(BANNER, end=False) == ("kex_timeout", "an identification, then no key exchange within 0.3 s")


def test_a_disconnect_is_quoted() -> None:
    assert _talk(BANNER + _packet(DISCONNECT))[1] == "the server said: away"


@given(strategies.binary(max_size=300), strategies.sampled_from([b"", b"SSH-", BANNER, BANNER + _packet(b"\x14")]))
@settings(deadline=None)
def test_any_bytes_end_in_a_cause(data: bytes, start: bytes) -> None:
    code, seen = _talk(start + data)
    assert code == "offer" or (code in CAUSES and seen.isprintable())
