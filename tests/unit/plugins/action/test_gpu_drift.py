# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest
import yaml
from ansible_collections.gpuops.fleet.plugins.modules import gpu_drift as documentation
from places import REPOSITORY

OLD, NEW = ({"driver": {"version": version}, "gpus": []} for version in ("550.90.07", "570.148.08"))


def ansible(options: dict[str, Any], *more: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        "ANSIBLE_NOCOLOR": "1",
    }
    command = [str(pathlib.Path(sys.executable).parent / "ansible"), "-i", "gpu-1,", "all"]
    command += ["-m", "gpuops.fleet.gpu_drift", "-a", json.dumps(options), *more]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_drift_on_the_terminal_and_in_the_result_without_any_connection() -> None:
    done = ansible({"results": {"gpu-1": NEW, "gpu-2": OLD, "gpu-3": NEW, "gpu-4": {}}}, "-C")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(
        "\ndriver_version: 570.148.08 on 2 of 3 nodes\n  550.90.07  gpu-2\n"
        "3 nodes compared: driver_version; not probed: gpu-4\n\n"
    )
    result = json.loads(done.stdout.partition(" => ")[2])
    assert result["changed"] is False
    assert [(entry["what"], entry["differing"]) for entry in result["drift"]] == [("driver_version", ["gpu-2"])]
    assert result["not_probed"] == ["gpu-4"]
    assert result["summary"] == "3 nodes compared: driver_version; not probed: gpu-4"


@pytest.mark.parametrize(
    "options", [{"results": "gpu-1"}, {"results": {}, "groups": []}, {"result": {}}], ids=json.dumps
)
def test_wrong_options_are_refused_with_what_is_right(options: dict[str, Any]) -> None:
    done = ansible(options)
    assert done.returncode == 2
    assert "takes one option, results: a dictionary of what gpu_probe returned" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_what_is_no_result_of_gpu_probe_is_refused_by_the_name_of_its_node() -> None:
    done = ansible({"results": {"gpu-1": NEW, "gpu-2": {"gpus": [None]}}})
    assert done.returncode == 2
    assert "gpu_drift: gpus[0] of the result of gpu-2 must be a dictionary" in done.stdout
    assert "Next: ansible-doc gpuops.fleet.gpu_drift" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_the_one_option_is_documented() -> None:
    documented = yaml.safe_load(documentation.DOCUMENTATION)["options"]
    assert {name: option["required"] for name, option in documented.items()} == {"results": True}
