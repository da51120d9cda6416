# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import failed_result, on_host
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.failure import module_failure
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.host_keys import HostKeyError, checked_host_keys


class ActionModule(ActionBase):
    """Check here what the node says of its host keys, since the host CA signs them."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        done: dict[str, t.Any] = self._execute_module(
            "gpuops.fleet.ssh_ca_trust", dict(self._task.args), task_vars=task_vars
        )
        host = str((task_vars or {})["inventory_hostname"])
        if not done.get("failed"):
            try:
                done["host_keys"] = checked_host_keys(done.get("host_keys"), host)
            except HostKeyError as error:
                return {**result, **failed_result(on_host([error.problem], host))}
            return {**result, **done}
        return {**result, **module_failure(done, host)}
