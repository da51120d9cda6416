# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The key by which the fleet is entered: made when missing, repaired where that is safe, refused where it is not.

This plugin util is PRIVATE to the collection.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
from pathlib import Path

from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import ProblemError
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.process import Finished, run_command

_RSA_BITS = 3072
_SECONDS = 30.0


class ControllerKeyError(ProblemError):
    """A key that cannot be used. The message says why, and the next command."""


def keep_private(directory: Path, dry: bool) -> bool:
    """Make a directory that only its owner may enter; whether that was a change."""
    if directory.is_dir() and stat.S_IMODE(directory.stat().st_mode) == 0o700:
        return False
    if not dry:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
    return True


def settle(key: Path, dry: bool) -> bool:
    """See to the key; whether something was changed, or would be."""
    public = key.with_name(f"{key.name}.pub")
    if not key.exists() and not key.is_symlink():
        return _make(key, public, dry)
    _check_file(key)
    changed = stat.S_IMODE(key.stat().st_mode) != 0o600
    if changed and not dry:
        key.chmod(0o600)
    loaded = _keygen("-y", "-P", "", "-f", str(key))
    locked = "passphrase" in loaded.stderr
    # ssh-keygen does not load a key that others may read, and in check mode they still may.
    if loaded.rc != 0 and not locked and not (dry and changed):
        raise ControllerKeyError(
            f"{key} is no usable private key. Nothing was written to it",
            seen=f"ssh-keygen says: {loaded.stderr.strip()}",
            remedy=_way_out(key),
        )
    kind = _keygen("-l", "-f", str(key)).stdout.strip()
    _check_strength(key, kind)
    if loaded.rc == 0:
        return _mend_public(public, loaded.stdout.strip(), dry) or changed
    if locked:
        _check_agent(key, kind)
    return changed


def _make(key: Path, public: Path, dry: bool) -> bool:
    if public.exists():
        if _fingerprint(_keygen("-l", "-f", str(public)).stdout) in run_command(["ssh-add", "-l"], _SECONDS).stdout:
            return False
        raise ControllerKeyError(
            f"{public} is there and {key} is not, and no ssh-agent holds the key. A new pair would replace it",
            remedy=f"bring {key} back, or load it (ssh-add), or mv {_quoted(public)} {_quoted(public, '.old')}; then "
            "run again.",
        )
    if not dry:
        made = _keygen("-q", "-t", "ed25519", "-N", "", "-C", "gpuops.fleet", "-f", str(key))
        if made.rc != 0:
            raise ControllerKeyError(
                f"ssh-keygen could not make {key}: {made.stderr.strip() or made.stdout.strip()}",
                remedy=f"ls -ld {_quoted(key.parent)}; df -h {_quoted(key.parent)}",
            )
    return True


def _check_file(key: Path) -> None:
    if key.is_file() and key.stat().st_size:
        return
    what = "a directory" if key.is_dir() else "empty" if key.is_file() else "no file"
    raise ControllerKeyError(f"the key file {key} is {what}. Nothing was written to it", remedy=_way_out(key))


def _way_out(key: Path) -> str:
    return (
        f"mv {_quoted(key)} {_quoted(key, '.old')} and run again to get a new key, or "
        "set ssh_bootstrap_key to another file"
    )


def _check_strength(key: Path, kind: str) -> None:
    bits = kind.partition(" ")[0]
    if "(DSA)" in kind or ("(RSA)" in kind and int(bits) < _RSA_BITS):
        raise ControllerKeyError(
            f"{key} is too weak: {kind}. Wanted is ed25519, or RSA with {_RSA_BITS} bits or more",
            remedy=f"ssh-keygen -t ed25519 -f {_quoted(key.with_name('id_ed25519_gpu'))} and set ssh_bootstrap_key to "
            "that file.",
        )


def _check_agent(key: Path, kind: str) -> None:
    listed = run_command(["ssh-add", "-l"], _SECONDS).stdout
    if _fingerprint(kind) not in listed:
        raise ControllerKeyError(
            f"{key} has a passphrase and no ssh-agent holds it, so nothing can log in without a prompt",
            remedy=f'eval "$(ssh-agent)" && ssh-add {_quoted(key)}, then run again',
        )


def _mend_public(public: Path, right: str, dry: bool) -> bool:
    """People copy the public half to where it shall open doors: it must be that of the key."""
    there = public.read_text(encoding="utf-8", errors="replace") if public.exists() else ""
    if there.split()[:2] == right.split()[:2]:
        return False
    if not dry:
        staged = public.with_name(f".{public.name}.gpuops")
        staged.write_text(f"{right}\n", encoding="utf-8")
        staged.chmod(0o644)
        staged.replace(public)
    return True


def _keygen(*arguments: str) -> Finished:
    return run_command(["ssh-keygen", *arguments], _SECONDS)


def _fingerprint(kind: str) -> str:
    """Return the fingerprint of a line of ssh-keygen -l, or a text that no agent lists."""
    found = re.search(r"SHA256:\S+", kind)
    return found.group() if found else "no fingerprint"


def _quoted(path: Path, more: str = "") -> str:
    return shlex.quote(os.fspath(path) + more)
