# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes that come late, and nodes that are lost in the middle of site.yml."""

from __future__ import annotations

import threading
import typing as t
from dataclasses import replace

import pytest
from moments import WATCHED, run_until, task

if t.TYPE_CHECKING:
    from integration.conftest import Fleet, Node, Run

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("bad-input")]

LOSE = "systemctl stop ssh; pkill -KILL sshd || true"


def site_losing(fleet: Fleet, *lost: str) -> Run:
    """Run site.yml, and take the sshd of nodes away when their second floor begins."""
    process = fleet.start(within=("env", *(f"{name}={value}" for name, value in WATCHED.items())))
    text = run_until(process, task(tag="trust"))
    for name in lost:
        fleet.nodes[name].sh(LOSE)
    run = fleet.end(process)
    assert "Traceback" not in text + run.text
    return replace(run, text=text + run.text)


def test_node_that_is_lost_ends_with_the_doctors_verdict(settled_fleet: Fleet) -> None:
    run = site_losing(settled_fleet, "gpu-2")
    assert run.rc in (2, 4), run.text
    assert run.is_complete("gpu-1"), run.text
    complaints = run.complaints()
    assert list(complaints) == ["gpu-2"]
    cause, command = complaints["gpu-2"]
    assert "nothing listens on this port" in cause, cause
    assert "ssh -v" in command


def test_node_that_is_lost_and_answers_again_is_not_complete(settled_fleet: Fleet) -> None:
    process = settled_fleet.start(within=("env", *(f"{name}={value}" for name, value in WATCHED.items())))
    text = run_until(process, task(tag="trust"))
    settled_fleet.nodes["gpu-2"].sh(LOSE)
    text += run_until(process, task(tag="see"))
    settled_fleet.nodes["gpu-2"].sh("systemctl start ssh")
    run = settled_fleet.end(process)
    text += run.text
    assert run.rc in (2, 4), text
    assert run.is_complete("gpu-1"), text
    assert run.complaints() == {
        "gpu-2": (
            "the connection was lost on the floor trust, which is not complete, and the node answers again",
            "ansible-playbook site.yml --limit gpu-2",
        )
    }


def test_table_is_there_when_every_node_is_lost(settled_fleet: Fleet) -> None:
    run = site_losing(settled_fleet, "gpu-1", "gpu-2")
    assert run.rc in (2, 4), run.text
    assert sorted(run.complaints()) == ["gpu-1", "gpu-2"]


def test_node_that_is_still_starting_is_waited_for(settled_fleet: Fleet) -> None:
    hosts = {name: {**host, "ssh_bootstrap_attempts": 4} for name, host in settled_fleet.hosts.items()}
    fleet = replace(settled_fleet, hosts=hosts)
    node: Node = fleet.nodes["gpu-1"]
    node.sh(LOSE)
    late = threading.Timer(12, node.sh, ["systemctl start ssh"])
    late.start()
    run = fleet.site("--tags", "reach")
    waited = not late.is_alive()
    late.join()
    assert run.rc == 0, run.text
    assert waited, run.text
