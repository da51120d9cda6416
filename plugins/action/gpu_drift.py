# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.terminal import show_table
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.drift import (
    GpuDriftError,
    drift,
    is_probed,
    render,
    require_results,
    summary,
)


class ActionModule(ActionBase):
    """Compare the nodes on the control node and show where they differ."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        results = self._task.args.get("results")
        # By hand, since validate_argument_spec copies the results of the whole fleet, some MB, value by value.
        if set(self._task.args) != {"results"} or not isinstance(results, Mapping):
            raise AnsibleActionFail(
                "gpu_drift takes one option, results: a dictionary of what gpu_probe returned, by the name of the node."
                " Next: ansible-doc gpuops.fleet.gpu_drift"
            )
        try:
            require_results(results)
        except GpuDriftError as exc:
            raise AnsibleActionFail(f"gpu_drift: {exc}. Next: ansible-doc gpuops.fleet.gpu_drift") from exc
        found = drift(results)
        told = summary(results, found)
        show_table([*((line, "yellow") for line in render(found)), (told, None)])
        not_probed = [host for host, probed in results.items() if not is_probed(probed)]
        return {**result, "changed": False, "drift": found, "not_probed": not_probed, "summary": told}
