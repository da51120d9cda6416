# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The password is used once, is seen nowhere, and is not needed afterwards."""

from __future__ import annotations

import typing as t

import pytest
from secret_watch import SEARCH_NODE, ArgumentWatch, holders

if t.TYPE_CHECKING:
    from integration.conftest import Fleet

pytestmark = pytest.mark.xdist_group("bad-input")


def test_password_is_seen_nowhere_and_not_needed_afterwards(new_fleet: Fleet) -> None:
    del new_fleet.hosts["gpu-2"]
    node, password = new_fleet.nodes["gpu-1"], new_fleet.hosts["gpu-1"]["ansible_password"]
    with ArgumentWatch(password) as watch:
        run = new_fleet.site("-vvvv", "--diff")
    assert run.rc == 0, run.text
    assert run.is_complete("gpu-1")

    assert password not in run.text
    assert not watch.found
    assert watch.looks > 20
    assert not holders(new_fleet.home, [password])
    assert node.sh(SEARCH_NODE, password) == ""
    body = (new_fleet.ssh / "id_ed25519").read_text().splitlines()[1:-1]
    assert not [line for line in body if line in run.text]

    del new_fleet.hosts["gpu-1"]["ansible_password"]
    again = new_fleet.site()
    assert again.rc == 0, again.text
    assert again.recap("gpu-1")["changed"] == 0
    assert again.is_complete("gpu-1")
