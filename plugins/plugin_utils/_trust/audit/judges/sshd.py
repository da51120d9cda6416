# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the audit judges the configuration of sshd. **PRIVATE** to the collection."""

from __future__ import annotations

import re
import shlex
import time
import typing as t
from collections.abc import Callable, Sequence

from ansible_collections.gpuops.fleet.plugins.module_utils._trust.sshd.effective import plain
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.audit.access import Access, Effective
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.audit.findings import (
    FAIL,
    OK,
    SKIPPED,
    Judge,
    Names,
    Outcome,
    blind_spot,
    blind_spot_of_connections,
    look_at,
    reload_remedy,
    some,
)

ROOT_LOGIN = ("no", "forced-commands-only", "prohibit-password", "yes")
LOG_LEVELS = ("INFO", "VERBOSE")
# SHA-1 and older; what ssh-audit fails for more than that is not weak but distrusted by some.
WEAK_KEX = re.compile(r".*-sha1(-.*)?|.*group1-.*|rsa1024-.*")
WEAK_CIPHERS = re.compile(r".*-cbc(@.*)?|arcfour.*|none")
WEAK_MACS = re.compile(r"hmac-(md5|ripemd160|sha1)(-.*|@.*)?|umac-64(-etm)?@openssh\.com|none")
WEAK_HOST_KEYS = re.compile(r"ssh-(rsa|dss)(-cert-v0[01]@openssh\.com)?")
_POST_QUANTUM = re.compile(r"(mlkem\d+|sntrup\d+)x.*")
# Their values come back as other text than they were written in, or as one line for each.
_NOT_COMPARED = {
    "authorizedkeysfile", "channeltimeout", "hostkey", "ipqos", "listenaddress", "permitlisten", "permitopen",
    "persourcepenalties", "port", "rekeylimit", "setenv", "subsystem", "unusedconnectiontimeout",
}  # fmt: skip


def _change(access: Access, names: Names, line: str) -> str:
    """The command that sets a keyword of sshd, or that shows who sets it where our own file does already."""
    keyword = line.split()[0]
    if not access.drop_in:
        return names.site
    if keyword.lower() in {name for name, _value in _drop_in_lines(access.drop_in)[0]}:
        return names.shell(f"grep -rniE '^ *({keyword}|match|include)' /etc/ssh/sshd_config /etc/ssh/sshd_config.d")
    return reload_remedy(access, names, f"echo {line} >> /etc/ssh/sshd_config.d/01-local.conf && ")


def setting(keyword: str, wanted: str, wrong: Callable[[Effective, t.Any], bool]) -> Judge:
    """A check of one keyword; wanted is what to set, with {expect} for the threshold."""
    return for_connections(_says(keyword, wrong), f"{keyword} {wanted}")


def global_setting(keyword: str, wanted: str, wrong: Callable[[Effective, t.Any], bool]) -> Judge:
    """The same for a keyword that no Match block can hold."""
    bad = _says(keyword, wrong)

    def judge(access: Access, names: Names, expect: t.Any) -> Outcome:
        blind = blind_spot(access, names)
        if blind:
            return blind
        said = bad(access.effective[0], expect)
        line = f"{keyword} {wanted.format(expect=expect)}"
        return Outcome(FAIL, said, _change(access, names, line)) if said else Outcome(OK, f"{line}, or stricter")

    return judge


def _says(keyword: str, wrong: Callable[[Effective, t.Any], bool]) -> Callable[[Effective, t.Any], str]:
    def bad(each: Effective, expect: t.Any) -> str:
        return f"{keyword} is {each.get(keyword.lower()) or 'not said'}" if wrong(each, expect) else ""

    return bad


def for_connections(bad: Callable[[Effective, t.Any], str], line: str) -> Judge:
    """A check of what a Match block can change; bad says what is wrong for one connection, line would right it."""

    def judge(access: Access, names: Names, expect: t.Any) -> Outcome:
        found: dict[str, list[Effective]] = {}
        for each in access.effective:
            said = bad(each, expect) if each.settings else ""
            if said:
                found.setdefault(said, []).append(each)
        wanted = line.format(expect=expect)
        if not found:
            good = f"{wanted}, or stricter, for {len(access.effective)} connections tried"
            return blind_spot_of_connections(access, names) or Outcome(OK, good)
        evidence = "; ".join(f"{said} for {_who(several, access)}" for said, several in found.items())
        places = [each.match.place if each.match else "" for several in found.values() for each in several]
        # Where only Match blocks differ, no other line of the configuration helps.
        remedy = look_at(places[0], names) if all(places) else _change(access, names, wanted)
        return Outcome(FAIL, evidence, remedy)

    return judge


def _who(found: Sequence[Effective], access: Access) -> str:
    """The users, with the address where it matters, and the Match blocks that open what is closed else."""
    addresses = {each.address for each in access.effective if not each.match}
    seen: dict[str, set[str]] = {}
    for each in found:
        if not each.match:
            seen.setdefault(each.user, set()).add(each.address)
    texts = [user if seen[user] == addresses else f"{user} from {', '.join(sorted(seen[user]))}" for user in seen]
    if len(texts) > 1 and seen == {each.user: addresses for each in access.effective if not each.match}:
        texts = ["every account"]
    for each in found:
        if each.match and each.user not in seen:
            texts.append(f"{each.user} from {each.address} ({each.match.place}: Match {each.match.criteria})")
    return some(texts)


def accepts_configuration(access: Access, names: Names, _expect: t.Any) -> Outcome:
    refusal = next((each.refusal for each in access.effective if each.refusal), "")
    # That directory is there only while sshd runs, and says nothing about the files.
    if refusal and "privilege separation directory" not in refusal:
        return Outcome(FAIL, f"sshd will not start again: {refusal}", names.shell("sshd -t"))
    return blind_spot(access, names) or Outcome(OK, "sshd -T accepts it")


def password_methods(each: Effective) -> list[str]:
    """The methods by which a password alone lets in."""
    if each.user == "root" and each.get("permitrootlogin") != "yes":
        return []
    methods = []
    if each.get("passwordauthentication") == "yes":
        methods.append("password")
    if each.get("kbdinteractiveauthentication") == "yes" and each.get("usepam") == "yes":
        methods.append("keyboard-interactive")
    chains = [] if each.get("authenticationmethods") == "any" else each.get("authenticationmethods").split()
    enough = [chain for chain in chains if all(step.partition(":")[0] in methods for step in chain.split(","))]
    return methods if enough or not chains else []


def password_login(each: Effective, _expect: t.Any) -> str:
    methods = password_methods(each)
    return f"sshd takes {' and '.join(methods)}" if methods else ""


def laxer_root_login(each: Effective, expect: str) -> bool:
    said = each.get("permitrootlogin").replace("without-password", "prohibit-password")
    return each.user == "root" and (said not in ROOT_LOGIN or ROOT_LOGIN.index(said) > ROOT_LOGIN.index(expect))


def more_than_expected(keyword: str) -> Callable[[Effective, int], bool]:
    def wrong(each: Effective, expect: int) -> bool:
        said = each.get(keyword.lower())
        # For LoginGraceTime 0 is no limit.
        return not (said.isdigit() and 0 < int(said) <= expect)

    return wrong


def is_not(keyword: str, wanted: str) -> Callable[[Effective, t.Any], bool]:
    return lambda each, _expect: each.get(keyword.lower()) != wanted


def more_startups(each: Effective, expect: str) -> bool:
    said = each.get("maxstartups")
    if not re.fullmatch(r"\d+:\d+:\d+", said):
        return True
    return any(int(part) > int(limit) for part, limit in zip(said.split(":"), expect.split(":")))


def lower_log_level(each: Effective, expect: str) -> bool:
    return each.get("loglevel") not in LOG_LEVELS[LOG_LEVELS.index(expect) :]


def without(keyword: str, weak: re.Pattern[str]) -> Judge:
    """A check that none of sshd's algorithms of a kind is weak."""

    def judge(access: Access, names: Names, _expect: t.Any) -> Outcome:
        blind = blind_spot(access, names)
        if blind:
            return blind
        offered = access.effective[0].get(keyword.lower()).split(",")
        found = [name for name in offered if weak.fullmatch(name)]
        if found:
            return Outcome(FAIL, f"offers {', '.join(found)}", _change(access, names, f"{keyword} -{','.join(found)}"))
        return Outcome(OK, f"none of {len(offered)} is weak")

    return judge


def post_quantum_kex(access: Access, names: Names, _expect: t.Any) -> Outcome:
    blind = blind_spot(access, names)
    if blind:
        return blind
    found = [name for name in access.effective[0].get("kexalgorithms").split(",") if _POST_QUANTUM.fullmatch(name)]
    if found:
        return Outcome(OK, f"offers {', '.join(found)}")
    remedy = f"{names.site} (where OpenSSH is older than 9.0: a newer release of Debian)"
    return Outcome(FAIL, "offers no post-quantum key exchange", remedy)


def revoked_keys(access: Access, names: Names, _expect: t.Any) -> Outcome:
    missing = sorted({path for each in access.effective for path in each.missing_files})
    if missing:
        return Outcome(
            FAIL,
            f"{', '.join(missing)} cannot be read, so sshd refuses every key",
            names.shell(f"ls -l {' '.join(map(shlex.quote, missing))}"),
        )
    return blind_spot_of_connections(access, names) or Outcome(OK, "each file of RevokedKeys is there, if any")


def _drop_in_lines(text: str) -> tuple[list[tuple[str, str]], set[str]]:
    """Keyword in small letters and value of the lines of our own file, and the keywords in its Match blocks."""
    found = []
    for line in text.splitlines():
        keyword, _space, value = line.strip().partition(" ")
        if keyword and not keyword.startswith("#"):
            found.append((keyword.lower(), value.strip().strip('"')))
    end = next((number for number, (keyword, _value) in enumerate(found) if keyword == "match"), len(found))
    return found[:end], {keyword for keyword, _value in found[end:]}


def drop_in_there(access: Access, names: Names, _expect: t.Any) -> Outcome:
    if access.drop_in:
        return Outcome(OK, "/etc/ssh/sshd_config.d/00-gpuops.conf is there")
    return Outcome(FAIL, "there is no /etc/ssh/sshd_config.d/00-gpuops.conf", names.site)


def drift(access: Access, names: Names, _expect: t.Any) -> Outcome:
    if not access.drop_in:
        return Outcome(SKIPPED, "there is no drop-in of ours")
    lines, in_match = _drop_in_lines(access.drop_in)
    compared: set[str] = set()
    differing: dict[str, str] = {}
    for keyword, value in lines:
        for each in access.effective:
            effective = each.settings.get(keyword)
            if each.match or effective is None or keyword in in_match | _NOT_COMPARED or value[:1] in ("+", "-", "^"):
                continue
            compared.add(keyword)
            if not _same(keyword, value, effective):
                differing.setdefault(keyword, f"{keyword} is {' '.join(effective)} for {each.user}, not {value}")
    if differing:
        return Outcome(FAIL, some(list(differing.values())), names.site)
    blind = blind_spot(access, names)
    count = len({keyword for keyword, _value in lines})
    return blind or Outcome(OK, f"{len(compared)} of {count} settings of the drop-in were compared, and are in force")


def _same(keyword: str, written: str, effective: Sequence[str]) -> bool:
    if keyword.startswith(("allow", "deny")) and keyword.endswith(("users", "groups")) or keyword == "acceptenv":
        return set(written.split()) <= {word for value in effective for word in value.split()}
    return plain(keyword, written) == plain(keyword, " ".join(effective))


def loaded(access: Access, names: Names, _expect: t.Any) -> Outcome:
    if access.loaded is None:
        return Outcome(SKIPPED, "sshd has no pid file: it does not run, or systemd starts it for each connection")
    if access.newer:
        changed = ", ".join(f"{path} at {_clock(when)}" for when, path in access.newer)
        return Outcome(
            FAIL,
            f"changed after sshd read its files at {_clock(access.loaded)}: {changed}",
            reload_remedy(access, names),
        )
    return Outcome(OK, f"no file changed after sshd read them at {_clock(access.loaded)}")


def _clock(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
