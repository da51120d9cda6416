# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What failed, as data: made where it is known, carried in results, and put into words here alone.

This module util is PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t
from dataclasses import asdict, dataclass, fields, replace

CONTROL_NODE = ""
NODE = "node"


@dataclass(frozen=True)
class Problem:
    """One thing that failed.

    host: the name in the inventory, empty until somebody knows it. what: what failed. seen: the evidence. remedy: the
    next command to type, or what to do. where: the machine on which to type it, C(NODE) or C(CONTROL_NODE).
    """

    what: str
    seen: str = ""
    remedy: str = ""
    where: str = CONTROL_NODE
    host: str = ""

    @property
    def cause(self) -> str:
        """Return host, what failed and what was seen, as one sentence without its full stop."""
        what = _one_line(self.what)
        # The texts of tasks begin with the host, since Ansible shows them without it in some places.
        if self.host and not what.startswith((f"{self.host}:", f"{self.host} ")):
            what = f"{self.host}: {what}"
        seen = _one_line(self.seen)
        return f"{what}: {seen}" if seen else what

    @property
    def next_step(self) -> str:
        """Return the remedy with the machine on which to type it, or an empty text."""
        return f"on the node: {self.remedy}" if self.remedy and self.where == NODE else self.remedy

    def __str__(self) -> str:
        if not self.remedy:
            return self.cause
        stop = "" if self.cause.endswith("?") else "."
        return f"{self.cause}{stop} Next: {self.next_step}"


def _one_line(text: str) -> str:
    """Return the text without line breaks and its full stop; what stands within a line is kept."""
    return " ".join(line.strip() for line in text.splitlines() if line.strip()).rstrip(".;")


class ProblemError(Exception):
    """Raised where something fails, with what is known of it."""

    def __init__(self, what: str, seen: str = "", remedy: str = "", where: str = CONTROL_NODE) -> None:
        self.problem = Problem(what, seen, remedy, where)
        super().__init__(str(self.problem))


def problem_of(error: Exception) -> Problem:
    """Return what an exception says as a problem; of C(OSError) the file and the reason."""
    if isinstance(error, ProblemError):
        return error.problem
    if isinstance(error, OSError):
        return Problem(str(error.filename or "the system"), error.strerror or str(error))
    return Problem(str(error))


def on_host(problems: t.Iterable[Problem], host: str) -> list[Problem]:
    """Return the problems with this host in each, whatever it was before."""
    return [replace(problem, host=host) for problem in problems]


def failed_result(problems: t.Sequence[Problem]) -> dict[str, t.Any]:
    """Return what a module or action that fails adds to its result: C(failed), C(msg) and C(problems)."""
    return {
        "failed": True,
        "msg": "; ".join(map(str, problems)),
        "problems": [asdict(problem) for problem in problems],
    }


def problems_of(value: object, host: str) -> list[Problem]:
    """Return the problems that a result carries, each of this host.

    A result may come from a node, which can put anything there: what has not the form of a problem is left out, and no
    node speaks for another.
    """
    found = []
    for item in value if isinstance(value, list) else []:
        if isinstance(item, dict):
            words = {field.name: item.get(field.name, "") for field in fields(Problem)}
            is_text = words["what"] and all(isinstance(word, str) for word in words.values())
            if is_text and words["where"] in (CONTROL_NODE, NODE):
                found.append(Problem(**words))
    return on_host(found, host)
