# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tree of /proc, /sys and the kernel log that goes with a simulated machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from gpu_data import MACHINES, SIMULATOR


def write(machine: str, dest: Path, fault: str = "", *more: str) -> subprocess.CompletedProcess[str]:
    """Run sysroot.py."""
    command = [sys.executable, "-B", str(SIMULATOR / "sysroot.py"), "--machine", machine, "--dest", str(dest)]
    return subprocess.run([*command, "--fault", fault, *more], capture_output=True, text=True, timeout=60, check=False)


def log(root: Path) -> list[str]:
    """The texts of the kernel log, but for the two of a healthy node."""
    texts = [line.partition(";")[2] for line in text(root, "dev/kmsg").splitlines()]
    return [line for line in texts if not line.startswith(("Linux version ", "NVRM: loading "))]


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
    begin, loaded = text(tmp_path, "dev/kmsg").splitlines()
    assert begin == "5,0,0,-;Linux version 6.1.0-31-amd64 (simulated by the gpuops.fleet lab)"
    assert loaded.startswith("6,1,5000000,-;NVRM: loading NVIDIA UNIX ")


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
    assert log(tmp_path) == []
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
    assert log(tmp_path) == [
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
    assert "machine 'dgx' is not known; choose one of: a100x2-mig-550, a100x4-535" in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_devices_and_files_of_a_node_in_order(tmp_path: Path) -> None:
    write("h100x8-570", tmp_path)
    gpu = tmp_path / "sys/bus/pci/devices/0000:19:00.0"
    assert (text(gpu, "subsystem_vendor"), text(gpu, "subsystem_device")) == ("0x10de", "0x16c1")
    adapter = (tmp_path / "sys/class/infiniband/mlx5_5/device").resolve()
    assert adapter == tmp_path / "sys/bus/pci/devices/0000:9a:00.0"
    assert text(adapter, "numa_node") == "1"
    kernel = text(tmp_path, "proc/sys/kernel/osrelease")
    assert "\nupdates/dkms/nvidia.ko: " in text(tmp_path, f"lib/modules/{kernel}/modules.dep")
    module = text(tmp_path, f"lib/modules/{kernel}/updates/dkms/nvidia.ko")
    assert module.splitlines() == ["version:        570.148.08", "license:        Dual MIT/GPL"]
    assert (tmp_path / f"var/lib/dkms/nvidia/570.148.08/{kernel}").is_dir()
    library = tmp_path / "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1"
    assert library.resolve().name == "libnvidia-ml.so.570.148.08"
    assert text(tmp_path, "sys/module/nvidia_peermem/initstate") == "live"
    assert (tmp_path / "dev/nvidia7").exists()
    assert not (tmp_path / "run/reboot-required").exists()
    assert float(text(tmp_path, "proc/uptime").split()[0]) == 90000
    secure_boot = next((tmp_path / "sys/firmware/efi/efivars").iterdir())
    assert secure_boot.read_bytes() == b"\6\0\0\0\0"


def test_nouveau_in_the_place_of_the_driver(tmp_path: Path) -> None:
    write("rtx4090x2-550", tmp_path, "nouveau")
    assert not (tmp_path / "sys/module/nvidia").exists()
    assert text(tmp_path, "sys/module/nouveau/initstate") == "live"
    assert {(path / "driver").readlink().name for path in devices(tmp_path, "0x03")} == {"nouveau"}
    assert log(tmp_path)[0].startswith("nouveau 0000:01:00.0: ")


def test_driver_that_is_not_installed(tmp_path: Path) -> None:
    write("rtx4090x2-550", tmp_path, "not_installed")
    assert len(devices(tmp_path, "0x03")) == 2
    assert "nvidia" not in text(tmp_path, "lib/modules/6.1.0-31-amd64/modules.dep")
    for name in ("sys/module/nvidia", "usr/lib", "var/lib/dkms", "dev/nvidia0"):
        assert not (tmp_path / name).exists()


def test_update_that_waits_for_a_reboot(tmp_path: Path) -> None:
    write("h100x8-570", tmp_path, "driver_updated")
    kernel = text(tmp_path, "proc/sys/kernel/osrelease")
    assert text(tmp_path, "sys/module/nvidia/version") == "570.148.08"
    assert "570.149.08" in text(tmp_path, f"lib/modules/{kernel}/updates/dkms/nvidia.ko")
    assert (tmp_path / "run/reboot-required").exists()

    write("h100x8-570", tmp_path, "kernel_updated")
    running, upcoming = sorted((tmp_path / "lib/modules").iterdir())
    assert running.name == kernel
    assert "nvidia" in text(running, "modules.dep")
    assert "nvidia" not in text(upcoming, "modules.dep")


@pytest.mark.parametrize(
    ("machine", "fault", "services"),
    [
        ("h100x8-570", "", {"nvidia-persistenced", "nvidia-fabricmanager"}),
        ("h100x8-570", "fabric_pending", {"nvidia-persistenced"}),
        ("b200x8-580", "", {"nvidia-fabricmanager"}),
        ("rtx4090x2-550", "", set()),
        ("h100x8-570", "no_driver", set()),
    ],
)
def test_services_that_run(tmp_path: Path, machine: str, fault: str, services: set[str]) -> None:
    write(machine, tmp_path, fault)
    running = {path.parent.stem for path in tmp_path.glob("sys/fs/cgroup/system.slice/*/cgroup.procs")}
    assert running == services | {"ssh"}


@pytest.mark.parametrize(
    ("machine", "fault", "pattern"),
    [
        ("h100x8-570", "xid:2:48", r"NVRM: Xid \(PCI:0000:4c:00\): 48, pid='<unknown>', name=<unknown>, An uncorr"),
        ("h100x8-570", "remap_pending:0", r"NVRM: Xid \(PCI:0000:19:00\): 63, "),
        ("h100x8-570", "recovery_action:0", r"NVRM: Xid .* 154, GPU recovery action .* to 0x4 \(Drain and Reset\)"),
        ("a100x2-mig-550", "xid_mig:1", r"NVRM: Xid \(PCI:0000:0f:00 GPU-I:02 GPU-CI:00\): 94, pid=4242, name=pyth"),
        ("h100x8-570", "busy", None),
        ("h100x8-570", "thermal_slowdown:0", None),
    ],
)
def test_kernel_log_of_a_fault(tmp_path: Path, machine: str, fault: str, pattern: str | None) -> None:
    write(machine, tmp_path, fault)
    assert bool(log(tmp_path)) == bool(pattern)
    if pattern:
        assert re.match(pattern, log(tmp_path)[-1])
        # Ten minutes ago, for a node that has been up for a day.
        assert text(tmp_path, "dev/kmsg").splitlines()[-1].split(",")[2] == "89400000000"


def test_storm_of_xids_is_limited(tmp_path: Path) -> None:
    write("t4x1-470", tmp_path, "xid_storm:0")
    lines = log(tmp_path)
    assert len([line for line in lines if "): 31, " in line]) == 41
    assert [line for line in lines if line.endswith(" 214 callbacks suppressed")]


def test_gpu_that_was_gone_at_start_up_has_no_xid(tmp_path: Path) -> None:
    write("rtx4090x2-550", tmp_path, "fallen_off_bus:0")
    assert log(tmp_path)[:3] == [
        "NVRM: The NVIDIA GPU 0000:01:00.0",
        "NVRM: (PCI ID: 10de:2684) installed in this system has",
        "NVRM: fallen off the bus and is not responding to commands.",
    ]
    gone, other = devices(tmp_path, "0x03")
    assert not (gone / "driver").is_symlink()
    assert (other / "driver").readlink().name == "nvidia"
    assert [path.name for path in (tmp_path / "proc/driver/nvidia/gpus").iterdir()] == ["0000:02:00.0"]


def test_device_files_of_root(tmp_path: Path) -> None:
    write("t4x1-470", tmp_path, "dev_root_only")
    assert {path.name: oct(path.stat().st_mode)[-3:] for path in tmp_path.glob("dev/nvidia*")} == {
        "nvidia0": "600",
        "nvidiactl": "600",
    }


@pytest.mark.parametrize("fault", ["", "gpu_lost_handle:1"])
def test_recorded_answers_are_those_of_nvidia_smi(tmp_path: Path, fault: str) -> None:
    assert write("rtx4090x2-550", tmp_path, fault, "--answers").returncode == 0
    for arguments in (["-q", "-x"], ["-L"], ["nvlink", "-s"], ["topo", "-m"]):
        recorded, asked = (
            subprocess.run([*command, *arguments], env=env, capture_output=True, text=True, timeout=60, check=False)
            for command, env in (
                ([str(SIMULATOR / "recorded_smi.sh")], {"GPUOPS_SYSROOT": str(tmp_path), "PATH": os.environ["PATH"]}),
                (
                    [sys.executable, "-B", str(SIMULATOR / "nvidia_smi.py")],
                    {"GPUOPS_SIM_MACHINE": "rtx4090x2-550", "GPUOPS_SIM_FAULT": fault},
                ),
            )
        )
        moment = re.compile("<timestamp>.*")
        assert moment.sub("", recorded.stdout) == moment.sub("", asked.stdout)
        assert recorded.returncode == asked.returncode


def test_what_is_not_recorded_is_said(tmp_path: Path) -> None:
    environment = {"GPUOPS_SYSROOT": str(tmp_path), "PATH": os.environ["PATH"]}
    answer = subprocess.run(
        [SIMULATOR / "recorded_smi.sh", "-q"], env=environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 64
    assert f"{tmp_path}/answers/-q is not recorded; write it with sysroot.py --answers" in answer.stderr
    assert "cannot be recorded" in write("t4x1-470", tmp_path / "new", "hang", "--answers").stderr
