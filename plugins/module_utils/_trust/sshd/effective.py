# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The output of `sshd -T`, and the spelling of its values.

This module util is PRIVATE to the collection.
"""

from __future__ import annotations

import contextlib
import typing as t

from ansible_collections.gpuops.fleet.plugins.module_utils._base.duration import DurationError, seconds

# The values that `sshd -T` prints for each keyword, in lower case.
Effective = t.Dict[str, t.List[str]]
# Each occurrence adds to the ones before; of all others the first one counts.
ADDITIVE = ("port", "listenaddress", "allowusers", "allowgroups", "denyusers", "denygroups", "hostcertificate")


def parse_effective(text: str) -> Effective:
    """Read the output of `sshd -T`."""
    effective: Effective = {}
    for line in text.splitlines():
        keyword, _space, value = line.partition(" ")
        effective.setdefault(keyword.lower(), []).append(value)
    return effective


def plain(keyword: str, value: str) -> list[str]:
    """Return one spelling of a value that sshd takes in several, to compare files with what is in force."""
    if keyword.lower() in ADDITIVE:
        return sorted(set(value.split()))
    if keyword.lower() == "permitrootlogin":
        value = value.replace("without-password", "prohibit-password")
    text = " ".join(value.strip('"').lower().split())
    with contextlib.suppress(DurationError):
        return [str(seconds(text))]
    return [text]
