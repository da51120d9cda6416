# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import getpass
import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import Problem, failed_result
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.users import PERSON_SPEC
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.failure import module_failure
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.causes import SickError
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.key import keys_in_use
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.target import target_of_task


class ActionModule(ActionBase):
    """Tell the node who is changing it, so that it takes away no key that this needs."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        names = task_vars or {}
        host = str(names["inventory_hostname"])
        target = target_of_task(self, names)
        try:
            own = keys_in_use(target)
        except SickError as error:
            return {**result, **failed_result([Problem(f"nothing was changed: {error}", host=host)])}
        arguments = {
            "users": [_for_the_node(person) for person in self._task.args.get("users") or []],
            "own_keys": sorted(own),
            "login_user": target.user or getpass.getuser(),
        }
        done: dict[str, t.Any] = self._execute_module(
            "gpuops.fleet.fleet_users", {**self._task.args, **arguments}, task_vars=names
        )
        return {**result, **(module_failure(done, host) if done.get("failed") else done)}


def _for_the_node(person: t.Any) -> t.Any:
    """Return the options of a user that the node needs; the rest stays on the control node."""
    if not isinstance(person, dict):
        return person
    known = {name: value for name, value in person.items() if name in PERSON_SPEC}
    keys = [{"line": key["line"]} for key in person.get("keys") or [] if isinstance(key, dict) and "line" in key]
    return {**known, "keys": keys}
