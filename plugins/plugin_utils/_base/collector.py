# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Collectors: scripts that answer for a node in one round trip, without Python there.

This plugin util is PRIVATE to the collection. A collector is a POSIX sh script. It is sent without comments and
indentation as one quoted word, so that any login shell hands it on, and has no apostrophe, of which each level of
quoting would make five. Its answer is sections, each after a line with the marker, a random word of this call, and
a name; the last is `end`.
"""

from __future__ import annotations

import secrets
import shlex
import typing as t
from collections.abc import Collection, Mapping
from pathlib import Path

from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import Problem
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.text import printable

_SHOWN = 500


class CollectorError(Exception):
    """Raised for an answer that is missing, incomplete, or not what the collector writes."""


def new_marker() -> str:
    return f"gpuops-{secrets.token_hex(8)}"


def quoted_script(path: Path) -> str:
    """Return the script as one word for a shell. Once for all nodes: each has a process, a copy of the first one."""
    lines = (line.lstrip() for line in path.read_text(encoding="utf-8").splitlines())
    return shlex.quote("\n".join(line for line in lines if line and not line.startswith("#")))


def command(script: str, name: str, marker: str, *arguments: object) -> str:
    """Return the command that runs a quoted script; `name` is its name among the processes of the node."""
    words = shlex.join([name, marker, *map(str, arguments)])
    return f"/bin/sh -c {script} {words}"


def read_sections(stdout: str, marker: str, needed: Collection[str], most: int) -> dict[str, str]:
    """Return the text of each section by its name. Raises CollectorError for one that is not whole.

    What stands before the first marker is noise of the login, and a terminal may have changed the ends of lines.
    `needed` are sections without which the answer is incomplete; `most` is how many characters it may have.
    """
    if len(stdout) > most:
        raise CollectorError(f"the collector's answer is longer than {most // 1_000_000} MB")
    text = stdout.replace("\r\n", "\n")
    # By hand, since a regular expression looks at each line of some hundred kilobytes.
    parts = (part.partition("\n") for part in f"\n{text}".split(f"\n{marker} ")[1:])
    sections = {name: content for name, _newline, content in parts}
    if not sections:
        raise CollectorError("the collector did not answer")
    if not sections.keys() >= {*needed, "end"}:
        raise CollectorError("the collector's answer is incomplete")
    return sections


def no_answer(error: CollectorError, module: str, host: str, answered: Mapping[str, t.Any]) -> Problem:
    """Return an answer that was refused as a problem; `answered` is what the connection brought."""
    said = " ".join((answered["stderr"] or answered["stdout"]).split())
    return Problem(
        f"{module}: {error}",
        seen=f"exit code {answered['rc']}, {printable(said[-_SHOWN:]) or 'no output'}",
        remedy=f"ansible {host} -m ansible.builtin.raw -a 'sh -c id'",
        host=host,
    )
