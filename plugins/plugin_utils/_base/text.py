# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text of strangers, made fit to be shown.

This plugin util is PRIVATE to the collection.
"""

from __future__ import annotations


def printable(text: str) -> str:
    """Return the text with a question mark for each character that could steer a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def escaped(data: bytes) -> str:
    """Return the first 80 bytes, of whatever kind, as Python would write them between quotes."""
    return repr(data[:80].strip())[2:-1]
