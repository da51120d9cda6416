# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What actions that examine a way over SSH share.

This plugin util is PRIVATE to the collection.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.client import Target


@contextlib.contextmanager
def cleaning_up() -> t.Iterator[None]:
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


def target_of_task(
    action: ActionBase, variables: t.Mapping[str, t.Any], options: t.Mapping[str, t.Any] | None = None
) -> Target:
    """Return the target of the task that an action runs for."""
    return choose_target(
        options or {},
        lambda name: action._templar.template(variables.get(name)),
        action._play_context.remote_user,
    )


def choose_target(options: t.Mapping[str, t.Any], variable: t.Callable[[str], t.Any], remote_user: str) -> Target:
    """Return the target of a task; what its options leave open comes from the variables of Ansible's ssh connection."""

    def choose(option: str, name: str) -> t.Any:
        return options[option] if options.get(option) is not None else variable(name)

    inventory_hostname = str(variable("inventory_hostname"))
    host = choose("host", "ansible_ssh_host")
    host = variable("ansible_host") if host is None else host
    user = choose("user", "ansible_user") or remote_user
    identity_file = choose("identity_file", "ansible_ssh_private_key_file")
    ssh_args = options.get("ssh_args")
    if ssh_args is None:
        try:
            ssh_args = shlex.split(variable("ansible_ssh_common_args") or "")
        except ValueError as error:
            raise AnsibleActionFail(
                f"ansible_ssh_common_args of {inventory_hostname} cannot be split into words: {error}"
            ) from error
    return Target(
        alias=options.get("alias") or inventory_hostname,
        host=str(inventory_hostname if host is None else host),
        port=choose("port", "ansible_port"),
        user=str(user) if user else None,
        identity_file=os.path.expanduser(str(identity_file)) if identity_file else None,
        known_hosts_file=options.get("known_hosts_file"),
        host_key_alias=options.get("host_key_alias"),
        ssh_config=options.get("ssh_config"),
        ssh_args=tuple(ssh_args),
        timeout=options.get("timeout", 10.0),
        password_given=options.get("password_given", False),
    )
