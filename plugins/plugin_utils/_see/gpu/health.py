# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the readings of gpu_probe mean: checks by the policy and by what was expected. **PRIVATE** to the collection."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ansible.module_utils.common.yaml import yaml_load
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.drift import by_value, majority
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.kernel_log import ACTIONS as EVENT_ACTIONS
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.kernel_log import describe

SEVERITIES = ("info", "warning", "critical")
ACTIONS = (*EVENT_ACTIONS, "configure", "check_mechanicals", "rma")

# CUDA -> the driver of its first release, by NVIDIA's release notes.
_CUDA_DRIVERS = {
    "10.0": "410.48",
    "10.1": "418.39",
    "10.2": "440.33",
    "11.0": "450.51.06",
    "11.1": "455.32",
    "11.2": "460.32.03",
    "11.3": "465.19.01",
    "11.4": "470.82.01",
    "11.5": "495.29.05",
    "11.6": "510.47.03",
    "11.7": "515.48.07",
    "11.8": "520.61.05",
    "12.0": "525.60.13",
    "12.1": "530.30.02",
    "12.2": "535.54.03",
    "12.3": "545.23.06",
    "12.4": "550.54.14",
    "12.5": "555.42.02",
    "12.6": "560.28.03",
    "12.8": "570.26",
    "12.9": "575.51.03",
    "13.0": "580.65.06",
    "13.1": "590.44.01",
    "13.2": "595",
    "13.3": "610",
}
# Compute trays whose NVSwitches are elsewhere, with the fabric manager.
_TRAY = re.compile(r"\bGB[23]00\b")
_EVENT_LIMIT = 5

Gpu = Mapping[str, Any]
Settings = Mapping[str, Any]


class GpuHealthError(Exception):
    """The policy cannot be used, and the text says why."""


@dataclass(frozen=True)
class Expectations:
    """Expectations of the user about a node; None is not checked."""

    count: int | None = None
    model: str | None = None
    memory: int | None = None
    min_driver: str | None = None
    cuda: str | None = None
    nvlinks: int | None = None
    pcie_width: int | None = None
    ecc: bool | None = None
    mig: bool | None = None
    persistence: bool | None = None


@dataclass(frozen=True)
class Finding:
    """Result of one check."""

    status: str
    evidence: str
    remedy: str = ""
    action: str = "none"
    gpus: tuple[int, ...] = ()
    severity: str = ""


@dataclass(frozen=True)
class Case:
    """All that a check looks at."""

    probe: Mapping[str, Any]
    gpus: Sequence[Gpu]
    driver: Mapping[str, Any]
    expect: Expectations
    settings: Settings


_VERSION = re.compile(r"\d{1,9}(\.\d{1,9})*", re.ASCII)
_WORDS = re.compile(r"[A-Za-z0-9]+")

Judge = Callable[[Case], "Finding | None"]

# Read with the import, which Ansible does before it forks: the forks of all hosts share it.
DEFAULT_POLICY: dict[str, dict[str, Any]] = yaml_load(
    Path(__file__).with_name("health_policy.yml").read_text(encoding="utf-8")
)


def merged_policy(changes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The policy of the collection with what the user changes in it."""
    policy = dict(DEFAULT_POLICY)
    for name, own in changes.items():
        if name not in policy:
            raise GpuHealthError(f"policy: there is no check {name!r}, the checks are: {', '.join(policy)}")
        if not isinstance(own, Mapping):
            raise GpuHealthError(f"policy.{name} must be a dictionary, such as {{enabled: false}}, got {own!r}")
        for key, value in own.items():
            if key not in policy[name]:
                raise GpuHealthError(f"policy.{name}: there is no key {key!r}, the keys are: {', '.join(policy[name])}")
            _require_like(f"policy.{name}.{key}", key, value, policy[name][key])
        policy[name] = {**policy[name], **own}
    if "xids" in changes.get("kernel_events", {}):
        policy["kernel_events"]["xids"] = _xids(changes["kernel_events"]["xids"])
    known = DEFAULT_POLICY["siblings"]["readings"]
    for reading in policy["siblings"]["readings"]:
        if reading not in known:
            raise GpuHealthError(f"policy.siblings.readings: there is no {reading!r}, there are: {', '.join(known)}")
    return policy


def _require_like(where: str, key: str, value: Any, default: Any) -> None:
    if key == "severity":
        fits, wanted = value in SEVERITIES, f"one of {', '.join(SEVERITIES)}"
    elif isinstance(default, bool):
        fits, wanted = isinstance(value, bool), "true or false"
    elif isinstance(default, int):
        fits, wanted = isinstance(value, (int, float)) and not isinstance(value, bool), "a number"
    elif isinstance(default, list):
        fits = isinstance(value, list) and all(isinstance(each, str) for each in value)
        wanted = "a list of words"
    else:
        fits, wanted = isinstance(value, Mapping), "a dictionary"
    if not fits:
        raise GpuHealthError(f"{where} must be {wanted}, got {value!r}")


def _xids(changes: Mapping[Any, Any]) -> dict[int, dict[str, str]]:
    allowed = {"severity": SEVERITIES, "action": tuple(EVENT_ACTIONS)}
    xids = {}
    for code, own in changes.items():
        where = f"policy.kernel_events.xids.{code}"
        if not str(code).isdecimal():
            raise GpuHealthError(f"{where}: an Xid is a number")
        if not isinstance(own, Mapping) or not set(own) <= set(allowed):
            raise GpuHealthError(f"{where} must be a dictionary of severity and action, got {own!r}")
        for key, value in own.items():
            if value not in allowed[key]:
                raise GpuHealthError(f"{where}.{key} must be one of {', '.join(allowed[key])}, got {value!r}")
        xids[int(code)] = dict(own)
    return xids


def health_checks(
    probe: Mapping[str, Any], policy: Mapping[str, Settings], expect: Expectations
) -> list[dict[str, Any]]:
    """One entry for each check that applies to this node, by a policy of merged_policy()."""
    gpus, driver = probe["gpus"], probe["driver"]
    checks = []
    for name, judge in CHECKS.items():
        settings = policy[name]
        finding = judge(Case(probe, gpus, driver, expect, settings)) if settings["enabled"] else None
        if finding is None:
            continue
        failed = finding.status == "fail"
        checks.append(
            {
                "id": name,
                "status": finding.status,
                "severity": finding.severity or settings["severity"],
                "evidence": finding.evidence,
                "remedy": "" if finding.status == "ok" else finding.remedy,
                "action": finding.action if failed else "none",
                "gpus": list(finding.gpus),
            }
        )
    return checks


def worst(health: Iterable[Mapping[str, Any]]) -> str:
    """Return the verdict of all checks: ok, unknown, warning or critical. A failure of severity info is ok."""
    weights = ("ok", "unknown", "warning", "critical")
    words = (check["severity"] if check["status"] == "fail" else check["status"] for check in health)
    return max((word for word in words if word in weights), key=weights.index, default="ok")


def is_version(text: str) -> bool:
    return _VERSION.fullmatch(text) is not None


def version_key(version: str) -> tuple[int, ...]:
    """Versions compare number by number: 550.90 is below 550.163."""
    return tuple(int(part) for part in version.split("."))


def _label(gpu: Gpu) -> str:
    if gpu["index"] is None:
        return str(gpu["bus_id"])
    return f"GPU {gpu['index']} ({gpu['bus_id']})" if gpu["bus_id"] else f"GPU {gpu['index']}"


def _indices(gpus: Iterable[Gpu]) -> tuple[int, ...]:
    return tuple(gpu["index"] for gpu in gpus if gpu["index"] is not None)


def _inner(gpu: Gpu, key: str, inner: str) -> Any:
    return (gpu[key] or {}).get(inner)


def _on_off(value: bool) -> str:
    return "on" if value else "off"


def _per_gpu(
    gpus: Sequence[Gpu], judge: Callable[[Gpu], str | None], fine: str, remedy: str, action: str
) -> Finding | None:
    """One finding of all GPUs: what judge calls wrong fails, an empty text is fine, None is unknown."""
    if not gpus:
        return None
    texts = [(gpu, judge(gpu)) for gpu in gpus]
    bad = [(gpu, text) for gpu, text in texts if text]
    unknown = [gpu for gpu, text in texts if text is None]
    if bad:
        indices = _indices(gpu for gpu, _text in bad)
        command = remedy.replace("INDEX", ",".join(map(str, indices)) or "INDEX")
        return Finding("fail", "; ".join(f"{_label(gpu)}: {text}" for gpu, text in bad), command, action, indices)
    if unknown:
        evidence = f"not known of {', '.join(map(_label, unknown))}"
        return Finding("unknown", evidence, "nvidia-smi -q (what it calls N/A is not known)", gpus=_indices(unknown))
    return Finding("ok", fine)


def _pair(remedy: str, action: str, current: str, pending: str, what: str) -> Judge:
    """A mode that was switched and is not in use yet."""

    def differs(gpu: Gpu) -> str | None:
        if gpu[current] is None or gpu[pending] is None:
            return None
        if gpu[current] == gpu[pending]:
            return ""
        return f"{what} is {_on_off(gpu[current])} and will be {_on_off(gpu[pending])}"

    return lambda case: _per_gpu(case.gpus, differs, f"no change of {what} waits", remedy, action)


# What the user expects. The next step of each ends with the other way out: the expectation is wrong.
_OR_CORRECT = "or correct the expectation"


def _expect_count(case: Case) -> Finding | None:
    expected = case.expect.count
    if expected is None:
        return None
    listed = [gpu for gpu in case.gpus if gpu["index"] is not None]
    usable = sum("handle" not in gpu["errors"] and "GPU is lost" not in gpu["errors"].values() for gpu in listed)
    known = listed or case.probe["state"] in ("no_gpu", "driver_missing", "driver_not_loaded")
    return Finding(
        "unknown" if not known else "ok" if usable == expected else "fail",
        f"{usable if known else 'unknown number of'} usable GPUs, {expected} expected",
        f"Compare `nvidia-smi -L` with `lspci -nn | grep -i 10de` on the node, {_OR_CORRECT}.",
        "drain" if usable < expected else "configure",
    )


def _expect_model(case: Case) -> Finding | None:
    expected = case.expect.model
    if expected is None:
        return None
    names = [gpu["name"] for gpu in case.gpus]
    differing = [gpu for gpu in case.gpus if gpu["name"] and expected.lower() not in gpu["name"].lower()]
    seen = ", ".join(sorted({name or "unnamed" for name in names})) or "no GPU"
    return Finding(
        "fail" if differing else "ok" if names and all(names) else "unknown",
        f"{expected!r} expected, seen: {seen}",
        f"Use the node in a group for its model, {_OR_CORRECT}.",
        "configure",
        _indices(differing),
    )


def _expect_min_driver(case: Case) -> Finding | None:
    expected = case.expect.min_driver
    if expected is None:
        return None
    return Finding(
        _at_least(case.driver["version"], expected),
        f"driver {case.driver['version'] or 'unknown'}, at least {expected} expected",
        f"Update the NVIDIA driver package of the node and reboot, {_OR_CORRECT}.",
        "update",
    )


def _expect_cuda(case: Case) -> Finding | None:
    expected = case.expect.cuda
    if expected is None:
        return None
    needed = _CUDA_DRIVERS.get(expected)
    return Finding(
        _at_least(case.driver["cuda_version"], expected),
        f"CUDA {case.driver['cuda_version'] or 'unknown'} with driver {case.driver['version'] or 'unknown'},"
        f" at least CUDA {expected} expected",
        f"Update the NVIDIA driver package of the node{f' to {needed} or newer' if needed else ''} and reboot,"
        f" {_OR_CORRECT}.",
        "update",
    )


def _at_least(seen: str | None, expected: str) -> str:
    if not seen or not is_version(seen):
        return "unknown"
    return "ok" if version_key(seen) >= version_key(expected) else "fail"


def _expect_per_gpu(
    expectation: str, read: Callable[[Gpu], Any], fits: Callable[[Any, Any, Settings], bool], text: str, remedy: str
) -> Judge:
    """An expectation of each GPU. Text has a place for what was seen and one for what is expected."""

    def judge(case: Case) -> Finding | None:
        expected = getattr(case.expect, expectation)
        if expected is None:
            return None

        def shown(value: Any) -> str:
            return _on_off(value) if isinstance(value, bool) else str(value)

        def differs(gpu: Gpu) -> str | None:
            seen = read(gpu)
            if seen is None:
                return None
            return "" if fits(seen, expected, case.settings) else text.format(shown(seen), shown(expected))

        fine = f"as expected: {text.split(',', 1)[0].format(shown(expected))}"
        command = f"{remedy.replace('MODE', str(int(expected)))}, {_OR_CORRECT}"
        return _per_gpu(case.gpus, differs, fine, command, "configure") or Finding(
            "unknown", "no GPU to be seen", command
        )

    return judge


def _equal(seen: Any, expected: Any, _settings: Settings) -> bool:
    return bool(seen == expected)


def _not_less(seen: int, expected: int, _settings: Settings) -> bool:
    return seen >= expected


def _near(seen: int, expected: int, settings: Settings) -> bool:
    return _within(seen, expected, settings["tolerance_percent"])


def _within(seen: float, reference: float, percent: float) -> bool:
    return abs(seen - reference) * 100 <= reference * percent


def _active_nvlinks(gpu: Gpu) -> int | None:
    # An A100 has no links in use with MIG.
    if gpu["nvlinks"] is None or gpu["mig_mode_current"]:
        return None
    return sum(bool(link["active"]) for link in gpu["nvlinks"])


# What the driver says.
def _recovery_action(case: Case) -> Finding | None:
    def asked(gpu: Gpu) -> str | None:
        action = gpu["recovery_action"]
        return None if action is None else "" if action == "none" else f"the driver asks for: {action}"

    steps = [_recovery_step(gpu["recovery_action"] or "none") for gpu in case.gpus]
    # A reboot is a drain and a reset too.
    action = next((step for step in _RECOVERY_REMEDIES if step in steps), "none")
    return _per_gpu(case.gpus, asked, "the driver asks for nothing", _RECOVERY_REMEDIES.get(action, ""), action)


_RECOVERY_REMEDIES = {
    "reboot": "systemctl reboot, after draining the node",
    "drain": "drain the node, stop all that uses the GPU, then nvidia-smi --gpu-reset -i INDEX; or reboot",
    "reset_gpu": "nvidia-smi --gpu-reset -i INDEX, after stopping all that uses the GPU; or reboot",
    "contact_support": "nvidia-smi -q -i INDEX (GPU Recovery Action), then follow NVIDIA's guide for that action",
}


def _recovery_step(action: str) -> str:
    if action == "none":
        return "none"
    words = (("reboot", "reboot"), ("drain", "drain"), ("reset", "reset_gpu"))
    return next((step for word, step in words if word in action), "contact_support")


def _row_remap_failure(case: Case) -> Finding | None:
    def failed(gpu: Gpu) -> str | None:
        failure = _inner(gpu, "remapped_rows", "failure")
        return None if failure is None else "a row of memory could not be replaced" if failure else ""

    remedy = "nvidia-bug-report.sh, then drain the node and ask the vendor for another GPU: the spare rows are used up"
    return _per_gpu(case.gpus, failed, "no row of memory was left unreplaced", remedy, "rma")


def _memory_repair_pending(case: Case) -> Finding | None:
    def waits(gpu: Gpu) -> str | None:
        # A GPU has one of the two, by its architecture.
        rows, pages = _inner(gpu, "remapped_rows", "pending"), _inner(gpu, "retired_pages", "pending")
        if rows:
            return "a row of memory is replaced at the next reset"
        if pages:
            return "a page of memory is retired at the next reset"
        return None if rows is None and pages is None else ""

    remedy = "nvidia-smi --gpu-reset -i INDEX at the next drain (running work is not affected); or reboot"
    return _per_gpu(case.gpus, waits, "no repair of memory waits", remedy, "reset_gpu")


def _ecc_uncorrected(case: Case) -> Finding | None:
    highest = case.settings["max_volatile_uncorrected_errors"]

    def uncorrected(gpu: Gpu) -> str | None:
        errors = _inner(gpu, "ecc_errors_volatile", "uncorrected")
        if errors is None:
            return None
        return f"{errors} uncorrected ECC errors since the driver was loaded" if errors > highest else ""

    remedy = "nvidia-smi --gpu-reset -i INDEX, after draining the node; a GPU that does it again needs service"
    return _per_gpu(case.gpus, uncorrected, f"not more than {highest} uncorrected ECC errors", remedy, "reset_gpu")


def _ecc_sram_threshold(case: Case) -> Finding | None:
    def exceeded(gpu: Gpu) -> str | None:
        over = gpu["ecc_sram_threshold_exceeded"]
        return None if over is None else "more uncorrected SRAM errors than a GPU may have" if over else ""

    remedy = "nvidia-bug-report.sh, then drain the node and ask the vendor for another GPU"
    return _per_gpu(case.gpus, exceeded, "SRAM errors are below the threshold", remedy, "rma")


def _ecc_disabled(case: Case) -> Finding | None:
    if case.expect.ecc is not None:
        return None
    models = set(case.settings["models"])
    gpus = [gpu for gpu in case.gpus if models & set(_WORDS.findall(gpu["name"] or ""))]

    def disabled(gpu: Gpu) -> str | None:
        mode = gpu["ecc_mode_current"]
        return None if mode is None else "" if mode else "ECC is off"

    remedy = "nvidia-smi -e 1 -i INDEX, then reset the GPU or reboot"
    return _per_gpu(gpus, disabled, "ECC is on", remedy, "configure")


def _persistence_mode(case: Case) -> Finding | None:
    if case.expect.persistence is not None:
        return None

    def off(gpu: Gpu) -> str | None:
        mode = gpu["persistence_mode"]
        return None if mode is None else "" if mode else "persistence mode is off"

    remedy = "systemctl enable --now nvidia-persistenced; until the next reboot: nvidia-smi -pm 1"
    return _per_gpu(case.gpus, off, "persistence mode is on", remedy, "configure")


def _hw_slowdown(case: Case) -> Finding | None:
    reasons = case.settings["reasons"]

    def slowed(gpu: Gpu) -> str | None:
        if gpu["throttle_reasons"] is None:
            return None
        seen = ", ".join(reason for reason in gpu["throttle_reasons"] if reason in reasons)
        return seen and f"{seen} {'at its limit of temperature' if _too_hot(gpu) else 'in one sample'}"

    remedy = "nvidia-smi -q -d PERFORMANCE,TEMPERATURE,POWER -i INDEX; when it stays: the cooling, and the power supply"
    finding = _per_gpu(case.gpus, slowed, "the hardware does not slow down", remedy, "check_mechanicals")
    # A moment of it is no fault yet, unless the temperature says the same.
    if finding and finding.status == "fail" and not any(slowed(gpu) and _too_hot(gpu) for gpu in case.gpus):
        return replace(finding, severity=min("warning", case.settings["severity"], key=SEVERITIES.index))
    return finding


def _too_hot(gpu: Gpu) -> bool:
    if "hw_thermal_slowdown" not in (gpu["throttle_reasons"] or ()):
        return False
    margin, current, limit = (gpu[f"temperature_{name}_c"] for name in ("margin", "gpu", "slowdown"))
    # A margin and a limit of 0 C are also those of a driver that does not know.
    return margin < 0 if margin is not None else bool(limit) and current is not None and current >= limit


def _temperature(case: Case) -> Finding | None:
    lowest = case.settings["min_margin_c"]

    def hot(gpu: Gpu) -> str | None:
        margin = gpu["temperature_margin_c"]
        if margin is None:
            current, limit = gpu["temperature_gpu_c"], gpu["temperature_slowdown_c"]
            # A limit of 0 C is a driver that does not know it.
            if current is None or not limit:
                return None
            margin = limit - current
        return f"{margin} C are left before it slows down, at least {lowest} C wanted" if margin < lowest else ""

    remedy = "nvidia-smi -q -d TEMPERATURE -i INDEX, then the cooling of the node"
    return _per_gpu(case.gpus, hot, f"at least {lowest} C are left before a slowdown", remedy, "check_mechanicals")


def _should_have_nvlinks(case: Case, gpu: Gpu) -> bool:
    """Return whether NVLinks must be up; elsewhere they are up only where there is a bridge."""
    in_fabric = _fabric_state(gpu) not in (None, "not supported")
    return bool(case.probe["topology"]["nvswitches"]) or in_fabric or "SXM" in (gpu["name"] or "")


def _nvlink(case: Case) -> Finding | None:
    gpus = [gpu for gpu in case.gpus if _should_have_nvlinks(case, gpu)]
    # A single GPU of a virtual machine has no peer. How many links are up in a part of a machine, its users know best.
    if len(gpus) < 2 or case.expect.nvlinks is not None:
        return None
    switched = bool(case.probe["topology"]["nvswitches"])
    most = {
        gpu["name"]: max(_active_nvlinks(twin) or 0 for twin in gpus if twin["name"] == gpu["name"]) for gpu in gpus
    }

    def must_be_up_anyhow(gpu: Gpu) -> bool:
        return switched or _fabric_state(gpu) == "completed"

    def must_be_up(gpu: Gpu) -> bool:
        # Where no switch is in sight, the other end may be a GPU that another virtual machine was given.
        return must_be_up_anyhow(gpu) or (_active_nvlinks(gpu) or 0) < most[gpu["name"]]

    def down(gpu: Gpu) -> str | None:
        text = _nvlinks_down(gpu)
        return text if not text or must_be_up(gpu) else None

    remedy = "nvidia-smi nvlink -s -i INDEX; dmesg | grep -iE 'nvlink|sxid', then drain the node and reset all its GPUs"
    finding = _per_gpu(gpus, down, "all NVLinks are up", remedy, "drain")
    if finding and finding.status == "fail" and not any(must_be_up_anyhow(gpu) for gpu in gpus):
        # In half of a machine without switches, as in a DGX-1 with V100, some GPUs have less peers than others.
        return replace(finding, severity=min("warning", case.settings["severity"], key=SEVERITIES.index))
    in_doubt = [gpu for gpu in gpus if _nvlinks_down(gpu) and not must_be_up(gpu)]
    if in_doubt and finding and finding.status == "unknown":
        return Finding(
            "unknown",
            f"NVLinks are down on {', '.join(map(_label, in_doubt))}; no GPU of the model has more of them up, and no"
            " NVSwitch is in sight, so they may lead to GPUs that this machine was not given",
            "nvidia-smi nvlink -s, then say how many must be up: expect: {nvlinks: N}",
            gpus=finding.gpus,
        )
    return finding


def _nvlinks_down(gpu: Gpu) -> str | None:
    """Which ones, empty when none is; None when nobody could tell."""
    if gpu["nvlinks"] is None or _active_nvlinks(gpu) is None:
        return None
    links = [str(link["link"]) for link in gpu["nvlinks"] if not link["active"]]
    if len(links) == len(gpu["nvlinks"]):
        return "no NVLink is up"
    return f"NVLink {', '.join(links)} of {len(gpu['nvlinks'])} is down" if links else ""


def _fabric_state(gpu: Gpu) -> str | None:
    state = _inner(gpu, "fabric", "state")
    return None if state is None else str(state).lower()


def _fabric(case: Case) -> Finding | None:
    states = {_fabric_state(gpu) for gpu in case.gpus} - {None, "not supported"}
    # The state came with Hopper: an A100 has NVSwitches and none.
    hopper_on = any(gpu["architecture"] not in ("Volta", "Ampere") for gpu in case.gpus)
    if not states and not (hopper_on and case.probe["topology"]["nvswitches"]):
        return None

    def apart(gpu: Gpu) -> str | None:
        state, status, health = (_inner(gpu, "fabric", key) for key in ("state", "status", "health"))
        if state is None:
            return None
        if str(state).lower() != "completed":
            return f"fabric state is {state}"
        if status is not None and str(status).lower() != "success":
            return f"fabric state is {state}, status {status}"
        return f"fabric health is {health}" if health is not None and str(health).lower() != "healthy" else ""

    service = "nvidia-imex" if _on_tray(case) else "nvidia-fabricmanager"
    remedy = f"systemctl status {service}; nvidia-smi -q -i INDEX (Fabric), then drain the node and restart the service"
    return _per_gpu(case.gpus, apart, "every GPU is in the fabric", remedy, "drain")


def _on_tray(case: Case) -> bool:
    return any(_TRAY.search(gpu["name"] or "") for gpu in case.gpus)


def _fabric_manager(case: Case) -> Finding | None:
    manager = case.driver["fabric_manager"]
    if _on_tray(case):
        if manager["running"]:
            remedy = "systemctl disable --now nvidia-fabricmanager"
            return Finding("fail", "the fabric manager runs, and must not on a GB200 or GB300", remedy, "configure")
        return None if manager["running"] is None else Finding("ok", "the fabric manager does not run, as it should be")
    if not case.probe["topology"]["nvswitches"]:
        return None
    if manager["running"]:
        return Finding("ok", "the fabric manager runs")
    # In a container it is the host's, and cannot be seen.
    if case.gpus and all(_fabric_state(gpu) == "completed" for gpu in case.gpus):
        return Finding("ok", "every GPU is in the fabric")
    if manager["running"] is None:
        return Finding("unknown", "not known whether the fabric manager runs", "systemctl status nvidia-fabricmanager")
    if manager["installed"]:
        remedy = (
            "systemctl enable --now nvidia-fabricmanager; journalctl -u nvidia-fabricmanager (when it does not stay)"
        )
        return Finding("fail", "the node has NVSwitches, and the fabric manager does not run", remedy, "configure")
    remedy = (
        "apt install the nvidia-fabricmanager of the driver's version, then systemctl enable --now nvidia-fabricmanager"
    )
    return Finding("fail", "the node has NVSwitches, and no fabric manager is installed", remedy, "configure")


def _fabric_manager_version(case: Case) -> Finding | None:
    manager = case.driver["fabric_manager"]
    if not manager["installed"] or not case.probe["topology"]["nvswitches"]:
        return None
    own, driver = manager["version"], case.driver["version"]
    remedy = f"apt install nvidia-fabricmanager of version {driver or 'X'} (the driver's), then restart the service"
    evidence = f"fabric manager {own or 'unknown'}, driver {driver or 'unknown'}"
    if not own or not driver:
        return Finding("unknown", evidence, "nv-fabricmanager --version")
    return Finding("ok" if own == driver else "fail", evidence, remedy, "update")


def _kernel_events(case: Case) -> Finding | None:
    log = case.probe["kernel_events"]
    faults = [event for event in (_by_policy(each, case.settings) for each in log["events"]) if _is_fault(event)]
    if faults:
        faults.sort(key=lambda event: -SEVERITIES.index(event["severity"]))
        shown = "; ".join(describe(event) for event in faults[:_EVENT_LIMIT])
        more = f"; and {len(faults) - _EVENT_LIMIT} more" if len(faults) > _EVENT_LIMIT else ""
        first = faults[0]
        # What is to be done, and the GPUs that it is to be done to: a reset would end what runs on another one.
        same = [event for event in faults if event["action"] == first["action"]]
        indices = sorted({event["gpu_index"] for event in same if event["gpu_index"] is not None})
        remedy = f"dmesg -T | grep -iE 'nvrm|sxid' (all that was said), then: {EVENT_ACTIONS[first['action']]}"
        return Finding("fail", shown + more, remedy, first["action"], tuple(indices), first["severity"])
    if not case.gpus:
        return None
    if log["source"] == "none" or log["error"]:
        reason = log["error"] or "there is none"
        remedy = "dmesg | grep -i nvrm as root, or probe with --become"
        return Finding("unknown", f"the kernel log was not read: {reason}", remedy, severity="warning")
    if not log["complete"]:
        return Finding(
            "unknown",
            f"no fault in what is left of the kernel log{_window(log)}, older lines are gone",
            "journalctl -k -b --no-pager | grep -iE 'nvrm|sxid' (when the journal keeps what dmesg forgot)",
            severity="warning",
        )
    return Finding("ok", f"no fault in the kernel log{_window(log)}", severity="critical")


def _by_policy(event: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    own = settings["xids"].get(event["code"], {}) if event["kind"] == "xid" else {}
    return {**event, **own}


def _is_fault(event: Mapping[str, Any]) -> bool:
    return not event["cleared"] and event["severity"] != "info"


def _window(log: Mapping[str, Any]) -> str:
    return f" of the last {log['since_seconds'] / 3600:.1f} h" if log["since_seconds"] is not None else ""


# GPUs of one node beside each other.
_READINGS: dict[str, Callable[[Gpu], Any]] = {
    "vbios_version": lambda gpu: gpu["vbios_version"],
    "memory_total_mib": lambda gpu: gpu["memory_total_mib"],
    "pcie_link_width": lambda gpu: gpu["pcie_link_width_current"],
    "pcie_link_gen": lambda gpu: gpu["pcie_link_gen_current"] if _is_busy(gpu) else None,
    "ecc_mode": lambda gpu: gpu["ecc_mode_current"],
    "mig_mode": lambda gpu: gpu["mig_mode_current"],
    "persistence_mode": lambda gpu: gpu["persistence_mode"],
    "power_limit_w": lambda gpu: gpu["power_limit_w"],
    "active_nvlinks": _active_nvlinks,
}


def _is_busy(gpu: Gpu) -> bool:
    reasons = gpu["throttle_reasons"]
    return gpu["performance_state"] == "P0" and reasons is not None and "gpu_idle" not in reasons


def _is_comparable(case: Case, reading: str, gpu: Gpu, twins: list[Gpu]) -> bool:
    if reading == "active_nvlinks":
        return _should_have_nvlinks(case, gpu)
    # The chips of one board, as of a K80, have each a VBIOS of their own.
    on_board = sum(twin["serial"] == gpu["serial"] for twin in twins)
    return reading != "vbios_version" or gpu["serial"] is None or on_board == 1


def _siblings(case: Case) -> Finding | None:
    models: dict[str, list[Gpu]] = {}
    for gpu in case.gpus:
        if gpu["name"] and gpu["index"] is not None:
            models.setdefault(gpu["name"], []).append(gpu)
    twins = [gpus for gpus in models.values() if len(gpus) > 1]
    texts: list[str] = []
    differing: set[int] = set()
    unknown: dict[int, Gpu] = {}
    for twin in twins:
        for reading in case.settings["readings"]:
            gpus = [gpu for gpu in twin if _is_comparable(case, reading, gpu, twin)]
            values = {gpu["index"]: value for gpu in gpus if (value := _READINGS[reading](gpu)) is not None}
            # An idle GPU has no speed of PCIe to compare, and what no GPU of a model has is nothing to miss.
            if values and reading != "pcie_link_gen":
                unknown.update({gpu["index"]: gpu for gpu in gpus if gpu["index"] not in values})
            if reading == "memory_total_mib":
                values = _rounded(values, case.settings["memory_tolerance_percent"])
            holders = by_value(values)
            if len(holders) > 1:
                usual = majority(holders)
                differing |= {index for value, indices in holders.items() if value != usual for index in indices}
                texts.append(f"{reading}: " + ", ".join(_who(value, indices) for value, indices in holders.items()))
    if texts:
        remedy = "nvidia-smi -q, and give the GPUs that differ what the others have"
        return Finding("fail", "; ".join(texts), remedy, "configure", tuple(sorted(differing)))
    if unknown:
        evidence = f"not all is known of {', '.join(map(_label, unknown.values()))}"
        return Finding("unknown", evidence, "nvidia-smi -q", gpus=tuple(sorted(unknown)))
    return Finding("ok", "GPUs of one model are alike") if twins else None


def _rounded(values: Mapping[int, int], percent: float) -> dict[int, int]:
    """The memory of GPUs that differ by what the driver keeps for itself counts as the same."""
    references: list[int] = []
    rounded = {}
    for index, value in values.items():
        same = next((each for each in references if _within(value, each, percent)), None)
        if same is None:
            references.append(value)
        rounded[index] = value if same is None else same
    return rounded


def _who(value: Any, indices: Sequence[int]) -> str:
    shown = _on_off(value) if isinstance(value, bool) else value
    return f"{shown} on GPU {', '.join(map(str, indices))}"


# The driver and the kernel.
def _reboot_pending(case: Case) -> Finding | None:
    if not case.driver["reboot_pending"]:
        return Finding("ok", "no reboot waits")
    return Finding("fail", case.driver["reboot_reason"], "systemctl reboot, after draining the node", "reboot")


def _kernel_module(case: Case) -> Finding | None:
    dkms = case.driver["dkms"]
    built = {"running": dkms["running_kernel"], f"next ({dkms['next_kernel_release']})": dkms["next_kernel"]}
    missing = [name for name, is_built in built.items() if is_built is False]
    if missing:
        return Finding(
            "fail",
            f"no module of the driver for the {' and the '.join(missing)} kernel",
            "dkms status; apt install the headers of that kernel, then dkms autoinstall"
            if dkms["registered"]
            else "apt install the package that has the driver's module for that kernel",
            "configure",
        )
    if None not in built.values():
        return Finding("ok", "the running and the next kernel have the module of the driver")
    if not dkms["registered"]:
        return None
    return Finding("unknown", "not known for which kernels DKMS has built the driver", "dkms status")


def _nouveau(case: Case) -> Finding | None:
    if not case.gpus:
        return None
    if not case.driver["nouveau_loaded"]:
        return Finding("ok", "nouveau is not loaded")
    return Finding(
        "fail",
        "nouveau is loaded, which keeps NVIDIA's driver from the GPU",
        "echo 'blacklist nouveau' > /etc/modprobe.d/blacklist-nouveau.conf; update-initramfs -u; then reboot",
        "reboot",
    )


def _secure_boot(case: Case) -> Finding | None:
    # A driver that is loaded was signed by a key that the machine knows.
    if case.probe["state"] != "driver_not_loaded" or not case.driver["secure_boot"]:
        return None
    return Finding(
        "fail",
        "Secure Boot is on, and the module of the driver is not loaded",
        "dmesg | grep -i 'key was rejected' (not signed), then mokutil --import /var/lib/dkms/mok.pub and reboot",
        "configure",
    )


def _slow_probe(case: Case) -> Finding | None:
    seconds, highest = case.probe["probe_seconds"], case.settings["max_probe_seconds"]
    return Finding(
        "fail" if seconds > highest else "ok",
        f"the node took {seconds:.1f} s for all that it was asked (nvidia-smi, kernel log, files), at most {highest} s"
        " wanted",
        "time nvidia-smi -q -x (slow with persistence mode off); time journalctl -k -b >/dev/null",
        "configure",
    )


CHECKS: dict[str, Judge] = {
    "expect_count": _expect_count,
    "expect_model": _expect_model,
    "expect_memory": _expect_per_gpu(
        "memory",
        lambda gpu: gpu["memory_total_mib"],
        _near,
        "{} MiB of memory, {} MiB expected",
        "nvidia-smi -q -d MEMORY on the node",
    ),
    "expect_min_driver": _expect_min_driver,
    "expect_cuda": _expect_cuda,
    "expect_nvlinks": _expect_per_gpu(
        "nvlinks",
        _active_nvlinks,
        _equal,
        "{} active NVLinks, {} expected",
        "nvidia-smi nvlink -s; dmesg | grep -iE 'nvlink|sxid'",
    ),
    "expect_pcie_width": _expect_per_gpu(
        "pcie_width",
        lambda gpu: gpu["pcie_link_width_current"],
        _not_less,
        "{} PCIe lanes, at least {} expected",
        "lspci -vv -d 10de: | grep -E 'LnkCap|LnkSta', then the seating of the GPU and its riser",
    ),
    "expect_ecc": _expect_per_gpu(
        "ecc",
        lambda gpu: gpu["ecc_mode_current"],
        _equal,
        "ECC is {}, {} expected",
        "nvidia-smi -e MODE -i INDEX, then reset the GPU or reboot",
    ),
    "expect_mig": _expect_per_gpu(
        "mig",
        lambda gpu: gpu["mig_mode_current"],
        _equal,
        "MIG is {}, {} expected",
        "nvidia-smi -mig MODE -i INDEX, with nothing running on the GPU",
    ),
    "expect_persistence": _expect_per_gpu(
        "persistence",
        lambda gpu: gpu["persistence_mode"],
        _equal,
        "persistence mode is {}, {} expected",
        "nvidia-smi -pm MODE (until the next reboot), and nvidia-persistenced for good",
    ),
    "recovery_action": _recovery_action,
    "row_remap_failure": _row_remap_failure,
    "memory_repair_pending": _memory_repair_pending,
    "ecc_uncorrected": _ecc_uncorrected,
    "ecc_sram_threshold": _ecc_sram_threshold,
    "ecc_pending": _pair(
        "nvidia-smi --gpu-reset -i INDEX at the next drain; or reboot",
        "reset_gpu",
        "ecc_mode_current",
        "ecc_mode_pending",
        "ECC",
    ),
    "mig_pending": _pair(
        "nvidia-smi --gpu-reset -i INDEX at the next drain; or reboot",
        "reset_gpu",
        "mig_mode_current",
        "mig_mode_pending",
        "MIG",
    ),
    "ecc_disabled": _ecc_disabled,
    "persistence_mode": _persistence_mode,
    "hw_slowdown": _hw_slowdown,
    "temperature": _temperature,
    "nvlink": _nvlink,
    "fabric": _fabric,
    "fabric_manager": _fabric_manager,
    "fabric_manager_version": _fabric_manager_version,
    "kernel_events": _kernel_events,
    "siblings": _siblings,
    "reboot_pending": _reboot_pending,
    "kernel_module": _kernel_module,
    "nouveau": _nouveau,
    "secure_boot": _secure_boot,
    "slow_probe": _slow_probe,
}
