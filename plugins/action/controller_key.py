# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import Problem, on_host
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.failure import action_failure
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.control_key import (
    ControllerKeyError,
    keep_private,
    settle,
)


class ActionModule(ActionBase):
    """See to the key of this control node without a process of Ansible's for each step."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validated, options = self.validate_argument_spec(
            {
                "path": {"type": "path", "required": True},
                "private_directories": {"type": "list", "elements": "path", "default": []},
            }
        )
        dry = bool(self._task.check_mode)
        try:
            made = [keep_private(Path(directory), dry) for directory in options["private_directories"]]
            changed = settle(Path(options["path"]), dry) or any(made)
        except ControllerKeyError as error:
            raise action_failure(*on_host([error.problem], "localhost")) from None
        except OSError as error:
            problem = Problem(str(error.filename), str(error.strerror), f"ls -ld {error.filename}", host="localhost")
            raise action_failure(problem) from None
        return {**result, "changed": changed}
