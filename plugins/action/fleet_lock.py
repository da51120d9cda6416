# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import Problem, on_host
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.failure import action_failure
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.locks import LockHeld, acquire


class ActionModule(ActionBase):
    """Take the lock for the ansible-playbook process that this task belongs to."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validated, options = self.validate_argument_spec({"path": {"type": "path", "required": True}})
        lock = Path(options["path"]) / ".gpuops-run.lock"
        # A task runs in a short-lived child of ansible-playbook; the lock is for the parent.
        pid = os.getppid()
        try:
            acquire(lock, pid, dry_run=self._task.check_mode)
        except LockHeld as error:
            raise action_failure(*on_host([error.problem], "localhost")) from None
        except OSError as error:
            problem = Problem(
                f"cannot lock the fleet with {lock}",
                seen=str(error.strerror),
                remedy=f"ls -ld {lock.parent.parent} {lock.parent}; df -h {lock.parent.parent}",
                host="localhost",
            )
            raise action_failure(problem) from None
        return {**result, "changed": False, "path": str(lock), "pid": pid}
