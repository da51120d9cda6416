# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import (
    CONTROL_NODE,
    NODE,
    Problem,
    failed_result,
    on_host,
)

PROBLEM_SPEC = {
    "what": {"type": "str", "required": True},
    "seen": {"type": "str", "default": ""},
    "remedy": {"type": "str", "default": ""},
    "where": {"type": "str", "choices": [CONTROL_NODE, NODE], "default": CONTROL_NODE},
    "host": {"type": "str", "default": ""},
}


class ActionModule(ActionBase):
    """Fail for a node with problems, from which the table at the end of a run is made."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validated, options = self.validate_argument_spec(
            {"problems": {"type": "list", "elements": "dict", "required": True, "options": PROBLEM_SPEC}}
        )
        problems = [Problem(**problem) for problem in options["problems"]]
        if not problems:
            return {**result, "changed": False}
        return {**result, **failed_result(on_host(problems, (task_vars or {})["inventory_hostname"]))}
