# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.gpuops.fleet.plugins.module_utils._see.gpu.record import Gpu
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.smi_text import (
    ListedGpu,
    ListedMig,
    join,
    parse_compute,
    parse_list,
    parse_nvlink,
    parse_topology,
)
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.smi_xml import (
    NO_MIG_DEVICE,
    cut_document,
    parse_log,
)
from gpu_data import CORPUS, MACHINES, NO_CORPUS, SIMULATOR
from hypothesis import given, settings
from hypothesis import strategies as st

UUIDS = [f"GPU-00000000-0000-0000-0000-00000000000{number}" for number in range(4)]

LIST = f"""GPU 0: NVIDIA A100-SXM4-40GB (simulated) (UUID: {UUIDS[0]})
  MIG 3g.20gb     Device  0: (UUID: MIG-00000000-0000-0000-0000-00000000000a)
  MIG 1g.5gb+me   Device  1: (UUID: MIG-00000000-0000-0000-0000-00000000000b)
Unable to determine the device handle for gpu 1: GPU is lost.  Reboot the system to recover this GPU


GPU 2: NVIDIA A100-SXM4-40GB (simulated) (UUID: {UUIDS[2]})
  MIG 7g.40gb Device 0: (UUID: MIG-{UUIDS[2]}/0/0)
"""
NVLINK = f"""GPU 0: NVIDIA A100-SXM4-40GB (UUID: {UUIDS[0]})
\t Link 0: 25 GB/s
\t Link 1: <inactive>
\t Link 2: 26.562 GB/s
GPU 2: NVIDIA A100-SXM4-40GB (UUID: Unknown Error)
\t Link 0: inActive
"""
TOPOLOGY = """\t\x1b[4mGPU0\tGPU1\tNIC0\tNIC1\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\x1b[0m
GPU0\t X \tNV12\tPXB\tSYS\t0-23,48-71\t0\t\tN/A
GPU1\tNV12\t X \tSYS\tPXB\t24-47,72-95\tN/A\t\tN/A
NIC0\tPXB\tSYS\t X \tSYS\t\t\t\t
NIC1\tSYS\tPXB\tSYS\t X \t\t\t\t

Legend:

  X    = Self
  NV#  = Connection traversing a bonded set of # NVLinks

NIC Legend:

  NIC0: mlx5_0
  NIC1: mlx5_bond_0

"""
TEXTS = {"list": LIST, "nvlink": NVLINK, "topology": TOPOLOGY, "compute": f"{UUIDS[0]}, 9.0\n"}
PARSERS: dict[str, Callable[[str], Any]] = {
    "list": parse_list,
    "nvlink": parse_nvlink,
    "topology": parse_topology,
    "compute": parse_compute,
}


def simulated(machine: str, *arguments: str, fault: str = "") -> str:
    return subprocess.run(
        [sys.executable, "-B", str(SIMULATOR / "nvidia_smi.py"), *arguments],
        env={"GPUOPS_SIM_MACHINE": machine, "GPUOPS_SIM_FAULT": fault, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    ).stdout


def test_the_list_with_mig_devices_and_a_gpu_that_cannot_be_opened() -> None:
    name = "NVIDIA A100-SXM4-40GB (simulated)"
    assert parse_list(LIST) == (
        ListedGpu(
            index=0,
            name=name,
            uuid=UUIDS[0],
            migs=[
                ListedMig(0, "3g.20gb", "MIG-00000000-0000-0000-0000-00000000000a"),
                ListedMig(1, "1g.5gb+me", "MIG-00000000-0000-0000-0000-00000000000b"),
            ],
        ),
        ListedGpu(index=1, error="GPU is lost.  Reboot the system to recover this GPU"),
        ListedGpu(index=2, name=name, uuid=UUIDS[2], migs=[ListedMig(0, "7g.40gb", f"MIG-{UUIDS[2]}/0/0")]),
    )


@pytest.mark.parametrize(
    ("text", "index", "bus_id"),
    [
        ("Unable to determine the device handle for gpu 3: Unknown Error", 3, None),
        ("Unable to determine the device handle for GPU3: Unknown Error", 3, None),
        ("Unable to determine the device handle for GPU0000:07:00.0: Unknown Error", None, "0000:07:00.0"),
        ("Unable to determine the device handle for GPU 00000000:1B:00.0: Unknown Error", None, "0000:1b:00.0"),
    ],
)
def test_a_gpu_that_cannot_be_opened_is_named_as_the_driver_names_it(
    text: str, index: int | None, bus_id: str | None
) -> None:
    assert parse_list(text) == (ListedGpu(index=index, bus_id=bus_id, error="Unknown Error"),)


@pytest.mark.parametrize("text", ["No devices found.\n", "", "Failed to initialize NVML: Insufficient Permissions\n"])
def test_no_devices_found_is_no_gpu(text: str) -> None:
    assert parse_list(text) == ()


def test_compute_capabilities_by_uuid() -> None:
    assert parse_compute(f"{UUIDS[0]}, 9.0\r\n{UUIDS[1]}, 12.0\n{UUIDS[2]}, [N/A]\n") == {
        UUIDS[0]: "9.0",
        UUIDS[1]: "12.0",
    }
    assert parse_compute('Field "compute_cap" is not a valid field to query.\n\n') == {}


def test_links_by_uuid_or_index() -> None:
    assert parse_nvlink(NVLINK) == {
        UUIDS[0]: [
            {"link": 0, "active": True, "speed_gbyte_s": 25.0},
            {"link": 1, "active": False, "speed_gbyte_s": None},
            {"link": 2, "active": True, "speed_gbyte_s": 26.562},
        ],
        2: [{"link": 0, "active": False, "speed_gbyte_s": None}],
    }


@pytest.mark.parametrize(
    ("line", "links"),
    [
        ("NVML: Unable to retrieve NVLink information as all links are inactive", []),
        ("NVML: Unable to retrieve Nvlink information as all links are inActive", []),
        ("Device does not have or support Nvlink", []),
        ("Nvlink queries are not supported for Devices in MIG mode", None),
        ("NVML: Unable to retrieve NVLink information: Unknown Error", None),
        ("", None),
    ],
)
def test_no_active_link_is_not_an_unknown_one(line: str, links: list[Any] | None) -> None:
    text = f"GPU 0: NVIDIA H100 80GB HBM3 (UUID: {UUIDS[0]})\n{line}\n"
    assert parse_nvlink(text).get(UUIDS[0]) == links


@pytest.mark.parametrize("text", ["N/A", "Unknown Error", "25"])
def test_links_of_which_one_is_not_told_are_unknown(text: str) -> None:
    assert parse_nvlink(f"GPU 0: NVIDIA A100 (UUID: GPU-0)\n\t Link 0: 25 GB/s\n\t Link 1: {text}\n") == {}


def test_the_topology_with_nics() -> None:
    assert parse_topology(TOPOLOGY) == {
        "matrix": {
            "GPU0": {"GPU1": "NV12", "NIC0": "PXB", "NIC1": "SYS"},
            "GPU1": {"GPU0": "NV12", "NIC0": "SYS", "NIC1": "PXB"},
            "NIC0": {"GPU0": "PXB", "GPU1": "SYS", "NIC1": "SYS"},
            "NIC1": {"GPU0": "SYS", "GPU1": "PXB", "NIC0": "SYS"},
        },
        "gpus": [
            {"index": 0, "cpu_affinity": "0-23,48-71", "numa_node": 0},
            {"index": 1, "cpu_affinity": "24-47,72-95", "numa_node": None},
        ],
        "nics": [
            {"label": "NIC0", "name": "mlx5_0", "bus_id": None, "numa_node": None},
            {"label": "NIC1", "name": "mlx5_bond_0", "bus_id": None, "numa_node": None},
        ],
    }


def test_old_drivers_have_the_names_of_the_nics_in_the_matrix() -> None:
    text = "\tGPU0\tmlx5_0\tCPU Affinity\nGPU0\t X \tPHB\t0-7\nmlx5_0\tPHB\t X \t\n"
    topology = parse_topology(text)
    assert topology["matrix"] == {"GPU0": {"mlx5_0": "PHB"}, "mlx5_0": {"GPU0": "PHB"}}
    assert topology["gpus"] == [{"index": 0, "cpu_affinity": "0-7", "numa_node": None}]
    assert [(nic["label"], nic["name"]) for nic in topology["nics"]] == [("mlx5_0", "mlx5_0")]


def test_a_broken_row_costs_only_itself() -> None:
    broken = TOPOLOGY.replace("GPU0\t X ", "???0\t X ")
    assert set(parse_topology(broken)["matrix"]) == {"GPU1", "NIC0", "NIC1"}


def test_a_topology_cut_at_any_byte_has_only_relations_of_the_whole() -> None:
    whole = parse_topology(TOPOLOGY)["matrix"]
    for length in range(len(TOPOLOGY)):
        for label, relations in parse_topology(TOPOLOGY[:length])["matrix"].items():
            assert relations.items() <= whole[label].items(), TOPOLOGY[:length]


@settings(deadline=None)
@given(
    st.sampled_from(sorted(TEXTS)),
    st.lists(st.tuples(st.integers(0, 2_000), st.integers(0, 255)), max_size=4),
    st.integers(0, 2_000),
)
def test_damaged_texts_never_raise(kind: str, flips: list[tuple[int, int]], length: int) -> None:
    data = bytearray(TEXTS[kind].encode())
    for position, value in flips:
        data[position % len(data)] = value
    found = PARSERS[kind](data[:length].decode(errors="surrogateescape"))
    parts: dict[str, Any] = {"list": (), "compute": {}, "nvlink": {}, "topology": {}, kind: found}
    joined = join([Gpu(index=0, uuid=UUIDS[0])], parts["list"], parts["compute"], parts["nvlink"], parts["topology"])
    assert [gpu.uuid for gpu in joined] == [UUIDS[0]]


def test_the_records_are_joined_by_uuid_since_the_document_has_no_index() -> None:
    # GPU 1 cannot be opened, so that GPU 2 stands second in the document.
    device = {**NO_MIG_DEVICE, "index": 0, "gpu_instance_id": 0}
    gpus = [Gpu(index=0, uuid=UUIDS[0]), Gpu(index=1, uuid=UUIDS[2], mig_devices=[device])]
    topology = {"gpus": [{"index": 0, "numa_node": 0}, {"index": 1, "numa_node": 0}, {"index": 2, "numa_node": 1}]}
    first, second = join(gpus, parse_list(LIST), {UUIDS[2]: "8.0"}, parse_nvlink(NVLINK), topology)
    assert (first.index, first.compute_capability, first.architecture, first.numa_node) == (0, None, None, 0)
    assert (second.index, second.compute_capability, second.architecture, second.numa_node) == (2, "8.0", "Ampere", 1)
    assert [link["active"] for link in first.nvlinks or []] == [True, False, True]
    assert second.nvlinks == [{"link": 0, "active": False, "speed_gbyte_s": None}]
    assert second.mig_devices == [{**device, "uuid": f"MIG-{UUIDS[2]}/0/0", "profile": "7g.40gb"}]
    # Only the list knows these two.
    assert [(item["profile"], item["gpu_instance_id"]) for item in first.mig_devices] == [
        ("3g.20gb", None),
        ("1g.5gb+me", None),
    ]


def test_without_the_other_commands_the_records_stay_as_they_are() -> None:
    gpu = Gpu(index=3, uuid=UUIDS[0], architecture="Hopper", numa_node=1, mig_devices=[{**NO_MIG_DEVICE, "index": 0}])
    assert join([gpu], (), {}, {}, {}) == [gpu]


@pytest.mark.parametrize(
    ("capability", "architecture"),
    [
        ("3.7", "Kepler"),
        ("5.2", "Maxwell"),
        ("6.1", "Pascal"),
        ("7.0", "Volta"),
        ("7.5", "Turing"),
        ("8.0", "Ampere"),
        ("8.6", "Ampere"),
        ("8.9", "Ada Lovelace"),
        ("9.0", "Hopper"),
        ("10.3", "Blackwell"),
        ("12.0", "Blackwell"),
        ("99.0", None),
    ],
)
def test_the_architecture_follows_from_the_compute_capability(capability: str, architecture: str | None) -> None:
    gpu = Gpu(index=0, uuid=UUIDS[0])
    assert join([gpu], (), {UUIDS[0]: capability}, {}, {})[0].architecture == architecture


@pytest.mark.parametrize("machine", MACHINES)
def test_every_machine_of_the_lab_is_joined(machine: str) -> None:
    model = json.loads((SIMULATOR / "machines" / f"{machine}.json").read_text())
    query = ("--query-gpu=uuid,compute_cap", "--format=csv,noheader")
    log = parse_log(cut_document(simulated(machine, "-q", "-x"))[1])
    listed, topology = parse_list(simulated(machine, "-L")), parse_topology(simulated(machine, "topo", "-m"))
    compute = parse_compute(simulated(machine, *query))
    joined = join(log.gpus, listed, compute, parse_nvlink(simulated(machine, "nvlink", "-s")), topology)
    bus_ids = [bus_id for node in model["numa_nodes"] for bus_id in node["gpus"]]
    assert [(gpu.index, gpu.bus_id) for gpu in joined] == list(enumerate(bus_ids))
    assert [gpu["index"] for gpu in topology["gpus"]] == [gpu.index for gpu in joined]
    assert [gpu.numa_node for gpu in joined] == [gpu["numa_node"] for gpu in topology["gpus"]]
    for gpu in joined:
        assert gpu.compute_capability == (model["gpu"]["compute_cap"] if compute else None)
        # Drivers that do not know the column do not write the architecture either.
        assert gpu.architecture == (model["gpu"]["architecture"] if compute else None)


def test_a_gpu_that_cannot_be_opened_does_not_shift_the_indices_of_the_others() -> None:
    listed = parse_list(simulated("h100x8-570", "-L", fault="gpu_lost_handle:2"))
    assert [gpu.index for gpu in listed if gpu.error] == [2]
    healthy = [Gpu(index=place, uuid=gpu.uuid) for place, gpu in enumerate(gpu for gpu in listed if not gpu.error)]
    assert [gpu.index for gpu in join(healthy, listed, {}, {}, {})] == [0, 1, 3, 4, 5, 6, 7]


@NO_CORPUS
def test_every_recorded_list_is_read_as_a_regex_reads_it() -> None:
    paths = sorted([*CORPUS.rglob("*list_L.txt"), *CORPUS.rglob("*L-*.stdout")])
    assert len(paths) >= 30
    for path in paths:
        text = path.read_text()
        gpus = parse_list(text)
        assert [gpu.uuid for gpu in gpus if gpu.uuid] == re.findall(r"UUID: (GPU-\S+)\)", text), path
        assert [mig.uuid for gpu in gpus for mig in gpu.migs] == re.findall(r"UUID: (MIG-\S+)\)", text), path
        assert sum(bool(gpu.error) for gpu in gpus) == text.count("Unable to determine"), path


@NO_CORPUS
def test_every_recorded_link_is_read_as_a_regex_reads_it() -> None:
    paths = sorted([*CORPUS.rglob("*nvlink_s*.txt"), *CORPUS.rglob("*nvlink.status*")])
    assert len(paths) >= 7
    for path in paths:
        text = path.read_text()
        links = parse_nvlink(text)
        assert all(link["active"] for found in links.values() for link in found), path
        speeds = [link["speed_gbyte_s"] for found in links.values() for link in found]
        assert speeds == [float(speed) for speed in re.findall(r"([\d.]+) GB/s", text)], path
        assert len(links) == text.count("UUID: GPU-") - text.count("not supported for Devices in MIG mode"), path


@NO_CORPUS
def test_every_recorded_topology_is_read_whole() -> None:
    paths = sorted([*(CORPUS / "topo").glob("*[0-9].txt"), *CORPUS.rglob("*topo_m.txt"), *CORPUS.rglob("*columns.txt")])
    assert len(paths) >= 9
    for path in paths:
        rows = [line.split() for line in path.read_text().splitlines() if re.match(r"GPU\d+\s", line)]
        topology = parse_topology(path.read_text())
        assert list(topology["matrix"]) == [row[0] for row in rows], path
        for row in rows:
            relations = [cell for cell in row[1:] if re.fullmatch(r"NV\d+|[A-Z]{3,4}", cell)]
            assert list(topology["matrix"][row[0]].values()) == relations, path
        assert [gpu["cpu_affinity"] for gpu in topology["gpus"]] == [
            next(cell for cell in row if re.fullmatch(r"\d+-[\d,-]+", cell)) for row in rows
        ], path


@NO_CORPUS
def test_every_recorded_query_has_its_compute_capability() -> None:
    paths = sorted(CORPUS.rglob("*query_gpu_csv*.csv"))
    assert len(paths) >= 8
    for path in paths:
        with path.open(newline="") as lines:
            rows = list(csv.DictReader(lines, skipinitialspace=True))
        text = "".join(f"{row['uuid']}, {row['compute_cap']}\n" for row in rows)
        assert parse_compute(text) == {row["uuid"]: row["compute_cap"] for row in rows}, path
