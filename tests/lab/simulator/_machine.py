# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine type of the lab: one small JSON file in machines/, and the readings of its GPUs.

Readings are the texts that nvidia-smi would print, keyed by the path of the XML element. What a GPU does not have is
left out and printed as N/A. Memory sizes are MiB, power is W, clocks are MHz, temperatures are degrees Celsius.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

MACHINES = Path(__file__).resolve().parent / "machines"
EXIT_USAGE = 64
SUFFIX = " (simulated)"
CREDIT = "simulated by the gpuops.fleet lab"
DEPRECATED = "Requested functionality has been deprecated"
# A text that starts so is the inside of its XML element, line by line.
EMPTY = "\n"

EVENT_REASONS = (
    "gpu_idle",
    "applications_clocks_setting",
    "sw_power_cap",
    "hw_slowdown",
    "hw_thermal_slowdown",
    "hw_power_brake_slowdown",
    "sync_boost",
    "sw_thermal_slowdown",
    "display_clocks_setting",
)
THRESHOLDS = ("max", "slow", "max_gpu", "max_mem")
MACHINE_KEYS = {"driver", "cuda", "open_kernel_module", "links", "numa_nodes", "gpu"}
GPU_KEYS = {
    "name",
    "brand",
    "architecture",
    "compute_cap",
    "pci_device_id",
    "pci_subsystem_id",
    "pci_class",
    "vbios",
    "has_serial",
    "board_part_number",
    "gpu_part_number",
    "inforom",
    "memory_mib",
    "bar1_mib",
    "pcie",
    "temperature_c",
    "power_w",
    "clocks_mhz",
    "application_clocks",
    "performance_state",
    "fan_percent",
    "persistence",
    "ecc",
    "ecc_counters",
    "row_remapper_banks",
    "page_retirement",
    "mig",
    "nvlink",
    "fabric",
}


class LabError(Exception):
    """The lab was asked for a machine, a fault or a place that it does not have."""


@dataclass(frozen=True)
class Gpu:
    """Where one GPU sits and who it is."""

    index: int
    bus_id: str
    numa_node: int
    uuid: str
    serial: str


@dataclass(frozen=True)
class Nic:
    """One InfiniBand or RoCE adapter; partner is the bus id of the GPU below the same PCIe switch, "" for none."""

    index: int
    name: str
    bus_id: str
    numa_node: int
    partner: str


@dataclass(frozen=True)
class Machine:
    """One machine type."""

    name: str
    driver: str
    cuda: str
    open_kernel_module: bool
    links: dict[str, str]
    cpus: list[str]
    nvswitches: list[str]
    gpus: list[Gpu]
    nics: list[Nic]
    model: dict[str, Any]

    def without(self, index: int) -> Machine:
        """The machine as its driver sees it when one GPU did not answer at start-up: the others are counted again."""
        left = [gpu for gpu in self.gpus if gpu.index != index]
        return replace(self, gpus=[replace(gpu, index=number) for number, gpu in enumerate(left)])

    @property
    def version(self) -> tuple[int, ...]:
        """The driver version as numbers."""
        return version_of(self.driver)

    @property
    def nvml(self) -> str:
        """The NVML version: the first two numbers of the driver version."""
        return ".".join(self.driver.split(".")[:2])

    @property
    def product_name(self) -> str:
        """The name to show: a simulated GPU is called simulated."""
        return str(self.model["name"]) + SUFFIX

    @property
    def features(self) -> frozenset[str]:
        """What decides, besides the driver, which XML elements are there."""
        model = self.model
        counters = model["ecc_counters"]
        if self.version < (410,):
            counters = "location"
        elif counters == "sram_split" and self.version < (535, 261):
            counters = "sram"
        relative = model["temperature_c"].get("tlimit") is not None and self.version >= (535,)
        present = {counters, "tlimit" if relative else "absolute"}
        if model["row_remapper_banks"] is not None and not model["mig"]:
            present.add("remapper")
        return frozenset(present)


def version_of(text: str) -> tuple[int, ...]:
    """'570.148.08' as (570, 148, 8)."""
    return tuple(int(part) for part in text.split("."))


def known_machines() -> list[str]:
    """The names of all machine types."""
    return sorted(path.stem for path in MACHINES.glob("*.json"))


def load_machine(name: str) -> Machine:
    """Read and check machines/NAME.json."""
    if name not in known_machines():
        raise LabError(f"machine {name!r} is not known; choose one of: {', '.join(known_machines())}")
    try:
        data = json.loads((MACHINES / f"{name}.json").read_text(encoding="utf-8"))
        check_keys(name, "", data, MACHINE_KEYS)
        check_keys(name, "gpu.", data["gpu"], GPU_KEYS)
        places = [(bus_id, node) for node, entry in enumerate(data["numa_nodes"]) for bus_id in entry["gpus"]]
        has_serial = data["gpu"]["has_serial"]
        gpus = [identify(name, index, *place, has_serial=has_serial) for index, place in enumerate(places)]
        return Machine(
            name=name,
            driver=data["driver"],
            cuda=data["cuda"],
            open_kernel_module=data["open_kernel_module"],
            links=data["links"],
            cpus=[entry["cpus"] for entry in data["numa_nodes"]],
            nvswitches=[bus_id for entry in data["numa_nodes"] for bus_id in entry.get("nvswitches", [])],
            gpus=gpus,
            nics=find_nics(data["numa_nodes"], gpus),
            model=data["gpu"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise LabError(f"machines/{name}.json is not a machine: {error!r}") from error


def check_keys(name: str, where: str, data: dict[str, Any], wanted: set[str]) -> None:
    """Refuse a data file that lacks a key or has one too many."""
    wrong = sorted(set(data) ^ wanted)
    if wrong:
        raise LabError(f"machines/{name}.json: missing or unknown: {', '.join(where + key for key in wrong)}")


def identify(machine: str, index: int, bus_id: str, numa_node: int, *, has_serial: bool) -> Gpu:
    """The same GPU of the same machine type has the same identity on every run."""
    seed = f"gpuops.fleet/{machine}/{index}"
    number = int(hashlib.sha256(seed.encode()).hexdigest(), 16) % 10**10
    unique = uuid.uuid5(uuid.NAMESPACE_URL, seed)
    return Gpu(index, bus_id, numa_node, f"GPU-{unique}", f"165{number:010d}" if has_serial else "N/A")


def find_nics(numa_nodes: list[dict[str, Any]], gpus: list[Gpu]) -> list[Nic]:
    """The network adapters: the first of a NUMA node is the partner of its first GPU, and so on."""
    nics: list[Nic] = []
    for node, entry in enumerate(numa_nodes):
        partners = [gpu.bus_id for gpu in gpus if gpu.numa_node == node]
        for position, bus_id in enumerate(entry.get("nics", [])):
            partner = partners[position] if position < len(partners) else ""
            nics.append(Nic(len(nics), f"mlx5_{len(nics)}", bus_id, node, partner))
    return nics


def long_bus_id(gpu: Gpu) -> str:
    """The bus id as NVML writes it: '0000:1b:00.0' is '00000000:1B:00.0'."""
    return "0000" + gpu.bus_id.upper()


def unit(value: Any, suffix: str) -> str:
    """A number with its unit, N/A when there is none."""
    return "N/A" if value is None else f"{value}{suffix}"


def flag(value: Any) -> str:
    """Enabled, Disabled, N/A."""
    return "N/A" if value is None else "Enabled" if value else "Disabled"


def readings(machine: Machine, gpu: Gpu) -> dict[str, str]:
    """What nvidia-smi reads from one idle GPU, by XML path."""
    return {
        **identity_readings(machine, gpu),
        **pci_readings(machine, gpu),
        **state_readings(machine),
        **memory_readings(machine),
        **error_readings(machine),
        **temperature_readings(machine),
        **power_readings(machine),
        **clock_readings(machine),
        **(fabric_readings() if machine.model["fabric"] else {}),
    }


def identity_readings(machine: Machine, gpu: Gpu) -> dict[str, str]:
    """Names, numbers and versions."""
    model = machine.model
    domain, bus, device = (int(part, 16) for part in gpu.bus_id.split(".")[0].split(":"))
    image, oem, ecc = model["inforom"]
    return {
        "index": str(gpu.index),
        "product_name": machine.product_name,
        "product_brand": "NVIDIA" if model["brand"] == "Tesla" and machine.version >= (470,) else model["brand"],
        "product_architecture": model["architecture"],
        "compute_cap": model["compute_cap"],
        "serial": gpu.serial,
        "uuid": gpu.uuid,
        "pdi": f"0x{uuid.UUID(gpu.uuid[4:]).int >> 64:016x}",
        "minor_number": str(gpu.index),
        "vbios_version": model["vbios"],
        "multigpu_board": "No",
        "board_id": f"0x{domain << 16 | bus << 8 | device:x}",
        "board_part_number": model["board_part_number"],
        "gpu_part_number": model["gpu_part_number"],
        "gpu_module_id": "0",
        "platformInfo/module_id": "1",
        "inforom_version/img_version": image,
        "inforom_version/oem_object": oem,
        "inforom_version/ecc_object": ecc,
        "gpu_virtualization_mode/virtualization_mode": "None",
        "gsp_firmware_version": machine.driver if machine.open_kernel_module else "N/A",
    }


def pci_readings(machine: Machine, gpu: Gpu) -> dict[str, str]:
    """The place on the bus and the link."""
    model = machine.model
    domain, bus, device = gpu.bus_id.upper().split(".")[0].split(":")
    pcie = model["pcie"]
    generation, now = str(pcie["generation"]), str(pcie["generation_now"])
    link = "pci/pci_gpu_link_info"
    return {
        "pci/pci_domain": domain,
        "pci/pci_bus": bus,
        "pci/pci_device": device,
        "pci/pci_base_class": "3",
        "pci/pci_sub_class": model["pci_class"][3],
        "pci/pci_device_id": model["pci_device_id"],
        "pci/pci_bus_id": long_bus_id(gpu),
        "pci/pci_sub_system_id": model["pci_subsystem_id"],
        f"{link}/pcie_gen/max_link_gen": generation,
        f"{link}/pcie_gen/current_link_gen": now,
        f"{link}/pcie_gen/device_current_link_gen": now,
        f"{link}/pcie_gen/max_device_link_gen": generation,
        f"{link}/link_widths/max_link_width": f"{pcie['width']}x",
        f"{link}/link_widths/current_link_width": f"{pcie['width_now']}x",
        "pci/replay_counter": "0",
        "pci/replay_rollover_counter": "0",
        "pci/tx_util": "0 KB/s",
        "pci/rx_util": "0 KB/s",
    }


def state_readings(machine: Machine) -> dict[str, str]:
    """Modes, utilization and clock event reasons."""
    model, version = machine.model, machine.version
    mig = None if model["mig"] is None else bool(model["mig"])
    # The driver counts nothing for a GPU that is divided.
    utilization = "N/A" if mig else "0 %"
    active = {name: "Active" if name == "gpu_idle" else "Not Active" for name in EVENT_REASONS}
    return {
        "display_mode": DEPRECATED if version >= (575,) else "Disabled",
        "display_attached": "No",
        "display_active": "Disabled",
        "persistence_mode": flag(model["persistence"]),
        "addressing_mode": "HMM" if machine.open_kernel_module else "None",
        "mig_mode/current_mig": flag(mig),
        "mig_mode/pending_mig": flag(mig),
        "mig_devices": mig_devices(machine),
        "accounting_mode": "Disabled",
        "accounting_mode_buffer_size": "4000",
        **recovery_readings(version),
        "fan_speed": unit(model["fan_percent"], " %"),
        "performance_state": model["performance_state"],
        "compute_mode": "Default",
        **{f"clocks_event_reasons/clocks_event_reason_{name}": text for name, text in active.items()},
        **{f"clocks_throttle_reasons/clocks_throttle_reason_{name}": text for name, text in active.items()},
        **{
            f"clocks_event_reasons_counters/clocks_event_reasons_counters_{name}": "0 us"
            for name in ("sw_power_cap", "sync_boost", "sw_therm_slowdown", "hw_therm_slowdown", "hw_power_brake")
        },
        **{
            f"utilization/{engine}_util": utilization
            for engine in ("gpu", "memory", "encoder", "decoder", "jpeg", "ofa")
        },
        **{
            f"{stats}/{item}": "0"
            for stats in ("encoder_stats", "fbc_stats")
            for item in ("session_count", "average_fps", "average_latency")
        },
        "processes": EMPTY,
        "accounted_processes": EMPTY,
        "capabilities/egm": "disabled",
    }


def recovery_readings(version: tuple[int, ...]) -> dict[str, str]:
    """What the driver asks for: in two elements, and since 570 in one."""
    names = ("gpu_reset_status/reset_required", "gpu_reset_status/drain_and_reset_recommended")
    if version >= (570,):
        return {**dict.fromkeys(names, DEPRECATED), "gpu_recovery_action": "None"}
    return dict.fromkeys(names, "No") if version >= (535,) else {}


def mig_devices(machine: Machine, used_by_first: int = 12) -> str:
    """The parts of a divided GPU, as XML; what runs runs in the first."""
    if not machine.model["mig"]:
        return "\nNone"
    lines = []
    for number, part in enumerate(machine.model["mig"]):
        memory, bar1 = part["memory_mib"], part["bar1_mib"]
        used = 12 if number else used_by_first
        lines += [
            "<mig_device>",
            f"\t<index>{number}</index>",
            f"\t<gpu_instance_id>{part['gpu_instance_id']}</gpu_instance_id>",
            "\t<compute_instance_id>0</compute_instance_id>",
            "\t<device_attributes>",
            "\t\t<shared>",
            *(f"\t\t\t<{key}_count>{count}</{key}_count>" for key, count in part["counts"].items()),
            "\t\t</shared>",
            "\t</device_attributes>",
            "\t<ecc_error_count>",
            "\t\t<volatile_count>",
            "\t\t\t<sram_uncorrectable>0</sram_uncorrectable>",
            "\t\t</volatile_count>",
            "\t</ecc_error_count>",
            "\t<fb_memory_usage>",
            f"\t\t<total>{memory} MiB</total>",
            "\t\t<reserved>0 MiB</reserved>",
            f"\t\t<used>{used} MiB</used>",
            f"\t\t<free>{memory - used} MiB</free>",
            "\t</fb_memory_usage>",
            "\t<bar1_memory_usage>",
            f"\t\t<total>{bar1} MiB</total>",
            "\t\t<used>0 MiB</used>",
            f"\t\t<free>{bar1} MiB</free>",
            "\t</bar1_memory_usage>",
            "</mig_device>",
        ]
    return EMPTY + "\n".join(lines)


def mig_uuid(gpu: Gpu, number: int) -> str:
    """The same part of the same GPU has the same name on every run."""
    return f"MIG-{uuid.uuid5(uuid.NAMESPACE_URL, f'{gpu.uuid}/{number}')}"


def memory_readings(machine: Machine) -> dict[str, str]:
    """Framebuffer and BAR1."""
    total, reserved = machine.model["memory_mib"]["total"], machine.model["memory_mib"]["reserved"]
    # Before 510 what the driver reserves was not counted apart.
    free = total - reserved if machine.version >= (510,) else total
    bar1 = machine.model["bar1_mib"]
    return {
        "fb_memory_usage/total": f"{total} MiB",
        "fb_memory_usage/reserved": f"{reserved} MiB",
        "fb_memory_usage/used": "0 MiB",
        "fb_memory_usage/free": f"{free} MiB",
        "bar1_memory_usage/total": f"{bar1} MiB",
        "bar1_memory_usage/used": "1 MiB",
        "bar1_memory_usage/free": f"{bar1 - 1} MiB",
        "cc_protected_memory_usage/total": "0 MiB",
        "cc_protected_memory_usage/used": "0 MiB",
        "cc_protected_memory_usage/free": "0 MiB",
    }


def error_readings(machine: Machine) -> dict[str, str]:
    """ECC counters, page retirement and row remapping."""
    model = machine.model
    found = {"ecc_mode/current_ecc": flag(model["ecc"]), "ecc_mode/pending_ecc": flag(model["ecc"])}
    if model["ecc"]:
        for period in ("volatile", "aggregate"):
            for counter in (
                "sram_correctable",
                "sram_uncorrectable",
                "sram_uncorrectable_parity",
                "sram_uncorrectable_secded",
                "dram_correctable",
                "dram_uncorrectable",
            ):
                found[f"ecc_errors/{period}/{counter}"] = "0"
            for bits in ("single_bit", "double_bit"):
                for place in ("device_memory", "register_file", "l1_cache", "l2_cache", "texture_memory", "total"):
                    found[f"ecc_errors/{period}/{bits}/{place}"] = "0"
        found["ecc_errors/aggregate/sram_threshold_exceeded"] = "No"
        for source in ("l2", "sm", "microcontroller", "pcie", "other"):
            found[f"ecc_errors/aggregate_uncorrectable_sram_sources/sram_{source}"] = "0"
    found["ecc_errors/channel_repair_pending"] = "No"
    found["ecc_errors/tpc_repair_pending"] = "No"
    if model["page_retirement"]:
        for cause in ("multiple_single_bit_retirement", "double_bit_retirement"):
            found[f"retired_pages/{cause}/retired_count"] = "0"
            found[f"retired_pages/{cause}/retired_pagelist"] = EMPTY
            found[f"retired_pages/{cause}/retired_page_addresses"] = EMPTY
        found["retired_pages/pending_blacklist"] = "No"
        found["retired_pages/pending_retirement"] = "No"
    if "remapper" in machine.features:
        for kind in ("corr", "unc", "corr_inactive", "unc_inactive"):
            found[f"remapped_rows/remapped_row_{kind}"] = "0"
        found["remapped_rows/remapped_row_pending"] = "No"
        found["remapped_rows/remapped_row_failure"] = "No"
        for level in ("max", "high", "partial", "low", "none"):
            banks = model["row_remapper_banks"] if level == "max" else 0
            found[f"remapped_rows/row_remapper_histogram/row_remapper_histogram_{level}"] = f"{banks} bank(s)"
    return found


def temperature_readings(machine: Machine) -> dict[str, str]:
    """Temperatures: the thresholds are degrees, or degrees of margin (tlimit) where the GPU has that."""
    celsius = machine.model["temperature_c"]
    kind = "_tlimit_threshold" if "tlimit" in machine.features else "_threshold"
    found = {
        "temperature/gpu_temp": unit(celsius["gpu"], " C"),
        "temperature/gpu_temp_tlimit": unit(celsius.get("tlimit"), " C"),
        "temperature/memory_temp": unit(celsius.get("memory"), " C"),
        "temperature/gpu_target_temperature": unit(celsius.get("target"), " C"),
    }
    for name, value in zip(THRESHOLDS, celsius["thresholds"]):
        found[f"temperature/gpu_temp_{name}{kind}"] = unit(value, " C")
    return found


def power_readings(machine: Machine) -> dict[str, str]:
    """Power, under the old and the new element names."""
    power, version = machine.model["power_w"], machine.version
    state = DEPRECATED if version >= (590,) else machine.model["performance_state"]
    draw, limit = f"{power['draw']:.2f} W", f"{power['limit']:.2f} W"
    averaged = f"{power['draw']:.2f} W" if power["averaged"] else "N/A"
    limits = {
        "default_power_limit": limit,
        "min_power_limit": f"{power['min']:.2f} W",
        "max_power_limit": f"{power['max']:.2f} W",
    }
    return {
        "power_readings/power_state": state,
        "power_readings/power_management": "Supported",
        "power_readings/power_draw": draw,
        "power_readings/power_limit": limit,
        "power_readings/enforced_power_limit": limit,
        "gpu_power_readings/power_state": state,
        "gpu_power_readings/power_draw": draw,
        "gpu_power_readings/average_power_draw": averaged,
        "gpu_power_readings/instant_power_draw": draw,
        "gpu_power_readings/current_power_limit": limit,
        "gpu_power_readings/requested_power_limit": limit,
        **{f"power_readings/{name}": text for name, text in limits.items()},
        **{f"gpu_power_readings/{name}": text for name, text in limits.items()},
        "module_power_readings/power_state": state,
    }


def clock_readings(machine: Machine) -> dict[str, str]:
    """Clocks now, of applications, and at most."""
    clocks, chosen = machine.model["clocks_mhz"], machine.model["application_clocks"]
    found = {"supported_clocks": supported_clocks(clocks)}
    for group, prefix in (("clocks", ""), ("max_clocks", "max_")):
        for name, key in (("graphics", "graphics"), ("sm", "graphics"), ("mem", "memory"), ("video", "video")):
            found[f"{group}/{name}_clock"] = f"{clocks[prefix + key]} MHz"
    for group in ("applications_clocks", "default_applications_clocks"):
        for position, name in enumerate(("graphics", "mem")):
            value = f"{chosen[position]} MHz" if chosen else "N/A"
            found[f"{group}/{name}_clock"] = DEPRECATED if machine.version >= (590,) else value
    if chosen:
        found["max_customer_boost_clocks/graphics_clock"] = f"{clocks['max_graphics']} MHz"
    return found


def supported_clocks(clocks: dict[str, Any]) -> str:
    """The clocks that can be chosen, as XML: on a real node most of the document."""
    lines = []
    for memory in clocks.get("supported_memory", []):
        steps = range(clocks["max_graphics"], clocks["graphics"] - 1, -15)
        lines += ["<supported_mem_clock>", f"\t<value>{memory} MHz</value>"]
        lines += [f"\t<supported_graphics_clock>{step} MHz</supported_graphics_clock>" for step in steps]
        lines.append("</supported_mem_clock>")
    return EMPTY + "\n".join(lines) if lines else "N/A"


def fabric_readings() -> dict[str, str]:
    """A GPU whose NVSwitch fabric is set up."""
    return {
        "fabric/state": "Completed",
        "fabric/status": "Success",
        "fabric/cliqueId": "0",
        "fabric/clusterUuid": str(uuid.UUID(int=0)),
    }
