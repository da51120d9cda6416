# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Product names by PCI id, for GPUs that no driver names. **PRIVATE** to the collection."""

from __future__ import annotations

import csv
from functools import lru_cache
from pathlib import Path


def gpu_name(device_id: str, subsystem: str = "") -> str | None:
    """The name of NVIDIA's device 0x26b9 of subsystem 10de:1851.

    Without a row for the subsystem it is the device's own name, or the one that all its subsystems share.
    """
    names = _names().get(device_id.lower().removeprefix("0x"), {})
    own = names.get(subsystem.lower()) or names.get("")
    return own or (next(iter(names.values())) if len(set(names.values())) == 1 else None)


@lru_cache(maxsize=1)
def _names() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    with Path(__file__).with_name("pci_names.csv").open(encoding="utf-8", newline="") as table:
        for device, subsystem, name in csv.reader(line for line in table if not line.startswith("#")):
            found.setdefault(device, {})[subsystem] = name
    return found
