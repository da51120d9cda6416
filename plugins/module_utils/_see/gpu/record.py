# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One GPU as gpu_probe returns it, whoever read it. **PRIVATE** to the collection.

The units are in the names. None is what the driver does not know; a text in the place of a value is in ``errors``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Gpu:
    """The keys of one entry of RV(gpus)."""

    index: int | None = None
    uuid: str | None = None
    serial: str | None = None
    name: str | None = None
    architecture: str | None = None
    compute_capability: str | None = None
    bus_id: str | None = None
    vbios_version: str | None = None
    memory_total_mib: int | None = None
    memory_used_mib: int | None = None
    memory_free_mib: int | None = None
    memory_reserved_mib: int | None = None
    utilization_gpu_percent: int | None = None
    utilization_memory_percent: int | None = None
    # Either degrees, or degrees that are left (margin): never one under the name of the other.
    temperature_gpu_c: int | None = None
    temperature_memory_c: int | None = None
    temperature_slowdown_c: int | None = None
    temperature_shutdown_c: int | None = None
    temperature_margin_c: int | None = None
    power_draw_w: float | None = None
    power_limit_w: float | None = None
    power_limit_default_w: float | None = None
    power_limit_max_w: float | None = None
    clock_graphics_mhz: int | None = None
    clock_sm_mhz: int | None = None
    clock_memory_mhz: int | None = None
    clock_graphics_max_mhz: int | None = None
    clock_sm_max_mhz: int | None = None
    clock_memory_max_mhz: int | None = None
    performance_state: str | None = None
    # The active ones, named as the driver names them: gpu_idle, sw_power_cap, hw_slowdown, hw_thermal_slowdown,
    # hw_power_brake_slowdown, sync_boost, sw_thermal_slowdown, applications_clocks_setting, display_clocks_setting.
    throttle_reasons: list[str] | None = None
    persistence_mode: bool | None = None
    compute_mode: str | None = None
    ecc_mode_current: bool | None = None
    ecc_mode_pending: bool | None = None
    # Each {"corrected": int | None, "uncorrected": int | None}
    ecc_errors_volatile: dict[str, int | None] | None = None
    ecc_errors_aggregate: dict[str, int | None] | None = None
    ecc_sram_threshold_exceeded: bool | None = None
    # {"single_bit": int | None, "double_bit": int | None, "pending": bool | None}
    retired_pages: dict[str, Any] | None = None
    # {"correctable": int | None, "uncorrectable": int | None, "pending": bool | None, "failure": bool | None}
    remapped_rows: dict[str, Any] | None = None
    mig_mode_current: bool | None = None
    mig_mode_pending: bool | None = None
    # Each {"index" (that of `nvidia-smi -L`), "uuid", "profile", "gpu_instance_id", "compute_instance_id",
    #       "memory_total_mib", "memory_used_mib"}
    mig_devices: list[dict[str, Any]] = field(default_factory=list)
    pcie_link_gen_current: int | None = None
    pcie_link_gen_max: int | None = None
    pcie_link_width_current: int | None = None
    pcie_link_width_max: int | None = None
    pcie_replay_count: int | None = None
    numa_node: int | None = None
    # Each {"link": int, "active": bool, "speed_gbyte_s": float | None}; None when nobody could tell.
    nvlinks: list[dict[str, Any]] | None = None
    # {"state": str | None, "status": str | None, "health": str | None}
    fabric: dict[str, Any] | None = None
    # The driver's own verdict, in lower case: none, gpu reset, node reboot, drain p2p, drain and reset, ...
    recovery_action: str | None = None
    # Each {"pid": int, "name": str | None, "type": str | None, "memory_used_mib": int | None,
    #       "gpu_instance_id": int | None, "compute_instance_id": int | None}; None when nobody could tell.
    processes: list[dict[str, Any]] | None = None
    errors: dict[str, str] = field(default_factory=dict)
