# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be wrong with a node: the faults, and what nvidia-smi says and reads then.

The texts of failures are those of the real program, recorded on drivers 390, 450, 535 and 555. All go to standard
output.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from dataclasses import dataclass

from _machine import THRESHOLDS, Gpu, LabError, Machine, readings
from _work import at_work, change, warmer

# Fault name -> what is written behind it, with colons between.
FAULTS: dict[str, list[str]] = {
    "no_library": [],
    "no_driver": [],
    "mismatch": [],
    "no_permission": [],
    "no_devices": [],
    "not_installed": [],
    "no_tools": [],
    "nouveau": [],
    "driver_updated": [],
    "kernel_updated": [],
    "dev_unreadable": [],
    "dev_root_only": [],
    "gpu_lost_handle": ["GPU"],
    "handle_error": ["GPU", "CODE"],
    "gpu_lost_query": ["GPU"],
    "fallen_off_bus": ["GPU"],
    "ecc_uncorrectable": ["GPU"],
    "remap_pending": ["GPU"],
    "remap_failure": ["GPU"],
    "recovery_action": ["GPU"],
    "thermal_slowdown": ["GPU"],
    "power_brake": ["GPU"],
    "nvlink_down": ["GPU"],
    "fabric_pending": [],
    "xid": ["GPU", "XID"],
    "xid_mig": ["GPU"],
    "xid_storm": ["GPU"],
    "reset_required": [],
    "unknown_error": [],
    "smi_nvml_version": [],
    "hang": [],
    "hang_child": [],
    "stopped_child": [],
    "slow": ["SECONDS"],
    "busy": [],
}
# Without the driver nvidia-smi says that it is not there, however that came about.
UNLOADED = ("no_driver", "not_installed", "nouveau")
WITHOUT_TOOLS = ("not_installed", "no_tools")
HANGS = ("hang", "hang_child", "stopped_child")
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
# Xid -> what the driver writes behind the number. 79 is what gpu_lost_handle and gpu_lost_query write.
XIDS = {
    13: "pid=4242, name=python3, Graphics SM Warp Exception on (GPC 0, TPC 1, SM 0): Out Of Range Address",
    31: "pid=4242, name=python3, Ch 00000008, intr 00000000. MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_0 faulted",
    43: "pid=4242, name=python3, Ch 00000008",
    48: "pid='<unknown>', name=<unknown>, An uncorrectable double bit error (DBE) has been detected on GPU",
    63: "pid='<unknown>', name=<unknown>, Row Remapper: New row marked for remapping, reset gpu to activate.",
    64: "pid='<unknown>', name=<unknown>, Row Remapper: Failed to write remapping entry",
    74: "pid='<unknown>', name=<unknown>, NVLink: fatal error detected on link 0(0x10000, 0x0, 0x0, 0x0)",
    79: "pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
    94: "pid=4242, name=python3, Contained: SM (0x1). RST: No, D-RST: No",
    95: "pid='<unknown>', name=<unknown>, Uncontained: FBHUB. RST: Yes, D-RST: No",
    119: "pid=4242, name=nvidia-smi, Timeout after 6s of waiting for RPC response from GPU0 GSP! Expected function 76",
    154: "GPU recovery action changed from 0x0 (None) to 0x4 (Drain and Reset)",
}
# The Xid that the driver writes with a fault.
XID_OF = {"ecc_uncorrectable": 48, "remap_pending": 63, "remap_failure": 64, "nvlink_down": 74, "recovery_action": 154}
CLOCKS_EVENT = ("clocks_event_reasons/clocks_event_reason_", "clocks_throttle_reasons/clocks_throttle_reason_")
# What a fault changes in the readings of its GPU, or of all.
CHANGES = {
    "ecc_uncorrectable": {
        f"ecc_errors/{period}/{counter}": "1"
        for period in ("volatile", "aggregate")
        for counter in ("dram_uncorrectable", "double_bit/device_memory", "double_bit/total")
    },
    "remap_pending": {"remapped_rows/remapped_row_unc": "1", "remapped_rows/remapped_row_pending": "Yes"},
    "remap_failure": {"remapped_rows/remapped_row_unc": "8", "remapped_rows/remapped_row_failure": "Yes"},
    "recovery_action": {
        "gpu_recovery_action": "Drain and Reset",
        "gpu_reset_status/drain_and_reset_recommended": "Yes",
    },
    "fabric_pending": {"fabric/state": "In Progress", "fabric/status": "N/A"},
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
    xid: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Failure:
    """What nvidia-smi prints instead of an answer, and its exit code."""

    text: str
    exit_code: int


def parse_fault(text: str, machine: Machine) -> Fault:
    """Read 'NAME', 'NAME:GPU', 'handle_error:GPU:CODE', 'xid:GPU:XID' or 'slow:SECONDS'."""
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
        xid=int(values.get("XID", XID_OF.get(name, 0))),
        seconds=values.get("SECONDS", 0.0),
    )
    if "GPU" in values and not 0 <= fault.gpu < len(machine.gpus):
        raise LabError(f"fault {text!r}: {machine.name} has GPU 0 to {len(machine.gpus) - 1}")
    if fault.code and fault.code not in HANDLE_TEXTS:
        raise LabError(f"fault {text!r}: CODE is one of {', '.join(map(str, HANDLE_TEXTS))}")
    if fault.xid and fault.xid not in XIDS:
        raise LabError(f"fault {text!r}: XID is one of {', '.join(map(str, XIDS))}")
    if fault.seconds < 0:
        raise LabError(f"fault {text!r}: SECONDS is 0 or more")
    missing = what_is_missing(fault, machine)
    if missing:
        raise LabError(f"fault {text!r}: {machine.name} has no {missing}; choose another machine")
    return fault


def what_is_missing(fault: Fault, machine: Machine) -> str:
    """What a machine would need for a fault to be seen."""
    if fault.name == "nvlink_down" and (machine.model["mig"] or not machine.model["nvlink"]):
        return "NVLink that nvidia-smi shows"
    if fault.name == "xid_mig" and not machine.model["mig"]:
        return "MIG parts"
    if fault.name in CHANGES:
        healthy = readings(machine, machine.gpus[0])
        return "such reading" if change(healthy, CHANGES[fault.name]) == healthy else ""
    return ""


def seen_by_driver(fault: Fault, machine: Machine) -> Machine:
    """The machine with the GPUs that the driver has found."""
    return machine.without(fault.gpu) if fault.name == "fallen_off_bus" else machine


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
    if fault.name in UNLOADED:
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
    if (is_unreadable(fault) or fault.code == UNREADABLE) and not listing:
        return Failure(
            "No devices were found. Please make sure /dev/nvidia* files are readable by current user.\n", UNREADABLE
        )
    return None


def is_unreadable(fault: Fault) -> bool:
    """Whether this user may not open the device files."""
    return fault.name == "dev_unreadable" or (fault.name == "dev_root_only" and os.geteuid() != 0)


def handle_failure(fault: Fault, machine: Machine, gpu: Gpu, *, listing: bool) -> Failure | None:
    """The line about a GPU that cannot be opened."""
    code = UNREADABLE if is_unreadable(fault) else fault.code if fault.gpu == gpu.index else 0
    if not code:
        return None
    where = f"gpu {gpu.index}" if listing else f"{'GPU' if machine.version >= (535,) else 'GPU '}{gpu.bus_id.upper()}"
    text = f"Unable to determine the device handle for {where}: {HANDLE_TEXTS[code]}\n"
    return Failure(text, exit_code(code, machine))


def readings_with(fault: Fault, machine: Machine, gpu: Gpu) -> dict[str, str]:
    """What nvidia-smi reads from one GPU."""
    if fault.name == "busy":
        return at_work(machine, gpu)
    if fault.gpu not in (gpu.index, -1):
        return readings(machine, gpu)
    if fault.name in ("thermal_slowdown", "power_brake"):
        return slowed(machine, gpu, "hw_thermal" if fault.name == "thermal_slowdown" else "hw_power_brake")
    values = readings(machine, gpu)
    if fault.name == "gpu_lost_query":
        return lose(values)
    return change(values, CHANGES.get(fault.name, {}))


def slowed(machine: Machine, gpu: Gpu, reason: str) -> dict[str, str]:
    """The readings of a GPU at work whose clocks the hardware has cut."""
    working = at_work(machine, gpu)
    idle = readings(machine, gpu)
    cut = {f"clocks/{name}_clock": idle[f"clocks/{name}_clock"] for name in ("graphics", "sm", "video")}
    for prefix in CLOCKS_EVENT:
        cut.update({f"{prefix}hw_slowdown": "Active", f"{prefix}{reason}_slowdown": "Active"})
        cut[f"{prefix}sw_power_cap"] = "Not Active"
    counter = "hw_therm_slowdown" if reason == "hw_thermal" else reason
    cut[f"clocks_event_reasons_counters/clocks_event_reasons_counters_{counter}"] = "61000000 us"
    if reason == "hw_thermal":
        # One degree beyond the threshold, in degrees or in margin.
        celsius = machine.model["temperature_c"]
        threshold = celsius["thresholds"][THRESHOLDS.index("slow")]
        too_warm = celsius["tlimit"] - threshold + 1 if "tlimit" in machine.features else threshold - celsius["gpu"] + 1
        cut.update(warmer(idle, "temperature/gpu_temp", too_warm))
        cut.update(warmer(idle, "temperature/gpu_temp_tlimit", -too_warm))
    return change(working, cut)


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
    elif fault.name == "hang":
        sleep_in_kernel()
    elif fault.name == "hang_child":
        # The child outlives its parent and every signal but SIGKILL, and has the pipe.
        if os.fork() == 0:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            while True:
                signal.pause()
        sys.exit(0)
    elif fault.name == "stopped_child":
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
        os.waitpid(child, 0)


def sleep_in_kernel() -> None:
    """Be in D state, as with a driver that does not answer.

    Who spawns waits in the kernel until the child has started. This child waits for somebody to write to a pipe that
    nobody can reach. SIGKILL ends it, unlike the real thing.
    """
    with tempfile.TemporaryDirectory() as folder:
        os.mkfifo(f"{folder}/pipe")
        pipe = os.open(f"{folder}/pipe", os.O_PATH)
    blocking = (os.POSIX_SPAWN_OPEN, 0, f"/proc/self/fd/{pipe}", os.O_RDONLY, 0)
    os.posix_spawn("/bin/true", ["true"], {}, file_actions=[blocking])
