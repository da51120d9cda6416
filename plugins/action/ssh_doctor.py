# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t
from dataclasses import asdict, replace

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.shared import folder_of_this_run
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.doctor import diagnose_patiently
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.target import cleaning_up, target_of_task

ARGUMENT_SPEC: dict[str, dict[str, t.Any]] = {
    "host": {"type": "str"},
    "port": {"type": "int"},
    "user": {"type": "str"},
    "identity_file": {"type": "path"},
    "known_hosts_file": {"type": "path"},
    "host_key_alias": {"type": "str"},
    "ssh_config": {"type": "path"},
    "ssh_args": {"type": "list", "elements": "str"},
    "alias": {"type": "str"},
    "timeout": {"type": "float", "default": 10.0},
    "password_given": {"type": "bool", "default": False},
    "attempts": {"type": "int", "default": 1},
    "delay": {"type": "float", "default": 2.0},
    "deadline": {"type": "float", "default": 60.0},
}


def _fail(message: str) -> t.NoReturn:
    raise AnsibleActionFail(message)


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(ARGUMENT_SPEC)
        if options["timeout"] <= 0:
            _fail(f"timeout must be more than 0 seconds, got {options['timeout']:g}")
        if options["attempts"] < 1:
            _fail(f"attempts must be 1 or more, got {options['attempts']}")
        if options["delay"] < 0:
            _fail(f"delay must be 0 seconds or more, got {options['delay']:g}")
        names = task_vars or {}
        host = str(names.get("inventory_hostname", ""))
        target = target_of_task(self, names, options)
        with cleaning_up():
            report = diagnose_patiently(
                target, options["attempts"], options["delay"], options["deadline"], folder_of_this_run()
            )
        problems = [asdict(replace(problem, host=host)) for problem in report["problems"]]
        return {**result, "changed": False, **report, "problems": problems}
