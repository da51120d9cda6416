# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The workflows for forks run what the gate runs. They are checked here, and were not run at GitHub."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from places import REPOSITORY

WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))


def test_there_are_workflows() -> None:
    assert WORKFLOWS
    assert {"lint", "unit", "test"} <= TARGETS


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_each_step_is_a_make_target_that_there_is(workflow: Path) -> None:
    jobs = yaml.safe_load(workflow.read_text())["jobs"].values()
    commands = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    assert len(commands) >= len(jobs)
    for command in commands:
        program, *targets = command.split()
        assert program == "make", command
        assert set(targets) <= TARGETS, command
