# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import datetime
import functools
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import Problem
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.failure import action_failure
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.shared import folder_of_this_run
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.fetch import fetch, once
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.user_data import UserError, read_people
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.user_keys import GitHub, Sources, resolve

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "users": {"type": "list", "elements": "dict", "required": True},
    "github_api_url": {"type": "str", "default": "https://api.github.com"},
    "github_token": {"type": "str", "default": "", "no_log": True},
    "timeout": {"type": "float", "default": 10.0},
}
_KEPT = "_fleet_user_keys_arguments"


class ActionModule(ActionBase):
    """Find the keys of people, on the control node."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        options = self._options()
        if options["timeout"] <= 0:
            raise AnsibleActionFail(f"localhost: timeout must be more than 0 s, not {options['timeout']}")
        github = GitHub(options["github_api_url"], options["github_token"].strip())
        now = datetime.datetime.now()
        try:
            people = read_people(options["users"])
            get = once(functools.partial(fetch, timeout=options["timeout"]), folder_of_this_run())
            sources = Sources(people, get, github, now)
        except UserError as error:
            problem = Problem(str(error), remedy="correct it and run again; nothing was changed", host="localhost")
            raise action_failure(problem) from None
        users, remarks = resolve(people, sources, now.date())
        return {**result, "changed": False, "users": users, "remarks": remarks}

    def _options(self) -> dict[str, Any]:
        """Read the arguments once, and leave none behind.

        DISPLAY_ARGS_TO_STDOUT shows the arguments of a task that is done, and heeds no no_log of a single one: here a
        token, and private keys that somebody took for public ones. Each try of an until is a new action, but the task
        is the same.
        """
        if _KEPT not in vars(self._task):
            try:
                _validated, options = self.validate_argument_spec(ARGUMENT_SPEC)
            finally:
                self._task.args = {}
            vars(self._task)[_KEPT] = options
        kept: dict[str, Any] = vars(self._task)[_KEPT]
        return kept
