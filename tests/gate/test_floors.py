# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A floor of the house uses the floors below it, never one above or beside it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from places import REPOSITORY

# For each floor the floors that it may import from, beside itself.
BELOW = {
    "_base": set(),
    "_reach": {"_base"},
    "_trust": {"_base", "_reach"},
    "_see": {"_base", "_reach"},
}
UTILS = (
    "ansible_collections.gpuops.fleet.plugins.module_utils.",
    "ansible_collections.gpuops.fleet.plugins.plugin_utils.",
)


def imported(source: str) -> list[tuple[int, str]]:
    """Return line and dotted name of each module of the collection's own utils that a text imports."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found += [(node.lineno, name) for name in names if name.startswith(UTILS)]
    return found


def wrong_imports(floor: str, source: str) -> list[str]:
    """Return a line for each import of a file on this floor that the rule forbids."""
    allowed = {floor} | BELOW[floor]
    return [f"{line}: {name}" for line, name in imported(source) if name.split(".")[5] not in allowed]


def utils() -> list[Path]:
    return sorted(path for path in (REPOSITORY / "plugins").glob("*_utils/**/*.py"))


def test_each_file_lies_on_a_floor() -> None:
    assert {path.relative_to(REPOSITORY).parts[2] for path in utils()} == set(BELOW)


def test_no_floor_imports_from_one_above_or_beside_it() -> None:
    wrong = []
    for path in utils():
        name = path.relative_to(REPOSITORY)
        wrong += [f"{name}:{line}" for line in wrong_imports(name.parts[2], path.read_text())]
    assert wrong == []


@pytest.mark.parametrize(
    ("floor", "wrong"),
    [("_base", True), ("_reach", True), ("_trust", True), ("_see", False)],
)
@pytest.mark.parametrize(
    "line",
    [
        "from {}_see.gpu.answer import KernelLog",
        "from {}_see.gpu import answer",
        "import {}_see.gpu.answer",
        "from {}_see import gpu",
    ],
)
def test_an_import_from_above_is_found_however_it_is_written(floor: str, wrong: bool, line: str) -> None:
    assert bool(wrong_imports(floor, line.format(UTILS[1]))) is wrong
