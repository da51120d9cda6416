# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.gpuops.fleet.plugins.module_utils._see.gpu.options import FIELDS
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.answer import HostFacts, NodeAnswer, PciGpu, SmiRun
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.health import Expectations, is_version
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.state import (
    STATES,
    Question,
    needs_nvml,
    not_good,
    probe_result,
)
from gpu_data import CORPUS, NO_CORPUS
from hypothesis import example, given
from hypothesis import strategies as st

NAME = "NVIDIA L40S"
LOADED = NodeAnswer(
    smi_path="/usr/bin/nvidia-smi",
    module_initstate="live",
    proc_version="NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.163.01  Tue Apr  8 2025",
)


def gpu_xml(number: int = 0, name: str = NAME, memory: str = "46068 MiB", more: str = "") -> str:
    return (
        f'<gpu id="00000000:{number:02X}:00.0"><product_name>{name}</product_name><uuid>GPU-0{number}</uuid>'
        f"<fb_memory_usage><total>{memory}</total></fb_memory_usage>{more}</gpu>"
    )


def document(*gpus: str, attached: int | None = None) -> str:
    return (
        '<?xml version="1.0" ?>\n<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">\n<nvidia_smi_log>'
        "<driver_version>550.163.01</driver_version><cuda_version>12.4</cuda_version>"
        f"<attached_gpus>{len(gpus) if attached is None else attached}</attached_gpus>"
        f"{''.join(gpus)}</nvidia_smi_log>\n"
    )


def pci(number: int = 0, driver: str = "nvidia", in_proc: bool = True, device_node: bool = False) -> PciGpu:
    return PciGpu(f"0000:{number:02x}:00.0", "0x26b9", driver, in_proc, device_node)


def judge(
    output: str,
    rc: int = 0,
    *,
    gpus: tuple[PciGpu, ...] = (),
    expect: Expectations | None = None,
    fields: frozenset[str] = frozenset(FIELDS),
) -> Any:
    answer = replace(LOADED, pci_gpus=gpus, smi=SmiRun("exited", rc, output=output))
    return probe_result(answer, Question(fields, expect or Expectations()))


def check(result: Any, name: str) -> Any:
    return next(item for item in result["health"] if item["id"] == name)


def test_a_healthy_node_in_one_line() -> None:
    result = judge(document(gpu_xml(0), gpu_xml(1)), gpus=(pci(0), pci(1)))
    assert result["summary"] == "2x NVIDIA L40S, driver 550.163.01, CUDA 12.4: ok"
    assert (result["state"], result["remedy"], result["simulated"], result["changed"]) == ("ok", "", False, False)
    assert result["evidence"] == [{"command": "nvidia-smi -q -x", "rc": 0, "output": ""}]
    assert result["ansible_facts"]["gpu"] == {
        "state": "ok",
        "health": "ok",
        "count": 2,
        "names": [NAME],
        "driver_version": "550.163.01",
        "cuda_version": "12.4",
        "simulated": False,
    }


NO_DRIVER = NodeAnswer()


@pytest.mark.parametrize(
    ("answer", "state", "seen", "remedy"),
    [
        (NO_DRIVER, "no_gpu", "no NVIDIA GPU on PCI", "lspci"),
        (
            replace(NO_DRIVER, pci_gpus=(pci(driver="vfio-pci"),)),
            "no_gpu",
            "1 passed through to virtual machines",
            "lspci",
        ),
        (
            replace(NO_DRIVER, pci_gpus=(pci(driver="nouveau"),)),
            "driver_missing",
            "nouveau in use",
            "apt install nvidia-driver",
        ),
        (
            replace(NO_DRIVER, pci_gpus=(pci(driver=""),), module_file="updates/dkms/nvidia.ko"),
            "driver_not_loaded",
            "updates/dkms/nvidia.ko is installed",
            "modprobe",
        ),
        (
            replace(NO_DRIVER, pci_gpus=(pci(driver=""),), smi_path="/usr/bin/nvidia-smi"),
            "driver_not_loaded",
            "driver is not loaded",
            "modprobe",
        ),
        (
            replace(NO_DRIVER, smi_path="/usr/bin/nvidia-smi"),
            "driver_not_loaded",
            "driver is not loaded and there is no NVIDIA PCI device",
            "lspci -nn -d 10de:",
        ),
        (replace(NO_DRIVER, proc_version="NVRM version: x"), "tools_missing", "no nvidia-smi", "install nvidia-smi"),
        (replace(LOADED, smi=SmiRun("deadline", process_state="D")), "unresponsive", "process state D", "reboot"),
        (replace(LOADED, smi=SmiRun("exited", 0, left_running=True)), "unresponsive", "left a process", "grep ' D'"),
        (replace(LOADED, smi=SmiRun("no_directory")), "unknown", "no temporary directory", "df -h"),
    ],
)
def test_states_without_an_answer_of_nvidia_smi(answer: NodeAnswer, state: str, seen: str, remedy: str) -> None:
    result = probe_result(answer, Question())
    assert result["state"] == state
    assert seen in result["summary"]
    assert remedy in result["remedy"]
    assert check(result, "state")["status"] != "ok"
    assert result["evidence"]


@pytest.mark.parametrize(
    ("rc", "text", "state"),
    [
        (12, "NVIDIA-SMI couldn't find libnvidia-ml.so library in your system.", "tools_missing"),
        (9, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", "driver_not_loaded"),
        (231, "Failed to initialize NVML: Driver/library version mismatch", "driver_library_mismatch"),
        (255, "Failed to initialize NVML: Driver/library version mismatch", "driver_library_mismatch"),
        (18, "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 555.58", None),
        (255, "Mismatch in versions between nvidia-smi and NVML.", "driver_library_mismatch"),
        (4, "Failed to initialize NVML: Insufficient Permissions", "no_permission"),
        (
            4,
            "No devices were found. Please make sure /dev/nvidia* files are readable by current user.",
            "no_permission",
        ),
        (17, "Failed to initialize NVML: GPU access blocked by the operating system", "no_permission"),
        (15, "Failed to initialize NVML: GPU is lost", "gpu_lost"),
        (15, "Unable to determine the device handle for GPU 1: GPU is lost.  Reboot the system", "gpu_lost"),
        (231, "Failed to initialize NVML: GPU requires reset", "reset_required"),
        (255, "Unable to determine the device handle for GPU0: A GPU reset must occur before", "reset_required"),
        (255, "Unable to determine the device handle for GPU0000:07:00.0: Unknown Error", "degraded"),
        (11, "Unable to determine the device handle for GPU0: The NVIDIA kernel module detected an issue", "degraded"),
        (8, "Failed to initialize NVML: Insufficient External Power", "degraded"),
        (6, "No devices were found", "no_gpu"),
        (255, "Failed to initialize NVML: Unknown Error", "unknown"),
        (231, "Failed to initialize NVML: System is not in ready state", "unknown"),
        (127, "nvidia-smi: error while loading shared libraries", "unknown"),
        (15, "ein unbekannter Text", "gpu_lost"),
        (0, "", "unknown"),
    ],
)
def test_failure_texts_win_over_exit_codes(rc: int, text: str, state: str | None) -> None:
    result = judge(text, rc)
    assert result["state"] == (state or "driver_library_mismatch")
    assert result["evidence"][0] == {"command": "nvidia-smi -q -x", "rc": rc, "output": text}
    assert result["remedy"]


def test_no_devices_with_a_gpu_on_pci_is_not_no_gpu() -> None:
    result = judge("No devices were found\n", 6, gpus=(pci(),))
    assert result["state"] == "degraded"
    assert [(gpu["bus_id"], gpu["uuid"], gpu["name"]) for gpu in result["gpus"]] == [("0000:00:00.0", None, NAME)]


@pytest.mark.parametrize(
    ("output", "rc", "state", "seen"),
    [
        (document(gpu_xml(0), gpu_xml(1, memory="GPU is lost")), 0, "gpu_lost", "GPU 1 (0000:01:00.0): GPU is lost"),
        (
            "Unable to determine the device handle for GPU0000:07:00.0: GPU is lost.\n" + document(gpu_xml()),
            0,
            "gpu_lost",
            "GPU0000:07:00.0: GPU is lost",
        ),
        (
            "Unable to determine the device handle for GPU1: Unknown Error\n" + document(gpu_xml()),
            0,
            "degraded",
            "GPU1",
        ),
        (
            document(gpu_xml(more="<gpu_recovery_action>Drain and Reset</gpu_recovery_action>")),
            0,
            "reset_required",
            "Drain and Reset",
        ),
        (
            document(gpu_xml(more="<gpu_recovery_action>Reboot</gpu_recovery_action>")),
            0,
            "degraded",
            "asks for: Reboot",
        ),
        (document(gpu_xml(memory="Unknown Error")), 0, "degraded", "memory_total_mib reads 'Unknown Error'"),
        (
            document(gpu_xml()) + "WARNING: infoROM is corrupted at gpu 0000:00:00.0",
            14,
            "degraded",
            "infoROM is corrupted",
        ),
        (document(gpu_xml(), attached=2), 0, "degraded", "2 GPUs attached, 1 listed"),
        ("a driver's banner\n" + document(gpu_xml()), 0, "ok", ": ok"),
        (document(), 0, "no_gpu", "no NVIDIA GPU"),
        (document() + "No devices were found", 6, "no_gpu", "no NVIDIA GPU"),
    ],
)
def test_a_whole_document_of_a_sick_node(output: str, rc: int, state: str, seen: str) -> None:
    result = judge(output, rc)
    assert result["state"] == state
    assert seen in result["summary"]


def test_the_heaviest_state_wins_and_every_reason_is_told() -> None:
    reset = "<gpu_recovery_action>Reset</gpu_recovery_action>"
    result = judge(document(gpu_xml(0, more=reset), gpu_xml(1, memory="GPU is lost")), gpus=(pci(0), pci(1), pci(2)))
    assert result["state"] == "gpu_lost"
    for seen in ("GPU 0 (0000:00:00.0)", "GPU 1 (0000:01:00.0)", "on PCI but not listed: 0000:02:00.0"):
        assert seen in result["summary"]


@pytest.mark.parametrize(
    ("other", "device_nodes"),
    [
        pytest.param(pci(1, in_proc=False), False, id="legacy-container-runtime"),
        pytest.param(pci(1, in_proc=True, device_node=False), True, id="CDI-container"),
        pytest.param(pci(1, driver="vfio-pci", in_proc=False), False, id="passed-to-a-virtual-machine"),
    ],
)
def test_gpus_that_are_not_this_nodes_are_not_missed(other: PciGpu, device_nodes: bool) -> None:
    own = pci(0, device_node=device_nodes)
    smi = SmiRun("exited", 0, output=document(gpu_xml(0)))
    answer = replace(LOADED, pci_gpus=(own, other), device_nodes=device_nodes, smi=smi)
    result = probe_result(answer, Question(expect=Expectations(count=1)))
    assert (result["state"], len(result["gpus"]), check(result, "expect_count")["status"]) == ("ok", 1, "ok")


@pytest.mark.parametrize("other", [pci(1), pci(1, driver="", in_proc=False), pci(1, in_proc=True, device_node=True)])
def test_a_gpu_that_the_driver_has_but_does_not_list_is_missed(other: PciGpu) -> None:
    assert judge(document(gpu_xml(0)), gpus=(pci(0), other))["state"] == "degraded"


def test_a_simulated_node_is_called_simulated_once() -> None:
    for name, times in ((NAME, 1), (f"{NAME} (simulated)", 1)):
        answer = replace(LOADED, sysroot="/lab", smi=SmiRun("exited", 0, output=document(gpu_xml(name=name))))
        result = probe_result(answer, Question())
        assert result["simulated"]
        assert result["summary"].count("simulated") == times


LOST = document(gpu_xml(0), gpu_xml(1, memory="GPU is lost"))


@pytest.mark.parametrize(
    ("expect", "output", "rc", "status"),
    [
        (Expectations(count=1), document(gpu_xml()), 0, "ok"),
        (Expectations(count=2), document(gpu_xml()), 0, "fail"),
        (Expectations(count=2), LOST, 0, "fail"),
        (Expectations(count=8), "Failed to initialize NVML: Insufficient Permissions", 4, "unknown"),
        (Expectations(count=0), "No devices were found", 6, "ok"),
        (Expectations(model="l40"), document(gpu_xml()), 0, "ok"),
        (Expectations(model="H100"), document(gpu_xml()), 0, "fail"),
        (Expectations(model="H100"), "No devices were found", 6, "unknown"),
        (Expectations(min_driver="550.163.01"), document(gpu_xml()), 0, "ok"),
        (Expectations(min_driver="550.90.07"), document(gpu_xml()), 0, "ok"),
        (Expectations(min_driver="560"), document(gpu_xml()), 0, "fail"),
    ],
)
def test_expectations(expect: Expectations, output: str, rc: int, status: str) -> None:
    result = judge(output, rc, expect=expect)
    found = result["health"][1]
    assert found["status"] == status
    assert (found["remedy"] == "") == (status == "ok")


def test_a_node_that_must_have_no_gpu_and_has_none_is_well() -> None:
    result = probe_result(NO_DRIVER, Question(expect=Expectations(count=0)))
    assert ({item["status"] for item in result["health"]}, result["remedy"]) == ({"ok"}, "")


@pytest.mark.parametrize(
    ("text", "good"), [("550", True), ("550.90.07", True), ("", False), ("550.", False), ("v5", False)]
)
def test_what_a_version_is(text: str, good: bool) -> None:
    assert is_version(text) == good


LOST_AT_START = replace(
    LOADED,
    pci_gpus=(pci(0), pci(1)),
    smi=SmiRun("exited", 15, output="Unable to determine the device handle for GPU 1: GPU is lost.  Reboot the system"),
)


def nvml(
    *records: dict[str, Any],
    outcome: str = "answered",
    error: str = "",
    code: int | None = None,
    lost: int | None = None,
) -> Any:
    return {
        "outcome": outcome,
        "error": error,
        "init_code": code,
        "driver_version": "550.163.01",
        "cuda_version": "12.4",
        "gpus": list(records),
        "lost": [] if lost is None else [lost],
    }


HEALTHY = {"index": 0, "bus_id": "0000:00:00.0", "name": NAME, "errors": {}}
GONE = {"index": 1, "errors": {"handle": "GPU is lost"}}


def test_one_lost_gpu_does_not_hide_the_healthy_ones() -> None:
    assert needs_nvml(LOST_AT_START)
    result = probe_result(LOST_AT_START, Question(), nvml(HEALTHY, GONE, lost=1))
    assert (result["state"], result["backend"]) == ("gpu_lost", "nvml")
    assert [(gpu["index"], gpu["bus_id"], gpu["errors"]) for gpu in result["gpus"]] == [
        (0, "0000:00:00.0", {}),
        (1, "0000:01:00.0", {"handle": "GPU is lost"}),
    ]
    assert [item["command"] for item in result["evidence"]][:2] == ["nvidia-smi -q -x", "NVML: libnvidia-ml.so.1"]


@pytest.mark.parametrize(
    "second",
    [
        nvml(HEALTHY, {**HEALTHY, "index": 1, "bus_id": "0000:01:00.0"}),
        nvml(HEALTHY, outcome="deadline", error="NVML did not answer within 5 seconds when asked about GPU 1"),
        nvml(HEALTHY, outcome="crashed", error="NVML ended by signal 11"),
        nvml(outcome="no_library", error="no libnvidia-ml.so.1"),
        {"outcome": "no_python", "error": "needs Python 3.8 or newer on the node", "gpus": []},
    ],
)
def test_nvml_does_not_make_a_sick_node_healthy(second: Any) -> None:
    result = probe_result(LOST_AT_START, Question(), second)
    assert result["state"] == "gpu_lost"
    assert len(result["gpus"]) == 2
    assert any(second["error"] in item["output"] for item in result["evidence"])


@pytest.mark.parametrize(
    ("said", "state"),
    [
        (nvml(HEALTHY), "ok"),
        (nvml(HEALTHY, GONE, lost=1), "gpu_lost"),
        # The library of some drivers has no text for it.
        (nvml(HEALTHY, {"index": 1, "errors": {"handle": "NVML error 15"}}, lost=1), "gpu_lost"),
        (nvml({**HEALTHY, "recovery_action": "drain and reset"}), "reset_required"),
        (nvml({"index": 0, "errors": {"handle": "Insufficient Permissions"}}), "no_permission"),
        (nvml(), "degraded"),
        (nvml(HEALTHY, outcome="deadline", error="no answer"), "unresponsive"),
        (nvml(outcome="crashed", error="NVML ended by signal 11"), "unknown"),
        (nvml(outcome="no_library"), "tools_missing"),
        (
            nvml(outcome="init_failed", error="Failed to initialize NVML: Driver/library version mismatch", code=18),
            "driver_library_mismatch",
        ),
        ({"outcome": "no_python", "error": "needs Python", "gpus": []}, "unknown"),
    ],
)
def test_nvml_by_itself(said: Any, state: str) -> None:
    answer = replace(LOADED, pci_gpus=(pci(0),))
    result = probe_result(answer, Question(backend="nvml"), said)
    assert result["state"] == state, result["summary"]


def test_without_nvidia_smi_nvml_shows_the_gpus() -> None:
    answer = replace(LOADED, smi_path="", pci_gpus=(pci(0),))
    assert needs_nvml(answer)
    result = probe_result(answer, Question(), nvml(HEALTHY))
    assert (result["state"], [gpu["name"] for gpu in result["gpus"]]) == ("tools_missing", [NAME])


@pytest.mark.parametrize("run", ["smi_list", "smi_compute", "smi_nvlink", "smi_topology"])
def test_a_command_that_hangs_is_not_ok(run: str) -> None:
    smi = SmiRun("exited", 0, output=document(gpu_xml(0)))
    hung: dict[str, Any] = {run: SmiRun("deadline")}
    answer = replace(LOADED, pci_gpus=(pci(0),), smi=smi, **hung)
    result = probe_result(answer, Question())
    assert result["state"] == "degraded"
    assert "did not end before the deadline" in result["summary"]


@pytest.mark.parametrize(
    ("listing", "rc", "state"),
    [
        ("GPU 0: NVIDIA L40S (UUID: GPU-00)\nGPU 1: NVIDIA L40S (UUID: GPU-01)\n", 0, "ok"),
        (
            "GPU 0: NVIDIA L40S (UUID: GPU-00)\n"
            "Unable to determine the device handle for gpu 0000:01:00.0: GPU is lost.  Reboot the system\n",
            15,
            "gpu_lost",
        ),
        (
            "GPU 0: NVIDIA L40S (UUID: GPU-00)\nGPU 1: NVIDIA L40S (UUID: GPU-01)\n"
            "Unable to determine the device handle for gpu 0000:02:00.0: Unknown Error\n",
            255,
            "degraded",
        ),
        ("".join(f"GPU {n}: NVIDIA L40S (UUID: GPU-0{n})\n" for n in range(3)), 0, "degraded"),
        ("GPU 0: NVIDIA L40S (UUID: GPU-00)\nGPU 1: NVIDIA L40S (UUID: GPU-01)\n", 255, "degraded"),
    ],
)
def test_what_the_list_says_of_a_gpu_counts(listing: str, rc: int, state: str) -> None:
    smi = SmiRun("exited", 0, output=document(gpu_xml(0), gpu_xml(1)))
    answer = replace(LOADED, smi=smi, smi_list=SmiRun("exited", rc, output=listing))
    assert probe_result(answer, Question())["state"] == state


@pytest.mark.parametrize(
    "gpus", [(gpu_xml(0), gpu_xml(0)), (gpu_xml(0), '<gpu id="00000000:01:00.0"></gpu>')], ids=["twice", "empty"]
)
def test_a_document_that_says_nothing_of_a_gpu_is_not_ok(gpus: tuple[str, ...]) -> None:
    assert judge(document(*gpus))["state"] == "degraded"


def test_on_a_host_every_gpu_of_the_driver_is_expected() -> None:
    smi = SmiRun("exited", 0, output=document(gpu_xml(0)))
    answer = replace(LOADED, is_host=True, device_nodes=True, smi=smi, pci_gpus=(pci(0, device_node=True), pci(1)))
    assert probe_result(answer, Question())["state"] == "degraded"


def test_a_word_that_is_not_known_here_is_kept_and_no_fault() -> None:
    result = judge(document(gpu_xml(0, more="<persistence_mode>Auto</persistence_mode>")))
    assert (result["state"], result["gpus"][0]["errors"]) == ("ok", {"persistence_mode": "Auto"})


def test_an_error_in_a_field_that_nobody_reads_is_not_ok() -> None:
    assert judge(document(gpu_xml(0, more="<fan_speed>Unknown Error</fan_speed>")))["state"] == "degraded"


def test_parts_of_a_driver_are_not_a_missing_driver() -> None:
    for host in (HostFacts(dkms_registered=True), HostFacts(library_version="535.261.03")):
        answer = replace(NO_DRIVER, pci_gpus=(pci(driver=""),), host=host)
        assert probe_result(answer, Question())["state"] == "driver_not_loaded"


def test_memory_that_a_user_without_rights_may_not_see_is_no_fault() -> None:
    result = judge(document(gpu_xml(0, memory="Insufficient Permissions")), gpus=(pci(0),))
    assert (result["state"], result["gpus"][0]["memory_total_mib"]) == ("ok", None)
    assert result["gpus"][0]["errors"] == {"memory_total_mib": "Insufficient Permissions"}


def test_links_that_are_alike_stand_together() -> None:
    links = "".join(f"\t Link {link}: {'<inactive>' if link == 1 else '26.562 GB/s'}\n" for link in range(4))
    answer = replace(
        LOADED,
        smi=SmiRun("exited", 0, output=document(gpu_xml(0))),
        smi_nvlink=SmiRun("exited", 0, output=f"GPU 0: {NAME} (UUID: GPU-00)\n{links}"),
    )
    assert probe_result(answer, Question())["gpus"][0]["nvlinks"] == [
        {"links": "0,2-3", "count": 3, "active": True, "speed_gbyte_s": 26.562},
        {"links": "1", "count": 1, "active": False, "speed_gbyte_s": None},
    ]


@given(st.frozensets(st.sampled_from(FIELDS)), st.booleans())
def test_less_can_be_asked_for(fields: frozenset[str], healthy: bool) -> None:
    result = judge(document(gpu_xml(0)) if healthy else "No devices were found", 0 if healthy else 6, fields=fields)
    assert {"topology", "kernel_events"} & set(result) == {"topology", "kernel_events"} & fields
    assert ("reboot_pending" in result["driver"]) == ("driver" in fields)
    assert all({"nvlinks", "processes"} & set(gpu) == {"nvlinks", "processes"} & fields for gpu in result["gpus"])
    assert "health" in fields or [item["id"] for item in result["health"]] == ["state"]
    assert "kernel_events" in fields or "kernel_events" not in {item["id"] for item in result["health"]}


@pytest.mark.parametrize(
    ("check_of", "fail_on", "is_bad"),
    [
        ({"id": "nvlink", "status": "fail", "severity": "critical"}, "critical", True),
        ({"id": "nvlink", "status": "fail", "severity": "warning"}, "critical", False),
        ({"id": "nvlink", "status": "fail", "severity": "warning"}, "warning", True),
        ({"id": "nvlink", "status": "fail", "severity": "info"}, "warning", False),
        ({"id": "nvlink", "status": "fail", "severity": "critical"}, "none", False),
        ({"id": "nvlink", "status": "unknown", "severity": "critical"}, "critical", False),
        ({"id": "state", "status": "unknown", "severity": "warning"}, "critical", True),
        ({"id": "expect_ecc", "status": "unknown", "severity": "critical"}, "critical", True),
        ({"id": "expect_ecc", "status": "unknown", "severity": "warning"}, "critical", False),
        ({"id": "expect_ecc", "status": "unknown", "severity": "warning"}, "warning", True),
        ({"id": "expect_ecc", "status": "unknown", "severity": "critical"}, "none", False),
    ],
)
def test_what_fails_a_task(check_of: dict[str, Any], fail_on: str, is_bad: bool) -> None:
    assert bool(not_good([check_of], fail_on)) == is_bad


def test_what_is_wrong_stands_in_the_line_for_people() -> None:
    more = "<ecc_mode><current_ecc>Enabled</current_ecc></ecc_mode><gpu_recovery_action>None</gpu_recovery_action>"
    failed = "<remapped_rows><remapped_row_failure>Yes</remapped_row_failure></remapped_rows>"
    result = judge(document(gpu_xml(0, more=more + failed)), gpus=(pci(0),))
    assert result["state"] == "ok"
    assert ": ok; critical: " in result["summary"]
    assert result["remedy"]
    assert result["ansible_facts"]["gpu"]["health"] == "critical"


def test_a_document_cut_at_any_byte_is_never_ok() -> None:
    whole = document(gpu_xml(0), gpu_xml(1))
    states = {judge(whole[:length])["state"] for length in range(len(whole.rstrip()))}
    assert states == {"unknown"}


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4), st.integers(0, 255))
@example([(464, ord("x"))], 0)
def test_flipped_bytes_never_raise_and_a_missing_gpu_is_never_ok(flips: list[tuple[int, int]], rc: int) -> None:
    data = bytearray(document(gpu_xml(0), gpu_xml(1)).encode())
    for position, value in flips:
        data[position % len(data)] = value
    result = judge(data.decode(errors="replace"), rc, gpus=(pci(0), pci(1)))
    assert result["state"] in STATES
    if result["state"] == "ok":
        assert rc == 0
        assert [gpu["bus_id"] for gpu in result["gpus"]] == ["0000:00:00.0", "0000:01:00.0"]
        assert all(gpu["errors"] == {} for gpu in result["gpus"])


RECORDED_STATES = {
    "count-0": "no_gpu",
    "handle-4": "no_permission",
    "handle-8": "degraded",
    "handle-11": "degraded",
    "handle-15": "gpu_lost",
    "handle-16": "reset_required",
    "handle-17": "degraded",
    "handle-999": "degraded",
    "init-4": "no_permission",
    "init-8": "degraded",
    "init-11": "degraded",
    "init-15": "gpu_lost",
    "init-16": "reset_required",
    "init-17": "no_permission",
    "init-18": "driver_library_mismatch",
    "init-27": "unknown",
    "init-999": "unknown",
    "no-library": "tools_missing",
    "real-lib-no-driver": "driver_not_loaded",
    "smi-nvml-mismatch": "driver_library_mismatch",
}


@NO_CORPUS
def test_every_recorded_failure_has_its_state() -> None:
    seen = set()
    for path in sorted((CORPUS / "recorded_real_nvidia_smi_here").glob("*.stdout")):
        case = re.sub(r"^[\d.]+\.", "", path.stem)
        rc = int(path.with_suffix(".rc").read_text())
        result = judge(path.read_text(), rc)
        assert result["state"] == RECORDED_STATES.get(case, result["state"]), path.name
        assert result["state"] != "ok", path.name
        seen.add(case)
    assert seen >= set(RECORDED_STATES)


@NO_CORPUS
def test_every_recorded_document_is_read_as_a_regex_reads_it() -> None:
    paths = sorted(CORPUS.rglob("*.xml"))
    assert len(paths) >= 50
    for path in paths:
        text = path.read_text(errors="replace")
        result = judge(text)
        # A MIG device has a fb_memory_usage of its own, before the GPU's.
        blocks = re.split(r"<gpu id=", re.sub(r"(?s)<mig_devices>.*?</mig_devices>", "", text))[1:]
        versions = re.findall(r"<driver_version>([\d.]+)", text) or ["550.163.01"]
        totals = [re.search(r"<fb_memory_usage>\s*<total>(\d+) MiB", block) for block in blocks]
        attached = int((re.findall(r"<attached_gpus>(\d+)", text) or [len(blocks)])[0])
        assert [gpu["memory_total_mib"] for gpu in result["gpus"]] == [int(m[1]) if m else None for m in totals], path
        assert [gpu["name"] for gpu in result["gpus"]] == re.findall(r"<product_name>([^<]+)<", text), path
        assert result["driver"]["version"] == versions[0], path
        state = "gpu_lost" if "GPU is lost" in text else "degraded" if attached > len(blocks) else "ok"
        assert result["state"] == state, (path, result["summary"])
