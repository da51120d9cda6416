# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The unencrypted beginning of SSH: identification, packets, and the offer in SSH_MSG_KEXINIT.

This module util is PRIVATE to the collection. The peer is a stranger: no length that it names is trusted.
Source: RFC 4253, 4.2 (identification), 6 (packets) and 7.1 (SSH_MSG_KEXINIT).
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

KEXINIT = 20
# RFC 4253, 6.1: the biggest packet that an implementation must take.
_PACKET_BYTES = 35000
# Who has said so much, and neither its identification nor a packet, is no SSH server.
MOST_BYTES = 40000
_IDENTIFICATION = re.compile(rb"^SSH-[^\n]*\n", re.MULTILINE)
_NAMES = 10
# Tells the peer what else is understood; no method for a key exchange.
_NO_METHOD = re.compile(r"ext-info-|kex-strict-")


class KexinitError(Exception):
    """Raised for bytes that are no packet, or no SSH_MSG_KEXINIT."""


@dataclass(frozen=True)
class Algorithms:
    """Algorithms that one side offers, best first."""

    kex: tuple[str, ...]
    host_keys: tuple[str, ...]
    ciphers: tuple[str, ...]
    macs: tuple[str, ...]


def take_identification(data: bytes) -> tuple[bytes, bytes] | None:
    """Split `data` behind the identification line; None while there is none."""
    line = _IDENTIFICATION.search(data)
    return (data[: line.end()], data[line.end() :]) if line else None


def take_packet(data: bytes) -> tuple[bytes, bytes] | None:
    """Cut the payload of the first packet off `data`; None while it is incomplete."""
    if len(data) < 5:
        return None
    length, padding = struct.unpack_from(">IB", data)
    if not padding + 2 <= length <= _PACKET_BYTES:
        raise KexinitError(f"no packet of a key exchange: {data[:80]!r}")
    if len(data) < 4 + length:
        return None
    return data[5 : 4 + length - padding], data[4 + length :]


def parse_kexinit(payload: bytes) -> Algorithms:
    """Read the offer of a server; of ciphers and MACs those towards the server."""
    lists: list[tuple[str, ...]] = []
    # One byte says which message it is, 16 are random.
    position = 17
    for _number in range(_NAMES):
        names, position = take_string(payload, position)
        # A name is printable ASCII (RFC 4251, 6).
        text = re.sub("[^ -~]", "?", names.decode("latin-1"))
        lists.append(tuple(text.split(",")) if text else ())
    return Algorithms(
        kex=tuple(name for name in lists[0] if not _NO_METHOD.match(name)),
        host_keys=lists[1],
        ciphers=lists[2],
        macs=lists[4],
    )


def take_string(payload: bytes, position: int) -> tuple[bytes, int]:
    """Return the string at a position of a payload, and the position behind it."""
    start = position + 4
    end = start + int.from_bytes(payload[position:start], "big")
    if end > len(payload):
        raise KexinitError(f"a key exchange that breaks off after {len(payload)} bytes")
    return payload[start:end], end
