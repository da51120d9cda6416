# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A GPU at work: its readings and its process. Nothing of it is a fault."""

from __future__ import annotations

from dataclasses import dataclass

from _machine import DEPRECATED, EMPTY, SUFFIX, Gpu, Machine, mig_devices, readings

WARMER = 28


@dataclass(frozen=True)
class Process:
    """What runs on a GPU; instance is the GPU instance of a divided one."""

    pid: int
    name: str
    instance: str
    compute_instance: str
    memory_mib: int


def process_of(machine: Machine, gpu: Gpu) -> Process:
    """The one process of a GPU at work: it has more than half of the memory of the GPU, or of its first part."""
    parts = machine.model["mig"]
    total = parts[0]["memory_mib"] if parts else machine.model["memory_mib"]["total"]
    instance = str(parts[0]["gpu_instance_id"]) if parts else "N/A"
    return Process(4242 + gpu.index, f"python3{SUFFIX}", instance, "0" if parts else "N/A", total * 6 // 10)


def at_work(machine: Machine, gpu: Gpu) -> dict[str, str]:
    """The readings of one GPU that computes at its power limit."""
    idle = readings(machine, gpu)
    process = process_of(machine, gpu)
    draw = f"{machine.model['power_w']['limit'] - 1.37:.2f} W"
    reasons = ("clocks_event_reasons/clocks_event_reason_", "clocks_throttle_reasons/clocks_throttle_reason_")
    power = ("gpu_power_readings/", "power_readings/")
    generations = ("current_link_gen", "device_current_link_gen")
    busy = {
        "performance_state": "P0",
        "fan_speed": "64 %",
        "utilization/gpu_util": "98 %",
        "utilization/memory_util": "61 %",
        "fb_memory_usage/used": f"{process.memory_mib} MiB",
        "fb_memory_usage/free": f"{number(idle['fb_memory_usage/free']) - process.memory_mib} MiB",
        "mig_devices": mig_devices(machine, process.memory_mib),
        **{f"pci/pci_gpu_link_info/pcie_gen/{name}": str(machine.model["pcie"]["generation"]) for name in generations},
        "pci/tx_util": "412000 KB/s",
        "pci/rx_util": "98000 KB/s",
        "clocks_event_reasons_counters/clocks_event_reasons_counters_sw_power_cap": "7214000451 us",
        **{f"{prefix}gpu_idle": "Not Active" for prefix in reasons},
        **{f"{prefix}sw_power_cap": "Active" for prefix in reasons},
        **{f"clocks/{name}_clock": idle[f"max_clocks/{name}_clock"] for name in ("graphics", "sm", "mem", "video")},
        **{f"{prefix}{name}power_draw": draw for prefix in power for name in ("", "average_", "instant_")},
        **{f"{prefix}power_state": "P0" for prefix in power},
        # The margin shrinks by as much as the temperature grows.
        **warmer(idle, "temperature/gpu_temp", WARMER),
        **warmer(idle, "temperature/memory_temp", WARMER),
        **warmer(idle, "temperature/gpu_temp_tlimit", -WARMER),
        "processes": process_info(machine, process),
    }
    return change(idle, busy)


def change(values: dict[str, str], wanted: dict[str, str]) -> dict[str, str]:
    """The readings with others in their place; what this GPU does not have stays N/A."""
    possible = {path: text for path, text in wanted.items() if values.get(path, "N/A") not in ("N/A", DEPRECATED)}
    return {**values, **possible}


def number(text: str) -> int:
    """'33 C' as 33."""
    return int(text.split()[0])


def warmer(values: dict[str, str], path: str, degrees: int) -> dict[str, str]:
    """One temperature or margin with some degrees more, where there is one."""
    return {} if values[path] == "N/A" else {path: f"{number(values[path]) + degrees} C"}


def process_info(machine: Machine, process: Process) -> str:
    """The process as XML; which instance it is in was added with MIG."""
    lines = [
        f"\t<gpu_instance_id>{process.instance}</gpu_instance_id>",
        f"\t<compute_instance_id>{process.compute_instance}</compute_instance_id>",
        f"\t<pid>{process.pid}</pid>",
        "\t<type>C</type>",
        f"\t<process_name>{process.name}</process_name>",
        f"\t<used_memory>{process.memory_mib} MiB</used_memory>",
    ]
    return EMPTY + "\n".join(["<process_info>", *lines[0 if machine.version >= (450,) else 2 :], "</process_info>"])
