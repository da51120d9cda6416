# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from places import REPOSITORY


def fail(*problems: dict[str, str]) -> dict[str, Any]:
    command = [str(Path(sys.executable).with_name("ansible")), "gpu-9", "-i", "gpu-9,", "-m", "gpuops.fleet.fleet_fail"]
    command += ["-a", json.dumps({"problems": problems})]
    environment = {**os.environ, "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    return dict(json.loads(done.stdout[done.stdout.index("> {") + 2 :]))


@pytest.mark.parametrize("host", ["", "gpu-1"])
def test_a_task_fails_with_each_problem_of_its_own_host(host: str) -> None:
    result = fail(
        {"what": "uid 7 is taken", "remedy": "usermod -u 8 bob", "where": "node", "host": host},
        {"what": "no shell", "seen": "/bin/zsh"},
    )
    assert result["msg"] == "gpu-9: uid 7 is taken. Next: on the node: usermod -u 8 bob; gpu-9: no shell: /bin/zsh"
    assert [problem["host"] for problem in result["problems"]] == ["gpu-9", "gpu-9"]
    assert result["problems"][0]["remedy"] == "usermod -u 8 bob"


def test_without_a_problem_nothing_fails() -> None:
    assert fail() == {"changed": False}
