# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.locks import Holder, LockHeld, acquire


@pytest.fixture
def other() -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def test_second_process_is_refused_and_told_who_holds_it(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    acquire(tmp_path / "lock", other.pid, dry_run=False)
    with pytest.raises(LockHeld, match=f"process {other.pid} .*ps -fp {other.pid}"):
        acquire(tmp_path / "lock", os.getpid(), dry_run=False)
    assert json.loads((tmp_path / "lock").read_text())["pid"] == other.pid


def test_the_same_process_may_take_it_again(tmp_path: Path) -> None:
    acquire(tmp_path / "lock", os.getpid(), dry_run=False)
    acquire(tmp_path / "lock", os.getpid(), dry_run=False)


def test_lock_of_a_killed_process_is_free(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    acquire(tmp_path / "lock", other.pid, dry_run=False)
    other.kill()
    other.wait()
    acquire(tmp_path / "lock", os.getpid(), dry_run=False)


def test_a_later_process_with_the_same_number_does_not_hold_it(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    now = Holder.of(other.pid)
    (tmp_path / "lock").write_text(json.dumps({"host": now.host, "pid": now.pid, "started": "Thu Jan  1 1970"}))
    acquire(tmp_path / "lock", os.getpid(), dry_run=False)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux says it in ticks")
def test_lock_is_held_also_when_the_clock_was_adjusted(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    """Then ps says that the same process started a second earlier or later."""
    now = asdict(Holder.of(other.pid))
    (tmp_path / "lock").write_text(json.dumps({**now, "started": "Thu Jan  1 1970"}))
    with pytest.raises(LockHeld):
        acquire(tmp_path / "lock", os.getpid(), dry_run=False)


def test_lock_of_another_machine_is_held(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": "now"}))
    with pytest.raises(LockHeld, match="elsewhere.*rm "):
        acquire(tmp_path / "lock", os.getpid(), dry_run=False)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', "nonsense"])
def test_damaged_lock_is_free(tmp_path: Path, text: str) -> None:
    (tmp_path / "lock").write_text(text)
    acquire(tmp_path / "lock", os.getpid(), dry_run=False)


def test_dry_run_writes_nothing(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    acquire(tmp_path / "new" / "lock", os.getpid(), dry_run=True)
    assert not (tmp_path / "new").exists()
    acquire(tmp_path / "lock", other.pid, dry_run=False)
    with pytest.raises(LockHeld):
        acquire(tmp_path / "lock", os.getpid(), dry_run=True)


def test_lock_is_private(tmp_path: Path) -> None:
    acquire(tmp_path / "ssh" / "lock", os.getpid(), dry_run=False)
    assert (tmp_path / "ssh").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "ssh" / "lock").stat().st_mode & 0o777 == 0o600
