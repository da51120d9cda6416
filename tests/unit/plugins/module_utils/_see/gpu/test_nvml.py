# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NVML is asked for real, through a library of our own that stands for the driver's."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest
from places import REPOSITORY

SOURCE = REPOSITORY / "tests" / "lab" / "simulator" / "libnvidia-ml.c"
COMPILER = shutil.which("cc")
pytestmark = pytest.mark.skipif(not COMPILER, reason="no C compiler on this machine (Debian: gcc)")

READ = """
import json, os, sys
from ansible_collections.gpuops.fleet.plugins.module_utils._see.gpu.nvml import read
fork = os.fork
def noted_fork():
    pid = fork()
    if pid:
        open(sys.argv[2], "w").write(str(pid))
    return pid
os.fork = noted_fork
if sys.argv[3] == "immortal":
    os.kill = os.killpg = lambda pid, number: None
print(json.dumps(read(float(sys.argv[1]))))
"""
MODULE = """
from ansible.module_utils.testing import patch_module_args
from ansible_collections.gpuops.fleet.plugins.modules.gpu_probe import main
with patch_module_args({"backend": "nvml", "deadline": 5, "_ansible_check_mode": True}):
    main()
"""
# A driver of 390 does not know these of any GPU.
UNKNOWN_TO_390 = {
    "architecture",
    "memory_reserved_mib",
    "temperature_memory_c",
    "temperature_margin_c",
    "ecc_sram_threshold_exceeded",
    "remapped_rows",
    "mig_mode_current",
    "mig_mode_pending",
    "fabric",
    "recovery_action",
}
NEVER_FROM_NVML = {"numa_node", "processes"}


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders, each with a libnvidia-ml.so.1: of a late driver, and of 390."""
    folders = {}
    for name, options in (("new", []), ("old", ["-DOLD"])):
        folders[name] = tmp_path_factory.mktemp(name)
        out = folders[name] / "libnvidia-ml.so.1"
        command = [
            str(COMPILER),
            "-Wall",
            "-Wextra",
            "-Werror",
            "-shared",
            "-fPIC",
            *options,
            "-o",
            str(out),
            str(SOURCE),
        ]
        subprocess.run(command, check=True)
    return folders


class Node:
    """A node with a loaded driver and that library."""

    def __init__(self, folder: Path, library: Path) -> None:
        self.folder = folder
        self.version = folder / "root/proc/driver/nvidia/version"
        self.version.parent.mkdir(parents=True)
        self.version.write_text("NVRM version: NVIDIA UNIX Open Kernel Module (simulated)\n", encoding="ascii")
        self.loaded = folder / "loaded"
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY / ".ansible/collections"),
            "GPUOPS_SYSROOT": str(folder / "root"),
            "LD_LIBRARY_PATH": str(library),
            "NVML_SIM_LOADED": str(self.loaded),
        }

    def run(self, script: str, *arguments: str, sim: str = "", **options: t.Any) -> tuple[t.Any, float]:
        """What the script printed, nothing but JSON, and the seconds until nobody held its output any more."""
        start = time.monotonic()
        ended = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            env={**self.environment, "NVML_SIM": sim},
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
            **options,
        )
        assert ended.stderr == ""
        return json.loads(ended.stdout), time.monotonic() - start

    def read(self, sim: str = "", deadline: float = 20, **options: t.Any) -> dict[str, t.Any]:
        answer: dict[str, t.Any] = self.run(READ, str(deadline), str(self.folder / "pid"), "", sim=sim, **options)[0]
        return answer

    @property
    def child(self) -> int:
        return int((self.folder / "pid").read_text(encoding="ascii"))


@pytest.fixture
def node(tmp_path: Path, libraries: dict[str, Path]) -> Node:
    return Node(tmp_path, libraries["new"])


def runs(pid: int) -> bool:
    """Whether this process is there and is not just waiting to be buried."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return status.rpartition(") ")[2][0] not in "ZX"


def nulls(gpu: dict[str, t.Any]) -> set[str]:
    return {key for key, value in gpu.items() if value is None}


def test_every_value_has_its_key_and_its_unit(node: Node) -> None:
    answer = node.read()
    assert answer.pop("seconds") < 20
    gpus = answer.pop("gpus")
    assert answer == {
        "outcome": "answered",
        "error": "",
        "init_code": None,
        "driver_version": "590.48.01",
        "cuda_version": "13.1",
        "library_version": "13.590.48.01",
        "lost": [],
    }
    assert [(gpu["index"], gpu["bus_id"]) for gpu in gpus] == [(0, "0000:1b:00.0"), (1, "0000:1c:00.0")]
    links = [{"link": link, "active": True, "speed_gbyte_s": (26562 - link) / 1000} for link in range(18)]
    assert gpus[0].pop("nvlinks") == links
    assert gpus[0] == {
        "index": 0,
        "uuid": "GPU-00000000-0000-4000-8000-000000000000",
        "serial": "1650000000000",
        "name": "NVIDIA H100 (simulated)",
        "architecture": "Hopper",
        "compute_capability": "9.0",
        "bus_id": "0000:1b:00.0",
        "vbios_version": "96.00.99.00.01",
        "memory_total_mib": 81559,
        "memory_used_mib": 4,
        "memory_free_mib": 81075,
        "memory_reserved_mib": 480,
        "utilization_gpu_percent": 97,
        "utilization_memory_percent": 41,
        "temperature_gpu_c": 29,
        "temperature_memory_c": 37,
        "temperature_slowdown_c": 89,
        "temperature_shutdown_c": 92,
        "temperature_margin_c": -3,
        "power_draw_w": 68.57,
        "power_limit_w": 700.0,
        "power_limit_default_w": 650.0,
        "power_limit_max_w": 750.0,
        "clock_graphics_mhz": 345,
        "clock_sm_mhz": 346,
        "clock_memory_mhz": 2619,
        "clock_graphics_max_mhz": 1980,
        "clock_sm_max_mhz": 1981,
        "clock_memory_max_mhz": 2620,
        "performance_state": "P2",
        "throttle_reasons": ["gpu_idle"],
        "persistence_mode": True,
        "compute_mode": "Exclusive_Process",
        "ecc_mode_current": True,
        "ecc_mode_pending": False,
        "ecc_errors_volatile": {"corrected": 0, "uncorrected": 0},
        "ecc_errors_aggregate": {"corrected": 0, "uncorrected": 0},
        "ecc_sram_threshold_exceeded": False,
        "retired_pages": {"single_bit": 0, "double_bit": 0, "pending": False},
        "remapped_rows": {"correctable": 0, "uncorrectable": 0, "pending": False, "failure": False},
        "mig_mode_current": False,
        "mig_mode_pending": False,
        "mig_devices": [],
        "pcie_link_gen_current": 1,
        "pcie_link_gen_max": 5,
        "pcie_link_width_current": 8,
        "pcie_link_width_max": 16,
        "pcie_replay_count": 7,
        "numa_node": None,
        "fabric": {"state": "Completed", "status": "Success", "health": "Healthy"},
        "recovery_action": "none",
        "processes": None,
        "errors": {},
    }


def test_every_sign_of_damage_is_seen(node: Node) -> None:
    sick, healthy = node.read("sick")["gpus"]
    assert sick["ecc_errors_volatile"] == {"corrected": 5000000000, "uncorrected": 5000000001}
    assert sick["ecc_errors_aggregate"] == {"corrected": 5000000010, "uncorrected": 5000000011}
    assert sick["ecc_sram_threshold_exceeded"] is True
    assert sick["retired_pages"] == {"single_bit": 1, "double_bit": 2, "pending": True}
    assert sick["remapped_rows"] == {"correctable": 2, "uncorrectable": 3, "pending": True, "failure": True}
    assert sick["throttle_reasons"] == ["hw_slowdown", "hw_thermal_slowdown", "0x200"]
    assert sick["fabric"] == {"state": "Completed", "status": "Unknown Error", "health": "Unhealthy"}
    assert sick["recovery_action"] == "drain and reset"
    assert [link for link in sick["nvlinks"] if not link["active"]] == [
        {"link": 3, "active": False, "speed_gbyte_s": None}
    ]
    assert sick["errors"] == healthy["errors"] == {}
    assert all(link["active"] for link in healthy["nvlinks"])


def test_mig_devices_have_their_names_and_hide_no_unknown_as_zero(node: Node) -> None:
    gpu, other = node.read("mig")["gpus"]
    assert (gpu["mig_mode_current"], gpu["mig_mode_pending"], other["mig_mode_current"]) == (True, True, False)
    assert gpu["mig_devices"] == [
        {
            "index": number,
            "uuid": f"MIG-00000000-0000-4000-8000-{number + 1:012d}",
            "profile": "3g.40gb",
            "gpu_instance_id": number,
            "compute_instance_id": 0,
            "memory_total_mib": 40320,
            "memory_used_mib": 4,
        }
        for number in (1, 2)
    ]
    assert gpu["remapped_rows"] is None
    assert gpu["ecc_errors_volatile"] is None
    assert gpu["ecc_errors_aggregate"] == {"corrected": 0, "uncorrected": 0}
    assert gpu["errors"] == other["errors"] == {}


def test_a_driver_of_390_gives_nulls_and_no_error(tmp_path: Path, libraries: dict[str, Path]) -> None:
    answer = Node(tmp_path, libraries["old"]).read()
    assert (answer["outcome"], answer["driver_version"], answer["cuda_version"]) == ("answered", "390.157", "9.1")
    gpu = answer["gpus"][0]
    assert nulls(gpu) == UNKNOWN_TO_390 | NEVER_FROM_NVML
    assert gpu["errors"] == {}
    assert (gpu["memory_total_mib"], gpu["memory_used_mib"], gpu["temperature_gpu_c"]) == (81559, 484, 28)
    assert gpu["throttle_reasons"] == ["gpu_idle"]
    assert gpu["nvlinks"][0] == {"link": 0, "active": True, "speed_gbyte_s": 25.781}


def test_where_deprecated_functions_are_gone_the_new_ones_answer(node: Node) -> None:
    gpu = node.read("deprecated")["gpus"][0]
    assert nulls(gpu) == NEVER_FROM_NVML
    assert gpu["errors"] == {}


def test_where_structs_are_of_an_unknown_version_the_old_functions_answer(node: Node) -> None:
    gpu = node.read("structs")["gpus"][0]
    assert nulls(gpu) == NEVER_FROM_NVML | {
        "memory_reserved_mib",
        "temperature_margin_c",
        "ecc_sram_threshold_exceeded",
    }
    assert (gpu["memory_used_mib"], gpu["temperature_gpu_c"]) == (484, 28)
    assert gpu["fabric"] == {"state": "Completed", "status": "Success", "health": None}
    assert gpu["errors"] == {}


def test_what_no_function_answers_any_more_is_null_and_no_error(node: Node) -> None:
    gpu = node.read("structs,deprecated")["gpus"][0]
    assert {"temperature_gpu_c", "fabric"} < nulls(gpu)
    assert gpu["errors"] == {}


def test_the_fabric_of_a_driver_550_is_read(node: Node) -> None:
    assert node.read("fabric2")["gpus"][0]["fabric"] == {"state": "In Progress", "status": None, "health": None}


@pytest.mark.parametrize(
    ("sim", "error", "lost"),
    [("lost:1", "GPU is lost", [1]), ("handle=16", "GPU requires reset", []), ("handle=999", "Unknown Error", [])],
)
def test_a_gpu_that_cannot_be_opened_hides_no_other(node: Node, sim: str, error: str, lost: list[int]) -> None:
    answer = node.read(f"gpus=3,{sim}")
    assert answer["outcome"] == "answered"
    assert [gpu["name"] for gpu in answer["gpus"]] == ["NVIDIA H100 (simulated)", None, "NVIDIA H100 (simulated)"]
    assert (answer["gpus"][1]["index"], answer["gpus"][1]["errors"]) == (1, {"handle": error})
    assert answer["lost"] == lost


def test_a_gpu_that_is_lost_while_it_is_read_keeps_its_place(node: Node) -> None:
    answer = node.read("lost-later:1")
    healthy, lost = answer["gpus"]
    assert (answer["outcome"], answer["lost"], healthy["errors"]) == ("answered", [1], {})
    assert (lost["index"], lost["bus_id"]) == (1, "0000:1c:00.0")
    assert set(lost["errors"].values()) == {"GPU is lost"}
    # Whatever is not known has its reason beside it.
    assert nulls(lost) - NEVER_FROM_NVML - {"memory_reserved_mib"} == set(lost["errors"]) - {"mig_devices"}


@pytest.mark.parametrize(
    ("sim", "code", "text"),
    [
        ("init=18", 18, "Driver/library version mismatch"),
        ("init=4", 4, "Insufficient Permissions"),
        ("init=18,no-error-text", 18, "NVML error 18"),
    ],
)
def test_nvml_that_does_not_start_says_why(node: Node, sim: str, code: int, text: str) -> None:
    answer = node.read(sim)
    assert (answer["outcome"], answer["init_code"]) == ("init_failed", code)
    assert answer["error"] == f"Failed to initialize NVML: {text}"
    assert (answer["library_version"], answer["driver_version"], answer["gpus"]) == ("13.590.48.01", None, [])


def test_no_gpu_is_an_answer(node: Node) -> None:
    answer = node.read("gpus=0")
    assert (answer["outcome"], answer["driver_version"], answer["gpus"]) == ("answered", "590.48.01", [])


def test_without_a_driver_the_library_is_not_loaded(node: Node) -> None:
    node.version.unlink()
    answer = node.read()
    assert (answer["outcome"], answer["error"]) == ("not_loaded", "the NVIDIA kernel driver is not loaded")
    assert not node.loaded.exists()


@pytest.mark.parametrize(
    ("path", "content", "outcome"),
    [
        ("sys/module/nvidia/initstate", "live\n", "answered"),
        ("sys/module/nvidia/initstate", "coming\n", "not_loaded"),
        ("dev/dxg", "", "answered"),
    ],
    ids=["module", "module-that-starts", "wsl"],
)
def test_other_signs_of_a_driver(node: Node, path: str, content: str, outcome: str) -> None:
    node.version.unlink()
    sign = node.folder / "root" / path
    sign.parent.mkdir(parents=True)
    sign.write_text(content, encoding="ascii")
    assert node.read()["outcome"] == outcome
    assert node.loaded.exists() == (outcome == "answered")


def test_no_library(node: Node) -> None:
    node.environment["LD_LIBRARY_PATH"] = ""
    answer = node.read()
    if answer["outcome"] != "no_library":
        pytest.skip("this machine has a libnvidia-ml.so.1")
    assert answer["error"].startswith("libnvidia-ml.so.1: cannot open shared object file")


def test_the_stub_of_cuda_is_not_taken_for_the_library(node: Node, libraries: dict[str, Path]) -> None:
    stubs = node.folder / "stubs"
    shutil.copytree(libraries["new"], stubs)
    node.environment["LD_LIBRARY_PATH"] = str(stubs)
    answer = node.read()
    assert answer["library_version"] != "13.590.48.01"
    if answer["outcome"] != "no_library":
        pytest.skip("this machine has a libnvidia-ml.so.1 besides")
    assert answer["error"] == "libnvidia-ml.so.1: only the stub of CUDA was found"


@pytest.mark.parametrize(
    ("sim", "seen"),
    [("crash:1", "NVML crashed with signal 11 (Segmentation fault)"), ("exit:1", "NVML ended the process")],
)
def test_a_crash_costs_only_what_comes_after_it(node: Node, sim: str, seen: str) -> None:
    answer = node.read(sim, cwd=node.folder)
    assert (answer["outcome"], answer["error"]) == ("crashed", f"{seen} when asked about GPU 1")
    assert [gpu["index"] for gpu in answer["gpus"]] == [0]
    assert answer["gpus"][0]["memory_total_mib"] == 81559
    assert not list(node.folder.glob("core*"))


@pytest.mark.parametrize(("sim", "where"), [("block:1", "asked about GPU 1"), ("block-init", "it was started")])
def test_a_call_that_blocks_is_left_at_the_deadline(node: Node, sim: str, where: str) -> None:
    answer = node.read(sim, deadline=0.5)
    assert answer["outcome"] == "deadline"
    assert answer["error"] == f"NVML did not answer within 0.5 seconds when {where}"
    assert [gpu["index"] for gpu in answer["gpus"]] == ([0] if sim == "block:1" else [])
    assert 0.5 <= answer["seconds"] < 5
    assert not runs(node.child)


def test_a_child_that_cannot_be_killed_keeps_nobody_waiting(node: Node) -> None:
    ours, theirs = os.pipe()
    arguments = ("0.5", str(node.folder / "pid"), "immortal")
    try:
        answer, seconds = node.run(READ, *arguments, sim="block:1", pass_fds=[theirs])
        os.close(theirs)
        assert runs(node.child), "the child was to outlive the deadline"
        assert answer["outcome"] == "deadline"
        assert seconds < 10
        os.set_blocking(ours, False)
        assert os.read(ours, 1) == b"", "the child holds a file of the connection"
        assert os.getsid(node.child) == node.child
    finally:
        os.kill(node.child, signal.SIGKILL)
        os.close(ours)


def test_the_module_answers_with_nothing_but_json(node: Node) -> None:
    result = node.run(MODULE)[0]
    assert result["nvml"]["outcome"] == "answered"
    assert [gpu["index"] for gpu in result["nvml"]["gpus"]] == [0, 1]
    assert not result.get("changed")
