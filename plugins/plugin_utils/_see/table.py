# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This plugin util is PRIVATE to the collection: it may change without notice.
"""What is known of a fleet's nodes, as a table for the terminal and as one failure a node."""

from __future__ import annotations

import re
import typing as t
from collections import Counter
from dataclasses import dataclass, field, replace

from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import Problem, problems_of
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.text import printable

# What still fails with a text alone: tasks of roles that end with a message.
NEXT = re.compile(r"[\s.;]*\bnext:\s*", re.IGNORECASE)
HEADER = ("alias", "address", "reachable", "hardened", "GPUs", "driver", "CUDA", "state")


@dataclass(frozen=True)
class Node:
    """One node as the roles saw it; None is not known."""

    host: str
    alias: str
    address: str | None = None
    reachable: bool | None = None
    hardened: bool | None = None
    machine: str = ""
    gpus: list[str] = field(default_factory=list)
    driver: str | None = None
    cuda: str | None = None
    state: str | None = None
    host_key: str | None = None
    problems: list[Problem] = field(default_factory=list)


def read_node(host: str, alias: str, problems: list[t.Any], failure: str, **seen: t.Any) -> Node:
    """Return a node of its record; what failed is in the problems, or else in a text."""
    found = problems_of(problems, host) or ([Problem(failure, host=host)] if failure else [])
    return Node(host, alias, problems=[with_remedy(problem, alias) for problem in found], **seen)


def name_twins(nodes: list[Node]) -> list[Node]:
    """Make it a failure of both when two aliases end on one machine."""
    by_machine: dict[str, list[Node]] = {}
    for node in nodes:
        if node.machine:
            by_machine.setdefault(node.machine, []).append(node)
    return [
        replace(
            node,
            problems=[
                Problem(
                    f"the aliases {' and '.join(twin.alias for twin in by_machine[node.machine])} "
                    "reach one and the same machine",
                    remedy="ansible-inventory --list, then correct ansible_host and ansible_port",
                    host=node.host,
                )
            ],
        )
        if len(by_machine.get(node.machine, [])) > 1 and not node.problems
        else node
        for node in nodes
    ]


@dataclass(frozen=True)
class SharedKey:
    """A host key that several machines show, as images that were cloned do."""

    host_key: str
    aliases: list[str]
    remedy: str


def shared_keys(nodes: list[Node]) -> list[SharedKey]:
    """Each key that is not of one machine alone."""
    by_key: dict[str, list[Node]] = {}
    for node in nodes:
        if node.host_key:
            by_key.setdefault(node.host_key, []).append(node)
    return [
        SharedKey(
            key,
            [node.alias for node in group],
            f"ansible-playbook site.yml -e sshd_hardening_replace_host_key={key}",
        )
        for key, group in by_key.items()
        if len({node.machine for node in group}) > 1
    ]


def failures(nodes: list[Node]) -> dict[str, str]:
    """Return by host what the table says of its problems, for each node that has one."""
    return {node.host: "; ".join(map(str, node.problems)) for node in nodes if node.problems}


def with_remedy(problem: Problem, alias: str) -> Problem:
    """Return the problem with a next command, also where it is only a text, as those of Ansible and its modules are."""
    if problem.remedy:
        return problem
    parts = NEXT.split(problem.cause)
    cause = parts[0].strip()
    if len(parts) > 1:
        remedy = parts[-1]
    elif "interpreter" in cause and "not found" in cause:
        remedy = f"ssh {alias} apt-get install python3"
    else:
        remedy = f"ansible-playbook site.yml --limit {problem.host} -vvv"
    return Problem(cause, remedy=remedy, host=problem.host)


def _row(node: Node) -> tuple[str, ...]:
    known = {True: "yes", False: "NO", None: "-"}
    return (
        node.alias,
        node.address or "-",
        known[node.reachable],
        known[node.hardened],
        ", ".join(f"{count}x {name}" for name, count in Counter(node.gpus).items()) or "-",
        node.driver or "-",
        node.cuda or "-",
        node.state or "-",
    )


def table(nodes: list[Node]) -> list[tuple[str, bool]]:
    """Render lines of text, each with whether it tells of a failure."""
    rows = [_row(node) for node in nodes]
    widths = [max(len(row[column]) for row in [HEADER, *rows]) for column in range(len(HEADER))]

    def line(row: tuple[str, ...]) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()

    lines = [(line(HEADER), False)]
    lines += [(line(row), bool(node.problems)) for row, node in zip(rows, nodes)]
    for problem in (problem for node in nodes for problem in node.problems):
        lines += [("", False), (problem.cause, True), (f"  next: {problem.next_step}", True)]
    for shared in shared_keys(nodes):
        names = " and ".join(shared.aliases)
        lines += [
            ("", False),
            (f"{names}: one and the same host key, {shared.host_key}, so each of them can pose as the other", True),
            (f"  next: {shared.remedy}", True),
        ]
    return [(printable(text), is_failure) for text, is_failure in lines]
