# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be wrong with a node: the faults, and the texts and exit codes of nvidia-smi for them.

The texts are those of the real program, recorded on drivers 390, 450, 535 and 555. All go to standard output.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import NoReturn

from _machine import Gpu, LabError, Machine

# Fault name -> what is written behind it, with colons between.
FAULTS: dict[str, list[str]] = {
    "no_library": [],
    "no_driver": [],
    "mismatch": [],
    "no_permission": [],
    "no_devices": [],
    "dev_unreadable": [],
    "gpu_lost_handle": ["GPU"],
    "handle_error": ["GPU", "CODE"],
    "gpu_lost_query": ["GPU"],
    "reset_required": [],
    "unknown_error": [],
    "smi_nvml_version": [],
    "hang": [],
    "hang_child": [],
    "slow": ["SECONDS"],
}
LOST = 15
UNREADABLE = 4
LOST_TEXT = "GPU is lost"
INIT_CODES = {"no_permission": 4, "mismatch": 18, "reset_required": 16, "unknown_error": 999}
INIT_TEXTS = {
    4: "Insufficient Permissions",
    16: "GPU requires reset",
    18: "Driver/library version mismatch",
    999: "Unknown Error",
}
HANDLE_TEXTS = {
    4: "Insufficient Permissions",
    8: (
        "Unable to communicate with GPU because it is insufficiently powered.\n"
        "This may be because not all required external power cables are\n"
        "attached, or the attached cables are not seated properly.\n\n"
    ),
    11: (
        "The NVIDIA kernel module detected an issue with GPU interrupts."
        'Consult the "Common Problems" Chapter of the NVIDIA Driver README for\n'
        "details and steps that can be taken to resolve this issue."
    ),
    LOST: "GPU is lost.  Reboot the system to recover this GPU\n\n",
    16: "A GPU reset must occur before this GPU can be used again.\n\n.",
    17: "Unknown Error",
    999: "Unknown Error",
}
# A GPU that is lost while it is queried: these paths read as lost, its identity and N/A fields stay.
LOST_PATHS = (
    "fb_memory_usage/",
    "utilization/gpu_util",
    "utilization/memory_util",
    "ecc_errors/volatile/",
    "ecc_errors/aggregate/",
    "temperature/gpu_temp",
    "power_readings/power_draw",
    "gpu_power_readings/power_draw",
    "gpu_power_readings/average_power_draw",
    "gpu_power_readings/instant_power_draw",
    "clocks/",
    "fabric/",
)


@dataclass(frozen=True)
class Fault:
    """One fault; name is '' for a healthy node. gpu is -1 when it is not about one GPU."""

    name: str = ""
    gpu: int = -1
    code: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Failure:
    """What nvidia-smi prints instead of an answer, and its exit code."""

    text: str
    exit_code: int


def parse_fault(text: str, machine: Machine) -> Fault:
    """Read 'NAME', 'NAME:GPU', 'handle_error:GPU:CODE' or 'slow:SECONDS'."""
    if not text:
        return Fault()
    name, *given = text.split(":")
    if name not in FAULTS:
        raise LabError(f"fault {name!r} is not known; choose one of: {', '.join(FAULTS)}")
    usage = ":".join([name, *FAULTS[name]])
    if len(given) != len(FAULTS[name]):
        raise LabError(f"fault {text!r} is not complete; write it as {usage}")
    try:
        values = {key: float(value) if key == "SECONDS" else int(value) for key, value in zip(FAULTS[name], given)}
    except ValueError as error:
        raise LabError(f"fault {text!r} needs numbers; write it as {usage}") from error
    fault = Fault(
        name,
        gpu=int(values.get("GPU", -1)),
        code=int(values.get("CODE", LOST if name == "gpu_lost_handle" else 0)),
        seconds=values.get("SECONDS", 0.0),
    )
    if "GPU" in values and not 0 <= fault.gpu < len(machine.gpus):
        raise LabError(f"fault {text!r}: {machine.name} has GPU 0 to {len(machine.gpus) - 1}")
    if fault.code and fault.code not in HANDLE_TEXTS:
        raise LabError(f"fault {text!r}: CODE is one of {', '.join(map(str, HANDLE_TEXTS))}")
    if fault.seconds < 0:
        raise LabError(f"fault {text!r}: SECONDS is 0 or more")
    return fault


def exit_code(code: int, machine: Machine) -> int:
    """The exit code of nvidia-smi for an NVML error."""
    if code == 18 and machine.version >= (535,):
        return 18
    if code in (16, 18):
        return 231 if machine.version < (450,) else 255
    return 255 if code == 999 else code


def refusal(fault: Fault, machine: Machine) -> Failure | None:
    """The failure of every call, when NVML does not start or sees no GPU that it may open."""
    if fault.name == "no_library":
        return Failure(
            "NVIDIA-SMI couldn't find libnvidia-ml.so library in your system. "
            "Please make sure that the NVIDIA Display Driver is properly installed and present in your system.\n"
            "Please also try adding directory that contains libnvidia-ml.so to your system PATH.\n",
            12,
        )
    if fault.name == "no_driver":
        return Failure(
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
            "Make sure that the latest NVIDIA driver is installed and running.\n\n",
            9,
        )
    if fault.name == "smi_nvml_version":
        return Failure(
            "Mismatch in versions between nvidia-smi and NVML.\n"
            "Are you sure you are using nvidia-smi provided with the driver?\n",
            255,
        )
    if fault.name in INIT_CODES:
        code = INIT_CODES[fault.name]
        text = f"Failed to initialize NVML: {INIT_TEXTS[code]}\n"
        if code == 18 and machine.version >= (535,):
            text += f"NVML library version: {machine.nvml}\n"
        return Failure(text, exit_code(code, machine))
    return None


def empty_answer(fault: Fault, *, listing: bool) -> Failure | None:
    """The answer when there is no GPU, or none that may be opened."""
    if fault.name == "no_devices":
        return Failure("No devices found.\n", 0) if listing else Failure("No devices were found\n", 6)
    if (fault.name == "dev_unreadable" or fault.code == UNREADABLE) and not listing:
        return Failure(
            "No devices were found. Please make sure /dev/nvidia* files are readable by current user.\n", UNREADABLE
        )
    return None


def handle_failure(fault: Fault, machine: Machine, gpu: Gpu, *, listing: bool) -> Failure | None:
    """The line about a GPU that cannot be opened."""
    code = UNREADABLE if fault.name == "dev_unreadable" else fault.code if fault.gpu == gpu.index else 0
    if not code:
        return None
    where = f"gpu {gpu.index}" if listing else f"{'GPU' if machine.version >= (535,) else 'GPU '}{gpu.bus_id.upper()}"
    text = f"Unable to determine the device handle for {where}: {HANDLE_TEXTS[code]}\n"
    return Failure(text, exit_code(code, machine))


def lose(values: dict[str, str]) -> dict[str, str]:
    """The readings of a GPU that is lost while it is queried."""
    lost = {
        path: LOST_TEXT if path.startswith(LOST_PATHS) and "threshold" not in path and text != "N/A" else text
        for path, text in values.items()
    }
    if "remapped_rows/remapped_row_corr" in values:
        lost["remapped_rows"] = LOST_TEXT
    return lost


def delay(fault: Fault) -> None:
    """Be slow, or never come back."""
    if fault.name == "slow":
        time.sleep(fault.seconds)
    elif fault.name == "hang" or (fault.name == "hang_child" and os.fork() == 0):
        sleep_forever()


def sleep_forever() -> NoReturn:
    """Like a process in an uninterruptible wait, as far as a program can: only SIGKILL ends it."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        signal.pause()
