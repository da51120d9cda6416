# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import time

import pytest
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.node import (
    BEGIN,
    END,
    SCRIPT,
    Node,
    has_ended,
    judge_clock,
    judge_command,
    judge_disk,
    judge_python,
    judge_sudo,
    parse_node,
)
from hypothesis import given, settings, strategies

DF = "overlay          80000000 3000000 {} 4% /"
WELL = {
    "uid": ["0"],
    "epoch": ["1000000"],
    "boot": ["b"],
    "pidns": ["pid:[1]"],
    "python": ["/usr/bin/python3 3.11.2"],
    "space": ["Filesystem 1024-blocks Used Available Capacity Mounted on", DF.format(80000000), DF.format(80000000)],
    "inodes": [DF.format(5000000)],
}


def _node(noise: str = "", **changes: list[str]) -> Node:
    return Node(noise, {**WELL, **changes})


def _codes(node: Node) -> list[str]:
    judged = [judge_python(node), judge_sudo(node), judge_clock(node, 1000000), judge_disk(node)]
    return [sick.code for sick in judge_command(node)] + [sick.code for _evidence, found in judged for sick in found]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"no_home": ["/home/me"]}, ["home_missing"]),
        ({"python": []}, ["python_missing"]),
        ({"python": ["/usr/bin/python3 Permission denied"]}, ["python_missing"]),
        ({"python": ["/usr/bin/python3 3.6.8"]}, ["python_old"]),
        ({"python": ["/usr/bin/python3 3.6.8", "/usr/bin/python3.11 3.11.2"]}, []),
        ({"python": ["/usr/bin/python3 4.0.0"]}, []),
        ({"uid": ["1000"], "sudo": ["ok"]}, []),
        ({"uid": ["1000"], "sudo": ["sudo: a password is required"]}, ["sudo_password"]),
        ({"uid": ["1000"], "sudo": ["sudo: interactive authentication is required"]}, ["sudo_password"]),
        ({"uid": ["1000"], "sudo": ["missing"]}, ["sudo_missing"]),
        ({"uid": ["1000"], "sudo": ["sudo: sorry, you must have a tty to run sudo"]}, ["sudo_refused"]),
        ({"uid": ["1000"], "sudo": [""]}, ["sudo_refused"]),
        ({"epoch": ["1000060"]}, []),
        ({"epoch": ["1000061"]}, ["clock_off"]),
        ({"epoch": ["999400"]}, ["clock_off"]),
        ({"epoch": ["date: not found"]}, []),
        ({"space": [DF.format(102399)]}, ["disk_full"]),
        ({"space": [DF.format(-20)]}, ["disk_full"]),
        ({"space": ["//server/a share  100 90 10 90% /mnt/a b"]}, ["disk_full"]),
        ({"space": [""]}, []),
        ({"inodes": [DF.format(999)]}, ["inodes_full"]),
        ({"inodes": ["/dev/sda1 0 0 0 - /", "devfs 0 0 0 0% /"]}, []),
        ({"not_writable": ["/tmp"]}, ["disk_not_writable"]),
    ],
)
def test_judgement(changes: dict[str, list[str]], expected: list[str]) -> None:
    assert _codes(_node(**changes)) == expected


def test_noise_is_quoted() -> None:
    (sick,) = judge_command(_node("Welcome\n  to\x1b[2J node 7\n"))
    assert (sick.code, sick.seen) == ("shell_noise", "24 characters: Welcome to?[2J node 7")


def test_the_clock_tells_which_way() -> None:
    (_evidence, (sick,)) = judge_clock(_node(epoch=["999400"]), 1000000.9)
    assert sick.seen == "the node is 600 s behind"


def test_the_answer_is_cut_out_of_what_the_shell_prints() -> None:
    node = parse_node(f"Last login: today\n\n{BEGIN}\nuid=0\nnonsense\nspace=/: x\nspace=/tmp: y=z\n{END}\n")
    assert node == Node("Last login: today\n", {"uid": ["0"], "space": ["/: x", "/tmp: y=z"]})
    assert parse_node(f"{END}\n") is None


def test_a_node_that_does_not_tell_what_it_is_has_no_identity() -> None:
    assert _node().machine == "b pid:[1]"
    assert _node(boot=[""]).machine is None


@given(strategies.dictionaries(strategies.sampled_from(sorted(WELL)), strategies.lists(strategies.text())))
@settings(deadline=None)
def test_any_answer_is_judged(facts: dict[str, list[str]]) -> None:
    _codes(Node("", facts))


@pytest.mark.parametrize("shell", ["bash", "dash", "busybox"])
def test_script(shell: str, tmp_path: pathlib.Path) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    command = [shell, "sh"] if shell == "busybox" else [shell]
    start = time.time()
    finished = subprocess.run(
        command, input=SCRIPT, env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    assert finished.stderr == ""
    assert has_ended(finished.stdout.encode())
    node = parse_node(finished.stdout)
    assert node
    assert node.noise == ""
    assert node.first("uid") == str(os.getuid())
    assert abs(int(node.first("epoch")) - start) < 10
    assert node.machine
    evidence, found = judge_disk(node)
    assert found == []
    assert evidence.startswith("/ ")
    assert judge_python(node)[1] == []
    assert len(node.facts["python"]) == 1, "the first that is new enough is enough"


def test_script_waits_for_more() -> None:
    """The connection stays open for others until the shell is told that there is no more to do."""
    with subprocess.Popen(["sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shell:
        assert shell.stdin
        assert shell.stdout
        shell.stdin.write(SCRIPT.encode())
        shell.stdin.flush()
        assert any(line == f"{END}\n".encode() for line in shell.stdout)
        with pytest.raises(subprocess.TimeoutExpired):
            shell.wait(0.2)
        shell.stdin.close()
        assert shell.wait(5) == 0


def test_programs_on_the_node_do_not_read_the_script(tmp_path: pathlib.Path) -> None:
    for name, body in {"id": "echo 1000", "sudo": "cat"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    finished = subprocess.run(["sh"], input=SCRIPT, env=environment, capture_output=True, text=True, check=True)
    assert has_ended(finished.stdout.encode())
    node = parse_node(finished.stdout)
    assert node
    assert judge_sudo(node) == ("without a password", [])


def test_script_in_a_home_that_is_not_there() -> None:
    finished = subprocess.run(
        ["sh"], input=SCRIPT, env={**os.environ, "HOME": "/nowhere"}, capture_output=True, text=True, check=True
    )
    node = parse_node(finished.stdout)
    assert node
    assert [sick.code for sick in judge_command(node)] == ["home_missing"]
