# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The simulated nvidia-smi of the lab, called as a node calls it: by a symbolic link on PATH."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from gpu_data import CORPUS, MACHINES, SHARED, SIMULATOR

REFERENCE = SHARED / "reference"
RECORDED = CORPUS / "recorded_real_nvidia_smi_here"
LOST = (
    "Unable to determine the device handle for GPU0000:02:00.0: "
    "GPU is lost.  Reboot the system to recover this GPU\n\n\n"
)
UNREADABLE = "No devices were found. Please make sure /dev/nvidia* files are readable by current user.\n"

# What real documents have or lack because of the hardware, not of the driver; seen in documents of real nodes.
BY_HARDWARE = (
    # degrees of margin (tlimit) on Ada and Hopper, absolute degrees on all others
    *(f"gpu/temperature/gpu_temp_{name}_threshold" for name in ("max", "slow", "max_gpu", "max_mem")),
    *(f"gpu/temperature/gpu_temp_{name}_tlimit_threshold" for name in ("max", "slow", "max_gpu", "max_mem")),
    # the text N/A on GPUs without a row remapper
    "gpu/remapped_rows/",
    # counted by place up to Volta, by SRAM and DRAM since Turing, with two kinds of SRAM errors since Ampere
    "gpu/ecc_errors/volatile/",
    "gpu/ecc_errors/aggregate/",
    "gpu/ecc_errors/aggregate_uncorrectable_sram_sources",
)

# Lists of what can be chosen and of what runs: they differ from node to node.
LISTS = ("supported_clocks/", "processes/", "accounted_processes/", "mig_devices/")


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a node: the simulator and a link to it."""
    root = tmp_path_factory.mktemp("node")
    shutil.copytree(SIMULATOR, root / "simulator", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "bin").mkdir()
    (root / "bin" / "nvidia-smi").symlink_to(root / "simulator" / "nvidia_smi.py")
    return root


def call(node: Path, machine: str, *arguments: str, fault: str = "") -> subprocess.CompletedProcess[str]:
    """Run nvidia-smi on a node."""
    return subprocess.run(
        [sys.executable, "-B", str(node / "bin" / "nvidia-smi"), *arguments],
        env={"GPUOPS_SIM_MACHINE": machine, "GPUOPS_SIM_FAULT": fault, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def with_driver(node: Path, machine: str, driver: str) -> str:
    """The same machine type with another driver; its name."""
    data = json.loads((node / "simulator" / "machines" / f"{machine}.json").read_text())
    name = f"{machine}-{driver}"
    (node / "simulator" / "machines" / f"{name}.json").write_text(json.dumps({**data, "driver": driver}))
    return name


def document(node: Path, machine: str, *, fault: str = "") -> ET.Element:
    """The XML of a machine."""
    answer = call(node, machine, "-q", "-x", fault=fault)
    return ET.fromstring(answer.stdout[answer.stdout.index("<?xml") :])


def paths_of(element: ET.Element, above: str = "") -> set[str]:
    """The paths of all elements below one, but for those in lists."""
    found: set[str] = set()
    for child in element:
        found |= {above + child.tag} | paths_of(child, f"{above}{child.tag}/")
    return {path for path in found if not path.removeprefix("gpu/").startswith(LISTS)}


@pytest.mark.parametrize("machine", MACHINES)
def test_answers_as_a_healthy_node(node: Path, machine: str) -> None:
    data = json.loads((SIMULATOR / "machines" / f"{machine}.json").read_text())
    name = data["gpu"]["name"] + " (simulated)"
    count = sum(len(entry["gpus"]) for entry in data["numa_nodes"])

    root = document(node, machine)
    assert [gpu.findtext("product_name") for gpu in root.iter("gpu")] == [name] * count
    assert root.findtext("attached_gpus") == str(count)
    assert root.findtext("driver_version") == data["driver"]
    assert len({gpu.findtext("uuid") for gpu in root.iter("gpu")}) == count
    raw = call(node, machine, "--xml-format", "--query").stdout
    assert "<!-- simulated by the gpuops.fleet lab -->\n<nvidia_smi_log>" in raw

    listed = call(node, machine, "-L").stdout.splitlines()
    uuids = [gpu.findtext("uuid") for gpu in root.iter("gpu")]
    assert [line for line in listed if not line.startswith("  MIG ")] == [
        f"GPU {index}: {name} (UUID: {uuid})" for index, uuid in enumerate(uuids)
    ]

    table = call(node, machine).stdout
    # Long names are cut where the real program cuts them, but the word stays.
    assert len(re.findall(re.escape(data["gpu"]["name"][:15]) + r".*\(simulated\)", table)) == count
    assert len({len(line) for line in table.splitlines() if line and line[0] in "|+"}) == 1
    assert table.endswith("simulated by the gpuops.fleet lab\n")

    matrix = call(node, machine, "topo", "-m").stdout
    assert matrix.count("\t X \t") == count + sum(len(entry.get("nics", [])) for entry in data["numa_nodes"])
    assert matrix.endswith("simulated by the gpuops.fleet lab\n")

    rows = call(node, machine, "--query-gpu=index,gpu_name,uuid,memory.total", "--format=csv,noheader,nounits").stdout
    expected = [f"{index}, {name}, {uuid}, {data['gpu']['memory_mib']['total']}" for index, uuid in enumerate(uuids)]
    assert rows.splitlines() == expected
    assert not call(node, machine).stderr


def test_identity_is_the_same_on_every_call(node: Path) -> None:
    assert call(node, "h100x8-570", "-L").stdout == call(node, "h100x8-570", "-L").stdout


# --- the elements of the XML ------------------------------------------------------------------------------------------


def columns_of_real_binaries() -> list[str]:
    """The driver versions whose elements were recorded."""
    table = REFERENCE / "xml_schema_by_real_binary.csv"
    if not table.exists():
        return []
    with table.open(encoding="utf-8") as lines:
        return next(csv.reader(lines))[1:]


@pytest.mark.skipif(not columns_of_real_binaries(), reason="needs ../shared/reference/xml_schema_by_real_binary.csv")
@pytest.mark.parametrize("machine", ["a100x4-535", "rtx4090x2-550", "v100x1-418"])
@pytest.mark.parametrize("driver", columns_of_real_binaries())
def test_writes_the_elements_of_the_real_program(node: Path, machine: str, driver: str) -> None:
    with (REFERENCE / "xml_schema_by_real_binary.csv").open(encoding="utf-8") as lines:
        real = {row["element"] for row in csv.DictReader(lines) if row[driver] == "Y"}
    ours = paths_of(document(node, with_driver(node, machine, driver)))
    assert {path for path in real ^ ours if not path.startswith(BY_HARDWARE)} == set()


@pytest.mark.skipif(not (REFERENCE / "xml_schema_matrix.txt").exists(), reason="needs ../shared/reference")
@pytest.mark.parametrize("machine", MACHINES)
def test_writes_no_element_that_was_never_seen(node: Path, machine: str) -> None:
    lines = (REFERENCE / "xml_schema_matrix.txt").read_text().splitlines()
    seen = {line.partition(" | ")[0] for line in lines}
    with (REFERENCE / "xml_schema_by_real_binary.csv").open(encoding="utf-8") as table:
        seen |= {row["element"] for row in csv.DictReader(table)}
    # No XML of 610 is public; these two follow the names of its other outputs.
    seen |= {"kmd_version", "cuda_umd_version"}
    assert paths_of(document(node, machine)) - seen == set()


@pytest.mark.parametrize(
    ("machine", "real"),
    [
        ("h100x8-580.105.08", "NVIDIA+k8s-test-infra/**/hardware/qx-h100.xml"),
        ("a100x4-570.148.08", "NVIDIA+k8s-test-infra/**/hardware/qx-a100.xml"),
        ("t4x1-595.91.07", "NVIDIA+k8s-test-infra/**/hardware/qx-t4.xml"),
        ("k80x2-384.66", "microsoft+pai/**/nvidia_smi_sample.xml"),
    ],
)
def test_writes_the_elements_of_a_real_node(node: Path, machine: str, real: str) -> None:
    found = list(CORPUS.glob(real))
    if not found:
        pytest.skip("needs ../shared/corpus/gpu")
    kind, driver = machine.split("-")
    full = next(name for name in MACHINES if name.startswith(kind + "-"))
    gpu = ET.parse(found[0]).getroot().find("gpu")
    assert gpu is not None
    ours = document(node, with_driver(node, full, driver)).find("gpu")
    assert ours is not None
    assert paths_of(ours) == paths_of(gpu)


POWER = "gpu_power_readings"
ECC = "ecc_errors/volatile"
CELSIUS = "temperature/gpu_temp"


@pytest.mark.parametrize(
    ("machine", "driver", "present", "absent"),
    [
        ("a100x4-535", "470.256.02", "power_readings/enforced_power_limit", POWER),
        ("a100x4-535", "535.261.03", f"{POWER}/power_draw", f"{POWER}/average_power_draw"),
        ("a100x4-535", "535.261.03", f"{POWER}/current_power_limit", "power_readings"),
        ("a100x4-535", "550.163.01", f"{POWER}/average_power_draw", f"{POWER}/power_draw"),
        ("a100x4-535", "555.58.02", f"{POWER}/power_draw", f"{POWER}/instant_power_draw"),
        ("a100x4-535", "570.148.08", f"{POWER}/instant_power_draw", f"{POWER}/power_draw"),
        ("a100x4-535", "525.147.05", "clocks_throttle_reasons/clocks_throttle_reason_gpu_idle", "clocks_event_reasons"),
        ("a100x4-535", "535.54.03", "clocks_event_reasons/clocks_event_reason_gpu_idle", "clocks_throttle_reasons"),
        ("a100x4-535", "570.148.08", "clocks_event_reasons", "clocks_event_reasons_counters"),
        ("a100x4-535", "575.57.08", "clocks_event_reasons_counters", "clocks_throttle_reasons"),
        (
            "a100x4-535",
            "535.54.03",
            f"{ECC}/sram_uncorrectable",
            f"{ECC}/sram_uncorrectable_parity",
        ),
        (
            "a100x4-535",
            "535.261.03",
            f"{ECC}/sram_uncorrectable_secded",
            f"{ECC}/sram_uncorrectable",
        ),
        (
            "t4x1-470",
            "595.91.07",
            f"{ECC}/sram_uncorrectable",
            f"{ECC}/sram_uncorrectable_parity",
        ),
        ("v100x1-418", "470.256.02", f"{ECC}/double_bit/total", f"{ECC}/sram_correctable"),
        ("h100x8-570", "580.105.08", "remapped_rows/remapped_row_corr", "remapped_rows/remapped_row_corr_inactive"),
        ("h100x8-570", "580.173.02", "remapped_rows/remapped_row_corr_inactive", "gpu_reset_status"),
        ("h100x8-570", "550.163.01", "gpu_reset_status/reset_required", "gpu_recovery_action"),
        ("h100x8-570", "570.148.08", "gpu_recovery_action", "pdi"),
        (
            "h100x8-570",
            "570.148.08",
            f"{CELSIUS}_slow_tlimit_threshold",
            f"{CELSIUS}_slow_threshold",
        ),
        (
            "a100x4-535",
            "570.148.08",
            f"{CELSIUS}_slow_threshold",
            f"{CELSIUS}_slow_tlimit_threshold",
        ),
        ("t4x1-470", "470.256.02", "voltage", "product_architecture"),
        ("t4x1-470", "525.147.05", "fb_memory_usage/reserved", "addressing_mode"),
    ],
)
def test_elements_come_and_go_with_the_driver(node: Path, machine: str, driver: str, present: str, absent: str) -> None:
    gpu = document(node, with_driver(node, machine, driver)).find("gpu")
    assert gpu is not None
    assert gpu.find(present) is not None
    assert gpu.find(absent) is None


@pytest.mark.parametrize(
    ("driver", "doctype"),
    [
        ("384.183", "v9"),
        ("390.157", "v9"),
        ("418.226.00", ""),
        ("440.44", "v10"),
        ("470.256.02", "v11"),
        ("570.148.08", "v12"),
        ("595.91.07", "v13"),
    ],
)
def test_doctype_follows_the_driver(node: Path, driver: str, doctype: str) -> None:
    text = call(node, with_driver(node, "t4x1-470", driver), "-q", "-x").stdout
    assert re.findall(r"nvsmi_device_(v\d+)\.dtd", text) == ([doctype] if doctype else [])


@pytest.mark.parametrize(
    ("machine", "path", "text"),
    [
        ("rtx4090x2-550", "remapped_rows", "N/A"),
        ("rtx4090x2-550", "serial", "N/A"),
        ("rtx4090x2-550", "ecc_errors/volatile/dram_uncorrectable", "N/A"),
        ("rtx4090x2-550", "temperature/memory_temp", "N/A"),
        ("k80x2-384", "product_brand", "Tesla"),
        ("t4x1-470", "product_brand", "NVIDIA"),
        ("h100x8-570", "gpu_reset_status/reset_required", "Requested functionality has been deprecated"),
        ("l40sx2-595", "applications_clocks/graphics_clock", "Requested functionality has been deprecated"),
        ("l40sx2-595", "display_mode", "Requested functionality has been deprecated"),
        ("h100x8-570", "fb_memory_usage/total", "81559 MiB"),
        ("h100x8-570", "fabric/state", "Completed"),
        ("h100x8-570", "mig_devices", "None"),
        ("h100x8-570", "remapped_rows/row_remapper_histogram/row_remapper_histogram_max", "2560 bank(s)"),
        ("t4x1-470", "pci/pci_gpu_link_info/link_widths/current_link_width", "8x"),
    ],
)
def test_values(node: Path, machine: str, path: str, text: str) -> None:
    assert (document(node, machine).findtext(f"gpu/{path}") or "").strip() == text


# --- texts and CSV ----------------------------------------------------------------------------------------------------


def test_driver_610_wording(node: Path) -> None:
    machine = "rtx2080x1-610"
    table = re.sub(" +", " ", call(node, machine).stdout)
    assert "| NVIDIA-SMI 610.57.04 KMD Version: 610.57.04 CUDA UMD Version: 13.3 |" in table
    assert call(node, machine, "--version").stdout == (
        "NVIDIA-SMI version  : 610.57.04\n"
        "NVML version        : 610.57\n"
        'DRIVER version      : Deprecated, see "KMD version" instead\n'
        'CUDA version        : Deprecated, see "CUDA UMD version" instead\n'
        "KMD version         : 610.57.04\n"
        "CUDA UMD version    : 13.3\n"
    )
    rows = call(node, machine, "--query-gpu=kmd_version,driver_version", "--format=csv").stdout
    assert rows == "kmd_version, driver_version\n610.57.04, 610.57.04\n"


@pytest.mark.parametrize(
    ("machine", "real"),
    [("h100x8-590.48.01", "nvidia-h100-80gb-hbm3__590.48.01"), ("l40sx2-595.80", "nvidia-l40s__595.80")],
)
def test_table_has_the_lines_of_the_real_one(node: Path, machine: str, real: str) -> None:
    split = CORPUS / "utkuozdemir+nvidia_gpu_exporter" / "split"
    recorded = split / f"linux-x86_64__{real}.idle_nvidia_smi_default_table.txt"
    if not recorded.exists():
        pytest.skip("needs ../shared/corpus/gpu")
    kind, driver = machine.split("-")
    full = next(name for name in MACHINES if name.startswith(kind + "-"))
    ours = call(node, with_driver(node, full, driver)).stdout

    def heads(text: str) -> list[str]:
        return [re.sub("([-= ])+", r"\1", line) for line in text.splitlines() if not re.search(r"\d", line)]

    assert set(heads(recorded.read_text())) <= set(heads(ours))


@pytest.mark.parametrize(
    ("columns", "words", "row"),
    [
        ("power.draw,utilization.gpu", "csv,noheader", "18.35 W, 0 %"),
        ("power.draw,utilization.gpu", "csv,noheader,nounits", "18.35, 0"),
        ("serial,temperature.memory", "csv,noheader", "[N/A], N/A"),
        ("pci.bus_id,pci.device_id,pcie.link.width.current", "csv,noheader", "00000000:01:00.0, 0x268410DE, 16"),
        ("temperature.gpu,pstate,compute_cap", "csv,noheader", "34, P8, 8.9"),
        ("ecc.mode.current,mig.mode.current,persistence_mode", "csv,noheader", "Disabled, [N/A], Disabled"),
        ("clocks.gr", "csv", "clocks.current.graphics [MHz]"),
    ],
)
def test_csv(node: Path, columns: str, words: str, row: str) -> None:
    answer = call(node, "rtx4090x2-550", f"--query-gpu={columns}", f"--format={words}")
    assert answer.stdout.splitlines()[0] == row


@pytest.mark.parametrize(
    ("machine", "arguments", "text"),
    [
        (
            "h100x8-570",
            ("--query-gpu=name,foo", "--format=csv"),
            'Field "foo" is not a valid field to query.\n',
        ),
        (
            "t4x1-470",
            ("--query-gpu=compute_cap", "--format=csv"),
            'Field "compute_cap" is not a valid field',
        ),
        ("h100x8-570", ("--query-gpu=name",), "Invalid combination of input arguments."),
        ("h100x8-570", ("--nonsense",), "Invalid combination of input arguments."),
        ("h100x8-570", ("-x",), "Invalid combination of input arguments."),
    ],
)
def test_bad_arguments(node: Path, machine: str, arguments: tuple[str, ...], text: str) -> None:
    answer = call(node, machine, *arguments)
    assert answer.returncode == 2
    assert answer.stdout.startswith(text)


@pytest.mark.parametrize(
    ("machine", "fault", "hint"),
    [
        ("", "", "set GPUOPS_SIM_MACHINE"),
        ("dgx", "", "machine 'dgx' is not known; choose one of: a100x2-mig-550"),
        ("t4x1-470", "sick", "fault 'sick' is not known; choose one of: no_library"),
        ("t4x1-470", "gpu_lost_query", "write it as gpu_lost_query:GPU"),
        ("t4x1-470", "gpu_lost_query:1", "t4x1-470 has GPU 0 to 0"),
        ("t4x1-470", "handle_error:0:7", "CODE is one of 4, 8, 11, 15, 16, 17, 999"),
        ("t4x1-470", "slow:soon", "needs numbers; write it as slow:SECONDS"),
        ("t4x1-470", "xid:0:7", "XID is one of 13, 31"),
        ("t4x1-470", "remap_pending:0", "t4x1-470 has no such reading; choose another machine"),
        ("t4x1-470", "nvlink_down:0", "t4x1-470 has no NVLink that nvidia-smi shows"),
        ("t4x1-470", "recovery_action:0", "t4x1-470 has no such reading"),
        ("h100x8-570", "xid_mig:0", "h100x8-570 has no MIG parts"),
    ],
)
def test_unknown_settings_are_one_clear_line(node: Path, machine: str, fault: str, hint: str) -> None:
    answer = call(node, machine, fault=fault)
    assert answer.returncode == 64
    assert answer.stdout == ""
    assert hint in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_mig_parts_have_names_and_memory(node: Path) -> None:
    gpu = next(document(node, "a100x2-mig-550").iter("gpu"))
    parts = [
        (part.findtext("gpu_instance_id"), part.findtext("compute_instance_id"), part.findtext("fb_memory_usage/total"))
        for part in gpu.iter("mig_device")
    ]
    assert parts == [("2", "0", "40192 MiB"), ("9", "0", "9728 MiB")]
    # As on a real divided H100 and A100.
    assert gpu.findtext("mig_mode/current_mig") == "Enabled"
    assert gpu.findtext("remapped_rows") == "N/A"
    assert gpu.findtext("utilization/gpu_util") == "N/A"
    listed = call(node, "a100x2-mig-550", "-L").stdout.splitlines()
    assert [line[: line.index("(UUID")] for line in listed[1:3]] == [
        "  MIG 3g.40gb     Device  0: ",
        "  MIG 1g.10gb     Device  1: ",
    ]
    assert len(set(re.findall(r"MIG-[-0-9a-f]{36}", "".join(listed)))) == 4


@pytest.mark.parametrize(
    ("machine", "fault", "second_line"),
    [
        ("h100x8-570", "", "\t Link 0: 26.562 GB/s"),
        ("a100x4-535", "", "\t Link 0: 25 GB/s"),
        ("a100x4-535", "nvlink_down:0", "\t Link 0: <inactive>"),
        ("l40sx2-595", "", "Device does not have or support Nvlink"),
        ("a100x2-mig-550", "", "Nvlink queries are not supported for Devices in MIG mode"),
    ],
)
def test_nvlinks(node: Path, machine: str, fault: str, second_line: str) -> None:
    lines = call(node, machine, "nvlink", "-s", fault=fault).stdout.splitlines()
    assert lines[0].startswith("GPU 0: NVIDIA ")
    assert lines[1] == second_line
    assert lines.count("\t Link 0: <inactive>") == bool(fault)


def test_topology_has_the_network_adapters(node: Path) -> None:
    def rows(machine: str) -> dict[str, list[str]]:
        lines = call(node, machine, "topo", "-m").stdout.replace("\x1b[4m", "").replace("\x1b[0m", "").splitlines()
        return {line.split("\t")[0]: line.split("\t")[1:] for line in lines if "\t" in line}

    h100 = rows("h100x8-570")
    place = dict(zip(h100[""], h100["GPU0"]))
    assert [place[name] for name in ("GPU0", "GPU7", "NIC0", "NIC1", "NIC5")] == [" X ", "NV18", "PIX", "NODE", "SYS"]
    assert "\n  NIC8: mlx5_8\n" in call(node, "h100x8-570", "topo", "-m").stdout
    # Without the newer drivers' legend the columns have the names.
    assert "mlx5_0" in rows(with_driver(node, "a100x4-535", "470.256.02"))[""]


@pytest.mark.parametrize("machine", ["h100x8-570", "rtx4090x2-550", "a100x2-mig-550", "k80x2-384"])
def test_busy_is_hot_fast_and_at_its_power_limit_but_not_slowed(node: Path, machine: str) -> None:
    gpu = next(document(node, machine, fault="busy").iter("gpu"))
    reasons = {element.tag.partition("_reason_")[2] for element in gpu.iter() if element.text == "Active"}
    assert reasons == {"sw_power_cap"}
    assert gpu.findtext("performance_state") == "P0"
    assert gpu.findtext("clocks/sm_clock") == gpu.findtext("max_clocks/sm_clock")
    assert gpu.findtext("processes/process_info/process_name") == "python3 (simulated)"
    divided = machine == "a100x2-mig-550"
    assert gpu.findtext("utilization/gpu_util") == ("N/A" if divided else "98 %")
    instance = {"a100x2-mig-550": "2", "k80x2-384": None}.get(machine, "N/A")
    assert gpu.findtext("processes/process_info/gpu_instance_id") == instance
    table = call(node, machine, fault="busy").stdout
    assert re.search(r"\|    0 .* 4242      C   python3 \(simulated\) +\d+MiB \|\n", table)
    assert len({len(line) for line in table.splitlines() if line and line[0] in "|+"}) == 1


# --- faults -----------------------------------------------------------------------------------------------------------

RECORDED_CASES = [
    ("no-library", "no_library", ()),
    ("real-lib-no-driver", "no_driver", ()),
    ("init-18", "mismatch", ("-q", "-x")),
    ("init-4", "no_permission", ("-L",)),
    ("init-16", "reset_required", ()),
    ("init-999", "unknown_error", ()),
    ("smi-nvml-mismatch", "smi_nvml_version", ()),
    ("count-0", "no_devices", ("-q", "-x")),
    ("countL-0", "no_devices", ("-L",)),
    ("handle-4", "dev_unreadable", ()),
    ("handleL-4", "dev_unreadable", ("-L",)),
    ("handle-15", "gpu_lost_handle:0", ("-q", "-x")),
    ("handleCSV-15", "gpu_lost_handle:0", ("--query-gpu=name", "--format=csv")),
    *((f"handle-{code}", f"handle_error:0:{code}", ("-q", "-x")) for code in (4, 8, 11, 16, 17, 999)),
]


@pytest.mark.parametrize("driver", ["390.157", "450.248.02", "535.261.03", "555.58.02"])
@pytest.mark.parametrize(("case", "fault", "arguments"), RECORDED_CASES)
def test_fails_with_the_words_of_the_real_program(
    node: Path, driver: str, case: str, fault: str, arguments: tuple[str, ...]
) -> None:
    recorded = RECORDED / f"{driver}.{case}"
    if not recorded.with_name(f"{recorded.name}.stdout").exists():
        pytest.skip("needs ../shared/corpus/gpu/recorded_real_nvidia_smi_here")
    answer = call(node, with_driver(node, "k80x2-384", driver), *arguments, fault=fault)
    # The recording has no PCI bus behind it and says the index instead of the bus id.
    assert answer.stdout.replace("0000:05:00.0", "0") == recorded.with_name(f"{recorded.name}.stdout").read_text()
    assert answer.returncode == int(recorded.with_name(f"{recorded.name}.rc").read_text())
    assert answer.stderr == ""


@pytest.mark.parametrize("driver", ["390.157", "450.248.02", "535.261.03", "555.58.02"])
@pytest.mark.parametrize("code", [8, 11, 15, 16, 17, 999])
def test_list_names_the_bad_gpu_and_the_others(node: Path, driver: str, code: int) -> None:
    recorded = RECORDED / f"{driver}.handleL-{code}.stdout"
    if not recorded.exists():
        pytest.skip("needs ../shared/corpus/gpu/recorded_real_nvidia_smi_here")
    machine = with_driver(node, "k80x2-384", driver)
    answer = call(node, machine, "-L", fault=f"handle_error:1:{code}")
    healthy = call(node, machine, "-L").stdout.splitlines(keepends=True)[0]
    of_the_second = recorded.read_text()[recorded.read_text().rindex("Unable to determine") :]
    assert answer.stdout == healthy + of_the_second
    assert answer.returncode == int(recorded.with_suffix(".rc").read_text())


@pytest.mark.parametrize(
    ("machine", "fault", "arguments", "code", "text"),
    [
        ("rtx4090x2-550", "gpu_lost_handle:1", ("-q", "-x"), 15, LOST),
        ("rtx4090x2-550", "gpu_lost_handle:1", ("--query-gpu=name", "--format=csv"), 15, LOST),
        ("rtx4090x2-550", "dev_unreadable", ("-q", "-x"), 4, UNREADABLE),
        ("rtx4090x2-550", "no_devices", ("-L",), 0, "No devices found.\n"),
    ],
)
def test_failures_in_place_of_an_answer(
    node: Path, machine: str, fault: str, arguments: tuple[str, ...], code: int, text: str
) -> None:
    answer = call(node, machine, *arguments, fault=fault)
    assert (answer.returncode, answer.stdout) == (code, text)


def test_driver_610_goes_on_with_the_other_gpus(node: Path) -> None:
    machine = with_driver(node, "rtx4090x2-550", "610.57.04")
    text = call(node, machine, "-q", "-x", fault="gpu_lost_handle:1").stdout
    assert text.startswith(LOST + "<?xml")
    root = document(node, machine, fault="gpu_lost_handle:1")
    assert [gpu.get("id") for gpu in root.iter("gpu")] == ["00000000:01:00.0"]
    assert root.findtext("attached_gpus") == "2"


def test_gpu_lost_while_queried(node: Path) -> None:
    fault = "gpu_lost_query:2"
    assert call(node, "h100x8-570", "-q", "-x", fault=fault).returncode == 0
    gpus = list(document(node, "h100x8-570", fault=fault).iter("gpu"))
    lost = [element.tag for element in gpus[2].iter() if element.text == "GPU is lost"]
    assert 20 <= len(lost) <= 35
    assert gpus[2].findtext("remapped_rows") == "GPU is lost"
    assert gpus[2].findtext("product_name") == gpus[1].findtext("product_name")
    assert "GPU is lost" not in ET.tostring(gpus[1], encoding="unicode")
    row = call(node, "h100x8-570", "--query-gpu=index,memory.used", "--format=csv,noheader", fault=fault).stdout
    assert row.splitlines()[2] == "2, [GPU is lost]"
    assert "ERR!" in call(node, "h100x8-570", fault=fault).stdout


@pytest.mark.parametrize(
    ("machine", "fault", "expected"),
    [
        ("h100x8-570", "ecc_uncorrectable:1", {"ecc_errors/volatile/dram_uncorrectable": "1"}),
        ("v100x1-418", "ecc_uncorrectable:0", {"ecc_errors/volatile/double_bit/total": "1"}),
        ("h100x8-570", "remap_pending:1", {"remapped_rows/remapped_row_pending": "Yes"}),
        ("h100x8-570", "remap_failure:1", {"remapped_rows/remapped_row_failure": "Yes"}),
        ("h100x8-570", "recovery_action:1", {"gpu_recovery_action": "Drain and Reset"}),
        ("rtx4090x2-550", "recovery_action:1", {"gpu_reset_status/drain_and_reset_recommended": "Yes"}),
        (
            "h100x8-570",
            "thermal_slowdown:1",
            {
                "clocks_event_reasons/clocks_event_reason_hw_thermal_slowdown": "Active",
                "clocks_event_reasons/clocks_event_reason_hw_power_brake_slowdown": "Not Active",
                "temperature/gpu_temp_tlimit": "-3 C",
                "clocks/sm_clock": "345 MHz",
            },
        ),
        ("t4x1-470", "thermal_slowdown:0", {"temperature/gpu_temp": "94 C"}),
        (
            "h100x8-570",
            "power_brake:1",
            {
                "clocks_event_reasons/clocks_event_reason_hw_thermal_slowdown": "Not Active",
                "clocks_event_reasons/clocks_event_reason_hw_power_brake_slowdown": "Active",
            },
        ),
        ("h100x8-570", "fabric_pending", {"fabric/state": "In Progress", "fabric/status": "N/A"}),
    ],
)
def test_readings_of_a_sick_gpu(node: Path, machine: str, fault: str, expected: dict[str, str]) -> None:
    gpus = list(document(node, machine, fault=fault).iter("gpu"))
    index = int(fault.partition(":")[2] or 0)
    assert {path: gpus[index].findtext(path) for path in expected} == expected
    for other in gpus[:index]:
        assert {path: other.findtext(path) for path in expected} != expected


def test_gpu_that_was_not_there_at_start_up_is_not_counted(node: Path) -> None:
    root = document(node, "h100x8-570", fault="fallen_off_bus:0")
    assert root.findtext("attached_gpus") == "7"
    gpus = [(gpu.get("id"), gpu.findtext("minor_number")) for gpu in root.iter("gpu")]
    assert gpus[0] == ("00000000:3B:00.0", "0")
    assert len(gpus) == 7


def test_slow(node: Path) -> None:
    start = time.monotonic()
    assert call(node, "t4x1-470", "-L", fault="slow:0.5").returncode == 0
    assert time.monotonic() - start >= 0.5


def states_of(session: int) -> set[str]:
    """The names of the processes of one session, each with its state."""
    done = subprocess.run(["ps", "-s", str(session), "-o", "state="], capture_output=True, text=True, check=False)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("fault", "states"), [("hang", {"D", "S"}), ("hang_child", {"S"}), ("stopped_child", {"S", "T"})]
)
def test_hangs_until_it_is_killed(node: Path, fault: str, states: set[str]) -> None:
    environment = {**os.environ, "GPUOPS_SIM_MACHINE": "t4x1-470", "GPUOPS_SIM_FAULT": fault}
    command = [sys.executable, "-B", str(node / "bin" / "nvidia-smi"), "-L"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, start_new_session=True)
    try:
        if fault == "hang_child":
            assert process.wait(timeout=20) == 0
        deadline = time.monotonic() + 20
        while states_of(process.pid) != states:
            assert time.monotonic() < deadline, states_of(process.pid)
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.communicate(timeout=0.5)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
    assert process.communicate(timeout=20)[0] == b""


@pytest.mark.parametrize("python", ["python3.8", "python3.9"])
def test_runs_on_the_oldest_python(node: Path, python: str) -> None:
    found = next(iter(sorted(Path.home().glob(f".pyenv/versions/{python[6:]}.*/bin/{python}"))), None)
    if not found:
        pytest.skip(f"no {python} here")
    for arguments in (("-q", "-x"), ("topo", "-m"), ()):
        command = [str(found), "-B", str(node / "bin" / "nvidia-smi"), *arguments]
        subprocess.run(command, env={"GPUOPS_SIM_MACHINE": "h100x8-570"}, check=True, capture_output=True, timeout=30)
