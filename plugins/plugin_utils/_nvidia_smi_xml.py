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
from typing import Any

from ansible_collections.gpuops.fleet.plugins.plugin_utils._gpu_answer import normalise_bus_id

_START = "<nvidia_smi_log"
_END = "</nvidia_smi_log>"
_PROLOGUE = re.compile(r"<\?xml[^>]*\?>|<!DOCTYPE[^>\[]*>|<!--.*?-->", re.DOTALL)
_ABSENT = {"", "n/a", "none", "not supported", "not found", "requested functionality has been deprecated"}
_VERSION = re.compile(r"\d+(?:\.\d+)+")
_TEXT = r"(?!(?:GPU is lost|GPU requires reset|Unknown Error|ERR!|Insufficient Permissions)$).+"


def _number(text: str) -> int:
    return int(re.sub(r"[^-0-9]", "", text))


def _enabled(text: str) -> bool:
    return text == "Enabled"


# Record key, the form that the text must have, conversion, the paths where drivers have put it.
_FIELDS: tuple[tuple[str, str, Callable[[str], Any], tuple[str, ...]], ...] = (
    ("uuid", r"GPU-[-0-9a-fA-F]+", str, ("uuid",)),
    ("serial", _TEXT, str, ("serial",)),
    ("name", _TEXT, str, ("product_name",)),
    ("vbios_version", _TEXT, str, ("vbios_version",)),
    ("memory_total_mib", r"\d+ Mi?B", _number, ("fb_memory_usage/total",)),
    ("memory_used_mib", r"\d+ Mi?B", _number, ("fb_memory_usage/used",)),
    ("utilization_gpu_percent", r"\d+ %", _number, ("utilization/gpu_util",)),
    ("temperature_gpu_c", r"-?\d+ C", _number, ("temperature/gpu_temp",)),
    (
        "power_draw_w",
        r"\d+(?:\.\d+)? W",
        lambda text: float(text[:-2]),
        (
            "gpu_power_readings/power_draw",
            "gpu_power_readings/average_power_draw",
            "gpu_power_readings/instant_power_draw",
            "power_readings/power_draw",
        ),
    ),
    ("persistence_mode", r"Enabled|Disabled", _enabled, ("persistence_mode",)),
    ("ecc_mode_current", r"Enabled|Disabled", _enabled, ("ecc_mode/current_ecc",)),
    ("mig_mode_current", r"Enabled|Disabled", _enabled, ("mig_mode/current_mig",)),
    ("pcie_link_width_current", r"\d+x", _number, ("pci/pci_gpu_link_info/link_widths/current_link_width",)),
)


class NvidiaSmiXmlError(Exception):
    """The document is not a whole, well-formed nvidia_smi_log."""


@dataclass(frozen=True)
class Gpu:
    """One GPU; the units are in the names, None is what the driver does not know."""

    index: int | None = None
    uuid: str | None = None
    serial: str | None = None
    name: str | None = None
    bus_id: str | None = None
    vbios_version: str | None = None
    memory_total_mib: int | None = None
    memory_used_mib: int | None = None
    utilization_gpu_percent: int | None = None
    temperature_gpu_c: int | None = None
    power_draw_w: float | None = None
    persistence_mode: bool | None = None
    ecc_mode_current: bool | None = None
    mig_mode_current: bool | None = None
    pcie_link_width_current: int | None = None
    errors: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class GpuVerdict:
    """What a GPU's own fields say of its state; empty texts when they say nothing."""

    lost: bool = False
    recovery_action: str = ""


@dataclass(frozen=True)
class SmiLog:
    """A parsed document."""

    driver_version: str | None
    cuda_version: str | None
    attached_gpus: int | None
    gpus: tuple[Gpu, ...]
    verdicts: tuple[GpuVerdict, ...]


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
    # A process name may hold characters that XML forbids; in a value they must stay visible as damage.
    document = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", "\ufffd", document)
    try:
        root = ET.fromstring(document)
    except ET.ParseError as exc:
        raise NvidiaSmiXmlError(f"the XML document is malformed: {exc}") from exc
    elements = root.findall("gpu")
    attached = _text(root, "attached_gpus") or ""
    return SmiLog(
        driver_version=_version(root, "kmd_version", "driver_version"),
        cuda_version=_version(root, "cuda_umd_version", "cuda_version"),
        attached_gpus=int(attached) if attached.isdecimal() else None,
        gpus=tuple(_gpu(index, element) for index, element in enumerate(elements)),
        verdicts=tuple(_verdict(element) for element in elements),
    )


def _text(element: ET.Element, path: str) -> str | None:
    """The element's text, None when it is not there or says that there is nothing to say."""
    text = (element.findtext(path) or "").strip().strip("[]").strip()
    return None if text.lower() in _ABSENT else text


def _version(root: ET.Element, *names: str) -> str | None:
    for name in names:
        match = _VERSION.match(_text(root, name) or "")
        if match:
            return match[0]
    return None


def _gpu(index: int, element: ET.Element) -> Gpu:
    record: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for key, form, convert, paths in _FIELDS:
        for text in filter(None, (_text(element, path) for path in paths)):
            if re.fullmatch(form, text, re.DOTALL):
                record[key] = convert(text)
                break
            errors.setdefault(key, text)
        if key in record:
            errors.pop(key, None)
    bus_id = _text(element, "pci/pci_bus_id") or element.get("id")
    return Gpu(index=index, bus_id=normalise_bus_id(bus_id) if bus_id else None, errors=errors, **record)


def _verdict(element: ET.Element) -> GpuVerdict:
    # A process may be called "GPU is lost".
    texts = {(item.text or "").strip().strip("[]") for item in element.iter() if item.tag != "process_name"}
    action = _text(element, "gpu_recovery_action") or ""
    if not action and ("GPU requires reset" in texts or _text(element, "gpu_reset_status/reset_required") == "Yes"):
        action = "Reset"
    return GpuVerdict(lost="GPU is lost" in texts, recovery_action=action)
