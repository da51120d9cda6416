# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The XML of nvidia-smi -q -x: which elements each driver writes, and the document."""

from __future__ import annotations

import time
from dataclasses import dataclass
from html import escape

from _machine import CREDIT, EMPTY, Gpu, Machine, long_bus_id, version_of

# One element a line, children indented. Behind the name: the drivers that write it ("535.261-549,555-" is two ranges,
# both ends included) and the hardware feature it needs (@name). Elements were moved, renamed back, and brought to older
# branches later: that is why a name can stand twice. What has no visible child is a leaf.
SCHEMA = """
product_name
product_brand
product_architecture 510-
display_mode
display_attached 575-
display_active
persistence_mode
addressing_mode 535-
mig_mode 450-
  current_mig
  pending_mig
mig_devices 460-
accounting_mode
accounting_mode_buffer_size
driver_model
  current_dm
  pending_dm
serial
uuid
pdi 580-
minor_number
vbios_version
multigpu_board
board_id
board_part_number 525-
gpu_part_number
gpu_fru_part_number 535-
gpu_module_id 470-569
platformInfo 570-
  chassis_serial_number
  slot_number
  tray_index
  host_id
  peer_type
  module_id
  gpu_fabric_guid
inforom_version
  img_version
  oem_object
  ecc_object
  pwr_object
inforom_bbx_flush 535.261-
  latest_timestamp
  latest_duration
gpu_operation_mode
  current_gom
  pending_gom
gsp_firmware_version 470-549
c2c_mode 550-
gpu_virtualization_mode
  virtualization_mode
  host_vgpu_mode 440-
  vgpu_heterogeneous_mode 550-
gpu_reset_status 535-579
  reset_required
  drain_and_reset_recommended
gpu_recovery_action 570-
gsp_firmware_version 550-
ibmnpu 410-
  relaxed_ordering_mode
pci
  pci_bus
  pci_device
  pci_domain
  pci_base_class 550-
  pci_sub_class 550-
  pci_device_id
  pci_bus_id
  pci_sub_system_id
  pci_gpu_link_info
    pcie_gen
      max_link_gen
      current_link_gen
      device_current_link_gen 525-
      max_device_link_gen 525-
      max_host_link_gen 525-
    link_widths
      max_link_width
      current_link_width
  pci_bridge_chip
    bridge_chip_type
    bridge_chip_fw
  replay_counter
  replay_rollover_counter 418-
  tx_util
  rx_util
  atomic_caps_inbound 525-549
  atomic_caps_outbound 525-
  atomic_caps_inbound 550-
fan_speed
performance_state
clocks_throttle_reasons -534
  clocks_throttle_reason_gpu_idle
  clocks_throttle_reason_applications_clocks_setting
  clocks_throttle_reason_sw_power_cap
  clocks_throttle_reason_hw_slowdown
  clocks_throttle_reason_hw_thermal_slowdown 390-
  clocks_throttle_reason_hw_power_brake_slowdown 390-
  clocks_throttle_reason_sync_boost
  clocks_throttle_reason_sw_thermal_slowdown 390-
  clocks_throttle_reason_display_clocks_setting 390-
clocks_event_reasons 535-
  clocks_event_reason_gpu_idle
  clocks_event_reason_applications_clocks_setting
  clocks_event_reason_sw_power_cap
  clocks_event_reason_hw_slowdown
  clocks_event_reason_hw_thermal_slowdown
  clocks_event_reason_hw_power_brake_slowdown
  clocks_event_reason_sync_boost
  clocks_event_reason_sw_thermal_slowdown
  clocks_event_reason_display_clocks_setting
clocks_event_reasons_counters 575-
  clocks_event_reasons_counters_sw_power_cap
  clocks_event_reasons_counters_sync_boost
  clocks_event_reasons_counters_sw_therm_slowdown
  clocks_event_reasons_counters_hw_therm_slowdown
  clocks_event_reasons_counters_hw_power_brake
sparse_operation_mode 535.261-
fb_memory_usage
  total
  reserved 510-
  used
  free
bar1_memory_usage
  total
  used
  free
cc_protected_memory_usage 535-
  total
  used
  free
compute_mode
utilization
  gpu_util
  memory_util
  encoder_util
  decoder_util
  jpeg_util 535-
  ofa_util 535-
encoder_stats
  session_count
  average_fps
  average_latency
fbc_stats 410-
  session_count
  average_fps
  average_latency
dram_encryption_mode 570-
  current_dram_encryption
  pending_dram_encryption
ecc_mode
  current_ecc
  pending_ecc
ecc_errors
  volatile
    single_bit @location
      device_memory
      register_file
      l1_cache
      l2_cache
      texture_memory
      texture_shm
      cbu
      total
    double_bit @location
      device_memory
      register_file
      l1_cache
      l2_cache
      texture_memory
      texture_shm
      cbu
      total
    sram_correctable @sram @sram_split
    sram_uncorrectable @sram
    sram_uncorrectable_parity @sram_split
    sram_uncorrectable_secded @sram_split
    dram_correctable @sram @sram_split
    dram_uncorrectable @sram @sram_split
  aggregate
    single_bit @location
      device_memory
      register_file
      l1_cache
      l2_cache
      texture_memory
      texture_shm
      cbu
      total
    double_bit @location
      device_memory
      register_file
      l1_cache
      l2_cache
      texture_memory
      texture_shm
      cbu
      total
    sram_correctable @sram @sram_split
    sram_uncorrectable @sram
    sram_uncorrectable_parity @sram_split
    sram_uncorrectable_secded @sram_split
    dram_correctable @sram @sram_split
    dram_uncorrectable @sram @sram_split
    sram_threshold_exceeded @sram_split
  aggregate_uncorrectable_sram_sources @sram_split
    sram_l2
    sram_sm
    sram_microcontroller
    sram_pcie
    sram_other
  channel_repair_pending 580- @sram_split
  tpc_repair_pending 580- @sram_split
  unrepairable_memory 580.173-580,595- @sram_split
retired_pages
  multiple_single_bit_retirement
    retired_count
    retired_page_addresses -409
    retired_pagelist 410-
  double_bit_retirement
    retired_count
    retired_page_addresses -409
    retired_pagelist 410-
  pending_blacklist 418.226-
  pending_retirement
remapped_rows 450-
  remapped_row_corr @remapper
  remapped_row_corr_inactive 580.173-580,595- @remapper
  remapped_row_unc @remapper
  remapped_row_unc_inactive 580.173-580,595- @remapper
  remapped_row_pending @remapper
  remapped_row_failure @remapper
  row_remapper_histogram @remapper
    row_remapper_histogram_max
    row_remapper_histogram_high
    row_remapper_histogram_partial
    row_remapper_histogram_low
    row_remapper_histogram_none
temperature
  gpu_temp
  gpu_temp_tlimit 525-
  gpu_temp_max_threshold @absolute
  gpu_temp_slow_threshold @absolute
  gpu_temp_max_gpu_threshold 390- @absolute
  gpu_temp_max_tlimit_threshold @tlimit
  gpu_temp_slow_tlimit_threshold @tlimit
  gpu_temp_max_gpu_tlimit_threshold @tlimit
  gpu_target_temperature 460-
  memory_temp
  gpu_temp_max_mem_threshold 390- @absolute
  gpu_temp_max_mem_tlimit_threshold @tlimit
supported_gpu_target_temp 460-
  gpu_target_temp_min
  gpu_target_temp_max
power_readings -534
  power_state
  power_management
  power_draw
  power_limit
  default_power_limit
  enforced_power_limit
  min_power_limit
  max_power_limit
gpu_power_readings 535-
  power_state
  power_draw 535-550.162,555-569
  average_power_draw 550.163-550,570-
  instant_power_draw 550.163-550,570-
  current_power_limit
  requested_power_limit
  default_power_limit
  min_power_limit
  max_power_limit
gpu_memory_power_readings 550-
  power_draw 550-550.162,555-569
  average_power_draw 550.163-550,570-
  instant_power_draw 550.163-550,570-
module_power_readings 535-
  power_state
  power_draw 535-550.162,555-569
  average_power_draw 550.163-550,570-
  instant_power_draw 550.163-550,570-
  current_power_limit
  requested_power_limit
  default_power_limit
  min_power_limit
  max_power_limit
power_smoothing 570-
power_profiles 570-
  power_profile_requested_profiles
  power_profile_enforced_profiles
edpp_multiplier 590-
clocks
  graphics_clock
  sm_clock
  mem_clock
  video_clock
applications_clocks
  graphics_clock
  mem_clock
default_applications_clocks
  graphics_clock
  mem_clock
deferred_clocks 525-
  mem_clock
max_clocks
  graphics_clock
  sm_clock
  mem_clock
  video_clock
max_customer_boost_clocks
  graphics_clock
clock_policy
  auto_boost
  auto_boost_default
voltage 470-579
  graphics_volt
fabric 525-
  state
  status
  cliqueId 550-
  clusterUuid 550-
  health 550-
    summary 580-
    bandwidth
    route_recovery_in_progress 570-
    route_unhealthy 570-
    access_timeout_recovery 570-
    incorrect_configuration 580-
    partition_assigned 580.173-580,595-
supported_clocks
processes
accounted_processes
capabilities 555-
  egm
"""


DTDS = ((580, 13), (525, 12), (450, 11), (410, 10), (0, 9))


@dataclass(frozen=True)
class Element:
    """One line of the schema with what is indented below it."""

    name: str
    ranges: list[tuple[tuple[int, ...], tuple[int, ...]]]
    features: list[str]
    children: list[Element]


def parse_schema(text: str) -> list[Element]:
    """Read the indented schema."""
    top: list[Element] = []
    levels = [top]
    for line in text.strip().splitlines():
        name, *conditions = line.split()
        depth = (len(line) - len(line.lstrip())) // 2
        features = [word[1:] for word in conditions if word.startswith("@")]
        ranges = [parse_range(part) for word in conditions if not word.startswith("@") for part in word.split(",")]
        element = Element(name, ranges, features, [])
        levels[depth + 1 :] = [element.children]
        levels[depth].append(element)
    return top


def parse_range(text: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """'535.261-549' as ((535, 261), (549,)); an open end is ()."""
    first, last = text.split("-")
    return version_of(first) if first else (), version_of(last) if last else ()


def is_written(element: Element, machine: Machine) -> bool:
    """Whether nvidia-smi of this machine writes the element."""
    version = machine.version
    in_range = any(first <= version and version[: len(last)] <= last for first, last in element.ranges)
    has_feature = any(feature in machine.features for feature in element.features)
    return (in_range or not element.ranges) and (has_feature or not element.features)


def doctype(version: tuple[int, ...]) -> str:
    """The document type line; 418 wrote none."""
    if version[0] == 418:
        return ""
    number = next(number for first, number in DTDS if version[0] >= first)
    return f'<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v{number}.dtd">\n'


def render_xml(machine: Machine, gpus: list[tuple[Gpu, dict[str, str]]]) -> str:
    """The document for the GPUs that can be opened, with their readings."""
    head = [("timestamp", time.ctime()), ("driver_version", machine.driver)]
    if machine.version >= (410,):
        head.append(("cuda_version", machine.cuda))
    if machine.version >= (610,):
        # No XML of 610 has been recorded in public: the names follow its other outputs.
        head += [("kmd_version", machine.driver), ("cuda_umd_version", machine.cuda)]
    head.append(("attached_gpus", str(len(machine.gpus))))
    lines = [f"\t<{name}>{text}</{name}>" for name, text in head]
    schema = parse_schema(SCHEMA)
    for gpu, values in gpus:
        lines.append(f'\t<gpu id="{long_bus_id(gpu)}">')
        lines += render_elements(schema, machine, values, "", 2)
        lines.append("\t</gpu>")
    body = "\n".join(lines)
    return (
        f'<?xml version="1.0" ?>\n{doctype(machine.version)}<!-- {CREDIT} -->\n'
        f"<nvidia_smi_log>\n{body}\n\n</nvidia_smi_log>\n"
    )


def render_elements(
    elements: list[Element], machine: Machine, values: dict[str, str], above: str, depth: int
) -> list[str]:
    """The lines of some elements that are siblings."""
    tabs = "\t" * depth
    lines: list[str] = []
    for element in elements:
        if not is_written(element, machine):
            continue
        path = above + element.name
        inside = [] if path in values else render_elements(element.children, machine, values, path + "/", depth + 1)
        text = values.get(path, "N/A")
        if text.startswith(EMPTY):
            inside = [f"{tabs}\t{line}" for line in text.splitlines()[1:]]
        if inside or text == EMPTY:
            lines += [f"{tabs}<{element.name}>", *inside, f"{tabs}</{element.name}>"]
        else:
            lines.append(f"{tabs}<{element.name}>{escape(text, quote=False)}</{element.name}>")
    return lines
