# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read durations as OpenSSH does.

This module util is PRIVATE to the collection.
"""

from __future__ import annotations

import re

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_PART = r"([0-9]+)([smhdw]?)"


class DurationError(Exception):
    """Raised for a text that OpenSSH does not take as a duration."""


def seconds(text: str) -> int:
    """Return the seconds of a duration such as 600, 12h or 1w2d. Raises DurationError.

    Source: TIME FORMATS in sshd_config(5).
    """
    if not re.fullmatch(f"(?:{_PART})+", text, re.IGNORECASE):
        raise DurationError(f"{text} is no time such as 12h, 90m or 1w2d")
    return sum(int(number) * _SECONDS[unit.lower()] for number, unit in re.findall(_PART, text, re.IGNORECASE))
