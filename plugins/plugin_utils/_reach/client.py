# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The arguments of the user's own OpenSSH client, and the route that it would take.

This plugin util is PRIVATE to the collection. What the client says is read in messages.
"""

from __future__ import annotations

import itertools
import os
import re
import typing as t
from dataclasses import dataclass, replace

from ansible_collections.gpuops.fleet.plugins.module_utils._base.kexinit import Algorithms
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.process import run_command
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.text import printable
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.causes import SickError

# One authentication attempt, no prompt, and nothing written: known_hosts and agent stay as they are.
_LOGIN_OPTIONS = (
    "BatchMode=yes",
    "ControlMaster=yes",
    "ControlPersist=no",
    "StrictHostKeyChecking=yes",
    "NumberOfPasswordPrompts=0",
    "UpdateHostKeys=no",
    "CheckHostIP=no",
    "AddKeysToAgent=no",
    "ClearAllForwardings=yes",
    "FingerprintHash=sha256",
)
# A client of the login's own connection. When that cannot be shared, it must not make a connection by itself.
_SHARED = ("ssh", "-F", "none", "-o", "ControlMaster=no", "-o", "ProxyCommand=false")


@dataclass(frozen=True)
class Target:
    """The login to examine; `port` keeps what the inventory says, number or not."""

    alias: str
    host: str
    port: object = None
    user: str | None = None
    identity_file: str | None = None
    known_hosts_file: str | None = None
    host_key_alias: str | None = None
    ssh_config: str | None = None
    ssh_args: tuple[str, ...] = ()
    timeout: float = 10.0
    password_given: bool = False


@dataclass(frozen=True)
class Route:
    """The connection ssh would make, as C{ssh -G} tells it; without `jump` and `command` it is a direct one."""

    host: str
    port: int
    user: str
    known_name: str
    known_hosts: str
    jump: str = ""
    command: str = ""
    algorithms: Algorithms | None = None
    identity_files: tuple[str, ...] = ()
    identities_only: bool = False
    identity_agent: str = ""

    @property
    def via(self) -> str:
        if self.jump:
            return f"ProxyJump {self.jump}"
        return f"ProxyCommand {self.command}" if self.command else ""


def client_arguments(target: Target) -> list[str]:
    """Return what the inventory says as arguments of ssh; the destination comes after them."""
    arguments = []
    if target.ssh_config:
        arguments += ["-F", target.ssh_config]
    if target.identity_file:
        arguments += ["-i", target.identity_file, "-o", "IdentitiesOnly=yes"]
    if target.known_hosts_file:
        arguments += ["-o", known_hosts_option(target.known_hosts_file)]
    if target.host_key_alias:
        arguments += ["-o", f"HostKeyAlias={target.host_key_alias}"]
    if target.port is not None:
        arguments += ["-p", str(target.port)]
    arguments += target.ssh_args
    return arguments


def known_hosts_option(path: str) -> str:
    """ssh takes several files here, separated by blanks."""
    return f'UserKnownHostsFile="{path}"' if " " in path else f"UserKnownHostsFile={path}"


def destination(target: Target) -> str:
    return f"{target.user}@{target.host}" if target.user else target.host


def login_command(target: Target, control_path: str, proxy: str = "", command: str = "") -> list[str]:
    """The one login of an examination, whose connection others share by `control_path`.

    `proxy` replaces the jump hosts. Without a command the connection only waits for those others, and tells of them.
    """
    argv = ["ssh", "-v" if command else "-vv"]
    for option in (*_LOGIN_OPTIONS, f"ConnectTimeout={max(1, int(target.timeout))}"):
        argv += ["-o", option]
    if proxy:
        # ssh accepts no -J beside a ProxyCommand.
        argv += ["-o", f"ProxyCommand={proxy}"]
        target = replace(target, ssh_args=without_jump(target.ssh_args))
    argv += [*client_arguments(target), "-S", control_path, "-T"]
    return [*argv, destination(target), command] if command else [*argv, "-N", destination(target)]


def shared_command(control_path: str, *arguments: str) -> list[str]:
    """A client of the login's connection."""
    return [*_SHARED, "-S", control_path, *arguments, "shared"]


def without_jump(arguments: t.Sequence[str]) -> tuple[str, ...]:
    kept = []
    rest = iter(arguments)
    for argument in rest:
        if argument == "-J":
            next(rest, None)
        elif not argument.startswith("-J"):
            kept.append(argument)
    return tuple(kept)


def asked_jumps(arguments: t.Sequence[str]) -> list[str]:
    """The jump hosts that the arguments ask for, each as one value of ProxyJump."""
    found = []
    for argument, following in itertools.zip_longest(arguments, arguments[1:], fillvalue=""):
        if argument.startswith("-J"):
            found.append(argument[2:] or following)
        elif option := re.match(r"(?:-o)?\s*proxyjump[\s=]+(.*)", argument, re.IGNORECASE):
            found.append(option[1])
    return found


def jump_host(route: Route, target: Target) -> Target:
    """The last jump host before a node, as ssh itself would call it: with its configuration, without its arguments."""
    before, _comma, last = route.jump.rpartition(",")
    user, _at, place = last.rpartition("@")
    found = re.fullmatch(r"\[?(.*?)\]?(?::(\d+))?", place)
    host, port = found.groups() if found else (place, None)
    return Target(
        alias=host,
        host=host,
        port=port,
        user=user or None,
        ssh_config=_config_file(target),
        ssh_args=("-J", before) if before else (),
        timeout=target.timeout,
    )


def _config_file(target: Target) -> str | None:
    """The one thing that ssh hands on to its jump hosts."""
    files = [
        argument.removeprefix("-F") or following
        for argument, following in itertools.zip_longest(target.ssh_args, target.ssh_args[1:])
        if argument.startswith("-F")
    ]
    return files[-1] if files else target.ssh_config


def parse_route(text: str, target: Target) -> Route:
    """Read the output of C{ssh -G}."""
    config: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _blank, value = line.partition(" ")
        config.setdefault(key, []).append(value)

    def first(key: str, default: str = "") -> str:
        value = config.get(key, [default])[0]
        return "" if value == "none" else value

    def names(key: str) -> tuple[str, ...]:
        return tuple(first(key).split(",")) if first(key) else ()

    host, port = first("hostname", target.host), int(first("port", "22"))
    agent = first("identityagent", "SSH_AUTH_SOCK")
    return Route(
        host=host,
        port=port,
        user=first("user"),
        known_name=first("hostkeyalias") or (host if port == 22 else f"[{host}]:{port}"),
        known_hosts=target.known_hosts_file or first("userknownhostsfile").split(" ")[0],
        jump=first("proxyjump"),
        command=first("proxycommand"),
        algorithms=Algorithms(names("kexalgorithms"), names("hostkeyalgorithms"), names("ciphers"), names("macs")),
        identity_files=tuple(os.path.expanduser(path) for path in config.get("identityfile", [])),
        identities_only=first("identitiesonly") == "yes",
        identity_agent=os.environ.get("SSH_AUTH_SOCK", "")
        if agent == "SSH_AUTH_SOCK"
        else os.path.expandvars(os.path.expanduser(agent)),
    )


def ask_route(target: Target, limit: float) -> Route:
    """The way that ssh would take."""
    configured = run_command(["ssh", "-G", *client_arguments(target), destination(target)], limit)
    if configured.rc == 0:
        return parse_route(configured.stdout, target)
    if configured.rc == 127:
        raise SickError("ssh_missing", configured.stderr)
    if configured.rc is None:
        raise SickError("ssh_config_error", f"ssh -G did not end within {target.timeout:g} s (Match exec?)")
    lines = [printable(line.strip()) for line in configured.stderr.splitlines()]
    raise SickError("ssh_config_error", next((line for line in lines if line), f"exit code {configured.rc}"))
