# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The texts of nvidia-smi for people: the table, -L, topo -m, --version and -h."""

from __future__ import annotations

import time
from dataclasses import dataclass

from _faults import LOST_TEXT
from _machine import CREDIT, EMPTY, SUFFIX, Gpu, Machine, Nic, long_bus_id, mig_uuid
from _work import process_of

# The name column is wider than the real one by this, so that the real text is cut where it always is.
WIDER = len(SUFFIX)
HELP = """NVIDIA System Management Interface -- v{driver}

{credit}: this program stands in for nvidia-smi. It knows

    <no arguments>              a summary of the GPUs
    -L,   --list-gpus           a list of the GPUs
    -q -x, --query --xml-format everything as XML
    --query-gpu= --format=      columns as CSV: csv[,noheader][,nounits]
    topo -m                     the topology matrix
    nvlink -s                   the state of the NVLinks
    --version                   the versions
    -h,   --help                this text
"""
LEGEND = """
Legend:

  X    = Self
  SYS  = Connection traversing PCIe as well as the SMP interconnect between NUMA nodes (e.g., QPI/UPI)
  NODE = Connection traversing PCIe as well as the interconnect between PCIe Host Bridges within a NUMA node
  PHB  = Connection traversing PCIe as well as a PCIe Host Bridge (typically the CPU)
  PXB  = Connection traversing multiple PCIe bridges (without traversing the PCIe Host Bridge)
  PIX  = Connection traversing at most a single PCIe bridge
  NV#  = Connection traversing a bonded set of # NVLinks
"""


@dataclass(frozen=True)
class Layout:
    """The table of one driver generation: the widths of its columns and fields, and its head lines."""

    left: int
    middle: int
    name: int
    gap: int
    power: int
    cap: int
    used: int
    total: int
    heads: tuple[str, str]
    processes: tuple[str, ...]


WIDE_NAME = {"left": 41, "name": 27, "gap": 4, "power": 16, "cap": 5}
NARROW_NAME = {"left": 31, "name": 18, "gap": 2, "power": 7, "cap": 4}
LONG_SIZES = {"middle": 24, "used": 11, "total": 9}
SHORT_SIZES = {"middle": 22, "used": 10, "total": 8}
NARROW_HEADS = (
    "| GPU  Name        {}Persistence-M| Bus-Id        Disp.A | Volatile Uncorr. ECC |",
    "| Fan  Temp  Perf  {}Pwr:Usage/Cap|         Memory-Usage | GPU-Util  Compute M. |",
)
LAYOUTS = {
    (545,): Layout(
        **WIDE_NAME,
        **LONG_SIZES,
        heads=(
            "| GPU  Name                 {}Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |",
            "| Fan  Temp   Perf          {}Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |",
        ),
        processes=(
            "| Processes:                                                                    {}          |",
            "|  GPU   GI   CI              PID   Type   Process name                        {}GPU Memory |",
            "|        ID   ID                                                               {}Usage      |",
        ),
    ),
    (535,): Layout(
        **WIDE_NAME,
        **SHORT_SIZES,
        heads=(
            "| GPU  Name                 {}Persistence-M | Bus-Id        Disp.A | Volatile Uncorr. ECC |",
            "| Fan  Temp   Perf          {}Pwr:Usage/Cap |         Memory-Usage | GPU-Util  Compute M. |",
        ),
        processes=(
            "| Processes:                                                                  {}          |",
            "|  GPU   GI   CI        PID   Type   Process name                            {}GPU Memory |",
            "|        ID   ID                                                             {}Usage      |",
        ),
    ),
    (450,): Layout(
        **NARROW_NAME,
        **SHORT_SIZES,
        heads=NARROW_HEADS,
        processes=(
            "| Processes:                                                        {}          |",
            "|  GPU   GI   CI        PID   Type   Process name                  {}GPU Memory |",
            "|        ID   ID                                                   {}Usage      |",
        ),
    ),
    (0,): Layout(
        **NARROW_NAME,
        **SHORT_SIZES,
        heads=NARROW_HEADS,
        processes=(
            "| Processes:                                                       {}GPU Memory |",
            "|  GPU       PID   Type   Process name                             {}Usage      |",
        ),
    ),
}


def render_list(machine: Machine, gpu: Gpu) -> str:
    """The lines of one GPU in -L: itself and its parts."""
    parts = [
        f"  MIG {part['profile']:<12}Device {number:>2}: (UUID: {mig_uuid(gpu, number)})\n"
        for number, part in enumerate(machine.model["mig"] or [])
    ]
    return title(machine, gpu) + "".join(parts)


def title(machine: Machine, gpu: Gpu) -> str:
    """The line that names one GPU."""
    return f"GPU {gpu.index}: {machine.product_name} (UUID: {gpu.uuid})\n"


def render_nvlinks(machine: Machine, gpu: Gpu, *, inactive: bool) -> str:
    """The lines of one GPU in nvlink -s; inactive: its first link is down."""
    nvlink = machine.model["nvlink"]
    if machine.model["mig"]:
        text = "Nvlink queries are not supported for Devices in MIG mode\n"
    elif nvlink:
        speeds = [f"{nvlink['gbyte_s']:g} GB/s"] * nvlink["links"]
        if inactive:
            speeds[0] = "<inactive>"
        text = "".join(f"\t Link {number}: {speed}\n" for number, speed in enumerate(speeds))
    else:
        text = "Device does not have or support Nvlink\n" if machine.version >= (595,) else ""
    # Drivers before 595 were seen to say nothing at all about a GPU without NVLink.
    return title(machine, gpu) + text if text else ""


def render_version(machine: Machine) -> str:
    """The output of --version."""
    lines = [("NVIDIA-SMI version", machine.driver), ("NVML version", machine.nvml)]
    if machine.version >= (610,):
        lines += [
            ("DRIVER version", 'Deprecated, see "KMD version" instead'),
            ("CUDA version", 'Deprecated, see "CUDA UMD version" instead'),
            ("KMD version", machine.driver),
            ("CUDA UMD version", machine.cuda),
        ]
    else:
        lines += [("DRIVER version", machine.driver), ("CUDA Version", machine.cuda)]
    return "".join(f"{name:<20}: {value}\n" for name, value in lines)


def render_help(machine: Machine) -> str:
    """The output of -h."""
    return HELP.format(driver=machine.driver, credit=CREDIT)


def render_topology(machine: Machine) -> str:
    """The output of topo -m."""
    legend = machine.version >= (520,)
    nics = {nic: f"NIC{nic.index}" if legend else nic.name for nic in machine.nics}
    heads = [*(f"GPU{gpu.index}" for gpu in machine.gpus), *nics.values(), "CPU Affinity"]
    heads += ["NUMA Affinity"] if machine.version >= (450,) else []
    heads += ["GPU NUMA ID"] if machine.version >= (535,) else []
    lines = ["\t\x1b[4m" + "\t".join(heads) + "\x1b[0m"]
    places: list[Gpu | Nic] = [*machine.gpus, *machine.nics]
    for gpu in machine.gpus:
        cells = [link(machine, gpu, other) for other in places] + [machine.cpus[gpu.numa_node]]
        cells += [str(gpu.numa_node)] if machine.version >= (450,) else []
        cells += ["", "N/A"] if machine.version >= (535,) else []
        lines.append(f"GPU{gpu.index}\t" + "\t".join(cells))
    for nic, label in nics.items():
        lines.append(f"{label}\t" + "\t".join(link(machine, nic, other) for other in places) + "\t")
    text = "\n".join(lines) + "\n" + LEGEND
    if legend and nics:
        text += "\nNIC Legend:\n\n" + "".join(f"  {label}: {nic.name}\n" for nic, label in nics.items())
    return f"{text}\n{CREDIT}\n"


def link(machine: Machine, one: Gpu | Nic, other: Gpu | Nic) -> str:
    """How two devices are connected."""
    if one == other:
        return " X "
    same = one.numa_node == other.numa_node
    if isinstance(one, Gpu) and isinstance(other, Gpu):
        return machine.links["same_numa_node" if same else "other_numa_node"]
    if not same:
        return "SYS"
    for nic, gpu in ((one, other), (other, one)):
        if isinstance(nic, Nic) and nic.partner == gpu.bus_id:
            return "PIX"
    return "NODE"


def render_table(machine: Machine, gpus: list[tuple[Gpu, dict[str, str]]]) -> str:
    """The summary that nvidia-smi prints without arguments."""
    layout = next(layout for first, layout in LAYOUTS.items() if machine.version >= first)
    left, middle, right = layout.left + WIDER, layout.middle, 22
    whole = left + middle + right + 2
    gap = " " * WIDER
    empty = f"|{'':{left}}|{'':{middle}}|"
    row_end = f"+{'-' * left}+{'-' * middle}+{'-' * right}+"
    frame = f"+{'-' * whole}+"
    has_mig = machine.version >= (450,)
    lines = [
        time.ctime() + " " * 7,
        frame,
        f"|{banner(machine):<{whole}}|",
        row_end if machine.version >= (545,) else "|" + row_end[1:],
        *(head.format(gap) for head in layout.heads),
        *([f"{empty}{'MIG M. ':>{right}}|"] if has_mig else []),
        f"|{'=' * left}+{'=' * middle}+{'=' * right}|",
    ]
    for gpu, values in gpus:
        first, second, mig = render_row(machine, layout, gpu, values)
        lines += [first, second, *([empty + mig] if has_mig else []), row_end]
    lines += [
        "" if machine.version >= (535,) else " " * (whole + 2),
        frame,
        *(head.format(gap) for head in layout.processes),
        f"|{'=' * whole}|",
        *render_processes(machine, gpus, whole),
        frame,
        CREDIT,
    ]
    return "\n".join(lines) + "\n"


def render_processes(machine: Machine, gpus: list[tuple[Gpu, dict[str, str]]], whole: int) -> list[str]:
    """The lines of the processes; whole is the width of the table inside its frame."""
    lines = []
    for gpu, values in gpus:
        if values["processes"] == EMPTY:
            continue
        process = process_of(machine, gpu)
        places = f"{process.instance:>5}{process.compute_instance:>5}" if machine.version >= (450,) else ""
        pid = f"{process.pid:>{17 if machine.version >= (545,) else 11}}"
        left = f"{gpu.index:>5}{places}{pid}      C   {process.name}"
        lines.append(f"|{left:<{whole - 12}}{f'{process.memory_mib}MiB':>11} |")
    return lines or [f"|{'  No running processes found':<{whole}}|"]


def banner(machine: Machine) -> str:
    """The versions in the head of the table, inside its frame."""
    driver, cuda = machine.driver, machine.cuda
    if machine.version < (410,):
        return f" NVIDIA-SMI {driver:<23}Driver Version: {driver}"
    if machine.version < (535,):
        return f" NVIDIA-SMI {driver:<13}Driver Version: {driver:<13}CUDA Version: {cuda}"
    if machine.version < (545,):
        return f" NVIDIA-SMI {driver:<23}Driver Version: {driver:<14}CUDA Version: {cuda}"
    if machine.version < (610,):
        return f" NVIDIA-SMI {driver:<23}Driver Version: {driver:<15}CUDA Version: {cuda}"
    return f" NVIDIA-SMI {driver:<23}KMD Version: {driver:<14}CUDA UMD Version: {cuda}"


def render_row(machine: Machine, layout: Layout, gpu: Gpu, values: dict[str, str]) -> tuple[str, str, str]:
    """The three lines of one GPU; the third is what stands in the last column."""
    name = str(machine.model["name"])
    if len(name) > layout.name:
        name = name[: layout.name - 3] + "..."
    persistence = "On" if values["persistence_mode"] == "Enabled" else "Off"
    start = f"{gpu.index:>4}  {name + SUFFIX:<{layout.name + WIDER}}{'':{layout.gap}}{persistence:<3}"
    ecc = short(values.get("ecc_errors/volatile/dram_uncorrectable", "N/A"), "")
    if values["ecc_mode/current_ecc"] == "Disabled":
        ecc = "Off"
    power = short(values["power_readings/power_draw"], "W")
    cap = short(values["power_readings/power_limit"], "W")
    used = short(values["fb_memory_usage/used"], "MiB")
    total = short(values["fb_memory_usage/total"], "MiB")
    perf = values["performance_state"]
    fan = short(values["fan_speed"], "%")
    temperature = short(values["temperature/gpu_temp"], "C")
    gpu_util = short(values["utilization/gpu_util"], "%")
    mig = values["mig_mode/current_mig"]
    left = layout.left + WIDER
    state = f"{fan:>4}{temperature:>6}{perf:>6}{power:>{layout.power + WIDER}} / {cap:>{layout.cap}}"
    memory = f"{used:>{layout.used}} / {total:>{layout.total}}"
    return (
        f"|{start:<{left}}|{long_bus_id(gpu):>{layout.middle - 5}} Off |{ecc:>21} |",
        f"|{state:<{left}}|{memory} |{gpu_util:>8}{values['compute_mode']:>13} |",
        f"{mig:>21} |",
    )


def short(text: str, unit: str) -> str:
    """'69.10 W' as '69W', what is lost as 'ERR!'."""
    if text == LOST_TEXT:
        return "ERR!"
    return text if text == "N/A" else f"{float(text.split()[0]):.0f}{unit}"
