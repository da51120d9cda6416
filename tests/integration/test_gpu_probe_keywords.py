# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Task keywords, connections and options of gpu_probe over real ssh: they do what they do with any other module."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import typing as t
from importlib.util import find_spec
from pathlib import Path

import pytest
from gpu_data import SIMULATOR
from gpu_lab import SET_FAULT, gpu_lab
from podman import podman

if t.TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.xdist_group("gpu-keywords")

# Up to 555 nvidia-smi says nothing about the other GPUs when it cannot open one.
NODES = {"gpu-12": "deb12:rtx4090x2-550", "gpu-13": "deb13:h100x8-570"}
PASSWORD = "of guest"
LET_GUEST_SUDO = """
echo "guest:$1" | chpasswd
usermod --append --groups sudo guest
mkdir -p /opt/empty /opt/nvml
"""
COMPILER = shutil.which("cc")
# The plugin runs podman as the user that it is, and the containers of the lab are root's.
PODMAN = os.geteuid() == 0 and find_spec("ansible_collections.containers.podman") is not None
LEFT = """
{
    pgrep -af '[n]vidia_smi|[g]puops-[0-9a-f]{16}'
    ls -d /tmp/gpuops.* /root/.ansible/tmp/* /home/guest/.ansible/tmp/*
} 2>/dev/null || true
"""


def probe(name: str, *, arguments: dict[str, t.Any] | None = None, **keywords: t.Any) -> dict[str, t.Any]:
    """A task whose result is kept under that name, also when it fails."""
    # A busy machine is slow, which is not what these tests are about.
    usual = {"deadline": 60, "policy": {"slow_probe": {"enabled": False}}}
    return {"gpu_probe": {**usual, **(arguments or {})}, "register": name, "ignore_errors": True, **keywords}


def job(name: str, **keywords: t.Any) -> list[dict[str, t.Any]]:
    """A task that is not waited for, and what async_status says of it."""
    status = {"async_status": {"jid": f"{{{{ {name}_job.ansible_job_id }}}}"}, "register": name, "ignore_errors": True}
    privilege = {key: value for key, value in keywords.items() if key == "become"}
    return [{**probe(f"{name}_job", **keywords), "async": 60, "poll": 0}, {**status, **privilege}]


def fault(fault: str) -> dict[str, t.Any]:
    return {"raw": f"{SET_FAULT} '{fault}'", "become": True}


def save(folder: Path, tasks: list[dict[str, t.Any]]) -> list[dict[str, t.Any]]:
    """The tasks, and one that writes what they found."""
    names = [task["register"] for task in tasks if "register" in task]
    content = "{{ {" + ", ".join(f"'{name}': {name} | default({{}})" for name in names) + "} | to_json }}"
    dest = f"{folder}/{{{{ inventory_hostname }}}}.{names[0]}.json"
    local = {"ansible_connection": "local", "ansible_become": False}
    return [*tasks, {"copy": {"content": content, "dest": dest}, "delegate_to": "localhost", "vars": local}]


LIBRARY = {"LD_LIBRARY_PATH": "/opt/nvml", "NVML_SIM": "lost=1"}
LOST = [
    fault("gpu_lost_handle:1"),
    probe("not_failed", arguments={"fail_on": "none"}),
    probe("failed", arguments={"fail_on": "critical"}),
    *job("failed_job", arguments={"fail_on": "critical"}),
    probe("wrong_policy", arguments={"policy": {"temprature": {"severity": "info"}}}),
    probe("auto", environment=LIBRARY),
    probe("auto_as_root", environment=LIBRARY, become=True),
    *job("auto_job", environment=LIBRARY),
    probe("no_python", environment=LIBRARY, vars={"ansible_python_interpreter": "/nowhere/python3"}),
    probe("nvml", arguments={"backend": "nvml"}, environment={**LIBRARY, "NVML_SIM": ""}),
    probe("sysfs", arguments={"backend": "sysfs"}),
]
HUNG = [
    fault("hang"),
    probe("in_time", timeout=10),
    {**probe("limited", poll=1), "async": 4},
    fault("gpu_lost_handle:1"),
]
HEALTHY = [
    fault("dev_root_only"),
    probe("as_guest"),
    probe("as_root", become=True),
    probe("checked", become=True, check_mode=True),
    probe("other_tree", become=True, environment={"GPUOPS_SYSROOT": "/opt/empty"}),
    probe("looped", become=True, arguments={"fields": "{{ item }}"}, loop=[["driver"], ["health"]]),
    probe("less", become=True, arguments={"fields": []}),
    {**probe("waited", become=True, poll=1), "async": 60},
    *job("later", become=True),
    probe("delegated", delegate_to="gpu-12", arguments={"fail_on": "critical"}),
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, t.Any]]]:
    """Two nodes, with a guest who may become root by a password."""
    with gpu_lab(tmp_path_factory.mktemp("lab"), NODES) as hosts:
        for host in hosts.values():
            podman("exec", host["lab_container"], "sh", "-ec", LET_GUEST_SUDO, "sh", PASSWORD)
        library = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
        if COMPILER:
            subprocess.run([COMPILER, "-shared", "-fPIC", "-o", library, SIMULATOR / "libnvidia-ml.c"], check=True)
            podman("cp", str(library), f"{hosts['gpu-12']['lab_container']}:/opt/nvml/")
        yield hosts


@pytest.fixture(scope="module")
def inventory(lab: dict[str, dict[str, t.Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    hosts = {name: {**host, "ansible_user": "guest", "ansible_become_password": PASSWORD} for name, host in lab.items()}
    container = {"ansible_connection": "containers.podman.podman", "ansible_host": lab["gpu-13"]["lab_container"]}
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    others = {"here": here, "container": container}
    path = tmp_path_factory.mktemp("inventory") / "hosts.json"
    path.write_text(json.dumps({"all": {"children": {"gpu": {"hosts": hosts}, "others": {"hosts": others}}}}))
    return path


def machine_here(folder: Path) -> dict[str, str]:
    """A machine with a GPU in a folder of this one: the environment that shows it."""
    tool = folder / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\nGPUOPS_SIM_MACHINE=t4x1-470 exec {sys.executable} {SIMULATOR}/nvidia_smi.py "$@"\n')
    tool.chmod(0o755)
    subprocess.run(
        [sys.executable, SIMULATOR / "sysroot.py", "--machine", "t4x1-470", "--dest", folder / "sysroot"], check=True
    )
    return {"PATH": f"{tool.parent}:{os.environ['PATH']}", "GPUOPS_SYSROOT": str(folder / "sysroot")}


def ansible(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    ended = subprocess.run(
        [Path(sys.executable).parent / command[0], *command[1:]],
        cwd=REPOSITORY,
        env={**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "Traceback" not in ended.stdout + ended.stderr
    return ended


@pytest.fixture(scope="module")
def seen(inventory: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, t.Any]]:
    """What the tasks gave: host -> name -> result."""
    folder = tmp_path_factory.mktemp("seen")
    here = {"environment": machine_here(folder)}
    inside = {"environment": {"GPUOPS_SYSROOT": "/opt/gpuops-lab/sysroot"}}
    plays: list[tuple[str, list[dict[str, t.Any]]]] = [
        ("gpu", [probe("once", run_once=True)]),
        ("gpu-12", LOST),
        ("gpu-13", HEALTHY),
        ("gpu-12", HUNG),
        ("here", [probe("probed", **here), *job("later", **here)]),
    ]
    if PODMAN:
        plays.append(("container", [probe("probed", **inside), *job("later", **inside)]))
    playbook = [{"hosts": hosts, "gather_facts": False, "tasks": save(folder, tasks)} for hosts, tasks in plays]
    (folder / "play.yml").write_text(json.dumps(playbook))
    run = ansible("ansible-playbook", "-i", inventory, folder / "play.yml")
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr
    found: dict[str, dict[str, t.Any]] = {}
    for path in folder.glob("*.*.json"):
        found.setdefault(path.name.partition(".")[0], {}).update(json.loads(path.read_text()))
    return found


@pytest.fixture
def healthy(seen: dict[str, dict[str, t.Any]]) -> dict[str, t.Any]:
    return seen["gpu-13"]


@pytest.fixture
def sick(seen: dict[str, dict[str, t.Any]]) -> dict[str, t.Any]:
    return seen["gpu-12"]


def test_become(healthy: dict[str, t.Any]) -> None:
    assert (healthy["as_guest"]["state"], healthy["as_root"]["state"]) == ("no_permission", "ok")


@pytest.mark.parametrize("name", ["checked", "waited", "later"])
def test_answer_is_whole(healthy: dict[str, t.Any], name: str) -> None:
    for key in ("state", "gpus", "driver", "topology"):
        assert healthy[name][key] == healthy["as_root"][key], key
    assert healthy[name]["ansible_facts"]["gpu"] == healthy["as_root"]["ansible_facts"]["gpu"]
    assert not healthy[name]["changed"]


def test_environment_of_the_task_wins(healthy: dict[str, t.Any]) -> None:
    assert (healthy["other_tree"]["state"], healthy["other_tree"]["gpus"]) == ("driver_not_loaded", [])


def test_fields(healthy: dict[str, t.Any]) -> None:
    every = {"kernel_events", "topology"}
    assert every <= healthy["as_root"].keys()
    driver, health = healthy["looped"]["results"]
    for result in (driver, health, healthy["less"]):
        assert result["state"] == "ok"
        assert len(result["gpus"]) == 8
        assert not every & result.keys()
        assert not {"nvlinks", "processes"} & result["gpus"][0].keys()
    assert driver["driver"]["module_on_disk_version"]
    assert "module_on_disk_version" not in health["driver"]
    assert [check["id"] for check in driver["health"]] == ["state"]
    assert len(health["health"]) > 1


def test_delegated_probe_names_the_node_that_it_asked(healthy: dict[str, t.Any], sick: dict[str, t.Any]) -> None:
    assert healthy["delegated"]["summary"].startswith("2x NVIDIA GeForce RTX 4090")
    assert sick["failed"]["msg"] == healthy["delegated"]["msg"].replace("gpu-13", "gpu-12")
    assert "gpu-12: gpu_probe: " in healthy["delegated"]["msg"]


def test_run_once(healthy: dict[str, t.Any], sick: dict[str, t.Any]) -> None:
    assert healthy["once"] == sick["once"]
    assert healthy["once"]["summary"].startswith("2x NVIDIA GeForce RTX 4090")


def test_fail_on(sick: dict[str, t.Any]) -> None:
    assert not sick["not_failed"]["failed"]
    assert sick["failed"]["failed"]
    assert sick["failed"]["state"] == "gpu_lost"
    message = sick["failed"]["msg"]
    assert message.startswith(f"gpu-12: gpu_probe: {sick['failed']['summary']}. Next: dmesg | grep"), message
    assert message.count("dmesg | grep -iE") == 1
    assert "\n" not in message


def test_job_fails_for_what_the_task_would(sick: dict[str, t.Any]) -> None:
    assert not sick["failed_job_job"]["failed"]
    assert sick["failed_job"]["failed"]
    assert sick["failed_job"]["msg"] == sick["failed"]["msg"]


def test_wrong_policy_is_one_message(sick: dict[str, t.Any]) -> None:
    assert sick["wrong_policy"]["failed"]
    assert "temprature" in sick["wrong_policy"]["msg"]
    assert "\n" not in sick["wrong_policy"]["msg"]
    assert "gpus" not in sick["wrong_policy"]


@pytest.mark.skipif(not COMPILER, reason="no C compiler on this machine (Debian: gcc)")
@pytest.mark.parametrize("name", ["auto", "auto_as_root", "auto_job"])
def test_nvml_lists_the_healthy_gpus_beside_a_lost_one(sick: dict[str, t.Any], name: str) -> None:
    result = sick[name]
    assert (result["state"], result["backend"]) == ("gpu_lost", "nvml")
    assert [gpu["name"] for gpu in result["gpus"] if gpu["uuid"]] == ["NVIDIA H100 (simulated)"]


def test_node_without_python(sick: dict[str, t.Any]) -> None:
    result = sick["no_python"]
    assert not result["failed"]
    assert (result["state"], result["backend"]) == ("gpu_lost", "sysfs")
    (nvml,) = [seen for seen in result["evidence"] if seen["command"].startswith("NVML")]
    assert "/nowhere/python3" in nvml["output"]
    assert "Python 3.8" in nvml["output"]


@pytest.mark.skipif(not COMPILER, reason="no C compiler on this machine (Debian: gcc)")
def test_nvml_alone(sick: dict[str, t.Any]) -> None:
    assert sick["nvml"]["backend"] == "nvml"
    assert [gpu["index"] for gpu in sick["nvml"]["gpus"] if gpu["uuid"]] == [0, 1]
    assert not [seen for seen in sick["nvml"]["evidence"] if seen["command"] == "nvidia-smi -q -x"]


def test_sysfs_alone(sick: dict[str, t.Any]) -> None:
    assert (sick["sysfs"]["state"], sick["sysfs"]["backend"]) == ("unknown", "sysfs")
    assert [gpu["bus_id"] for gpu in sick["sysfs"]["gpus"]] == ["0000:01:00.0", "0000:02:00.0"]


def test_answer_comes_before_the_task_times_out(sick: dict[str, t.Any]) -> None:
    assert sick["in_time"]["state"] == "unresponsive"
    assert sick["in_time"]["probe_seconds"] < 10


def test_async_is_a_deadline(sick: dict[str, t.Any]) -> None:
    assert sick["limited"]["state"] == "unresponsive"
    assert sick["limited"]["probe_seconds"] < 4 + 2.5


@pytest.mark.usefixtures("seen")
@pytest.mark.parametrize("node", NODES)
def test_nothing_is_left_on_a_node(lab: dict[str, dict[str, t.Any]], node: str) -> None:
    # A collector that was left behind ends with the time of the task, and then kills what it started.
    time.sleep(1)
    assert podman("exec", lab[node]["lab_container"], "sh", "-c", LEFT) == ""


def test_here(seen: dict[str, dict[str, t.Any]]) -> None:
    assert seen["here"]["probed"]["summary"].startswith("1x Tesla T4")
    assert seen["here"]["later"]["gpus"] == seen["here"]["probed"]["gpus"]


@pytest.mark.skipif(not PODMAN, reason="not root, or no containers.podman beside ansible-core (pip install ansible)")
def test_connection_without_pipelining(seen: dict[str, dict[str, t.Any]]) -> None:
    assert seen["container"]["probed"]["summary"].startswith("8x NVIDIA H100")
    assert seen["container"]["later"]["gpus"] == seen["container"]["probed"]["gpus"]


@pytest.mark.usefixtures("seen")
@pytest.mark.parametrize("more", [[], ["-o"]], ids=["", "-o"])
def test_ad_hoc_says_one_line_for_people(inventory: Path, more: list[str]) -> None:
    run = ansible("ansible", "gpu", "-i", inventory, "-b", "-m", "gpu_probe", *more)
    lines = [line for line in run.stdout.splitlines() if line.startswith(("gpu-12: ", "gpu-13: "))]
    assert sorted(line.partition(", driver")[0] for line in lines) == [
        "gpu-12: 2x NVIDIA GeForce RTX 4090, simulated",
        "gpu-13: 8x NVIDIA H100 80GB HBM3 (simulated)",
    ], run.stdout


@pytest.mark.usefixtures("seen")
def test_ad_hoc_json_stays_json(inventory: Path) -> None:
    run = ansible(
        "ansible", "gpu-13", "-i", inventory, "-b", "-m", "gpu_probe",
        ANSIBLE_STDOUT_CALLBACK="json", ANSIBLE_LOAD_CALLBACK_PLUGINS="1",
    )  # fmt: skip
    (play,) = json.loads(run.stdout)["plays"]
    assert play["tasks"][0]["hosts"]["gpu-13"]["state"] == "ok"
