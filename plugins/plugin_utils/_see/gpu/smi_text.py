# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What `nvidia-smi -q -x` leaves out, from the texts of its other commands. **PRIVATE** to the collection.

A text that is cut or of a form that nobody has seen gives what can be read of it, never an exception.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.gpuops.fleet.plugins.module_utils._see.gpu.record import Gpu
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.answer import normalise_bus_id
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.smi_xml import NO_MIG_DEVICE

_GPU_LINE = re.compile(r"GPU ([0-9]{1,4}): (.*) \(UUID: ([^()]*)\)")
_UUID = re.compile(r"GPU-[-0-9a-fA-F]+")
_MIG_LINE = re.compile(r"\s+MIG (\S{1,40})\s+Device\s+([0-9]{1,4}): \(UUID: (MIG-[-/0-9a-zA-Z]+)\)")
_HANDLE_LINE = re.compile(r"Unable to determine the device handle for gpu\s*([0-9a-fA-F:.]+?): (.*)", re.IGNORECASE)
_BUS_ID = re.compile(r"[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]")
_COMPUTE_LINE = re.compile(r"(GPU-[-0-9a-fA-F]+), *([0-9]{1,3}\.[0-9]{1,2})\s*")
_LINK_LINE = re.compile(
    r"\s+Link ([0-9]{1,3}): (?:([0-9]{1,6}(?:\.[0-9]{1,6})?) GB/s|<?(inactive)>?)\s*", re.IGNORECASE
)
_OTHER_LINK_LINE = re.compile(r"\s+Link [0-9]")
_NO_LINKS = re.compile(
    r"all links are inactive|does not have or support nvlink|nvlink (is )?not supported", re.IGNORECASE
)
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
_TOPOLOGY_HEAD = re.compile(r"\s*GPU[0-9]+\b")
_LABEL = re.compile(r"[A-Za-z]\w*")
_RELATION = re.compile(r"[A-Z]{2,4}[0-9]{0,2}")
_GPU_LABEL = re.compile(r"GPU[0-9]{1,4}")
_SMALL_NUMBER = re.compile(r"[0-9]{1,4}")
_COLUMNS = re.compile(r"\s{2,}")
_NIC_LINE = re.compile(r"\s*(NIC[0-9]{1,3}): (\S+)\s*")

_ARCHITECTURES = {
    "3": "Kepler",
    "5": "Maxwell",
    "6": "Pascal",
    "7": "Volta",
    "7.5": "Turing",
    "8": "Ampere",
    "8.9": "Ada Lovelace",
    "9": "Hopper",
    "10": "Blackwell",
    "11": "Blackwell",
    "12": "Blackwell",
}


@dataclass(frozen=True)
class ListedMig:
    """A MIG device of `nvidia-smi -L`; the index counts within its GPU."""

    index: int
    profile: str
    uuid: str


@dataclass(frozen=True)
class ListedGpu:
    """A GPU of `nvidia-smi -L`; one that cannot be opened has an error, and only its index or its bus id."""

    index: int | None = None
    name: str | None = None
    uuid: str | None = None
    bus_id: str | None = None
    error: str = ""
    migs: list[ListedMig] = field(default_factory=list)


def parse_list(text: str) -> tuple[ListedGpu, ...]:
    """The output of `nvidia-smi -L`; "No devices found." is no GPU."""
    gpus: list[ListedGpu] = []
    for line in text.splitlines():
        gpu, failed, mig = _GPU_LINE.match(line), _HANDLE_LINE.match(line), _MIG_LINE.match(line)
        if gpu:
            uuid = gpu[3] if _UUID.fullmatch(gpu[3]) else None
            gpus.append(ListedGpu(index=int(gpu[1]), name=gpu[2].strip() or None, uuid=uuid))
        elif failed:
            gpus.append(_unopened(failed[1], failed[2].strip()))
        elif mig and gpus:
            gpus[-1].migs.append(ListedMig(index=int(mig[2]), profile=mig[1], uuid=mig[3]))
    return tuple(gpus)


def _unopened(where: str, error: str) -> ListedGpu:
    if _BUS_ID.fullmatch(where):
        return ListedGpu(bus_id=normalise_bus_id(where), error=error)
    return ListedGpu(index=int(where) if _SMALL_NUMBER.fullmatch(where) else None, error=error)


def parse_compute(text: str) -> dict[str, str]:
    """The compute capability by UUID, of `nvidia-smi --query-gpu=uuid,compute_cap --format=csv,noheader`.

    Drivers that do not know the column refuse the whole query.
    """
    matches = (_COMPUTE_LINE.fullmatch(line) for line in text.splitlines())
    return {match[1]: match[2] for match in matches if match}


def parse_nvlink(text: str) -> dict[str | int, list[dict[str, Any]]]:
    """The links by UUID (by index where there is none), of `nvidia-smi nvlink -s`.

    A GPU without links, or with all of them inactive, has an empty list. One that could not be asked, or of which a
    link says something else, is not there.
    """
    found: dict[str | int, list[dict[str, Any]]] = {}
    unread: set[str | int] = set()
    current: str | int | None = None
    for line in text.splitlines():
        gpu, link = _GPU_LINE.match(line), _LINK_LINE.fullmatch(line)
        if gpu:
            current = gpu[3] if _UUID.fullmatch(gpu[3]) else int(gpu[1])
        elif current is not None and link:
            speed = float(link[2]) if link[2] else None
            found.setdefault(current, []).append(
                {"link": int(link[1]), "active": speed is not None, "speed_gbyte_s": speed}
            )
        elif current is not None and _NO_LINKS.search(line):
            found.setdefault(current, [])
        elif current is not None and _OTHER_LINK_LINE.match(line):
            unread.add(current)
    return {gpu: links for gpu, links in found.items() if gpu not in unread}


def parse_topology(text: str) -> dict[str, Any]:
    """The output of `nvidia-smi topo -m`: matrix, gpus, nics.

    The matrix is in columns with tabs between. In a pasted or recorded one two spaces or more stand for a tab.
    """
    lines = _ESCAPES.sub("", text).splitlines()
    start = next((number for number, line in enumerate(lines) if _TOPOLOGY_HEAD.match(line)), len(lines))
    heads = _cells(lines[start]) if start < len(lines) else []
    labels = dict.fromkeys(head for head in heads if _LABEL.fullmatch(head))
    matrix: dict[str, dict[str, str]] = {}
    gpus: list[dict[str, Any]] = []
    for number, line in enumerate(lines[start + 1 :], start + 1):
        label, *cells = _cells(line) or [""]
        if label not in labels:
            continue
        if number == len(lines) - 1 and len(cells) < len(heads):
            cells = cells[:-1]
        values = dict(zip(heads, cells))
        matrix[label] = {other: cell for other, cell in values.items() if other in labels and _RELATION.fullmatch(cell)}
        if _GPU_LABEL.fullmatch(label):
            numa_node = values.get("NUMA Affinity", "")
            gpus.append(
                {
                    "index": int(label[3:]),
                    "cpu_affinity": values.get("CPU Affinity") or None,
                    "numa_node": int(numa_node) if _SMALL_NUMBER.fullmatch(numa_node) else None,
                }
            )
    return {"matrix": matrix, "gpus": gpus, "nics": _nics(labels, lines) if matrix else []}


def _cells(line: str) -> list[str]:
    if "\t" in line:
        return [cell.strip() for cell in line.removeprefix("\t").split("\t")]
    return _COLUMNS.split(line.strip())


def _nics(labels: Iterable[str], lines: Iterable[str]) -> list[dict[str, Any]]:
    matches = (_NIC_LINE.fullmatch(line) for line in lines)
    # Old drivers have the name itself over the column, new ones a number and a legend.
    names = {match[1]: match[2] for match in matches if match}
    return [
        {"label": label, "name": names.get(label, label), "bus_id": None, "numa_node": None}
        for label in labels
        if not label.startswith("GPU")
    ]


def join(
    gpus: Iterable[Gpu],
    listed: Iterable[ListedGpu],
    compute: Mapping[str, str],
    nvlinks: Mapping[str | int, list[dict[str, Any]]],
    topology: Mapping[str, Any],
) -> list[Gpu]:
    """The records with what the other commands say: index, compute capability, MIG devices, links, NUMA node."""
    by_uuid = {gpu.uuid: gpu for gpu in listed if gpu.uuid}
    numa_nodes = {gpu["index"]: gpu["numa_node"] for gpu in topology.get("gpus", ())}
    joined = []
    for gpu in gpus:
        # The document has no index: behind a GPU that cannot be opened all would be one too low.
        own = by_uuid.get(gpu.uuid or "") or ListedGpu(index=gpu.index)
        capability = compute.get(gpu.uuid or "", gpu.compute_capability)
        keys = [key for key in (gpu.uuid, own.index) if key is not None and key in nvlinks]
        joined.append(
            replace(
                gpu,
                index=own.index,
                architecture=gpu.architecture or _architecture(capability),
                compute_capability=capability,
                mig_devices=_joined_migs(gpu.mig_devices, own.migs),
                nvlinks=nvlinks[keys[0]] if keys else gpu.nvlinks,
                numa_node=numa_nodes.get(own.index, gpu.numa_node),
            )
        )
    return joined


def _joined_migs(devices: list[dict[str, Any]], listed: list[ListedMig]) -> list[dict[str, Any]]:
    """Both know the index; the first drivers with MIG have it in the list only."""
    texts = {mig.index: {"index": mig.index, "uuid": mig.uuid, "profile": mig.profile} for mig in listed}
    joined = [{**device, **texts.pop(device["index"], {})} for device in devices]
    return joined + [{**NO_MIG_DEVICE, **text} for text in texts.values()]


def _architecture(capability: str | None) -> str | None:
    if capability is None:
        return None
    return _ARCHITECTURES.get(capability) or _ARCHITECTURES.get(capability.partition(".")[0])
