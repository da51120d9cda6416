# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import glob
from pathlib import Path

import pytest
from ansible_collections.gpuops.fleet.plugins.module_utils._base.patterns import matches, matches_one, path_matches


@pytest.mark.parametrize(
    ("text", "pattern", "expected"),
    [
        ("bob", "bob", True),
        ("bobby", "bob", False),
        ("bob", "b?b", True),
        ("bob", "b*", True),
        ("bob", "*bob*", True),
        ("bob", "B*", False),
        ("b", "b?", False),
        ("gpu-1", "gpu-[12]", False),
        ("gpu-[12]", "gpu-[12]", True),
        ("a.b", "a?b", True),
        ("axb", "a.b", False),
        ("", "*", True),
    ],
)
def test_a_pattern_has_two_wildcards(text: str, pattern: str, expected: bool) -> None:
    assert matches(text, pattern) is expected


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["gpu-*"], True),
        (["bob", "gpu-?"], True),
        (["gpu-*", "!gpu-1"], False),
        (["!gpu-1", "gpu-*"], False),
        (["!gpu-2", "gpu-*"], True),
        (["!gpu-2"], False),
        ([], False),
    ],
)
def test_a_negated_pattern_wins_and_means_nothing_by_itself(patterns: list[str], expected: bool) -> None:
    assert matches_one("gpu-1", patterns) is expected


@pytest.mark.parametrize(
    "pattern",
    [
        "*.conf", "*/*.conf", "*/*", "*", "?/a.conf", "d/[ab].conf", "d/[!a].conf", "d/.*", "d/*.conf", "d[/]a.conf",
        ".h/*", "d/?hidden.conf", "d/[.]hidden.conf",
    ],
)  # fmt: skip
def test_a_path_matches_where_glob_finds_it(tmp_path: Path, pattern: str) -> None:
    paths = ["a.conf", "d/a.conf", "d/b.conf", "d/.hidden.conf", ".h/a.conf"]
    for path in paths:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    found = {path for path in paths if path_matches(f"{tmp_path}/{path}", f"{tmp_path}/{pattern}")}
    assert found == {str(Path(path).relative_to(tmp_path)) for path in glob.glob(f"{tmp_path}/{pattern}")} & set(paths)
