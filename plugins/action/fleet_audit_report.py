# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import typing as t
from dataclasses import replace

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.failure import action_failure
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.report_file import ReportFileError, write_report
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.terminal import show_table
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.audit.report import (
    compare,
    document,
    junit,
    node_of,
    render,
)

ARGUMENT_SPEC: dict[str, dict[str, t.Any]] = {
    "nodes": {"type": "dict", "required": True},
    "json_dest": {"type": "path"},
    "junit_dest": {"type": "path"},
}


class ActionModule(ActionBase):
    """Show on the terminal what the audit found."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(ARGUMENT_SPEC)
        for host, audited in options["nodes"].items():
            if not isinstance(audited, dict):
                raise AnsibleActionFail(f"nodes: {host} holds no result of fleet_audit: {audited}")
        nodes = compare([node_of(host, audited) for host, audited in options["nodes"].items()])
        show_table(render(nodes, every_check=self._display.verbosity > 0))
        report = document(nodes)
        texts = {"json_dest": json.dumps(report, indent=2) + "\n", "junit_dest": junit(nodes)}
        wanted = [option for option in texts if options[option]]
        for option in wanted if not self._task.check_mode else []:
            try:
                write_report(options[option], texts[option])
            except ReportFileError as error:
                raise action_failure(replace(error.problem, what=f"{option}: {error.problem.what}")) from None
        return {**result, "changed": bool(wanted), **report}
