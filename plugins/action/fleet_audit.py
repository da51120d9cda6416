# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The audit of one node: one round trip, no Python there, all judging here.

One more round trip tells where the connection comes from when sudo is used, and one more asks for Match blocks.
"""

from __future__ import annotations

import shlex
import typing as t
from dataclasses import replace

from ansible.plugins.action import ActionBase
from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import Problem
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.collector import CollectorError, new_marker, no_answer
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.failure import action_failure
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.audit.access import Access, match_specs
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.audit.answer import (
    collector_command,
    parse_answer,
    parse_effective,
)
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.audit.checks import (
    BaselineError,
    apply_baseline,
    audit,
)
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.audit.findings import Names

ARGUMENT_SPEC: dict[str, dict[str, t.Any]] = {
    "baseline": {"type": "dict", "default": {}},
    "alias": {"type": "str"},
}


class ActionModule(ActionBase):
    """Read who has access to a node, and judge it."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(ARGUMENT_SPEC)
        host = str((task_vars or {}).get("inventory_hostname", "the node"))
        try:
            checks = apply_baseline(options["baseline"])
        except BaselineError as error:
            problem = Problem("baseline", str(error), "ansible-doc gpuops.fleet.fleet_audit", host=host)
            raise action_failure(problem) from None
        access = self._look(host)
        return {
            **result,
            "changed": False,
            "checks": audit(access, Names(host, options["alias"] or host), checks),
            "host_keys": [key.fingerprint for key in access.host_keys],
        }

    def _look(self, host: str) -> Access:
        marker = new_marker()
        command = f"{self._origin()} {collector_command(marker)}".strip()
        answered = self._low_level_execute_command(command, encoding_errors="replace")
        try:
            access = parse_answer(answered["stdout"], marker)
            specs, untestable = match_specs(access)
            if specs:
                command = collector_command(marker, [spec for _line, spec in specs])
                answered = self._low_level_execute_command(command, encoding_errors="replace")
                in_match = parse_effective(answered["stdout"], marker, [line for line, _spec in specs])
                access = replace(access, effective=(*access.effective, *in_match))
        except CollectorError as error:
            raise action_failure(no_answer(error, "fleet_audit", host, answered)) from None
        return replace(access, untestable=tuple(untestable))

    def _origin(self) -> str:
        """Return variables for the shell: source of the connection and login user, which sudo does not hand on."""
        if not self._connection.become:
            return ""
        asked = 'printf "\\n%s\\n%s\\n" "$USER" "$SSH_CONNECTION"'
        answered = self._low_level_execute_command(asked, sudoable=False)
        login, connection = ["", "", *answered["stdout"].splitlines()][-2:]
        return f"USER={shlex.quote(login)} SSH_CONNECTION={shlex.quote(connection)}"
