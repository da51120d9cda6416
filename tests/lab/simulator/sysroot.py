# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write what /proc, /sys, /dev, the kernel log and the installed files of a driver show on a machine type of the lab.

    sysroot.py --machine NAME --dest DIR [--fault FAULT] [--answers]

DIR is new, empty, or an older tree of this program, which is replaced. With --answers it also holds what nvidia-smi
answers, for recorded_smi.sh.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from _faults import HANGS, LOST, UNLOADED, XIDS, Fault, parse_fault, seen_by_driver
from _machine import CREDIT, EXIT_USAGE, Gpu, LabError, Machine, load_machine
from nvidia_smi import answer, what_is_asked

MARKER = ".gpuops-lab"
BUILT = "Thu Jan  1 00:00:00 UTC 2026"
GIGATRANSFERS = {1: "2.5", 2: "5.0", 3: "8.0", 4: "16.0", 5: "32.0", 6: "64.0"}
NVSWITCH_DEVICE = "0x22a3"
NIC_DEVICE = "0x1021"
KERNEL, NEXT_KERNEL = "6.1.0-31-amd64", "6.1.0-32-amd64"
UPTIME = 90000
# A fault shows in the log ten minutes before the node is asked.
FAULT_AT = UPTIME - 600
LIBRARIES = "usr/lib/x86_64-linux-gnu"
SERVICES = "sys/fs/cgroup/system.slice"
SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
# What gpu_probe asks.
ASKED = (
    ("-q", "-x"),
    ("-L",),
    ("--query-gpu=uuid,compute_cap", "--format=csv,noheader"),
    ("nvlink", "-s"),
    ("topo", "-m"),
)


@dataclass(frozen=True)
class Versions:
    """The versions of the kernel module in memory and on disk, and of the library."""

    loaded: str
    on_disk: str
    library: str


def versions(machine: Machine, fault: Fault) -> Versions:
    """They differ between an update and the reboot: nvidia-smi fails when the library is newer than the module."""
    major, minor, *rest = machine.driver.split(".")
    older = ".".join([major, str(int(minor) - 1), *rest])
    newer = ".".join([major, str(int(minor) + 1), *rest])
    loaded = older if fault.name == "mismatch" else machine.driver
    on_disk = newer if fault.name == "driver_updated" else machine.driver
    return Versions(loaded, on_disk, machine.driver)


def module_name(machine: Machine) -> str:
    """How the kernel module calls itself."""
    if machine.open_kernel_module:
        return "NVIDIA UNIX Open Kernel Module for x86_64"
    return "NVIDIA UNIX x86_64 Kernel Module"


def driver_files(machine: Machine, fault: Fault) -> dict[str, str]:
    """What a loaded driver shows."""
    version = versions(machine, fault).loaded
    builder = "  Release Build  (root@gpuops-lab)" if machine.open_kernel_module else ""
    taint = "OE" if machine.open_kernel_module else "POE"
    files = {
        "proc/driver/nvidia/version": (
            f"NVRM version: {module_name(machine)}  {version}{builder}  {BUILT}\n"
            "GCC version:  gcc version 12.2.0 (Debian 12.2.0-14+deb12u1) \n"
        ),
        "proc/modules": f"nvidia 97120256 0 - Live 0x0000000000000000 ({taint})\n",
        "sys/module/nvidia/version": f"{version}\n",
        "sys/module/nvidia/initstate": "live\n",
        "dev/nvidiactl": "",
    }
    if machine.nics:
        files["proc/modules"] += f"nvidia_peermem 16384 0 - Live 0x0000000000000000 ({taint})\n"
        files["sys/module/nvidia_peermem/initstate"] = "live\n"
    if machine.model["persistence"]:
        files[f"{SERVICES}/nvidia-persistenced.service/cgroup.procs"] = "612\n"
    # Without the fabric manager the fabric is never set up.
    if machine.model["fabric"] and fault.name != "fabric_pending":
        files[f"{SERVICES}/nvidia-fabricmanager.service/cgroup.procs"] = "688\n"
    for gpu in seen_by_driver(fault, machine).gpus if fault.name != "no_devices" else []:
        files[f"proc/driver/nvidia/gpus/{gpu.bus_id}/information"] = information(machine, gpu, version)
        files[f"dev/nvidia{gpu.index}"] = ""
    return files


def installed_files(machine: Machine, fault: Fault) -> dict[str, str]:
    """What the packages of a driver leave on disk, for the kernel that runs; an updated kernel has no driver yet."""
    version = versions(machine, fault)
    other_modules = "kernel/drivers/gpu/drm/drm.ko:\n"
    files = {f"lib/modules/{KERNEL}/modules.dep": other_modules}
    if fault.name == "kernel_updated":
        files[f"lib/modules/{NEXT_KERNEL}/modules.dep"] = other_modules
    if fault.name in ("driver_updated", "kernel_updated", "mismatch"):
        files["run/reboot-required"] = "*** System restart required ***\n"
    if fault.name == "not_installed":
        return files
    module = "updates/dkms/nvidia.ko"
    files[f"lib/modules/{KERNEL}/modules.dep"] += f"{module}: kernel/drivers/gpu/drm/drm.ko\n"
    # In a recording a module is a text: what modinfo prints of it.
    license_ = "Dual MIT/GPL" if machine.open_kernel_module else "NVIDIA"
    files[f"lib/modules/{KERNEL}/{module}"] = f"version:        {version.on_disk}\nlicense:        {license_}\n"
    files[f"var/lib/dkms/nvidia/{version.on_disk}/{KERNEL}/x86_64/module/nvidia.ko"] = ""
    if fault.name != "no_library":
        files[f"{LIBRARIES}/libnvidia-ml.so.{version.library}"] = ""
    return files


def information(machine: Machine, gpu: Gpu, version: str) -> str:
    """The driver's own card of one GPU."""
    lines = [
        f"Model: \t\t {machine.product_name}",
        f"IRQ:   \t\t {40 + gpu.index}",
        f"GPU UUID: \t {gpu.uuid}",
        f"Video BIOS: \t {machine.model['vbios']}",
        "Bus Type: \t PCIe",
        "DMA Size: \t 47 bits",
        "DMA Mask: \t 0x7fffffffffff",
        f"Bus Location: \t {gpu.bus_id}",
        f"Device Minor: \t {gpu.index}",
    ]
    if machine.version >= (470,):
        lines.append(f"GPU Firmware: \t {version if machine.open_kernel_module else 'N/A'}")
    return "\n".join(lines) + "\n"


def pci_files(machine: Machine, fault: Fault) -> dict[str, str]:
    """The PCI devices: GPUs, NVSwitches and network adapters."""
    model, pcie = machine.model, machine.model["pcie"]
    files = {}
    for gpu in machine.gpus:
        # What the kernel computes from the all-ones answer of a device that has left the bus.
        gone = is_lost(fault, gpu)
        speed = "Unknown" if gone else f"{GIGATRANSFERS[pcie['generation_now']]} GT/s PCIe"
        for name, text in (
            ("vendor", "0x10de"),
            ("device", f"0x{model['pci_device_id'][:4].lower()}"),
            ("class", f"0x{model['pci_class']}00"),
            ("subsystem_vendor", f"0x{model['pci_subsystem_id'][4:].lower()}"),
            ("subsystem_device", f"0x{model['pci_subsystem_id'][:4].lower()}"),
            ("numa_node", str(gpu.numa_node)),
            ("current_link_width", "63" if gone else str(pcie["width_now"])),
            ("max_link_width", str(pcie["width"])),
            ("current_link_speed", speed),
            ("max_link_speed", f"{GIGATRANSFERS[pcie['generation']]} GT/s PCIe"),
        ):
            files[f"{device(gpu.bus_id)}/{name}"] = f"{text}\n"
    for bus_id in machine.nvswitches:
        files[f"{device(bus_id)}/vendor"] = "0x10de\n"
        files[f"{device(bus_id)}/device"] = f"{NVSWITCH_DEVICE}\n"
        files[f"{device(bus_id)}/class"] = "0x068000\n"
        files[f"{device(bus_id)}/numa_node"] = "0\n"
    for nic in machine.nics:
        files[f"{device(nic.bus_id)}/vendor"] = "0x15b3\n"
        files[f"{device(nic.bus_id)}/device"] = f"{NIC_DEVICE}\n"
        files[f"{device(nic.bus_id)}/class"] = "0x020700\n"
        files[f"{device(nic.bus_id)}/numa_node"] = f"{nic.numa_node}\n"
        files[f"sys/class/infiniband/{nic.name}/ports/1/state"] = "4: ACTIVE\n"
    return files


def device(bus_id: str) -> str:
    """The directory of one PCI device."""
    return f"sys/bus/pci/devices/{bus_id}"


def is_lost(fault: Fault, gpu: Gpu) -> bool:
    """Whether this GPU has fallen off the bus."""
    gone = fault.name in ("gpu_lost_query", "fallen_off_bus") or fault.code == LOST
    return fault.gpu == gpu.index and gone


def kernel_log(machine: Machine, fault: Fault) -> str:
    """The records of /dev/kmsg: the first of all, and those that are about the driver."""
    version = versions(machine, fault).loaded
    # (seconds since boot, level, text)
    records = [(5.0, 6, f"NVRM: loading {module_name(machine)}  {version}  {BUILT}")]
    if fault.name in UNLOADED:
        records = []
    if fault.name == "nouveau":
        records = [(5.0, 6, f"nouveau {gpu.bus_id}: DRM: VRAM: {memory_of(machine)} MiB") for gpu in machine.gpus]
    if fault.name == "mismatch":
        records.append((FAULT_AT, 4, f"NVRM: API mismatch: the client has the version {machine.driver}, but"))
        records.append((FAULT_AT, 4, f"NVRM: this kernel module has the version {version}."))
    if fault.gpu >= 0:
        records += fault_records(machine, fault, machine.gpus[fault.gpu])
    # A log that begins with the boot is a whole one.
    records = [(0.0, 5, f"Linux version {KERNEL} ({CREDIT})"), *sorted(records, key=lambda record: record[0])]
    return "".join(
        f"{level},{number},{round(seconds * 1_000_000)},-;{text}\n"
        for number, (seconds, level, text) in enumerate(records)
    )


def memory_of(machine: Machine) -> int:
    """The memory of one GPU."""
    return int(machine.model["memory_mib"]["total"])


def fault_records(machine: Machine, fault: Fault, gpu: Gpu) -> list[tuple[float, int, str]]:
    """What the driver writes about a fault of one GPU."""
    place = gpu.bus_id.split(".")[0]
    if fault.name == "fallen_off_bus":
        # At start-up the driver says it in two lines and without an Xid, and before it says that it is loaded.
        chip = f"10de:{machine.model['pci_device_id'][:4].lower()}"
        texts = [
            f"NVRM: The NVIDIA GPU {gpu.bus_id}",
            f"NVRM: (PCI ID: {chip}) installed in this system has",
            "NVRM: fallen off the bus and is not responding to commands.",
            f"nvidia: probe of {gpu.bus_id} failed with error -1",
        ]
        return [(4.5, 4, text) for text in texts]
    if is_lost(fault, gpu):
        texts = [f"Xid (PCI:{place}): 79, {XIDS[79]}", f"GPU {gpu.bus_id}: GPU has fallen off the bus."]
    elif fault.xid:
        texts = [f"GPU at PCI:{place}: {gpu.uuid}", f"Xid (PCI:{place}): {fault.xid}, {XIDS[fault.xid]}"]
    elif fault.name == "xid_mig":
        instance = machine.model["mig"][0]["gpu_instance_id"]
        texts = [f"Xid (PCI:{place} GPU-I:{instance:02} GPU-CI:00): 94, {XIDS[94]}"]
    elif fault.name == "xid_storm":
        repeated = f"Xid (PCI:{place}): 31, {XIDS[31]}"
        return [
            *((FAULT_AT + number / 100, 4, f"NVRM: {repeated}") for number in range(40)),
            (FAULT_AT + 5, 4, "NVRM: 214 callbacks suppressed"),
            (FAULT_AT + 5.01, 4, f"NVRM: {repeated}"),
        ]
    else:
        texts = []
    return [(FAULT_AT, 4, f"NVRM: {text}") for text in texts]


def tree(machine: Machine, fault: Fault) -> tuple[dict[str, str], dict[str, str]]:
    """The files and the symbolic links of a machine."""
    loaded = fault.name not in UNLOADED
    files = {
        "proc/modules": "",
        "proc/uptime": f"{UPTIME}.00 {UPTIME * 8}.00\n",
        "proc/sys/kernel/osrelease": f"{KERNEL}\n",
        f"{SERVICES}/ssh.service/cgroup.procs": "501\n",
        "dev/kmsg": kernel_log(machine, fault),
        # Four bytes of attributes, and 0: off.
        SECURE_BOOT: "\6\0\0\0\0",
        **installed_files(machine, fault),
    }
    files.update(driver_files(machine, fault) if loaded else {})
    library = f"libnvidia-ml.so.{versions(machine, fault).library}"
    links = {f"{LIBRARIES}/libnvidia-ml.so.1": library} if f"{LIBRARIES}/{library}" in files else {}
    if fault.name == "no_devices":
        return files, links
    if fault.name == "nouveau":
        files["proc/modules"] = "nouveau 2433024 1 - Live 0x0000000000000000\n"
        files["sys/module/nouveau/initstate"] = "live\n"
    files.update(pci_files(machine, fault))
    kernel_driver = "nvidia" if loaded else "nouveau" if fault.name == "nouveau" else ""
    drivers = {gpu.bus_id: kernel_driver for gpu in seen_by_driver(fault, machine).gpus if kernel_driver}
    drivers.update({bus_id: "nvidia-nvswitch" for bus_id in machine.nvswitches} if loaded else {})
    drivers.update({nic.bus_id: "mlx5_core" for nic in machine.nics})
    for bus_id, name in drivers.items():
        links[f"{device(bus_id)}/driver"] = f"../../../../bus/pci/drivers/{name}"
    for nic in machine.nics:
        links[f"sys/class/infiniband/{nic.name}/device"] = f"../../../bus/pci/devices/{nic.bus_id}"
    return files, links


def answers(machine: Machine, fault: Fault) -> dict[str, str]:
    """What nvidia-smi answers, and beside it the exit code; the names are the arguments."""
    if fault.name in (*HANGS, "slow"):
        raise LabError(f"fault {fault.name!r} is about time, which cannot be recorded; leave --answers out")
    files = {}
    for arguments in ASKED:
        name = f"answers/{'_'.join(arguments)}"
        with redirect_stdout(io.StringIO()) as output:
            code = answer(machine, fault, what_is_asked(list(arguments)), list(arguments))
        files[name] = output.getvalue()
        files[f"{name}.rc"] = f"{code}\n"
    return files


def write_tree(machine: Machine, fault: Fault, dest: Path, *, with_answers: bool = False) -> None:
    """Write the tree of a machine to DEST."""
    if dest.exists() and not (dest / MARKER).exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise LabError(f"{dest} is not an older tree of this program and not empty; choose another --dest")
    files, links = tree(machine, fault)
    files.update(answers(machine, fault) if with_answers else {})
    if dest.exists():
        shutil.rmtree(dest)
    for name, text in {MARKER: "", **files}.items():
        (dest / name).parent.mkdir(parents=True, exist_ok=True)
        (dest / name).write_text(text, encoding="utf-8")
    (dest / "sys/bus/pci/devices").mkdir(parents=True, exist_ok=True)
    for name, target in links.items():
        (dest / name).symlink_to(target)
        if name.startswith("sys/"):
            (dest / name).parent.joinpath(target).mkdir(parents=True, exist_ok=True)
    if fault.name == "dev_root_only":
        for path in dest.glob("dev/nvidia*"):
            path.chmod(0o600)


def main(arguments: list[str]) -> int:
    """Write one tree."""
    parser = argparse.ArgumentParser(description="Write what /proc, /sys and /dev show on a machine type of the lab.")
    parser.add_argument("--machine", required=True, help="a machine type: a name in machines/ without .json")
    parser.add_argument("--dest", required=True, type=Path, help="the directory to write to")
    parser.add_argument("--fault", default="", help="a fault, as in GPUOPS_SIM_FAULT")
    parser.add_argument("--answers", action="store_true", help="write the answers for recorded_smi.sh too")
    options = parser.parse_args(arguments)
    try:
        machine = load_machine(options.machine)
        write_tree(machine, parse_fault(options.fault, machine), options.dest, with_answers=options.answers)
    except (LabError, OSError) as error:
        print(f"sysroot.py of the gpuops.fleet lab: {error}", file=sys.stderr)
        return EXIT_USAGE
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
