# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""make demo as a newcomer runs it: in a fresh copy, and with nothing of the user's touched."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("demo")]


def shell(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", command], cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def fingerprint(folder: Path) -> dict[str, str]:
    """Name and content of every file below a folder."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()
    }  # fmt: skip


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    copy = tmp_path_factory.mktemp("fresh") / "fleet"
    copy.mkdir()
    copied = shell(f"git ls-files -coz --exclude-standard | xargs -0 cp -P --parents -t {copy}", REPOSITORY)
    assert copied.returncode == 0, copied.stderr
    # The one thing that a newcomer waits for and this test does not.
    (copy / ".venv").symlink_to(Path(sys.prefix))
    yield copy
    shell("make demo-down", copy)


@pytest.fixture(scope="module")
def demo(checkout: Path) -> str:
    """What make demo prints."""
    before = fingerprint(Path.home() / ".ssh")
    done = shell("make demo", checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert fingerprint(Path.home() / ".ssh") == before
    return done.stdout


def test_table_tells_what_each_machine_is(demo: str) -> None:
    rows = {line.split()[0]: line for line in demo.splitlines() if re.match(r"gpu-\d +127", line)}
    assert re.search(r"yes +yes +8x NVIDIA H100 80GB HBM3 \(simulated\) +570\.\d+\.\d+ +12\.8 +ok$", rows["gpu-1"])
    assert re.search(r"yes +yes +2x NVIDIA GeForce RTX 4090 \(simulated\) +550\.163\.01 +12\.4 +ok$", rows["gpu-2"])
    assert re.search(r"yes +yes +- +- +- +driver_not_loaded$", rows["gpu-3"])
    assert re.search(r"^gpu-3: driver_not_loaded: .*nvidia-smi is installed.*\n  next: ssh gpu-3", demo, re.MULTILINE)


def test_the_three_commands_work_as_printed(demo: str, checkout: Path) -> None:
    commands = re.findall(r"^  (ssh .*|\. .*)$", demo, re.MULTILINE)
    assert len(commands) == 3
    nvidia_smi, probe, status = (shell(command, checkout) for command in commands)
    assert "NVIDIA H100 80GB HBM3 (simulated)" in nvidia_smi.stdout, nvidia_smi.stderr
    assert probe.stdout.count("SUCCESS") == 3, probe.stdout + probe.stderr
    assert re.search(r"gpu-1 .* ok$", status.stdout, re.MULTILINE), status.stdout + status.stderr
    assert status.returncode == 0


def test_demo_down_leaves_nothing(demo: str, checkout: Path) -> None:
    assert shell("make demo-down", checkout).returncode == 0
    assert not (checkout / ".demo").exists()
    left = set(os.listdir(checkout)) - {".venv"}
    tracked = shell("git ls-files -co --exclude-standard", REPOSITORY).stdout.splitlines()
    assert left == {name.split("/")[0] for name in tracked}
