# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import problems_of
from ansible_collections.gpuops.fleet.plugins.modules import gpu_probe as documentation
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.table import Node, table
from places import REPOSITORY

ANSIBLE = Path(sys.executable).with_name("ansible")

DOCUMENT = """<?xml version="1.0" ?>
<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">
<nvidia_smi_log><driver_version>570.148.08</driver_version><cuda_version>12.8</cuda_version>
<attached_gpus>1</attached_gpus><gpu id="00000000:1B:00.0"><product_name>NVIDIA L40S</product_name>
<uuid>GPU-01</uuid></gpu></nvidia_smi_log>
"""


@pytest.fixture
def sysroot(tmp_path: Path) -> Path:
    """A node with a loaded driver and an nvidia-smi that prints DOCUMENT."""
    loaded = tmp_path / "sysroot" / "proc" / "driver" / "nvidia" / "version"
    loaded.parent.mkdir(parents=True)
    loaded.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.148.08  Thu May\n")
    nvidia_smi(tmp_path, f"cat <<EOF\n{DOCUMENT}EOF")
    return tmp_path / "sysroot"


def nvidia_smi(tmp_path: Path, script: str) -> None:
    path = tmp_path / "bin" / "nvidia-smi"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def probe(sysroot: Path, *arguments: str, options: dict[str, Any] | None = None) -> tuple[int, Any]:
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1",
        "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.minimal",
        "GPUOPS_SYSROOT": str(sysroot),
        "PATH": f"{sysroot.parent}/bin:{os.environ['PATH']}",
    }
    command = [str(ANSIBLE), "node,", "-i", "node,", "-c", "local", "-m", "gpuops.fleet.gpu_probe", *arguments]
    run = subprocess.run(
        [*command, *(["-a", json.dumps(options)] if options else [])],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=REPOSITORY,
    )
    return run.returncode, json.loads(run.stdout.rpartition(" => ")[2])


@pytest.mark.parametrize("mode", [[], ["--check"]])
def test_a_healthy_node_is_told_the_same_in_check_mode(sysroot: Path, mode: list[str]) -> None:
    rc, result = probe(sysroot, *mode, options={"expect": {"count": 1, "model": "l40s", "min_driver": "570"}})
    assert rc == 0
    assert result["summary"] == "1x NVIDIA L40S, simulated, driver 570.148.08, CUDA 12.8: ok"
    assert (result["state"], result["changed"], result["simulated"]) == ("ok", False, True)
    assert "fail" not in {item["status"] for item in result["health"]}
    asked = ["state", "expect_count", "expect_model", "expect_min_driver"]
    assert [item["status"] for item in result["health"] if item["id"] in asked] == ["ok"] * 4
    assert result["ansible_facts"]["gpu"]["count"] == 1


def test_a_sick_node_is_an_answer_in_time(sysroot: Path) -> None:
    nvidia_smi(sysroot.parent, "trap '' TERM; sleep 60")
    started = time.monotonic()
    rc, result = probe(sysroot, options={"deadline": 1})
    assert (rc, result["state"]) == (0, "unresponsive")
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"deadline": 0}, "deadline must be at least 1 second"),
        ({"expect": {"min_driver": "new"}}, "must be a version such as 550.90.07, got 'new'"),
        ({"expect": {"colour": "green"}}, "colour"),
    ],
)
def test_wrong_options_fail_the_task(sysroot: Path, options: dict[str, Any], message: str) -> None:
    rc, result = probe(sysroot, options=options)
    assert rc != 0
    assert message in result["msg"]


def test_no_answer_fails_with_host_and_next_command(sysroot: Path) -> None:
    rc, result = probe(sysroot, "-e", "ansible_shell_executable=/bin/false")
    assert rc != 0
    assert result["msg"].startswith("node: gpu_probe: the collector did not answer: exit code 1, no output. Next: ")
    # The table shows the module's own command, not the one for messages of others.
    lines = table([Node("node", "node", problems=problems_of(result["problems"], "node"))])
    assert lines[-1] == ("  next: ansible node -m ansible.builtin.raw -a 'sh -c id'", True)


TYPES: dict[str, Any] = {"str": str, "int": int, "float": (int, float), "bool": bool, "list": list, "dict": dict}


def undocumented(value: Any, said: dict[str, Any], name: str) -> list[str]:
    """Where a return value is not what its documentation says; a sample stands for keys that are not listed."""
    if value is None:
        return []
    if not isinstance(value, TYPES[said["type"]]) or isinstance(value, bool) != (said["type"] == "bool"):
        return [f"{name} is {value!r} and no {said['type']}"]
    contains, sample = said.get("contains", {}), said.get("sample") or {}
    if isinstance(value, list):
        inner = {"type": said["elements"], "contains": contains, "sample": sample[0] if sample else None}
        return [text for number, each in enumerate(value) for text in undocumented(each, inner, f"{name}[{number}]")]
    if not isinstance(value, dict) or not (contains or sample):
        return []
    wrong = [f"{name} and its documentation differ in {key}" for key in value.keys() ^ (contains or sample).keys()]
    for key in value.keys() & contains.keys():
        wrong += undocumented(value[key], contains[key], f"{name}.{key}")
    return wrong


@pytest.mark.parametrize(
    "machine", [("a100x2-mig-550", "xid_mig:0"), ("h100x8-570", "busy"), ("v100x1-418", "xid:0:79")]
)
def test_every_return_value_is_documented_as_it_is(tmp_path: Path, machine: tuple[str, str]) -> None:
    simulator = REPOSITORY / "tests" / "lab" / "simulator"
    tree = [sys.executable, str(simulator / "sysroot.py"), "--machine", machine[0], "--fault", machine[1]]
    subprocess.run([*tree, "--dest", str(tmp_path / "sysroot")], check=True)
    setting = f"GPUOPS_SIM_MACHINE={machine[0]} GPUOPS_SIM_FAULT={machine[1]}"
    nvidia_smi(tmp_path, f'{setting} exec {sys.executable} {simulator / "nvidia_smi.py"} "$@"')
    rc, result = probe(tmp_path / "sysroot")
    assert rc == 0
    assert len(result["kernel_events"]["events"]) == (machine[1] != "busy")
    contains = yaml.safe_load(documentation.RETURN)
    # It did not fail, and the keys of the matrix are the names of what the node has.
    del contains["problems"]
    del contains["topology"]["contains"]["matrix"]["sample"]
    assert undocumented(result, {"type": "dict", "contains": {**contains, "changed": {"type": "bool"}}}, "result") == []


def test_a_worker_does_not_read_the_documentation_of_ssh_again() -> None:
    """Ad hoc nobody else reads it before the forks, and 64 nodes would cost 64 times 40 ms."""
    script = (
        "from ansible import constants as C\n"
        "from ansible.plugins.loader import action_loader, init_plugin_loader\n"
        "init_plugin_loader()\n"
        "action_loader.get('gpuops.fleet.gpu_probe', class_only=True)\n"
        "assert C.config.get_configuration_definitions('connection', 'ssh')\n"
        "assert C.config.get_configuration_definitions('shell', 'sh')\n"
    )
    environment = {**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg")}
    subprocess.run([sys.executable, "-c", script], env=environment, timeout=60, check=True, cwd=REPOSITORY)
