# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of gpu_probe, for its halves on the control node and on the node. **PRIVATE** to the collection."""

from __future__ import annotations

from typing import Any

FIELDS = ("driver", "health", "kernel_events", "nvlinks", "processes", "topology")

ARGUMENT_SPEC: dict[str, Any] = {
    "deadline": {"type": "int", "default": 60},
    "backend": {"type": "str", "choices": ["auto", "nvidia_smi", "nvml", "sysfs"], "default": "auto"},
    "fields": {
        "type": "list",
        "elements": "str",
        "choices": list(FIELDS),
        "default": list(FIELDS),
    },
    "kernel_log_hours": {"type": "int", "default": 0},
    "policy": {"type": "dict", "default": {}},
    "fail_on": {"type": "str", "choices": ["none", "critical", "warning"], "default": "none"},
    "expect": {
        "type": "dict",
        "options": {
            "count": {"type": "int"},
            "model": {"type": "str"},
            "memory": {"type": "int"},
            "min_driver": {"type": "str"},
            "cuda": {"type": "str"},
            "nvlinks": {"type": "int"},
            "pcie_width": {"type": "int"},
            "ecc": {"type": "bool"},
            "mig": {"type": "bool"},
            "persistence": {"type": "bool"},
        },
    },
}
