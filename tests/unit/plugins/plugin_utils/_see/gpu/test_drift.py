# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.drift import (
    GpuDriftError,
    by_value,
    drift,
    majority,
    render,
    require_results,
    summary,
)

H100 = "NVIDIA H100 80GB HBM3"
L40S = "NVIDIA L40S"
DRIVER = {"version": "570.148.08", "kernel_module_flavor": "open", "cuda_version": "12.8"}


def gpu(name: str | None = H100, **more: Any) -> dict[str, Any]:
    modes = {"ecc_mode_current": True, "mig_mode_current": False, "persistence_mode": True}
    return {"name": name, "vbios_version": "96.00.99.00.01", **modes, **more}


def node(*gpus: dict[str, Any], **driver: Any) -> dict[str, Any]:
    return {"gpus": list(gpus or (gpu(), gpu())), "driver": {**DRIVER, **driver}}


def test_nodes_that_are_alike_have_no_drift() -> None:
    results = {"gpu-1": node(), "gpu-2": node()}
    assert drift(results) == []
    assert render(drift(results)) == []
    assert summary(results, []) == "2 nodes compared: no differences"


@pytest.mark.parametrize(
    ("other", "what", "model", "usual", "own"),
    [
        (node(version="550.90"), "driver_version", None, "570.148.08", "550.90"),
        (node(kernel_module_flavor="proprietary"), "kernel_module_flavor", None, "open", "proprietary"),
        (node(cuda_version="12.4"), "cuda", None, "12.8", "12.4"),
        (node(gpu(vbios_version="B"), gpu(vbios_version="B")), "vbios", H100, "96.00.99.00.01", "B"),
        (node(gpu(ecc_mode_current=False), gpu(ecc_mode_current=False)), "ecc", H100, "on", "off"),
        (node(gpu(mig_mode_current=True), gpu()), "mig", H100, "off", "off + on"),
        (node(gpu(persistence_mode=False), gpu(persistence_mode=False)), "persistence", H100, "on", "off"),
        (node(gpu()), "gpu_count", H100, "2", "1"),
        (node(gpu(L40S)), "models", None, H100, L40S),
        ({**node(), "gpus": []}, "models", None, H100, "none"),
    ],
)
def test_a_node_that_is_not_like_the_others(
    other: dict[str, Any], what: str, model: str | None, usual: str, own: str
) -> None:
    assert drift({"gpu-1": node(), "gpu-2": other, "gpu-3": node()}) == [
        {
            "what": what,
            "model": model,
            "majority": usual,
            "values": {usual: ["gpu-1", "gpu-3"], own: ["gpu-2"]},
            "differing": ["gpu-2"],
        }
    ]


def test_of_two_nodes_that_differ_neither_is_right() -> None:
    (entry,) = drift({"gpu-1": node(), "gpu-2": node(version="550.90")})
    assert (entry["majority"], entry["differing"]) == (None, ["gpu-1", "gpu-2"])
    assert render([entry]) == [
        "driver_version: no value that most nodes have",
        "  570.148.08  gpu-1",
        "  550.90      gpu-2",
    ]


def test_models_have_a_vbios_of_their_own() -> None:
    mixed = node(gpu(), gpu(), gpu(L40S, vbios_version="95.02"))
    assert [entry["what"] for entry in drift({"gpu-1": mixed, "gpu-2": node()})] == ["models"]


def test_what_a_node_does_not_know_makes_no_difference() -> None:
    unknown = node(
        gpu(vbios_version=None, ecc_mode_current=None),
        gpu(mig_mode_current=None, persistence_mode=None),
        version=None,
        kernel_module_flavor=None,
    )
    assert drift({"gpu-1": node(), "gpu-2": unknown}) == []
    assert drift({"gpu-1": node(), "gpu-2": node(gpu(None))}) == []


@pytest.mark.parametrize("missed", [{}, {"unreachable": True, "msg": "no route"}, {"failed": True}, {"gpus": None}])
def test_a_node_without_a_result_is_named_and_not_compared(missed: dict[str, Any]) -> None:
    results = {"gpu-1": node(), "gpu-2": missed}
    assert drift(results) == []
    assert summary(results, []) == "1 node compared: no differences; not probed: gpu-2"


def test_what_people_read() -> None:
    results = {"gpu-1": node(), "gpu-2": node(gpu(vbios_version="B")), "gpu-3": node(), "gpu-4": {}}
    found = drift(results)
    assert render(found) == [
        f"gpu_count of {H100}: 2 on 2 of 3 nodes",
        "  1  gpu-2",
        f"vbios of {H100}: 96.00.99.00.01 on 2 of 3 nodes",
        "  B  gpu-2",
    ]
    assert summary(results, found) == (f"3 nodes compared: gpu_count of {H100}; vbios of {H100}; not probed: gpu-4")


@pytest.mark.parametrize(
    ("values", "most"),
    [("AAB", "A"), ("ABB", "B"), ("AB", None), ("AABC", "A"), ("AABBC", None), ("A", "A"), ("", None)],
)
def test_majority(values: str, most: str | None) -> None:
    assert majority(by_value(dict(enumerate(values)))) == most


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (None, "the result of gpu-2 must be a dictionary, as gpu_probe returns it, got None"),
        (["a"], "the result of gpu-2 must be a dictionary, as gpu_probe returns it, got ['a']"),
        ({"gpus": "a"}, "gpus of the result of gpu-2 must be a list"),
        ({"gpus": [gpu(), None]}, "gpus[1] of the result of gpu-2 must be a dictionary"),
        ({"gpus": ["a"]}, "gpus[0] of the result of gpu-2 must be a dictionary"),
        ({"gpus": [gpu(7)]}, "gpus[0].name of the result of gpu-2 must be a text"),  # type: ignore[arg-type]
        ({"gpus": [gpu(vbios_version=[])]}, "gpus[0].vbios_version of the result of gpu-2 must be"),
        ({"gpus": [], "driver": "570"}, "driver of the result of gpu-2 must be a dictionary"),
        (node(version=570), "driver.version of the result of gpu-2 must be a text"),
        (node(version=["570"]), "driver.version of the result of gpu-2 must be a text"),
    ],
    ids=repr,
)
def test_what_is_no_result_of_gpu_probe_is_refused_by_the_name_of_its_node(result: Any, said: str) -> None:
    with pytest.raises(GpuDriftError) as refusal:
        require_results({"gpu-1": node(), "gpu-2": result})
    assert said in str(refusal.value)


def test_what_gpu_probe_returns_or_a_task_that_failed_is_good() -> None:
    require_results({"gpu-1": node(gpu(None)), "gpu-2": {}, "gpu-3": {"failed": True}, "gpu-4": {"gpus": None}})
