# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How an action fails with problems instead of a text.

This plugin util is PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail
from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import Problem, failed_result, problems_of


def action_failure(*problems: Problem) -> AnsibleActionFail:
    """Return the error for an action to raise, by which the result of its task has C(msg) and C(problems)."""
    result = failed_result(problems)
    return AnsibleActionFail(result["msg"], result=result)


def problems_of_module(done: t.Mapping[str, t.Any], host: str) -> list[Problem]:
    """Return the problems of a module half that failed on a host; one that broke off has only a message."""
    return problems_of(done.get("problems"), host) or [Problem(str(done.get("msg")), host=host)]


def module_failure(done: t.Mapping[str, t.Any], host: str) -> dict[str, t.Any]:
    """Return the failed result of a module half with the host, which it does not know, in each problem."""
    # With the exception, Ansible shows the message of the module.
    rest = {name: value for name, value in done.items() if name != "exception"}
    return {**rest, **failed_result(problems_of_module(done, host))}
