# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the doctor found on each node, compared with one another, and as text for the terminal.

This plugin util is PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t
from collections import Counter
from dataclasses import dataclass

from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.causes import CAUSES

GREEN, YELLOW, RED = "green", "yellow", "red"
WELL, WARNING, UNREACHABLE = "well", "warning", "unreachable"
_COLORS = {WELL: GREEN, WARNING: YELLOW, UNREACHABLE: RED}
_STATUS = {"ok": ("ok", GREEN), "warn": ("warn", YELLOW), "fail": ("FAIL", RED)}


class Line(t.NamedTuple):
    text: str
    color: str | None = None


@dataclass(frozen=True)
class Node:
    """One host of the inventory, and what M(gpuops.fleet.ssh_doctor) returned for it."""

    host: str
    examined: dict[str, t.Any]

    @property
    def verdict(self) -> str:
        if not self.examined["ok"]:
            return UNREACHABLE
        return WARNING if self.examined["concerns"] else WELL

    @property
    def causes(self) -> list[dict[str, t.Any]]:
        """Return the causes with their remedies; the one why a node cannot be reached comes alone."""
        cause = self.examined["cause"]
        return [cause] if cause else list(self.examined["concerns"])

    @property
    def ms(self) -> int:
        """Return the milliseconds of its own examination, without stages that another node had before."""
        hops = [*self.examined["jump_hosts"], self.examined]
        own = [stage for hop in hops for stage in hop["stages"] if stage["stage"] not in hop.get("shared", ())]
        return sum(stage["ms"] for stage in own)


def compare(nodes: t.Sequence[Node]) -> list[Node]:
    """Add the concerns that only show when nodes are compared."""
    machines = _groups(nodes, "machine")
    keys = _groups([node for node in nodes if node.examined["machine"]], "host_key_fingerprint")
    compared = []
    for node in nodes:
        concerns = list(node.examined["concerns"])
        twins = machines.get(node.examined["machine"], [])
        if len(twins) > 1:
            concerns.append(_cause("same_machine", node, f"{_names(twins)} lead to one and the same machine"))
        fingerprint = node.examined["host_key_fingerprint"]
        sharers = keys.get(fingerprint, [])
        if node in sharers and len({sharer.examined["machine"] for sharer in sharers}) > 1:
            concerns.append(_cause("shared_host_key", node, f"{_names(sharers)} show {fingerprint}"))
        compared.append(Node(node.host, {**node.examined, "concerns": concerns}))
    return compared


def document(nodes: t.Sequence[Node]) -> dict[str, t.Any]:
    """Everything for machines: the nodes by name, each with its verdict, and how many have which."""
    return {
        "summary": count(nodes),
        "nodes": {node.host: {"verdict": node.verdict, **node.examined} for node in nodes},
    }


def count(nodes: t.Sequence[Node]) -> dict[str, int]:
    """Return how many nodes have which verdict."""
    verdicts = Counter(node.verdict for node in nodes)
    return {verdict: verdicts[verdict] for verdict in (WELL, WARNING, UNREACHABLE)}


def render(nodes: t.Sequence[Node], every_stage: bool) -> list[Line]:
    """The tree of the nodes, then for each sick one what to type, the worst first, then one line for the fleet."""
    width = max((len(node.host) for node in nodes), default=0)
    lines = []
    for node in nodes:
        heading = f"{node.host.ljust(width)}  {_seconds(node.ms)}  {node.verdict}"
        lines.append(Line(heading, _COLORS[node.verdict]))
        lines += _tree(node, every_stage)
    for node in sorted(nodes, key=lambda node: node.verdict != UNREACHABLE):
        for cause in node.causes:
            color = _COLORS[node.verdict]
            lines += [
                Line(""),
                Line(f"{node.host}: {cause['meaning']} ({cause['code']})", color),
                Line(f"  seen: {cause['seen']}"),
                Line(f"  next: {cause['remedy']}", color),
            ]
    return [*lines, Line(""), _summary(nodes)]


def _tree(node: Node, every_stage: bool) -> list[Line]:
    """The stages of a sick node up to the one that failed; of a node in order only what is out of order."""
    lines = []
    for jump in node.examined["jump_hosts"]:
        if every_stage or not jump["ok"]:
            seen = ", as seen for another node" if jump.get("shared") else ""
            lines.append(Line(f"  jump host {jump['host']}{seen}", GREEN if jump["ok"] else RED))
            lines += _stages(jump["stages"], "    ", True)
    return lines + _stages(node.examined["stages"], "  ", every_stage or node.verdict == UNREACHABLE)


def _stages(stages: t.Sequence[dict[str, t.Any]], indent: str, every_stage: bool) -> list[Line]:
    lines = []
    for stage in stages:
        if stage["status"] == "skipped" or (stage["status"] == "ok" and not every_stage):
            continue
        word, color = _STATUS[stage["status"]]
        text = f"{indent}{stage['stage']:<10}  {_seconds(stage['ms'])}  {word:<4}  {stage['evidence']}"
        lines.append(Line(text.rstrip(), color))
    return lines


def _summary(nodes: t.Sequence[Node]) -> Line:
    counted = count(nodes)
    worst = next((verdict for verdict in (UNREACHABLE, WARNING) if counted[verdict]), WELL)
    parts = [f"{number} {verdict}" for verdict, number in counted.items() if number]
    return Line(f"{len(nodes)} node{'s' if len(nodes) != 1 else ''}: {', '.join(parts)}", _COLORS[worst])


def _seconds(ms: int) -> str:
    return f"{ms / 1000:6.2f} s"


def _groups(nodes: t.Sequence[Node], key: str) -> dict[str, list[Node]]:
    groups: dict[str, list[Node]] = {}
    for node in nodes:
        if node.examined[key]:
            groups.setdefault(node.examined[key], []).append(node)
    return groups


def _names(nodes: t.Sequence[Node]) -> str:
    return " and ".join(node.host for node in nodes)


def _cause(code: str, node: Node, seen: str) -> dict[str, t.Any]:
    cause = CAUSES[code]
    remedy = cause.remedy.format(alias=node.host, fingerprint=node.examined["host_key_fingerprint"])
    return {
        "code": code,
        "stage": cause.stage,
        "severity": cause.severity,
        "seen": seen,
        "meaning": cause.meaning,
        "remedy": remedy,
        "transient": cause.transient,
    }
