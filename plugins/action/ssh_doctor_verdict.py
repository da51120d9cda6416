# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.doctor_report import UNREACHABLE, WARNING, WELL

ARGUMENT_SPEC: dict[str, dict[str, t.Any]] = {
    "verdict": {"type": "str", "required": True, "choices": [WELL, WARNING, UNREACHABLE]},
}


class ActionModule(ActionBase):
    """End a node as unreachable, failed or ok without connecting to it."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(ARGUMENT_SPEC)
        if options["verdict"] != WELL:
            # One text for all nodes: Ansible shows equal errors once.
            result["msg"] = "the report above says why, and what to type"
            result["unreachable" if options["verdict"] == UNREACHABLE else "failed"] = True
        return result
