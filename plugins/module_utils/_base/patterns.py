# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Match names and paths by the rules of OpenSSH, which are not those of a shell.

This module util is PRIVATE to the collection.
"""

from __future__ import annotations

import fnmatch
import re
import typing as t


def matches(text: str, pattern: str) -> bool:
    """Return whether a whole text matches a pattern of Host, Match, AllowUsers and the like.

    Source: PATTERNS in ssh_config(5). `*` and `?` are all there is: fnmatch would give brackets a meaning.
    """
    return bool(re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), text, re.DOTALL))


def matches_one(text: str, patterns: t.Iterable[str]) -> bool:
    """Return whether a text matches one of these patterns, and none of those with a `!` before them."""
    found = False
    for pattern in patterns:
        if pattern.startswith("!"):
            if matches(text, pattern[1:]):
                return False
        else:
            found = found or matches(text, pattern)
    return found


def path_matches(path: str, pattern: str) -> bool:
    """Return whether a path is one of those that an Include with this pattern means, if it is there.

    Source: glob(7). A wildcard takes neither a slash nor a dot at the beginning of a name.
    """
    names, wanted = path.split("/"), pattern.split("/")
    return len(names) == len(wanted) and all(
        fnmatch.fnmatchcase(name, each) and (each.startswith(".") or not name.startswith("."))
        for name, each in zip(names, wanted)
    )
