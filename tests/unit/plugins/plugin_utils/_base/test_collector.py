# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.collector import (
    CollectorError,
    command,
    new_marker,
    no_answer,
    quoted_script,
    read_sections,
)

MARKER = "gpuops-0011"
ANSWER = f"\n{MARKER} node\nuid=0\n\n{MARKER} files\nfile a\nfile b\n\n{MARKER} end\n"


def test_a_script_arrives_whole_in_any_shell(tmp_path: Path) -> None:
    script = tmp_path / "collector.sh"
    script.write_text('#!/bin/sh\n# why\n\nif true; then\n    printf "%s|" "$0" "$@" # here too\nfi\n')
    line = command(quoted_script(script), "probe", MARKER, 60, "a b", "$(id)")
    assert "why" not in line
    assert "    " not in line
    # As sshd runs it, by the login shell of the user.
    run = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True)
    assert run.stdout == f"probe|{MARKER}|60|a b|$(id)|"
    assert shlex.split(line)[:2] == ["/bin/sh", "-c"]


def test_markers_are_new_each_time() -> None:
    assert new_marker() != new_marker()


@pytest.mark.parametrize("text", [ANSWER, f"Welcome!\n{ANSWER}bye\n", ANSWER.replace("\n", "\r\n")])
def test_sections(text: str) -> None:
    sections = read_sections(text, MARKER, ["node", "files"], 1000)
    assert (sections["node"], sections["files"]) == ("uid=0\n", "file a\nfile b\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "did not answer"),
        ("sh: not found\n", "did not answer"),
        (ANSWER.replace(MARKER, "gpuops-2222"), "did not answer"),
        (ANSWER[: ANSWER.index(" end")], "is incomplete"),
        (ANSWER.replace(" files\n", " other\n"), "is incomplete"),
        (ANSWER + "x" * 5_000_000, "longer than 4 MB"),
    ],
)
def test_an_answer_that_is_not_whole_is_refused(text: str, message: str) -> None:
    with pytest.raises(CollectorError, match=message):
        read_sections(text, MARKER, ["node", "files"], 4_000_000)


@pytest.mark.parametrize(
    ("stderr", "stdout", "seen"),
    [
        ("sh: \x1b[31mno\nsuch file\n", "x", "exit code 127, sh: ?[31mno such file"),
        ("", "", "exit code 127, no output"),
        ("", "a" * 900, f"exit code 127, {'a' * 500}"),
    ],
)
def test_what_came_instead_is_shown(stderr: str, stdout: str, seen: str) -> None:
    answered = {"rc": 127, "stdout": stdout, "stderr": stderr}
    problem = no_answer(CollectorError("the collector did not answer"), "gpu_probe", "gpu-1", answered)
    assert (problem.what, problem.seen, problem.host) == ("gpu_probe: the collector did not answer", seen, "gpu-1")
