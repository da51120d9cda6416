# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every fault of the lab on three Debian releases over real ssh: what gpu_probe calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from gpu_lab import SET_FAULT, gpu_lab
from podman import podman

if t.TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.xdist_group("gpu-states")

NODES = {"gpu-11": "deb11:h100x8-570", "gpu-12": "deb12:rtx4090x2-550", "gpu-13": "deb13:a100x2-mig-550"}
# Long enough for a simulated nvidia-smi on a busy machine, and short where it never ends.
DEADLINE, SHORT_DEADLINE = 60, 3

# Where the shells and tools of the releases could differ.
ON_ALL = {
    "": "ok",
    "not_installed": "driver_missing",
    "no_tools": "tools_missing",
    "gpu_lost_handle:1": "gpu_lost",
    "hang": "unresponsive",
    "hang_child": "unresponsive",
    "stopped_child": "unresponsive",
}
# What is said in health and kernel_events leaves the state alone: the driver answers and lists every GPU.
ON_ONE = {
    "gpu-11": {
        "gpu_lost_query:1": "gpu_lost",
        "recovery_action:1": "reset_required",
        "ecc_uncorrectable:1": "ok",
        "remap_pending:1": "ok",
        "remap_failure:1": "ok",
        "thermal_slowdown:1": "ok",
        "power_brake:1": "ok",
        "nvlink_down:1": "ok",
        "fabric_pending": "ok",
    },
    "gpu-12": {
        "nouveau": "driver_not_loaded",
        "no_driver": "driver_not_loaded",
        "no_library": "tools_missing",
        "no_permission": "no_permission",
        "no_devices": "no_gpu",
        "dev_unreadable": "no_permission",
        "handle_error:1:999": "degraded",
        "reset_required": "reset_required",
        "unknown_error": "unknown",
    },
    "gpu-13": {
        "busy": "ok",
        "mismatch": "driver_library_mismatch",
        "smi_nvml_version": "driver_library_mismatch",
        "fallen_off_bus:1": "degraded",
        "slow:1": "ok",
        "xid:0:79": "ok",
        "xid_mig:0": "ok",
        "xid_storm:0": "ok",
        "driver_updated": "ok",
        "kernel_updated": "ok",
    },
}
EXPECTED = {(node, fault): state for node in NODES for fault, state in {**ON_ALL, **ON_ONE[node]}.items()}
ENDLESS = [fault for fault, state in ON_ALL.items() if state == "unresponsive"]
PROBE = [
    {
        "gpu_probe": {"deadline": f"{{{{ {SHORT_DEADLINE} if fault in {ENDLESS} else {DEADLINE} }}}}"},
        "register": "probed",
    },
    {"set_fact": {"seen": "{{ seen | default({}) | combine({fault: probed}) }}"}},
]
STEP = [{"raw": f"{SET_FAULT} '{{{{ fault }}}}'"}, *PROBE]


def playbook(folder: Path) -> list[dict[str, t.Any]]:
    """Each node walks through its faults; then root and another user probe device files that are only root's."""
    (folder / "step.yml").write_text(json.dumps(STEP))
    walk = {
        "include_tasks": f"{folder}/step.yml",
        "loop": "{{ faults }}",
        "loop_control": {"loop_var": "fault"},
    }
    close = {"raw": f"{SET_FAULT} dev_root_only"}
    dest = f"{folder}/{{{{ inventory_hostname }}}}.json"
    save = {"copy": {"content": "{{ seen | to_json }}", "dest": dest}, "delegate_to": "localhost"}
    by_all = {"hosts": "nodes:guests:real", "gather_facts": False, "vars": {"fault": "dev_root_only"}}
    return [
        {"hosts": "nodes", "gather_facts": False, "strategy": "free", "tasks": [walk, close]},
        {**by_all, "tasks": [*PROBE, save]},
    ]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, t.Any]]]:
    """Four new machines that let us in by a key, as root and as guest: their entries in the inventory."""
    with gpu_lab(tmp_path_factory.mktemp("lab"), {**NODES, "gpu-real": "deb12:real"}) as hosts:
        yield hosts


@pytest.fixture(scope="module")
def seen(
    lab: dict[str, dict[str, t.Any]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, dict[str, t.Any]]]:
    """What gpu_probe answered: host -> fault -> result."""
    folder = tmp_path_factory.mktemp("seen")
    nodes = {name: {**lab[name], "ansible_user": "root", "faults": [*ON_ALL, *ON_ONE[name]]} for name in NODES}
    guests = {f"{name}-guest": {**lab[name], "ansible_user": "guest"} for name in NODES}
    real = {"gpu-real": {**lab["gpu-real"], "ansible_user": "root"}}
    groups = {name: {"hosts": hosts} for name, hosts in (("nodes", nodes), ("guests", guests), ("real", real))}
    (folder / "hosts.json").write_text(json.dumps({"all": {"children": groups}}))
    (folder / "play.yml").write_text(json.dumps(playbook(folder)))
    run = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", folder / "hosts.json", folder / "play.yml"],
        cwd=REPOSITORY,
        env={**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("gpu-*.json")}


@pytest.mark.parametrize(("node", "fault"), EXPECTED)
def test_state_of_a_fault(seen: dict[str, dict[str, dict[str, t.Any]]], node: str, fault: str) -> None:
    result = seen[node][fault]
    expected = EXPECTED[node, fault]
    assert result["state"] == expected, result["summary"]
    assert result["simulated"]
    assert "simulated" in result["summary"]
    failed = [check["id"] for check in result["health"] if check["status"] == "fail" and check["severity"] != "info"]
    assert bool(result["remedy"]) == (expected != "ok" or bool(failed)), result["health"]
    if expected == "unresponsive":
        assert result["probe_seconds"] < SHORT_DEADLINE + 2.5


def test_device_files_of_root_are_closed_to_others(seen: dict[str, dict[str, dict[str, t.Any]]]) -> None:
    states = {host: results["dev_root_only"]["state"] for host, results in seen.items() if host != "gpu-real"}
    assert states == {**dict.fromkeys(NODES, "ok"), **{f"{name}-guest": "no_permission" for name in NODES}}


def test_real_tools_without_a_driver(seen: dict[str, dict[str, dict[str, t.Any]]]) -> None:
    result = seen["gpu-real"]["dev_root_only"]
    assert result["state"] == "driver_not_loaded"
    assert not result["simulated"]


@pytest.mark.usefixtures("seen")
@pytest.mark.parametrize("node", NODES)
def test_nothing_is_left_on_a_node(lab: dict[str, dict[str, t.Any]], node: str) -> None:
    container = lab[node]["lab_container"]
    assert podman("exec", container, "sh", "-c", "pgrep -f '[n]vidia_smi|[g]puops[.]' || true") == ""
    assert podman("exec", container, "sh", "-c", "ls -d /tmp/gpuops.* /dev/shm/gpuops.* 2>/dev/null || true") == ""
