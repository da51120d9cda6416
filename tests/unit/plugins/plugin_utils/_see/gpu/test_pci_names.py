# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import csv

import pytest
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.pci_names import gpu_name
from places import REPOSITORY

TABLE = REPOSITORY.parent / "shared" / "reference" / "pci_gpu_names.csv"


@pytest.mark.parametrize(
    ("device", "subsystem", "name"),
    [
        pytest.param("0x26b9", "10de:1851", "NVIDIA L40S", id="exactly"),
        pytest.param("26B9", "10DE:1851", "NVIDIA L40S", id="in-upper-case"),
        pytest.param("0x2330", "1028:ffff", "NVIDIA H100 80GB HBM3", id="every-subsystem-has-this-name"),
        pytest.param("0x1e30", "1028:129e", "Quadro RTX 8000", id="the-subsystem-wins"),
        pytest.param("0x1e30", "1028:ffff", "Quadro RTX 6000", id="the-device-without-a-subsystem"),
        pytest.param("0x20b2", "", None, id="the-subsystems-differ"),
        pytest.param("0x0fff", "", None, id="not-in-the-table"),
        pytest.param("", "", None, id="nothing"),
    ],
)
def test_a_gpu_is_named_by_its_pci_ids(device: str, subsystem: str, name: str | None) -> None:
    assert gpu_name(device, subsystem) == name


@pytest.mark.skipif(not TABLE.is_file(), reason=f"no table in {TABLE}")
def test_every_row_of_the_source_is_found() -> None:
    with TABLE.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            subsystem = f"{row['subvendor']}:{row['subdevice']}" if row["subvendor"] else ""
            assert gpu_name(row["device"], subsystem) == row["name"]
