# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How each check of the audit judges what was seen on a node. **PRIVATE** to the collection."""

from __future__ import annotations

import re
import shlex
import time
import typing as t
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ansible_collections.gpuops.fleet.plugins.module_utils._trust.sshd.effective import plain
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.audit.answer import (
    Account,
    Doors,
    Effective,
    FileMode,
    Key,
)

OK, FAIL, UNKNOWN, SKIPPED = "ok", "fail", "unknown", "skipped"
ROOT_LOGIN = ("no", "forced-commands-only", "prohibit-password", "yes")
LOG_LEVELS = ("INFO", "VERBOSE")
MOST_SHOWN = 5

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


Judge = Callable[[Doors, Names, t.Any], Outcome]


# ---- sshd ----


def _blind_spot(doors: Doors, names: Names) -> Outcome | None:
    """Return an UNKNOWN outcome if the effective configuration of sshd could not be read, else None."""
    if not doors.sshd:
        return Outcome(UNKNOWN, "there is no sshd on the PATH of root", names.shell("ps -ef | grep -i ssh"))
    refusal = next((each.refusal for each in doors.effective if each.refusal), "")
    if refusal or not doors.effective:
        return Outcome(UNKNOWN, f"sshd -T says: {refusal or 'nothing'}", names.shell("sshd -t"))
    return None


def _blind_spot_of_connections(doors: Doors, names: Names) -> Outcome | None:
    blind = _blind_spot(doors, names)
    if blind:
        return blind
    if doors.untestable:
        line = doors.untestable[0]
        return Outcome(
            UNKNOWN,
            f"{line.place}: no connection can be named that `Match {line.criteria}` applies to",
            _look_at(line.place, names),
        )
    if doors.left_out:
        return Outcome(
            UNKNOWN,
            f"{doors.left_out} accounts were left out: more than 100, or with unusual names",
            names.shell("getent passwd"),
        )
    return None


def _look_at(place: str, names: Names) -> str:
    path, _colon, number = place.rpartition(":")
    return names.shell(f"sed -n {number},+9p {shlex.quote(path)}")


def _change(doors: Doors, names: Names, line: str) -> str:
    """The command that sets a keyword of sshd, or that shows who sets it where our own file does already."""
    keyword = line.split()[0]
    if not doors.drop_in:
        return names.site
    if keyword.lower() in {name for name, _value in _drop_in_lines(doors.drop_in)[0]}:
        return names.shell(f"grep -rniE '^ *({keyword}|match|include)' /etc/ssh/sshd_config /etc/ssh/sshd_config.d")
    return _reload(doors, names, f"echo {line} >> /etc/ssh/sshd_config.d/01-local.conf && ")


def _reload(doors: Doors, names: Names, first: str = "") -> str:
    """A reload brings into force what others left on disk. Where that may lock out, it is left to the guarded way."""
    login = doors.login or "root"
    keyless = not any(account.all_keys for account in doors.accounts if account.name == login)
    refusing = any(
        each.missing_files or each.get("pubkeyauthentication") == "no" or _ALLOWING & each.settings.keys()
        for each in doors.effective
    )
    return names.site if keyless or refusing else names.shell(f"{first}sshd -t && systemctl reload ssh")


def setting(keyword: str, wanted: str, wrong: Callable[[Effective, t.Any], bool]) -> Judge:
    """A check of one keyword; wanted is what to set, with {expect} for the threshold."""
    return for_connections(_says(keyword, wrong), f"{keyword} {wanted}")


def global_setting(keyword: str, wanted: str, wrong: Callable[[Effective, t.Any], bool]) -> Judge:
    """The same for a keyword that no Match block can hold."""
    bad = _says(keyword, wrong)

    def judge(doors: Doors, names: Names, expect: t.Any) -> Outcome:
        blind = _blind_spot(doors, names)
        if blind:
            return blind
        said = bad(doors.effective[0], expect)
        line = f"{keyword} {wanted.format(expect=expect)}"
        return Outcome(FAIL, said, _change(doors, names, line)) if said else Outcome(OK, f"{line}, or stricter")

    return judge


def _says(keyword: str, wrong: Callable[[Effective, t.Any], bool]) -> Callable[[Effective, t.Any], str]:
    def bad(each: Effective, expect: t.Any) -> str:
        return f"{keyword} is {each.get(keyword.lower()) or 'not said'}" if wrong(each, expect) else ""

    return bad


def for_connections(bad: Callable[[Effective, t.Any], str], line: str) -> Judge:
    """A check of what a Match block can change; bad says what is wrong for one connection, line would right it."""

    def judge(doors: Doors, names: Names, expect: t.Any) -> Outcome:
        found: dict[str, list[Effective]] = {}
        for each in doors.effective:
            said = bad(each, expect) if each.settings else ""
            if said:
                found.setdefault(said, []).append(each)
        wanted = line.format(expect=expect)
        if not found:
            good = f"{wanted}, or stricter, for {len(doors.effective)} connections tried"
            return _blind_spot_of_connections(doors, names) or Outcome(OK, good)
        evidence = "; ".join(f"{said} for {_who(several, doors)}" for said, several in found.items())
        places = [each.match.place if each.match else "" for several in found.values() for each in several]
        # Where only Match blocks differ, no other line of the configuration helps.
        remedy = _look_at(places[0], names) if all(places) else _change(doors, names, wanted)
        return Outcome(FAIL, evidence, remedy)

    return judge


def _who(found: Sequence[Effective], doors: Doors) -> str:
    """The users, with the address where it matters, and the Match blocks that open what is closed else."""
    addresses = {each.address for each in doors.effective if not each.match}
    seen: dict[str, set[str]] = {}
    for each in found:
        if not each.match:
            seen.setdefault(each.user, set()).add(each.address)
    texts = [user if seen[user] == addresses else f"{user} from {', '.join(sorted(seen[user]))}" for user in seen]
    if len(texts) > 1 and seen == {each.user: addresses for each in doors.effective if not each.match}:
        texts = ["every account"]
    for each in found:
        if each.match and each.user not in seen:
            texts.append(f"{each.user} from {each.address} ({each.match.place}: Match {each.match.criteria})")
    return _some(texts)


def _some(texts: Sequence[str]) -> str:
    more = len(texts) - MOST_SHOWN
    return ", ".join(texts[:MOST_SHOWN]) + (f" and {more} more" if more > 0 else "")


def accepts_configuration(doors: Doors, names: Names, _expect: t.Any) -> Outcome:
    refusal = next((each.refusal for each in doors.effective if each.refusal), "")
    # That directory is there only while sshd runs, and says nothing about the files.
    if refusal and "privilege separation directory" not in refusal:
        return Outcome(FAIL, f"sshd will not start again: {refusal}", names.shell("sshd -t"))
    return _blind_spot(doors, names) or Outcome(OK, "sshd -T accepts it")


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

    def judge(doors: Doors, names: Names, _expect: t.Any) -> Outcome:
        blind = _blind_spot(doors, names)
        if blind:
            return blind
        offered = doors.effective[0].get(keyword.lower()).split(",")
        found = [name for name in offered if weak.fullmatch(name)]
        if found:
            return Outcome(FAIL, f"offers {', '.join(found)}", _change(doors, names, f"{keyword} -{','.join(found)}"))
        return Outcome(OK, f"none of {len(offered)} is weak")

    return judge


def post_quantum_kex(doors: Doors, names: Names, _expect: t.Any) -> Outcome:
    blind = _blind_spot(doors, names)
    if blind:
        return blind
    found = [name for name in doors.effective[0].get("kexalgorithms").split(",") if _POST_QUANTUM.fullmatch(name)]
    if found:
        return Outcome(OK, f"offers {', '.join(found)}")
    remedy = f"{names.site} (where OpenSSH is older than 9.0: a newer release of Debian)"
    return Outcome(FAIL, "offers no post-quantum key exchange", remedy)


def revoked_keys(doors: Doors, names: Names, _expect: t.Any) -> Outcome:
    missing = sorted({path for each in doors.effective for path in each.missing_files})
    if missing:
        return Outcome(
            FAIL,
            f"{', '.join(missing)} cannot be read, so sshd refuses every key",
            names.shell(f"ls -l {' '.join(map(shlex.quote, missing))}"),
        )
    return _blind_spot_of_connections(doors, names) or Outcome(OK, "each file of RevokedKeys is there, if any")


def _drop_in_lines(text: str) -> tuple[list[tuple[str, str]], set[str]]:
    """Keyword in small letters and value of the lines of our own file, and the keywords in its Match blocks."""
    found = []
    for line in text.splitlines():
        keyword, _space, value = line.strip().partition(" ")
        if keyword and not keyword.startswith("#"):
            found.append((keyword.lower(), value.strip().strip('"')))
    end = next((number for number, (keyword, _value) in enumerate(found) if keyword == "match"), len(found))
    return found[:end], {keyword for keyword, _value in found[end:]}


def drop_in_there(doors: Doors, names: Names, _expect: t.Any) -> Outcome:
    if doors.drop_in:
        return Outcome(OK, "/etc/ssh/sshd_config.d/00-gpuops.conf is there")
    return Outcome(FAIL, "there is no /etc/ssh/sshd_config.d/00-gpuops.conf", names.site)


def drift(doors: Doors, names: Names, _expect: t.Any) -> Outcome:
    if not doors.drop_in:
        return Outcome(SKIPPED, "there is no drop-in of ours")
    lines, in_match = _drop_in_lines(doors.drop_in)
    compared: set[str] = set()
    differing: dict[str, str] = {}
    for keyword, value in lines:
        for each in doors.effective:
            effective = each.settings.get(keyword)
            if each.match or effective is None or keyword in in_match | _NOT_COMPARED or value[:1] in ("+", "-", "^"):
                continue
            compared.add(keyword)
            if not _same(keyword, value, effective):
                differing.setdefault(keyword, f"{keyword} is {' '.join(effective)} for {each.user}, not {value}")
    if differing:
        return Outcome(FAIL, _some(list(differing.values())), names.site)
    blind = _blind_spot(doors, names)
    count = len({keyword for keyword, _value in lines})
    return blind or Outcome(OK, f"{len(compared)} of {count} settings of the drop-in were compared, and are in force")


def _same(keyword: str, written: str, effective: Sequence[str]) -> bool:
    if keyword.startswith(("allow", "deny")) and keyword.endswith(("users", "groups")) or keyword == "acceptenv":
        return set(written.split()) <= {word for value in effective for word in value.split()}
    return plain(keyword, written) == plain(keyword, " ".join(effective))


def loaded(doors: Doors, names: Names, _expect: t.Any) -> Outcome:
    if doors.loaded is None:
        return Outcome(SKIPPED, "sshd has no pid file: it does not run, or systemd starts it for each connection")
    if doors.newer:
        changed = ", ".join(f"{path} at {_clock(when)}" for when, path in doors.newer)
        return Outcome(
            FAIL,
            f"changed after sshd read its files at {_clock(doors.loaded)}: {changed}",
            _reload(doors, names),
        )
    return Outcome(OK, f"no file changed after sshd read them at {_clock(doors.loaded)}")


def _clock(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


# ---- files and keys ----


def _open_to_others(files: Iterable[FileMode], owners: Iterable[int], forbidden: int) -> list[FileMode]:
    return [file for file in dict.fromkeys(files) if file.uid not in owners or file.mode & forbidden]


def _described(files: Sequence[FileMode]) -> str:
    return _some([f"{file.path} (mode {file.mode:04o}, uid {file.uid})" for file in files])


def _paths(files: Sequence[FileMode]) -> str:
    return " ".join(shlex.quote(file.path) for file in files)


def sshd_files(doors: Doors, names: Names, _expect: t.Any) -> Outcome:
    found = _open_to_others(doors.files, [0], 0o022)
    if found:
        remedy = names.shell(f"chown root {_paths(found)} && chmod go-w {_paths(found)}")
        return Outcome(FAIL, f"others may write: {_described(found)}", remedy)
    return Outcome(OK, f"only root writes {len(doors.files)} files and directories of sshd")


def host_key_files(doors: Doors, names: Names, _expect: t.Any) -> Outcome:
    found = _open_to_others(doors.host_key_files, [0], 0o077)
    if found:
        remedy = names.shell(f"chown root {_paths(found)} && chmod 0600 {_paths(found)}")
        return Outcome(FAIL, f"others may read: {_described(found)}", remedy)
    if not doors.host_key_files:
        return _blind_spot(doors, names) or Outcome(UNKNOWN, "no host key was found", names.shell("ls -l /etc/ssh"))
    return Outcome(OK, f"only root reads the {len(doors.host_key_files)} host keys")


def _is_weak(key: Key, bits: int) -> bool:
    return key.kind.startswith("DSA") or (key.kind.startswith("RSA") and key.bits < bits)


def _named(key: Key) -> str:
    return f"{key.kind} {key.bits} {key.fingerprint} {key.comment}".rstrip()


def host_keys_weak(doors: Doors, names: Names, expect: int) -> Outcome:
    weak = [key for key in doors.host_keys if _is_weak(key, expect)]
    if weak:
        remedy = _reload(doors, names, "rm /etc/ssh/ssh_host_rsa_key* && ssh-keygen -A && ")
        return Outcome(FAIL, _some([_named(key) for key in weak]), remedy)
    if not doors.host_keys:
        return _blind_spot(doors, names) or Outcome(UNKNOWN, "no host key was found", names.shell("ls -l /etc/ssh"))
    return Outcome(OK, _some([f"{key.kind} {key.bits}" for key in doors.host_keys]))


def host_key_shared(doors: Doors, names: Names, _expect: t.Any) -> Outcome:
    return _blind_spot(doors, names) or Outcome(
        UNKNOWN, "only the report over all nodes can tell", f"ansible-playbook gpuops.fleet.audit --limit {names.host}"
    )


def moduli(doors: Doors, names: Names, expect: int) -> Outcome:
    blind = _blind_spot(doors, names)
    if blind:
        return blind
    if "group-exchange" not in doors.effective[0].get("kexalgorithms"):
        return Outcome(OK, "not used: sshd offers no group exchange")
    count = sum(each for _bits, each in doors.moduli)
    small = sum(each for bits, each in doors.moduli if bits < expect)
    if small:
        path = shlex.quote(doors.effective[0].get("modulifile") or "/etc/ssh/moduli")
        keep = f'awk "\\$5 >= {expect - 1}" {path} > {path}.new && [ -s {path}.new ] && mv {path}.new {path}'
        return Outcome(FAIL, f"{small} of {count} moduli are below {expect} bits", names.shell(keep))
    return Outcome(OK, f"none of {count} is below {expect} bits")


def for_accounts(judge: Callable[..., Outcome | None], good: str) -> Judge:
    """A check of all accounts; judge returns None where nothing is wrong with what was seen."""

    def judge_all(doors: Doors, names: Names, expect: t.Any) -> Outcome:
        found = judge(doors, names, expect)
        if found:
            return found
        blind = _blind_spot_of_connections(doors, names)
        if blind:
            return blind
        unreadable = [path for account in doors.accounts for path in account.unreadable]
        if unreadable:
            remedy = names.shell(f"ls -ld {shlex.quote(unreadable[0])}")
            return Outcome(UNKNOWN, f"not even root can read {_some(unreadable)}", remedy)
        return Outcome(OK, good.format(accounts=len(doors.accounts), expect=expect))

    return judge_all


def key_files(doors: Doors, names: Names, _expect: t.Any) -> Outcome | None:
    found = [file for each in doors.accounts for file in _open_to_others(each.paths, [0, each.uid], 0o022)]
    if not found:
        return None
    remedy = names.shell(f"chmod go-w {_paths(found)}; ls -ld {_paths(found)}")
    return Outcome(FAIL, f"others may write, so sshd refuses the keys: {_described(found)}", remedy)


def keys_weak(doors: Doors, names: Names, expect: int) -> Outcome | None:
    weak = [(each, key) for each in doors.accounts for key in each.all_keys if _is_weak(key, expect)]
    if not weak:
        return None
    evidence = _some(list(dict.fromkeys(f"{_named(key)} of {each.name}" for each, key in weak)))
    return Outcome(FAIL, evidence, _edit(weak[0][0].keys, weak[0][1], names))


def _edit(files: Sequence[tuple[str, Sequence[Key]]], key: Key, names: Names) -> str:
    path = next(path for path, keys in files if key in keys)
    return f"ssh -t {names.alias} {shlex.quote(f'editor {shlex.quote(path)}')}"


def keys_duplicate(doors: Doors, names: Names, _expect: t.Any) -> Outcome | None:
    found = []
    for account in doors.accounts:
        prints = [key.fingerprint for key in account.all_keys]
        found += [(account, key) for key in dict.fromkeys(account.all_keys) if prints.count(key.fingerprint) > 1]
    if not found:
        return None
    evidence = _some(list(dict.fromkeys(f"{key.fingerprint} of {each.name}" for each, key in found)))
    return Outcome(FAIL, f"more than once: {evidence}", _edit(found[0][0].keys, found[0][1], names))


def keys_shared(doors: Doors, names: Names, _expect: t.Any) -> Outcome | None:
    owners: dict[str, list[tuple[Account, Key]]] = {}
    for account in doors.accounts:
        for fingerprint, key in {key.fingerprint: key for key in account.all_keys}.items():
            owners.setdefault(fingerprint, []).append((account, key))
    shared = {fingerprint: several for fingerprint, several in owners.items() if len(several) > 1}
    if not shared:
        return None
    told = [f"{each} of {' and '.join(account.name for account, _key in shared[each])}" for each in shared]
    account, key = next(iter(shared.values()))[-1]
    return Outcome(FAIL, _some(told), _edit(account.keys, key, names))


def keys_without_comment(doors: Doors, names: Names, _expect: t.Any) -> Outcome | None:
    nameless = [(each, key) for each in doors.accounts for key in each.all_keys if not key.comment]
    if not nameless:
        return None
    evidence = _some([f"{key.fingerprint} of {each.name}" for each, key in nameless])
    return Outcome(FAIL, f"whose is it: {evidence}", _edit(nameless[0][0].keys, nameless[0][1], names))


def keys_count(doors: Doors, names: Names, expect: int) -> Outcome | None:
    counts = [(each, len({key.fingerprint for key in each.all_keys})) for each in doors.accounts]
    many = [(each, count) for each, count in counts if count > expect]
    if many:
        evidence = _some([f"{count} keys of {each.name}" for each, count in many])
        return Outcome(FAIL, evidence, _edit(many[0][0].keys, many[0][0].all_keys[0], names))
    shown = [f"{count} of {each.name}" for each, count in counts if count]
    # A fact worth reading also where nothing is wrong with it.
    return None if _blind_spot_of_connections(doors, names) else Outcome(OK, _some(shown) or "no keys")


# ---- accounts and the log ----


def superusers(doors: Doors, names: Names, _expect: t.Any) -> Outcome:
    others = [name for name in doors.superusers if name != "root"]
    if others:
        return Outcome(FAIL, f"uid 0 too: {_some(others)}", f"ssh -t {names.alias} vipw")
    return Outcome(OK, "only root has uid 0")


def empty_passwords(doors: Doors, names: Names, _expect: t.Any) -> Outcome:
    empty = sorted({name for name, state in doors.passwords if state == "empty"})
    if empty:
        remedy = names.shell(f"passwd -l {shlex.quote(empty[0])}")
        return Outcome(FAIL, f"no password is needed for {_some(empty)}", remedy)
    return Outcome(OK, f"none of {len(doors.passwords)} accounts")


def password_without_key(doors: Doors, names: Names, _expect: t.Any) -> Outcome | None:
    having = {name for name, state in doors.passwords if state == "set"}
    found = [each for each in doors.accounts if each.name in having and not each.all_keys and not each.unreadable]
    # Without sshd's settings nobody knows where the keys are.
    if not found or _blind_spot(doors, names):
        return None
    remedy = names.shell(f"passwd -l {shlex.quote(found[0].name)}")
    return Outcome(FAIL, f"a password and no key: {_some([each.name for each in found])}", remedy)


def _no_log(names: Names) -> Outcome:
    remedy = names.shell("journalctl -n 5 -t sshd; ls -l /var/log/auth.log")
    return Outcome(UNKNOWN, "there is neither a journal nor /var/log/auth.log", remedy)


def logins(doors: Doors, names: Names, _expect: t.Any) -> Outcome:
    if not doors.logins:
        return _no_log(names)
    came = [f"{user} from {address} {count}x, last {last}" for count, last, user, address in doors.logins.accepted]
    return Outcome(OK, f"{doors.logins.source}, 7 days: {_some(came) or 'nobody'}")


def failed_logins(doors: Doors, names: Names, expect: int) -> Outcome:
    if not doors.logins:
        return _no_log(names)
    said = [f"{address} {count}x, last {last}" for count, last, _user, address in doors.logins.failed]
    evidence = f"{doors.logins.source}, 7 days: {_some(said) or 'none'}"
    if any(count > expect for count, *_rest in doors.logins.failed):
        address = shlex.quote(doors.logins.failed[0][3])
        return Outcome(FAIL, evidence, names.shell(f"journalctl -t sshd -t sshd-session | grep -F {address} | tail"))
    return Outcome(OK, evidence)


def journal(doors: Doors, names: Names, _expect: t.Any) -> Outcome:
    if doors.journal == "persistent":
        return Outcome(OK, "the journal is in /var/log/journal")
    if doors.journal == "volatile":
        remedy = names.shell("mkdir -p /var/log/journal && systemctl restart systemd-journald && journalctl --flush")
        return Outcome(FAIL, "the journal is in /run, so a restart of the node ends the trail", remedy)
    return Outcome(SKIPPED, "no journald writes here")
