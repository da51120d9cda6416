# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.failure import action_failure
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.entry import EntryError, check_entry


class ActionModule(ActionBase):
    """Check what the inventory says of one node, before ssh or a shell is given any of it."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validated, options = self.validate_argument_spec(
            {"entry": {"type": "dict", "required": True}, "first_user": {"type": "str", "default": ""}}
        )
        try:
            entry = check_entry((task_vars or {})["inventory_hostname"], options["entry"], options["first_user"])
        except EntryError as error:
            raise action_failure(error.problem) from None
        return {**result, "changed": False, "entry": entry}
