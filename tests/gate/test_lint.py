# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a reviewer's machine would find: every linter, one test each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import REPOSITORY

TREE = ".ansible/collections/ansible_collections/gpuops/fleet"
LINTERS = {
    "ruff": "ruff check .",
    "ruff-format": "ruff format --check .",
    "mypy": f"mypy {TREE}/plugins",
    "mypy-lab": "mypy $(git ls-files -co --exclude-standard 'tests/lab/*.py' docs/causes.py)",
    "yamllint": "yamllint --strict .",
    "shellcheck": "shellcheck $(git ls-files -co --exclude-standard '*.sh' .ci/run)",
    "ansible-lint": "ansible-lint --offline --strict",
    "antsibull-docs": "antsibull-docs lint-collection-docs --plugin-docs --validate-collection-refs=self"
    " --disallow-unknown-collection-refs .",
    "changelog": "antsibull-changelog lint",
    "reuse": "reuse lint --lines",
}


@pytest.mark.parametrize("command", LINTERS.values(), ids=LINTERS.keys())
def test_linter_finds_nothing(command: str) -> None:
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "NO_COLOR": "1"}
    found = subprocess.run(["sh", "-c", command], cwd=REPOSITORY, env=env, capture_output=True, text=True, check=False)
    assert found.returncode == 0, f"{command}\n{found.stdout}{found.stderr}"
