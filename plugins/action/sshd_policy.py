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
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.shared import folder_of_this_run
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.client import Target
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.doctor import diagnose_patiently
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.target import choose_target, cleaning_up
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
            return {**result, **self._failure("sshd was not changed", str(change.get("msg")))}
        seconds = options.get("rollback_seconds", 30)
        try:
            change["host_keys"] = checked_host_keys(change.get("host_keys", []), self._host)
        except HostKeyError as error:
            if change.get("pending"):
                return {**result, **self._put_back(str(error), seconds)}
            return {**result, **self._failure("sshd was not changed", str(error))}
        if not change.get("pending"):
            return {**result, **change, "auth_methods": _methods(before)}
        return {**result, **change, **self._finish(change, targets, seconds)}

    def _finish(self, change: Report, targets: list[Target], seconds: object) -> Report:
        """Keep the change if it is proven, else have everything put back."""
        after = self._prove(targets, change["host_keys"])
        reason = _first_sick(after)
        if not reason:
            kept = self._module({"phase": "keep", "token": change["token"]})
            if not kept.get("failed"):
                return {"pending": False, "auth_methods": _methods(after)}
            reason = str(kept.get("msg"))
        return self._put_back(reason, seconds)

    def _put_back(self, reason: str, seconds: object) -> Report:
        # Where nobody gets in any more, the timer does it.
        back: Report = {"failed": True}
        with contextlib.suppress(AnsibleConnectionFailure):
            back = self._module({"phase": "restore"})
        what = f"is put back by the node itself within {seconds} s" if back.get("failed") else "was put back"
        return {"changed": False, "pending": False, **self._failure(f"the change to sshd {what}", reason)}

    def _module(self, arguments: dict[str, t.Any]) -> Report:
        done: Report = self._execute_module(_MODULE, arguments, task_vars=self._names)
        return done

    def _target(self, host: str) -> Target:
        """The login of another host of the inventory that is this sshd differs in user and key."""
        own = choose_target(
            {}, lambda name: self._templar.template(self._names.get(name)), self._play_context.remote_user
        )
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

    def _failure(self, what: str, reason: str) -> Report:
        reason = reason.strip().rstrip(".")
        # The node says when it is not a file of its own that speaks against the change.
        is_ours = "this change asks for" in reason
        command = _NEXT_OF_OURS if is_ours else _NEXT
        command = "" if "ext: " in reason else f". Next: {command.format(host=self._host)}"
        return {"failed": True, "msg": f"{self._host}: {what}: {reason}{command}"}


def _first_sick(reports: list[Report]) -> str:
    return next((str(report["message"]) for report in reports if not report["ok"]), "")


def _methods(reports: list[Report]) -> list[str]:
    """How the server would let somebody in, over all logins."""
    return sorted({method for report in reports for method in report["auth_methods"] or []})
