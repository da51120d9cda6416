# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import (
    NODE,
    Problem,
    ProblemError,
    failed_result,
    on_host,
    problems_of,
)


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("it is off"), "it is off"),
        (Problem("it is off", host="gpu-1"), "gpu-1: it is off"),
        (Problem("gpu-1 is off.", host="gpu-1"), "gpu-1 is off"),
        (
            Problem("no answer", seen="exit code 127.", remedy="ping gpu-1"),
            "no answer: exit code 127. Next: ping gpu-1",
        ),
        (
            Problem("uid 7", remedy="usermod a", where=NODE, host="n"),
            "n: uid 7. Next: on the node: usermod a",
        ),
        # Two blanks within a line are the program's own, as those of nvidia-smi.
        (
            Problem("GPU is lost.  Reboot", seen="line 3: Bad option\n  terminating\n"),
            "GPU is lost.  Reboot: line 3: Bad option terminating",
        ),
    ],
)
def test_a_problem_is_one_sentence_and_the_next_command(problem: Problem, text: str) -> None:
    assert str(problem) == text


def test_an_error_carries_its_problem() -> None:
    error = ProblemError("no sshd", remedy="apt-get install openssh-server", where=NODE)
    assert error.problem.remedy == "apt-get install openssh-server"
    assert str(error) == "no sshd. Next: on the node: apt-get install openssh-server"


def test_several_problems_keep_their_own_remedies_in_a_result() -> None:
    problems = on_host([Problem("a", remedy="do a"), Problem("b", remedy="do b")], "gpu-1")
    result = failed_result(problems)
    assert result["msg"] == "gpu-1: a. Next: do a; gpu-1: b. Next: do b"
    assert problems_of(result["problems"], "gpu-1") == problems


@pytest.mark.parametrize(
    "value",
    [
        None,
        "text",
        {"what": "x"},
        [1],
        [{}],
        [{"what": ""}],
        [{"what": ["x"]}],
        [{"what": "x", "remedy": {"a": 1}}],
        [{"what": "x", "where": "elsewhere"}],
    ],
)
def test_what_has_not_the_form_of_a_problem_is_left_out(value: object) -> None:
    assert problems_of(value, "gpu-1") == []


def test_no_node_speaks_for_another() -> None:
    assert problems_of([{"what": "x", "host": "gpu-2", "more": "y"}], "gpu-1") == [Problem("x", host="gpu-1")]
