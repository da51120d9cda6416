# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One document of `nvidia-smi -q -x` as driver facts and GPU records. **PRIVATE** to the collection.

Elements are found by name: their names change back and forth inside one driver branch and one DTD version.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from ansible_collections.gpuops.fleet.plugins.module_utils._see.gpu.record import Gpu
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.answer import normalise_bus_id

_START = "<nvidia_smi_log"
_END = "</nvidia_smi_log>"
_PROLOGUE = re.compile(r"<\?xml[^>]{0,200}\?>|<!DOCTYPE[^>\[]{0,200}>|<!--.{0,200}?-->", re.DOTALL)
# Single surrogates stand for bytes that were not UTF-8.
_FORBIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_ABSENT = {"", "n/a", "none", "unknown", "not supported", "not found", "requested functionality has been deprecated"}
_VERSION = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9}){1,4}")
_LOST = "GPU is lost"
_NEEDS_RESET = "GPU requires reset"
_ERRORS = {"Unknown Error", "ERR!"}
_FAILURES = {_LOST, _NEEDS_RESET, "Unknown Error", "ERR!", "Insufficient Permissions"}

_CLOCKS_START = "<supported_clocks>"
_CLOCKS_END = "</supported_clocks>"
# A process may have any name, and a MIG device has elements of the names that its GPU has.
_APART = {"mig_devices", "processes", "accounted_processes"}
_DEPTH = 4

# Gives the value, or None for a text that does not have the form.
Reader = Callable[[str], Any]


def _matching(form: str, convert: Callable[[str], Any]) -> Reader:
    """A reader for what stands in the first group of the form."""
    fullmatch = re.compile(form, re.DOTALL).fullmatch

    def read(text: str) -> Any:
        match = fullmatch(text)
        return convert(match[1]) if match else None

    return read


_COUNT = _matching(r"([0-9]{1,18})", int)
_MIB = _matching(r"([0-9]{1,18}) Mi?B", int)
_PERCENT = _matching(r"([0-9]{1,3}) %", int)
_CELSIUS = _matching(r"(-?[0-9]{1,3}) C", int)
_WATT = _matching(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) W", float)
_MHZ = _matching(r"([0-9]{1,9}) MHz", int)
_LANES = _matching(r"([0-9]{1,3})x", int)
_UUID = _matching(r"(GPU-[-0-9a-fA-F]+)", str)
_BUS_ID = _matching(r"([0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7])", normalise_bus_id)
_PSTATE = _matching(r"(P[0-9]{1,2})", str)
_ENABLED: Reader = {"Enabled": True, "Disabled": False}.get
_YES: Reader = {"Yes": True, "No": False}.get
_ACTIVE: Reader = {"Active": True, "Not Active": False}.get


def _text(text: str) -> str | None:
    return None if text in _FAILURES else text


def _fabric_status(text: str) -> str | None:
    # NVML's text for the result of the registration, which may well be "Unknown Error".
    return None if text in (_LOST, _NEEDS_RESET) else text


# Record key, how its text is read, the paths where drivers have put it.
_FIELDS: tuple[tuple[str, Reader, tuple[str, ...]], ...] = (
    ("uuid", _UUID, ("uuid",)),
    ("serial", _text, ("serial",)),
    ("name", _text, ("product_name",)),
    ("architecture", _text, ("product_architecture",)),
    ("vbios_version", _text, ("vbios_version",)),
    ("memory_total_mib", _MIB, ("fb_memory_usage/total",)),
    ("memory_used_mib", _MIB, ("fb_memory_usage/used",)),
    ("memory_free_mib", _MIB, ("fb_memory_usage/free",)),
    ("memory_reserved_mib", _MIB, ("fb_memory_usage/reserved",)),
    ("utilization_gpu_percent", _PERCENT, ("utilization/gpu_util",)),
    ("utilization_memory_percent", _PERCENT, ("utilization/memory_util",)),
    ("temperature_gpu_c", _CELSIUS, ("temperature/gpu_temp",)),
    ("temperature_memory_c", _CELSIUS, ("temperature/memory_temp",)),
    ("temperature_slowdown_c", _CELSIUS, ("temperature/gpu_temp_slow_threshold",)),
    ("temperature_shutdown_c", _CELSIUS, ("temperature/gpu_temp_max_threshold",)),
    ("temperature_margin_c", _CELSIUS, ("temperature/gpu_temp_tlimit",)),
    (
        "power_draw_w",
        _WATT,
        (
            "gpu_power_readings/power_draw",
            "gpu_power_readings/average_power_draw",
            "gpu_power_readings/instant_power_draw",
            "power_readings/power_draw",
        ),
    ),
    (
        "power_limit_w",
        _WATT,
        ("gpu_power_readings/current_power_limit", "power_readings/enforced_power_limit", "power_readings/power_limit"),
    ),
    (
        "power_limit_default_w",
        _WATT,
        ("gpu_power_readings/default_power_limit", "power_readings/default_power_limit"),
    ),
    ("power_limit_max_w", _WATT, ("gpu_power_readings/max_power_limit", "power_readings/max_power_limit")),
    ("clock_graphics_mhz", _MHZ, ("clocks/graphics_clock",)),
    ("clock_sm_mhz", _MHZ, ("clocks/sm_clock",)),
    ("clock_memory_mhz", _MHZ, ("clocks/mem_clock",)),
    ("clock_graphics_max_mhz", _MHZ, ("max_clocks/graphics_clock",)),
    ("clock_sm_max_mhz", _MHZ, ("max_clocks/sm_clock",)),
    ("clock_memory_max_mhz", _MHZ, ("max_clocks/mem_clock",)),
    ("performance_state", _PSTATE, ("performance_state",)),
    ("persistence_mode", _ENABLED, ("persistence_mode",)),
    ("compute_mode", _text, ("compute_mode",)),
    ("ecc_mode_current", _ENABLED, ("ecc_mode/current_ecc",)),
    ("ecc_mode_pending", _ENABLED, ("ecc_mode/pending_ecc",)),
    ("ecc_sram_threshold_exceeded", _YES, ("ecc_errors/aggregate/sram_threshold_exceeded",)),
    ("mig_mode_current", _ENABLED, ("mig_mode/current_mig",)),
    ("mig_mode_pending", _ENABLED, ("mig_mode/pending_mig",)),
    ("pcie_link_gen_current", _COUNT, ("pci/pci_gpu_link_info/pcie_gen/current_link_gen",)),
    ("pcie_link_gen_max", _COUNT, ("pci/pci_gpu_link_info/pcie_gen/max_link_gen",)),
    ("pcie_link_width_current", _LANES, ("pci/pci_gpu_link_info/link_widths/current_link_width",)),
    ("pcie_link_width_max", _LANES, ("pci/pci_gpu_link_info/link_widths/max_link_width",)),
    ("pcie_replay_count", _COUNT, ("pci/replay_counter",)),
)

_THROTTLE_REASONS = tuple(
    (
        reason,
        f"clocks_event_reasons/clocks_event_reason_{reason}",
        f"clocks_throttle_reasons/clocks_throttle_reason_{reason}",
    )
    for reason in (
        "gpu_idle",
        "sw_power_cap",
        "hw_slowdown",
        "hw_thermal_slowdown",
        "hw_power_brake_slowdown",
        "sync_boost",
        "sw_thermal_slowdown",
        "applications_clocks_setting",
        "display_clocks_setting",
    )
)
# "index" counts within the GPU and is what `nvidia-smi -L` calls the device; the list has the UUID and the profile.
NO_MIG_DEVICE: dict[str, Any] = dict.fromkeys(
    (
        "index",
        "uuid",
        "profile",
        "gpu_instance_id",
        "compute_instance_id",
        "memory_total_mib",
        "memory_used_mib",
    )
)
_RECOVERY_ACTIONS = {"reset": "gpu reset", "reboot": "node reboot"}


class NvidiaSmiXmlError(Exception):
    """The document is not a whole, well-formed nvidia_smi_log."""


@dataclass(frozen=True)
class GpuVerdict:
    """State of a GPU by its own fields; empty texts when they say nothing."""

    lost: bool = False
    recovery_action: str = ""
    failed: bool = False


@dataclass(frozen=True)
class SmiLog:
    """A parsed document."""

    driver_version: str | None
    cuda_version: str | None
    attached_gpus: int | None
    gpus: tuple[Gpu, ...]
    verdicts: tuple[GpuVerdict, ...]


@dataclass(frozen=True)
class _Fields:
    """The texts of one GPU by the path of their element, and what was found in the place of a value."""

    texts: dict[str, str]
    errors: dict[str, str] = field(default_factory=dict)

    def get(self, key: str, read: Reader, *paths: str) -> Any:
        """The first value; when there is none, the first text that is not one is the key's error."""
        error = ""
        for path in paths:
            text = self.texts.get(path, "")
            if text.lower() in _ABSENT:
                continue
            value = read(text)
            if value is not None:
                return value
            error = error or text
        if error:
            self.errors.setdefault(key, error)
        return None

    def group(self, key: str, path: str, parts: dict[str, tuple[Reader, str]]) -> dict[str, Any] | None:
        """Several values under one key; None when there is not one."""
        self.get(key, _no_value, path)
        values = {name: self.get(key, read, f"{path}/{child}") for name, (read, child) in parts.items()}
        return values if any(value is not None for value in values.values()) else None


def cut_document(output: str) -> tuple[str, str]:
    """Split nvidia-smi's output into the text around the document and the document (empty when there is none)."""
    start = output.find(_START)
    if start < 0:
        start = stop = len(output)
    else:
        end = output.find(_END, start)
        stop = end + len(_END) if end >= 0 else len(output)
    around = _PROLOGUE.sub("", output[:start] + output[stop:])
    return "\n".join(line for line in around.splitlines() if line.strip()), output[start:stop]


def parse_log(document: str) -> SmiLog:
    """Parse one document that cut_document() gave."""
    if not document.endswith(_END):
        raise NvidiaSmiXmlError("the XML document ends too early")
    if "<!DOCTYPE" in document or "<!ENTITY" in document:
        raise NvidiaSmiXmlError("the XML document declares entities")
    root = _root(_without_supported_clocks(document))
    gpus, verdicts = [], []
    for index, element in enumerate(root.findall("gpu")):
        fields = _Fields(_texts(element, _DEPTH))
        action = _recovery_action(fields)
        gpus.append(_gpu(index, element, fields, action))
        asked = "" if action in (None, "None") else action
        elsewhere = [text for path, text in fields.texts.items() if path != "fabric/status"]
        verdicts.append(GpuVerdict(_LOST in fields.texts.values(), asked, not _ERRORS.isdisjoint(elsewhere)))
    head = _Fields(_texts(root, 1))
    return SmiLog(
        driver_version=_version(head, "kmd_version", "driver_version"),
        cuda_version=_version(head, "cuda_umd_version", "cuda_version"),
        attached_gpus=head.get("", _COUNT, "attached_gpus"),
        gpus=tuple(gpus),
        verdicts=tuple(verdicts),
    )


def _without_supported_clocks(document: str) -> str:
    """Half of a long document is this list, which nothing here reads."""
    first, *others = document.split(_CLOCKS_START)
    kept = [first]
    for part in others:
        end = part.find(_CLOCKS_END)
        whole = end >= 0 and part.find("</gpu>", 0, end) < 0
        kept.append(part[end + len(_CLOCKS_END) :] if whole else _CLOCKS_START + part)
    return "".join(kept)


def _root(document: str) -> ET.Element:
    try:
        return ET.fromstring(document)
    except (ET.ParseError, UnicodeEncodeError):
        # A process name may hold characters that XML forbids; in a value they must stay visible as damage.
        document = _FORBIDDEN.sub("\ufffd", document)
    try:
        return ET.fromstring(document)
    except ET.ParseError as exc:
        raise NvidiaSmiXmlError(f"the XML document is malformed: {exc}") from exc


def _texts(element: ET.Element, depth: int) -> dict[str, str]:
    """The texts of the elements below, by their paths; the first of two with one path."""
    found: dict[str, str] = {}
    _gather(element, "", depth, found)
    return found


def _gather(element: ET.Element, prefix: str, depth: int, found: dict[str, str]) -> None:
    for child in element:
        if not len(child):
            found.setdefault(prefix + child.tag, _clean(child.text or ""))
        elif depth > 1 and child.tag not in _APART:
            _gather(child, f"{prefix}{child.tag}/", depth - 1, found)


@lru_cache(maxsize=1024)
def _clean(text: str) -> str:
    return text.strip().strip("[]").strip()


def _no_value(text: str) -> None:
    """Read nothing of an element that has children where the driver knows something."""


def _version(head: _Fields, *names: str) -> str | None:
    for name in names:
        match = _VERSION.match(head.texts.get(name, ""))
        if match:
            return match[0]
    return None


def _gpu(index: int, element: ET.Element, fields: _Fields, action: str | None) -> Gpu:
    record = {key: fields.get(key, read, *paths) for key, read, paths in _FIELDS}
    fields.texts["id"] = element.get("id", "")
    action = action.lower() if action else None
    return Gpu(
        **record,
        index=index,
        bus_id=fields.get("bus_id", _BUS_ID, "pci/pci_bus_id", "id"),
        throttle_reasons=_throttle_reasons(fields),
        ecc_errors_volatile=_ecc_errors(fields, "volatile"),
        ecc_errors_aggregate=_ecc_errors(fields, "aggregate"),
        retired_pages=_retired_pages(fields),
        remapped_rows=fields.group(
            "remapped_rows",
            "remapped_rows",
            {
                "correctable": (_COUNT, "remapped_row_corr"),
                "uncorrectable": (_COUNT, "remapped_row_unc"),
                "pending": (_YES, "remapped_row_pending"),
                "failure": (_YES, "remapped_row_failure"),
            },
        ),
        mig_devices=_mig_devices(element, fields),
        fabric=fields.group(
            "fabric",
            "fabric",
            {"state": (_text, "state"), "status": (_fabric_status, "status"), "health": (_text, "health/summary")},
        ),
        recovery_action=_RECOVERY_ACTIONS.get(action, action) if action else None,
        processes=_processes(element, fields),
        errors=fields.errors,
    )


def _throttle_reasons(fields: _Fields) -> list[str] | None:
    reasons = {name: fields.get("throttle_reasons", _ACTIVE, *paths) for name, *paths in _THROTTLE_REASONS}
    if all(active is None for active in reasons.values()):
        return None
    return [name for name, active in reasons.items() if active]


def _ecc_errors(fields: _Fields, period: str) -> dict[str, int | None] | None:
    key = f"ecc_errors_{period}"

    def total(*names: str) -> int | None:
        counts = [fields.get(key, _COUNT, f"ecc_errors/{period}/{name}") for name in names]
        known = [count for count in counts if count is not None]
        return sum(known) if known else None

    corrected = total("sram_correctable", "dram_correctable")
    uncorrected = total(
        "sram_uncorrectable", "sram_uncorrectable_parity", "sram_uncorrectable_secded", "dram_uncorrectable"
    )
    if corrected is None and uncorrected is None:
        corrected, uncorrected = total("single_bit/total"), total("double_bit/total")
    # A sum that lacks a counter that could not be read is too low.
    if key in fields.errors or (corrected is None and uncorrected is None):
        return None
    return {"corrected": corrected, "uncorrected": uncorrected}


def _retired_pages(fields: _Fields) -> dict[str, Any] | None:
    pages = fields.group(
        "retired_pages",
        "retired_pages",
        {
            "single_bit": (_COUNT, "multiple_single_bit_retirement/retired_count"),
            "double_bit": (_COUNT, "double_bit_retirement/retired_count"),
            "pending": (_YES, "pending_retirement"),
            "pending_blacklist": (_YES, "pending_blacklist"),
        },
    )
    if pages:
        # Two names for one thing; newer drivers write both, and one of them may be N/A.
        other = pages.pop("pending_blacklist")
        pages["pending"] = other if pages["pending"] is None else pages["pending"] or bool(other)
    return pages


def _mig_devices(element: ET.Element, fields: _Fields) -> list[dict[str, Any]]:
    fields.get("mig_devices", _no_value, "mig_devices")
    devices = []
    for device in element.iterfind("mig_devices/mig_device"):
        values = _Fields(_texts(device, 2), fields.errors)
        devices.append(
            {
                **NO_MIG_DEVICE,
                "index": values.get("mig_devices", _COUNT, "index"),
                "gpu_instance_id": values.get("mig_devices", _COUNT, "gpu_instance_id"),
                "compute_instance_id": values.get("mig_devices", _COUNT, "compute_instance_id"),
                "memory_total_mib": values.get("mig_devices", _MIB, "fb_memory_usage/total"),
                "memory_used_mib": values.get("mig_devices", _MIB, "fb_memory_usage/used"),
            }
        )
    return devices


def _processes(element: ET.Element, fields: _Fields) -> list[dict[str, Any]] | None:
    container = element.find("processes")
    if container is None:
        return None
    if not len(container) and _clean(container.text or "").lower() not in ("", "none"):
        fields.get("processes", _no_value, "processes")
        return None
    found = []
    for process in container.iterfind("process_info"):
        values = _Fields(_texts(process, 1), fields.errors)
        pid = values.get("processes", _COUNT, "pid")
        if pid is not None:
            found.append(
                {
                    "pid": pid,
                    "name": values.get("", str, "process_name"),
                    "type": values.get("processes", _text, "type"),
                    "memory_used_mib": values.get("processes", _MIB, "used_memory"),
                    "gpu_instance_id": values.get("processes", _COUNT, "gpu_instance_id"),
                    "compute_instance_id": values.get("processes", _COUNT, "compute_instance_id"),
                }
            )
    return found


def _recovery_action(fields: _Fields) -> str | None:
    """The driver's verdict in its own words; "None" is one: nothing is to be done."""
    action = fields.texts.get("gpu_recovery_action", "")
    if action.lower() not in _ABSENT and action not in _FAILURES:
        return action
    reset = fields.texts.get("gpu_reset_status/reset_required")
    if reset == "Yes" or _NEEDS_RESET in fields.texts.values():
        return "Reset"
    if fields.texts.get("gpu_reset_status/drain_and_reset_recommended") == "Yes":
        return "Drain and Reset"
    return "None" if action == "None" or reset == "No" else None
