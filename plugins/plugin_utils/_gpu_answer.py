# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The collector's command line and its answer, split into facts. **PRIVATE** to the collection."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

SMI_COMMAND = "nvidia-smi -q -x"


class GpuAnswerError(Exception):
    """The collector's answer is missing or incomplete."""


@dataclass(frozen=True)
class PciGpu:
    """A display-class PCI device of vendor 0x10de."""

    bus_id: str
    device_id: str
    driver: str
    in_proc: bool
    device_node: bool


@dataclass(frozen=True)
class SmiRun:
    """One run of nvidia-smi; outcome is not_run, exited, deadline or no_directory."""

    outcome: str = "not_run"
    rc: int | None = None
    left_running: bool = False
    process_state: str = ""
    output: str = ""


@dataclass(frozen=True)
class NodeAnswer:
    """What the collector saw on one node."""

    sysroot: str = ""
    wsl: bool = False
    device_nodes: bool = False
    smi_path: str = ""
    module_initstate: str = ""
    module_version: str = ""
    module_file: str = ""
    proc_version: str = ""
    pci_gpus: tuple[PciGpu, ...] = ()
    smi: SmiRun = SmiRun()
    elapsed_ms: int = 0

    @property
    def driver_loaded(self) -> bool:
        return bool(self.proc_version) or self.module_initstate == "live"


def normalise_bus_id(text: str) -> str:
    """The sysfs form: 00000000:1B:00.0 gives 0000:1b:00.0."""
    match = re.fullmatch(r"([0-9a-f]+):([0-9a-f]{2}:[0-9a-f]{2}\.[0-7])", text.strip().lower())
    return f"{int(match[1], 16):04x}:{match[2]}" if match else text.strip().lower()


def collector_command(marker: str, deadline: int) -> str:
    """The shell command that runs the collector, without its comments, on a node."""
    lines = Path(__file__).with_name("_gpu_collector.sh").read_text(encoding="utf-8").splitlines()
    script = "\n".join(line for line in lines if line and not line.lstrip().startswith("#"))
    return f"/bin/sh -c {shlex.quote(script)} gpu_probe {marker} {deadline}"


def parse_answer(stdout: str, marker: str) -> NodeAnswer:
    """Read the collector's output; a terminal's line ends and whatever stands before the first marker do no harm."""
    sections = _sections(stdout.replace("\r\n", "\n"), marker)
    if "end" not in sections:
        raise GpuAnswerError("the collector's answer is incomplete" if sections else "the collector did not answer")
    node = _pairs(sections["node"])
    smi = _pairs(sections["smi"])
    return NodeAnswer(
        sysroot=node["sysroot"],
        wsl=node["wsl"] == "yes",
        device_nodes=node["device_nodes"] == "yes",
        smi_path=node["smi_path"],
        module_initstate=node["module_initstate"],
        module_version=node["module_version"],
        module_file=node["module_file"],
        proc_version=sections["proc_version"].strip(),
        pci_gpus=tuple(_pci_gpus(sections["pci"])),
        smi=SmiRun(
            outcome=smi.get("outcome", "not_run"),
            rc=int(smi["rc"]) if "rc" in smi else None,
            left_running="left_running" in smi,
            process_state=smi.get("process_state", ""),
            output=sections.get("smi_output", ""),
        ),
        elapsed_ms=int(_pairs(sections["timing"])["elapsed_ms"]),
    )


def _sections(stdout: str, marker: str) -> dict[str, str]:
    parts = re.split(rf"^{re.escape(marker)} (\w+)\n?", stdout, flags=re.MULTILINE)
    return {name: text.removesuffix("\n") for name, text in zip(parts[1::2], parts[2::2])}


def _pairs(text: str) -> dict[str, str]:
    return {key: value for key, _equals, value in (line.partition("=") for line in text.splitlines()) if key}


def _pci_gpus(text: str) -> list[PciGpu]:
    gpus = []
    for line in text.splitlines():
        bus_id, device_id, pci_class, driver, in_proc, node = line.split(" ")
        if pci_class.startswith("0x03"):
            gpus.append(PciGpu(normalise_bus_id(bus_id), device_id, driver, in_proc == "yes", node == "yes"))
    return gpus
