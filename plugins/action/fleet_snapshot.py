# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.terminal import show_table
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.table import (
    failures,
    name_twins,
    read_node,
    shared_keys,
    table,
)

NODE_SPEC = {
    "host": {"type": "str", "required": True},
    "alias": {"type": "str", "required": True},
    "address": {"type": "str"},
    "reachable": {"type": "bool"},
    "hardened": {"type": "bool"},
    "machine": {"type": "str", "default": ""},
    "gpus": {"type": "list", "elements": "str", "default": []},
    "driver": {"type": "str"},
    "cuda": {"type": "str"},
    "state": {"type": "str"},
    "host_key": {"type": "str"},
    "problems": {"type": "list", "elements": "dict", "default": []},
    "failure": {"type": "str", "default": ""},
}


class ActionModule(ActionBase):
    """Show the fleet on the terminal of whoever runs the playbook."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validated, options = self.validate_argument_spec(
            {"nodes": {"type": "list", "elements": "dict", "required": True, "options": NODE_SPEC}}
        )
        nodes = name_twins([read_node(**node) for node in options["nodes"]])
        show_table((text, "red" if is_failure else None) for text, is_failure in table(nodes))
        return {
            **result,
            "changed": False,
            "nodes": [asdict(node) for node in nodes],
            "failures": failures(nodes),
            "shared_host_keys": [asdict(shared) for shared in shared_keys(nodes)],
        }
