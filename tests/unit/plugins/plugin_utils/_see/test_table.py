# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import NODE, Problem
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.table import (
    Node,
    name_twins,
    read_node,
    table,
    with_remedy,
)

H100 = "NVIDIA H100 80GB HBM3 (simulated)"


@pytest.mark.parametrize(
    ("failure", "cause", "command"),
    [
        ("gpu-1: it is off. Next: ping gpu-1", "gpu-1: it is off", "ping gpu-1"),
        ("gpu-1 (a:22): refused; seen: x; next: ssh -v gpu-1", "gpu-1 (a:22): refused; seen: x", "ssh -v gpu-1"),
        (
            "The module interpreter '/usr/bin/python3' was not found.",
            "The module interpreter '/usr/bin/python3' was not found",
            "ssh gpu-1 apt-get install python3",
        ),
        ("a module\n  said so", "a module said so", "ansible-playbook site.yml --limit gpu-1 -vvv"),
    ],
)  # fmt: skip
def test_a_failure_is_a_cause_and_a_command(failure: str, cause: str, command: str) -> None:
    problem = with_remedy(Problem(failure, host="gpu-1"), "gpu-1")
    assert (problem.cause, problem.next_step) == (cause if cause.startswith("gpu-1") else f"gpu-1: {cause}", command)


def test_two_aliases_on_one_machine_are_an_error_of_both() -> None:
    nodes = name_twins([
        Node(host="a", alias="gpu-a", machine="boot-1 pid:[1]"),
        Node(host="b", alias="gpu-b", machine="boot-1 pid:[2]"),
        Node(host="c", alias="gpu-c", machine="boot-1 pid:[1]"),
    ])  # fmt: skip
    assert [bool(node.problems) for node in nodes] == [True, False, True]
    assert "gpu-a and gpu-c" in nodes[0].problems[0].what


def test_machines_that_are_not_known_are_no_twins() -> None:
    nodes = [Node(host=name, alias=name) for name in "ab"]
    assert name_twins(nodes) == nodes


def test_a_node_keeps_the_failure_it_had() -> None:
    nodes = [Node(host=name, alias=name, machine="m", problems=[Problem("off")]) for name in "ab"]
    assert name_twins(nodes) == nodes


def test_table_shows_every_column_and_marks_failures() -> None:
    off = Problem("it is off", remedy="ping 192.0.2.2", host="gpu-2")
    lines = table([
        Node("gpu-1", "gpu-1", "192.0.2.1:22", True, True, "m1", [H100] * 8, "570.148.08", "12.8", "ok"),
        Node("gpu-2", "gpu-2", "192.0.2.2:22", False, problems=[off]),
    ])  # fmt: skip
    texts = [text for text, _failed in lines]
    assert texts[0].split() == ["alias", "address", "reachable", "hardened", "GPUs", "driver", "CUDA", "state"]
    assert f"8x {H100}" in texts[1]
    assert "NO" in texts[2]
    assert texts[-2:] == ["gpu-2: it is off", "  next: ping 192.0.2.2"]
    assert [failed for _text, failed in lines] == [False, False, True, False, True, True]


def test_what_a_node_says_does_not_steer_the_terminal() -> None:
    lines = table([Node("gpu-1", "gpu-1", driver="570\x1b[2J", problems=[Problem("gpu-1: \x1b]0;it is well\x07")])])
    assert all(text.isprintable() for text, _failed in lines)
    assert ("gpu-1: ?]0;it is well?", True) in lines


def test_cloned_host_keys_are_named_below_the_table() -> None:
    nodes = [
        Node(host=name, alias=name, machine=machine, host_key=key)
        for name, machine, key in [("a", "m1", "SHA256:x"), ("b", "m2", "SHA256:x"), ("c", "m3", "SHA256:y")]
    ]
    texts = [text for text, _failed in table(nodes)]
    assert texts[-2].startswith("a and b: one and the same host key, SHA256:x")
    assert texts[-1].endswith("ansible-playbook site.yml -e sshd_hardening_replace_host_key=SHA256:x")


def test_one_machine_with_two_names_is_no_clone() -> None:
    nodes = [Node(host=name, alias=name, machine="m1", host_key="SHA256:x") for name in "ab"]
    assert not any("host key" in text for text, _failed in table(nodes))


def test_each_problem_of_a_node_has_its_own_next_command() -> None:
    two = [
        Problem("alice has the uid 1001 here", remedy="usermod -u 2001 alice", where=NODE, host="gpu-1"),
        Problem("bob: the shell /bin/zsh is missing", remedy="install it", host="gpu-1"),
    ]
    texts = [text for text, _failed in table([Node("gpu-1", "gpu-1", problems=two)])]
    assert texts[3:5] == ["gpu-1: alice has the uid 1001 here", "  next: on the node: usermod -u 2001 alice"]
    assert texts[6:] == ["gpu-1: bob: the shell /bin/zsh is missing", "  next: install it"]


def test_a_problem_keeps_the_remedy_that_it_has() -> None:
    problem = Problem("no sshd", remedy="apt-get install openssh-server", where=NODE, host="gpu-1")
    assert with_remedy(problem, "gpu-1") == problem


def test_what_a_program_says_in_several_lines_is_one_line_of_the_table() -> None:
    problem = Problem("sshd rejects the files: line 3: Bad option\n  terminating, 1 bad option", remedy="sshd -t")
    texts = [text for text, _failed in table([Node("gpu-1", "gpu-1", problems=[problem])])]
    assert texts[-2] == "sshd rejects the files: line 3: Bad option terminating, 1 bad option"


@pytest.mark.parametrize(
    ("problems", "failure", "command"),
    [
        # A module that could not start has a problem without a remedy.
        ([{"what": "The module interpreter was not found."}], "", "ssh gpu-1 apt-get install python3"),
        ([], "The module interpreter was not found.", "ssh gpu-1 apt-get install python3"),
        ([{"what": "it is off", "remedy": "ping gpu-1"}], "a text that says less", "ping gpu-1"),
        ([{"what": ["no form"]}], "the text. Next: ssh gpu-1", "ssh gpu-1"),
    ],
)
def test_each_failure_has_a_next_command(problems: list[object], failure: str, command: str) -> None:
    (problem,) = read_node("gpu-1", "gpu-1", problems, failure).problems
    assert problem.next_step == command


def test_a_node_without_a_failure_has_no_problem() -> None:
    assert read_node("gpu-1", "gpu-1", [], "", state="ok") == Node("gpu-1", "gpu-1", state="ok")
