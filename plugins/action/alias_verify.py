# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import failed_result, on_host
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.process import run_command
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.shared import folder_of_this_run
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.doctor import diagnose_patiently
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.target import cleaning_up, target_of_task
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.verification import (
    alias_command,
    first_command,
    read_first,
    read_verified,
)

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "alias": {"type": "str", "required": True},
    "config": {"type": "path", "required": True},
    "use": {"type": "bool", "default": True},
    "run_nvidia_smi": {"type": "bool", "default": False},
    "nvidia_smi_must_work": {"type": "bool", "default": False},
    "verify_command": {"type": "str", "default": ""},
    "deadline": {"type": "float", "default": 60.0},
}


class ActionModule(ActionBase):
    """Log in by a new connection, then use the alias, in one task: each of them costs a process of Ansible."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validated, options = self.validate_argument_spec(ARGUMENT_SPEC)
        names = task_vars or {}
        host = str(names["inventory_hostname"])
        target = target_of_task(self, names)
        with cleaning_up():
            report = diagnose_patiently(target, 1, 2.0, 60.0, folder_of_this_run())
            problems = report.pop("problems")
            machine = ""
            if report["ok"] and options["use"] and not self._task.check_mode:
                machine, problems = self._use(options)
        result.update(report, changed=False, machine=machine)
        return {**result, **failed_result(on_host(problems, host))} if problems else result

    def _use(self, options: dict[str, Any]) -> tuple[str, list[Any]]:
        """Return the machine behind the alias, and the problems."""
        alias, config, deadline = options["alias"], options["config"], options["deadline"]
        first = run_command(alias_command(config, alias, first_command(options["run_nvidia_smi"])), deadline)
        machine, problems = read_first(alias, config, first, deadline, options["nvidia_smi_must_work"])
        if options["verify_command"] and not problems:
            second = run_command(alias_command(config, alias, options["verify_command"]), deadline)
            problems = read_verified(alias, config, options["verify_command"], second, deadline)
        return machine, problems
