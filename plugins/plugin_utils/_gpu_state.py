# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The verdict on one node: state, evidence, remedy, expectations. **PRIVATE** to the collection."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.gpuops.fleet.plugins.plugin_utils._gpu_answer import (
    SMI_COMMAND,
    NodeAnswer,
    PciGpu,
)
from ansible_collections.gpuops.fleet.plugins.plugin_utils._nvidia_smi_xml import (
    Gpu,
    NvidiaSmiXmlError,
    SmiLog,
    cut_document,
    parse_log,
)

_EVIDENCE_LIMIT = 2048

# State -> status and severity of the health check, next step: the command first. The order is the order of weight.
_STATES: dict[str, tuple[str, str, str]] = {
    "unresponsive": (
        "fail",
        "critical",
        "ps -eo pid,stat,wchan:32,comm | grep ' D' (who hangs), dmesg | grep -i nvrm (why); a process that SIGKILL"
        " does not end needs a reboot of the node",
    ),
    "gpu_lost": (
        "fail",
        "critical",
        "dmesg | grep -iE 'xid|nvrm' (why), then drain the node and reboot it; a GPU that is lost again needs service",
    ),
    "reset_required": (
        "fail",
        "critical",
        "nvidia-smi --gpu-reset -i INDEX, after draining the node and stopping all that uses the GPU; or reboot",
    ),
    "driver_library_mismatch": (
        "fail",
        "critical",
        "reboot, since the driver was updated under the running kernel module; to compare:"
        " cat /proc/driver/nvidia/version; dpkg -l '*nvidia*'",
    ),
    "driver_missing": (
        "fail",
        "critical",
        "apt install nvidia-driver (Debian) or ubuntu-drivers install (Ubuntu), then reboot",
    ),
    "driver_not_loaded": (
        "fail",
        "critical",
        "modprobe nvidia; when that fails: dkms status; dmesg | grep -i nvrm",
    ),
    "tools_missing": (
        "fail",
        "warning",
        "cat /proc/driver/nvidia/version, then install nvidia-smi and libnvidia-ml of that version",
    ),
    "no_permission": (
        "unknown",
        "warning",
        "ls -l /dev/nvidia*, then probe as root (--become) or let this user read and write them",
    ),
    "degraded": ("fail", "critical", "nvidia-smi -q; dmesg | grep -iE 'xid|nvrm'"),
    "no_gpu": (
        "fail",
        "warning",
        "lspci -nn -d 10de: (nothing there: the machine's passthrough or its seating, when it should have a GPU)",
    ),
    "unknown": ("unknown", "warning", "nvidia-smi -q -x, and read what it says"),
    "ok": ("ok", "critical", ""),
}
STATES = tuple(_STATES)

_NO_DRIVER_NO_PCI_REMEDY = (
    "lspci -nn -d 10de: (nothing there: the machine's passthrough or its seating; a GPU there: modprobe nvidia)"
)

# The texts come first: the exit codes of the same failure differ by driver version.
_TEXT_STATES = (
    (r"Driver/library version mismatch", "driver_library_mismatch"),
    (r"Mismatch in versions between nvidia-smi and NVML", "driver_library_mismatch"),
    (r"GPU is lost|fallen off the bus", "gpu_lost"),
    (r"GPU requires reset|GPU reset must occur", "reset_required"),
    (r"couldn't find libnvidia-ml\.so", "tools_missing"),
    (r"couldn't communicate with the NVIDIA driver|Driver Not Loaded", "driver_not_loaded"),
    (r"Insufficient Permissions|readable by current user|blocked by the operating system", "no_permission"),
    (r"Unable to determine the device handle|Insufficient External Power|Interrupt Request Issue", "degraded"),
    (r"No devices were found", "no_gpu"),
)
_CODE_STATES = {
    4: "no_permission",
    6: "no_gpu",
    8: "degraded",
    9: "driver_not_loaded",
    10: "degraded",
    11: "degraded",
    12: "tools_missing",
    15: "gpu_lost",
    18: "driver_library_mismatch",
}


@dataclass(frozen=True)
class Expectations:
    """What the user says that a node has; None is not checked."""

    count: int | None = None
    model: str | None = None
    min_driver: str | None = None


@dataclass(frozen=True)
class Verdict:
    """A state and the sentence that explains it."""

    state: str
    reason: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Reading:
    """What nvidia-smi's output comes to."""

    verdict: Verdict
    log: SmiLog | None = None
    around: str = ""


def version_key(version: str) -> tuple[int, ...]:
    """Driver versions compare number by number: 550.90 is below 550.163."""
    return tuple(int(part) for part in version.split("."))


def is_version(text: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)*", text, re.ASCII) is not None


def probe_result(answer: NodeAnswer, expect: Expectations) -> dict[str, Any]:
    """The return values of gpu_probe for one node's answer."""
    expected = [gpu for gpu in answer.pci_gpus if not _is_elsewhere(gpu, answer)]
    reading = _reading(answer, expected)
    verdict = reading.verdict
    listed = reading.log.gpus if reading.log else ()
    gpus = [*listed, *_unlisted(expected, listed)]
    driver = _driver(answer, reading.log)
    state_check = _state_check(verdict, expect)
    health = [state_check, *_expectation_checks(expect, verdict, reading.log, gpus, driver["version"])]
    names = list(dict.fromkeys(gpu.name for gpu in gpus if gpu.name))
    return {
        "changed": False,
        "state": verdict.state,
        "simulated": bool(answer.sysroot),
        "summary": _summary(answer, verdict, gpus, driver),
        "driver": driver,
        "gpus": [asdict(gpu) for gpu in gpus],
        "evidence": _evidence(answer, reading),
        "remedy": state_check["remedy"],
        "health": health,
        "probe_seconds": answer.elapsed_ms / 1000,
        "ansible_facts": {
            "gpu": {
                "state": verdict.state,
                "count": len(listed),
                "names": names,
                "driver_version": driver["version"],
                "cuda_version": driver["cuda_version"],
                "simulated": bool(answer.sysroot),
            }
        },
    }


def _is_elsewhere(gpu: PciGpu, answer: NodeAnswer) -> bool:
    """A GPU that a virtual machine holds, or one of the host's that this container was not given."""
    if gpu.driver == "vfio-pci":
        return True
    if not answer.driver_loaded:
        return False
    hidden_in_proc = gpu.driver == "nvidia" and not gpu.in_proc and any(other.in_proc for other in answer.pci_gpus)
    hidden_in_dev = gpu.in_proc and not gpu.device_node and answer.device_nodes
    return hidden_in_proc or hidden_in_dev


def _reading(answer: NodeAnswer, expected: list[PciGpu]) -> Reading:
    smi = answer.smi
    if smi.outcome == "deadline":
        state = f" (process state {smi.process_state})" if smi.process_state else ""
        return Reading(Verdict("unresponsive", f"`{SMI_COMMAND}` did not end before the deadline{state}"))
    if smi.outcome == "no_directory":
        return Reading(
            Verdict(
                "unknown",
                "no temporary directory on the node can be written",
                "Free space in /tmp, /dev/shm or /var/tmp of the node: `df -h /tmp /dev/shm /var/tmp`.",
            )
        )
    if smi.outcome == "exited":
        return _output_reading(answer, expected)
    if answer.driver_loaded:
        return Reading(Verdict("tools_missing", "the kernel driver is loaded, but there is no nvidia-smi"))
    return Reading(_without_driver(answer, expected))


def _without_driver(answer: NodeAnswer, expected: list[PciGpu]) -> Verdict:
    on_disk = answer.smi_path or answer.module_file
    if on_disk and expected:
        return Verdict("driver_not_loaded", f"{on_disk} is installed, but the kernel driver is not loaded")
    if on_disk:
        return Verdict(
            "driver_not_loaded",
            f"{on_disk} is installed, but the kernel driver is not loaded and there is no NVIDIA PCI device",
            _NO_DRIVER_NO_PCI_REMEDY,
        )
    if expected:
        bound = sorted({gpu.driver for gpu in expected if gpu.driver})
        return Verdict(
            "driver_missing",
            f"{len(expected)} NVIDIA GPU{'s' * (len(expected) > 1)} on PCI and no NVIDIA driver"
            + (f" ({', '.join(bound)} in use)" if bound else ""),
        )
    return Verdict("no_gpu", _no_gpu_reason(answer))


def _no_gpu_reason(answer: NodeAnswer) -> str:
    passed = sum(gpu.driver == "vfio-pci" for gpu in answer.pci_gpus)
    return f"no NVIDIA GPU for this host, {passed} passed through by vfio-pci" if passed else "no NVIDIA GPU on PCI"


def _output_reading(answer: NodeAnswer, expected: list[PciGpu]) -> Reading:
    smi = answer.smi
    around, document = cut_document(smi.output)
    if document:
        try:
            log = parse_log(document)
        except NvidiaSmiXmlError as exc:
            broken = str(exc)
        else:
            return Reading(_log_verdict(log, around, answer, expected), log, around)
    else:
        seen = around.splitlines()[0] if around else "no output"
        broken = f"`{SMI_COMMAND}` gave no XML, exit code {smi.rc}: {seen}"
    if smi.left_running:
        return Reading(
            Verdict("unresponsive", f"`{SMI_COMMAND}` left a process running and no whole answer"), around=around
        )
    verdict = _text_verdict(around, smi.rc) or Verdict("unknown", broken)
    if verdict.state == "no_gpu" and expected:
        verdict = Verdict("degraded", f"nvidia-smi finds none of the {len(expected)} NVIDIA GPUs on PCI")
    return Reading(verdict, around=around)


def _text_verdict(text: str, rc: int | None) -> Verdict | None:
    for pattern, state in _TEXT_STATES:
        lines = [line.strip() for line in text.splitlines() if re.search(pattern, line, re.IGNORECASE)]
        if lines:
            return Verdict(state, "; ".join(dict.fromkeys(lines)))
    if rc in _CODE_STATES:
        return Verdict(_CODE_STATES[rc], f"`{SMI_COMMAND}` ended with exit code {rc}")
    return None


def _log_verdict(log: SmiLog, around: str, answer: NodeAnswer, expected: list[PciGpu]) -> Verdict:
    found: list[Verdict] = []
    for gpu, own in zip(log.gpus, log.verdicts):
        label = f"GPU {gpu.index} ({gpu.bus_id})"
        if own.lost:
            found.append(Verdict("gpu_lost", f"{label}: GPU is lost"))
        elif own.recovery_action:
            state = "reset_required" if "reset" in own.recovery_action.lower() else "degraded"
            found.append(Verdict(state, f"{label}: the driver asks for: {own.recovery_action}"))
        elif gpu.errors:
            texts = ", ".join(f"{key} reads {text!r}" for key, text in gpu.errors.items())
            found.append(Verdict("degraded", f"{label}: {texts}"))
    text_verdict = _text_verdict(around, answer.smi.rc)
    if text_verdict and text_verdict.state != "no_gpu":
        state = text_verdict.state if text_verdict.state in ("gpu_lost", "reset_required") else "degraded"
        found.append(Verdict(state, text_verdict.reason))
    elif answer.smi.rc and log.gpus:
        found.append(Verdict("degraded", f"`{SMI_COMMAND}` ended with exit code {answer.smi.rc}"))
    unlisted = _unlisted(expected, log.gpus)
    if unlisted:
        found.append(Verdict("degraded", f"on PCI but not listed: {', '.join(str(gpu.bus_id) for gpu in unlisted)}"))
    elif log.attached_gpus is not None and log.attached_gpus > len(log.gpus):
        found.append(Verdict("degraded", f"{log.attached_gpus} GPUs attached, {len(log.gpus)} listed"))
    if found:
        worst = min((verdict.state for verdict in found), key=STATES.index)
        return Verdict(worst, "; ".join(dict.fromkeys(verdict.reason for verdict in found)))
    return Verdict("ok") if log.gpus else Verdict("no_gpu", _no_gpu_reason(answer))


def _unlisted(expected: list[PciGpu], listed: tuple[Gpu, ...]) -> list[Gpu]:
    known = {gpu.bus_id for gpu in listed}
    return [Gpu(bus_id=gpu.bus_id) for gpu in expected if gpu.bus_id not in known]


def _driver(answer: NodeAnswer, log: SmiLog | None) -> dict[str, Any]:
    match = re.search(r"^NVRM version:.*?\s(\d+(?:\.\d+)+)\s", answer.proc_version + "\n", re.MULTILINE)
    module = (match[1] if match else answer.module_version) or None
    return {
        "version": (log.driver_version if log else None) or module,
        "cuda_version": log.cuda_version if log else None,
        "loaded": answer.driver_loaded or bool(log),
        "kernel_module_version": module,
    }


def _summary(answer: NodeAnswer, verdict: Verdict, gpus: list[Gpu], driver: dict[str, Any]) -> str:
    names = Counter(gpu.name or "NVIDIA GPU" for gpu in gpus)
    parts = [" + ".join(f"{count}x {name}" for name, count in names.items()) or "no NVIDIA GPU"]
    if answer.sysroot and "simulated" not in parts[0]:
        parts.append("simulated")
    parts.append(f"driver {driver['version']}" if driver["version"] else "no driver loaded")
    if driver["cuda_version"]:
        parts.append(f"CUDA {driver['cuda_version']}")
    return f"{', '.join(parts)}: {verdict.state}" + (f" - {verdict.reason}" if verdict.reason else "")


def _evidence(answer: NodeAnswer, reading: Reading) -> list[dict[str, Any]]:
    """Each observation as the command by which a person sees the same."""
    found: list[tuple[str, int | None, str]] = []
    if answer.smi.outcome in ("exited", "deadline"):
        found.append((SMI_COMMAND, answer.smi.rc, reading.around if reading.log else answer.smi.output))
    if reading.verdict.state != "ok":
        root = answer.sysroot
        vendors = "\n".join(f"{root}/sys/bus/pci/devices/{gpu.bus_id}/vendor" for gpu in answer.pci_gpus)
        found += [
            ("command -v nvidia-smi", 0 if answer.smi_path else 127, answer.smi_path),
            (f"cat {root}/proc/driver/nvidia/version", 0 if answer.proc_version else 1, answer.proc_version),
            (f"grep -l 0x10de {root}/sys/bus/pci/devices/*/vendor", 0 if vendors else 1, vendors),
        ]
    return [{"command": command, "rc": rc, "output": output[:_EVIDENCE_LIMIT]} for command, rc, output in found]


def _check(name: str, status: str, severity: str, evidence: str, remedy: str) -> dict[str, str]:
    return {
        "id": name,
        "status": status,
        "severity": severity,
        "evidence": evidence,
        "remedy": "" if status == "ok" else remedy,
    }


def _state_check(verdict: Verdict, expect: Expectations) -> dict[str, str]:
    status, severity, remedy = _STATES[verdict.state]
    if verdict.state == "no_gpu" and expect.count == 0:
        status = "ok"
    return _check("state", status, severity, verdict.reason or "nvidia-smi lists every GPU", verdict.remedy or remedy)


def _expectation_checks(
    expect: Expectations, verdict: Verdict, log: SmiLog | None, gpus: list[Gpu], driver_version: str | None
) -> list[dict[str, str]]:
    checks = []
    if expect.count is not None:
        usable = _usable_count(verdict, log)
        checks.append(
            _check(
                "expect_count",
                "unknown" if usable is None else "ok" if usable == expect.count else "fail",
                "critical",
                f"{'unknown number of' if usable is None else usable} usable GPUs, {expect.count} expected",
                "Compare `nvidia-smi -L` with `lspci -nn | grep -i 10de` on the node, or correct the expectation.",
            )
        )
    if expect.model is not None:
        names = [gpu.name for gpu in gpus]
        differing = [name for name in names if name and expect.model.lower() not in name.lower()]
        seen = ", ".join(sorted({name or "unnamed" for name in names})) or "no GPU"
        checks.append(
            _check(
                "expect_model",
                "fail" if differing else "ok" if names and all(names) else "unknown",
                "critical",
                f"{expect.model!r} expected, seen: {seen}",
                "Use the node in a group for its model, or correct the expectation.",
            )
        )
    if expect.min_driver is not None:
        new_enough = driver_version and version_key(driver_version) >= version_key(expect.min_driver)
        checks.append(
            _check(
                "expect_min_driver",
                "unknown" if driver_version is None else "ok" if new_enough else "fail",
                "critical",
                f"driver {driver_version or 'unknown'}, at least {expect.min_driver} expected",
                "Update the NVIDIA driver package of the node and reboot, or correct the expectation.",
            )
        )
    return checks


def _usable_count(verdict: Verdict, log: SmiLog | None) -> int | None:
    if log:
        return sum(not own.lost for own in log.verdicts)
    return 0 if verdict.state in ("no_gpu", "driver_missing", "driver_not_loaded") else None
