# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.gpuops.fleet.plugins.plugin_utils._ssh_client import Target
from ansible_collections.gpuops.fleet.plugins.plugin_utils._ssh_doctor import diagnose_patiently

ARGUMENT_SPEC: dict[str, dict[str, t.Any]] = {
    "host": {"type": "str"},
    "port": {"type": "int"},
    "user": {"type": "str"},
    "identity_file": {"type": "path"},
    "known_hosts_file": {"type": "path"},
    "host_key_alias": {"type": "str"},
    "ssh_config": {"type": "path"},
    "ssh_args": {"type": "list", "elements": "str"},
    "alias": {"type": "str"},
    "timeout": {"type": "float", "default": 10.0},
    "password_given": {"type": "bool", "default": False},
    "attempts": {"type": "int", "default": 1},
    "delay": {"type": "float", "default": 2.0},
    "deadline": {"type": "float", "default": 60.0},
}


def _fail(message: str) -> t.NoReturn:
    raise AnsibleActionFail(message)


@contextlib.contextmanager
def _cleaning_up() -> t.Iterator[None]:
    """Ansible passes Ctrl-C on to its workers, which then end at once and would leave what was started here."""
    signals = (signal.SIGINT, signal.SIGTERM)

    def leave(number: int, _frame: object) -> t.NoReturn:
        # Ansible sends another one soon.
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(ARGUMENT_SPEC)
        if options["timeout"] <= 0:
            _fail(f"timeout must be more than 0 seconds, got {options['timeout']:g}")
        if options["attempts"] < 1:
            _fail(f"attempts must be 1 or more, got {options['attempts']}")
        if options["delay"] < 0:
            _fail(f"delay must be 0 seconds or more, got {options['delay']:g}")
        target = self._target(options, task_vars or {})
        with _cleaning_up():
            report = diagnose_patiently(target, options["attempts"], options["delay"], options["deadline"])
        return {**result, "changed": False, **report}

    def _target(self, options: dict[str, t.Any], task_vars: dict[str, t.Any]) -> Target:
        """What an option leaves open comes from the variables that Ansible's own ssh connection reads."""

        def variable(name: str) -> t.Any:
            return self._templar.template(task_vars.get(name))

        def choose(option: str, name: str) -> t.Any:
            return options[option] if options[option] is not None else variable(name)

        inventory_hostname = str(variable("inventory_hostname"))
        host = choose("host", "ansible_ssh_host")
        host = variable("ansible_host") if host is None else host
        user = choose("user", "ansible_user") or self._play_context.remote_user
        identity_file = choose("identity_file", "ansible_ssh_private_key_file")
        ssh_args = options["ssh_args"]
        if ssh_args is None:
            try:
                ssh_args = shlex.split(variable("ansible_ssh_common_args") or "")
            except ValueError as error:
                _fail(f"ansible_ssh_common_args of {inventory_hostname} cannot be split into words: {error}")
        return Target(
            alias=options["alias"] or inventory_hostname,
            host=str(inventory_hostname if host is None else host),
            port=choose("port", "ansible_port"),
            user=str(user) if user else None,
            identity_file=os.path.expanduser(str(identity_file)) if identity_file else None,
            known_hosts_file=options["known_hosts_file"],
            host_key_alias=options["host_key_alias"],
            ssh_config=options["ssh_config"],
            ssh_args=tuple(ssh_args),
            timeout=options["timeout"],
            password_given=options["password_given"],
        )
