# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import typing as t

import pytest
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.doctor_report import (
    GREEN,
    RED,
    YELLOW,
    Node,
    compare,
    count,
    document,
    render,
)


def stage(name: str, status: str = "ok", ms: int = 10, evidence: str = "seen") -> dict[str, t.Any]:
    return {"stage": name, "status": status, "ms": ms, "evidence": evidence}


def cause(code: str, remedy: str = "type this") -> dict[str, t.Any]:
    return {"code": code, "meaning": f"meaning of {code}", "seen": f"sight of {code}", "remedy": remedy}


def examined(**changes: t.Any) -> dict[str, t.Any]:
    return {
        "ok": True,
        "stages": [stage("tcp"), stage("login"), stage("sftp")],
        "cause": None,
        "concerns": [],
        "jump_hosts": [],
        "machine": None,
        "host_key_fingerprint": None,
        **changes,
    }


WELL = Node("gpu-1", examined())
WITHOUT_SFTP = Node(
    "gpu-22",
    examined(stages=[stage("tcp"), stage("sftp", "warn", 30, "subsystem request failed")], concerns=[cause("a")]),
)
OFF = Node(
    "gpu-3",
    examined(
        ok=False,
        stages=[stage("resolve"), stage("tcp", "fail", 10004, "timed out"), stage("login", "skipped", 0, "tcp failed")],
        cause=cause("off", "look at the console"),
        concerns=[cause("key_pub_mismatch")],
    ),
)


def texts(nodes: list[Node], every_stage: bool = False) -> list[str]:
    return [line.text for line in render(nodes, every_stage)]


def test_fleet_with_a_node_of_each_kind() -> None:
    assert texts([WELL, WITHOUT_SFTP, OFF]) == [
        "gpu-1     0.03 s  well",
        "gpu-22    0.04 s  warning",
        "  sftp          0.03 s  warn  subsystem request failed",
        "gpu-3    10.01 s  unreachable",
        "  resolve       0.01 s  ok    seen",
        "  tcp          10.00 s  FAIL  timed out",
        "",
        "gpu-3: meaning of off (off)",
        "  seen: sight of off",
        "  next: look at the console",
        "",
        "gpu-22: meaning of a (a)",
        "  seen: sight of a",
        "  next: type this",
        "",
        "3 nodes: 1 well, 1 warning, 1 unreachable",
    ]


def test_fleet_that_is_well_has_a_line_for_each_node_and_one_for_all() -> None:
    assert texts([WELL, Node("gpu-2", examined())]) == [
        "gpu-1    0.03 s  well",
        "gpu-2    0.03 s  well",
        "",
        "2 nodes: 2 well",
    ]


def test_one_node() -> None:
    assert texts([WELL])[-1] == "1 node: 1 well"


def test_every_stage_shows_those_of_a_well_node_too() -> None:
    assert texts([WELL], every_stage=True)[1:4] == [
        "  tcp           0.01 s  ok    seen",
        "  login         0.01 s  ok    seen",
        "  sftp          0.01 s  ok    seen",
    ]


def test_colors_say_how_bad_it_is() -> None:
    colors = {line.text.split()[0]: line.color for line in render([WELL, WITHOUT_SFTP, OFF], False) if line.text}
    assert colors["gpu-1"] == colors["resolve"] == GREEN
    assert colors["gpu-22"] == colors["sftp"] == colors["gpu-22:"] == YELLOW
    assert colors["gpu-3"] == colors["tcp"] == colors["gpu-3:"] == RED
    assert [render(nodes, False)[-1].color for nodes in ([WELL], [WELL, WITHOUT_SFTP], [WITHOUT_SFTP, OFF])] == [
        GREEN,
        YELLOW,
        RED,
    ]


@pytest.mark.parametrize(
    ("every_stage", "shown"), [(False, ["bastion-2"]), (True, ["bastion-1", "bastion-2"])], ids=["short", "all"]
)
def test_jump_host_that_fails_is_shown_with_its_stages(every_stage: bool, shown: list[str]) -> None:
    jumps = [
        {"host": "bastion-1", "ok": True, "stages": [stage("tcp", ms=5)], "shared": [], "cause": None},
        {
            "host": "bastion-2",
            "ok": False,
            "stages": [stage("tcp"), stage("login", "fail")],
            "shared": [],
            "cause": cause("refused"),
        },
    ]
    behind = Node("gpu-4", examined(ok=False, jump_hosts=jumps, stages=[stage("tcp", "skipped", 0)], cause=cause("x")))
    lines = texts([behind], every_stage)
    assert [line.split()[-1] for line in lines if line.startswith("  jump host")] == shown
    assert "    login         0.01 s  FAIL  seen" in lines
    assert lines[0] == "gpu-4    0.03 s  unreachable"


def test_time_of_another_nodes_examination_is_not_counted_again() -> None:
    jump = {"host": "bastion", "ok": True, "stages": [stage("tcp", ms=5000), stage("login", ms=70)], "cause": None}
    first, second = (Node("gpu-1", examined(jump_hosts=[{**jump, "shared": shared}])) for shared in ([], ["tcp"]))
    assert texts([first])[0] == "gpu-1    5.10 s  well"
    assert texts([second], every_stage=True)[:3] == [
        "gpu-1    0.10 s  well",
        "  jump host bastion, as seen for another node",
        "    tcp           5.00 s  ok    seen",
    ]


def machines(*pairs: tuple[str | None, str | None]) -> list[Node]:
    return [
        Node(f"gpu-{number}", examined(machine=machine, host_key_fingerprint=key))
        for number, (machine, key) in enumerate(pairs, 1)
    ]


@pytest.mark.parametrize(
    ("nodes", "codes"),
    [
        (machines(("m1", "k1"), ("m2", "k2")), [[], []]),
        (machines(("m1", "k1"), ("m1", "k1")), [["same_machine"], ["same_machine"]]),
        (machines(("m1", "k1"), ("m2", "k1")), [["shared_host_key"], ["shared_host_key"]]),
        (
            machines(("m1", "k1"), ("m1", "k1"), ("m2", "k1")),
            [["same_machine", "shared_host_key"], ["same_machine", "shared_host_key"], ["shared_host_key"]],
        ),
        # A key says nothing of a machine that was not reached.
        (machines((None, "k1"), ("m2", "k1")), [[], []]),
        (machines((None, "k1"), ("m2", "k1"), ("m3", "k1")), [[], ["shared_host_key"], ["shared_host_key"]]),
        (machines((None, None), (None, None)), [[], []]),
    ],
    ids=["different", "twins", "clones", "both", "not-reached", "clones-beside", "nothing-known"],
)
def test_nodes_are_compared(nodes: list[Node], codes: list[list[str]]) -> None:
    compared = compare(nodes)
    assert [[found["code"] for found in node.examined["concerns"]] for node in compared] == codes
    assert [node.host for node in compared] == [node.host for node in nodes]


def test_comparison_names_both_and_what_to_type() -> None:
    twin = compare(machines(("m1", "k1"), ("m1", "k1")))[1]
    (found,) = twin.examined["concerns"]
    assert found["seen"] == "gpu-1 and gpu-2 lead to one and the same machine"
    assert "ansible-inventory --host gpu-2" in found["remedy"]
    assert twin.verdict == "warning"
    clone = compare(machines(("m1", "SHA256:k1"), ("m2", "SHA256:k1")))[0]
    (found,) = clone.examined["concerns"]
    assert found["seen"] == "gpu-1 and gpu-2 show SHA256:k1"
    assert "{" not in found["remedy"]


def test_comparison_keeps_the_warnings_that_are_there() -> None:
    nodes = machines(("m1", "k1"), ("m1", "k1"))
    nodes[0].examined["concerns"].append(cause("sftp_missing"))
    assert [found["code"] for found in compare(nodes)[0].examined["concerns"]] == ["sftp_missing", "same_machine"]
    assert len(nodes[0].examined["concerns"]) == 1


def test_document_is_json_with_everything_seen() -> None:
    nodes = [WELL, WITHOUT_SFTP, OFF]
    read = json.loads(json.dumps(document(nodes)))
    assert read["summary"] == count(nodes) == {"well": 1, "warning": 1, "unreachable": 1}
    assert list(read["nodes"]) == ["gpu-1", "gpu-22", "gpu-3"]
    assert read["nodes"]["gpu-3"] == {"verdict": "unreachable", **OFF.examined}
