# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the checks say of recorded machines."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.health import (
    Expectations,
    health_checks,
    merged_policy,
)
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.smi_xml import cut_document, parse_log
from gpu_data import CORPUS, NO_CORPUS

HARDWARE = "NVIDIA+k8s-test-infra/tests/e2e/go/assertions/nvidiasmi/testdata/hardware"
MADE = "NVIDIA+k8s-test-infra/tests/e2e/go/assertions/nvidiasmi/testdata"
MOCK = "real_nvidia_smi_over_mock_nvml/470.256.02"
pytestmark = NO_CORPUS

# What a document of nvidia-smi cannot tell.
AROUND = {
    "state": "ok",
    "topology": {"nvswitches": []},
    "kernel_events": {"source": "none", "complete": False, "since_seconds": None, "error": "", "events": []},
    "probe_seconds": 0.6,
}
DRIVER = {
    "dkms": {"registered": False, "running_kernel": None, "next_kernel": None, "next_kernel_release": None},
    "nouveau_loaded": False,
    "secure_boot": None,
    "fabric_manager": {"installed": False, "running": False, "version": None},
    "reboot_pending": False,
    "reboot_reason": "",
}


def failed(name: str) -> dict[str, list[int]]:
    """The checks that fail, each with the GPUs concerned."""
    log = parse_log(cut_document((CORPUS / name).read_text(encoding="utf-8"))[1])
    driver = {**DRIVER, "version": log.driver_version, "cuda_version": log.cuda_version}
    probe = {**AROUND, "gpus": [asdict(gpu) for gpu in log.gpus], "driver": driver}
    found = health_checks(probe, merged_policy({}), Expectations())
    return {check["id"]: check["gpus"] for check in found if check["status"] == "fail"}


@pytest.mark.parametrize("machine", ["qx-h100.xml", "qx-a100.xml", "qx-t4.xml"])
def test_no_alarm_for_a_machine_that_was_in_use(machine: str) -> None:
    assert failed(f"{HARDWARE}/{machine}") == {}


def test_no_alarm_for_a_tray_of_gb200() -> None:
    assert failed(f"{MADE}/qx-gb200-healthy.xml") == {}


ALL = list(range(8))


@pytest.mark.parametrize(
    ("name", "checks"),
    [
        (f"{MADE}/qx-gb200-fabric-degraded.xml", {"fabric": [1]}),
        (f"{MADE}/qx-gb200-ecc-injected.xml", {"row_remap_failure": [0], "ecc_uncorrected": [0]}),
        (f"{MOCK}-h100-all-mig-pending.xml", {"mig_pending": ALL}),
        (f"{MOCK}-h100-all-remap-failure.xml", {"row_remap_failure": ALL}),
        (f"{MOCK}-h100-all-remap-pending.xml", {"memory_repair_pending": ALL}),
        (f"{MOCK}-h100-ecc-disabled-pending.xml", {"ecc_pending": [1], "ecc_disabled": [1], "siblings": [1]}),
        (f"{MOCK}-h100-gpu2-ecc-uncorrectable.xml", {"row_remap_failure": [2], "ecc_uncorrected": [2]}),
        (f"{MOCK}-h100-gpu5-hw-thermal-slowdown.xml", {"hw_slowdown": [5]}),
        (f"{MOCK}-h100-gpu6-power-brake.xml", {"hw_slowdown": [6]}),
        (f"{MOCK}-h100-persistence-off.xml", {"persistence_mode": ALL}),
    ],
)
def test_the_fault_that_was_made_and_no_other(name: str, checks: dict[str, list[int]]) -> None:
    assert failed(name) == checks
