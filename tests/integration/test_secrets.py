# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The password is used once, is seen nowhere, and is not needed afterwards."""

from __future__ import annotations

import threading
import typing as t
from pathlib import Path

import pytest

if t.TYPE_CHECKING:
    from integration.conftest import Fleet

pytestmark = pytest.mark.xdist_group("bad-input")

# The pattern comes by standard input, so that the search does not find itself.
SEARCH_NODE = """
grep -rlF -- "$1" /tmp /var/tmp /root /run /var/log /etc 2>/dev/null || true
journalctl --no-pager -o cat | grep -F -- "$1" || true
"""


class ArgumentWatch(threading.Thread):
    """Look at the arguments of all processes, those of the nodes among them, until told to stop."""

    def __init__(self, secret: bytes) -> None:
        super().__init__(daemon=True)
        self.secret = secret
        self.found: set[bytes] = set()
        self.looks = 0
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.05):
            self.looks += 1
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    arguments = path.read_bytes()
                except OSError:
                    continue
                if self.secret in arguments:
                    self.found.add(arguments)


def test_password_is_seen_nowhere_and_not_needed_afterwards(new_fleet: Fleet) -> None:
    del new_fleet.hosts["gpu-2"]
    node, password = new_fleet.nodes["gpu-1"], new_fleet.hosts["gpu-1"]["ansible_password"]
    watch = ArgumentWatch(password.encode())
    watch.start()
    run = new_fleet.site("-vvvv", "--diff")
    watch.ended.set()
    watch.join()
    assert run.rc == 0, run.text
    assert run.is_complete("gpu-1")

    assert password not in run.text
    assert not watch.found
    assert watch.looks > 20
    holders = [path for path in new_fleet.home.rglob("*") if path.is_file() and password.encode() in path.read_bytes()]
    assert not holders
    assert node.sh(SEARCH_NODE, password) == ""
    body = (new_fleet.ssh / "id_ed25519").read_text().splitlines()[1:-1]
    assert not [line for line in body if line in run.text]

    del new_fleet.hosts["gpu-1"]["ansible_password"]
    again = new_fleet.site()
    assert again.rc == 0, again.text
    assert again.recap("gpu-1")["changed"] == 0
    assert again.is_complete("gpu-1")
