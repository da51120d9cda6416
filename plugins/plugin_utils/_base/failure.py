# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How an action fails with problems instead of a text.

This plugin util is PRIVATE to the collection.
"""

from __future__ import annotations

from ansible.errors import AnsibleActionFail
from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import Problem, failed_result


def action_failure(*problems: Problem) -> AnsibleActionFail:
    """Return the error for an action to raise, by which the result of its task has C(msg) and C(problems)."""
    result = failed_result(problems)
    return AnsibleActionFail(result["msg"], result=result)
