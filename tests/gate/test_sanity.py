# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ansible-test sanity, without ignore entries, with every Python that is found here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def test_sanity_finds_nothing() -> None:
    found = sorted(Path.home().glob(".pyenv/versions/3.*/bin"))
    # The newest patch release of each is enough, and ansible-test takes the first of a kind.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], *map(str, found)])
    sanity = subprocess.run(
        [REPOSITORY / "tests" / "ansible-test.sh", "sanity"],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert sanity.returncode == 0, sanity.stdout + sanity.stderr
    assert not list((REPOSITORY / "tests" / "sanity").glob("ignore-*.txt"))
