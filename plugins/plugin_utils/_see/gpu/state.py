# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What gpu_probe says about one node: state, evidence, remedy, and all that was read. **PRIVATE** to the collection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.gpuops.fleet.plugins.module_utils._see.gpu.options import FIELDS
from ansible_collections.gpuops.fleet.plugins.module_utils._see.gpu.record import Gpu
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.answer import (
    SMI_COMMAND,
    NodeAnswer,
    PciGpu,
    SmiRun,
)
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.driver import driver_facts
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.health import (
    SEVERITIES,
    Expectations,
    health_checks,
    merged_policy,
    worst,
)
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.kernel_log import kernel_events
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.pci_names import gpu_name
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.smi_text import (
    ListedGpu,
    join,
    parse_compute,
    parse_list,
    parse_nvlink,
    parse_topology,
)
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.smi_xml import (
    GpuVerdict,
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
_STATE_ACTIONS = {
    "unresponsive": "reboot",
    "gpu_lost": "reboot",
    "reset_required": "reset_gpu",
    "driver_library_mismatch": "reboot",
    "degraded": "drain",
}
# The checks that look at a part of the answer which may not be asked for.
_CHECKS_OF = {
    "driver": ("fabric_manager", "fabric_manager_version", "reboot_pending", "kernel_module", "nouveau", "secure_boot"),
    "kernel_events": ("kernel_events",),
    "nvlinks": ("nvlink",),
    "topology": ("fabric_manager", "fabric_manager_version"),
}
# Texts of a device that does not answer. Any other text in the place of a value is a word that is not known here.
_NVML_FAILURES = {"Unknown Error", "ERR!", "GPU requires reset"}
_NVML_COMMAND = "NVML: libnvidia-ml.so.1"

_NO_DRIVER_NO_PCI_REMEDY = (
    "lspci -nn -d 10de: (nothing there: the machine's passthrough or its seating; a GPU there: modprobe nvidia)"
)

# All drivers write these in one form, so another one is damage. Other readings may change with a new driver.
_IDENTITY = {"uuid", "bus_id", "memory_total_mib"}

# The texts come first: the exit codes of the same failure differ by driver version.
_TEXT_STATES = (
    (
        ("driver/library version mismatch", "mismatch in versions between nvidia-smi and nvml"),
        "driver_library_mismatch",
    ),
    (("gpu is lost", "fallen off the bus"), "gpu_lost"),
    (("gpu requires reset", "gpu reset must occur"), "reset_required"),
    (("couldn't find libnvidia-ml.so",), "tools_missing"),
    (("couldn't communicate with the nvidia driver", "driver not loaded"), "driver_not_loaded"),
    (
        ("insufficient permissions", "readable by current user", "blocked by the operating system"),
        "no_permission",
    ),
    (
        (
            "inforom is corrupted",
            "unable to determine the device handle",
            "insufficient external power",
            "interrupt request issue",
        ),
        "degraded",
    ),
    (("no devices were found",), "no_gpu"),
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
class Question:
    """The question of the caller."""

    fields: frozenset[str] = frozenset(FIELDS)
    expect: Expectations = Expectations()
    policy: Mapping[str, Any] = field(default_factory=dict)
    kernel_log_hours: int = 0
    backend: str = "auto"


@dataclass(frozen=True)
class Verdict:
    """A state and the sentence that explains it."""

    state: str
    reason: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Reading:
    """State of a node by the output of nvidia-smi."""

    verdict: Verdict
    log: SmiLog | None = None
    around: str = ""
    backend: str = "sysfs"
    nvml: tuple[str, int | None, str] | None = None


def needs_nvml(answer: NodeAnswer) -> bool:
    """Return whether NVML may answer where nvidia-smi could not: a lost GPU hides all others up to driver 555."""
    if answer.smi.outcome == "not_run":
        return answer.driver_loaded
    if answer.smi.outcome != "exited" or "<nvidia_smi_log" in answer.smi.output:
        return False
    return _output_reading(answer, [], {}).verdict.state in ("gpu_lost", "reset_required", "degraded", "tools_missing")


def probe_result(answer: NodeAnswer, question: Question, nvml: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The return values of gpu_probe for one node's answer, and that of NVML if it was asked too."""
    expected = [gpu for gpu in answer.pci_gpus if not _is_elsewhere(gpu, answer)]
    topology = parse_topology(_said(answer.smi_topology))
    reading = _reading(answer, expected, topology)
    if nvml is not None:
        reading = _nvml_reading(nvml, reading, answer, expected, question.backend == "auto")
    verdict, log = reading.verdict, reading.log
    listed = log.gpus if log else ()
    gpus = [_with_pci(gpu, answer) for gpu in (*listed, *_unlisted(expected, listed))]
    driver = driver_facts(
        answer,
        log.driver_version if log else None,
        log.cuda_version if log else None,
        on_disk="driver" in question.fields,
    )
    probe: dict[str, Any] = {
        "changed": False,
        "state": verdict.state,
        "backend": reading.backend,
        "simulated": bool(answer.sysroot),
        "driver": driver,
        "gpus": [dict(vars(gpu)) for gpu in gpus],
        "probe_seconds": answer.elapsed_ms / 1000,
    }
    if "topology" in question.fields:
        probe["topology"] = _with_cards(topology, answer)
    if "kernel_events" in question.fields:
        probe["kernel_events"] = kernel_events(answer.kernel_log, gpus, question.kernel_log_hours)
    state_check = _state_check(verdict, question.expect)
    checks = _health(probe, question) if "health" in question.fields else []
    health = [state_check, *checks]
    for record in probe["gpus"]:
        record["nvlinks"] = _link_groups(record["nvlinks"])
        for name in {"nvlinks", "processes"} - question.fields:
            del record[name]
    probe.update(
        summary=_summary(answer, verdict, gpus, driver, checks),
        evidence=_evidence(answer, reading),
        remedy=_remedy(health),
        health=health,
        ansible_facts={
            "gpu": {
                "state": verdict.state,
                "health": worst(not_good(health, "warning")) if "health" in question.fields else None,
                "count": sum("handle" not in gpu.errors for gpu in listed),
                "names": list(dict.fromkeys(gpu.name for gpu in gpus if gpu.name)),
                "driver_version": driver["version"],
                "cuda_version": driver["cuda_version"],
                "simulated": bool(answer.sysroot),
            }
        },
    )
    return probe


def _health(probe: Mapping[str, Any], question: Question) -> list[dict[str, Any]]:
    """The checks of the policy, without those that look at what was not asked for."""
    policy = merged_policy(question.policy)
    for name in FIELDS:
        for check in _CHECKS_OF.get(name, ()) if name not in question.fields else ():
            policy[check] = {**policy[check], "enabled": False}
    unasked: dict[str, Any] = {"topology": {"nvswitches": []}, "kernel_events": {}}
    return health_checks({**unasked, **probe}, policy, question.expect)


def _said(run: SmiRun) -> str:
    return run.output if run.outcome == "exited" else ""


def _with_pci(gpu: Gpu, answer: NodeAnswer) -> Gpu:
    """Return a GPU as PCI knows it, where the driver does not tell."""
    device = next((each for each in answer.pci_gpus if each.bus_id == gpu.bus_id), None)
    if device is None:
        return gpu
    own: dict[str, Any] = {
        "name": gpu.name or gpu_name(device.device_id, device.subsystem),
        "numa_node": device.numa_node if gpu.numa_node is None else gpu.numa_node,
    }
    if gpu.index is None:
        own.update(pcie_link_width_current=device.link_width_current, pcie_link_width_max=device.link_width_max)
    return replace(gpu, **own)


# Ansible copies a result several times, value by value: the links and connections of eight GPUs would be most of it.
def _link_groups(links: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """The NVLinks of a GPU, with those that are alike in one record."""
    if links is None:
        return None
    groups: dict[tuple[bool, float | None], list[int]] = {}
    for link in links:
        groups.setdefault((link["active"], link["speed_gbyte_s"]), []).append(link["link"])
    return [
        {"links": _ranges(numbers), "count": len(numbers), "active": active, "speed_gbyte_s": speed}
        for (active, speed), numbers in groups.items()
    ]


def _ranges(numbers: list[int]) -> str:
    """0, 1, 2 and 5 are 0-2,5, as Linux writes lists of processors."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][-1] == number - 1:
            spans[-1] = [spans[-1][0], number]
        else:
            spans.append([number])
    return ",".join("-".join(map(str, span)) for span in spans)


def _with_cards(topology: dict[str, Any], answer: NodeAnswer) -> dict[str, Any]:
    """The connections of the GPUs with the network cards and NVSwitches that /sys names."""
    matrix = {label: row for label, row in topology["matrix"].items() if label.startswith("GPU")}
    labels = {nic["name"]: nic["label"] for nic in topology["nics"]}
    nics = [
        {"label": labels.get(nic.name), "name": nic.name, "bus_id": nic.bus_id or None, "numa_node": nic.numa_node}
        for nic in answer.nics
    ]
    return {**topology, "matrix": matrix, "nics": nics or topology["nics"], "nvswitches": list(answer.nvswitches)}


def _is_elsewhere(gpu: PciGpu, answer: NodeAnswer) -> bool:
    """A GPU that a virtual machine holds, or one of the host's that this container was not given."""
    if gpu.is_passed_through:
        return True
    if not answer.driver_loaded or answer.is_host:
        return False
    hidden_in_proc = gpu.driver == "nvidia" and not gpu.in_proc and any(other.in_proc for other in answer.pci_gpus)
    hidden_in_dev = gpu.in_proc and not gpu.device_node and answer.device_nodes
    return hidden_in_proc or hidden_in_dev


def _reading(answer: NodeAnswer, expected: list[PciGpu], topology: Mapping[str, Any]) -> Reading:
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
        return _output_reading(answer, expected, topology)
    if answer.driver_loaded and answer.smi_path:
        return Reading(Verdict("unknown", "the driver is loaded, and nobody asked it"))
    if answer.driver_loaded:
        return Reading(Verdict("tools_missing", "the kernel driver is loaded, but there is no nvidia-smi"))
    return Reading(_without_driver(answer, expected))


def _without_driver(answer: NodeAnswer, expected: list[PciGpu]) -> Verdict:
    host = answer.host
    on_disk = answer.smi_path or answer.module_file
    if not on_disk and (host.dkms_registered or host.library_version or host.module_kernels):
        on_disk = "a part of the driver, and no module for the running kernel,"
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
    passed = sum(gpu.is_passed_through for gpu in answer.pci_gpus)
    return (
        f"no NVIDIA GPU for this host, {passed} passed through to virtual machines"
        if passed
        else "no NVIDIA GPU on PCI"
    )


def _output_reading(answer: NodeAnswer, expected: list[PciGpu], topology: Mapping[str, Any]) -> Reading:
    smi = answer.smi
    around, document = cut_document(smi.output)
    if document:
        try:
            listing = parse_list(_said(answer.smi_list))
            log = _joined(parse_log(document), answer, listing, topology)
        except NvidiaSmiXmlError as exc:
            broken = str(exc)
        else:
            return Reading(_log_verdict(log, around, answer, expected, listing), log, around, "nvidia_smi")
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


def _joined(log: SmiLog, answer: NodeAnswer, listing: tuple[ListedGpu, ...], topology: Mapping[str, Any]) -> SmiLog:
    """The document with what the other commands say."""
    return replace(
        log,
        gpus=tuple(
            join(
                log.gpus,
                listing,
                parse_compute(_said(answer.smi_compute)),
                parse_nvlink(_said(answer.smi_nvlink)),
                topology,
            )
        ),
    )


def _text_verdict(text: str, rc: int | None) -> Verdict | None:
    lowered = text.lower()
    for phrases, state in _TEXT_STATES:
        if any(phrase in lowered for phrase in phrases):
            lines = [line.strip() for line in text.splitlines() if any(phrase in line.lower() for phrase in phrases)]
            return Verdict(state, "; ".join(dict.fromkeys(lines)))
    if rc in _CODE_STATES:
        return Verdict(_CODE_STATES[rc], f"`{SMI_COMMAND}` ended with exit code {rc}")
    return None


def _log_verdict(
    log: SmiLog, around: str, answer: NodeAnswer, expected: list[PciGpu], listing: tuple[ListedGpu, ...] = ()
) -> Verdict:
    found: list[Verdict] = []
    for gpu, own in zip(log.gpus, log.verdicts):
        label = f"GPU {gpu.index}" + (f" ({gpu.bus_id})" if gpu.bus_id else "")
        if own.lost:
            found.append(Verdict("gpu_lost", f"{label}: GPU is lost"))
        elif own.recovery_action:
            state = "reset_required" if "reset" in own.recovery_action.lower() else "degraded"
            found.append(Verdict(state, f"{label}: the driver asks for: {own.recovery_action}"))
        elif "handle" in gpu.errors:
            told = _text_verdict(gpu.errors["handle"], None) or Verdict("degraded")
            found.append(Verdict(told.state, f"{label} cannot be opened: {gpu.errors['handle']}"))
        elif own.failed or any(_is_failure(key, text) for key, text in gpu.errors.items()):
            texts = ", ".join(f"{key} reads {text!r}" for key, text in gpu.errors.items()) or "a reading fails"
            found.append(Verdict("degraded", f"{label}: {texts}"))
        if not (gpu.uuid or gpu.name or gpu.memory_total_mib or "handle" in gpu.errors):
            found.append(Verdict("degraded", f"{label}: nothing can be read"))
    for each in ("uuid", "bus_id"):
        values = [value for value in (getattr(gpu, each) for gpu in log.gpus) if value]
        if len(values) > len(set(values)):
            found.append(Verdict("degraded", f"two GPUs have the same {each}"))
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
    found += _list_verdicts(log, answer.smi_list, listing)
    for run, command in (
        (answer.smi_list, "nvidia-smi -L"),
        (answer.smi_compute, "nvidia-smi --query-gpu=uuid,compute_cap --format=csv"),
        (answer.smi_nvlink, "nvidia-smi nvlink -s"),
        (answer.smi_topology, "nvidia-smi topo -m"),
    ):
        if run.outcome == "deadline":
            found.append(Verdict("degraded", f"`{command}` did not end before the deadline"))
        said = _text_verdict(_said(run), None)
        if said and said.state in ("gpu_lost", "reset_required"):
            found.append(Verdict(said.state, f"`{command}`: {said.reason}"))
    if found:
        heaviest = min((verdict.state for verdict in found), key=STATES.index)
        return Verdict(heaviest, "; ".join(dict.fromkeys(verdict.reason for verdict in found)))
    return Verdict("ok") if log.gpus else Verdict("no_gpu", _no_gpu_reason(answer))


def _is_failure(key: str, text: str) -> bool:
    if text == "Insufficient Permissions":
        # With MIG a user without rights is not told the memory of a healthy GPU.
        return False
    # A character that cannot be in a document is damage too.
    return text in _NVML_FAILURES or key in _IDENTITY or "\ufffd" in text


def _list_verdicts(log: SmiLog, run: SmiRun, listing: tuple[ListedGpu, ...]) -> list[Verdict]:
    """Return verdicts that only `nvidia-smi -L` gives: it names a GPU that it cannot open, and goes on."""
    verdicts = [
        _text_verdict(gpu.error, None) or Verdict("degraded", f"`nvidia-smi -L`: {gpu.error}")
        for gpu in listing
        if gpu.error
    ]
    if len(listing) > len(log.gpus):
        verdicts.append(
            Verdict("degraded", f"`nvidia-smi -L` lists {len(listing)} GPUs, `{SMI_COMMAND}` {len(log.gpus)}")
        )
    if run.rc and not verdicts:
        verdicts.append(Verdict("degraded", f"`nvidia-smi -L` ended with exit code {run.rc}"))
    return verdicts


def _unlisted(expected: list[PciGpu], listed: tuple[Gpu, ...]) -> list[Gpu]:
    known = {gpu.bus_id for gpu in listed}
    return [Gpu(bus_id=gpu.bus_id) for gpu in expected if gpu.bus_id not in known]


def _nvml_reading(
    nvml: Mapping[str, Any], first: Reading, answer: NodeAnswer, expected: list[PciGpu], second: bool
) -> Reading:
    """Return the reading of NVML; asked second, it adds GPUs that nvidia-smi did not show, and no better state."""
    outcome, text = nvml["outcome"], nvml["error"]
    seen = (_NVML_COMMAND, nvml.get("init_code"), text or f"{outcome}, {len(nvml['gpus'])} GPUs")
    gpus = _placed([Gpu(**record) for record in nvml["gpus"]], expected)
    verdicts = tuple(
        GpuVerdict(
            lost=gpu.index in nvml["lost"],
            recovery_action="" if gpu.recovery_action in (None, "none") else str(gpu.recovery_action),
        )
        for gpu in gpus
    )
    log = SmiLog(nvml["driver_version"], nvml["cuda_version"], None, gpus, verdicts) if gpus else None
    if outcome == "answered":
        verdict = _log_verdict(log, "", replace(answer, smi=SmiRun()), expected) if log else _no_gpus(answer, expected)
        if second and STATES.index(first.verdict.state) < STATES.index(verdict.state):
            verdict = first.verdict
    elif second:
        verdict = first.verdict
    elif outcome == "deadline":
        verdict = Verdict("unresponsive", "NVML did not answer before the deadline")
    elif outcome == "no_library":
        verdict = Verdict("tools_missing", "the kernel driver is loaded, but there is no libnvidia-ml.so.1")
    elif outcome == "not_loaded":
        verdict = first.verdict
    else:
        verdict = _text_verdict(text, nvml.get("init_code")) or Verdict("unknown", f"NVML: {text or outcome}")
    return replace(first, verdict=verdict, log=log, backend="nvml" if log else first.backend, nvml=seen)


def _placed(gpus: list[Gpu], expected: list[PciGpu]) -> tuple[Gpu, ...]:
    """NVML cannot say where a GPU is that it cannot open. It counts in the order of PCI, so what is left is these."""
    known = {gpu.bus_id for gpu in gpus}
    left = sorted(gpu.bus_id for gpu in expected if gpu.bus_id not in known)
    if len(left) != sum(gpu.bus_id is None for gpu in gpus):
        return tuple(gpus)
    return tuple(gpu if gpu.bus_id else replace(gpu, bus_id=left.pop(0)) for gpu in gpus)


def _no_gpus(answer: NodeAnswer, expected: list[PciGpu]) -> Verdict:
    if expected:
        return Verdict("degraded", f"NVML finds none of the {len(expected)} NVIDIA GPUs on PCI")
    return Verdict("no_gpu", _no_gpu_reason(answer))


def _summary(
    answer: NodeAnswer, verdict: Verdict, gpus: list[Gpu], driver: dict[str, Any], checks: list[dict[str, Any]]
) -> str:
    names = Counter(gpu.name or "NVIDIA GPU" for gpu in gpus)
    parts = [" + ".join(f"{count}x {name}" for name, count in names.items()) or "no NVIDIA GPU"]
    if answer.sysroot and "simulated" not in parts[0]:
        parts.append("simulated")
    parts.append(f"driver {driver['version']}" if driver["version"] else "no driver loaded")
    if driver["cuda_version"]:
        parts.append(f"CUDA {driver['cuda_version']}")
    told = "".join(f"; {check['severity']}: {check['evidence']}" for check in _failed(checks))
    return f"{', '.join(parts)}: {verdict.state}" + (f" - {verdict.reason}" if verdict.reason else "") + told


def _remedy(health: list[dict[str, Any]]) -> str:
    """The next step: that of the state, else that of the worst check."""
    state, *checks = health
    return next((str(check["remedy"]) for check in (state, *_failed(checks)) if check["remedy"]), "")


def _failed(checks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the checks that failed, without those of severity info, the critical ones first."""
    failed = [check for check in checks if check["status"] == "fail" and check["severity"] != "info"]
    return sorted(failed, key=lambda check: -SEVERITIES.index(check["severity"]))


def _evidence(answer: NodeAnswer, reading: Reading) -> list[dict[str, Any]]:
    """Each observation as the command by which a person sees the same."""
    found: list[tuple[str, int | None, str]] = []
    if answer.smi.outcome in ("exited", "deadline"):
        whole = reading.log and reading.backend == "nvidia_smi"
        found.append((SMI_COMMAND, answer.smi.rc, reading.around if whole else answer.smi.output))
    if reading.nvml:
        found.append(reading.nvml)
    if answer.stuck:
        stuck = (f"{each.pid} {each.state} {each.waits_in} {each.name}" for each in answer.stuck)
        found.append(("ps -eo pid,stat,wchan:32,comm | grep ' D'", 0, "\n".join(stuck)))
    if reading.verdict.state != "ok":
        root = answer.sysroot
        vendors = "\n".join(f"{root}/sys/bus/pci/devices/{gpu.bus_id}/vendor" for gpu in answer.pci_gpus)
        found += [
            ("command -v nvidia-smi", 0 if answer.smi_path else 127, answer.smi_path),
            (f"cat {root}/proc/driver/nvidia/version", 0 if answer.proc_version else 1, answer.proc_version),
            (f"grep -l 0x10de {root}/sys/bus/pci/devices/*/vendor", 0 if vendors else 1, vendors),
        ]
    return [{"command": command, "rc": rc, "output": output[:_EVIDENCE_LIMIT]} for command, rc, output in found]


def _state_check(verdict: Verdict, expect: Expectations) -> dict[str, Any]:
    status, severity, remedy = _STATES[verdict.state]
    if verdict.state == "no_gpu" and expect.count == 0:
        status = "ok"
    return {
        "id": "state",
        "status": status,
        "severity": severity,
        "evidence": verdict.reason or "the driver lists every GPU that PCI shows",
        "remedy": "" if status == "ok" else verdict.remedy or remedy,
        "action": _STATE_ACTIONS.get(verdict.state, "configure") if status == "fail" else "none",
        "gpus": [],
    }


def not_good(health: list[dict[str, Any]], fail_on: str) -> list[dict[str, Any]]:
    """The checks for which a task fails: also a state that is not ok, or an expectation that nobody can tell."""
    heavy = {"none": (), "critical": ("critical",), "warning": ("critical", "warning")}[fail_on]
    return [
        check
        for check in health
        if (check["status"] == "fail" and check["severity"] in heavy)
        or (heavy and check["status"] != "ok" and check["id"] == "state")
        or (check["status"] == "unknown" and check["severity"] in heavy and check["id"].startswith("expect_"))
    ]
