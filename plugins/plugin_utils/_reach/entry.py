# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the inventory says of one node: whether ssh can be given it, by the rules of the aliases.

This plugin util is PRIVATE to the collection. One node that is refused here would take the aliases of all others with
it, since one task writes them.
"""

from __future__ import annotations

import shlex
import typing as t

from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import ProblemError
from ansible_collections.gpuops.fleet.plugins.module_utils._reach.alias import RefusedAliasError, parse_alias
from ansible_collections.gpuops.fleet.plugins.module_utils._reach.failover import JUMP_HOST
from ansible_collections.gpuops.fleet.plugins.module_utils._reach.words import (
    address_fault,
    alias_fault,
    jump_fault,
    port_fault,
    user_fault,
)

# The options of ssh_alias, and which variables of the inventory they come from.
_WORDS: dict[str, tuple[str, t.Callable[[str], str]]] = {
    "name": ("the alias (ssh_bootstrap_alias, else the name of the node)", alias_fault),
    "hostname": ("ansible_host", lambda address: address_fault(address) if address else "is no address"),
    "port": ("ansible_port", port_fault),
    "user": ("ansible_user", user_fault),
    "proxy_jump": ("ssh_bootstrap_proxy_jump", jump_fault),
}
_NEEDED = ("name", "hostname")
# Longer than anybody waits, and what ssh takes.
_MOST_SECONDS = 86400


class EntryError(ProblemError):
    """Raised for an entry of the inventory that cannot be used, with each value and its variable."""


def check_entry(host: str, entry: t.Mapping[str, t.Any], first_user: str = "") -> dict[str, t.Any]:
    """Return the alias of a node as ssh_alias takes it, or raise EntryError.

    `host` is its name in the inventory. `entry` has options of ssh_alias as an inventory gives them: numbers may be
    texts, and what is None or empty is left out.
    """
    given = {option: value for option, value in entry.items() if value not in (None, "", []) or option in _NEEDED}
    if entry.get("port") == "":
        # Ansible itself would not take it for none.
        given["port"] = ""
    jump_hosts = given.get("jump_hosts", [])
    if isinstance(jump_hosts, str):
        # As Ansible itself reads a list that is given as a text.
        jump_hosts = [jump_host.strip() for jump_host in jump_hosts.split(",")]
    if faults := [*_word_faults(host, given, first_user), *_jump_host_faults(jump_hosts)]:
        raise _refused(host, faults)
    checked: dict[str, t.Any] = dict(given)
    for types, options in ((int, ("port", "connect_timeout")), (str, ("name", "user", "proxy_jump"))):
        checked.update({option: types(given[option]) for option in options if option in given})
    # On the command line of ssh a % stands for itself, as in fe80::1%eth0, in its configuration it begins a token.
    checked["hostname"] = str(given["hostname"]).replace("%", "%%")
    if jump_hosts:
        checked["jump_hosts"] = list(map(str, jump_hosts))
    try:
        parse_alias(checked)
    except RefusedAliasError as error:
        raise _refused(host, [error.what]) from None
    return checked


def _word_faults(host: str, given: t.Mapping[str, t.Any], first_user: str) -> list[str]:
    faults = []

    def look(variable: str, value: t.Any, find_fault: t.Callable[[str], str]) -> None:
        is_one = isinstance(value, (str, int, float, type(None)))
        fault = find_fault("" if value is None else str(value)) if is_one else "is not one value"
        if fault:
            faults.append(f"{variable} is {value!r}, which {fault}")

    for option, (variable, find_fault) in _WORDS.items():
        if option in given:
            look(variable, given[option], find_fault)
    if first_user:
        look("ssh_bootstrap_first_user", first_user, user_fault)
    if given["name"] != host:
        # ssh does not read it then, but it stands in the commands of our messages, which are pasted.
        look("the name of the node", host, lambda name: user_fault(name.replace(" ", "_")))
    look("ssh_bootstrap_timeout", given.get("connect_timeout", 1), _seconds_fault)
    return faults


def _jump_host_faults(jump_hosts: t.Any) -> list[str]:
    if not isinstance(jump_hosts, list):
        return [f"ssh_bootstrap_jump_hosts is {jump_hosts!r}, which is not a list"]
    strange = [jump_host for jump_host in jump_hosts if not JUMP_HOST.match(str(jump_host))]
    return [
        f"ssh_bootstrap_jump_hosts has {each!r}, which is not an alias or [user@]host[:port]" for each in strange[:1]
    ]


def _seconds_fault(seconds: str) -> str:
    whole = seconds.isascii() and seconds.isdigit() and len(seconds) < 9
    return "" if whole and 1 <= int(seconds) <= _MOST_SECONDS else f"is not a whole number from 1 to {_MOST_SECONDS}"


def _refused(host: str, faults: t.Sequence[str]) -> EntryError:
    return EntryError(
        f"{host}: the inventory cannot be used for this node, nothing was done with it",
        seen="; ".join(faults),
        remedy=f"ansible-inventory --host {shlex.quote(host)}, and correct it there",
    )
