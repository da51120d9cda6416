# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import asdict, fields
from functools import lru_cache
from typing import Any

import pytest
from ansible_collections.gpuops.fleet.plugins.module_utils._see.gpu.record import Gpu
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.smi_xml import (
    NvidiaSmiXmlError,
    cut_document,
    parse_log,
)
from gpu_data import CORPUS, MACHINES, NO_CORPUS, SIMULATOR
from hypothesis import given, settings
from hypothesis import strategies as st

HEALTHY: dict[str, str] = {
    "product_name": "NVIDIA H100 80GB HBM3",
    "persistence_mode": "Enabled",
    "mig_mode/current_mig": "Disabled",
    "serial": "1650000000001",
    "uuid": "GPU-00000000-0000-0000-0000-000000000001",
    "vbios_version": "96.00.99.00.01",
    "pci/pci_bus_id": "00000000:1B:00.0",
    "pci/pci_gpu_link_info/link_widths/current_link_width": "16x",
    "fb_memory_usage/total": "81559 MiB",
    "fb_memory_usage/used": "4 MiB",
    "utilization/gpu_util": "7 %",
    "ecc_mode/current_ecc": "Enabled",
    "temperature/gpu_temp": "29 C",
    "gpu_power_readings/average_power_draw": "68.57 W",
    "gpu_power_readings/instant_power_draw": "68.92 W",
    "gpu_recovery_action": "None",
}
HEAD = {"driver_version": "570.148.08", "cuda_version": "12.8", "attached_gpus": "1"}
DOCTYPE = '<?xml version="1.0" ?>\n<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">\n'


def render(*gpus: dict[str, str], head: dict[str, str] | None = None, doctype: str = DOCTYPE) -> str:
    root = ET.Element("nvidia_smi_log")
    for name, text in (HEAD if head is None else head).items():
        ET.SubElement(root, name).text = text
    for number, paths in enumerate(gpus):
        gpu = ET.SubElement(root, "gpu", id=f"00000000:{0x1B + number:02X}:00.0")
        for path, text in paths.items():
            element = gpu
            for name in path.split("/"):
                found = element.find(name)
                element = ET.SubElement(element, name) if found is None else found
            element.text = text
    return doctype + ET.tostring(root, encoding="unicode") + "\n"


def changed(remove: str = "", **changes: str) -> dict[str, str]:
    kept = {path: text for path, text in HEALTHY.items() if not remove or not path.startswith(remove)}
    return kept | {path.replace("__", "/"): text for path, text in changes.items()}


def first_gpu(paths: dict[str, str]) -> Any:
    return parse_log(cut_document(render(paths))[1]).gpus[0]


@lru_cache(maxsize=None)
def simulated(machine: str) -> str:
    """The document of one of the lab's machine types."""
    return subprocess.run(
        [sys.executable, "-B", str(SIMULATOR / "nvidia_smi.py"), "-q", "-x"],
        env={"GPUOPS_SIM_MACHINE": machine, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    ).stdout


def test_a_healthy_gpu_is_read_with_units_and_types() -> None:
    log = parse_log(cut_document(render(HEALTHY))[1])
    gpu = log.gpus[0]
    assert (log.driver_version, log.cuda_version, log.attached_gpus) == ("570.148.08", "12.8", 1)
    assert (gpu.index, gpu.bus_id, gpu.name) == (0, "0000:1b:00.0", "NVIDIA H100 80GB HBM3")
    assert (gpu.memory_total_mib, gpu.memory_used_mib, gpu.utilization_gpu_percent) == (81559, 4, 7)
    assert (gpu.temperature_gpu_c, gpu.power_draw_w, gpu.pcie_link_width_current) == (29, 68.57, 16)
    assert (gpu.persistence_mode, gpu.ecc_mode_current, gpu.mig_mode_current) == (True, True, False)
    assert gpu.errors == {}


@pytest.mark.parametrize(
    ("paths", "power"),
    [
        pytest.param({"power_readings/power_draw": "18.00 W"}, 18.0, id="384-525"),
        pytest.param({"gpu_power_readings/power_draw": "19.00 W"}, 19.0, id="535-and-555"),
        pytest.param(
            {"gpu_power_readings/average_power_draw": "20.5 W", "gpu_power_readings/instant_power_draw": "21 W"},
            20.5,
            id="550.163-and-570",
        ),
        pytest.param(
            {"gpu_power_readings/average_power_draw": "N/A", "gpu_power_readings/instant_power_draw": "21.25 W"},
            21.25,
            id="no-average",
        ),
        pytest.param({"module_power_readings/average_power_draw": "900.00 W"}, None, id="module-is-not-the-gpu"),
    ],
)
def test_power_is_found_under_every_name(paths: dict[str, str], power: float | None) -> None:
    assert first_gpu(changed(remove="gpu_power_readings", **paths)).power_draw_w == power


@pytest.mark.parametrize(
    ("head", "versions"),
    [
        ({"driver_version": "384.111"}, ("384.111", None)),
        ({"driver_version": "610.57.04 [Deprecated; will be removed]", "cuda_version": "13.3"}, ("610.57.04", "13.3")),
        (
            {"driver_version": "Deprecated, see kmd_version", "kmd_version": "610.57.04", "cuda_umd_version": "13.3"},
            ("610.57.04", "13.3"),
        ),
        ({"driver_version": "470.57.02", "cuda_version": "Not Found"}, ("470.57.02", None)),
        ({}, (None, None)),
    ],
)
def test_versions_of_every_generation(head: dict[str, str], versions: tuple[str | None, str | None]) -> None:
    log = parse_log(cut_document(render(HEALTHY, head=head))[1])
    assert (log.driver_version, log.cuda_version) == versions


@pytest.mark.parametrize(
    "text", ["N/A", "[N/A]", "[Not Supported]", "None", "", "Requested functionality has been deprecated"]
)
def test_what_the_driver_does_not_know_is_null_and_no_error(text: str) -> None:
    gpu = first_gpu(changed(serial=text, utilization__gpu_util=text, ecc_mode__current_ecc=text))
    assert (gpu.serial, gpu.utilization_gpu_percent, gpu.ecc_mode_current, gpu.errors) == (None, None, None, {})


def test_an_old_card_without_most_elements() -> None:
    gpu = first_gpu({"product_name": "GeForce GT 730", "uuid": "GPU-09cb"})
    assert (gpu.bus_id, gpu.memory_total_mib, gpu.errors) == ("0000:1b:00.0", None, {})


@pytest.mark.parametrize(
    "text", ["GPU is lost", "[GPU is lost]", "Unknown Error", "Insufficient Permissions", "8\x01 MiB"]
)
def test_a_text_in_the_place_of_a_value_is_kept_as_that_fields_error(text: str) -> None:
    document = cut_document(render(HEALTHY))[1].replace("81559 MiB", text)
    gpu = parse_log(document).gpus[0]
    assert gpu.memory_total_mib is None
    assert gpu.errors == {"memory_total_mib": text.strip("[]").replace("\x01", "\ufffd")}


def test_a_text_of_failure_is_not_a_name() -> None:
    gpu = first_gpu(changed(product_name="Unknown Error"))
    assert (gpu.name, gpu.errors) == (None, {"name": "Unknown Error"})


@pytest.mark.parametrize(
    ("paths", "lost", "action"),
    [
        (HEALTHY, False, ""),
        (changed(clocks__sm_clock="GPU is lost"), True, ""),
        (changed(processes__process_info__process_name="GPU is lost"), False, ""),
        (changed(gpu_recovery_action="Drain and Reset"), False, "Drain and Reset"),
        (changed(remove="gpu_recovery", gpu_reset_status__reset_required="Yes"), False, "Reset"),
        (changed(remove="gpu_recovery", gpu_reset_status__reset_required="No"), False, ""),
        (changed(clocks__sm_clock="GPU requires reset"), False, "Reset"),
        (changed(remove="gpu_recovery", gpu_reset_status__drain_and_reset_recommended="Yes"), False, "Drain and Reset"),
    ],
)
def test_lost_and_reset_are_seen_in_any_field(paths: dict[str, str], lost: bool, action: str) -> None:
    verdict = parse_log(cut_document(render(paths))[1]).verdicts[0]
    assert (verdict.lost, verdict.recovery_action) == (lost, action)


def test_text_around_the_document_is_kept_apart() -> None:
    junk = "Unable to determine the device handle for GPU 1: GPU is lost.\n"
    around, document = cut_document(junk + render(HEALTHY) + "WARNING: infoROM is corrupted\n")
    assert around == junk + "WARNING: infoROM is corrupted"
    assert len(parse_log(document).gpus) == 1


@pytest.mark.parametrize("doctype", ["", DOCTYPE + "<!-- made by a lab -->\n"])
def test_with_no_doctype_and_with_a_comment(doctype: str) -> None:
    assert cut_document(render(HEALTHY, doctype=doctype))[0] == ""


def test_entities_are_refused() -> None:
    document = cut_document(render(changed(serial="x")))[1]
    with pytest.raises(NvidiaSmiXmlError, match="malformed"):
        parse_log(document.replace("<serial>x", "<serial>&a;"))
    inside = document.replace("<gpu ", '<!DOCTYPE a [<!ENTITY a "b">]><gpu ', 1)
    with pytest.raises(NvidiaSmiXmlError, match="entities"):
        parse_log(inside)


def test_a_document_cut_at_any_byte_is_refused() -> None:
    whole = render(HEALTHY, changed(serial="N/A"))
    for length in range(len(whole.rstrip())):
        with pytest.raises(NvidiaSmiXmlError):
            parse_log(cut_document(whole[:length])[1])


@pytest.mark.parametrize(
    ("paths", "action"),
    [
        (HEALTHY, "none"),
        (changed(gpu_recovery_action="Reset"), "gpu reset"),
        (changed(gpu_recovery_action="Reboot"), "node reboot"),
        (changed(gpu_recovery_action="Drain P2P"), "drain p2p"),
        (changed(gpu_recovery_action="N/A"), None),
        (changed(gpu_recovery_action="N/A", gpu_reset_status__reset_required="No"), "none"),
        (changed(remove="gpu_recovery", gpu_reset_status__reset_required="Yes"), "gpu reset"),
        (changed(remove="gpu_recovery", gpu_reset_status__reset_required="N/A"), None),
        (changed(remove="gpu_recovery"), None),
    ],
)
def test_no_recovery_action_is_not_an_unknown_one(paths: dict[str, str], action: str | None) -> None:
    assert first_gpu(paths).recovery_action == action


def test_degrees_and_degrees_of_margin_are_never_mixed() -> None:
    absolute = first_gpu(
        changed(temperature__gpu_temp_slow_threshold="87 C", temperature__gpu_temp_max_threshold="90 C")
    )
    margin = first_gpu(
        changed(
            temperature__gpu_temp_tlimit="58 C",
            temperature__gpu_temp_slow_tlimit_threshold="-2 C",
            temperature__gpu_temp_max_tlimit_threshold="-8 C",
        )
    )
    keys = ("temperature_slowdown_c", "temperature_shutdown_c", "temperature_margin_c")
    assert [getattr(absolute, key) for key in keys] == [87, 90, None]
    assert [getattr(margin, key) for key in keys] == [None, None, 58]


@pytest.mark.parametrize(
    "spelling", ["clocks_event_reasons/clocks_event_reason_", "clocks_throttle_reasons/clocks_throttle_reason_"]
)
def test_throttle_reasons_have_one_name_under_both_spellings(spelling: str) -> None:
    texts = {"gpu_idle": "Not Active", "sw_power_cap": "Active", "hw_slowdown": "N/A", "hw_thermal_slowdown": "Active"}
    gpu = first_gpu(HEALTHY | {spelling + name: text for name, text in texts.items()})
    assert gpu.throttle_reasons == ["sw_power_cap", "hw_thermal_slowdown"]


@pytest.mark.parametrize(
    ("texts", "reasons"), [({"gpu_idle": "Not Active"}, []), ({"gpu_idle": "N/A"}, None), ({}, None)]
)
def test_no_throttle_reason_is_not_an_unknown_one(texts: dict[str, str], reasons: list[str] | None) -> None:
    paths = {f"clocks_event_reasons/clocks_event_reason_{name}": text for name, text in texts.items()}
    assert first_gpu(HEALTHY | paths).throttle_reasons == reasons


@pytest.mark.parametrize(
    ("counters", "corrected", "uncorrected"),
    [
        pytest.param({"single_bit/total": "3", "double_bit/total": "1"}, 3, 1, id="up-to-volta"),
        pytest.param(
            {"sram_correctable": "1", "sram_uncorrectable": "2", "dram_correctable": "4", "dram_uncorrectable": "8"},
            5,
            10,
            id="turing",
        ),
        pytest.param(
            {
                "sram_correctable": "0",
                "sram_uncorrectable_parity": "1",
                "sram_uncorrectable_secded": "2",
                "dram_correctable": "0",
                "dram_uncorrectable": "4",
            },
            0,
            7,
            id="since-ampere",
        ),
        pytest.param({"sram_correctable": "N/A", "dram_correctable": "6"}, 6, None, id="half-unknown"),
    ],
)
def test_ecc_errors_are_summed_over_every_way_to_count(
    counters: dict[str, str], corrected: int | None, uncorrected: int | None
) -> None:
    gpu = first_gpu(HEALTHY | {f"ecc_errors/aggregate/{name}": text for name, text in counters.items()})
    assert gpu.ecc_errors_aggregate == {"corrected": corrected, "uncorrected": uncorrected}
    assert gpu.ecc_errors_volatile is None


def test_a_counter_that_cannot_be_read_makes_no_sum_that_is_too_low() -> None:
    gpu = first_gpu(
        changed(ecc_errors__volatile__sram_uncorrectable="Unknown Error", ecc_errors__volatile__dram_uncorrectable="0")
    )
    assert gpu.ecc_errors_volatile is None
    assert gpu.errors == {"ecc_errors_volatile": "Unknown Error"}


@pytest.mark.parametrize(
    ("paths", "rows", "errors"),
    [
        ({"remapped_rows": "N/A"}, None, {}),
        ({"remapped_rows": "GPU is lost"}, None, {"remapped_rows": "GPU is lost"}),
        ({"remapped_rows/remapped_row_corr": "N/A", "remapped_rows/remapped_row_pending": "N/A"}, None, {}),
        (
            {
                "remapped_rows/remapped_row_corr": "1",
                "remapped_rows/remapped_row_unc": "2",
                "remapped_rows/remapped_row_pending": "Yes",
                "remapped_rows/remapped_row_failure": "No",
            },
            {"correctable": 1, "uncorrectable": 2, "pending": True, "failure": False},
            {},
        ),
    ],
)
def test_remapped_rows_are_unknown_on_gpus_without_a_remapper(
    paths: dict[str, str], rows: dict[str, Any] | None, errors: dict[str, str]
) -> None:
    gpu = first_gpu(HEALTHY | paths)
    assert (gpu.remapped_rows, gpu.errors) == (rows, errors)


@pytest.mark.parametrize(
    ("texts", "pending"),
    [
        ({"pending_retirement": "Yes"}, True),
        ({"pending_retirement": "No", "pending_blacklist": "Yes"}, True),
        ({"pending_retirement": "No", "pending_blacklist": "N/A"}, False),
        ({"pending_retirement": "N/A", "pending_blacklist": "No"}, False),
        ({"pending_retirement": "N/A"}, None),
    ],
)
def test_a_pending_page_retirement_is_seen_under_both_names(texts: dict[str, str], pending: bool | None) -> None:
    paths = {f"retired_pages/{name}": text for name, text in texts.items()}
    gpu = first_gpu(changed(retired_pages__double_bit_retirement__retired_count="2") | paths)
    assert gpu.retired_pages == {"single_bit": None, "double_bit": 2, "pending": pending}


def test_fabric_with_its_health_and_a_failure_that_is_called_unknown_error() -> None:
    gpu = first_gpu(
        changed(fabric__state="Completed", fabric__status="Unknown Error", fabric__health__summary="Unhealthy")
    )
    assert gpu.fabric == {"state": "Completed", "status": "Unknown Error", "health": "Unhealthy"}
    assert first_gpu(changed(fabric__state="N/A", fabric__status="N/A")).fabric is None
    assert first_gpu(changed(fabric__state="GPU is lost")).errors == {"fabric": "GPU is lost"}


@pytest.mark.parametrize("text", ["Unknown", "N/A"])
def test_an_architecture_that_the_driver_does_not_know_is_null(text: str) -> None:
    assert first_gpu(changed(product_architecture=text)).architecture is None
    assert first_gpu(changed(product_architecture=text)).errors == {}
    assert first_gpu(changed(product_architecture="Ada Lovelace")).architecture == "Ada Lovelace"


def test_mig_devices_keep_their_own_memory() -> None:
    part = "<mig_device><index>{0}</index><gpu_instance_id>{1}</gpu_instance_id><compute_instance_id>0"
    part += (
        "</compute_instance_id><fb_memory_usage><total>{2} MiB</total><used>5 MiB</used></fb_memory_usage></mig_device>"
    )
    devices = f"<mig_devices>{part.format(0, 2, 40192)}{part.format(1, 9, 9728)}</mig_devices>"
    gpu = parse_log(
        cut_document(render(HEALTHY).replace("<persistence_mode>", devices + "<persistence_mode>"))[1]
    ).gpus[0]
    assert gpu.memory_total_mib == 81559
    assert [(device["index"], device["gpu_instance_id"], device["memory_total_mib"]) for device in gpu.mig_devices] == [
        (0, 2, 40192),
        (1, 9, 9728),
    ]
    assert gpu.mig_devices[0]["uuid"] is None
    assert first_gpu(changed(mig_devices="None")).mig_devices == []


@pytest.mark.parametrize(
    ("inside", "processes", "errors"),
    [
        ("", [], {}),
        ("None", [], {}),
        ("N/A", None, {}),
        ("Unknown Error", None, {"processes": "Unknown Error"}),
        (
            "<process_info><gpu_instance_id>2</gpu_instance_id><compute_instance_id>0</compute_instance_id><pid>7</pid>"
            "<type>C</type><process_name>GPU is lost</process_name><used_memory>9 MiB</used_memory></process_info>"
            "<process_info><pid>8</pid><process_name>N/A</process_name><used_memory>N/A</used_memory></process_info>",
            [(7, "GPU is lost", "C", 9, 2, 0), (8, None, None, None, None, None)],
            {},
        ),
    ],
)
def test_processes(inside: str, processes: list[tuple[Any, ...]] | None, errors: dict[str, str]) -> None:
    document = cut_document(render(changed(processes="HERE")).replace("HERE", inside))[1]
    log = parse_log(document)
    found = log.gpus[0].processes
    assert (found if found is None else [tuple(process.values()) for process in found]) == processes
    assert log.gpus[0].errors == errors
    assert not log.verdicts[0].lost


def test_without_the_element_nobody_could_tell_the_processes() -> None:
    assert first_gpu(HEALTHY).processes is None


def test_a_process_whose_name_is_not_utf_8_hides_nothing() -> None:
    process = "<processes><process_info><pid>7</pid><process_name>\udcff\x01</process_name></process_info></processes>"
    gpu = parse_log(
        cut_document(render(changed(processes="HERE")).replace("<processes>HERE</processes>", process))[1]
    ).gpus[0]
    assert gpu.memory_total_mib == 81559
    assert [process["name"] for process in gpu.processes or []] == ["\ufffd\ufffd"]
    json.dumps(asdict(gpu)).encode()


def test_a_number_with_thousands_of_digits_is_an_error_of_its_field() -> None:
    digits = "9" * 5000
    log = parse_log(
        cut_document(render(changed(pci__replay_counter=digits), head={**HEAD, "attached_gpus": digits}))[1]
    )
    assert log.gpus[0].errors == {"pcie_replay_count": digits}
    assert log.attached_gpus is None


def test_damage_in_the_list_of_clocks_never_swallows_a_gpu() -> None:
    clocks = "<supported_clocks><value>2619 MHz</value></supported_clocks>"
    whole = cut_document(render(HEALTHY, HEALTHY).replace("<persistence_mode>", clocks + "<persistence_mode>"))[1]
    assert len(parse_log(whole).gpus) == 2
    start, end = "<supported_clocks>", "</supported_clocks>"
    no_end = whole.replace(end, "#", 1)
    for damaged in (whole.replace(start, "#", 1), no_end, "#".join(no_end.rsplit(start, 1))):
        with pytest.raises(NvidiaSmiXmlError):
            parse_log(damaged)


def is_typed(value: Any, annotation: str) -> bool:
    """Whether a value is what the record says; the annotations are texts."""
    for form in annotation.split(" | "):
        name, _bracket, inside = form.partition("[")
        if name == "None" and value is None:
            return True
        if name in ("str", "int", "float", "bool") and type(value).__name__ == name:
            return True
        if name == "list" and isinstance(value, list):
            return all(is_typed(item, inside[:-1]) for item in value)
    if annotation.startswith("dict[str, ") and isinstance(value, dict):
        inside = annotation.removesuffix(" | None")[len("dict[str, ") : -1]
        return inside == "Any" or all(is_typed(item, inside) for item in value.values())
    return annotation == "Any"


def assert_typed(gpus: Iterable[Gpu]) -> None:
    keys = {item.name: str(item.type) for item in fields(Gpu)}
    for gpu in gpus:
        for key, annotation in keys.items():
            assert is_typed(getattr(gpu, key), annotation), (key, getattr(gpu, key))
        assert set(gpu.errors) <= set(keys)


FLIPPED = ["k80x2-384", "a100x4-535", "l40sx2-595"]


@settings(deadline=None)
@given(
    st.sampled_from(FLIPPED),
    st.lists(st.tuples(st.integers(0, 200_000), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_flipped_bytes_are_refused_or_give_typed_values(machine: str, flips: list[tuple[int, int]]) -> None:
    data = bytearray(simulated(machine).encode())
    for position, value in flips:
        data[position % len(data)] = value
    try:
        log = parse_log(cut_document(data.decode(errors="surrogateescape"))[1])
    except NvidiaSmiXmlError:
        return
    assert_typed(log.gpus)


@pytest.mark.parametrize("machine", MACHINES)
def test_every_machine_of_the_lab_is_read(machine: str) -> None:
    around, document = cut_document(simulated(machine))
    log = parse_log(document)
    model = json.loads((SIMULATOR / "machines" / f"{machine}.json").read_text())
    card = model["gpu"]
    assert around == ""
    assert (log.driver_version, len(log.gpus)) == (model["driver"], sum(len(n["gpus"]) for n in model["numa_nodes"]))
    for gpu, verdict in zip(log.gpus, log.verdicts):
        assert gpu.name == f"{card['name']} (simulated)"
        assert (gpu.memory_total_mib, gpu.vbios_version) == (card["memory_mib"]["total"], card["vbios"])
        assert (gpu.power_limit_w, gpu.power_limit_max_w) == (card["power_w"]["limit"], card["power_w"]["max"])
        assert (gpu.clock_sm_max_mhz, gpu.clock_memory_mhz) == (
            card["clocks_mhz"]["max_graphics"],
            card["clocks_mhz"]["memory"],
        )
        assert (gpu.pcie_link_gen_max, gpu.pcie_link_width_max) == (card["pcie"]["generation"], card["pcie"]["width"])
        assert (gpu.retired_pages is not None) == card["page_retirement"]
        assert gpu.throttle_reasons is not None
        assert (gpu.errors, verdict.lost, verdict.recovery_action) == ({}, False, "")
    assert_typed(log.gpus)


def test_a_document_of_eight_gpus_is_read_at_once() -> None:
    # Some 4 ms: what this notices is a search that grows with the square of the document.
    document = cut_document(simulated("h100x8-570"))[1]
    began = time.process_time()
    parse_log(document)
    assert time.process_time() - began < 0.05


# Independent of the parser's tables: an XPath (or several, the first that is known) for each key.
NUMBERS = {
    "memory_total_mib": ("fb_memory_usage/total",),
    "memory_used_mib": ("fb_memory_usage/used",),
    "memory_free_mib": ("fb_memory_usage/free",),
    "memory_reserved_mib": ("fb_memory_usage/reserved",),
    "utilization_gpu_percent": ("utilization/gpu_util",),
    "utilization_memory_percent": ("utilization/memory_util",),
    "temperature_gpu_c": ("temperature/gpu_temp",),
    "temperature_memory_c": ("temperature/memory_temp",),
    "temperature_slowdown_c": ("temperature/gpu_temp_slow_threshold",),
    "temperature_shutdown_c": ("temperature/gpu_temp_max_threshold",),
    "temperature_margin_c": ("temperature/gpu_temp_tlimit",),
    "power_draw_w": ("*/power_draw", "gpu_power_readings/average_power_draw", "gpu_power_readings/instant_power_draw"),
    "power_limit_w": ("gpu_power_readings/current_power_limit", "power_readings/enforced_power_limit"),
    "power_limit_default_w": ("gpu_power_readings/default_power_limit", "power_readings/default_power_limit"),
    "power_limit_max_w": ("gpu_power_readings/max_power_limit", "power_readings/max_power_limit"),
    "clock_graphics_mhz": ("clocks/graphics_clock",),
    "clock_sm_mhz": ("clocks/sm_clock",),
    "clock_memory_mhz": ("clocks/mem_clock",),
    "clock_graphics_max_mhz": ("max_clocks/graphics_clock",),
    "clock_sm_max_mhz": ("max_clocks/sm_clock",),
    "clock_memory_max_mhz": ("max_clocks/mem_clock",),
    "pcie_link_gen_current": (".//current_link_gen",),
    "pcie_link_gen_max": (".//max_link_gen",),
    "pcie_link_width_current": (".//current_link_width",),
    "pcie_link_width_max": (".//max_link_width",),
    "pcie_replay_count": ("pci/replay_counter",),
}
FLAGS = {
    "persistence_mode": "persistence_mode",
    "ecc_mode_current": "ecc_mode/current_ecc",
    "ecc_mode_pending": "ecc_mode/pending_ecc",
    "mig_mode_current": "mig_mode/current_mig",
    "mig_mode_pending": "mig_mode/pending_mig",
    "ecc_sram_threshold_exceeded": "ecc_errors/aggregate/sram_threshold_exceeded",
}
TEXTS = {
    "uuid": "uuid",
    "serial": "serial",
    "name": "product_name",
    "architecture": "product_architecture",
    "vbios_version": "vbios_version",
    "performance_state": "performance_state",
    "compute_mode": "compute_mode",
}
FLAG_TEXTS = {"Enabled": True, "Disabled": False, "Yes": True, "No": False}


def number(gpu: ET.Element, *paths: str) -> float | None:
    for path in paths:
        match = re.match(r"-?[0-9.]+", gpu.findtext(path) or "")
        if match:
            return float(match[0])
    return None


def summed(gpu: ET.Element, period: str, *words: str) -> float | None:
    counters = [item for item in gpu.iterfind(f"ecc_errors/{period}/*") if any(word in item.tag for word in words)]
    texts = [(item.findtext("total") if len(item) else item.text) or "" for item in counters]
    return None if not any(text.isdigit() for text in texts) else sum(int(text) for text in texts if text.isdigit())


@NO_CORPUS
def test_every_recorded_document_is_read_as_xpath_reads_it() -> None:
    paths = sorted(CORPUS.rglob("*.xml"))
    assert len(paths) >= 50
    known = set()
    for path in paths:
        document = cut_document(path.read_text(errors="replace"))[1]
        log = parse_log(document)
        assert_typed(log.gpus)
        for gpu, element in zip(log.gpus, ET.fromstring(document).findall("gpu"), strict=True):
            lost = "GPU is lost" in ET.tostring(element, encoding="unicode")
            expected: dict[str, Any] = {key: number(element, *paths) for key, paths in NUMBERS.items()}
            expected |= {key: FLAG_TEXTS.get(element.findtext(path) or "") for key, path in FLAGS.items()}
            texts = {key: element.findtext(path) for key, path in TEXTS.items()}
            expected |= {key: None if text in ("N/A", "Unknown") else text for key, text in texts.items()}
            active = [item.tag.split("_reason_")[1] for item in element.iter() if item.text == "Active"]
            for period in () if lost else ("volatile", "aggregate"):
                corrected = summed(element, period, "_correctable", "single_bit")
                uncorrected = summed(element, period, "_uncorrectable", "double_bit")
                expected[f"ecc_errors_{period}"] = (
                    None if corrected is None else {"corrected": corrected, "uncorrected": uncorrected}
                )
            rows = {name: element.findtext(f"remapped_rows/remapped_row_{name}") for name in ("corr", "failure")}
            assert {key: getattr(gpu, key) for key in expected} == expected, path
            assert sorted(gpu.throttle_reasons or []) == sorted(active), path
            if rows["corr"] and rows["corr"].isdigit():
                assert gpu.remapped_rows, path
                assert gpu.remapped_rows["correctable"] == int(rows["corr"]), path
                assert gpu.remapped_rows["failure"] == (rows["failure"] == "Yes"), path
            else:
                assert gpu.remapped_rows is None, path
            pids = [int(item.text or "") for item in element.iterfind("processes/process_info/pid")]
            assert [process["pid"] for process in gpu.processes or []] == pids, path
            assert len(gpu.mig_devices) == len(element.findall("mig_devices/mig_device")), path
            assert gpu.bus_id == (element.get("id") or "").lower()[-12:], path
            assert bool(gpu.errors) == lost, (path, gpu.errors)
            known |= {key for key, value in asdict(gpu).items() if value not in (None, [], {})}
    assert known >= set(expected) | {"throttle_reasons", "retired_pages", "remapped_rows", "fabric", "processes"}
