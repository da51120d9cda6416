# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the audit judges the files of sshd, the host keys and the keys of users. **PRIVATE** to the collection."""

from __future__ import annotations

import shlex
import typing as t
from collections.abc import Iterable, Sequence

from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.audit.access import Access, Account, FileMode, Key
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.audit.findings import (
    FAIL,
    OK,
    UNKNOWN,
    Names,
    Outcome,
    blind_spot,
    blind_spot_of_connections,
    reload_remedy,
    some,
)


def _open_to_others(files: Iterable[FileMode], owners: Iterable[int], forbidden: int) -> list[FileMode]:
    return [file for file in dict.fromkeys(files) if file.uid not in owners or file.mode & forbidden]


def _described(files: Sequence[FileMode]) -> str:
    return some([f"{file.path} (mode {file.mode:04o}, uid {file.uid})" for file in files])


def _paths(files: Sequence[FileMode]) -> str:
    return " ".join(shlex.quote(file.path) for file in files)


def sshd_files(access: Access, names: Names, _expect: t.Any) -> Outcome:
    found = _open_to_others(access.files, [0], 0o022)
    if found:
        remedy = names.shell(f"chown root {_paths(found)} && chmod go-w {_paths(found)}")
        return Outcome(FAIL, f"others may write: {_described(found)}", remedy)
    return Outcome(OK, f"only root writes {len(access.files)} files and directories of sshd")


def host_key_files(access: Access, names: Names, _expect: t.Any) -> Outcome:
    found = _open_to_others(access.host_key_files, [0], 0o077)
    if found:
        remedy = names.shell(f"chown root {_paths(found)} && chmod 0600 {_paths(found)}")
        return Outcome(FAIL, f"others may read: {_described(found)}", remedy)
    if not access.host_key_files:
        return blind_spot(access, names) or Outcome(UNKNOWN, "no host key was found", names.shell("ls -l /etc/ssh"))
    return Outcome(OK, f"only root reads the {len(access.host_key_files)} host keys")


def _is_weak(key: Key, bits: int) -> bool:
    return key.kind.startswith("DSA") or (key.kind.startswith("RSA") and key.bits < bits)


def _named(key: Key) -> str:
    return f"{key.kind} {key.bits} {key.fingerprint} {key.comment}".rstrip()


def host_keys_weak(access: Access, names: Names, expect: int) -> Outcome:
    weak = [key for key in access.host_keys if _is_weak(key, expect)]
    if weak:
        remedy = reload_remedy(access, names, "rm /etc/ssh/ssh_host_rsa_key* && ssh-keygen -A && ")
        return Outcome(FAIL, some([_named(key) for key in weak]), remedy)
    if not access.host_keys:
        return blind_spot(access, names) or Outcome(UNKNOWN, "no host key was found", names.shell("ls -l /etc/ssh"))
    return Outcome(OK, some([f"{key.kind} {key.bits}" for key in access.host_keys]))


def host_key_shared(access: Access, names: Names, _expect: t.Any) -> Outcome:
    return blind_spot(access, names) or Outcome(
        UNKNOWN, "only the report over all nodes can tell", f"ansible-playbook gpuops.fleet.audit --limit {names.host}"
    )


def moduli(access: Access, names: Names, expect: int) -> Outcome:
    blind = blind_spot(access, names)
    if blind:
        return blind
    if "group-exchange" not in access.effective[0].get("kexalgorithms"):
        return Outcome(OK, "not used: sshd offers no group exchange")
    count = sum(each for _bits, each in access.moduli)
    small = sum(each for bits, each in access.moduli if bits < expect)
    if small:
        path = shlex.quote(access.effective[0].get("modulifile") or "/etc/ssh/moduli")
        keep = f'awk "\\$5 >= {expect - 1}" {path} > {path}.new && [ -s {path}.new ] && mv {path}.new {path}'
        return Outcome(FAIL, f"{small} of {count} moduli are below {expect} bits", names.shell(keep))
    return Outcome(OK, f"none of {count} is below {expect} bits")


def key_files(access: Access, names: Names, _expect: t.Any) -> Outcome | None:
    found = [file for each in access.accounts for file in _open_to_others(each.paths, [0, each.uid], 0o022)]
    if not found:
        return None
    remedy = names.shell(f"chmod go-w {_paths(found)}; ls -ld {_paths(found)}")
    return Outcome(FAIL, f"others may write, so sshd refuses the keys: {_described(found)}", remedy)


def keys_weak(access: Access, names: Names, expect: int) -> Outcome | None:
    weak = [(each, key) for each in access.accounts for key in each.all_keys if _is_weak(key, expect)]
    if not weak:
        return None
    evidence = some(list(dict.fromkeys(f"{_named(key)} of {each.name}" for each, key in weak)))
    return Outcome(FAIL, evidence, _edit(weak[0][0].keys, weak[0][1], names))


def _edit(files: Sequence[tuple[str, Sequence[Key]]], key: Key, names: Names) -> str:
    path = next(path for path, keys in files if key in keys)
    return f"ssh -t {names.alias} {shlex.quote(f'editor {shlex.quote(path)}')}"


def keys_duplicate(access: Access, names: Names, _expect: t.Any) -> Outcome | None:
    found = []
    for account in access.accounts:
        prints = [key.fingerprint for key in account.all_keys]
        found += [(account, key) for key in dict.fromkeys(account.all_keys) if prints.count(key.fingerprint) > 1]
    if not found:
        return None
    evidence = some(list(dict.fromkeys(f"{key.fingerprint} of {each.name}" for each, key in found)))
    return Outcome(FAIL, f"more than once: {evidence}", _edit(found[0][0].keys, found[0][1], names))


def keys_shared(access: Access, names: Names, _expect: t.Any) -> Outcome | None:
    owners: dict[str, list[tuple[Account, Key]]] = {}
    for account in access.accounts:
        for fingerprint, key in {key.fingerprint: key for key in account.all_keys}.items():
            owners.setdefault(fingerprint, []).append((account, key))
    shared = {fingerprint: several for fingerprint, several in owners.items() if len(several) > 1}
    if not shared:
        return None
    told = [f"{each} of {' and '.join(account.name for account, _key in shared[each])}" for each in shared]
    account, key = next(iter(shared.values()))[-1]
    return Outcome(FAIL, some(told), _edit(account.keys, key, names))


def keys_without_comment(access: Access, names: Names, _expect: t.Any) -> Outcome | None:
    nameless = [(each, key) for each in access.accounts for key in each.all_keys if not key.comment]
    if not nameless:
        return None
    evidence = some([f"{key.fingerprint} of {each.name}" for each, key in nameless])
    return Outcome(FAIL, f"whose is it: {evidence}", _edit(nameless[0][0].keys, nameless[0][1], names))


def keys_count(access: Access, names: Names, expect: int) -> Outcome | None:
    counts = [(each, len({key.fingerprint for key in each.all_keys})) for each in access.accounts]
    many = [(each, count) for each, count in counts if count > expect]
    if many:
        evidence = some([f"{count} keys of {each.name}" for each, count in many])
        return Outcome(FAIL, evidence, _edit(many[0][0].keys, many[0][0].all_keys[0], names))
    shown = [f"{count} of {each.name}" for each, count in counts if count]
    # A fact worth reading also where nothing is wrong with it.
    return None if blind_spot_of_connections(access, names) else Outcome(OK, some(shown) or "no keys")
