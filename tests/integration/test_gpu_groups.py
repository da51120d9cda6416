# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Groups by GPU from the facts that gpu_probe left, as inventory/README.md says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from gpu_data import SIMULATOR

REPOSITORY = Path(__file__).resolve().parents[2]
MACHINES = {"gpu-1": "h100x8-570", "gpu-2": "rtx4090x2-550"}


def test_probed_nodes_are_in_the_groups_of_their_gpus(tmp_path: Path) -> None:
    bin_directory = Path(sys.executable).parent
    hosts: dict[str, dict[str, str]] = {"gpu-3": {}}
    for name, machine in MACHINES.items():
        root = tmp_path / name
        root.mkdir()
        smi = root / "nvidia-smi"
        smi.write_text(
            f'#!/bin/sh\nGPUOPS_SIM_MACHINE={machine} exec {sys.executable} {SIMULATOR}/nvidia_smi.py "$@"\n'
        )
        smi.chmod(0o755)
        command: list[str | Path] = [sys.executable, SIMULATOR / "sysroot.py", "--machine", machine]
        subprocess.run([*command, "--dest", root / "sysroot"], check=True)
    inventory = tmp_path / "inventory"
    inventory.mkdir()
    (inventory / "zz_gpu_groups.yml").symlink_to(REPOSITORY / "inventory" / "zz_gpu_groups.yml")
    (inventory / "hosts.yml").write_text(json.dumps({"gpu": {"hosts": {**dict.fromkeys(MACHINES, {}), **hosts}}}))
    env = {
        **os.environ,
        "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
        "ANSIBLE_CACHE_PLUGIN": "ansible.builtin.jsonfile",
        "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(tmp_path / "facts"),
    }

    def run(*arguments: str, **more: str) -> str:
        command = [str(bin_directory / arguments[0]), "-i", str(inventory), *arguments[1:]]
        done = subprocess.run(
            command, cwd=REPOSITORY, env={**env, **more}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    for name in MACHINES:
        root = tmp_path / name
        path = f"{root}:{os.environ['PATH']}"
        run("ansible", name, "-c", "local", "-m", "gpu_probe", PATH=path, GPUOPS_SYSROOT=str(root / "sysroot"))
    groups = json.loads(run("ansible-inventory", "--list"))
    members = {group: content["hosts"] for group, content in groups.items() if group.startswith(("gpu_", "driver_"))}
    assert members == {
        "driver_550": ["gpu-2"],
        "driver_570": ["gpu-1"],
        "gpu_4090": ["gpu-2"],
        "gpu_h100": ["gpu-1"],
        "gpu_simulated": ["gpu-1", "gpu-2"],
    }
