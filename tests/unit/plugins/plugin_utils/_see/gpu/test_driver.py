# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.answer import HostFacts, NodeAnswer
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.driver import driver_facts


def facts(loaded: str, on_disk: str, library: str, **more: Any) -> dict[str, Any]:
    host = HostFacts(module_on_disk_version=on_disk, library_version=library, module_license="NVIDIA")
    proc_version = f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {loaded}  Tue Apr  8 2025" if loaded else ""
    answer = NodeAnswer(**{"proc_version": proc_version, "host": host, **more})
    return driver_facts(answer, None, None, on_disk=True)


@pytest.mark.parametrize(
    ("loaded", "on_disk", "library", "said", "reason"),
    [
        pytest.param("535.261.03", "535.261.03", "535.261.03", "535.261.03", "", id="in-order"),
        pytest.param(
            "535.247.01",
            "535.261.03",
            "535.261.03",
            "535.261.03",
            "535.261.03 is installed",
            id="updated-in-its-branch",
        ),
        pytest.param("535.261.03", "550.163.01", "550.163.01", "550.163.01", "550.163.01 is inst", id="another-branch"),
        pytest.param("535.247.01", "535.261.03", "535.247.01", "535.261.03", "535.261.03 is inst", id="module-first"),
        pytest.param("535.247.01", "535.261.03", "", "535.261.03", "535.261.03 is installed", id="library-not-found"),
        pytest.param("535.261.03", "470.256.02", "535.261.03", None, "", id="module-of-another-flavour"),
        pytest.param(
            "535.247.01",
            "470.256.02",
            "535.261.03",
            None,
            "its library is 535.261.03",
            id="another-flavour-and-an-update",
        ),
        pytest.param(
            "535.261.03", "535.261.03", "550.163.01", "535.261.03", "its library is 550.163.01", id="library-first"
        ),
        pytest.param("", "470.256.02", "535.261.03", None, "", id="another-flavour-and-none-loaded"),
    ],
)
def test_a_reboot_is_not_asked_for_by_the_module_of_another_flavour(
    loaded: str, on_disk: str, library: str, said: str | None, reason: str
) -> None:
    driver = facts(loaded, on_disk, library)
    assert driver["module_on_disk_version"] == said
    assert driver["reboot_pending"] == bool(reason)
    assert reason in driver["reboot_reason"]


@pytest.mark.parametrize(
    ("module_version", "on_disk", "library", "flavor"),
    [
        pytest.param("", "535.261.03", "535.261.03", "proprietary", id="not-loaded"),
        pytest.param("535.261.03", "535.261.03", "535.261.03", "proprietary", id="the-loaded-one"),
        pytest.param("535.247.01", "535.261.03", "535.261.03", None, id="the-loaded-one-is-another"),
        pytest.param("", "470.256.02", "535.261.03", None, id="module-of-another-flavour"),
    ],
)
def test_the_flavor_comes_from_the_file_only_when_it_is_that_of_the_driver(
    module_version: str, on_disk: str, library: str, flavor: str | None
) -> None:
    driver = facts("", on_disk, library, module_version=module_version)
    assert driver["kernel_module_flavor"] == flavor
