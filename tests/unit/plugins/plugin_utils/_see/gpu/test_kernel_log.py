# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import csv
import re
import time
from typing import Any

import pytest
from ansible_collections.gpuops.fleet.plugins.module_utils._see.gpu.record import Gpu
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu import kernel_log as gpu_kernel_log
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.answer import KernelLog
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.kernel_log import ACTIONS, describe, kernel_events
from gpu_data import CORPUS, NO_CORPUS, SHARED
from hypothesis import given
from hypothesis import strategies as st

CATALOGUE = SHARED / "reference" / "xid_catalog.csv"

UPTIME = 100_000.0
GPUS = (
    Gpu(index=0, uuid="GPU-00000000-aaaa", bus_id="0000:01:00.0", architecture="Hopper"),
    Gpu(index=3, uuid="GPU-00000003-dddd", bus_id="0000:4c:00.0", architecture="Hopper"),
)
LOST = "NVRM: Xid (PCI:0000:4c:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
RESET_WANTED = (
    "NVRM: Xid (PCI:0000:01:00): 154, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)"
)
GSP_TIMEOUT = "NVRM: Xid (PCI:0000:01:00): 119, pid=7, name=gpud, Timeout after 6s of waiting for RPC response"
LOAD_BEGINS = "nvidia-nvlink: Nvlink Core is being initialized, major device number 510"
LOAD_ENDS = "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  550.163.01  Tue Apr  8 12:41:17 UTC 2025"


def read(*texts: str, gpus: tuple[Gpu, ...] = GPUS, hours: int | None = None, start: float = 1000.0) -> Any:
    """The result for these lines, ten seconds apart."""
    lines = tuple(f"{start + 10 * number:.6f} {text}" for number, text in enumerate(texts))
    return kernel_events(KernelLog("dmesg", lines, complete=True, uptime_seconds=UPTIME), gpus, hours)


def events(*texts: str, **more: Any) -> Any:
    return read(*texts, **more)["events"]


def only(*texts: str, **more: Any) -> Any:
    (event,) = events(*texts, **more)
    return event


def test_an_event_in_full() -> None:
    assert read(LOST) == {
        "source": "dmesg",
        "complete": True,
        "since_seconds": UPTIME,
        "error": "",
        "events": [
            {
                "kind": "xid",
                "code": 79,
                "mnemonic": "ROBUST_CHANNEL_GPU_HAS_FALLEN_OFF_THE_BUS",
                "description": "GPU has fallen off the bus",
                "bucket": "RESTART_BM",
                "action": "reboot",
                "severity": "critical",
                "message": "GPU has fallen off the bus.",
                "bus_id": "0000:4c:00.0",
                "gpu_index": 3,
                "uuid": "GPU-00000003-dddd",
                "gpu_instance": None,
                "compute_instance": None,
                "link": None,
                "pid": None,
                "process": None,
                "count": 1,
                "first_seconds": 1000.0,
                "last_seconds": 1000.0,
                "age_seconds": 99_000.0,
                "cleared": False,
            }
        ],
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "NVRM: Xid (PCI:0000:01:00): 13, pid=12, name=python3, Graphics Exception",
            (12, "python3", "Graphics Exception"),
        ),
        ("NVRM: Xid (PCI:0000:01:00.0): 43, pid=12, name=a, Ch 00000008", (12, "a", "Ch 00000008")),
        ("NVRM: Xid (PCI:00000000:01:00): 43, pid=12, name=a, Ch 00000008", (12, "a", "Ch 00000008")),
        ("NVRM: Xid (0000:01:00): 13, Graphics Exception", (None, None, "Graphics Exception")),
        ("NVRM: Xid PCI:0000:01:00: 43, pid=12, name=a, Ch 00000008", (12, "a", "Ch 00000008")),
        ("NVRM: Xid (PCI:0000:01:00): 63, pid=1896, Row Remapper: New row", (1896, None, "Row Remapper: New row")),
        ("NVRM: Xid (PCI:0000:01:00): 64, pid='<unknown>', name=<unknown>, Row Remapper", (None, None, "Row Remapper")),
        ("NVRM: Xid (PCI:0000:01:00): 145, pid=9, name=ray::WorkerDict, RLW", (9, "ray::WorkerDict", "RLW")),
        ("NVRM: Xid (PCI:0000:01:00): 43, pid=9, name=a, (b) c, Ch 0000000c", (9, "a, (b) c", "Ch 0000000c")),
        ("NVRM: Xid (PCI:0000:01:00): 43, pid=9, name=a b (x), channel 0x0", (9, "a b (x)", "channel 0x0")),
        ("NVRM: Xid (PCI:0000:01:00): 43, pid=9, name=gate, progress marker", (9, "gate", "progress marker")),
        ("NVRM: Xid (PCI:0000:01:00): 31, pid=123", (123, None, "")),
        ("NVRM: Xid (PCI:0000:01:00): 79, ", (None, None, "")),
        ("NVRM: Xid (PCI:0000:01:00): 79", (None, None, "")),
    ],
)
def test_every_form_of_an_xid_line(text: str, expected: tuple[int | None, str | None, str]) -> None:
    event = only(text)
    assert (event["pid"], event["process"], event["message"]) == expected
    assert (event["bus_id"], event["gpu_index"]) == ("0000:01:00.0", 0)


@pytest.mark.parametrize(
    ("prefix", "suffix"),
    [("<4>", ""), ("[  12.345678] ", ""), ("[T1234] ", ""), ("[   12.3] [T1234] ", ""), ("node-1 kernel: ", "\r")],
)
def test_what_printk_and_journald_put_around_a_line_does_no_harm(prefix: str, suffix: str) -> None:
    assert only(prefix + LOST + suffix) == only(LOST)


def test_a_line_that_gives_only_a_place_holder_is_no_event() -> None:
    assert events("NVRM: Xid (...)", "NVRM: Xid", "NVRM: Xid (PCI:{}): {}, pid=1", "NVRM: Xid : 32, pid=1") == []


@pytest.mark.parametrize(
    ("where", "instances"),
    [
        ("PCI:0000:01:00 GPU-I:05 GPU-CI:00", (5, 0)),
        ("PCI:0000:01:00 GPU-I: 05 GPU-CI: 01", (5, 1)),
        ("PCI:0000:01:00 GPU-I:05", (5, None)),
        ("PCI:0000:01:00", (None, None)),
    ],
)
def test_an_xid_of_a_mig_instance_says_which(where: str, instances: tuple[int | None, int | None]) -> None:
    event = only(f"NVRM: Xid ({where}): 94, pid=7194, name=a, Contained: CE User Channel (0x9). RST: No, D-RST: No")
    assert (event["gpu_instance"], event["compute_instance"]) == instances
    assert (event["code"], event["gpu_index"], event["severity"]) == (94, 0, "warning")


@pytest.mark.parametrize("code", [13, 31, 43, 45, 63, 92, 94])
def test_an_xid_of_an_application_is_no_fault_of_the_node(code: int) -> None:
    event = only(f"NVRM: Xid (PCI:0000:01:00): {code}, pid=1, name=a, Text")
    assert event["severity"] in ("info", "warning")
    assert event["action"] in ("none", "restart_app")


@pytest.mark.parametrize("code", [46, 62, 64, 74, 79, 95, 109, 110, 119, 120, 136, 140, 143, 155, 156, 158])
def test_an_xid_that_needs_a_reset_is_critical(code: int) -> None:
    event = only(f"NVRM: Xid (PCI:0000:01:00): {code}, pid=1, name=a, Text")
    assert (event["severity"], event["action"]) == ("critical", "reboot" if code == 79 else "reset_gpu")


def test_what_still_runs_after_a_double_bit_error_may_end() -> None:
    event = only("NVRM: Xid (PCI:0000:01:00): 48, pid=1, name=a, DBE (double bit error) ECC Error")
    assert (event["severity"], event["action"]) == ("critical", "drain")


def test_an_xid_that_the_catalogue_does_not_know() -> None:
    event = only("NVRM: Xid (PCI:0000:01:00): 99999, unknown error")
    assert (event["code"], event["mnemonic"], event["bucket"]) == (99999, None, None)
    assert (event["severity"], event["action"]) == ("warning", "contact_support")


@pytest.mark.parametrize("architecture", ["Volta", "Pascal", "Turing"])
def test_63_and_64_mean_page_retirement_where_there_is_no_row_remapping(architecture: str) -> None:
    gpus = (Gpu(index=0, bus_id="0000:01:00.0", architecture=architecture),)
    found = events("NVRM: Xid (PCI:0000:01:00): 63, Text", "NVRM: Xid (PCI:0000:01:00): 64, Text", gpus=gpus)
    assert [event["mnemonic"] for event in found] == [
        "INFOROM_PAGE_RETIREMENT_EVENT",
        "INFOROM_PAGE_RETIREMENT_FAILURE",
    ]
    assert ["page retirement" in describe(event) for event in found] == [True, True]
    assert only("NVRM: Xid (PCI:0000:01:00): 63, Text")["mnemonic"] == "INFOROM_DRAM_RETIREMENT_EVENT"


def test_the_text_tells_page_retirement_of_a_gpu_that_is_not_listed() -> None:
    event = only("NVRM: Xid (PCI:0000:01:00): 63, Dynamic Page Retirement: New retired page (0x1).", gpus=())
    assert event["mnemonic"] == "INFOROM_PAGE_RETIREMENT_EVENT"


def test_an_event_of_a_gpu_that_is_not_listed() -> None:
    event = only("NVRM: GPU at PCI:0000:9b:00: GPU-509665ad", "NVRM: Xid (PCI:0000:9b:00): 79, Text")
    assert (event["bus_id"], event["gpu_index"], event["uuid"]) == ("0000:9b:00.0", None, "GPU-509665ad")


def test_a_gpu_that_is_listed_without_its_address_is_found_by_its_uuid() -> None:
    gpus = (Gpu(index=4, uuid="GPU-509665ad"),)
    event = only("NVRM: GPU at PCI:0000:9b:00: GPU-509665ad", "NVRM: Xid (PCI:0000:9b:00): 13, Text", gpus=gpus)
    assert event["gpu_index"] == 4


@pytest.mark.parametrize(
    ("text", "link", "action", "severity"),
    [
        ("149, NETIR_LINK_EVT Fatal XC0 i0 Link 08 (0x004505c6 0x00000000)", 8, "reset_gpu", "critical"),
        ("149, NETIR_LINK_EVT  Fatal   XC0 i0 Link 01 (0x021425c6 0x00000000)", 1, "reset_gpu", "critical"),
        ("149, NETIR Fatal XC0 i0 Link -1 (0x000fe406 0x00000000)", None, "reset_gpu", "critical"),
        ("146, TLW_RX/TLW_RX_PIPE0 Nonfatal XC0 i0 Link 00 (0x0000000a 0x00000001)", 0, "none", "warning"),
        ("145, pid=9, name=acctg, RLW_SRC_TRACK Nonfatal XC1 i0 Link 03 (0x040868e2)", 3, "none", "warning"),
        ("149, Placeholder message", None, "contact_support", "warning"),
    ],
)
def test_nvlink5_says_whether_it_is_fatal_and_which_link(
    text: str, link: int | None, action: str, severity: str
) -> None:
    event = only(f"NVRM: Xid (PCI:0000:01:00): {text}")
    assert (event["link"], event["action"], event["severity"]) == (link, action, severity)


def test_two_links_are_two_events() -> None:
    lines = [
        f"NVRM: Xid (PCI:0000:01:00): 74, pid=1, name=a, NVLink: fatal error detected on link {n}(0x1)" for n in (6, 7)
    ]
    assert [event["link"] for event in events(*lines)] == [6, 7]
    lines = [f"NVRM: Xid (PCI:0000:01:00): 149, NETIR_LINK_EVT Fatal XC0 i0 Link {n} (0x1)" for n in ("00", "08", "00")]
    assert [(event["link"], event["count"]) for event in events(*lines)] == [(0, 2), (8, 1)]


@pytest.mark.parametrize(
    ("change", "action", "severity"),
    [
        ("0x0 (None) to 0x1 (GPU Reset Required)", "reset_gpu", "critical"),
        ("0x0 (None) to 0x1 (PF FLR)", "reset_gpu", "critical"),
        ("0x0 (None) to 0x2 (Node Reboot Required)", "reboot", "critical"),
        ("0x0 (None) to 0x2 (OS Reboot)", "reboot", "critical"),
        ("0x0 (None) to 0x3 (Drain P2P)", "drain", "critical"),
        ("0x0 (None) to 0x4 (Drain and Reset)", "drain", "critical"),
        ("0x0 (None) to 0x5 (Something new)", "contact_support", "critical"),
        ("0x1 (GPU Reset Required) to 0x0 (None)", "none", "info"),
    ],
)
def test_xid_154_carries_the_action_of_the_driver(change: str, action: str, severity: str) -> None:
    event = only(f"NVRM: Xid (PCI:0000:01:00): 154, GPU recovery action changed from {change}")
    assert (event["action"], event["severity"]) == (action, severity)


def test_the_driver_s_next_verdict_replaces_the_last_one() -> None:
    worse = (
        "NVRM: Xid (PCI:0000:01:00): 154, GPU recovery action changed from 0x1 (GPU Reset Required) to 0x2 (OS Reboot)"
    )
    found = events(GSP_TIMEOUT, RESET_WANTED, worse)
    assert [(event["code"], event["cleared"]) for event in found] == [(119, False), (154, True), (154, False)]


def test_a_gpu_that_needs_no_recovery_any_more_is_cleared_and_the_others_are_not() -> None:
    well = "NVRM: Xid (PCI:0000:01:00): 154, GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)"
    found = events(LOST, GSP_TIMEOUT, RESET_WANTED, well, GSP_TIMEOUT)
    assert [(event["code"], event["cleared"]) for event in found] == [
        (79, False),
        (119, True),
        (154, True),
        (154, False),
        (119, False),
    ]


def test_a_driver_that_asked_for_a_reset_and_asks_no_more_has_had_it() -> None:
    later = "NVRM: Xid (PCI:0000:01:00): 95, Uncontained: LTC TAG (0x2,0x1). RST: Yes, D-RST: No"
    lines = (LOST, GSP_TIMEOUT, RESET_WANTED, later)

    def cleared(recovery_action: str | None) -> list[bool]:
        gpus = (Gpu(index=0, bus_id="0000:01:00.0", recovery_action=recovery_action), GPUS[1])
        return [event["cleared"] for event in events(*lines, gpus=gpus)]

    assert cleared("none") == [False, True, True, False]
    assert cleared("gpu reset") == cleared(None) == [False, False, False, False]
    assert not only(GSP_TIMEOUT, gpus=(Gpu(index=0, bus_id="0000:01:00.0", recovery_action="none"),))["cleared"]


@pytest.mark.parametrize("load", [(LOAD_BEGINS, LOAD_ENDS), (LOAD_ENDS,)])
def test_a_driver_load_clears_what_came_before(load: tuple[str, ...]) -> None:
    found = events(LOST, GSP_TIMEOUT, *load, GSP_TIMEOUT)
    assert [(event["code"], event["cleared"]) for event in found] == [(79, True), (119, True), (119, False)]


def test_a_gpu_that_is_lost_while_the_driver_loads_is_not_cleared_by_the_end_of_that_load() -> None:
    loss = ("NVRM: The NVIDIA GPU 0000:4c:00.0", "NVRM: fallen off the bus and is not responding to commands.")
    lines = tuple(f"5.{number} {text}" for number, text in enumerate((LOAD_BEGINS, *loss, LOAD_ENDS)))
    (event,) = kernel_events(KernelLog("dmesg", lines, uptime_seconds=UPTIME), GPUS, None)["events"]
    assert (event["kind"], event["gpu_index"], event["cleared"]) == ("bus_loss", 3, False)


def test_a_reboot_clears_what_came_before() -> None:
    lines = (f"-500.0 {LOST}", f"30.0 {LOST}")
    log = KernelLog("journal", lines, complete=True, uptime_seconds=3600.0)
    found = kernel_events(log, GPUS, 24)["events"]
    assert [(event["age_seconds"], event["cleared"]) for event in found] == [(4100.0, True), (3570.0, False)]


def test_what_a_reboot_cleared_stays_cleared_when_the_new_boot_says_nothing() -> None:
    (event,) = kernel_events(KernelLog("journal", (f"-500.0 {LOST}",), uptime_seconds=3600.0), GPUS, 24)["events"]
    assert event["cleared"]


def test_a_bus_loss_after_a_reboot_is_not_taken_for_the_one_before_it() -> None:
    lines = (f"-500.0 {LOST}", "30.0 NVRM: GPU 0000:4c:00.0: GPU has fallen off the bus.")
    found = kernel_events(KernelLog("journal", lines, uptime_seconds=3600.0), GPUS, 24)["events"]
    assert [(event["kind"], event["cleared"]) for event in found] == [("xid", True), ("bus_loss", False)]


def test_only_what_is_in_the_window_is_listed() -> None:
    lines = (f"-500.0 {LOST}", f"0.0 {LOST}", f"3000.0 {GSP_TIMEOUT}")
    log = KernelLog("journal", lines, complete=True, uptime_seconds=7200.1234)
    since_boot = kernel_events(log, GPUS, None)
    assert [event["code"] for event in since_boot["events"]] == [79, 119]
    assert since_boot["since_seconds"] == 7200.1234
    last_two_hours = kernel_events(log, GPUS, 2)
    assert [event["code"] for event in last_two_hours["events"]] == [119]
    assert last_two_hours["since_seconds"] == 7200.0


def test_a_log_that_could_not_be_read_is_not_an_empty_one() -> None:
    error = "dmesg: read kernel buffer failed: Operation not permitted"
    assert kernel_events(KernelLog(error=error), GPUS, None) == {
        "source": "none",
        "complete": False,
        "since_seconds": None,
        "error": error,
        "events": [],
    }


@pytest.mark.parametrize(
    "lines",
    [
        (
            "1843.308145 NVRM: The NVIDIA GPU 0000:4c:00.0",
            "1843.308145                NVRM: (PCI ID: 10de:26b5) installed in this system has",
            "1843.308145                NVRM: fallen off the bus and is not responding to commands.",
        ),
        (
            "1843.308145 NVRM: The NVIDIA GPU 0000:4c:00.0",
            "               NVRM: (PCI ID: 10de:26b5) installed in this system has",
            "               NVRM: fallen off the bus and is not responding to commands.",
        ),
        (
            "1843.308145 NVRM: The NVIDIA GPU 0000:4c:00.0\\x0aNVRM: (PCI ID: 10de:26b5) installed in this system has"
            "\\x0aNVRM: fallen off the bus and is not responding to commands.",
        ),
        ("1843.308145 NVRM: GPU 0000:4c:00.0: GPU has fallen off the bus.",),
        ("1843.308145 NVRM: GPU at PCI:0000:4c:00.0 has fallen off the bus.",),
    ],
)
def test_a_gpu_that_falls_off_the_bus_without_an_xid(lines: tuple[str, ...]) -> None:
    (event,) = kernel_events(KernelLog("dmesg", lines, uptime_seconds=UPTIME), GPUS, None)["events"]
    assert (event["kind"], event["code"], event["bus_id"], event["gpu_index"]) == ("bus_loss", None, "0000:4c:00.0", 3)
    assert (event["action"], event["severity"], event["first_seconds"]) == ("reboot", "critical", 1843.308145)


def test_a_bus_loss_is_not_blamed_on_a_gpu_that_an_older_line_names() -> None:
    event = only("NVRM: The NVIDIA GPU 0000:4c:00.0", "NVRM: fallen off the bus and is not responding to commands.")
    assert (event["kind"], event["bus_id"], event["gpu_index"]) == ("bus_loss", None, None)


def test_xid_79_and_its_second_line_are_one_event() -> None:
    found = events(
        LOST, "NVRM: GPU 0000:4c:00.0: GPU has fallen off the bus.", "NVRM: A GPU crash dump has been created"
    )
    assert [event["code"] for event in found] == [79]
    found = events(LOST, "NVRM: GPU 0000:01:00.0: GPU has fallen off the bus.")
    assert [event["kind"] for event in found] == ["xid", "bus_loss"]


def test_a_gpu_that_the_driver_cannot_start() -> None:
    failed = "NVRM: GPU 0000:4c:00.0: RmInitAdapter failed! (0x62:0x40:2192)"
    second = "NVRM: GPU 0000:4c:00.0: rm_init_adapter failed, device minor number 0"
    event = only(failed, second, failed, second)
    assert (event["kind"], event["gpu_index"], event["severity"], event["count"]) == ("driver", 3, "critical", 2)
    assert event["message"] == "RmInitAdapter failed! (0x62:0x40:2192)"


def test_a_gpu_without_power_cables() -> None:
    event = only("NVRM: GPU 0000:4c:00.0: GPU does not have the necessary power cables connected.")
    assert (event["kind"], event["gpu_index"], event["action"]) == ("driver", 3, "check_power")
    assert event["message"] == "GPU does not have the necessary power cables connected."


@pytest.mark.parametrize(
    ("lines", "process", "pid"),
    [
        (
            (
                "NVRM: API mismatch: the client has the version 535.247.01, but",
                "NVRM: this kernel module has the version 535.230.02.  Please",
                "NVRM: make sure that this kernel module and all NVIDIA driver",
            ),
            None,
            None,
        ),
        (
            (
                "NVRM: API mismatch: the client 'nvidia-smi' (pid 77) has the version 535.247.01, but this kernel"
                " module has the version 535.230.02.",
            ),
            "nvidia-smi",
            77,
        ),
    ],
)
def test_an_api_mismatch_says_both_versions(lines: tuple[str, ...], process: str | None, pid: int | None) -> None:
    event = only(*lines, *lines)
    assert event["message"] == (
        "API mismatch: the client has the version 535.247.01, this kernel module has 535.230.02"
    )
    assert (event["kind"], event["severity"], event["count"]) == ("driver", "info", 2)
    assert (event["process"], event["pid"]) == (process, pid)


def test_the_three_lines_of_an_sxid_are_one_event() -> None:
    event = only(
        "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 28006, Non-fatal, Link 46 MC TS crumbstore MCTO (First)",
        "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 28006, Severity 0 Engine instance 46 Sub-engine instance 00",
        "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 28006, Data {0x00140004, 0x00100000, 0x00140004}",
    )
    assert (event["kind"], event["code"], event["link"], event["bus_id"]) == ("sxid", 28006, 46, "0000:c1:00.0")
    assert (event["severity"], event["action"], event["gpu_index"]) == ("info", "none", None)


def test_a_fatal_sxid_is_critical() -> None:
    event = only("nvidia-nvswitch0: SXid (PCI:0000:c1:00.0): 20034, Fatal, Link 30 LTSSM Fault Up")
    assert (event["code"], event["severity"], event["action"], event["link"]) == (20034, "critical", "reset_gpu", 30)


def test_an_sxid_that_does_not_say_how_bad_it_is() -> None:
    event = only("nvidia-nvswitch0: SXid (PCI:0000:c1:00.0): 10003, Host_unhandled_interrupt")
    assert (event["code"], event["severity"], event["action"]) == (10003, "warning", "contact_support")


def test_repeated_lines_are_one_event_with_its_first_and_last_time() -> None:
    fault = "NVRM: Xid (PCI:0000:01:00): 31, pid={}, name=python3, Ch 00000008, intr 00000000. MMU Fault"
    event = only(fault.format(1), fault.format(2), fault.format(2))
    assert (event["count"], event["pid"], event["first_seconds"], event["last_seconds"]) == (3, 1, 1000.0, 1020.0)
    others = (fault.format(1).replace("python3", "vllm"), fault.format(1).replace("01:00", "4c:00"))
    assert [event["count"] for event in events(fault.format(1), *others)] == [1, 1, 1]


def test_two_mig_instances_are_two_events() -> None:
    lines = [f"NVRM: Xid (PCI:0000:01:00 GPU-I:{n}): 94, pid=1, name=a, Contained" for n in (1, 2, 1)]
    assert [(event["gpu_instance"], event["count"]) for event in events(*lines)] == [(1, 2), (2, 1)]


def test_lines_that_the_kernel_suppressed_are_counted() -> None:
    assert only(LOST, "nvidia: 12 callbacks suppressed", LOST)["count"] == 14
    assert events("nvidia: 12 callbacks suppressed") == []


def test_timeouts_that_the_driver_does_not_print_are_counted_until_the_next_load() -> None:
    limit = "NVRM: Rate limiting GSP RPC error prints for GPU at PCI:0000:01:00 (printing 1 of every 30).  Reset it."
    found = events(GSP_TIMEOUT, GSP_TIMEOUT, limit, GSP_TIMEOUT, LOAD_BEGINS, GSP_TIMEOUT)
    assert [event["count"] for event in found] == [32, 1]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((LOST,), "Xid 79 on GPU 3 (0000:4c:00.0), 12 min ago: GPU has fallen off the bus. -> reboot"),
        (
            (
                "NVRM: Xid (PCI:0000:01:00 GPU-I:05 GPU-CI:00): 13, pid=9, name=python3, SM Warp Exception",
                "NVRM: Xid (PCI:0000:01:00 GPU-I:05 GPU-CI:00): 13, pid=9, name=python3, SM Warp Exception",
            ),
            "Xid 13 on GPU 0 (0000:01:00.0, GPU instance 5), 12 min ago, 2 times: Graphics Engine Exception:"
            " SM Warp Exception [python3, pid 9] -> restart_app",
        ),
        (("NVRM: Xid (PCI:0000:9b:00): 43",), "Xid 43 on GPU 0000:9b:00.0, 12 min ago: GPU stopped processing"),
        (
            ("NVRM: Xid (PCI:0000:9b:00): 99999",),
            "Xid 99999 on GPU 0000:9b:00.0, 12 min ago: no text -> contact_support",
        ),
        (
            (GSP_TIMEOUT, LOAD_BEGINS),
            "Xid 119 on GPU 0 (0000:01:00.0), 12 min ago: GSP RPC Timeout: Timeout after 6s of waiting for RPC response"
            " [gpud, pid 7] (cleared)",
        ),
        (
            ("nvidia-nvswitch0: SXid (PCI:0000:c1:00.0): 20034, Fatal, Link 30 LTSSM Fault Up",),
            "SXid 20034 on NVSwitch 0000:c1:00.0, 12 min ago: Fatal, Link 30 LTSSM Fault Up -> reset_gpu",
        ),
        (
            ("NVRM: fallen off the bus and is not responding to commands.",),
            "Bus loss, 12 min ago: fallen off the bus and is not responding to commands. -> reboot",
        ),
        (
            ("NVRM: GPU 0000:4c:00.0: RmInitAdapter failed! (0x62:0x40:2192)",),
            "NVIDIA driver on GPU 3 (0000:4c:00.0), 12 min ago: RmInitAdapter failed! (0x62:0x40:2192) -> reboot",
        ),
    ],
)
def test_one_line_for_people(lines: tuple[str, ...], expected: str) -> None:
    log = KernelLog("dmesg", tuple(f"{UPTIME - 720} {line}" for line in lines), uptime_seconds=UPTIME)
    assert describe(kernel_events(log, GPUS, None)["events"][0]) == expected


@pytest.mark.parametrize(
    ("age", "expected"), [(5, "5 s ago"), (100, "1 min ago"), (7200, "2 h ago"), (3 * 86400, "3 d ago")]
)
def test_the_age_of_an_event_in_a_unit_that_fits(age: int, expected: str) -> None:
    log = KernelLog("dmesg", (f"{400_000 - age}.0 {LOST}",), uptime_seconds=400_000.0)
    assert f", {expected}: " in describe(kernel_events(log, GPUS, None)["events"][0])


def corpus_lines() -> list[str]:
    texts = [
        line.partition("\t")[2] for file in CORPUS.glob("kernel_log/*.tsv") for line in file.read_text().splitlines()
    ]
    for file in (CORPUS / "leptonai+gpud").rglob("*.log"):
        texts += file.read_text().splitlines()
    return texts


@NO_CORPUS
def test_every_recorded_line_gives_the_code_that_it_holds() -> None:
    numbered = 0
    for text in corpus_lines():
        number = re.search(r"Xid \(?[^()]*[0-9a-f]{2}[^()]*\)?: (\d+)", text)
        found = events(text)
        if number:
            numbered += 1
            assert [event["code"] for event in found] == [int(number[1])], text
            assert not re.search("pid=|name=", found[0]["message"]), text
            assert f"Xid {number[1]} " in describe(found[0])
        else:
            assert [event for event in found if event["kind"] == "xid"] == [], text
    assert numbered >= 70


@NO_CORPUS
def test_the_dump_of_a_gsp_timeout_is_one_event_for_each_process() -> None:
    (file,) = CORPUS.rglob("dmesg-with-xid-119.log")
    found = events(*file.read_text().splitlines())
    # After the third line the driver prints one of thirty.
    assert [(event["code"], event["process"], event["count"]) for event in found] == [
        (119, "nvidia-smi", 3),
        (119, "cache_mgr_main", 30),
        (119, "gpud", 30),
    ]
    assert {event["bus_id"] for event in found} == {"0000:9b:00.0"}


@pytest.mark.skipif(not CATALOGUE.is_file(), reason=f"no {CATALOGUE}")
def test_the_catalogue_agrees_with_nvidia_s() -> None:
    shipped = gpu_kernel_log._catalogue()
    with CATALOGUE.open(encoding="utf-8") as file:
        reference = {int(row["xid"]): row for row in csv.DictReader(file)}
    assert shipped.keys() == reference.keys()
    for code, row in reference.items():
        assert shipped[code].bucket == row["immediate_resolution"], code
        assert shipped[code].mnemonic in f"{row['mnemonic_nvidia_catalog']} {row['mnemonic_nverror_h']}", code


def test_the_catalogue_uses_known_words_only() -> None:
    for code, xid in gpu_kernel_log._catalogue().items():
        assert xid.mnemonic, code
        assert xid.action in ACTIONS, code
        assert xid.severity in ("critical", "warning", "info"), code


PIECES = st.sampled_from(
    [
        *("NVRM: ", "Xid (PCI:0000:01:00", " GPU-I:05", "): ", "154, ", "79", "pid=", "name=", ", ", "\\x0a", "-1.5 "),
        *("SXid (PCI:0000:01:00.0): ", "recovery action changed from 0x0 (None) to 0x4", "99999999999999999999"),
        *("The NVIDIA GPU 0000:01:00.0", "fallen off the bus", "12 callbacks suppressed", LOAD_BEGINS, LOAD_ENDS),
        *("API mismatch: the client has the version 5", "this kernel module has the version 6"),
    ]
)


@given(
    st.lists(st.one_of(st.text(max_size=30), st.lists(PIECES, max_size=8).map("".join)), max_size=6), st.integers(0, 48)
)
def test_whatever_the_log_holds_is_no_exception(lines: list[str], hours: int) -> None:
    stamped = tuple(f"{number}.5 {line}" if number % 2 else line for number, line in enumerate(lines))
    for event in kernel_events(KernelLog("dmesg", stamped, uptime_seconds=50.0), GPUS, hours)["events"]:
        assert event["action"] in ACTIONS
        assert describe(event)


@pytest.mark.parametrize("variety", ["one", "many"])
def test_a_long_log_is_read_fast(variety: str) -> None:
    lines = tuple(
        f"{n}.5 NVRM: Xid (PCI:0000:{n % 8:02x}:00): 31, pid={n}, name=python{n if variety == 'many' else ''},"
        f" Ch 00000008, intr 00000000. MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_8 faulted @ 0x73ac_1c{n:06x}"
        for n in range(5000)
    )
    best = float("inf")
    for _attempt in range(3):
        began = time.process_time()
        kernel_events(KernelLog("dmesg", lines, uptime_seconds=5000.0), GPUS, None)
        best = min(best, time.process_time() - began)
    # Ten times what it takes where nothing else runs: it must not grow with the square of the lines.
    assert best < 0.5
