# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pathlib
import subprocess
import time

from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.process import Finished, Program, run_command


def test_run_command_ends_the_whole_group_at_its_limit(tmp_path: pathlib.Path) -> None:
    mark = tmp_path / "survived"
    start = time.monotonic()
    finished = run_command(["sh", "-c", f"echo early; (sleep 1.5; touch {mark}) & sleep 30"], 0.5)
    assert (finished.rc, finished.stdout) == (None, "early\n")
    assert time.monotonic() - start < 1.2
    time.sleep(1.5)
    assert not mark.exists()


def test_program_is_read_while_it_runs() -> None:
    with Program(["sh", "-c", "echo one; read x; echo $x >&2; exit 3"], stdin=subprocess.PIPE) as program:
        assert program.read(5, lambda: program.stdout == b"one\n")
        assert not program.read(0.1, lambda: bool(program.stderr))
        program.say(b"two\n")
        assert program.finish(5) == Finished(3, "one\n", "two\n")


def test_program_that_ends_early_is_not_waited_for() -> None:
    start = time.monotonic()
    with Program(["sh", "-c", "sleep 5 & echo gone"]) as program:
        assert not program.read(4, lambda: False)
        assert program.finish(4) == Finished(0, "gone\n", "")
    assert time.monotonic() - start < 2


def test_program_that_floods_is_cut_off() -> None:
    start = time.monotonic()
    with Program(["yes"]) as program:
        assert not program.read(1, lambda: False)
        assert len(program.stdout) < 1 << 22
    assert time.monotonic() - start < 3


def test_command_that_says_much_still_ends_by_itself() -> None:
    finished = run_command(["sh", "-c", "head -c 4000000 /dev/zero | tr '\\0' x; echo done >&2; exit 3"], 10)
    assert (finished.rc, finished.stderr) == (3, "done\n")
    assert len(finished.stdout) < 1 << 22
