# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import shlex
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import Problem
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.failure import action_failure
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.process import run_command
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.target import cleaning_up

# What timeout(1) ends with.
_HUNG = 124


class ActionModule(ActionBase):
    """Run ssh in the process of the task; a module would start a Python on the control node for each node."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validated, options = self.validate_argument_spec(
            {"cmd": {"type": "str", "required": True}, "deadline": {"type": "float", "default": 60.0}}
        )
        try:
            argv = shlex.split(options["cmd"])
        except ValueError as error:
            host = str((task_vars or {})["inventory_hostname"])
            problem = Problem(
                f"the arguments of ssh cannot be split into words: {error}",
                remedy=f"ansible-inventory --host {shlex.quote(host)}, and correct ansible_ssh_common_args there",
                host=host,
            )
            raise action_failure(problem) from None
        with cleaning_up():
            done = run_command(argv, options["deadline"])
        stderr = done.stderr.rstrip("\r\n")
        if done.rc is None:
            stderr = f"{stderr}\nno end within {options['deadline']:g} s".lstrip()
        return {
            **result,
            "changed": False,
            # Ansible takes another exit code than 0 for a failure where nothing is said.
            "failed": False,
            "rc": _HUNG if done.rc is None else done.rc,
            "stdout": done.stdout.rstrip("\r\n"),
            "stderr": stderr,
        }
