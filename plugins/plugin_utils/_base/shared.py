# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What one process finds out for all of a run: each host of a play is a process of its own.

This plugin util is PRIVATE to the collection. Nothing secret belongs there.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import typing as t

from ansible import constants


class Shared:
    """A value that can be written as JSON; None before somebody has put one there."""

    def __init__(self, file: t.BinaryIO) -> None:
        self._file = file

    def get(self) -> t.Any:
        self._file.seek(0)
        try:
            return json.loads(self._file.read())
        except ValueError:
            # Nothing yet, or the beginning of what a process that was killed meant to say.
            return None

    def put(self, value: t.Any) -> None:
        self._file.truncate(0)
        self._file.write(json.dumps(value).encode())


@contextlib.contextmanager
def shared(folder: str, *key: object) -> t.Iterator[Shared]:
    """Yield what is known under this key; the second process waits until the first has left the block."""
    name = hashlib.sha256(repr(key).encode()).hexdigest()
    with open(os.path.join(folder, f"gpuops-{name}"), "a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield Shared(file)


def folder_of_this_run() -> str:
    """Ansible makes it for all of its processes, and removes it at the end."""
    return str(vars(constants)["DEFAULT_LOCAL_TMP"])
