# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The checks of the audit: a table, and for each line of it a function that judges. **PRIVATE** to the collection."""

from __future__ import annotations

import difflib
import re
import typing as t
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.audit.access import Access
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.audit.findings import (
    FAIL,
    SKIPPED,
    UNKNOWN,
    Judge,
    Names,
    Outcome,
    for_accounts,
)
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.audit.judges import accounts, files, sshd

SEVERITIES = ("info", "low", "medium", "high", "critical")
SHARED = "host_key_shared"


class BaselineError(Exception):
    """The user's baseline names something that is not there."""


@dataclass(frozen=True)
class Check:
    """One line of the table; expect is the threshold, where there is one."""

    id: str
    title: str
    severity: str
    cis: str
    judge: Judge
    expect: int | str | None = None
    enabled: bool = True


def audit(access: Access, names: Names, checks: Sequence[Check]) -> list[dict[str, str]]:
    """The results of all checks for one node, in the order of the table."""
    return [_result(check, access, names) for check in checks]


def _result(check: Check, access: Access, names: Names) -> dict[str, str]:
    if not check.enabled:
        outcome = Outcome(SKIPPED, "switched off by the baseline")
    elif access.uid != 0:
        outcome = Outcome(
            UNKNOWN,
            f"needs root, and the audit ran as uid {access.uid}",
            f"ansible-playbook gpuops.fleet.audit --limit {names.host} -e ansible_become=true",
        )
    else:
        outcome = check.judge(access, names, check.expect)
    return {
        "id": check.id,
        "title": check.title,
        "severity": check.severity,
        "cis": check.cis,
        "status": outcome.status,
        "evidence": outcome.evidence,
        "remedy": outcome.remedy if outcome.status in (FAIL, UNKNOWN) else "",
    }


# ---- the baseline ----


def apply_baseline(baseline: dict[str, t.Any]) -> list[Check]:
    """The table with the user's own severities and thresholds in it."""
    known = {check.id: check for check in CHECKS}
    for name, wishes in baseline.items():
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(known)}."
            raise BaselineError(f"no check is called {name!r}. {hint}")
        known[name] = _with_wishes(known[name], wishes)
    return list(known.values())


def _with_wishes(check: Check, wishes: t.Any) -> Check:
    if not isinstance(wishes, dict):
        raise BaselineError(f"{check.id} must be a dictionary such as {{severity: low}}, got {wishes!r}")
    for key, value in wishes.items():
        if key == "severity" and value in SEVERITIES:
            check = replace(check, severity=value)
        elif key == "severity":
            raise BaselineError(f"{check.id}.severity must be one of {', '.join(SEVERITIES)}, got {value!r}")
        elif key == "enabled" and isinstance(value, bool):
            check = replace(check, enabled=value)
        elif key == "enabled":
            raise BaselineError(f"{check.id}.enabled must be true or false, got {value!r}")
        elif key == "expect" and check.expect is not None:
            check = replace(check, expect=_expectation(check, value))
        elif key == "expect":
            having = ", ".join(other.id for other in CHECKS if other.expect is not None)
            raise BaselineError(f"{check.id} has no threshold, so no expect; those that have one: {having}")
        else:
            raise BaselineError(f"{check.id} takes severity, enabled and expect, got {key!r}")
    return check


def _expectation(check: Check, value: t.Any) -> int | str:
    if check.id == "root_login":
        # YAML reads a bare no as false.
        value = {False: "no", True: "yes"}.get(value, value) if isinstance(value, bool) else value
        right, wanted = value in sshd.ROOT_LOGIN, f"one of {', '.join(sshd.ROOT_LOGIN)}"
    elif check.id == "log_level":
        right, wanted = value in sshd.LOG_LEVELS, f"one of {', '.join(sshd.LOG_LEVELS)}"
    elif check.id == "max_startups":
        right, wanted = bool(re.fullmatch(r"\d+:\d+:\d+", str(value))), 'three numbers in quotes such as "10:30:60"'
    else:
        right, wanted = isinstance(value, int) and not isinstance(value, bool) and value > 0, "a whole number above 0"
    if not right:
        raise BaselineError(f"{check.id}.expect must be {wanted}, got {value!r}")
    expected: int | str = value
    return expected


# The numbers are those of the CIS Debian Linux 13 Benchmark for the same setting, as ComplianceAsCode lists them. What
# it wants of the setting may differ: it allows root no login at all.
CHECKS: tuple[Check, ...] = (
    Check("sshd_config", "sshd accepts its configuration", "critical", "", sshd.accepts_configuration),
    Check("superusers", "only root has uid 0", "critical", "5.4.2.1", accounts.superusers),
    Check("password_login", "nobody gets in with a password alone", "high", "",
          sshd.for_connections(sshd.password_login, "PasswordAuthentication no")),
    Check("empty_password_login", "sshd takes no empty password", "high", "5.1.20",
          sshd.setting("PermitEmptyPasswords", "no", sshd.is_not("PermitEmptyPasswords", "no"))),
    Check("root_login", "root gets in by key at most", "high", "5.1.21",
          sshd.setting("PermitRootLogin", "{expect}", sshd.laxer_root_login), "prohibit-password"),
    Check("empty_passwords", "no account has an empty password", "high", "7.2.2", accounts.empty_passwords),
    Check("sshd_files", "only root writes what sshd reads", "high", "5.1.1", files.sshd_files),
    Check("host_key_files", "only root reads the private host keys", "high", "5.1.2", files.host_key_files),
    Check(SHARED, "no other node has the same host key", "high", "", files.host_key_shared),
    Check("revoked_keys", "the files of RevokedKeys can be read", "high", "", sshd.revoked_keys),
    Check("strict_modes", "sshd refuses keys that others may write", "high", "",
          sshd.global_setting("StrictModes", "yes", sshd.is_not("StrictModes", "yes"))),
    Check("key_files", "only their owners write authorized_keys", "high", "",
          for_accounts(files.key_files, "accounts: {accounts}")),
    Check("drop_in", "the drop-in of gpuops.fleet is there", "medium", "", sshd.drop_in_there),
    Check("drift", "what the drop-in says is in force", "medium", "", sshd.drift),
    Check("loaded", "sshd has read its files as they are", "medium", "", sshd.loaded),
    Check("weak_kex", "no weak key exchange", "medium", "5.1.12", sshd.without("KexAlgorithms", sshd.WEAK_KEX)),
    Check("weak_ciphers", "no weak cipher", "medium", "5.1.6", sshd.without("Ciphers", sshd.WEAK_CIPHERS)),
    Check("weak_macs", "no weak MAC", "medium", "5.1.16", sshd.without("MACs", sshd.WEAK_MACS)),
    Check("weak_signatures", "no weak signature of the host", "medium", "",
          sshd.without("HostKeyAlgorithms", sshd.WEAK_HOST_KEYS)),
    Check("host_keys_weak", "RSA host keys are long enough", "medium", "", files.host_keys_weak, 3072),
    Check("keys_weak", "no weak key in authorized_keys", "medium", "",
          for_accounts(files.keys_weak, "no DSA, and no RSA below {expect} bits"), 3072),
    Check("hostbased", "no login because of the host one comes from", "medium", "5.1.10",
          sshd.setting("HostbasedAuthentication", "no", sshd.is_not("HostbasedAuthentication", "no"))),
    Check("user_environment", "users set no environment for their login", "medium", "5.1.22",
          sshd.global_setting("PermitUserEnvironment", "no", sshd.is_not("PermitUserEnvironment", "no"))),
    Check("max_auth_tries", "few tries in one connection", "low", "5.1.17",
          sshd.setting("MaxAuthTries", "{expect}", sshd.more_than_expected("MaxAuthTries")), 4),
    Check("max_sessions", "few sessions in one connection", "low", "5.1.18",
          sshd.setting("MaxSessions", "{expect}", sshd.more_than_expected("MaxSessions")), 10),
    Check("max_startups", "few connections that have not logged in", "low", "5.1.19",
          sshd.global_setting("MaxStartups", "{expect}", sshd.more_startups), "10:30:60"),
    Check("login_grace_time", "little time to log in", "low", "5.1.14",
          sshd.global_setting("LoginGraceTime", "{expect}", sshd.more_than_expected("LoginGraceTime")), 60),
    Check("log_level", "sshd logs who came", "low", "5.1.15",
          sshd.setting("LogLevel", "{expect}", sshd.lower_log_level), "INFO"),
    Check("post_quantum_kex", "a post-quantum key exchange", "low", "5.1.13", sshd.post_quantum_kex),
    Check("x11_forwarding", "no X11 forwarding", "low", "",
          sshd.setting("X11Forwarding", "no", sshd.is_not("X11Forwarding", "no"))),
    Check("moduli", "no short moduli for group exchange", "low", "", files.moduli, 3072),
    Check("keys_shared", "no key opens two accounts", "low", "",
          for_accounts(files.keys_shared, "accounts: {accounts}")),
    Check("password_without_key", "who has a password has a key too", "low", "",
          for_accounts(accounts.password_without_key, "accounts: {accounts}")),
    Check("failed_logins", "few failed connections from one address", "low", "", accounts.failed_logins, 100),
    Check("keys_duplicate", "each key is there once", "info", "",
          for_accounts(files.keys_duplicate, "accounts: {accounts}")),
    Check("keys_without_comment", "each key says whose it is", "info", "",
          for_accounts(files.keys_without_comment, "accounts: {accounts}")),
    Check("keys_count", "few keys for one account", "info", "", for_accounts(files.keys_count, "none"), 20),
    Check("logins", "who came in", "info", "", accounts.logins),
    Check("journal", "the journal outlives a restart", "info", "6.1.1.1.5", accounts.journal),
)  # fmt: skip
