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
    PAM,
    Policy,
)
from ansible_collections.gpuops.fleet.plugins.module_utils._sshd_settings import SshdError

SMALL, BIG = b"2023 2 6 100 2047 2 AA\n", b"2023 2 6 100 4095 2 BB\n"
DEBIAN = b"Include /etc/ssh/sshd_config.d/*.conf\nX11Forwarding yes\n"
DEBIAN_PAM = b"# PAM for sshd\n@include common-auth\n\xff"
BARE = b"# no drop-ins\r\nPort 22\r\n\xff"


def policy(present: bool = True, banner: str = "", moduli_bits: int = 3072, pam_auth: tuple[str, ...] = ()) -> Policy:
    return Policy(present, {}, {}, [], banner, pam_auth, moduli_bits, "", [])


def files(main: bytes = DEBIAN, **others: bytes) -> sshd_policy.Files:
    there = {CONFIG: main, DROP_IN: None, BANNER: None, PAM: DEBIAN_PAM, MODULI: SMALL + BIG, MODULI_BEFORE: None}
    return {**there, **others}


@pytest.mark.parametrize("main", [DEBIAN, BARE, b"Match User bob\n" + DEBIAN, b""])
def test_there_and_back_is_the_same_bytes(main: bytes) -> None:
    before = files(main)
    wanted = policy(banner="hello", pam_auth=("auth required pam_a.so", "auth required pam_b.so"))
    there = {**before, **sshd_policy.plan(wanted, "MaxAuthTries 4\n", before)}
    assert there[DROP_IN] == b"MaxAuthTries 4\n"
    assert there[BANNER] == b"hello\n"
    assert there[MODULI] == BIG
    again = {**there, **sshd_policy.plan(wanted, "MaxAuthTries 4\n", there)}
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


def test_nothing_of_pam_is_asked_before_ours() -> None:
    ours = sshd_policy.plan(policy(pam_auth=("auth required pam_a.so",)), "", files())[PAM] or b""
    by_hand = b"auth required pam_by_hand.so\n"
    other = (
        sshd_policy.plan(policy(pam_auth=("auth required pam_b.so",)), "", {**files(), PAM: by_hand + ours})[PAM] or b""
    )
    assert b"pam_a" not in other
    assert [line for line in other.splitlines() if not line.startswith(b"# ")][:3] == [
        b"auth required pam_b.so",
        by_hand.strip(),
        b"@include common-auth",
    ]


def test_codes_cannot_be_asked_for_without_a_file_of_pam() -> None:
    with pytest.raises(SshdError, match=PAM):
        sshd_policy.plan(policy(pam_auth=("auth required pam_a.so",)), "", {**files(), PAM: None})
    assert PAM not in sshd_policy.plan(policy(), "", {**files(), PAM: None})
