# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A finding of the audit, and what the judges of all subjects need for one. **PRIVATE** to the collection."""

from __future__ import annotations

import re
import shlex
import typing as t
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.audit.access import Access

OK, FAIL, UNKNOWN, SKIPPED = "ok", "fail", "unknown", "skipped"
MOST_SHOWN = 5
_ALLOWING = {"allowusers", "allowgroups", "denyusers", "denygroups"}


@dataclass(frozen=True)
class Names:
    """Names of a node in the commands of the remedies: in the inventory, and for ssh."""

    host: str
    alias: str

    @property
    def site(self) -> str:
        return f"ansible-playbook site.yml --tags trust --limit {self.host}"

    def shell(self, command: str) -> str:
        """A command for the node, run as the audit was. A path of the node's could hold a template for Ansible."""
        if re.search(r"\{[{%#]", command):
            return f"ssh {self.alias}"
        # Double quotes where they serve: many of these commands have single ones in them.
        quoted = shlex.quote(command) if re.search(r'["$`\\!]', command) else f'"{command}"'
        return f"ansible {self.host} -m shell -a {quoted}"


class Outcome(t.NamedTuple):
    status: str
    evidence: str
    remedy: str = ""


Judge = Callable[[Access, Names, t.Any], Outcome]


def blind_spot(access: Access, names: Names) -> Outcome | None:
    """Return an UNKNOWN outcome if the effective configuration of sshd could not be read, else None."""
    if not access.sshd:
        return Outcome(UNKNOWN, "there is no sshd on the PATH of root", names.shell("ps -ef | grep -i ssh"))
    refusal = next((each.refusal for each in access.effective if each.refusal), "")
    if refusal or not access.effective:
        return Outcome(UNKNOWN, f"sshd -T says: {refusal or 'nothing'}", names.shell("sshd -t"))
    return None


def blind_spot_of_connections(access: Access, names: Names) -> Outcome | None:
    blind = blind_spot(access, names)
    if blind:
        return blind
    if access.untestable:
        line = access.untestable[0]
        return Outcome(
            UNKNOWN,
            f"{line.place}: no connection can be named that `Match {line.criteria}` applies to",
            look_at(line.place, names),
        )
    if access.left_out:
        return Outcome(
            UNKNOWN,
            f"{access.left_out} accounts were left out: more than 100, or with unusual names",
            names.shell("getent passwd"),
        )
    return None


def look_at(place: str, names: Names) -> str:
    path, _colon, number = place.rpartition(":")
    return names.shell(f"sed -n {number},+9p {shlex.quote(path)}")


def reload_remedy(access: Access, names: Names, first: str = "") -> str:
    """A reload brings into force what others left on disk. Where that may lock out, it is left to the guarded way."""
    login = access.login or "root"
    keyless = not any(account.all_keys for account in access.accounts if account.name == login)
    refusing = any(
        each.missing_files or each.get("pubkeyauthentication") == "no" or _ALLOWING & each.settings.keys()
        for each in access.effective
    )
    return names.site if keyless or refusing else names.shell(f"{first}sshd -t && systemctl reload ssh")


def some(texts: Sequence[str]) -> str:
    more = len(texts) - MOST_SHOWN
    return ", ".join(texts[:MOST_SHOWN]) + (f" and {more} more" if more > 0 else "")


def for_accounts(judge: Callable[..., Outcome | None], good: str) -> Judge:
    """A check of all accounts; judge returns None where nothing is wrong with what was seen."""

    def judge_all(access: Access, names: Names, expect: t.Any) -> Outcome:
        found = judge(access, names, expect)
        if found:
            return found
        blind = blind_spot_of_connections(access, names)
        if blind:
            return blind
        unreadable = [path for account in access.accounts for path in account.unreadable]
        if unreadable:
            remedy = names.shell(f"ls -ld {shlex.quote(unreadable[0])}")
            return Outcome(UNKNOWN, f"not even root can read {some(unreadable)}", remedy)
        return Outcome(OK, good.format(accounts=len(access.accounts), expect=expect))

    return judge_all
