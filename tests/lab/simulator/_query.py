# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The CSV of nvidia-smi --query-gpu."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from _machine import Gpu, Machine

# Column, other name, unit, XML path of the reading ("" for what is not a reading), first driver that knows it.
FIELDS = """
timestamp - - - 0
driver_version - - - 0
kmd_version - - - 595
count - - - 0
index - - index 0
name gpu_name - product_name 0
serial gpu_serial - serial 0
uuid gpu_uuid - uuid 0
pci.bus_id gpu_bus_id - pci/pci_bus_id 0
pci.device_id - - pci/pci_device_id 0
pci.sub_device_id - - pci/pci_sub_system_id 0
vbios_version - - vbios_version 0
pcie.link.gen.current - - pci/pci_gpu_link_info/pcie_gen/current_link_gen 0
pcie.link.gen.max - - pci/pci_gpu_link_info/pcie_gen/max_link_gen 0
pcie.link.width.current - - pci/pci_gpu_link_info/link_widths/current_link_width 0
pcie.link.width.max - - pci/pci_gpu_link_info/link_widths/max_link_width 0
display_active - - display_active 0
display_mode - - display_mode 0
persistence_mode - - persistence_mode 0
gpu_recovery_action - - gpu_recovery_action 570
fan.speed - % fan_speed 0
pstate - - performance_state 0
memory.total - MiB fb_memory_usage/total 0
memory.reserved - MiB fb_memory_usage/reserved 510
memory.used - MiB fb_memory_usage/used 0
memory.free - MiB fb_memory_usage/free 0
compute_mode - - compute_mode 0
compute_cap - - compute_cap 510
utilization.gpu - % utilization/gpu_util 0
utilization.memory - % utilization/memory_util 0
utilization.encoder - % utilization/encoder_util 535
utilization.decoder - % utilization/decoder_util 535
ecc.mode.current - - ecc_mode/current_ecc 0
ecc.mode.pending - - ecc_mode/pending_ecc 0
ecc.errors.corrected.volatile.total - - ecc_errors/volatile/dram_correctable 0
ecc.errors.corrected.aggregate.total - - ecc_errors/aggregate/dram_correctable 0
ecc.errors.uncorrected.volatile.total - - ecc_errors/volatile/dram_uncorrectable 0
ecc.errors.uncorrected.aggregate.total - - ecc_errors/aggregate/dram_uncorrectable 0
retired_pages.pending - - retired_pages/pending_retirement 0
remapped_rows.correctable - - remapped_rows/remapped_row_corr 450
remapped_rows.uncorrectable - - remapped_rows/remapped_row_unc 450
remapped_rows.pending - - remapped_rows/remapped_row_pending 450
remapped_rows.failure - - remapped_rows/remapped_row_failure 450
temperature.gpu - - temperature/gpu_temp 0
temperature.gpu.tlimit - - temperature/gpu_temp_tlimit 525
temperature.memory - - temperature/memory_temp 0
power.draw - W power_readings/power_draw 0
power.draw.average - W gpu_power_readings/average_power_draw 535
power.draw.instant - W gpu_power_readings/instant_power_draw 535
power.limit - W power_readings/power_limit 0
enforced.power.limit - W power_readings/enforced_power_limit 0
power.default_limit - W power_readings/default_power_limit 0
power.min_limit - W power_readings/min_power_limit 0
power.max_limit - W power_readings/max_power_limit 0
clocks.current.graphics clocks.gr MHz clocks/graphics_clock 0
clocks.current.sm clocks.sm MHz clocks/sm_clock 0
clocks.current.memory clocks.mem MHz clocks/mem_clock 0
clocks.current.video clocks.video MHz clocks/video_clock 0
clocks.max.graphics clocks.max.gr MHz max_clocks/graphics_clock 0
clocks.max.sm - MHz max_clocks/sm_clock 0
clocks.max.memory clocks.max.mem MHz max_clocks/mem_clock 0
mig.mode.current - - mig_mode/current_mig 450
mig.mode.pending - - mig_mode/pending_mig 450
fabric.state - - fabric/state 525
fabric.status - - fabric/status 525
"""
# The real program leaves these without brackets.
PLAIN = ("temperature.memory", "fabric.state", "fabric.status")


class BadFieldError(Exception):
    """A column that this driver does not know; the whole query fails."""


@dataclass(frozen=True)
class Field:
    """One column."""

    name: str
    unit: str
    path: str


def known_fields(version: tuple[int, ...]) -> dict[str, Field]:
    """The columns of a driver by each of their names."""
    fields: dict[str, Field] = {}
    for line in FIELDS.strip().splitlines():
        name, other, unit, path, first = line.split()
        if version >= (int(first),):
            fields[name] = fields[other] = Field(name, unit.strip("-"), path)
    del fields["-"]
    return fields


def choose_fields(names: list[str], version: tuple[int, ...]) -> list[Field]:
    """The asked columns, in the order asked."""
    known = known_fields(version)
    for name in names:
        if name not in known:
            raise BadFieldError(f'Field "{name}" is not a valid field to query.\n')
    return [known[name] for name in names]


def render_csv(
    machine: Machine, gpus: list[tuple[Gpu, dict[str, str]]], fields: list[Field], *, header: bool, units: bool
) -> str:
    """The rows of the GPUs that can be opened."""
    common = {
        "timestamp": datetime.now().strftime("%Y/%m/%d %H:%M:%S.%f")[:-3],
        "driver_version": machine.driver,
        "kmd_version": machine.driver,
        "count": str(len(machine.gpus)),
    }
    rows = [[f"{field.name} [{field.unit}]" if field.unit else field.name for field in fields]] if header else []
    for _gpu, values in gpus:
        rows.append([cell(field, common.get(field.name) or values.get(field.path), units=units) for field in fields])
    return "".join(", ".join(row) + "\n" for row in rows)


def cell(field: Field, text: str | None, *, units: bool) -> str:
    """One value as CSV writes it: absent and lost in brackets, numbers with the unit of the column."""
    text = text or "N/A"
    number = text.split()[0]
    if number[-1] == "x" and field.name.startswith("pcie.link.width"):
        return number[:-1]
    if field.name.startswith("pci.") and field.name.endswith("device_id"):
        return f"0x{text}"
    if not number.replace(".", "", 1).lstrip("-").isdigit():
        literal = text in ("N/A", "GPU is lost") or text.startswith("Requested functionality")
        return f"[{text}]" if literal and field.name not in PLAIN else text
    if field.name.startswith("temperature."):
        return number
    return text if units or not field.unit else number
