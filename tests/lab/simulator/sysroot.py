# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write what /proc, /sys and the kernel log show on a machine type of the lab.

    sysroot.py --machine NAME --dest DIR [--fault FAULT]

DIR is new, empty, or an older tree of this program, which is replaced.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from _faults import LOST, Fault, parse_fault
from _machine import EXIT_USAGE, Gpu, LabError, Machine, load_machine

MARKER = ".gpuops-lab"
BUILT = "Thu Jan  1 00:00:00 UTC 2026"
GIGATRANSFERS = {1: "2.5", 2: "5.0", 3: "8.0", 4: "16.0", 5: "32.0", 6: "64.0"}
NVSWITCH_DEVICE = "0x22a3"


def loaded_driver(machine: Machine, fault: Fault) -> str:
    """The version of the kernel module: with a mismatch the one from before the upgrade."""
    if fault.name != "mismatch":
        return machine.driver
    major, minor, *rest = machine.driver.split(".")
    return ".".join([major, str(int(minor) - 1), *rest])


def module_name(machine: Machine) -> str:
    """How the kernel module calls itself."""
    if machine.open_kernel_module:
        return "NVIDIA UNIX Open Kernel Module for x86_64"
    return "NVIDIA UNIX x86_64 Kernel Module"


def driver_files(machine: Machine, fault: Fault) -> dict[str, str]:
    """What a loaded driver shows."""
    version = loaded_driver(machine, fault)
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
    }
    for gpu in machine.gpus if fault.name != "no_devices" else []:
        files[f"proc/driver/nvidia/gpus/{gpu.bus_id}/information"] = information(machine, gpu, version)
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
    """The PCI devices: GPUs and NVSwitches."""
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
    return files


def device(bus_id: str) -> str:
    """The directory of one PCI device."""
    return f"sys/bus/pci/devices/{bus_id}"


def is_lost(fault: Fault, gpu: Gpu) -> bool:
    """Whether this GPU has fallen off the bus."""
    return fault.gpu == gpu.index and (fault.name == "gpu_lost_query" or fault.code == LOST)


def kernel_log(machine: Machine, fault: Fault) -> str:
    """The records of /dev/kmsg that are about the driver."""
    version = loaded_driver(machine, fault)
    records = [(6, f"NVRM: loading {module_name(machine)}  {version}  {BUILT}")]
    if fault.name == "mismatch":
        records.append((4, f"NVRM: API mismatch: the client has the version {machine.driver}, but"))
        records.append((4, f"NVRM: this kernel module has the version {version}."))
    for gpu in machine.gpus:
        if is_lost(fault, gpu):
            place = gpu.bus_id.split(".")[0]
            xid = "79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
            records.append((4, f"NVRM: Xid (PCI:{place}): {xid}"))
            records.append((4, f"NVRM: GPU {gpu.bus_id}: GPU has fallen off the bus."))
    return "".join(
        f"{level},{900 + number},{5_000_000 + 1_000_000 * number},-;{text}\n"
        for number, (level, text) in enumerate(records)
    )


def tree(machine: Machine, fault: Fault) -> tuple[dict[str, str], dict[str, str]]:
    """The files and the symbolic links of a machine."""
    loaded = fault.name != "no_driver"
    files = {"proc/modules": "", "dev/kmsg": kernel_log(machine, fault) if loaded else ""}
    files.update(driver_files(machine, fault) if loaded else {})
    if fault.name == "no_devices":
        return files, {}
    files.update(pci_files(machine, fault))
    drivers = {gpu.bus_id: "nvidia" for gpu in machine.gpus} if loaded else {}
    drivers.update({bus_id: "nvidia-nvswitch" for bus_id in machine.nvswitches} if loaded else {})
    return files, {
        f"{device(bus_id)}/driver": f"../../../../bus/pci/drivers/{driver}" for bus_id, driver in drivers.items()
    }


def write_tree(machine: Machine, fault: Fault, dest: Path) -> None:
    """Write the tree of a machine to DEST."""
    if dest.exists() and not (dest / MARKER).exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise LabError(f"{dest} is not an older tree of this program and not empty; choose another --dest")
    if dest.exists():
        shutil.rmtree(dest)
    files, links = tree(machine, fault)
    for name, text in {MARKER: "", **files}.items():
        (dest / name).parent.mkdir(parents=True, exist_ok=True)
        (dest / name).write_text(text, encoding="utf-8")
    (dest / "sys/bus/pci/devices").mkdir(parents=True, exist_ok=True)
    for name, target in links.items():
        (dest / name).symlink_to(target)


def main(arguments: list[str]) -> int:
    """Write one tree."""
    parser = argparse.ArgumentParser(description="Write the /proc, /sys and kernel log of a machine type of the lab.")
    parser.add_argument("--machine", required=True, help="a machine type: a name in machines/ without .json")
    parser.add_argument("--dest", required=True, type=Path, help="the directory to write to")
    parser.add_argument("--fault", default="", help="a fault, as in GPUOPS_SIM_FAULT")
    options = parser.parse_args(arguments)
    try:
        machine = load_machine(options.machine)
        write_tree(machine, parse_fault(options.fault, machine), options.dest)
    except (LabError, OSError) as error:
        print(f"sysroot.py of the gpuops.fleet lab: {error}", file=sys.stderr)
        return EXIT_USAGE
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
