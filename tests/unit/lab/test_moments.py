# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from moments import WATCHED, run_until, task

PLAYBOOK = """
- {hosts: localhost, gather_facts: false, tags: reach, tasks: [{debug: }]}
- {hosts: localhost, gather_facts: false, tags: trust, tasks: [{ansible.builtin.set_fact: {a: b}}]}
"""


def start(folder: Path) -> subprocess.Popen[str]:
    playbook = folder / "playbook.yml"
    playbook.write_text(PLAYBOOK)
    return subprocess.Popen(
        [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", str(playbook)],
        env={**os.environ, **WATCHED},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_run_is_read_up_to_a_task(tmp_path: Path) -> None:
    with start(tmp_path) as process:
        text = run_until(process, task(tag="trust"))
        assert text.endswith("TASK-ACTION ansible.builtin.set_fact trust\n"), text
        assert "PLAY RECAP" in process.communicate()[0]


def test_a_moment_that_never_comes_is_a_failure(tmp_path: Path) -> None:
    with start(tmp_path) as process, pytest.raises(pytest.fail.Exception, match="the run ended with 0, and no line"):
        run_until(process, task("gpuops.fleet.sshd_policy"))
