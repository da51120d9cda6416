# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The moment in a run of ansible-playbook at which a test does something to its nodes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

# With this in its environment, a run says what run_until waits for.
WATCHED = {
    "ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).with_name("callbacks")),
    "ANSIBLE_CALLBACKS_ENABLED": "task_actions",
    "PYTHONUNBUFFERED": "1",
}


def task(action: str = r"\S+", tag: str = "") -> str:
    """A pattern for the line of a task that begins; names of tasks and plays are for people, and change."""
    return f"^TASK-ACTION {action} .*{tag}"


def run_until(process: subprocess.Popen[str], moment: str) -> str:
    """What a run says up to the line that matches. One that ends without such a line proves nothing, and fails."""
    assert process.stdout
    text = ""
    for line in process.stdout:
        text += line
        if re.search(moment, line):
            return text
    pytest.fail(f"the run ended with {process.wait()}, and no line was like {moment}:\n{text}")
