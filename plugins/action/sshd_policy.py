# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import getpass
import tempfile
import typing as t
from dataclasses import replace
from pathlib import Path

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import (
    CONTROL_NODE,
    Problem,
    failed_result,
    on_host,
)
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.failure import problems_of_module
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.shared import folder_of_this_run
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.client import Target
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.doctor import diagnose_patiently
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.target import (
    choose_target,
    cleaning_up,
    target_of_task,
)
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.host_keys import HostKeyError, checked_host_keys

_MODULE = "gpuops.fleet.sshd_policy"
# Few, since OpenSSH 9.8 and later penalise a source that fails often.
_ATTEMPTS = 3
_NEXT_OF_OURS = "ansible-inventory --host {host}, and change the sshd_hardening variables that say so"
_NEXT = 'ssh {host} grep -rnE "^[^#]" /etc/ssh/sshd_config /etc/ssh/sshd_config.d'

Report = t.Dict[str, t.Any]


class ActionModule(ActionBase):
    """Prove, change, prove, keep: in one task, since the timer on the node waits for no other host of the play."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        self._names = task_vars or {}
        self._host = str(self._names["inventory_hostname"])
        options = dict(self._task.args)
        targets = [self._target(str(host)) for host in options.pop("hosts", None) or [self._host]]
        before = self._prove(targets)
        if sick := _first_sick(before):
            return {**result, **self._failure("sshd was not changed", sick)}
        users = sorted({target.user or getpass.getuser() for target in targets})
        change = self._module({**options, "users": users})
        if change.get("failed"):
            return {**result, **self._failure("sshd was not changed", self._reasons(change))}
        seconds = options.get("rollback_seconds", 30)
        try:
            change["host_keys"] = checked_host_keys(change.get("host_keys", []), self._host)
        except HostKeyError as error:
            if change.get("pending"):
                return {**result, **self._put_back([error.problem], seconds)}
            return {**result, **self._failure("sshd was not changed", [error.problem])}
        if not change.get("pending"):
            return {**result, **change, "auth_methods": _methods(before)}
        return {**result, **change, **self._finish(change, targets, seconds)}

    def _finish(self, change: Report, targets: list[Target], seconds: object) -> Report:
        """Keep the change if it is proven, else have everything put back."""
        after = self._prove(targets, change["host_keys"])
        reasons = _first_sick(after)
        if not reasons:
            kept = self._module({"phase": "keep", "token": change["token"]})
            if not kept.get("failed"):
                return {"pending": False, "auth_methods": _methods(after)}
            reasons = self._reasons(kept)
        return self._put_back(reasons, seconds)

    def _put_back(self, reasons: list[Problem], seconds: object) -> Report:
        # Where nobody gets in any more, the timer does it.
        back: Report = {"failed": True}
        with contextlib.suppress(AnsibleConnectionFailure):
            back = self._module({"phase": "restore"})
        what = f"is put back by the node itself within {seconds} s" if back.get("failed") else "was put back"
        return {"changed": False, "pending": False, **self._failure(f"the change to sshd {what}", reasons)}

    def _module(self, arguments: dict[str, t.Any]) -> Report:
        done: Report = self._execute_module(_MODULE, arguments, task_vars=self._names)
        return done

    def _target(self, host: str) -> Target:
        """The login of another host of the inventory that is this sshd differs in user and key."""
        own = target_of_task(self, self._names)
        if host == self._host:
            return own
        return choose_target(
            {"host": own.host, "port": own.port, "ssh_args": own.ssh_args},
            self._names["hostvars"][host].get,
            self._play_context.remote_user,
        )

    def _prove(self, targets: list[Target], host_keys: t.Sequence[str] = ()) -> list[Report]:
        """Log in by new connections; with other host keys than those that are pinned, if the node has said which."""
        with cleaning_up(), tempfile.TemporaryDirectory(prefix="gpuops-") as folder:
            if host_keys:
                known = Path(folder, "known_hosts")
                known.write_text("".join(f"{self._host} {key}\n" for key in host_keys))
                targets = [
                    replace(target, known_hosts_file=str(known), host_key_alias=self._host) for target in targets
                ]
            return [diagnose_patiently(target, _ATTEMPTS, 1.0, 20.0, folder_of_this_run()) for target in targets]

    def _reasons(self, done: Report) -> list[Problem]:
        remedy = (_NEXT_OF_OURS if done.get("asked_for") is True else _NEXT).format(host=self._host)
        return [
            problem if problem.remedy else replace(problem, remedy=remedy, where=CONTROL_NODE)
            for problem in problems_of_module(done, self._host)
        ]

    def _failure(self, what: str, reasons: list[Problem]) -> Report:
        return failed_result(
            on_host([replace(reason, what=f"{what}: {reason.what}") for reason in reasons], self._host)
        )


def _first_sick(reports: list[Report]) -> list[Problem]:
    return next((list(report["problems"]) for report in reports if not report["ok"]), [])


def _methods(reports: list[Report]) -> list[str]:
    """Return the authentication methods that the server offered, over all logins, sorted."""
    return sorted({method for report in reports for method in report["auth_methods"] or []})
