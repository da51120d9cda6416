# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
from dataclasses import asdict
from typing import Any

import pytest
from ansible_collections.gpuops.fleet.plugins.module_utils._see.gpu.record import Gpu
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.answer import KernelLog
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.health import (
    ACTIONS,
    CHECKS,
    DEFAULT_POLICY,
    SEVERITIES,
    Expectations,
    GpuHealthError,
    health_checks,
    merged_policy,
    worst,
)
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.kernel_log import kernel_events

H100 = asdict(
    Gpu(
        name="NVIDIA H100 80GB HBM3",
        architecture="Hopper",
        vbios_version="96.00.99.00.01",
        memory_total_mib=81559,
        temperature_gpu_c=29,
        temperature_margin_c=56,
        power_limit_w=700.0,
        performance_state="P0",
        throttle_reasons=["gpu_idle"],
        persistence_mode=True,
        ecc_mode_current=True,
        ecc_mode_pending=True,
        ecc_errors_volatile={"corrected": 0, "uncorrected": 0},
        ecc_errors_aggregate={"corrected": 0, "uncorrected": 0},
        ecc_sram_threshold_exceeded=False,
        remapped_rows={"correctable": 0, "uncorrectable": 0, "pending": False, "failure": False},
        mig_mode_current=False,
        mig_mode_pending=False,
        pcie_link_gen_current=5,
        pcie_link_gen_max=5,
        pcie_link_width_current=16,
        pcie_link_width_max=16,
        pcie_replay_count=0,
        nvlinks=[{"link": number, "active": True, "speed_gbyte_s": 26.562} for number in range(18)],
        fabric={"state": "Completed", "status": "Success", "health": None},
        recovery_action="none",
    )
)
# Neither NVLink nor fabric, and no replacement of rows.
T4 = {
    **H100,
    "name": "Tesla T4",
    "architecture": "Turing",
    "memory_total_mib": 15360,
    "temperature_margin_c": None,
    "temperature_slowdown_c": 93,
    "power_limit_w": 70.0,
    "remapped_rows": None,
    "retired_pages": {"single_bit": 0, "double_bit": 0, "pending": False},
    "mig_mode_current": None,
    "mig_mode_pending": None,
    "pcie_link_gen_current": 3,
    "pcie_link_gen_max": 3,
    "pcie_link_width_current": 8,
    "nvlinks": [],
    "fabric": None,
}
LOG: dict[str, Any] = {"source": "dmesg", "complete": True, "since_seconds": 7200.0, "error": "", "events": []}
DRIVER: dict[str, Any] = {
    "version": "570.148.08",
    "cuda_version": "12.8",
    "loaded": True,
    "dkms": {"registered": True, "running_kernel": True, "next_kernel": True, "next_kernel_release": "6.12.9"},
    "nouveau_loaded": False,
    "secure_boot": False,
    "fabric_manager": {"installed": True, "running": True, "version": "570.148.08"},
    "reboot_pending": False,
    "reboot_reason": "",
}
SWITCHES = ["0000:07:00.0", "0000:08:00.0"]


def node(
    *changes: dict[str, Any], gpu: dict[str, Any] | None = None, switches: bool = True, **more: Any
) -> dict[str, Any]:
    """A node with one GPU for each change."""
    gpus = [
        {**copy.deepcopy(gpu or H100), "index": index, "bus_id": f"0000:{index + 16:02x}:00.0", **change}
        for index, change in enumerate(changes)
    ]
    topology = {"nvswitches": SWITCHES if switches else []}
    probe = {"state": "ok", "gpus": gpus, "driver": DRIVER, "topology": topology, "kernel_events": LOG}
    return {**probe, "probe_seconds": 0.6, **more}


def event(**more: Any) -> dict[str, Any]:
    fields = {"kind": "xid", "code": 79, "gpu_index": 0, "message": "GPU has fallen off the bus.", "count": 1}
    about = {"description": None, "process": None, "pid": None, "bus_id": "0000:10:00.0", "age_seconds": 720.0}
    instance = {"gpu_instance": None, "compute_instance": None, "link": None}
    return {**fields, **about, **instance, "severity": "critical", "action": "reboot", "cleared": False, **more}


def log(*events: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**LOG, "events": list(events), **more}


def driver(**more: Any) -> dict[str, Any]:
    return {**DRIVER, **more}


def checks(probe: dict[str, Any], policy: dict[str, Any] | None = None, **expect: Any) -> dict[str, dict[str, Any]]:
    found = health_checks(probe, merged_policy(policy or {}), Expectations(**expect))
    return {check["id"]: check for check in found}


def failed(probe: dict[str, Any]) -> set[str]:
    return {name for name, check in checks(probe).items() if check["status"] == "fail"}


def test_a_healthy_node_has_nothing_but_ok() -> None:
    found = checks(node({}, {}, {}, {}))
    assert {check["status"] for check in found.values()} == {"ok"}
    assert {check["remedy"] for check in found.values()} == {""}
    assert {check["action"] for check in found.values()} == {"none"}
    without = {name for name in CHECKS if name.startswith("expect_")} | {"secure_boot"}
    assert set(found) == set(CHECKS) - without


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"pcie_link_gen_current": 1}, id="idle_gpu_at_gen_1"),
        pytest.param({"pcie_link_width_max": 32}, id="half_of_the_lanes_it_could_have"),
        pytest.param({"throttle_reasons": ["sw_power_cap"]}, id="full_power_budget"),
        pytest.param({"throttle_reasons": ["applications_clocks_setting"]}, id="clocks_that_a_person_set"),
        pytest.param({"throttle_reasons": ["display_clocks_setting"]}, id="clocks_of_a_display"),
        pytest.param({"throttle_reasons": ["sync_boost"]}, id="sync_boost"),
        pytest.param({"temperature_margin_c": 84, "temperature_gpu_c": 20}, id="large_margin_is_cool"),
        pytest.param({"temperature_margin_c": 0}, id="margin_of_0_that_drivers_give_when_they_do_not_know"),
        pytest.param({"pcie_replay_count": 150}, id="150_replays_of_a_healthy_h100"),
        pytest.param(
            {"ecc_errors_aggregate": {"corrected": 9, "uncorrected": 2}}, id="errors_of_the_past_that_were_repaired"
        ),
        pytest.param({"ecc_errors_volatile": {"corrected": 9, "uncorrected": 0}}, id="errors_that_ecc_has_corrected"),
        pytest.param({"fabric": {"state": "Completed", "status": "Success", "health": "Healthy"}}, id="fabric_healthy"),
        pytest.param({"memory_total_mib": 81557}, id="two_mib_less_than_its_sibling"),
    ],
)
def test_no_alarm_for(change: dict[str, Any]) -> None:
    found = checks(node({}, change))
    assert {name: check for name, check in found.items() if check["status"] != "ok"} == {}


def test_no_alarm_for_a_t4_with_8_of_16_lanes() -> None:
    assert failed(node({}, {}, gpu=T4, switches=False)) == set()


@pytest.mark.parametrize("name", ["NVIDIA L40S", "NVIDIA A10", "NVIDIA RTX A6000"])
def test_no_alarm_for_links_without_a_bridge_and_no_fabric_manager_on(name: str) -> None:
    links = [{"link": number, "active": False, "speed_gbyte_s": None} for number in range(4)]
    manager = driver(fabric_manager={"installed": False, "running": False, "version": ""})
    found = checks(
        node({"nvlinks": links}, {"nvlinks": links}, gpu={**T4, "name": name}, switches=False, driver=manager)
    )
    assert not {"nvlink", "fabric", "fabric_manager", "fabric_manager_version"} & set(found)


def test_no_alarm_for_a_single_h100_of_a_virtual_machine_without_links() -> None:
    assert "nvlink" not in checks(node({"nvlinks": []}, switches=False))


A100 = {**H100, "name": "NVIDIA A100-SXM4-80GB", "architecture": "Ampere", "fabric": None}


def some_up(up: int, of: int = 12) -> dict[str, Any]:
    return {"nvlinks": [{"link": number, "active": number < up, "speed_gbyte_s": None} for number in range(of)]}


@pytest.mark.parametrize("up", [4, 0])
def test_no_alarm_for_a_virtual_machine_with_two_of_four_gpus_whose_links_lead_to_the_others(up: int) -> None:
    found = checks(node(some_up(up), some_up(up), gpu=A100, switches=False))
    assert (found["nvlink"]["status"], found["nvlink"]["gpus"]) == ("unknown", [0, 1])
    assert found["nvlink"]["evidence"].startswith("NVLinks are down on GPU 0 (0000:10:00.0), GPU 1 (0000:11:00.0); ")
    assert "expect: {nvlinks: N}" in found["nvlink"]["remedy"]


@pytest.mark.parametrize("up", [11, 0])
def test_a_gpu_with_less_links_than_its_siblings_is_sick_where_no_switch_is_in_sight(up: int) -> None:
    found = checks(node(some_up(12), some_up(12), some_up(up), some_up(12), gpu=A100, switches=False))["nvlink"]
    assert (found["status"], found["severity"], found["gpus"]) == ("fail", "warning", [2])


def test_no_alarm_for_links_that_mig_switches_off_on_an_a100() -> None:
    mig = {"mig_mode_current": True, "mig_mode_pending": True}
    found = checks(node({**some_up(0), **mig}, {**some_up(0), **mig}, gpu=A100))
    assert found["nvlink"]["status"] == "unknown"


def test_how_many_links_a_part_of_a_machine_has_its_users_say() -> None:
    found = checks(node(some_up(6), some_up(6), gpu=A100), nvlinks=6)
    assert "nvlink" not in found
    assert found["expect_nvlinks"]["status"] == "ok"


def test_no_alarm_for_a_bridge_between_two_of_four() -> None:
    workstation = {**A100, "name": "NVIDIA RTX A6000"}
    found = checks(node(some_up(4), some_up(4), some_up(0), some_up(0), gpu=workstation, switches=False))
    assert found["siblings"]["status"] == "ok", found["siblings"]


def test_no_alarm_for_the_two_chips_of_a_board() -> None:
    chips = [{"serial": "0322416026235", "vbios_version": f"80.21.1F.00.0{number}"} for number in (5, 6)]
    assert checks(node(*chips, gpu={**T4, "name": "Tesla K80"}, switches=False))["siblings"]["status"] == "ok"


def test_a_reset_is_only_for_the_gpus_that_need_it() -> None:
    other = event(code=31, gpu_index=1, severity="warning", action="restart_app")
    found = checks(node({}, {}, kernel_events=log(event(code=119, action="reset_gpu"), other)))["kernel_events"]
    assert (found["action"], found["gpus"]) == ("reset_gpu", [0])
    assert "31" in found["evidence"]


@pytest.mark.parametrize(
    "machine",
    [
        pytest.param({"gpu": A100, "switches": True}, id="switches-in-sight"),
        pytest.param({"gpu": {**H100, "name": "NVIDIA GB200"}, "switches": False}, id="in-the-fabric-of-another-tray"),
    ],
)
def test_a_switch_that_fails_takes_a_link_of_every_gpu(machine: dict[str, Any]) -> None:
    found = checks(node(some_up(10), some_up(10), **machine))["nvlink"]
    assert (found["status"], found["gpus"]) == ("fail", [0, 1])
    assert "GPU 0 (0000:10:00.0): NVLink 10, 11 of 12 is down" in found["evidence"]


def test_no_alarm_for_an_a100_whose_driver_has_no_state_of_the_fabric() -> None:
    found = checks(node({}, {}, gpu=A100))
    assert "fabric" not in found
    assert found["fabric_manager"]["status"] == "ok"


@pytest.mark.parametrize("name", ["NVIDIA GeForce RTX 4090", "NVIDIA RTX A4000", "NVIDIA RTX 6000 Ada Generation"])
def test_no_alarm_for_ecc_off_on_a_workstation(name: str) -> None:
    mode = {"ecc_mode_current": False, "ecc_mode_pending": False}
    assert "ecc_disabled" not in checks(node(mode, gpu={**T4, "name": name}, switches=False))


def test_no_fabric_manager_on_gb200() -> None:
    manager = {"installed": True, "running": False, "version": "580.65.06"}
    tray = {**H100, "name": "NVIDIA GB200", "architecture": "Blackwell"}
    found = checks(node({}, {}, gpu=tray, switches=False, driver=driver(fabric_manager=manager)))
    assert (found["fabric_manager"]["status"], found["fabric"]["status"]) == ("ok", "ok")
    running = driver(fabric_manager={**manager, "running": True})
    found = checks(node({}, {}, gpu=tray, switches=False, driver=running))
    assert found["fabric_manager"]["status"] == "fail"
    assert found["fabric_manager"]["remedy"] == "systemctl disable --now nvidia-fabricmanager"


def test_persistence_off_on_a_b200_is_a_warning() -> None:
    check = checks(node({}, {"persistence_mode": False}, gpu={**H100, "name": "NVIDIA B200"}))["persistence_mode"]
    assert (check["status"], check["severity"], check["gpus"]) == ("fail", "warning", [1])


@pytest.mark.parametrize(
    ("check", "reading"),
    [
        ("recovery_action", {"recovery_action": None}),
        ("row_remap_failure", {"remapped_rows": None}),
        ("memory_repair_pending", {"remapped_rows": None, "retired_pages": None}),
        ("ecc_uncorrected", {"ecc_errors_volatile": None}),
        ("ecc_uncorrected", {"ecc_errors_volatile": {"corrected": None, "uncorrected": None}}),
        ("ecc_sram_threshold", {"ecc_sram_threshold_exceeded": None}),
        ("ecc_pending", {"ecc_mode_pending": None}),
        ("mig_pending", {"mig_mode_current": None}),
        ("ecc_disabled", {"ecc_mode_current": None, "ecc_mode_pending": None}),
        ("persistence_mode", {"persistence_mode": None}),
        ("hw_slowdown", {"throttle_reasons": None}),
        ("temperature", {"temperature_margin_c": None}),
        ("temperature", {"temperature_margin_c": None, "temperature_slowdown_c": 0}),
        ("nvlink", {"nvlinks": None}),
        ("fabric", {"fabric": None}),
        ("siblings", {"vbios_version": None}),
    ],
)
def test_what_the_driver_does_not_know_is_unknown(check: str, reading: dict[str, Any]) -> None:
    found = checks(node({}, {}, reading))[check]
    assert (found["status"], found["gpus"], found["action"]) == ("unknown", [2], "none")
    assert "GPU 2 (0000:12:00.0)" in found["evidence"]
    assert found["remedy"]


def test_memory_of_a_gpu_with_mig_is_unknown() -> None:
    mig = {"mig_mode_current": True, "mig_mode_pending": True, "remapped_rows": None, "ecc_errors_volatile": None}
    found = checks(node({**mig, "nvlinks": None}, {**mig, "nvlinks": None}))
    unknown = {name for name, check in found.items() if check["status"] == "unknown"}
    assert unknown == {"row_remap_failure", "memory_repair_pending", "ecc_uncorrected", "nvlink"}


def test_a_gpu_that_only_pci_knows_is_unknown_and_has_no_index() -> None:
    lost = {**asdict(Gpu(bus_id="0000:4c:00.0", name="NVIDIA H100 80GB HBM3"))}
    found = checks(node({}, {}, lost))
    assert {found[name]["status"] for name in ("recovery_action", "ecc_uncorrected", "temperature")} == {"unknown"}
    assert found["temperature"]["evidence"] == "not known of 0000:4c:00.0"
    assert found["temperature"]["gpus"] == []


@pytest.mark.parametrize(
    ("reading", "check", "severity", "action", "evidence"),
    [
        ({"recovery_action": "gpu reset"}, "recovery_action", "critical", "reset_gpu", "asks for: gpu reset"),
        ({"recovery_action": "node reboot"}, "recovery_action", "critical", "reboot", "asks for: node reboot"),
        ({"recovery_action": "drain p2p"}, "recovery_action", "critical", "drain", "asks for: drain p2p"),
        ({"recovery_action": "drain and reset"}, "recovery_action", "critical", "drain", "drain and reset"),
        ({"recovery_action": "recover imex domain"}, "recovery_action", "critical", "contact_support", "imex"),
        (
            {"remapped_rows": {"pending": False, "failure": True}},
            "row_remap_failure",
            "critical",
            "rma",
            "not be replaced",
        ),
        (
            {"remapped_rows": {"pending": True, "failure": False}},
            "memory_repair_pending",
            "warning",
            "reset_gpu",
            "a row",
        ),
        ({"retired_pages": {"pending": True}}, "memory_repair_pending", "warning", "reset_gpu", "a page"),
        ({"ecc_errors_volatile": {"uncorrected": 3}}, "ecc_uncorrected", "critical", "reset_gpu", "3 uncorrected"),
        ({"ecc_sram_threshold_exceeded": True}, "ecc_sram_threshold", "critical", "rma", "SRAM"),
        ({"ecc_mode_pending": False}, "ecc_pending", "warning", "reset_gpu", "ECC is on and will be off"),
        ({"mig_mode_pending": True}, "mig_pending", "warning", "reset_gpu", "MIG is off and will be on"),
        ({"ecc_mode_current": False, "ecc_mode_pending": False}, "ecc_disabled", "warning", "configure", "ECC is off"),
        ({"persistence_mode": False}, "persistence_mode", "warning", "configure", "persistence mode is off"),
        ({"throttle_reasons": ["hw_slowdown"]}, "hw_slowdown", "warning", "check_mechanicals", "down in one sample"),
        (
            {"throttle_reasons": ["sw_power_cap", "hw_power_brake_slowdown"]},
            "hw_slowdown",
            "warning",
            "check_mechanicals",
            ": hw_power_brake_slowdown in one sample",
        ),
        ({"throttle_reasons": ["hw_thermal_slowdown"]}, "hw_slowdown", "warning", "check_mechanicals", "one sample"),
        ({"temperature_margin_c": -1}, "temperature", "warning", "check_mechanicals", "-1 C are left"),
        (
            {"temperature_margin_c": None, "temperature_slowdown_c": 90, "temperature_gpu_c": 95},
            "temperature",
            "warning",
            "check_mechanicals",
            "-5 C are left",
        ),
        (
            {"nvlinks": [{"link": 0, "active": True}, {"link": 7, "active": False}]},
            "nvlink",
            "critical",
            "drain",
            "NVLink 7",
        ),
        ({"nvlinks": []}, "nvlink", "critical", "drain", "no NVLink is up"),
        ({"fabric": {"state": "In Progress"}}, "fabric", "critical", "drain", "fabric state is In Progress"),
        (
            {"fabric": {"state": "Completed", "status": "Unknown Error"}},
            "fabric",
            "critical",
            "drain",
            "status Unknown Error",
        ),
        (
            {"fabric": {"state": "Completed", "status": "Success", "health": "Unhealthy"}},
            "fabric",
            "critical",
            "drain",
            "fabric health is Unhealthy",
        ),
    ],
)
def test_a_sick_gpu(reading: dict[str, Any], check: str, severity: str, action: str, evidence: str) -> None:
    found = checks(node({}, {}, {}, reading))[check]
    assert (found["status"], found["severity"], found["action"], found["gpus"]) == ("fail", severity, action, [3])
    assert found["evidence"].startswith("GPU 3 (0000:13:00.0): ")
    assert evidence in found["evidence"]
    assert found["remedy"]
    assert action in ACTIONS
    assert severity in SEVERITIES


@pytest.mark.parametrize(
    ("temperature", "severity"),
    [
        pytest.param({"margin": -3}, "critical", id="margin-used-up"),
        pytest.param({"margin": 0}, "warning", id="margin-of-0-of-a-driver-that-does-not-know"),
        pytest.param({"margin": 12}, "warning", id="cool-again"),
        pytest.param({"margin": None, "gpu": 90, "slowdown": 90}, "critical", id="at-the-limit"),
        pytest.param({"margin": None, "gpu": 60, "slowdown": 90}, "warning", id="below-the-limit"),
        pytest.param({"margin": None, "gpu": 60, "slowdown": 0}, "warning", id="limit-not-known"),
        pytest.param({"margin": None, "gpu": None, "slowdown": 90}, "warning", id="temperature-not-known"),
    ],
)
def test_a_thermal_slowdown_is_critical_when_the_temperature_says_the_same(
    temperature: dict[str, Any], severity: str
) -> None:
    reading = {f"temperature_{name}_c": value for name, value in temperature.items()}
    slow = node({}, {**reading, "throttle_reasons": ["hw_slowdown", "hw_thermal_slowdown"]})
    assert checks(slow)["hw_slowdown"]["severity"] == severity
    assert checks(slow, {"hw_slowdown": {"severity": "info"}})["hw_slowdown"]["severity"] == "info"
    # A power brake of a hot GPU has another cause.
    brake = node({}, {**reading, "throttle_reasons": ["hw_slowdown", "hw_power_brake_slowdown"]})
    assert checks(brake)["hw_slowdown"]["severity"] == "warning"


def test_the_command_names_the_gpus() -> None:
    found = checks(node({"remapped_rows": {"pending": True}}, {}, {"remapped_rows": {"pending": True}}))
    assert found["memory_repair_pending"]["remedy"].startswith("nvidia-smi --gpu-reset -i 0,2 ")


def test_the_heaviest_recovery_action_counts() -> None:
    found = checks(node({"recovery_action": "gpu reset"}, {"recovery_action": "node reboot"}))["recovery_action"]
    assert (found["action"], found["gpus"]) == ("reboot", [0, 1])


@pytest.mark.parametrize("installed", [True, False])
def test_fabric_manager_that_does_not_run(installed: bool) -> None:
    manager = driver(fabric_manager={"installed": installed, "running": False, "version": ""})
    check = checks(node({"fabric": None}, {"fabric": None}, driver=manager))["fabric_manager"]
    assert (check["status"], check["severity"]) == ("fail", "critical")
    assert check["remedy"].startswith("systemctl enable --now" if installed else "apt install")


def test_fabric_manager_of_the_host_of_a_container_is_not_missed() -> None:
    manager = driver(fabric_manager={"installed": False, "running": False, "version": ""})
    assert checks(node({}, {}, driver=manager))["fabric_manager"]["status"] == "ok"


def test_fabric_manager_that_nobody_can_see_is_unknown() -> None:
    manager = driver(fabric_manager={"installed": True, "running": None, "version": ""})
    found = checks(node({"fabric": None}, {}, driver=manager))
    assert (found["fabric_manager"]["status"], found["fabric_manager_version"]["status"]) == ("unknown", "unknown")


def test_fabric_manager_of_another_version_than_the_driver() -> None:
    manager = driver(fabric_manager={"installed": True, "running": True, "version": "570.133.20"})
    check = checks(node({}, {}, driver=manager))["fabric_manager_version"]
    assert (check["status"], check["severity"]) == ("fail", "warning")
    assert check["evidence"] == "fabric manager 570.133.20, driver 570.148.08"


@pytest.mark.parametrize("code", [13, 31, 43, 63, 92])
def test_no_alarm_for_xids_that_are_not_the_nodes_fault(code: int) -> None:
    found = checks(node({}, kernel_events=log(event(code=code, severity="info", action="none"))))
    assert found["kernel_events"]["status"] == "ok"


def test_no_alarm_for_an_event_that_a_reset_has_cleared() -> None:
    assert checks(node({}, kernel_events=log(event(cleared=True))))["kernel_events"]["status"] == "ok"


def test_the_worst_event_of_the_kernel_log_leads() -> None:
    warning = event(code=94, severity="warning", action="restart_app", message="Contained error", gpu_index=2, count=4)
    check = checks(node({}, kernel_events=log(warning, event())))["kernel_events"]
    assert (check["status"], check["severity"], check["action"], check["gpus"]) == (
        "fail",
        "critical",
        "reboot",
        [0],
    )
    assert check["evidence"].startswith("Xid 79 on GPU 0 (0000:10:00.0), 12 min ago: GPU has fallen off the bus.")
    assert "; Xid 94 on GPU 2 " in check["evidence"]
    assert check["remedy"].startswith("dmesg -T | grep -iE 'nvrm|sxid'")
    assert check["remedy"].endswith("drain the node and reboot it")


def test_an_event_as_the_kernel_log_gives_it() -> None:
    line = "100.5 NVRM: Xid (PCI:0000:11:00): 48, pid=7, name=train, DBE (double bit error) ECC Error"
    read = KernelLog("dmesg", (line,), complete=True, uptime_seconds=160.5)
    gpus = [Gpu(index=index, bus_id=f"0000:{index + 16:02x}:00.0", architecture="Hopper") for index in range(2)]
    probe = node({}, {}, kernel_events=kernel_events(read, gpus, None))
    check = checks(probe)["kernel_events"]
    assert (check["status"], check["gpus"]) == ("fail", [1])
    assert "Xid 48 on GPU 1 (0000:11:00.0), 60 s ago" in check["evidence"]
    quiet = {"kernel_events": {"xids": {48: {"severity": "info"}}}}
    assert checks(probe, quiet)["kernel_events"]["status"] == "ok"


def test_events_after_the_fifth_are_counted() -> None:
    check = checks(node({}, kernel_events=log(*[event() for _number in range(7)])))["kernel_events"]
    assert check["evidence"].endswith("; and 2 more")


def test_an_event_of_no_gpu_and_no_number() -> None:
    fault = event(kind="driver", code=None, gpu_index=None, bus_id=None, message="RmInitAdapter failed!")
    check = checks(node({}, kernel_events=log(fault)))["kernel_events"]
    assert (check["status"], check["gpus"]) == ("fail", [])
    assert "RmInitAdapter failed!" in check["evidence"]


@pytest.mark.parametrize(
    ("read", "evidence"),
    [
        (log(source="none"), "the kernel log was not read: there is none"),
        (log(error="dmesg: Operation not permitted"), "Operation not permitted"),
        (log(complete=False), "no fault in what is left of the kernel log of the last 2.0 h, older lines are gone"),
    ],
)
def test_a_kernel_log_that_was_not_read_in_full_is_unknown(read: dict[str, Any], evidence: str) -> None:
    check = checks(node({}, kernel_events=read))["kernel_events"]
    assert check["status"] == "unknown"
    assert evidence in check["evidence"]


def test_a_fault_counts_however_little_of_the_log_is_left() -> None:
    check = checks(node({}, kernel_events=log(event(), complete=False)))["kernel_events"]
    assert check["status"] == "fail"


@pytest.mark.parametrize(
    ("more", "check", "evidence"),
    [
        (
            {"driver": driver(reboot_pending=True, reboot_reason="loaded 570, on disk 575")},
            "reboot_pending",
            "on disk 575",
        ),
        ({"driver": driver(nouveau_loaded=True)}, "nouveau", "nouveau is loaded"),
        (
            {"driver": driver(dkms={**DRIVER["dkms"], "next_kernel": False})},
            "kernel_module",
            "the next (6.12.9) kernel",
        ),
        ({"driver": driver(dkms={**DRIVER["dkms"], "running_kernel": False})}, "kernel_module", "the running kernel"),
        ({"driver": driver(secure_boot=True), "state": "driver_not_loaded"}, "secure_boot", "Secure Boot is on"),
        ({"probe_seconds": 7.25}, "slow_probe", "took 7.2 s for all that it was asked (nvidia-smi, kernel log"),
    ],
)
def test_a_warning_of_the_node(more: dict[str, Any], check: str, evidence: str) -> None:
    found = checks(node({}, **more))[check]
    assert (found["status"], found["severity"]) == ("fail", "warning")
    assert evidence in found["evidence"]
    assert found["remedy"]


def test_no_alarm_for_secure_boot_with_a_driver_that_is_loaded() -> None:
    assert "secure_boot" not in checks(node({}, driver=driver(secure_boot=True)))


def test_a_kernel_without_the_module_says_how_to_get_it() -> None:
    dkms = {**DRIVER["dkms"], "next_kernel": False}
    assert checks(node({}, driver=driver(dkms=dkms)))["kernel_module"]["remedy"].startswith("dkms status")
    packaged = driver(dkms={**dkms, "registered": False})
    assert checks(node({}, driver=packaged))["kernel_module"]["remedy"].startswith("apt install the package")


def test_modules_that_could_not_be_read_are_unknown_and_without_dkms_there_is_no_check() -> None:
    dkms = {"registered": True, "running_kernel": True, "next_kernel": None, "next_kernel_release": None}
    assert checks(node({}, driver=driver(dkms=dkms)))["kernel_module"]["status"] == "unknown"
    assert "kernel_module" not in checks(node({}, driver=driver(dkms={**dkms, "registered": False})))


def test_a_node_without_a_gpu_has_no_checks_of_gpus() -> None:
    probe = node(state="no_gpu", switches=False, kernel_events=log(source="none"), driver=driver(nouveau_loaded=True))
    assert set(checks(probe)) == {"reboot_pending", "kernel_module", "slow_probe"}


@pytest.mark.parametrize(
    ("reading", "evidence"),
    [
        ({"vbios_version": "96.00.01"}, "vbios_version: 96.00.99.00.01 on GPU 0, 2, 96.00.01 on GPU 1"),
        ({"memory_total_mib": 40960}, "memory_total_mib: 81559 on GPU 0, 2, 40960 on GPU 1"),
        ({"pcie_link_width_current": 8}, "pcie_link_width: 16 on GPU 0, 2, 8 on GPU 1"),
        ({"ecc_mode_current": False}, "ecc_mode: on on GPU 0, 2, off on GPU 1"),
        ({"mig_mode_current": True}, "mig_mode: off on GPU 0, 2, on on GPU 1"),
        ({"persistence_mode": False}, "persistence_mode: on on GPU 0, 2, off on GPU 1"),
        ({"power_limit_w": 500.0}, "power_limit_w: 700.0 on GPU 0, 2, 500.0 on GPU 1"),
        ({"nvlinks": [{"link": 0, "active": True}]}, "active_nvlinks: 18 on GPU 0, 2, 1 on GPU 1"),
    ],
)
def test_a_gpu_that_is_not_like_its_siblings(reading: dict[str, Any], evidence: str) -> None:
    check = checks(node({}, reading, {}))["siblings"]
    assert (check["status"], check["severity"], check["gpus"]) == ("fail", "warning", [1])
    assert check["evidence"] == evidence


def test_of_two_gpus_that_differ_neither_is_right() -> None:
    check = checks(node({"vbios_version": "A"}, {"vbios_version": "B"}))["siblings"]
    assert (check["evidence"], check["gpus"]) == ("vbios_version: A on GPU 0, B on GPU 1", [0, 1])


def test_speed_of_pcie_is_compared_between_busy_gpus_only() -> None:
    busy = {"throttle_reasons": ["sw_power_cap"]}
    slow = {"pcie_link_gen_current": 1}
    assert checks(node(busy, {**busy, **slow}, busy))["siblings"]["gpus"] == [1]
    assert checks(node(busy, slow, busy))["siblings"]["status"] == "ok"
    assert checks(node(busy, {**busy, **slow, "performance_state": "P8"}, busy))["siblings"]["status"] == "ok"


def test_gpus_of_different_models_are_not_compared() -> None:
    assert "siblings" not in checks(node({}, {"name": "Tesla T4", "vbios_version": "90.04"}))


@pytest.mark.parametrize(
    ("expect", "check", "fits"),
    [
        ({"count": 2}, "expect_count", True),
        ({"count": 3}, "expect_count", False),
        ({"model": "h100"}, "expect_model", True),
        ({"model": "H200"}, "expect_model", False),
        ({"memory": 80000}, "expect_memory", True),
        ({"memory": 40960}, "expect_memory", False),
        ({"min_driver": "570.90"}, "expect_min_driver", True),
        ({"min_driver": "570.163"}, "expect_min_driver", False),
        ({"cuda": "12.8"}, "expect_cuda", True),
        ({"cuda": "13.0"}, "expect_cuda", False),
        ({"nvlinks": 18}, "expect_nvlinks", True),
        ({"nvlinks": 12}, "expect_nvlinks", False),
        ({"pcie_width": 8}, "expect_pcie_width", True),
        ({"pcie_width": 32}, "expect_pcie_width", False),
        ({"ecc": True}, "expect_ecc", True),
        ({"ecc": False}, "expect_ecc", False),
        ({"mig": False}, "expect_mig", True),
        ({"mig": True}, "expect_mig", False),
        ({"persistence": True}, "expect_persistence", True),
        ({"persistence": False}, "expect_persistence", False),
    ],
)
def test_expectations(expect: dict[str, Any], check: str, fits: bool) -> None:
    found = checks(node({}, {}), **expect)[check]
    assert (found["status"], found["severity"]) == ("ok" if fits else "fail", "critical")
    assert found["evidence"]
    assert bool(found["remedy"]) is not fits
    nothing = checks(node(state="unresponsive", driver=driver(version=None, cuda_version=None)), **expect)[check]
    assert (nothing["status"], nothing["severity"]) == ("unknown", "critical")
    assert nothing["remedy"]


@pytest.mark.parametrize(
    ("expect", "reading"),
    [
        ({"memory": 81559}, "memory_total_mib"),
        ({"nvlinks": 0}, "nvlinks"),
        ({"pcie_width": 1}, "pcie_link_width_current"),
        ({"ecc": False}, "ecc_mode_current"),
        ({"mig": False}, "mig_mode_current"),
        ({"persistence": False}, "persistence_mode"),
        ({"model": "H100"}, "name"),
    ],
)
def test_an_expectation_of_what_the_driver_does_not_know_is_unknown(expect: dict[str, Any], reading: str) -> None:
    (check,) = (f"expect_{name}" for name in expect)
    assert checks(node({reading: None}), **expect)[check]["status"] == "unknown"


def test_expected_memory_names_the_gpu_that_has_less() -> None:
    check = checks(node({}, {"memory_total_mib": 40960}), memory=81920)["expect_memory"]
    assert check["evidence"] == "GPU 1 (0000:11:00.0): 40960 MiB of memory, 81920 MiB expected"
    assert check["gpus"] == [1]


def test_a_gpu_that_is_lost_or_only_on_pci_is_not_usable() -> None:
    probe = node({}, {"errors": {"memory_total_mib": "GPU is lost"}}, {"index": None})
    assert checks(probe, count=3)["expect_count"]["evidence"] == "1 usable GPUs, 3 expected"


@pytest.mark.parametrize("state", ["no_gpu", "driver_missing", "driver_not_loaded"])
def test_no_usable_gpu_without_a_driver(state: str) -> None:
    assert checks(node(state=state), count=8)["expect_count"]["status"] == "fail"
    assert checks(node(state=state), count=0)["expect_count"]["status"] == "ok"


def test_cuda_says_which_driver_has_it() -> None:
    assert "to 580.65.06 or newer" in checks(node({}), cuda="13.0")["expect_cuda"]["remedy"]
    assert "to" not in checks(node({}), cuda="99.0")["expect_cuda"]["remedy"].partition(" node")[2].partition(" and")[0]


def test_what_was_expected_goes_before_what_is_usual() -> None:
    found = checks(node({"ecc_mode_current": False, "persistence_mode": False}), ecc=False, persistence=False)
    assert not {"ecc_disabled", "persistence_mode"} & set(found)


def test_the_policy_has_every_check_and_no_other() -> None:
    assert list(DEFAULT_POLICY) == list(CHECKS)
    assert all({"enabled", "severity"} <= set(own) for name, own in DEFAULT_POLICY.items() if name != "kernel_events")


def test_a_check_that_is_off_is_left_out_and_the_others_stay() -> None:
    assert set(checks(node({}))) - set(checks(node({}), {"temperature": {"enabled": False}})) == {"temperature"}


@pytest.mark.parametrize(
    ("policy", "reading", "check"),
    [
        (
            {"ecc_uncorrected": {"max_volatile_uncorrected_errors": 3}},
            {"ecc_errors_volatile": {"uncorrected": 3}},
            "ok",
        ),
        ({"temperature": {"min_margin_c": 60}}, {}, "fail"),
        ({"hw_slowdown": {"reasons": ["sw_power_cap"]}}, {"throttle_reasons": ["sw_power_cap"]}, "fail"),
        ({"ecc_disabled": {"models": ["B200"]}}, {"ecc_mode_current": False}, None),
        ({"siblings": {"readings": ["vbios_version"]}}, {"power_limit_w": 1.0}, "ok"),
        ({"siblings": {"memory_tolerance_percent": 60}}, {"memory_total_mib": 40960}, "ok"),
    ],
)
def test_the_user_moves_a_threshold(policy: dict[str, Any], reading: dict[str, Any], check: str | None) -> None:
    (name,) = policy
    found = checks(node({}, reading), policy).get(name)
    assert (found and found["status"]) == check


def test_the_user_moves_the_thresholds_of_the_node() -> None:
    assert (
        checks(node({}, probe_seconds=7.0), {"slow_probe": {"max_probe_seconds": 7.5}})["slow_probe"]["status"] == "ok"
    )
    policy = {"expect_memory": {"tolerance_percent": 60, "severity": "warning"}}
    assert checks(node({}), policy, memory=160000)["expect_memory"]["status"] == "ok"
    assert checks(node({}), policy, memory=9)["expect_memory"]["severity"] == "warning"


@pytest.mark.parametrize("code", [64, "64"])
def test_the_user_weighs_one_xid(code: Any) -> None:
    fault = event(code=64, severity="critical", action="reset_gpu")
    policy = {"kernel_events": {"xids": {code: {"severity": "warning", "action": "drain"}}}}
    check = checks(node({}, kernel_events=log(fault)), policy)["kernel_events"]
    assert (check["severity"], check["action"]) == ("warning", "drain")
    quiet = {"kernel_events": {"xids": {code: {"severity": "info"}}}}
    assert checks(node({}, kernel_events=log(fault)), quiet)["kernel_events"]["status"] == "ok"
    assert checks(node({}, kernel_events=log({**fault, "kind": "sxid"})), quiet)["kernel_events"]["status"] == "fail"
    assert DEFAULT_POLICY["kernel_events"]["xids"] == {}


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"fan": {}}, "there is no check 'fan', the checks are: expect_count, "),
        ({"slow_probe": 9}, "policy.slow_probe must be a dictionary"),
        (
            {"slow_probe": {"seconds": 9}},
            "there is no key 'seconds', the keys are: enabled, severity, max_probe_seconds",
        ),
        ({"slow_probe": {"max_probe_seconds": "9"}}, "policy.slow_probe.max_probe_seconds must be a number, got '9'"),
        ({"slow_probe": {"max_probe_seconds": True}}, "must be a number"),
        ({"slow_probe": {"enabled": "no"}}, "must be true or false"),
        ({"slow_probe": {"severity": "bad"}}, "must be one of info, warning, critical"),
        ({"hw_slowdown": {"reasons": "hw_slowdown"}}, "must be a list of words"),
        ({"siblings": {"readings": ["fan"]}}, "there is no 'fan', there are: vbios_version"),
        ({"kernel_events": {"xids": [64]}}, "must be a dictionary"),
        ({"kernel_events": {"xids": {"x": {}}}}, "an Xid is a number"),
        ({"kernel_events": {"xids": {64: "warning"}}}, "must be a dictionary of severity and action"),
        ({"kernel_events": {"xids": {64: {"bucket": "x"}}}}, "must be a dictionary of severity and action"),
        ({"kernel_events": {"xids": {64: {"action": "explode"}}}}, "xids.64.action must be one of none, "),
    ],
)
def test_a_policy_that_cannot_be_used(policy: dict[str, Any], message: str) -> None:
    with pytest.raises(GpuHealthError) as caught:
        merged_policy(policy)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("health", "word"),
    [
        ([], "ok"),
        ([("ok", "critical"), ("fail", "info")], "ok"),
        ([("unknown", "critical"), ("ok", "warning")], "unknown"),
        ([("fail", "warning"), ("unknown", "critical")], "warning"),
        ([("fail", "warning"), ("fail", "critical")], "critical"),
    ],
)
def test_worst(health: list[tuple[str, str]], word: str) -> None:
    assert worst({"status": status, "severity": severity} for status, severity in health) == word
