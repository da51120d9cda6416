# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller half of gpu_probe: one round trip, no Python on the node, all parsing here."""

from __future__ import annotations

import secrets
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.gpuops.fleet.plugins.plugin_utils._gpu_answer import (
    GpuAnswerError,
    collector_command,
    parse_answer,
)
from ansible_collections.gpuops.fleet.plugins.plugin_utils._gpu_state import Expectations, is_version, probe_result

ARGUMENT_SPEC: dict[str, Any] = {
    "deadline": {"type": "int", "default": 60},
    "expect": {
        "type": "dict",
        "options": {
            "count": {"type": "int"},
            "model": {"type": "str"},
            "min_driver": {"type": "str"},
        },
    },
}


class ActionModule(ActionBase):
    """Run the collector on the node and judge its answer."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        asked = self._task.args.get("expect")
        if isinstance(asked, dict) and isinstance(asked.get("min_driver"), float):
            raise AnsibleActionFail(
                f"expect.min_driver was read as the number {asked['min_driver']}, so a final 0 would be lost."
                ' Next: write it in quotes, as in min_driver: "550.90.07"'
            )
        _validation, options = self.validate_argument_spec(ARGUMENT_SPEC)
        expect = Expectations(**(options["expect"] or {}))
        if options["deadline"] < 1:
            raise AnsibleActionFail(f"deadline must be at least 1 second, got {options['deadline']}")
        if expect.min_driver is not None and not is_version(expect.min_driver):
            raise AnsibleActionFail(f"expect.min_driver must be a version such as 550.90.07, got {expect.min_driver!r}")
        marker = f"gpuops-{secrets.token_hex(8)}"
        command = collector_command(marker, options["deadline"])
        answered = self._low_level_execute_command(
            f"{self._compute_environment_string()} {command}".strip(), encoding_errors="replace"
        )
        try:
            answer = parse_answer(answered["stdout"], marker)
        except GpuAnswerError as exc:
            host = (task_vars or {}).get("inventory_hostname", "the node")
            seen = (answered["stderr"] or answered["stdout"]).strip()[-500:] or "no output"
            raise AnsibleActionFail(
                f"gpu_probe on {host}: {exc}: exit code {answered['rc']}, {seen}."
                f" Try: ansible {host} -m ansible.builtin.raw -a 'sh -c id'"
            ) from exc
        result.update(probe_result(answer, expect))
        return result
