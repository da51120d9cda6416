# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This plugin util is PRIVATE to the collection: it may change without notice.
"""Hosts out of an ssh_config(5): only their names are read here, every value comes from C(ssh -G)."""

from __future__ import annotations

import getpass
import glob
import hashlib
import os
import pwd
import re
import shlex
import typing as t
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fnmatch import fnmatchcase

from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import ProblemError
from ansible_collections.gpuops.fleet.plugins.module_utils._reach.alias import AliasError, resolve

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    Resolved = Mapping[str, Sequence[str]]

THREADS = 8
LINE = re.compile(r"[ \t\r]*\"?(host|include)\"?(?:[ \t]*=[ \t]*|[ \t]+)(.*)", re.IGNORECASE)
WORD = re.compile(r"""(?:\\['"\\ ]|"(?:\\['"\\]|[^"])*"|'(?:\\['"\\]|[^'])*'|[^ \t"'])+""")
QUOTED = re.compile(r"""\\(['"\\ ])|"((?:\\['"\\]|[^"])*)"|'((?:\\['"\\]|[^'])*)'""")
LITERAL = re.compile(r"[^\s*?!-][^\s*?]*\Z")

# Known hosts that are forgotten at once.
NOWHERE = ("/dev/null", "/dev/null /dev/null", "none")
# What decides how a node is reached, beside address, port, user and key. StrictHostKeyChecking is not among them:
# nothing here switches host key checking off.
WAY_IN = (
    "ProxyJump",
    "ProxyCommand",
    "ProxyUseFdpass",
    "HostKeyAlias",
    "UserKnownHostsFile",
    "GlobalKnownHostsFile",
    "KnownHostsCommand",
    "CertificateFile",
    "IdentitiesOnly",
    "IdentityAgent",
    "PKCS11Provider",
    "SecurityKeyProvider",
    "AddressFamily",
    "BindAddress",
    "BindInterface",
    "Ciphers",
    "MACs",
    "KexAlgorithms",
    "HostKeyAlgorithms",
    "PubkeyAcceptedAlgorithms",
    "CASignatureAlgorithms",
    "RequiredRSASize",
)


class SshConfigError(ProblemError):
    """Raised for a configuration of ssh that cannot be read."""


def host_names(path: str) -> list[str]:
    """The names that Host lines give without a wildcard, in their order, Includes followed."""
    try:
        return list(dict.fromkeys(_names(path, set())))
    except OSError as error:
        raise SshConfigError(f"{path}: {error.strerror}", remedy=f"ls -la {shlex.quote(path)}") from error


def select_names(names: Iterable[str], include: Sequence[str], exclude: Sequence[str]) -> list[str]:
    """The names that match a glob of C(include) and none of C(exclude)."""
    return [
        name
        for name in names
        if any(fnmatchcase(name, pattern) for pattern in include)
        and not any(fnmatchcase(name, pattern) for pattern in exclude)
    ]


def read_hosts(ssh: str, path: str, names: Sequence[str]) -> dict[str, dict[str, t.Any]]:
    """The variables of each name, as ssh resolves it."""

    def ask(name: str) -> dict[str, t.Any]:
        try:
            return host_variables(name, resolve(ssh, path, name), defaults, path)
        except AliasError as error:
            raise SshConfigError(
                f"{name}: ssh rejects {path}: {error}", remedy=f"ssh -G -F {shlex.quote(path)} {shlex.quote(name)}"
            ) from error

    defaults = resolve(ssh, "none", "gpuops-fleet-probe.invalid")
    with ThreadPoolExecutor(THREADS) as pool:
        return dict(zip(names, pool.map(ask, names)))


def host_variables(name: str, resolved: Resolved, defaults: Resolved, path: str) -> dict[str, t.Any]:
    """Ansible's connection variables, and those of the role ssh_bootstrap, for one name."""
    address, port, user = (resolved[keyword][0] for keyword in ("hostname", "port", "user"))
    tokens = {"%": "%", "d": _home(), "h": address, "n": name, "p": port, "r": user, "u": getpass.getuser()}
    keys = _identity_files(resolved, defaults, tokens)
    # ssh reads its usual file by itself, and the system's own beside it
    words = [] if path == os.path.join(_home(), ".ssh/config") else ["-F", path]
    for keyword in WAY_IN:
        values = resolved.get(keyword.lower(), [])
        if values == defaults.get(keyword.lower(), []) or (keyword.endswith("KnownHostsFile") and values[0] in NOWHERE):
            continue
        for value in values:
            # Ansible connects to the address, so only here it is still known what the name was.
            words += ["-o", f"{keyword}={_expand(value, {'n': name.replace('%', '%%')})}"]
    for key in keys[1:]:
        words += ["-o", f"IdentityFile={key}"]
    variables: dict[str, t.Any] = {
        "ansible_host": address,
        "ansible_port": int(port),
        "ansible_user": user,
        "ansible_ssh_common_args": shlex.join(words),
    }
    if keys:
        variables["ansible_ssh_private_key_file"] = keys[0]
        # The role makes a key that is missing, and would take a public key of an agent for a broken one.
        if os.path.isfile(keys[0]) and not keys[0].endswith(".pub"):
            variables["ssh_bootstrap_key"] = keys[0]
    if "proxyjump" in resolved or "proxycommand" in resolved:
        # Ansible shares a connection by address, port and user, but two private networks may have the same address.
        way = f"{variables['ansible_ssh_common_args']} {user}@{address}:{port}"
        variables["ansible_control_path"] = f"%(directory)s/{hashlib.sha256(way.encode()).hexdigest()[:10]}"
    if "proxyjump" in resolved:
        variables["ssh_bootstrap_proxy_jump"] = resolved["proxyjump"][0]
    return variables


def _names(path: str, seen: set[str]) -> Iterator[str]:
    seen.add(os.path.realpath(path))
    with open(path, encoding="utf-8", errors="replace") as stream:
        text = stream.read()
    for line in text.split("\n"):
        found = LINE.match(line.rstrip())
        if not found:
            continue
        words = _words(found[2])
        if found[1].lower() == "host":
            yield from (word for word in words if LITERAL.match(word))
            continue
        for word in words:
            # Unlike for everything else, ssh takes $HOME here.
            pattern = os.path.join(os.path.expanduser("~/.ssh"), os.path.expanduser(word))
            for included in sorted(glob.glob(pattern)):
                if os.path.realpath(included) not in seen:
                    with suppress(OSError):
                        yield from _names(included, seen)


def _words(arguments: str) -> Iterator[str]:
    for found in WORD.finditer(arguments):
        if found[0].startswith("#"):
            return
        yield QUOTED.sub(lambda part: part[1] or part[2] or part[3] or "", found[0])


def _identity_files(resolved: Resolved, defaults: Resolved, tokens: Mapping[str, str]) -> list[str]:
    """The keys to offer, those that are there first."""
    asked = resolved.get("identityfile", [])
    files = [_tilde(_expand(value, tokens)) for value in asked if value.lower() != "none"]
    if asked == defaults.get("identityfile", []):
        # Nothing was configured: with more than one of its usual keys ssh tries them all, which no variable can say.
        there = [file for file in files if os.path.isfile(file)]
        return there if len(there) == 1 else []
    return sorted(files, key=lambda file: not os.path.isfile(file))


def _expand(value: str, tokens: Mapping[str, str]) -> str:
    return re.sub(r"%(.)", lambda token: tokens.get(token[1], token[0]), value)


def _tilde(path: str) -> str:
    return os.path.join(_home(), path[2:]) if path.startswith("~/") else os.path.expanduser(path)


def _home() -> str:
    """Return the folder in which ssh looks for its files, whatever $HOME is."""
    return pwd.getpwuid(os.getuid()).pw_dir
