# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the audit found on all nodes, compared with one another, as text, as JSON and as JUnit's XML.

This plugin util is PRIVATE to the collection.
"""

from __future__ import annotations

import textwrap
import typing as t
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import Problem, problems_of
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.text import printable
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.causes import CAUSES
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.doctor_report import (
    GREEN,
    RED,
    UNREACHABLE,
    WARNING,
    WELL,
    YELLOW,
    Line,
)
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.audit.checks import SEVERITIES, SHARED
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.audit.findings import FAIL, OK, SKIPPED, UNKNOWN

WIDTH = 100
_ID_WIDTH = 20
_WORD_WIDTH = 8
_SERIOUS = SEVERITIES[-2:]
_COLORS = {"critical": RED, "high": RED, "medium": YELLOW, "low": YELLOW, UNKNOWN: YELLOW, "ok": GREEN}

Result = dict[str, str]


@dataclass(frozen=True)
class Node:
    """One host of the inventory: its checks, or why there are none."""

    host: str
    checks: tuple[Result, ...] = ()
    host_keys: tuple[str, ...] = ()
    reason: str = ""
    remedy: str = ""
    unreachable: bool = False

    @property
    def findings(self) -> list[Result]:
        """Return what failed or is not known, the worst first."""
        found = [check for check in self.checks if check["status"] in (FAIL, UNKNOWN)]
        return sorted(found, key=lambda check: (-SEVERITIES.index(check["severity"]), check["status"] == UNKNOWN))

    @property
    def verdict(self) -> str:
        """In the words of ssh_doctor_verdict. What is serious and not known is not well."""
        if self.unreachable:
            return UNREACHABLE
        if self.reason or any(check["severity"] in _SERIOUS for check in self.findings):
            return WARNING
        return WELL


def node_of(host: str, result: dict[str, t.Any]) -> Node:
    """Return the node of what fleet_audit returned for a host, also of a result that failed."""
    if "checks" in result:
        return Node(host, tuple(result["checks"]), tuple(result["host_keys"]))
    # What is not of this collection, as a lost connection, has only a message.
    problems = problems_of(result.get("problems"), host) or [
        Problem(str(result.get("msg", "nothing was returned for it")))
    ]
    # Without the host, so that nodes with one problem are shown together.
    reason = "; ".join(replace(problem, host="").cause for problem in problems)
    return Node(
        host,
        reason=printable(" ".join(reason.split())),
        remedy=printable(problems[0].next_step) or f"ansible-playbook gpuops.fleet.doctor --limit {host}",
        unreachable=bool(result.get("unreachable", not result)),
    )


def compare(nodes: Sequence[Node]) -> list[Node]:
    """Judge what only shows when nodes are compared: one host key on several of them."""
    holders: dict[str, list[str]] = {}
    for node in nodes:
        for fingerprint in node.host_keys:
            holders.setdefault(fingerprint, []).append(node.host)
    audited = sum(bool(node.host_keys) for node in nodes)
    compared = []
    for node in nodes:
        shared = [fingerprint for fingerprint in node.host_keys if len(holders[fingerprint]) > 1]
        if not node.host_keys:
            compared.append(node)
            continue
        if shared:
            outcome = {
                "status": FAIL,
                "evidence": "; ".join(f"{' and '.join(holders[each])} have {each}" for each in shared),
                "remedy": CAUSES["shared_host_key"].remedy.format(alias=node.host, fingerprint=shared[0]),
            }
        elif audited > 1:
            outcome = {"status": OK, "evidence": f"nodes compared: {audited}", "remedy": ""}
        else:
            outcome = {"status": SKIPPED, "evidence": "no other node was audited", "remedy": ""}
        checks = [
            {**check, **outcome} if check["id"] == SHARED and check["status"] != SKIPPED else check
            for check in node.checks
        ]
        compared.append(Node(node.host, tuple(checks), node.host_keys))
    return compared


def document(nodes: Sequence[Node]) -> dict[str, t.Any]:
    """Everything for machines."""
    return {
        "summary": {**_count(nodes), "not_audited": sum(bool(node.reason) for node in nodes)},
        "nodes": {
            node.host: {
                "verdict": node.verdict,
                "reason": node.reason,
                "remedy": node.remedy,
                "checks": list(node.checks),
                "host_keys": list(node.host_keys),
            }
            for node in nodes
        },
    }


def _count(nodes: Sequence[Node]) -> dict[str, int]:
    """Return how many checks failed by severity, the worst first, and how many ended otherwise."""
    counted = Counter(
        check["severity"] if check["status"] == FAIL else check["status"] for node in nodes for check in node.checks
    )
    return {word: counted[word] for word in (*reversed(SEVERITIES), UNKNOWN, OK, SKIPPED)}


def junit(nodes: Sequence[Node]) -> str:
    """One test suite for each node, one test case for each check.

    What is only worth knowing is no failure there, and what is not known is an error.
    """
    root = ET.Element("testsuites", name="gpuops.fleet.audit")
    for node in nodes:
        checks: Sequence[Result] = node.checks or [
            {"id": "audit", "severity": "high", "status": UNKNOWN, "evidence": node.reason, "remedy": node.remedy}
        ]
        suite = ET.SubElement(root, "testsuite", name=node.host, tests=str(len(checks)))
        tags: Counter[str] = Counter()
        for check in checks:
            case = ET.SubElement(suite, "testcase", classname=f"gpuops.fleet.audit.{node.host}", name=check["id"])
            tag = {FAIL: "failure", UNKNOWN: "error", SKIPPED: "skipped"}.get(check["status"])
            if tag and check["severity"] == "info":
                tag = "skipped"
            if tag:
                tags[tag] += 1
                told = ET.SubElement(case, tag, message=check["evidence"])
                if tag != "skipped":
                    told.set("type", check["severity"])
                told.text = check["remedy"]
        suite.attrib.update(failures=str(tags["failure"]), errors=str(tags["error"]), skipped=str(tags["skipped"]))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def render(nodes: Sequence[Node], every_check: bool) -> list[Line]:
    """A table for each node, the worst first, then a line for the fleet and what to type first."""
    width = max((len(node.host) for node in nodes), default=0)
    lines: list[Line] = []
    for node in nodes:
        if not node.reason:
            lines += [_heading(node, width), *_table(node, every_check)]
    for reason, remedy in dict.fromkeys((node.reason, node.remedy) for node in nodes if node.reason):
        hosts = [node.host for node in nodes if (node.reason, node.remedy) == (reason, remedy)]
        lines.append(Line(f"{', '.join(hosts)}  not audited", RED))
        lines += [Line(f"  {text}", RED) for text in textwrap.wrap(reason, WIDTH - 2)]
        lines.append(Line(f"  next: {remedy}"))
    return [*lines, Line(""), *_summary(nodes)]


def _heading(node: Node, width: int) -> Line:
    counted = _count([node])
    worst = next((word for word in _COLORS if counted[word]), OK)
    found = [f"{counted[word]} {word}" for word in (*reversed(SEVERITIES), UNKNOWN) if counted[word]]
    judged = len(node.checks) - counted[SKIPPED]
    return Line(f"{node.host.ljust(width)}  {', '.join([*found, f'{counted[OK]} of {judged} ok'])}", _COLORS[worst])


def _table(node: Node, every_check: bool) -> list[Line]:
    rows = []
    for check in node.findings:
        word = check["severity"] if check["status"] == FAIL else UNKNOWN
        # Without root it is one reason for all.
        alike = [other for other in node.findings if _unknown_alike(other, check)]
        if not alike:
            rows.append((word, check["id"], check["evidence"], check["remedy"]))
        elif alike[0] is check:
            name = check["id"] if len(alike) == 1 else f"{len(alike)} checks"
            rows.append((word, name, check["evidence"], check["remedy"]))
    if every_check:
        well = [check for check in node.checks if check["status"] in (OK, SKIPPED)]
        rows += [(check["status"], check["id"], check["evidence"], "") for check in well]
    lines = []
    for number, (word, name, evidence, remedy) in enumerate(rows):
        color = _COLORS.get(word)
        margin = f"  {word:<{_WORD_WIDTH}}  {name:<{_ID_WIDTH}}  "
        wrapped = textwrap.wrap(evidence, WIDTH - len(margin)) or [""]
        lines.append(Line(margin + wrapped[0], color))
        lines += [Line(" " * len(margin) + text, color) for text in wrapped[1:]]
        # One command for several rows stands below the last of them.
        if remedy and [row[3] for row in rows[number + 1 : number + 2]] != [remedy]:
            lines.append(Line(f"  {'':<{_WORD_WIDTH}}  next: {remedy}"))
    return lines


def _unknown_alike(one: Result, other: Result) -> bool:
    return one["status"] == other["status"] == UNKNOWN and one["evidence"] == other["evidence"]


def _summary(nodes: Sequence[Node]) -> list[Line]:
    counted = _count(nodes)
    gone = sum(bool(node.reason) for node in nodes)
    parts = [f"{counted[word]} {word}" for word in (*reversed(SEVERITIES), UNKNOWN) if counted[word]]
    if gone:
        parts.append(f"{gone} not audited")
    worst = RED if gone else _COLORS[next((word for word in _COLORS if counted[word]), OK)]
    lines = [Line(f"{len(nodes)} node{'s' if len(nodes) != 1 else ''}: {', '.join(parts) or 'all is well'}", worst)]
    todo = [(SEVERITIES.index(check["severity"]), check["remedy"]) for node in nodes for check in node.findings[:1]]
    todo += [(len(SEVERITIES), node.remedy) for node in nodes if node.reason]
    if todo:
        lines.append(Line(f"next: {max(todo, key=lambda each: each[0])[1]}", worst))
    return lines
