# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The text of an authorized_keys file: our block of lines, and what others wrote around it. All of it is pure.

This module util is PRIVATE to the collection.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

from ansible_collections.gpuops.fleet.plugins.module_utils._base.public_key import PublicKeyError, parse_line

BEGIN = "# gpuops.fleet: begin. Each run writes these lines anew, from gpu_users"
END = "# gpuops.fleet: end"
# As sshd does it. Python's splitlines would also split where a comment or a command has a form feed.
_LINES = re.compile(r"[^\n]*\n|[^\n]+")
_BLANKS = " \t\r\n"
_UNSEEN = dict.fromkeys(map(ord, "\r\v\f"))


@dataclass(frozen=True)
class Wish:
    """Desired content of an authorized_keys file: lines to write, fingerprints to keep and to remove."""

    lines: t.Sequence[str] = ()
    exclusive: bool = False
    own: t.AbstractSet[str] = frozenset()
    gone: t.AbstractSet[str] = frozenset()


def fingerprint_of(line: str) -> str:
    """The fingerprint of the key of a line; nothing where there is none that we can read."""
    try:
        return parse_line(_as_sshd_reads(line)).fingerprint
    except PublicKeyError:
        return ""


def _as_sshd_reads(line: str) -> str:
    """Return the line as sshd reads it: up to a NUL, and without white space in the base64."""
    return line.partition("\0")[0].translate(_UNSEEN)


def block_of(text: str) -> list[str]:
    """The lines that an earlier run wrote."""
    return _split(text)[1]


def renew(text: str, wish: Wish) -> str:
    """Write our block anew. Other lines stay byte for byte, unless their key is ours to grant or to take away."""
    before, block, after = _split(text)
    wanted = {fingerprint_of(line) for line in wish.lines} - {""}

    def stays(line: str) -> bool:
        found = fingerprint_of(line)
        if found in wish.own:
            return True
        if wish.exclusive:
            return line.strip(_BLANKS)[:1] in ("", "#")
        # A second line with the same key would undo the options of ours.
        return found not in wanted and found not in wish.gone

    before = [line for line in before if stays(line)]
    after = [line for line in after if stays(line)]
    # The key of whoever runs this stays as it is, also when it is taken out of the list or given options there.
    mine = {fingerprint_of(line): line for line in block if fingerprint_of(line) in wish.own}
    there = {fingerprint_of(line) for line in (*before, *after)} & wish.own
    after += [line for found, line in mine.items() if found not in wanted | there]
    lines = [mine.get(fingerprint_of(line), f"{line}\n") for line in wish.lines if fingerprint_of(line) not in there]
    whole = [*before, *([f"{BEGIN}\n", *lines, f"{END}\n"] if lines else []), *after]
    # A file may end without a newline, and what was its last line need not be the last one any more.
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in whole[:-1]) + "".join(whole[-1:])


def without(text: str, gone: t.Container[str]) -> str:
    """Take some keys out of a file, whoever wrote them."""
    return "".join(line for line in _LINES.findall(text) if fingerprint_of(line) not in gone)


def describe(text: str) -> list[str]:
    """A line for each key, for a person to read; the options are secret to nobody."""
    found = []
    for line in _LINES.findall(text):
        try:
            key = parse_line(_as_sshd_reads(line))
        except PublicKeyError:
            continue
        shown = " ".join(filter(None, ("key", key.fingerprint, key.comment, key.options and f"({key.options})")))
        # The file is somebody's own, and what is in it may be meant for the terminal of who looks at it.
        found.append("".join(each if each.isprintable() else "?" for each in shown))
    return found


def _split(text: str) -> tuple[list[str], list[str], list[str]]:
    """The lines before our block, in it, and after it. Without its end, it is not known which lines are ours."""
    lines = _LINES.findall(text)
    marks = [line.strip(_BLANKS) for line in lines]
    start = marks.index(BEGIN) if BEGIN in marks else len(lines)
    end = marks.index(END, start) if END in marks[start:] else start
    foreign = [
        [line for line in part if line.strip(_BLANKS) not in (BEGIN, END)] for part in (lines[:start], lines[end:])
    ]
    return foreign[0], lines[start + 1 : end], foreign[1]
