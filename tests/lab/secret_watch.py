# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look where a secret may come to lie: in the arguments of processes, in files, in what a node keeps."""

from __future__ import annotations

import threading
import typing as t
from pathlib import Path

SEARCH_NODE = """
grep -rlF -- "$1" /tmp /var/tmp /root /run /var/log /etc 2>/dev/null || true
journalctl --no-pager -o cat | grep -F -- "$1" || true
"""


class ArgumentWatch(threading.Thread):
    """Look at the arguments of all processes, those of the nodes among them, until the block ends."""

    def __init__(self, *secrets: str) -> None:
        super().__init__(daemon=True)
        self.secrets = [secret.encode() for secret in secrets]
        self.found: set[bytes] = set()
        self.looks = 0
        self.ended = threading.Event()

    def __enter__(self) -> ArgumentWatch:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.ended.set()
        self.join()

    def run(self) -> None:
        while not self.ended.wait(0.05):
            self.looks += 1
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    arguments = path.read_bytes()
                except OSError:
                    continue
                if any(secret in arguments for secret in self.secrets):
                    self.found.add(arguments)


def holders(folder: Path, secrets: t.Iterable[str]) -> list[Path]:
    """The files below a folder that have one of the secrets."""
    wanted = [secret.encode() for secret in secrets]
    return [
        path for path in folder.rglob("*") if path.is_file() and any(secret in path.read_bytes() for secret in wanted)
    ]
