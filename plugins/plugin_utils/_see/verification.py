# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This plugin util is PRIVATE to the collection: it may change without notice.
"""What an alias says when it is used as its user would use it."""

from __future__ import annotations

import re
import shlex

from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import Problem
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.process import Finished

# This line tells machines apart: containers of one host share its boot_id, and clones their machine-id.
_MACHINE = "printf 'machine '; tr '\\n' ' ' </proc/sys/kernel/random/boot_id; readlink /proc/self/ns/pid"


def alias_command(config: str, alias: str, command: str) -> list[str]:
    """Return the command line of ssh through an alias, without questions and without a shared connection."""
    return ["ssh", "-F", config, "-o", "BatchMode=yes", "-o", "ControlPath=none", alias, command]


def first_command(with_smi: bool) -> str:
    """Return what the first login runs: it names the machine, and lists the GPUs if that is safe there."""
    return f"{_MACHINE}; {'nvidia-smi -L' if with_smi else 'true'}"


def _ended(done: Finished, deadline: float) -> str:
    return f"did not end within {deadline:g} s" if done.rc is None else f"ended with {done.rc}"


def read_first(alias: str, config: str, done: Finished, deadline: float, must_list: bool) -> tuple[str, list[Problem]]:
    """Return the machine, which is empty when it is not known, and what does not work.

    :param must_list: whether C(nvidia-smi) has to succeed there.
    """
    by_hand = f"ssh -F {shlex.quote(config)} {shlex.quote(alias)}"
    found = re.search(r"(?m)^machine (.+)$", done.stdout)
    if not found:
        what = f"the alias {alias} does not work, ssh {_ended(done, deadline)}"
        return "", [Problem(what, seen=done.stderr.strip(), remedy=by_hand)]
    if done.rc != 0 and must_list:
        seen = re.sub("machine .*", "", f"{done.stdout} {done.stderr}").strip()
        return found[1], [Problem(f"nvidia-smi -L {_ended(done, deadline)}", seen=seen, remedy=f"{by_hand} nvidia-smi")]
    return found[1], []


def read_verified(alias: str, config: str, command: str, done: Finished, deadline: float) -> list[Problem]:
    """Return what is wrong with the command that has to succeed on each node."""
    if done.rc == 0:
        return []
    by_hand = f"ssh -F {shlex.quote(config)} {shlex.quote(alias)} {shlex.quote(command)}"
    seen = ([""] + (done.stderr.strip() or done.stdout.strip()).splitlines())[-1]
    return [Problem(f"the verify command {_ended(done, deadline)}", seen=seen, remedy=by_hand)]
