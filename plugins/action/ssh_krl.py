# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import Problem, failed_result
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.causes import SickError
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.key import keys_in_use
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.target import choose_target


class ActionModule(ActionBase):
    """Say which keys log in to the hosts of the play: a list that has one of them would shut this control node out."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        names = task_vars or {}
        own_keys: set[str] = set()
        # The task runs once, for all of them.
        for host in names["ansible_play_hosts"]:
            variables = names["hostvars"][host]
            try:
                found = keys_in_use(choose_target({}, variables.get, self._play_context.remote_user))
                # Over local, podman and the like nobody is logged in by a key.
                if not found and "ssh" in str(variables.get("ansible_connection", "ssh")):
                    raise SickError("key_missing", "there is none")
            except SickError as error:
                what = "nothing was revoked, since it might be the key that logs in there, which cannot be told"
                remedy = "set ansible_ssh_private_key_file"
                return {**result, **failed_result([Problem(what, str(error), remedy, host=str(host))])}
            own_keys |= found
        arguments = {**self._task.args, "own_keys": sorted(own_keys)}
        done: dict[str, t.Any] = self._execute_module("gpuops.fleet.ssh_krl", arguments, task_vars=names)
        return {**result, **done}
