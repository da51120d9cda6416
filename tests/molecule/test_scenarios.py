# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every Molecule scenario, one test each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SECONDS = 600
SCENARIOS = sorted(path.parent.name for path in REPOSITORY.glob("molecule/*/molecule.yml"))


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(scenario: str, tmp_path: Path) -> None:
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        # Two checkouts, or two versions of ansible-core, must not share nodes.
        "MOLECULE_EPHEMERAL_DIRECTORY": str(tmp_path / "m"),
        "NO_COLOR": "1",
    }
    env.pop("PYTEST_ADDOPTS", None)
    # Not among Molecule's files, which it removes at the end, also when a step has failed.
    log = tmp_path / "molecule.log"
    command = ["molecule", "test", "--scenario-name", scenario]
    try:
        with log.open("w") as out:
            rc: int | str = subprocess.run(
                command,
                cwd=REPOSITORY,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                check=False,
                timeout=SECONDS,
            ).returncode
    except subprocess.TimeoutExpired:
        rc = f"no end within {SECONDS} s"
    assert rc == 0, log.read_text()
