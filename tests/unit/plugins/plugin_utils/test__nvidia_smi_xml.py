# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import pytest
from ansible_collections.gpuops.fleet.plugins.plugin_utils._nvidia_smi_xml import (
    NvidiaSmiXmlError,
    cut_document,
    parse_log,
)
from hypothesis import given
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


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4))
def test_flipped_bytes_are_refused_or_give_typed_values(flips: list[tuple[int, int]]) -> None:
    data = bytearray(render(HEALTHY).encode())
    for position, value in flips:
        data[position % len(data)] = value
    try:
        log = parse_log(cut_document(data.decode(errors="replace"))[1])
    except NvidiaSmiXmlError:
        return
    for gpu in log.gpus:
        for key in ("memory_total_mib", "memory_used_mib", "utilization_gpu_percent", "pcie_link_width_current"):
            assert isinstance(getattr(gpu, key), (int, type(None)))
        assert isinstance(gpu.power_draw_w, (float, type(None)))
