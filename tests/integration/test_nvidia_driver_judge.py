# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role nvidia_driver and the report of a run make of answers of gpu_probe: each case is a host of one play."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
GOOD = {"id": "state", "status": "ok", "severity": "critical", "evidence": "", "remedy": ""}
UNREAD = {"id": "remapped_rows", "status": "unknown", "severity": "critical", "evidence": "rows unread", "remedy": "?"}


def check(name: str, status: str, severity: str) -> dict[str, Any]:
    return {"id": name, "status": status, "severity": severity, "evidence": f"saw {name}", "remedy": f"mend {name}"}


# What it is called, the checks, what the user says, and whether the node fails.
CASES: dict[str, tuple[list[dict[str, Any]], dict[str, Any], bool]] = {
    "healthy": ([GOOD], {}, False),
    "healthy-with-readings-the-gpu-does-not-have": ([GOOD, UNREAD], {"nvidia_driver_fail_on": "warning"}, False),
    "critical-fault": ([GOOD, check("ecc_uncorrected", "fail", "critical")], {}, True),
    "warning-only": ([GOOD, check("persistence_mode", "fail", "warning")], {}, False),
    "warning-that-counts": (
        [GOOD, check("persistence_mode", "fail", "warning")],
        {"nvidia_driver_fail_on": "warning"},
        True,
    ),
    "info-never-counts": ([GOOD, check("slow_probe", "fail", "info")], {"nvidia_driver_fail_on": "warning"}, False),
    "state-of-warning-weight": ([check("state", "fail", "warning")], {}, True),
    "state-that-cannot-be-told": ([check("state", "unknown", "warning")], {}, True),
    "missed-expectation": ([GOOD, check("expect_count", "fail", "critical")], {}, True),
    "expectation-that-cannot-be-told": ([GOOD, check("expect_ecc", "unknown", "critical")], {}, True),
    "expectation-made-a-warning": ([GOOD, check("expect_ecc", "unknown", "warning")], {}, False),
    "only-shown": (
        [check("state", "fail", "critical"), check("expect_count", "fail", "critical")],
        {"nvidia_driver_fail_on": "none"},
        False,
    ),
}


def run(folder: Path, hosts: dict[str, Any], playbook: Path) -> str:
    (folder / "hosts.json").write_text(json.dumps({"gpu": {"hosts": hosts, "vars": {"ansible_connection": "local"}}}))
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", folder / "hosts.json", playbook],
        cwd=REPOSITORY, env={**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    return done.stdout


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("judge")
    hosts = {
        name: {
            "nvidia_driver_probe": {"state": checks[0]["status"], "gpus": [], "driver": {}, "health": checks},
            **variables,
        }
        for name, (checks, variables, _fails) in CASES.items()
    }
    play = {
        "hosts": "gpu",
        "gather_facts": False,
        "tasks": [{"import_role": {"name": "gpuops.fleet.nvidia_driver", "tasks_from": "judge"}}],
    }
    (folder / "play.yml").write_text(json.dumps([play]))
    return run(folder, hosts, folder / "play.yml")


@pytest.mark.parametrize("name", CASES)
def test_node_fails_for_what_counts_and_says_what_does_not(said: str, name: str) -> None:
    checks, _variables, fails = CASES[name]
    recap = re.search(rf"^{name} +: .* failed=(\d)", said, re.MULTILINE)
    assert recap, said
    assert recap[1] == str(int(fails)), said
    found = [entry for entry in checks if entry["status"] == "fail" or (fails and entry["status"] == "unknown")]
    messages = " ".join(said.split())  # Ansible breaks long lines
    for entry in found:
        wanted = rf"{name}: [^.]*{entry['evidence']}[^.]*\. Next: ssh {name}, then: [^.]*{entry['remedy']}"
        assert re.search(wanted, messages), said
    if not found:
        assert f"{name}: " not in said


LOADED = {
    "kernel_module_version": "570.1",
    "module_on_disk_version": "570.1",
    "user_space_version": "570.1",
    "nouveau_loaded": False,
}
# What it is called, the state, the driver, and why it is to be rebooted.
REBOOTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "healthy": ("ok", {}, ""),
    "new-driver-on-disk": (
        "ok",
        {"module_on_disk_version": "580.2", "user_space_version": "580.2"},
        "driver 570.1 is loaded, 580.2 is installed",
    ),
    "library-is-new-and-the-module-was-not-built": ("driver_library_mismatch", {"user_space_version": "580.2"}, ""),
    "other-nvidia-smi-on-the-path": ("driver_library_mismatch", {}, ""),
    "other-library-of-an-unknown-module": (
        "driver_library_mismatch",
        {"module_on_disk_version": None, "user_space_version": "580.2"},
        "driver 570.1 is loaded, 580.2 is installed",
    ),
    "mismatch-of-which-no-more-is-known": (
        "driver_library_mismatch",
        {"module_on_disk_version": None, "user_space_version": None},
        "the loaded driver and its libraries are of different versions",
    ),
    "nouveau-and-only-a-library": (
        "driver_not_loaded",
        {"kernel_module_version": None, "module_on_disk_version": None, "nouveau_loaded": True},
        "",
    ),
}


def test_reboot_is_wanted_only_where_it_helps(tmp_path: Path) -> None:
    hosts = {
        name: {"nvidia_driver_probe": {"state": state, "gpus": [], "driver": {**LOADED, **driver}, "health": []}}
        for name, (state, driver, _reason) in REBOOTS.items()
    }
    role = {"import_role": {"name": "gpuops.fleet.nvidia_driver", "tasks_from": "judge"}}
    said = {"debug": {"msg": "{{ inventory_hostname }}: <{{ __nvidia_driver_reboot_reason }}>"}}
    (tmp_path / "play.yml").write_text(json.dumps([{"hosts": "gpu", "gather_facts": False, "tasks": [role, said]}]))
    text = " ".join(run(tmp_path, hosts, tmp_path / "play.yml").split())
    for name, (_state, _driver, reason) in REBOOTS.items():
        assert f"{name}: <{reason}>" in text, text


def test_report_says_which_node_differs_when_the_first_was_not_probed(tmp_path: Path) -> None:
    drivers = {"gpu-1": None, "gpu-2": "570.1", "gpu-3": "550.1", "gpu-4": "570.1"}
    # Floor 1 is as far as they came, so that nobody is asked.
    out = {"fleet_failure": {"floor": "reach", "message": "it is off. Next: switch it on"}}
    hosts = {
        name: {**out, **({"nvidia_driver_probe": {"gpus": [], "driver": {"version": version}}} if version else {})}
        for name, version in drivers.items()
    }
    text = run(tmp_path, hosts, REPOSITORY / "playbooks" / "shared" / "prove_and_report.yml")
    assert re.search(r"driver_version: 570\.1 on 2 of 3 nodes\n +550\.1 +gpu-3\n", text), text


def test_node_of_which_nothing_is_known_is_not_well(tmp_path: Path) -> None:
    hosts = {"gpu-1": {"fleet_failure": {"floor": "reach"}}}
    text = run(tmp_path, hosts, REPOSITORY / "playbooks" / "shared" / "prove_and_report.yml")
    assert "gpu-1: the run ended before the login to the node was verified\n  next: ansible-playbook site.yml" in text
    assert re.search(r"^gpu-1 +: .* failed=1", text, re.MULTILINE), text
