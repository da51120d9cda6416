# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which tests run, and in which order.

`make test` runs each behaviour once. What repeats one on another release or in another mixture has the marker `full`
with its area, and runs with `make test-all AREA=...` alone.
"""

from __future__ import annotations

import os
import signal

import pytest

AREAS = ("trust",)


def pytest_configure() -> None:
    # Started in the background by a shell, this process and all that it starts would ignore the interrupt key.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", choices=AREAS, help="run what only `make test-all` runs of this area, and nothing else")


def area_of(item: pytest.Item) -> str | None:
    """Return the area of a test that the gate leaves out, None for one of the gate."""
    marker = item.get_closest_marker("full")
    if not marker:
        return None
    (area,) = marker.args
    assert area in AREAS, f"{item.nodeid}: {area} is no area"
    return str(area)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = config.getoption("--full")
    config.hook.pytest_deselected(items=[item for item in items if area_of(item) != wanted])
    items[:] = [item for item in items if area_of(item) == wanted]
    # The long tests start first, so that two workers end at about the same time.
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_runtest_setup() -> None:
    # An ssh that is killed leaves the files that it shares with us non-blocking, and Ansible does not start with such.
    for descriptor in range(3):
        os.set_blocking(descriptor, True)
