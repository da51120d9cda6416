# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This plugin util is PRIVATE to the collection: it may change without notice.
"""A lock file that belongs to a process: whoever it names holds the lock for as long as that process lives."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import ProblemError


class LockHeld(ProblemError):
    """Another process holds the lock; the text says which."""


@dataclass(frozen=True)
class Holder:
    """A process, told apart from a later one with the same number by when it started."""

    host: str
    pid: int
    started: str
    # Where the clock is adjusted, ps may say another second the next time. Empty where only ps knows.
    ticks: str = ""

    @classmethod
    def of(cls, pid: int) -> Holder:
        """Describe a process of this machine; it need not be there any more."""
        # The same words for the same moment, whatever the user's locale and time zone are. macOS has no /proc.
        found = subprocess.run(
            ["ps", "-o", "lstart=", "-p", str(pid)],
            env={**os.environ, "LC_ALL": "C", "TZ": "UTC"},
            capture_output=True,
            text=True,
            check=False,
        )
        return cls(socket.gethostname(), pid, found.stdout.strip(), _ticks(pid))

    def is_same(self, other: Holder) -> bool:
        """Return whether both are one process."""
        if self.ticks and other.ticks:
            return (self.host, self.pid, self.ticks) == (other.host, other.pid, other.ticks)
        return (self.host, self.pid, self.started) == (other.host, other.pid, other.started)

    def is_alive(self) -> bool:
        """On another machine (a home directory on NFS) nobody can tell, so it counts as alive."""
        return self.host != socket.gethostname() or self.is_same(Holder.of(self.pid))


def _ticks(pid: int) -> str:
    """Return when a process started, in ticks since this boot; empty where there is no /proc or process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return ""
    # proc(5): field 22, counted behind the name, which may have blanks and brackets in it.
    return f"{boot} {stat.rpartition(')')[2].split()[19]}"


def read(text: str) -> Holder | None:
    """Return the holder that a lock file names, None when it is empty or damaged."""
    try:
        return Holder(**json.loads(text))
    except (ValueError, TypeError):
        return None


def acquire(path: Path, pid: int, *, dry_run: bool) -> None:
    """Give the lock to a process, or raise LockHeld."""
    if dry_run and not path.exists():
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # only while this function looks and writes
        holder, own = read(file.read()), Holder.of(pid)
        if holder and not holder.is_same(own) and holder.is_alive():
            raise LockHeld(
                f"another run changes this fleet: process {holder.pid} on {holder.host}, started {holder.started}, "
                f"holds {path}",
                remedy=f"wait for it, or look at it with: ps -fp {holder.pid}"
                + (f" (if it is gone from {holder.host}: rm {path})" if holder.host != socket.gethostname() else ""),
            )
        if not dry_run:
            file.seek(0)
            file.truncate()
            file.write(json.dumps(asdict(own)) + "\n")
