# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The answer of gpu_probe's collector, split into facts. **PRIVATE** to the collection."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

from ansible_collections.gpuops.fleet.plugins.module_utils._see.gpu.options import FIELDS
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.collector import (
    CollectorError,
    command,
    quoted_script,
    read_sections,
)

SMI_COMMAND = "nvidia-smi -q -x"

_NEEDED_SECTIONS = {"node", "proc_version", "pci", "module_files", "timing"}
# The outputs of five runs of nvidia-smi and three of the log, each as long as the collector lets it be.
_MOST_CHARACTERS = 48_000_000
_LINK_WIDTHS = {1, 2, 4, 8, 12, 16, 32}
# The same words as in the collector, which sends a log's first line whatever it says
_FIRST = "first "
_BUS_ID = re.compile(r"([0-9a-f]+):([0-9a-f]{2}:[0-9a-f]{2}\.[0-7])")
_NUMBER = re.compile(r"-?[0-9]{1,18}")
_DECIMAL = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")
_LIBRARY = re.compile(r"libnvidia-ml\.so\.(\d+(?:\.\d+)+)")
_RELEASE_PART = re.compile(r"([0-9]+)|([^0-9.-]+)", re.ASCII)
_MODINFO_LINE = re.compile(r"^(license|version):[ \t]*(.*)$", re.MULTILINE)
_VERSION = re.compile(r"\d+(?:\.\d+)+\S*")
_KERNEL_WORDS = re.compile(r"NVRM|nvidia-nvswitch|nvidia-nvlink|SXid|nouveau")
_DMESG_LINE = re.compile(r"(?:<\d+>)?\[\s*(\d{1,12}\.\d{1,9})\] (?:\[\s*[TC]\d+\] )?(.*)")
_KMSG_LINE = re.compile(r"\d+,\d+,(\d{1,18}),[^;]*;(.*)")
_JOURNAL_LINE = re.compile(r"\[?\s*(\d{1,12}\.\d{1,9})\]? \S+ kernel: (.*)")
# Clocks differ a little between the log and /proc/uptime.
_NEAR_SECONDS = 1.0


@dataclass(frozen=True)
class PciGpu:
    """A display-class PCI device of vendor 0x10de."""

    bus_id: str
    device_id: str
    driver: str
    in_proc: bool
    device_node: bool
    numa_node: int | None = None
    subsystem: str = ""
    link_width_current: int | None = None
    link_width_max: int | None = None

    @property
    def is_passed_through(self) -> bool:
        """Return whether it is held for a virtual machine."""
        return "vfio" in self.driver or self.driver in ("pci-stub", "xen-pciback", "pciback")


@dataclass(frozen=True)
class Nic:
    """An InfiniBand or RoCE device."""

    name: str
    bus_id: str = ""
    numa_node: int | None = None


@dataclass(frozen=True)
class SmiRun:
    """One run of nvidia-smi; outcome is not_run, exited, deadline or no_directory."""

    outcome: str = "not_run"
    rc: int | None = None
    left_running: bool = False
    process_state: str = ""
    output: str = ""


@dataclass(frozen=True)
class KernelLog:
    """The lines of the kernel log that matter; source is dmesg, journal, kmsg (of a recording) or none."""

    source: str = "none"
    # Each "SECONDS TEXT", oldest first. SECONDS count from the boot, negative is before it.
    lines: tuple[str, ...] = ()
    # False when the log does not go back to the boot (or the hours asked), when lines were cut, or when it was not read
    complete: bool = False
    uptime_seconds: float = 0.0
    error: str = ""


@dataclass(frozen=True)
class HostFacts:
    """Facts of a node about its driver, kernels and services; empty or None is not known."""

    kernel_release: str = ""
    next_kernel: str = ""
    module_license: str = ""
    module_on_disk_version: str = ""
    library_version: str = ""
    dkms_registered: bool = False
    module_kernels: tuple[str, ...] = ()
    nouveau_loaded: bool = False
    peermem_loaded: bool = False
    secure_boot: bool | None = None
    fabric_manager_installed: bool = False
    fabric_manager_running: bool | None = None
    fabric_manager_version: str = ""
    persistence_daemon_running: bool | None = None
    container_toolkit_version: str = ""
    reboot_required: bool = False


@dataclass(frozen=True)
class StuckProcess:
    """A process in uninterruptible sleep; looked for only when a command did not end."""

    pid: int
    state: str
    name: str
    waits_in: str = ""


@dataclass(frozen=True)
class NodeAnswer:
    """Answer of the collector of one node."""

    sysroot: str = ""
    is_host: bool = False
    device_nodes: bool = False
    smi_path: str = ""
    module_initstate: str = ""
    module_version: str = ""
    module_file: str = ""
    proc_version: str = ""
    pci_gpus: tuple[PciGpu, ...] = ()
    nvswitches: tuple[str, ...] = ()
    nics: tuple[Nic, ...] = ()
    smi: SmiRun = SmiRun()
    smi_list: SmiRun = SmiRun()
    smi_compute: SmiRun = SmiRun()
    smi_nvlink: SmiRun = SmiRun()
    smi_topology: SmiRun = SmiRun()
    host: HostFacts = HostFacts()
    kernel_log: KernelLog = KernelLog()
    stuck: tuple[StuckProcess, ...] = ()
    elapsed_ms: int = 0

    @property
    def driver_loaded(self) -> bool:
        return bool(self.proc_version) or self.module_initstate == "live"


def normalise_bus_id(text: str) -> str:
    """The sysfs form: 00000000:1B:00.0 gives 0000:1b:00.0."""
    match = _BUS_ID.fullmatch(text.strip().lower())
    return f"{int(match[1], 16):04x}:{match[2]}" if match else text.strip().lower()


_SCRIPT = quoted_script(Path(__file__).with_name("collector.sh"))


def collector_command(
    marker: str, deadline: int, fields: Collection[str] = FIELDS, hours: int = 0, *, run_smi: bool = True
) -> str:
    """Return the shell command that runs the collector on a node.

    :param hours: how far back the kernel log is read; 0 is since the boot.
    :param run_smi: whether nvidia-smi may be started.
    """
    asked = [field for field in FIELDS if field in fields]
    return command(_SCRIPT, "gpu_probe", marker, deadline, hours, *["nvidia-smi"] * run_smi, *asked)


def parse_answer(stdout: str, marker: str) -> NodeAnswer:
    """Read the collector's output. Raises CollectorError."""
    sections = read_sections(stdout, marker, _NEEDED_SECTIONS, _MOST_CHARACTERS)
    node = _pairs(sections["node"])
    release = node.get("kernel_release", "")
    modules = _module_files(sections["module_files"])
    devices = _pci_devices(sections)
    smi = _run(sections, "smi")
    if _pairs(sections.get("no_directory", "")).get("for_smi") == "yes":
        smi = SmiRun(outcome="no_directory")
    return NodeAnswer(
        sysroot=node.get("sysroot", ""),
        is_host=node.get("host") == "yes",
        device_nodes=node.get("device_nodes") == "yes",
        smi_path=node.get("smi_path", ""),
        module_initstate=node.get("module_initstate", ""),
        module_version=node.get("module_version", ""),
        module_file=modules.get(release, [""])[0],
        proc_version=sections["proc_version"].strip(),
        pci_gpus=tuple(gpu for pci_class, gpu in devices if pci_class.startswith("0x03")),
        nvswitches=tuple(
            device.bus_id
            for pci_class, device in devices
            if pci_class.startswith("0x0680") and not device.is_passed_through
        ),
        nics=tuple(_nics(sections.get("nics", ""))),
        smi=smi,
        smi_list=_run(sections, "smi_list"),
        smi_compute=_run(sections, "smi_compute"),
        smi_nvlink=_run(sections, "smi_nvlink"),
        smi_topology=_run(sections, "smi_topology"),
        host=_host_facts(sections, release, modules) if "host" in sections else HostFacts(),
        kernel_log=_kernel_log(sections) if "kernel" in sections else KernelLog(),
        stuck=tuple(_stuck(sections.get("stuck", ""))),
        elapsed_ms=_number(_pairs(sections["timing"]).get("elapsed_ms", "")) or 0,
    )


def _lines(text: str) -> list[str]:
    """Unlike splitlines: a form feed or a Unicode separator in a name does not end its line."""
    return [line for line in text.split("\n") if line]


def _pairs(text: str) -> dict[str, str]:
    return {key: value for key, _equals, value in (line.partition("=") for line in _lines(text)) if key}


def _words(line: str, count: int) -> list[str]:
    """The words of a line whose last word may itself contain spaces; "-" stands for nothing."""
    words = line.split(" ", count - 1)
    if len(words) < count:
        raise CollectorError(f"the collector's answer is damaged: {line[:200]!r}")
    return ["" if word == "-" else word for word in words]


def _number(text: str) -> int | None:
    return int(text) if _NUMBER.fullmatch(text) else None


def _decimal(text: str) -> float | None:
    return float(text) if _DECIMAL.fullmatch(text) else None


def _run(sections: dict[str, str], name: str) -> SmiRun:
    if name not in sections:
        return SmiRun()
    said = _pairs(sections[name])
    run = SmiRun(
        outcome=said.get("outcome", ""),
        rc=_number(said.get("rc", "")),
        left_running="left_running" in said,
        process_state=said.get("process_state", ""),
        output=sections.get(f"{name}_output", ""),
    )
    if run.outcome != ("exited" if run.rc is not None else "deadline"):
        raise CollectorError(f"the collector's answer is damaged: {sections[name][:200]!r}")
    return run


def _module_files(text: str) -> dict[str, list[str]]:
    """Kernel release -> the files of its NVIDIA modules, as grep found them in modules.dep."""
    files: dict[str, list[str]] = {}
    for line in _lines(text):
        folder, _name, file = line.partition("/modules.dep:")
        files.setdefault(folder.rpartition("/")[2], []).append(file)
    return files


def _pci_devices(sections: dict[str, str]) -> list[tuple[str, PciGpu]]:
    states = {}
    for line in _lines(sections.get("pci_states_output", "")):
        words = line.split(" ")
        states[words[0]] = [*words[1:], "", "", ""]
    devices = []
    for line in _lines(sections["pci"]):
        bus_id, device_id, pci_class, numa_node, vendor, device, in_proc, driver = _words(line, 8)
        # Without an answer about the device node nothing says that it is missing.
        node, width, width_max = states.get(bus_id, [in_proc, "", ""])[:3]
        gpu = PciGpu(
            bus_id=normalise_bus_id(bus_id),
            device_id=device_id,
            driver=driver,
            in_proc=in_proc == "yes",
            device_node=(in_proc if node == "-" else node) == "yes",
            numa_node=_numa_node(numa_node),
            subsystem=f"{vendor.removeprefix('0x')}:{device.removeprefix('0x')}" if vendor and device else "",
            link_width_current=_link_width(width),
            link_width_max=_link_width(width_max),
        )
        devices.append((pci_class, gpu))
    return devices


def _numa_node(text: str) -> int | None:
    """The kernel says -1 where there is none."""
    number = _number(text)
    return number if number is not None and number >= 0 else None


def _link_width(text: str) -> int | None:
    """A device that does not answer reads as 63."""
    number = _number(text)
    return number if number in _LINK_WIDTHS else None


def _nics(text: str) -> list[Nic]:
    return [
        Nic(name, normalise_bus_id(bus_id), _numa_node(numa_node))
        for numa_node, bus_id, name in (_words(line, 3) for line in _lines(text))
    ]


def _host_facts(sections: dict[str, str], release: str, modules: dict[str, list[str]]) -> HostFacts:
    said = _pairs(sections["host"])
    kernels: dict[str, list[str]] = {"modules": [], "image": [], "dkms": []}
    for line in _lines(sections.get("kernels", "")):
        kind, _space, name = line.partition(" ")
        kernels.setdefault(kind, []).append(name)
    bootable = [name for name in kernels["modules"] if name in kernels["image"]] or kernels["modules"]
    # Of several flavours only the first was read, and another one may be the one that is loaded.
    said_of_module = "" if len(modules.get(release, ())) > 1 else _run(sections, "modinfo").output
    module = {name: value.strip() for name, value in reversed(_MODINFO_LINE.findall(said_of_module))}
    library = _LIBRARY.fullmatch(said.get("library", ""))
    return HostFacts(
        kernel_release=release,
        next_kernel=max(bootable, key=_kernel_key, default=""),
        module_license=module.get("license", ""),
        module_on_disk_version=module.get("version", ""),
        library_version=library[1] if library else "",
        dkms_registered=bool(kernels["dkms"]),
        module_kernels=tuple(modules),
        nouveau_loaded=said.get("nouveau_loaded") == "yes",
        peermem_loaded=said.get("peermem_loaded") == "yes",
        secure_boot={"0": False, "1": True}.get(said.get("secure_boot", "")),
        fabric_manager_installed=said.get("fabric_manager") == "yes",
        fabric_manager_running=_yes_or_no(said.get("fabric_manager_running", "")),
        fabric_manager_version=_version(_run(sections, "fabric_manager")),
        persistence_daemon_running=_yes_or_no(said.get("persistence_daemon_running", "")),
        container_toolkit_version=_version(_run(sections, "container_toolkit")),
        reboot_required=said.get("reboot_required") == "yes",
    )


def _kernel_key(release: str) -> list[tuple[bool, int, str]]:
    """6.1.0-10 is after 6.1.0-9; a number is after a word."""
    parts = _RELEASE_PART.findall(release)
    return [(bool(number), int(number[:18] or 0), text) for number, text in parts]


def _yes_or_no(text: str) -> bool | None:
    return {"yes": True, "no": False}.get(text)


def _version(run: SmiRun) -> str:
    match = _VERSION.search(run.output)
    return match[0] if match and run.rc == 0 else ""


@dataclass(frozen=True)
class _Log:
    """One reading of the kernel log; it begins at the time of its first line, None when that has no time."""

    source: str
    error: str
    seen: bool
    cut: bool
    begins: float | None
    lines: list[tuple[float, str]]


def _kernel_log(sections: dict[str, str]) -> KernelLog:
    said = _pairs(sections["kernel"])
    uptime = _decimal(said.get("uptime", "")) or 0.0
    hours = _number(said.get("hours", "")) or 0
    asked_since = uptime - hours * 3600 if hours else 0.0
    # Across boots the journal counts from 1970.
    epoch = _decimal(said.get("epoch", ""))
    boot = epoch - uptime if epoch is not None else 0.0
    if said.get("source") == "kmsg":
        buffer = _read_log(sections, "kmsg", "buffer", _KMSG_LINE, scale=1e-6)
    else:
        buffer = _read_log(sections, "dmesg", "buffer", _DMESG_LINE)
    journal = _read_log(sections, "journal", "journal", _JOURNAL_LINE, boot=boot)
    oldest = _JOURNAL_LINE.match(_run(sections, "journal_oldest").output)
    if oldest:
        journal = replace(journal, seen=True, begins=float(oldest[1]) - boot)
    logs = [log for log in (buffer, journal) if log.seen]
    if not logs:
        error = "; ".join(log.error for log in (buffer, journal) if log.error)
        nothing = "no temporary directory can be written" if "no_directory" in sections else "there is no kernel log"
        return KernelLog(uptime_seconds=uptime, error=error or nothing)
    log = min(logs, key=lambda log: inf if log.begins is None else log.begins)
    return KernelLog(
        source=log.source,
        lines=tuple(f"{seconds:.6f} {text}" for seconds, text in log.lines if not hours or seconds >= asked_since),
        complete=not log.cut and log.begins is not None and log.begins <= asked_since + _NEAR_SECONDS,
        uptime_seconds=uptime,
    )


def _read_log(
    sections: dict[str, str], source: str, job: str, form: re.Pattern[str], scale: float = 1.0, boot: float = 0.0
) -> _Log:
    run = _run(sections, job)
    error = _pairs(sections.get(job, "")).get("error", "")
    if run.outcome == "deadline":
        error = f"{source} did not end before the deadline"
    lines = _lines(run.output)
    cut = bool(lines) and (not lines[0].startswith(_FIRST) or run.rc != 0)
    if cut and not lines[0].startswith(_FIRST):
        del lines[0]
    begins = None
    seconds = 0.0
    found = []
    for line in lines:
        match = form.match(line.removeprefix(_FIRST))
        if match:
            seconds = float(match[1]) * scale - boot
            begins = seconds if begins is None else begins
        # A record of several lines: one time, and each line after it without one
        for text in (match[2] if match else line).split("\\x0a"):
            if _KERNEL_WORDS.search(text):
                found.append((seconds, text.strip()))
    return _Log(source, error, bool(lines), cut, begins, found)


def _stuck(text: str) -> list[StuckProcess]:
    found = []
    for pid, state, waits_in, name in (_words(line, 4) for line in _lines(text)):
        found.append(StuckProcess(_number(pid) or 0, state, name, "" if waits_in == "0" else waits_in))
    return found
