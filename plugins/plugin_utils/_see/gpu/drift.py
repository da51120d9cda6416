# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which nodes of a fleet are not like the others. **PRIVATE** to the collection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value", bound=Hashable)

_OF_THE_NODE = {"driver_version": "version", "kernel_module_flavor": "kernel_module_flavor", "cuda": "cuda_version"}
_OF_A_MODEL = {
    "vbios": "vbios_version",
    "ecc": "ecc_mode_current",
    "mig": "mig_mode_current",
    "persistence": "persistence_mode",
}
_SHOWN = {True: "on", False: "off"}


class GpuDriftError(Exception):
    """Raised for a result that is not of gpu_probe; the text names the node."""


def by_value(values: Mapping[Key, Value]) -> dict[Value, list[Key]]:
    """Return the nodes of each value, the value that most have first."""
    holders: dict[Value, list[Key]] = {}
    for key, value in values.items():
        holders.setdefault(value, []).append(key)
    return dict(sorted(holders.items(), key=lambda item: -len(item[1])))


def majority(holders: Mapping[Value, list[Key]]) -> Value | None:
    """The value that more have than any other, of what by_value gave."""
    ranked = list(holders)
    tied = len(ranked) > 1 and len(holders[ranked[0]]) == len(holders[ranked[1]])
    return None if tied or not ranked else ranked[0]


def drift(results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each reading in which nodes differ. What a node does not know makes no difference."""
    probed = {host: result for host, result in results.items() if is_probed(result)}
    counted = {host: _models(result) for host, result in probed.items()}
    found = [
        _difference(what, None, {host: (result.get("driver") or {}).get(key) for host, result in probed.items()})
        for what, key in _OF_THE_NODE.items()
    ]
    found.append(_difference("models", None, {host: _all_models(probed[host]) for host in counted}))
    for model in dict.fromkeys(name for names in counted.values() for name in names):
        hosts = [host for host, names in counted.items() if model in names]
        found.append(_difference("gpu_count", model, {host: str(counted[host][model]) for host in hosts}))
        found += [
            _difference(what, model, {host: _of_a_model(probed[host], model, key) for host in hosts})
            for what, key in _OF_A_MODEL.items()
        ]
    return [entry for entry in found if entry]


def is_probed(result: Mapping[str, Any]) -> bool:
    """Return whether this came from gpu_probe, and not from a task that failed, was skipped or never ran."""
    return result.get("gpus") is not None


def require_results(results: Mapping[str, Any]) -> None:
    """That all which is compared has the shape that gpu_probe gives it."""
    for host, result in results.items():
        _require(isinstance(result, Mapping), host, "", "a dictionary", result)
        if not is_probed(result):
            continue
        gpus, driver = result["gpus"], result.get("driver") or {}
        _require(isinstance(gpus, list), host, "gpus", "a list", gpus)
        _require(isinstance(driver, Mapping), host, "driver", "a dictionary", driver)
        for key in _OF_THE_NODE.values():
            _require(isinstance(driver.get(key), (str, type(None))), host, f"driver.{key}", "a text", driver.get(key))
        for number, gpu in enumerate(gpus):
            _require(isinstance(gpu, Mapping), host, f"gpus[{number}]", "a dictionary", gpu)
            _require(
                isinstance(gpu.get("name"), (str, type(None))), host, f"gpus[{number}].name", "a text", gpu.get("name")
            )
            for key in _OF_A_MODEL.values():
                good = isinstance(gpu.get(key), (str, bool, type(None)))
                _require(good, host, f"gpus[{number}].{key}", "a text or true or false", gpu.get(key))


def _require(good: bool, host: str, where: str, wanted: str, value: object) -> None:
    if not good:
        what = f"{where} of the result of {host}" if where else f"the result of {host}"
        raise GpuDriftError(f"{what} must be {wanted}, as gpu_probe returns it, got {repr(value)[:100]}")


def summary(results: Mapping[str, Mapping[str, Any]], found: list[dict[str, Any]]) -> str:
    """One line for people."""
    missed = [host for host, result in results.items() if not is_probed(result)]
    compared = len(results) - len(missed)
    differences = "; ".join(_title(entry) for entry in found) or "no differences"
    return f"{compared} {'node' if compared == 1 else 'nodes'} compared: {differences}" + (
        f"; not probed: {', '.join(missed)}" if missed else ""
    )


def render(found: list[dict[str, Any]]) -> list[str]:
    """The lines for the terminal."""
    lines = []
    for entry in found:
        compared = sum(len(hosts) for hosts in entry["values"].values())
        most = entry["majority"]
        usual = (
            f"{most} on {len(entry['values'][most])} of {compared} nodes" if most else "no value that most nodes have"
        )
        lines.append(f"{_title(entry)}: {usual}")
        others = {value: hosts for value, hosts in entry["values"].items() if value != most}
        width = max(map(len, others))
        lines += [f"  {value:{width}}  {', '.join(hosts)}" for value, hosts in others.items()]
    return lines


def _title(entry: Mapping[str, Any]) -> str:
    return f"{entry['what']} of {entry['model']}" if entry["model"] else str(entry["what"])


def _models(result: Mapping[str, Any]) -> Counter[str]:
    return Counter(gpu["name"] for gpu in result["gpus"] if gpu.get("name"))


def _all_models(result: Mapping[str, Any]) -> str | None:
    """A node without a GPU differs from those with one; of GPUs without a name nothing is known."""
    return " + ".join(sorted(_models(result))) or (None if result["gpus"] else "none")


def _of_a_model(result: Mapping[str, Any], model: str, key: str) -> str | None:
    values = {gpu.get(key) for gpu in result["gpus"] if gpu.get("name") == model} - {None}
    return " + ".join(sorted(str(_SHOWN.get(value, value)) for value in values)) or None


def _difference(what: str, model: str | None, values: Mapping[str, str | None]) -> dict[str, Any] | None:
    holders = by_value({host: value for host, value in values.items() if value})
    if len(holders) < 2:
        return None
    most = majority(holders)
    return {
        "what": what,
        "model": model,
        "majority": most,
        "values": holders,
        "differing": [host for value, hosts in holders.items() if value != most for host in hosts],
    }
