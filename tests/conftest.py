# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The long tests start first, so that two workers end at about the same time."""

from __future__ import annotations

import os
import signal

import pytest


def pytest_configure() -> None:
    # Started in the background by a shell, this process and all that it starts would ignore the interrupt key.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_runtest_setup() -> None:
    # An ssh that is killed leaves the files that it shares with us non-blocking, and Ansible does not start with such.
    for descriptor in range(3):
        os.set_blocking(descriptor, True)
