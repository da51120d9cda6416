# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Python of make test-matrix."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from places import REPOSITORY

# As pyenv's own, where that version is not the active one.
SHIM = "echo 'pyenv: python3.13: command not found' >&2; exit 127"
ON_PATH, OF_PYENV = "bin/python3.13", ".pyenv/versions/3.13.5/bin/python3"


def run(home: Path, *command: str, **pythons: str) -> subprocess.CompletedProcess[str]:
    """Run a command on a machine that has nothing but these Pythons, each with what it does."""
    for name, body in pythons.items():
        python = home / {"on_path": ON_PATH, "of_pyenv": OF_PYENV}[name]
        python.parent.mkdir(parents=True)
        python.write_text(f"#!/bin/sh\n{body}\n")
        python.chmod(0o755)
    env = {"HOME": str(home), "PATH": str(home / "bin")}
    return subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, text=True, check=False, timeout=30)


@pytest.mark.parametrize(
    ("pythons", "expected"),
    [
        ({"on_path": "exit 0"}, ON_PATH),
        ({"on_path": SHIM, "of_pyenv": "exit 0"}, OF_PYENV),
        ({"on_path": "exit 0", "of_pyenv": "exit 0"}, ON_PATH),
        ({"of_pyenv": "exit 0"}, OF_PYENV),
    ],
)
def test_a_python_that_runs_is_taken(tmp_path: Path, pythons: dict[str, str], expected: str) -> None:
    found = run(tmp_path, "tests/find_python.sh", **pythons)
    assert (found.returncode, found.stdout, found.stderr) == (0, f"{tmp_path / expected}\n", "")


@pytest.mark.parametrize("pythons", [{}, {"on_path": SHIM}, {"on_path": SHIM, "of_pyenv": SHIM}])
def test_without_one_make_says_so_and_does_nothing(tmp_path: Path, pythons: dict[str, str]) -> None:
    done = run(tmp_path, str(shutil.which("make")), "test-matrix", **pythons)
    assert done.returncode == 2
    assert done.stderr.startswith("test-matrix: no Python 3.13 here, so ansible-core 2.21 was not tried\n")
    assert "Error 1\n" in done.stderr
    assert done.stdout == ""
