# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The private key on the control node: its file, its .pub file, and the agent.

This plugin util is PRIVATE to the collection. The file format is that of PROTOCOL.key of OpenSSH.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import re
import shlex
import stat
import typing as t
from dataclasses import dataclass, replace

from ansible_collections.gpuops.fleet.plugins.module_utils._base.public_key import fingerprint_of
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.process import run_command
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.text import printable
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.causes import SickError
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.client import Route, Target, ask_route
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.messages import last_words

# A server hangs up after this many: the default of its MaxAuthTries.
MANY_KEYS = 6
# What distributions set as RequiredRSASize.
RSA_BITS = 2048
_KEY_BYTES = 1 << 16
_MAGIC = b"openssh-key-v1\0"


@dataclass(frozen=True)
class PrivateKey:
    """Content of a private key file without its passphrase; `public` is empty where it is encrypted."""

    locked: bool
    public: bytes = b""


class KeyReport(t.NamedTuple):
    """`weak` is a key that servers may refuse without saying why."""

    evidence: str
    warnings: list[SickError]
    weak: str = ""


# --- pure -----------------------------------------------------------------------------------------------------------


def parse_private_key(data: bytes) -> PrivateKey | None:
    """Read a private key file; None when it is none."""
    if b"PRIVATE KEY" not in data:
        return None
    body = re.search(rb"-----BEGIN OPENSSH PRIVATE KEY-----(.*?)-----END", data, re.DOTALL)
    if not body:
        return PrivateKey(locked=b"ENCRYPTED" in data)
    with contextlib.suppress(binascii.Error, IndexError):
        blob = base64.b64decode(body.group(1))
        cipher, rest = _take(blob.removeprefix(_MAGIC))
        _kdf, rest = _take(rest)
        _kdf_options, rest = _take(rest)
        public, _rest = _take(rest[4:])
        return PrivateKey(locked=cipher != b"none", public=public)
    return PrivateKey(locked=False)


def parse_public_key(text: str) -> bytes:
    """The key of a .pub file, or nothing."""
    words = text.split()
    with contextlib.suppress(binascii.Error, IndexError, ValueError):
        return base64.b64decode(words[1], validate=True)
    return b""


def parse_agent(text: str) -> set[str]:
    """Read C{ssh-add -l}, or C{ssh-keygen -l}: the fingerprints."""
    return set(re.findall(r"^\d+ (SHA256:\S+) ", text, re.MULTILINE))


def is_obsolete(data: bytes, public: bytes) -> bool:
    """Kinds that today's ssh-keygen cannot even read."""
    return (
        data.startswith(b"SSH PRIVATE KEY FILE FORMAT 1.1")
        or b"BEGIN DSA PRIVATE KEY" in data
        or public.startswith(b"\0\0\0\7ssh-dss")
    )


def _take(data: bytes) -> tuple[bytes, bytes]:
    end = 4 + int.from_bytes(data[:4], "big")
    if end > len(data):
        raise IndexError
    return data[4:end], data[end:]


# --- the outside world ----------------------------------------------------------------------------------------------


def check_keys(identity_file: str | None, route: Route, timeout: float) -> KeyReport:
    """Examine the key that ssh is told to use, else those that it chooses."""
    held = _ask_agent(route.identity_agent, timeout)
    agent = "" if held is None else f", {len(held)} in the agent"
    warnings = []
    if identity_file:
        evidence = _check_key(identity_file, held or set(), timeout)
    else:
        files = [path for path in route.identity_files if os.path.exists(path)]
        evidence = "ssh chooses: " + (", ".join(files) or "no key file") + agent
    offered = {_fingerprint_of_file(path) for path in route.identity_files} - {""}
    if held and not route.identities_only:
        offered |= held
    if len(offered) >= MANY_KEYS:
        warnings.append(SickError("auth_many_keys", f"{len(offered)} keys{agent}"))
    short = re.match(r"RSA (\d+) bits", evidence)
    weak = short.group(0) if short and int(short.group(1)) < RSA_BITS else ""
    return KeyReport(evidence, warnings, weak)


def keys_in_use(target: Target) -> set[str]:
    """The fingerprints of the keys by which this control node may be logged in, in files or in the agent."""
    # Without a look at the configuration, which may try jump hosts.
    if target.identity_file and "IdentitiesOnly=yes" in target.ssh_args:
        files: t.Sequence[str] = [target.identity_file]
        held: set[str] = set()
    else:
        if target.identity_file:
            # As Ansible gives it, and not as if it were the only one.
            arguments = ("-o", f'IdentityFile="{target.identity_file}"', *target.ssh_args)
            target = replace(target, identity_file=None, ssh_args=arguments)
        route = ask_route(target, target.timeout)
        files = route.identity_files
        held = set() if route.identities_only else _ask_agent(route.identity_agent, target.timeout) or set()
    return held | {_told_fingerprint(path, target.timeout) for path in files} - {""}


def _ask_agent(path: str, timeout: float) -> set[str] | None:
    """The fingerprints of the keys in the agent; None when there is no agent."""
    if not path:
        return None
    return parse_agent(run_command(["ssh-add", "-l"], timeout, {"SSH_AUTH_SOCK": path}).stdout)


def _check_key(path: str, held: set[str], timeout: float) -> str:
    public = parse_public_key(_read(path + ".pub").decode("utf-8", "replace"))
    in_agent = fingerprint_of(public) in held
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise SickError("key_missing", f"{path} is not a regular file")
        with open(path, "rb") as file:
            data = file.read(_KEY_BYTES)
    except PermissionError as error:
        raise SickError("key_unreadable", f"{path}: {error.strerror}") from error
    except OSError as error:
        if in_agent:
            return "only the .pub file, the private key is in the agent"
        raise SickError("key_missing", f"{path}: {error.strerror}") from error
    private = parse_private_key(data)
    mode = f"mode {stat.S_IMODE(status.st_mode):04o}"
    listed = run_command(["ssh-keygen", "-l", "-f", path], timeout)
    found = re.match(r"(\d+) (SHA256:\S+) .*\((\S+)\)$", listed.stdout.strip())
    in_agent = in_agent or bool(found and found.group(2) in held)
    # ssh never opens the file of a key that the agent holds, and checks only files of its own user.
    if private and not in_agent and status.st_uid == os.getuid() and status.st_mode & 0o077:
        raise SickError("key_permissions", f"{path}: {mode}")
    if not found and is_obsolete(data, private.public if private else b""):
        raise SickError("key_obsolete", f"{path}: a key that this ssh-keygen does not know")
    if not found and not (private and private.locked):
        words = last_words([printable(line.strip()) for line in listed.stderr.splitlines()])
        raise SickError("key_invalid", words or f"{path}: no key in it")
    if public and private and private.public and public != private.public and not in_agent:
        raise SickError("key_pub_mismatch", f"{path}.pub is {fingerprint_of(public)}, not the key of {path}")
    evidence = [f"{found.group(3)} {found.group(1)} bits {found.group(2)}" if found else path, mode]
    if private and private.locked:
        evidence.append("passphrase")
    if in_agent:
        evidence.append("in the agent")
    return ", ".join(evidence)


def _told_fingerprint(path: str, timeout: float) -> str:
    """The fingerprint of a key, or nothing where ssh has none to offer."""
    fingerprint = _fingerprint_of_file(path)
    if fingerprint != path:
        return fingerprint
    listed = parse_agent(run_command(["ssh-keygen", "-l", "-f", path], timeout).stdout)
    if not listed:
        file, public = shlex.quote(path), shlex.quote(f"{path}.pub")
        raise SickError("key_invalid", f"{path} does not tell its public key; next: ssh-keygen -y -f {file} > {public}")
    return listed.pop()


def _fingerprint_of_file(path: str) -> str:
    """Return the fingerprint of a key file, also of a .pub file alone whose private half is in the agent."""
    data = _read(path)
    private = parse_private_key(data)
    public = private.public if private else parse_public_key(data.decode("utf-8", "replace"))
    public = public or parse_public_key(_read(path + ".pub").decode("utf-8", "replace"))
    if public:
        return fingerprint_of(public)
    return path if private else ""


def _read(path: str) -> bytes:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return file.read(_KEY_BYTES)
    return b""
