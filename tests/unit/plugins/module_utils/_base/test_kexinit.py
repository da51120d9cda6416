# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import struct

import pytest
from ansible_collections.gpuops.fleet.plugins.module_utils._base.kexinit import (
    Algorithms,
    KexinitError,
    parse_kexinit,
    take_identification,
    take_packet,
)
from hypothesis import given, settings, strategies


def _kexinit(*lists: bytes) -> bytes:
    names = [*lists, *[b""] * (10 - len(lists))]
    return b"\x14" + b"c" * 16 + b"".join(struct.pack(">I", len(each)) + each for each in names) + b"\0" * 5


OFFER = _kexinit(b"k1,ext-info-s,kex-strict-s-v00@openssh.com,k2", b"h1", b"c1", b"c9", b"m1", b"m9")


def test_offer() -> None:
    assert parse_kexinit(OFFER) == Algorithms(("k1", "k2"), ("h1",), ("c1",), ("m1",))


def test_names_steer_no_terminal() -> None:
    assert parse_kexinit(_kexinit(b"k\x1b[2J", b"\xff")) == Algorithms(("k?[2J",), ("?",), (), ())


def test_packet() -> None:
    packet = struct.pack(">IB", len(OFFER) + 7, 6) + OFFER + b"\0" * 6
    assert take_packet(packet + b"rest") == (OFFER, b"rest")
    assert [take_packet(packet[:length]) for length in range(len(packet))] == [None] * len(packet)


@pytest.mark.parametrize("length", [0, 1, 7, 35001, 2**32 - 1])
def test_no_length_of_a_stranger_is_trusted(length: int) -> None:
    with pytest.raises(KexinitError, match="no packet"):
        take_packet(struct.pack(">IB", length, 6))


def test_identification() -> None:
    assert take_identification(b"Hello\r\nSSH-2.0-x\r\nrest") == (b"Hello\r\nSSH-2.0-x\r\n", b"rest")
    assert take_identification(b"Hello SSH-2.0-x\r\nSSH-2.0") is None


@given(strategies.binary(max_size=200))
@settings(deadline=None)
def test_any_payload_is_read_or_refused(data: bytes) -> None:
    for payload in (data, OFFER[: len(data)] + data):
        with contextlib.suppress(KexinitError):
            assert isinstance(parse_kexinit(payload), Algorithms)
