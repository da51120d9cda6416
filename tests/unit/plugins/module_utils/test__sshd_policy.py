# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.gpuops.fleet.plugins.module_utils import _sshd_policy as sshd_policy
from ansible_collections.gpuops.fleet.plugins.module_utils._sshd_policy import (
    BANNER,
    CONFIG,
    DROP_IN,
    INCLUDE,
    MODULI,
    MODULI_BEFORE,
    Policy,
)

SMALL, BIG = b"2023 2 6 100 2047 2 AA\n", b"2023 2 6 100 4095 2 BB\n"
DEBIAN = b"Include /etc/ssh/sshd_config.d/*.conf\nX11Forwarding yes\n"
BARE = b"# no drop-ins\r\nPort 22\r\n\xff"


def policy(present: bool = True, banner: str = "", moduli_bits: int = 3072) -> Policy:
    return Policy(present, {}, {}, [], banner, moduli_bits, "", [])


def files(main: bytes = DEBIAN, **others: bytes) -> sshd_policy.Files:
    return {CONFIG: main, DROP_IN: None, BANNER: None, MODULI: SMALL + BIG, MODULI_BEFORE: None, **others}


@pytest.mark.parametrize("main", [DEBIAN, BARE, b"Match User bob\n" + DEBIAN, b""])
def test_there_and_back_is_the_same_bytes(main: bytes) -> None:
    before = files(main)
    there = {**before, **sshd_policy.plan(policy(banner="hello"), "MaxAuthTries 4\n", before)}
    assert there[DROP_IN] == b"MaxAuthTries 4\n"
    assert there[BANNER] == b"hello\n"
    assert there[MODULI] == BIG
    again = {**there, **sshd_policy.plan(policy(banner="hello"), "MaxAuthTries 4\n", there)}
    assert again == there
    assert {**there, **sshd_policy.plan(policy(present=False), "", there)} == before


@pytest.mark.parametrize(("main", "added"), [(DEBIAN, b""), (BARE, INCLUDE.encode())])
def test_main_file_changes_only_where_it_must(main: bytes, added: bytes) -> None:
    assert sshd_policy.plan(policy(), "", files(main))[CONFIG] == added + main


def test_include_goes_when_the_main_file_has_one_of_its_own() -> None:
    assert sshd_policy.plan(policy(), "", files(INCLUDE.encode() + DEBIAN))[CONFIG] == DEBIAN


def test_moduli_of_an_upgrade_are_not_lost() -> None:
    upgraded = {**files(), MODULI: SMALL + BIG + BIG, MODULI_BEFORE: SMALL + BIG}
    wanted = sshd_policy.plan(policy(), "", upgraded)
    assert (wanted[MODULI], wanted[MODULI_BEFORE]) == (BIG + BIG, SMALL + BIG + BIG)
    wanted = sshd_policy.plan(policy(present=False), "", upgraded)
    assert (wanted[MODULI], wanted[MODULI_BEFORE]) == (SMALL + BIG + BIG, None)


def test_moduli_are_left_alone_when_not_asked() -> None:
    assert MODULI not in sshd_policy.plan(policy(moduli_bits=0), "", files())
