# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tree of /proc, /sys and the kernel log that goes with a simulated machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SIMULATOR = Path(__file__).parents[3] / "tests" / "lab" / "simulator"
MACHINES = sorted(path.stem for path in (SIMULATOR / "machines").glob("*.json"))


def write(machine: str, dest: Path, fault: str = "") -> subprocess.CompletedProcess[str]:
    """Run sysroot.py."""
    command = [sys.executable, "-B", str(SIMULATOR / "sysroot.py"), "--machine", machine, "--dest", str(dest)]
    return subprocess.run([*command, "--fault", fault], capture_output=True, text=True, timeout=30, check=False)


def text(root: Path, name: str) -> str:
    """The content of one file."""
    return (root / name).read_text(encoding="utf-8").strip()


def devices(root: Path, kind: str) -> list[Path]:
    """The PCI devices of NVIDIA whose class starts so."""
    found = sorted((root / "sys/bus/pci/devices").iterdir())
    return [path for path in found if text(path, "vendor") == "0x10de" and text(path, "class").startswith(kind)]


@pytest.mark.parametrize("machine", MACHINES)
def test_agrees_with_nvidia_smi(tmp_path: Path, machine: str) -> None:
    assert write(machine, tmp_path).returncode == 0
    command = [
        sys.executable,
        "-B",
        str(SIMULATOR / "nvidia_smi.py"),
        "--query-gpu=pci.bus_id,uuid,name,driver_version",
    ]
    answer = subprocess.run(
        [*command, "--format=csv,noheader"],
        env={"GPUOPS_SIM_MACHINE": machine},
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line.split(", ") for line in answer.stdout.splitlines()]
    gpus = devices(tmp_path, "0x03")
    assert [path.name for path in gpus] == [row[0][4:].lower() for row in rows]
    for path, (_bus_id, uuid, name, driver) in zip(gpus, rows):
        card = text(tmp_path, f"proc/driver/nvidia/gpus/{path.name}/information")
        assert uuid in card
        assert f"Model: \t\t {name}\n" in card
        assert f"  {driver}  " in text(tmp_path, "proc/driver/nvidia/version")
        assert text(tmp_path, "sys/module/nvidia/version") == driver
        assert (path / "driver").readlink().name == "nvidia"
    assert text(tmp_path, "sys/module/nvidia/initstate") == "live"
    assert text(tmp_path, "proc/modules").startswith("nvidia ")
    assert text(tmp_path, "dev/kmsg").startswith("6,900,5000000,-;NVRM: loading NVIDIA UNIX ")


def test_h100_has_nvswitches_and_open_modules(tmp_path: Path) -> None:
    write("h100x8-570", tmp_path)
    assert len(devices(tmp_path, "0x0680")) == 4
    assert "Open Kernel Module for x86_64  570.148.08" in text(tmp_path, "proc/driver/nvidia/version")
    gpu = tmp_path / "sys/bus/pci/devices/0000:9b:00.0"
    assert text(gpu, "device") == "0x2330"
    assert text(gpu, "class") == "0x030200"
    assert text(gpu, "numa_node") == "1"
    assert text(gpu, "current_link_speed") == "32.0 GT/s PCIe"


def test_link_of_an_idle_gpu_is_slower_than_it_can_be(tmp_path: Path) -> None:
    write("t4x1-470", tmp_path)
    gpu = devices(tmp_path, "0x03")[0]
    assert (text(gpu, "current_link_width"), text(gpu, "max_link_width")) == ("8", "16")
    assert (text(gpu, "current_link_speed"), text(gpu, "max_link_speed")) == ("2.5 GT/s PCIe", "8.0 GT/s PCIe")


def test_no_driver(tmp_path: Path) -> None:
    write("rtx4090x2-550", tmp_path, "no_driver")
    assert not (tmp_path / "proc/driver/nvidia").exists()
    assert not (tmp_path / "sys/module/nvidia").exists()
    assert text(tmp_path, "proc/modules") == ""
    assert text(tmp_path, "dev/kmsg") == ""
    assert len(devices(tmp_path, "0x0300")) == 2
    assert not any((path / "driver").is_symlink() for path in devices(tmp_path, "0x03"))


def test_no_devices(tmp_path: Path) -> None:
    write("h100x8-570", tmp_path, "no_devices")
    assert list((tmp_path / "sys/bus/pci/devices").iterdir()) == []
    assert not (tmp_path / "proc/driver/nvidia/gpus").exists()
    assert text(tmp_path, "sys/module/nvidia/initstate") == "live"


def test_mismatch_has_the_older_module_loaded(tmp_path: Path) -> None:
    write("rtx4090x2-550", tmp_path, "mismatch")
    assert text(tmp_path, "sys/module/nvidia/version") == "550.162.01"
    assert "API mismatch: the client has the version 550.163.01" in text(tmp_path, "dev/kmsg")


@pytest.mark.parametrize("fault", ["gpu_lost_handle:1", "gpu_lost_query:1", "handle_error:1:15"])
def test_lost_gpu_is_in_the_kernel_log(tmp_path: Path, fault: str) -> None:
    write("rtx4090x2-550", tmp_path, fault)
    lines = [line.partition(";")[2] for line in text(tmp_path, "dev/kmsg").splitlines()]
    assert lines[1:] == [
        "NVRM: Xid (PCI:0000:02:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
        "NVRM: GPU 0000:02:00.0: GPU has fallen off the bus.",
    ]
    healthy, lost = devices(tmp_path, "0x03")
    assert text(healthy, "current_link_speed") == "2.5 GT/s PCIe"
    assert text(lost, "current_link_speed") == "Unknown"


def test_replaces_its_own_tree_and_nothing_else(tmp_path: Path) -> None:
    dest = tmp_path / "root"
    write("h100x8-570", dest)
    assert write("t4x1-470", dest).returncode == 0
    assert [path.name for path in devices(dest, "0x03")] == ["0000:00:1e.0"]

    (tmp_path / "precious").touch()
    answer = write("t4x1-470", tmp_path)
    assert answer.returncode == 64
    assert "choose another --dest" in answer.stderr
    assert (tmp_path / "precious").exists()


def test_unknown_machine(tmp_path: Path) -> None:
    answer = write("dgx", tmp_path)
    assert answer.returncode == 64
    assert "machine 'dgx' is not known; choose one of: a100x4-535" in answer.stderr
    assert answer.stderr.count("\n") == 1
