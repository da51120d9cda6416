# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the audit judges accounts and the log. **PRIVATE** to the collection."""

from __future__ import annotations

import shlex
import typing as t

from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.audit.access import Access
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.audit.findings import (
    FAIL,
    OK,
    SKIPPED,
    UNKNOWN,
    Names,
    Outcome,
    blind_spot,
    some,
)


def superusers(access: Access, names: Names, _expect: t.Any) -> Outcome:
    others = [name for name in access.superusers if name != "root"]
    if others:
        return Outcome(FAIL, f"uid 0 too: {some(others)}", f"ssh -t {names.alias} vipw")
    return Outcome(OK, "only root has uid 0")


def empty_passwords(access: Access, names: Names, _expect: t.Any) -> Outcome:
    empty = sorted({name for name, state in access.passwords if state == "empty"})
    if empty:
        remedy = names.shell(f"passwd -l {shlex.quote(empty[0])}")
        return Outcome(FAIL, f"no password is needed for {some(empty)}", remedy)
    return Outcome(OK, f"none of {len(access.passwords)} accounts")


def password_without_key(access: Access, names: Names, _expect: t.Any) -> Outcome | None:
    having = {name for name, state in access.passwords if state == "set"}
    found = [each for each in access.accounts if each.name in having and not each.all_keys and not each.unreadable]
    # Without sshd's settings it is not known where the keys are.
    if not found or blind_spot(access, names):
        return None
    remedy = names.shell(f"passwd -l {shlex.quote(found[0].name)}")
    return Outcome(FAIL, f"a password and no key: {some([each.name for each in found])}", remedy)


def _no_log(names: Names) -> Outcome:
    remedy = names.shell("journalctl -n 5 -t sshd; ls -l /var/log/auth.log")
    return Outcome(UNKNOWN, "there is neither a journal nor /var/log/auth.log", remedy)


def logins(access: Access, names: Names, _expect: t.Any) -> Outcome:
    if not access.logins:
        return _no_log(names)
    came = [f"{user} from {address} {count}x, last {last}" for count, last, user, address in access.logins.accepted]
    return Outcome(OK, f"{access.logins.source}, 7 days: {some(came) or 'nobody'}")


def failed_logins(access: Access, names: Names, expect: int) -> Outcome:
    if not access.logins:
        return _no_log(names)
    said = [f"{address} {count}x, last {last}" for count, last, _user, address in access.logins.failed]
    evidence = f"{access.logins.source}, 7 days: {some(said) or 'none'}"
    if any(count > expect for count, *_rest in access.logins.failed):
        address = shlex.quote(access.logins.failed[0][3])
        return Outcome(FAIL, evidence, names.shell(f"journalctl -t sshd -t sshd-session | grep -F {address} | tail"))
    return Outcome(OK, evidence)


def journal(access: Access, names: Names, _expect: t.Any) -> Outcome:
    if access.journal == "persistent":
        return Outcome(OK, "the journal is in /var/log/journal")
    if access.journal == "volatile":
        remedy = names.shell("mkdir -p /var/log/journal && systemctl restart systemd-journald && journalctl --flush")
        return Outcome(FAIL, "the journal is in /run, so a restart of the node ends the trail", remedy)
    return Outcome(SKIPPED, "no journald writes here")
