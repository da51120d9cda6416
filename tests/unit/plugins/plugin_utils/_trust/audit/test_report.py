# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import typing as t
import xml.etree.ElementTree as ET

import pytest
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.audit.report import (
    WIDTH,
    Node,
    compare,
    document,
    junit,
    node_of,
    render,
)


def check(name: str, status: str = "fail", severity: str = "low", evidence: str = "seen", remedy: str = "") -> t.Any:
    if status in ("fail", "unknown") and not remedy:
        remedy = f"type {name}"
    return {
        "id": name, "title": name, "severity": severity, "cis": "", "status": status, "evidence": evidence,
        "remedy": remedy,
    }  # fmt: skip


def result(*checks: t.Any, keys: tuple[str, ...] = ()) -> dict[str, t.Any]:
    return {"checks": list(checks), "host_keys": list(keys)}


def shared(status: str = "unknown") -> t.Any:
    return check("host_key_shared", status, "high")


LOST = {"unreachable": True, "msg": "Failed to connect:\n refused\x1b[31m"}
REFUSED = {
    "msg": "for those who read no data",
    "problems": [
        {"what": "baseline", "seen": "no check is called 'x'.", "remedy": "ansible-doc gpuops.fleet.fleet_audit"}
    ],
}


def texts(*nodes: Node, every_check: bool = False) -> list[str]:
    return [line.text for line in render(nodes, every_check)]


@pytest.mark.parametrize(
    ("audited", "verdict"),
    [
        (result(check("a", "ok", "critical")), "well"),
        (result(check("a", "fail", "medium"), check("b", "unknown", "low")), "well"),
        (result(check("a", "skipped", "critical")), "well"),
        (result(check("a", "fail", "high")), "warning"),
        (result(check("a", "fail", "critical")), "warning"),
        (result(check("a", "unknown", "high")), "warning"),
        (REFUSED, "warning"),
        (LOST, "unreachable"),
        ({}, "unreachable"),
    ],
)
def test_the_verdict_is_that_of_the_worst(audited: dict[str, t.Any], verdict: str) -> None:
    assert node_of("gpu-1", audited).verdict == verdict


def test_the_worst_comes_first_and_what_is_not_known_after_what_is() -> None:
    node = node_of("gpu-1", result(check("a", "unknown", "high"), check("b", severity="low"), check("c", "ok"),
                                   check("d", severity="critical"), check("e", severity="high")))  # fmt: skip
    assert texts(node) == [
        "gpu-1  1 critical, 1 high, 1 low, 1 unknown, 1 of 5 ok",
        "  critical  d                     seen",
        "            next: type d",
        "  high      e                     seen",
        "            next: type e",
        "  unknown   a                     seen",
        "            next: type a",
        "  low       b                     seen",
        "            next: type b",
        "",
        "1 node: 1 critical, 1 high, 1 low, 1 unknown",
        "next: type d",
    ]


def test_one_command_for_several_rows_is_shown_once() -> None:
    node = node_of("gpu-1", result(check("a", remedy="type it"), check("b", remedy="type it"), check("c")))
    assert texts(node)[1:5] == [
        "  low       a                     seen",
        "  low       b                     seen",
        "            next: type it",
        "  low       c                     seen",
    ]


def test_one_reason_for_all_is_one_row() -> None:
    unknown = [check(name, "unknown", "high", "needs root", "become") for name in "abc"]
    assert texts(node_of("gpu-1", result(*unknown, check("d", "unknown"))))[:5] == [
        "gpu-1  4 unknown, 0 of 4 ok",
        "  unknown   3 checks              needs root",
        "            next: become",
        "  unknown   d                     seen",
        "            next: type d",
    ]


def test_what_is_in_order_is_shown_on_request() -> None:
    node = node_of("gpu-1", result(check("a", "ok"), check("b", "skipped")))
    assert texts(node) == ["gpu-1  1 of 1 ok", "", "1 node: all is well"]
    assert texts(node, every_check=True)[1:3] == [
        "  ok        a                     seen",
        "  skipped   b                     seen",
    ]


def test_long_evidence_stays_within_the_width() -> None:
    lines = texts(node_of("gpu-1", result(check("a", evidence="word " * 60))))
    assert max(map(len, lines)) <= WIDTH
    assert " ".join(" ".join(lines[1:6]).split()).count("word") == 60


def test_nodes_that_were_not_audited_are_listed_with_their_reason_once() -> None:
    well = node_of("gpu-1", result(check("a", "ok")))
    refused = [node_of(host, REFUSED) for host in ("gpu-2", "gpu-3")]
    assert texts(well, *refused, node_of("gpu-4", LOST), node_of("gpu-5", {}))[1:] == [
        "gpu-2, gpu-3  not audited",
        "  baseline: no check is called 'x'",
        "  next: ansible-doc gpuops.fleet.fleet_audit",
        "gpu-4  not audited",
        "  Failed to connect: refused?[31m",
        "  next: ansible-playbook gpuops.fleet.doctor --limit gpu-4",
        "gpu-5  not audited",
        "  nothing was returned for it",
        "  next: ansible-playbook gpuops.fleet.doctor --limit gpu-5",
        "",
        "5 nodes: 4 not audited",
        "next: ansible-doc gpuops.fleet.fleet_audit",
    ]


def test_colours_say_how_bad_it_is() -> None:
    nodes = [
        node_of("red", result(check("a", severity="high"))),
        node_of("yellow", result(check("a", severity="low"))),
        node_of("green", result(check("a", "ok"), check("b", severity="info"))),
    ]
    colors = {line.text.split()[0]: line.color for line in render(nodes, every_check=False) if line.text}
    assert [colors[name] for name in ("red", "yellow", "green", "high", "low", "info")] == [
        "red", "yellow", "green", "red", "yellow", None,
    ]  # fmt: skip


def test_a_host_key_on_two_nodes_is_found() -> None:
    nodes = compare([
        node_of("gpu-1", result(shared(), keys=("SHA256:a", "SHA256:b"))),
        node_of("gpu-2", result(shared(), keys=("SHA256:b",))),
        node_of("gpu-3", result(shared(), keys=("SHA256:c",))),
        node_of("gpu-4", result(shared("skipped"), keys=("SHA256:b",))),
        node_of("gpu-5", result(shared())),
        node_of("gpu-6", LOST),
    ])  # fmt: skip
    found = [node.checks[0]["status"] if node.checks else None for node in nodes]
    assert found == ["fail", "fail", "ok", "skipped", "unknown", None]
    assert nodes[0].checks[0]["evidence"] == "gpu-1 and gpu-2 and gpu-4 have SHA256:b"
    assert " -l gpu-1 " in nodes[0].checks[0]["remedy"]
    assert nodes[2].checks[0]["evidence"] == "nodes compared: 4"


def test_one_node_alone_shares_nothing_and_is_not_called_ok() -> None:
    (node,) = compare([node_of("gpu-1", result(shared(), keys=("SHA256:a",)))])
    assert node.checks[0]["status"] == "skipped"


def test_the_document_holds_all_and_is_json() -> None:
    nodes = [node_of("gpu-1", result(check("a", severity="high"), check("b", "ok"))), node_of("gpu-2", LOST)]
    report = json.loads(json.dumps(document(nodes)))
    assert report["summary"] == {
        "critical": 0, "high": 1, "medium": 0, "low": 0, "info": 0, "unknown": 0, "ok": 1, "skipped": 0,
        "not_audited": 1,
    }  # fmt: skip
    assert [each["verdict"] for each in report["nodes"].values()] == ["warning", "unreachable"]
    assert report["nodes"]["gpu-1"]["checks"][0]["remedy"] == "type a"
    assert report["nodes"]["gpu-2"]["remedy"] == "ansible-playbook gpuops.fleet.doctor --limit gpu-2"


def test_junit_has_a_suite_for_each_node_and_a_case_for_each_check() -> None:
    checks = [check("a", severity="high", evidence="1 < 2 & \"3\""), check("b", "unknown"), check("c", "skipped"),
              check("d", "ok"), check("e", severity="info"), check("f", "unknown", "info")]  # fmt: skip
    root = ET.fromstring(junit([node_of("gpu-1", result(*checks)), node_of("gpu-2", LOST)]))
    first, second = root.findall("testsuite")
    assert first.attrib == {"name": "gpu-1", "tests": "6", "failures": "1", "errors": "1", "skipped": "3"}
    found = {case.attrib["name"]: [(each.tag, each.get("message"), each.text) for each in case] for case in first}
    assert found == {
        "a": [("failure", '1 < 2 & "3"', "type a")],
        "b": [("error", "seen", "type b")],
        "c": [("skipped", "seen", None)],
        "d": [],
        "e": [("skipped", "seen", "type e")],
        "f": [("skipped", "seen", "type f")],
    }
    assert second.attrib == {"name": "gpu-2", "tests": "1", "failures": "0", "errors": "1", "skipped": "0"}
    assert second[0][0].get("message") == "Failed to connect: refused?[31m"
