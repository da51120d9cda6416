# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a node says about itself: the script that runs there, and the judgement of its answer.

This plugin util is PRIVATE to the collection.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.text import printable
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.causes import SickError

BEGIN, END = "gpuops.fleet-doctor-begin", "gpuops.fleet-doctor-end"
# ansible-core 2.19, and the modules of this collection.
OLDEST_PYTHON = (3, 8)
CLOCK_SECONDS = 60
FREE_KIB = 100 * 1024
FREE_INODES = 1000

# Read by /bin/sh from its standard input, so whatever the login shell is, it sees no syntax.
SCRIPT = f"""\
echo; echo {BEGIN}
LC_ALL=C; export LC_ALL
uid=$(id -u)
echo "uid=$uid"
echo "boot=$(cat /proc/sys/kernel/random/boot_id 2>/dev/null)"
echo "pidns=$(readlink /proc/self/ns/pid 2>/dev/null)"
set -- /tmp
if [ -d "$HOME" ]; then set -- /tmp "$HOME"; else echo "no_home=$HOME"; fi
for place; do [ -w "$place" ] || echo "not_writable=$place"; done
df -Pk / "$@" 2>/dev/null | sed 's/^/space=/'
df -Pi / "$@" 2>/dev/null | sed 's/^/inodes=/'
for name in /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9 python3.8; do
    command -v "$name" >/dev/null || continue
    version=$("$name" -S -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>&1 </dev/null | tail -n 1)
    echo "python=$(command -v "$name") $version"
    case $version in 3.[89].*|3.[1-9][0-9].*) break;; esac
done
if [ "$uid" = 0 ]; then :
elif command -v sudo >/dev/null; then echo "sudo=$(sudo -n true 2>&1 </dev/null && echo ok)"
else echo sudo=missing
fi
echo "epoch=$(date +%s)"
echo {END}
"""


@dataclass(frozen=True)
class Node:
    """The answer of a node; what it did not say is empty."""

    noise: str
    facts: dict[str, list[str]]

    def first(self, name: str) -> str:
        return next(iter(self.facts.get(name, ())), "")

    @property
    def machine(self) -> str | None:
        """Tells machines apart: containers of one host share its boot_id, and clones their machine-id."""
        identity = (self.first("boot"), self.first("pidns"))
        return " ".join(identity) if all(identity) else None


def has_ended(stdout: bytes) -> bool:
    return f"\n{END}\n".encode() in stdout


def parse_node(stdout: str) -> Node | None:
    """Read what the script printed; None when it never began."""
    noise, found, answer = stdout.partition(f"\n{BEGIN}\n")
    if not found:
        return None
    facts: dict[str, list[str]] = {}
    for line in answer.splitlines():
        name, equals, value = line.partition("=")
        if equals:
            facts.setdefault(name, []).append(printable(value.strip()))
    return Node(noise, facts)


def judge_command(node: Node) -> list[SickError]:
    warnings = []
    if noise := printable(" ".join(node.noise.split())):
        warnings.append(SickError("shell_noise", f"{len(node.noise)} characters: {noise[:80]}"))
    if home := node.first("no_home"):
        warnings.append(SickError("home_missing", f"{home}: no such directory"))
    return warnings


def judge_python(node: Node) -> tuple[str, list[SickError]]:
    tried = node.facts.get("python", [])
    versions = {
        (int(found.group(1)), int(found.group(2))): python
        for python in tried
        if (found := re.search(r" (\d+)\.(\d+)\.\d+$", python))
    }
    if not versions:
        return "", [SickError("python_missing", f"does not start: {tried[0]}" if tried else "python3: not found")]
    newest = max(versions)
    if newest < OLDEST_PYTHON:
        return "", [SickError("python_old", versions[newest])]
    return versions[newest], []


def judge_sudo(node: Node) -> tuple[str, list[SickError]]:
    if node.first("uid") == "0":
        return "root needs none", []
    answer = node.first("sudo")
    if answer == "ok":
        return "without a password", []
    if answer == "missing":
        return "", [SickError("sudo_missing", "sudo: not found")]
    code = "sudo_password" if re.search("(?:password|authentication) is required", answer) else "sudo_refused"
    return "", [SickError(code, answer or "no answer from: sudo -n true")]


def judge_clock(node: Node, now: float) -> tuple[str, list[SickError]]:
    """`now` is the time on the control node when the answer came."""
    if not re.fullmatch(r"\d+", node.first("epoch")):
        return "the node does not tell its time", []
    ahead = int(node.first("epoch")) - int(now)
    if abs(ahead) > CLOCK_SECONDS:
        return "", [SickError("clock_off", f"the node is {abs(ahead)} s {'ahead' if ahead > 0 else 'behind'}")]
    return f"{ahead:+d} s", []


def judge_disk(node: Node) -> tuple[str, list[SickError]]:
    warnings = [
        SickError("disk_not_writable", f"{path} is not writable") for path in node.facts.get("not_writable", ())
    ]
    space = _free(node.facts.get("space", ()))
    inodes = _free(node.facts.get("inodes", ()))
    if full := [f"{path} has {free // 1024} MiB left" for path, free in space.items() if free < FREE_KIB]:
        warnings.append(SickError("disk_full", ", ".join(full)))
    if full := [f"{path} has {free} inodes left" for path, free in inodes.items() if free < FREE_INODES]:
        warnings.append(SickError("inodes_full", ", ".join(full)))
    return ", ".join(f"{path} {free / 1024**2:.1f} GiB" for path, free in space.items()), warnings


def _free(lines: t.Iterable[str]) -> dict[str, int]:
    """Read C{df -P}: what is free, by mount point. Some file systems have no inodes to count."""
    free = {}
    for line in lines:
        found = re.search(r"\s(\d+)\s+-?\d+\s+(-?\d+)\s+\d+%\s+(/.*)$", line)
        if found and int(found.group(1)):
            free[found.group(3)] = int(found.group(2))
    return free
