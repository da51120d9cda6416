# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Make the people of a list the people of this machine: accounts, sudo rules, authorized keys.

This module util is PRIVATE to the collection. What a file of keys says is worked out in authorized_keys.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import grp
import os
import pwd
import re
import shutil
import signal
import stat
import tempfile
import time
import typing as t
from dataclasses import dataclass, field, replace

from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import NODE, Problem, ProblemError
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.authorized_keys import (
    Wish,
    block_of,
    describe,
    fingerprint_of,
    renew,
    without,
)
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.sshd.process import Run, ask_sshd, sshd_program

SUDOERS = "/etc/sudoers.d"
BACKUPS = "/var/backups"
# The first one of people, in Debian as elsewhere.
UID_MIN = 1000
_UID_NOBODY = 65534
# That of the shadow tools, which lock it in another way and do not wait for us. Only root can open it.
LOCK = "/etc/.pwd.lock"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")
# What stands for others in sudoers: everybody or a User_Alias, and the words with which another kind of line begins.
_NOT_ONE_USER = re.compile(r"[A-Z][A-Z0-9_]*|Defaults|(User|Runas|Host|Cmnd|Cmd)_Alias")
# An account that we lock expires on the day after the first one. The first one is what admins write by hand, and what
# they have locked is not ours to open.
_LOCKED = "2"
_SESSION_SECONDS = 5
_MOST_BYTES = 1 << 20

PERSON_SPEC: dict[str, dict[str, t.Any]] = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "uid": {"type": "int"},
    "gid": {"type": "int"},
    "groups": {"type": "list", "elements": "str"},
    "shell": {"type": "str"},
    "sudo": {"type": "str", "default": ""},
    "keys": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "no_log": False,
        "options": {"line": {"type": "str", "required": True}},
    },
    "error": {"type": "str", "default": ""},
    "exclusive": {"type": "bool", "default": False},
    "home": {"type": "str", "choices": ["keep", "archive", "remove"], "default": "keep"},
    "end_sessions": {"type": "bool", "default": False},
}


class FleetUsersError(ProblemError):
    """A person who cannot be had as wanted. The message names the person, what was seen, and the next command."""


@dataclass(frozen=True)
class Person:
    """The desired state of one user."""

    name: str
    present: bool = True
    uid: int | None = None
    gid: int | None = None
    groups: tuple[str, ...] | None = None
    shell: str | None = None
    sudo: str = ""
    lines: tuple[str, ...] = ()
    # Why the keys of this person are not known; what they have stays then.
    error: str = ""
    exclusive: bool = False
    home: str = "keep"
    end_sessions: bool = False


@dataclass(frozen=True)
class Account:
    """An account as the machine has it; without uid and gid it is one that the machine may number itself."""

    uid: int | None
    gid: int | None
    groups: frozenset[str]
    shell: str
    home: str = ""
    locked: bool = False


@dataclass(frozen=True)
class State:
    """All that this module changes of a person, as it is or as it shall be."""

    account: Account | None = None
    sudo: str = ""
    keys: t.Mapping[str, str] = field(default_factory=dict)
    # Why a file of keys cannot be read. sshd takes none from it either, but we cannot write it.
    sick: str = ""


@dataclass(frozen=True)
class Login:
    """The login of this run: the account, and the fingerprints of the keys that may be in use."""

    user: str
    own: frozenset[str]


def read_person(options: t.Mapping[str, t.Any]) -> Person:
    """Return the user of the module's options. Raises FleetUsersError for what a file would read otherwise."""
    name = options["name"]
    if not _NAME.fullmatch(name):
        raise FleetUsersError(
            f"{name!r} cannot be the name of an account; wanted are letters, digits, _, - and dots, 32 at most"
        )
    lines = tuple(key["line"] for key in options["keys"])
    for line in lines:
        if not fingerprint_of(line) or not line.replace("\t", " ").isprintable():
            raise FleetUsersError(f"{name}: this is no line of authorized_keys with a public key: {line[:20]}...")
    sudo = options["sudo"]
    if sudo and "\n" in sudo:
        raise FleetUsersError(f"{name}: a sudo rule is one line")
    return Person(
        name=name,
        present=options["state"] == "present",
        uid=options["uid"],
        gid=options["gid"],
        groups=None if options["groups"] is None else tuple(options["groups"]),
        shell=options["shell"],
        sudo=sudo,
        lines=lines,
        error=options["error"],
        exclusive=options["exclusive"],
        home=options["home"],
        end_sessions=options["end_sessions"],
    )


# --- pure -----------------------------------------------------------------------------------------------------------


def sudoers_path(name: str) -> str:
    """sudo ignores files with a dot in their name."""
    return f"{SUDOERS}/gpuops-{name.replace('.', '~2e')}"


def login_sudoers_path(name: str) -> str:
    """Return the path at which the role ssh_bootstrap writes the sudo rule of the initial user."""
    return f"{SUDOERS}/login-gpuops-{name.replace('.', '~2e')}"


def sudoers_text(person: Person) -> str:
    return f"# Written by gpuops.fleet, from gpu_users\n{person.name} {person.sudo}\n" if person.sudo else ""


def wanted_state(
    person: Person, now: State, own: t.AbstractSet[str], gone: t.AbstractSet[str], is_running: bool = False
) -> State:
    """Return the desired state of a user who has this one now."""
    if not person.present:
        # What stays behind, an account in use or a home, opens no door.
        keys = {path: renew(text, Wish(exclusive=True, own=own)) for path, text in now.keys.items()}
        left = now.account and is_running and not person.end_sessions
        return State(replace(now.account, locked=True) if now.account and left else None, "", keys, now.sick)
    account = now.account or Account(person.uid, person.gid or person.uid, frozenset(), "/bin/bash")
    account = replace(
        account,
        gid=account.gid if person.gid is None else person.gid,
        groups=account.groups if person.groups is None else frozenset(person.groups),
        shell=person.shell or account.shell,
        locked=False,
    )
    keys = {path: without(text, gone_from(person, now, own, gone)) for path, text in now.keys.items()}
    if not person.error:
        granted = {fingerprint_of(line) for line in person.lines}
        for number, (path, text) in enumerate(now.keys.items()):
            # Our lines go into the first file that sshd reads, and their keys out of the others.
            wish = (
                Wish((), person.exclusive, own, gone | granted)
                if number
                else Wish(person.lines, person.exclusive, own, gone)
            )
            keys[path] = renew(text, wish)
    return State(account, sudoers_text(person), keys, now.sick)


def check_rule(person: Person) -> None:
    """Refuse what sudoers would read as a rule for others. visudo finds nothing wrong with that."""
    if not person.present or not person.sudo:
        return
    if _NOT_ONE_USER.fullmatch(person.name):
        raise FleetUsersError(
            f"{person.name}: in sudoers this name does not mean this account, but everybody, an alias or a setting, so "
            "no sudo rule is written for it",
            remedy="take sudo from it in gpu_users and run again, which also takes back "
            "the rule of an earlier run, and only then give it another name",
        )
    rule = person.sudo.strip()
    if rule.startswith(",") or rule.endswith("\\"):
        raise FleetUsersError(
            f"{person.name}: the sudo rule {person.sudo!r} would go on with other users or another line",
            remedy="one that begins with the hosts, as in ALL=(ALL:ALL) ALL",
        )


def check_account(person: Person, now: Account | None, accounts: t.Sequence[pwd.struct_passwd], login: Login) -> None:
    """Refuse what would take away the account of somebody else, or the one that this run stands on."""
    mine = next((each for each in accounts if each.pw_name == person.name), None)
    if person.exclusive and person.name == login.user and not login.own:
        raise FleetUsersError(
            f"{person.name}: it is not known by which key this run is logged in, so none is taken away",
            remedy="set ansible_ssh_private_key_file, or exclusive: false",
        )
    if not person.present:
        if person.name in ("root", login.user):
            raise FleetUsersError(f"{person.name} is absent in gpu_users, and this run logs in as {login.user}")
        if mine and (mine.pw_uid < UID_MIN or mine.pw_uid == _UID_NOBODY):
            raise FleetUsersError(
                f"{person.name} (uid {mine.pw_uid}) is an account of the system and stays",
                remedy="take it out of gpu_users",
            )
        twin = next((each.pw_name for each in accounts if mine and each.pw_uid == mine.pw_uid and each is not mine), "")
        if twin:
            raise FleetUsersError(
                f"{person.name} and {twin} are one uid here, so what belongs to whom is not known",
                where=NODE,
                remedy=f"userdel {person.name}",
            )
        return
    if now and person.name == login.user:
        lost = now.groups - frozenset(now.groups if person.groups is None else person.groups)
        if lost or (person.shell or now.shell) != now.shell:
            raise FleetUsersError(
                f"{person.name}: this run logs in as {person.name}, and gpu_users would take "
                f"{', '.join(sorted(lost)) or now.shell} from that account",
                remedy="put it into the list, or change it by hand",
            )
    if person.uid is None:
        return
    if not now and (person.uid < UID_MIN or person.uid == _UID_NOBODY):
        raise FleetUsersError(
            f"{person.name}: the uid {person.uid} is one of the system's", remedy=f"one from {UID_MIN} on"
        )
    if now and now.uid != person.uid:
        raise FleetUsersError(
            f"{person.name} has the uid {now.uid} here, and gpu_users wants {person.uid}",
            where=NODE,
            remedy=f"usermod -u {person.uid} {person.name}, and find / -xdev -uid {now.uid} for files elsewhere",
        )
    other = next((each.pw_name for each in accounts if each.pw_uid == person.uid and each.pw_name != person.name), "")
    if other:
        raise FleetUsersError(
            f"the uid {person.uid}, which gpu_users gives {person.name}, is that of {other} here",
            remedy="another uid for one of them",
        )


def describe_state(state: State) -> str:
    """Return what a user has, a line for each thing: one side of a diff."""
    lines = []
    if state.account:
        account = state.account
        number = "" if account.uid is None else f" uid={account.uid}"
        group = "" if account.gid is None else f" gid={account.gid}"
        lines.append(
            f"account{number}{group} groups={','.join(sorted(account.groups)) or '-'} shell={account.shell}"
            + (" locked" if account.locked else "")
        )
    lines += [f"sudo {line}" for line in state.sudo.splitlines() if not line.startswith("#")]
    for text in state.keys.values():
        lines += describe(text)
    return "".join(f"{line}\n" for line in lines)


def key_paths(patterns: str, name: str, uid: int, home: str) -> list[str]:
    """The files that sshd reads for a person, of C(AuthorizedKeysFile)."""
    tokens = {"%%": "%", "%h": home, "%u": name, "%U": str(uid)}
    found = [re.sub("%[%huU]", lambda match: tokens[match.group()], pattern) for pattern in patterns.split()]
    return [os.path.join(home, path) for path in found if path != "none"]


def keys_of_the_gone(people: t.Sequence[Person]) -> dict[str, str]:
    """Fingerprints that no account shall have any more, and whose they are: absent people's, unless others use them.

    Only the list says so. A file of keys is its owner's to write: it would take away or keep the keys of others.
    """
    kept = {fingerprint_of(line) for person in people if person.present for line in person.lines}
    gone = {fingerprint_of(line): person.name for person in people if not person.present for line in person.lines}
    return {fingerprint: name for fingerprint, name in gone.items() if fingerprint not in kept}


def gone_from(
    person: Person | None, now: State, own: t.AbstractSet[str], gone: t.AbstractSet[str]
) -> t.AbstractSet[str]:
    """Return the fingerprints to remove from one account.

    Its own file is believed as to what this collection gave it, also beyond what the list says.
    """
    if person is None or (person.present and not person.error):
        return gone
    return gone - granted_to(now) if person.present else gone | granted_to(now) - own


def granted_to(now: State) -> set[str]:
    """The keys between our marks. Whoever has the account can write there too."""
    return {fingerprint_of(line) for text in now.keys.values() for line in block_of(text)} - {""}


def doubts(people: t.Sequence[Person], now: t.Mapping[str, State], own: t.AbstractSet[str]) -> list[str]:
    """Keys elsewhere that only the files of absent people say are theirs: somebody has to decide."""
    listed = {fingerprint_of(line) for person in people for line in person.lines} | own
    absent = [person.name for person in people if not person.present and person.name in now]
    there = {
        name: {fingerprint_of(line) for text in state.keys.values() for line in text.split("\n")}
        for name, state in now.items()
        if name not in absent
    }
    return [
        f"{name} is absent, and had {fingerprint} too, which is in the file of {' and '.join(others)} and is no key of "
        f"gpu_users; next: if it is theirs, write it into the keys of {name}"
        for name in absent
        for fingerprint in sorted(granted_to(now[name]) - listed)
        if (others := [other for other, found in there.items() if fingerprint in found])
    ]


# --- this machine ---------------------------------------------------------------------------------------------------


class Machine:
    """The accounts of this machine, and the means to change them."""

    def __init__(self, run: Run, scratch: str) -> None:
        self._run = run
        self._scratch = scratch
        self._sshd = sshd_program()
        self._patterns: dict[str, str] = {}

    def look(self, person: Person) -> State:
        name = person.name
        paths = [sudoers_path(name)] if person.present else [sudoers_path(name), login_sudoers_path(name)]
        sudo = "".join(_read(path) for path in paths)
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            return State(sudo=sudo)
        groups = frozenset(each.gr_name for each in grp.getgrall() if name in each.gr_mem)
        account = Account(entry.pw_uid, entry.pw_gid, groups, entry.pw_shell, entry.pw_dir, _is_locked(name))
        return replace(self.read_keys(entry), account=account, sudo=sudo)

    def read_keys(self, entry: pwd.struct_passwd) -> State:
        """The files of keys of an account."""
        keys: dict[str, str] = {}
        sick = ""
        for path in self._key_files(entry):
            try:
                keys[path] = _read_as(entry, path)
            except OSError as error:
                sick = sick or f"{path}: {error.strerror}"
        return State(keys=keys, sick=sick)

    def _key_files(self, entry: pwd.struct_passwd) -> list[str]:
        return key_paths(self._authorized_keys_file(entry.pw_name), entry.pw_name, entry.pw_uid, entry.pw_dir)

    def _authorized_keys_file(self, name: str) -> str:
        """Asked for each person only where sshd's configuration may say so."""
        if not self._sshd:
            return ".ssh/authorized_keys .ssh/authorized_keys2"
        who = name if _may_differ() else "root"
        if who not in self._patterns:
            code, said = ask_sshd(self._run, [self._sshd, "-T", "-C", f"user={who},host=localhost,addr=127.0.0.1"])
            found = re.search(r"^authorizedkeysfile (.+)$", said, re.MULTILINE)
            if code or not found:
                raise FleetUsersError(
                    f"{name}: sshd does not say where it looks for keys: {' '.join(said.split())}",
                    where=NODE,
                    remedy="sshd -t",
                )
            self._patterns[who] = found.group(1)
        return self._patterns[who]

    def apply(self, person: Person, now: State, after: State, login: Login) -> str:
        """Make the change; what sshd would have against the keys then."""
        if not person.present:
            for path in (sudoers_path(person.name), login_sudoers_path(person.name)):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
            if now.account:
                entry = pwd.getpwnam(person.name)
                for path, text in after.keys.items():
                    _write_as(entry, path, now.keys[path], text)
                self._remove_account(person, entry, stays=after.account is not None)
            return ""
        self._make_account(person.name, now.account, after.account or Account(None, None, frozenset(), ""))
        self._write_sudo(person, now.sudo, after.sudo, login)
        entry = pwd.getpwnam(person.name)
        # Where the files of a new account are is known only now.
        keys = after.keys if now.account else wanted_state(person, self.read_keys(entry), login.own, set()).keys
        if person.lines and not keys:
            raise FleetUsersError(
                f"sshd looks for the keys of {person.name} nowhere",
                where=NODE,
                remedy=f"sshd -T -C user={person.name},host=,addr= | grep -i authorizedkeysfile",
            )
        for path, text in keys.items():
            _write_as(entry, path, now.keys.get(path, ""), text)
        return _complaint(entry, next(iter(keys))) if person.lines else ""

    def strip(self, entry: pwd.struct_passwd, before: State, gone: t.Container[str], dry: bool) -> State:
        """Take the keys of those who are out from an account that has nothing else to change."""
        after = replace(before, keys={path: without(text, gone) for path, text in before.keys.items()})
        if not dry:
            for path, text in after.keys.items():
                _write_as(entry, path, before.keys[path], text)
        return after

    def check_group(self, person: Person, now: Account) -> None:
        """Whoever this run logs in as must not come under rules of sshd for a group."""
        for group in sorted(frozenset(person.groups or ()) - now.groups):
            if re.search(rf"^\s*match\b.*\bgroup\b.*\b{re.escape(group)}\b", _sshd_config(), re.I | re.M):
                raise FleetUsersError(
                    f"{person.name}: this run logs in as {person.name}, and sshd has rules of its own for the group "
                    f"{group}",
                    where=NODE,
                    remedy=f"grep -rn {group} /etc/ssh/sshd_config /etc/ssh/sshd_config.d",
                )

    def _command(self, name: str, *words: str) -> None:
        code, said = self._run(words)
        if code:
            raise FleetUsersError(f"{name}: {' '.join(words)} ended with {code}: {said.strip()}")

    def _make_account(self, name: str, now: Account | None, after: Account) -> None:
        for group in sorted(after.groups):
            self._make_group(name, group)
        if now is None:
            self._make_group(name, name, after.gid)
            number = [] if after.uid is None else ["-u", str(after.uid)]
            more = ["-G", ",".join(sorted(after.groups))] if after.groups else []
            # A "*" is no password. The "!" of useradd would make the account a locked one to sshd without PAM.
            self._command(name, "useradd", "-m", *number, "-g", name, *more, "-s", after.shell, "-p", "*", name)
            return
        if now.locked:
            self._command(name, "usermod", "-U", "-e", "", name)
        if after.gid is not None and now.gid != after.gid:
            self._make_group(name, name, after.gid)
            self._command(name, "usermod", "-g", str(after.gid), name)
        if now.groups != after.groups:
            self._command(name, "usermod", "-G", ",".join(sorted(after.groups)), name)
        if now.shell != after.shell:
            self._command(name, "usermod", "-s", after.shell, name)

    def _make_group(self, person: str, group: str, gid: int | None = None) -> None:
        with contextlib.suppress(KeyError):
            found = grp.getgrnam(group)
            if gid is None or found.gr_gid == gid:
                return
            raise FleetUsersError(
                f"{person}: the group {group} has the gid {found.gr_gid} here, and gpu_users wants {gid}",
                where=NODE,
                remedy=f"groupmod -g {gid} {group}",
            )
        self._command(person, "groupadd", *([] if gid is None else ["-g", str(gid)]), group)

    def _write_sudo(self, person: Person, now: str, after: str, login: Login) -> None:
        if now == after:
            return
        path = sudoers_path(person.name)
        could = person.name == login.user and self._can_sudo(login.user)
        _write_root(path, after)
        if could and not self._can_sudo(login.user):
            _write_root(path, now)
            raise FleetUsersError(
                f"{person.name}: with the sudo rule {person.sudo!r} this run could not go on as {login.user}, so the "
                "rule is as before",
                remedy="a rule with NOPASSWD: ALL",
            )

    def _can_sudo(self, user: str) -> bool:
        return self._run(["runuser", "-u", user, "--", "sudo", "-n", "true"])[0] == 0

    def check_sudoers(self, person: Person, text: str) -> None:
        if not shutil.which("visudo", path="/usr/sbin:/sbin:/usr/local/sbin:/usr/bin"):
            raise FleetUsersError(
                f"{person.name} shall have a sudo rule, and sudo is missing", remedy="apt-get install sudo", where=NODE
            )
        handle, staged = tempfile.mkstemp(dir=self._scratch)
        with os.fdopen(handle, "w") as file:
            file.write(text)
        code, said = self._run(["visudo", "-c", "-f", staged])
        os.unlink(staged)
        if code:
            seen = " ".join(said.replace(staged, "the rule").split())
            raise FleetUsersError(f"{person.name}: visudo refuses the sudo rule {person.sudo!r}: {seen}")

    def running(self, person: Person, account: Account | None) -> list[int]:
        """The processes of somebody who is to go."""
        return [] if person.present or not account or account.uid is None else _processes(account.uid)

    def _remove_account(self, person: Person, entry: pwd.struct_passwd, stays: bool) -> None:
        name = person.name
        if not _is_locked(name):
            self._command(name, "usermod", "-L", "-e", _LOCKED, name)
        if stays:
            return
        _end_processes(entry.pw_uid)
        has_home = os.path.isdir(entry.pw_dir)
        if person.home == "archive" and has_home:
            self._archive(name, entry)
        self._command(name, "userdel", *(["-r"] if person.home != "keep" and has_home else []), name)

    def check_home(self, person: Person, now: Account) -> None:
        """Raise FleetUsersError where tar would leave out what userdel would remove."""
        if person.home == "keep" or not os.path.isdir(now.home):
            return
        below = [line.split(" ")[1] for line in _read("/proc/self/mounts").splitlines()]
        mounted = [place for place in below if f"{place}/".startswith(f"{now.home.rstrip('/')}/")]
        if mounted or os.path.islink(now.home):
            what = f"{mounted[0]} is mounted in it" if mounted else "it is a link"
            raise FleetUsersError(
                f"{person.name}: the home {now.home} is not removed, since {what}",
                remedy="home: keep, and remove it by hand",
            )

    def _archive(self, name: str, entry: pwd.struct_passwd) -> None:
        path = f"{BACKUPS}/gpuops-home-{name}-{entry.pw_uid}-{time.strftime('%Y%m%dT%H%M%S')}.tar.gz"
        # Nobody but root reads what a person may have kept to themselves.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        try:
            self._command(
                name, "tar", "--create", "--gzip", "--one-file-system", f"--file={path}",
                f"--directory={os.path.dirname(entry.pw_dir)}", os.path.basename(entry.pw_dir),
            )  # fmt: skip
        except FleetUsersError:
            os.unlink(path)
            raise


# --- all of them ----------------------------------------------------------------------------------------------------


def settle(people: t.Sequence[Person], login: Login, machine: Machine, dry: bool) -> dict[str, t.Any]:
    """Go through the people; what the module returns. One who fails does not hold up the others."""
    accounts = pwd.getpwall()
    outcome = _Outcome()
    now: dict[str, State] = {}
    for person in people:
        with outcome.noting(person.name):
            now[person.name] = machine.look(person)
    outcome.gone = {
        fingerprint: name for fingerprint, name in keys_of_the_gone(people).items() if fingerprint not in login.own
    }
    # Whose account cannot be had as wanted is seen to like those who are not in the list.
    settled = set()
    for person in (person for person in people if person.name in now):
        with outcome.noting(person.name):
            _settle_person(person, now[person.name], accounts, login, machine, dry, outcome)
            settled.add(person.name)
    names = {person.name: person for person in people}
    for entry in accounts:
        if entry.pw_name in settled:
            continue
        with outcome.noting(entry.pw_name):
            before = now[entry.pw_name] = machine.read_keys(entry)
            gone = gone_from(names.get(entry.pw_name), before, login.own, outcome.gone.keys())
            after = machine.strip(entry, before, gone, dry)
            if before != after:
                outcome.show(entry.pw_name, before, after)
            if before.sick and entry.pw_name not in names:
                outcome.remarks.append(f"{entry.pw_name}: keys could not be looked at: {before.sick}")
            if any(map(block_of, before.keys.values())) and entry.pw_name not in names:
                outcome.remarks.append(
                    f"{entry.pw_name} has keys of gpu_users, and is in that list no more; next: list them again with "
                    "state: absent"
                )
    outcome.remarks += doubts(people, now, login.own)
    return outcome.result()


def _settle_person(
    person: Person,
    before: State,
    accounts: t.Sequence[pwd.struct_passwd],
    login: Login,
    machine: Machine,
    dry: bool,
    outcome: _Outcome,
) -> None:
    check_account(person, before.account, accounts, login)
    check_rule(person)
    if person.shell and not os.access(person.shell, os.X_OK):
        raise FleetUsersError(
            f"{person.name}: there is no {person.shell} on this machine", remedy="install it", where=NODE
        )
    if person.present and before.sick and not person.error:
        raise FleetUsersError(f"{person.name}: {before.sick}", where=NODE, remedy="move it away")
    if before.account and person.name == login.user:
        machine.check_group(person, before.account)
    if before.account and not person.present:
        machine.check_home(person, before.account)
    running = machine.running(person, before.account)
    after = wanted_state(person, before, login.own, outcome.gone.keys(), bool(running))
    if after.account and not person.present:
        outcome.remarks.append(
            f"{person.name} is locked out, but {len(running)} of their processes go on; the account goes with "
            f"the first run that finds none, or with end_sessions: true (next: ps -fu {person.name})"
        )
    if before.sick and not person.present:
        outcome.remarks.append(f"{person.name}: left as it is: {before.sick}")
    if before == after:
        return
    if after.sudo and after.sudo != before.sudo:
        machine.check_sudoers(person, after.sudo)
    outcome.show(person.name, before, _foreseen(person, before, after), person.present)
    if not dry and (complaint := machine.apply(person, before, after, login)):
        outcome.remarks.append(complaint)


def _foreseen(person: Person, before: State, after: State) -> State:
    """Return the state for the diff: a new account has its keys, whose path is not known yet."""
    if before.account or not person.present or person.error:
        return after
    return replace(after, keys={"": "".join(f"{line}\n" for line in person.lines)})


@dataclass
class _Outcome:
    """Changes that were made, and the problems of users who could not be configured."""

    gone: t.Mapping[str, str] = field(default_factory=dict)
    users: list[str] = field(default_factory=list)
    diff: list[dict[str, str]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    had_access: dict[str, list[str]] = field(default_factory=dict)

    @contextlib.contextmanager
    def noting(self, name: str) -> t.Iterator[None]:
        try:
            yield
        except FleetUsersError as error:
            self.problems.append(error.problem)
        except OSError as error:
            place = error.filename or "the node"
            self.problems.append(Problem(f"{name}: {place}", error.strerror or "", f"ls -ld {place}; df {place}", NODE))

    def show(self, name: str, before: State, after: State, stays: bool = True) -> None:
        lines = describe_state(before), describe_state(after)
        self.users.append(name)
        self.diff.append({"before_header": name, "after_header": name, "before": lines[0], "after": lines[1]})
        if not stays:
            self.had_access.setdefault(name, []).extend(lines[0].splitlines())
            return
        for line in lines[0].splitlines():
            # The second word of a key is its fingerprint.
            owner = self.gone.get(line.split()[1]) if line not in lines[1].splitlines() else None
            if owner:
                self.had_access.setdefault(owner, []).append(f"{line} as {name}")

    def result(self) -> dict[str, t.Any]:
        return {
            "changed": bool(self.users),
            "users_changed": self.users,
            "had_access": self.had_access,
            "remarks": self.remarks,
            "problems": self.problems,
            "diff": self.diff,
        }


@contextlib.contextmanager
def one_at_a_time(path: str = LOCK, seconds: float = 60.0) -> t.Iterator[None]:
    """Serialise runs with a root-only lock file, so that no user can hold up the removal of their own account."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise FleetUsersError(f"{path}: {error.strerror}", remedy="run as root (ansible_become: true)") from None
    try:
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise FleetUsersError(
                        f"another run has been changing the people of this machine for {seconds:g} s",
                        where=NODE,
                        remedy=f"fuser -v {path}",
                    ) from None
                time.sleep(0.2)
        yield
    finally:
        os.close(handle)


# --- files ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _acting_as(entry: pwd.struct_passwd, path: str) -> t.Iterator[None]:
    """Be the person in their home: root would follow a link that they laid there to wherever they want."""
    if os.geteuid() != 0 or entry.pw_uid == 0:
        yield
        return
    if not _is_below(entry.pw_dir, path):
        _check_roots_own(os.path.dirname(path))
        yield
        return
    groups = os.getgroups()
    os.setgroups(os.getgrouplist(entry.pw_name, entry.pw_gid))
    os.setegid(entry.pw_gid)
    os.seteuid(entry.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def _is_below(folder: str, path: str) -> bool:
    return path.startswith(f"{folder.rstrip('/')}/")


def _check_roots_own(folder: str) -> None:
    while folder != os.path.dirname(folder):
        with contextlib.suppress(FileNotFoundError):
            found = os.lstat(folder)
            if found.st_uid != 0 or found.st_mode & 0o022 or stat.S_ISLNK(found.st_mode):
                raise PermissionError(
                    errno.EPERM, "others than root could lay a link here, so it is left alone", folder
                )
        folder = os.path.dirname(folder)


def _read_as(entry: pwd.struct_passwd, path: str) -> str:
    with _acting_as(entry, path):
        return _read(path)


def _write_as(entry: pwd.struct_passwd, path: str, before: str, after: str) -> None:
    if before == after:
        return
    with _acting_as(entry, path):
        real = os.path.realpath(path)
        if not os.path.isdir(os.path.dirname(real)):
            os.mkdir(os.path.dirname(real), 0o700)
        new = 0o600 if _is_below(entry.pw_dir, path) else 0o644
        mode = stat.S_IMODE(os.stat(real).st_mode) if os.path.exists(real) else new
        _replace(real, after, mode)


def _write_root(path: str, text: str) -> None:
    if text:
        _replace(path, text, 0o440)
    else:
        os.unlink(path)


def _read(path: str) -> str:
    """Return the text of a file as sshd reads it; a pipe or a device in its place raises OSError."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    with os.fdopen(handle, encoding="utf-8", errors="surrogateescape", newline="") as file:
        # What /proc has is a file of no size.
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        text = file.read(_MOST_BYTES + 1)
    if len(text) > _MOST_BYTES:
        raise OSError(errno.EFBIG, "more than 1 MB", path)
    return text


def _replace(path: str, text: str, mode: int) -> None:
    """Put the new file in the place of the old one, whole or not at all."""
    # sudo and sshd read no file with such a name.
    handle, staged = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".gpuops.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            os.fchmod(handle, mode)
            file.write(text)
            file.flush()
            os.fsync(handle)
        os.replace(staged, path)
    except BaseException:
        os.unlink(staged)
        raise


def _complaint(entry: pwd.struct_passwd, path: str) -> str:
    """Return what StrictModes of sshd has against the file of keys or its folders."""
    for place in (entry.pw_dir, os.path.dirname(path), path):
        try:
            found = os.stat(place)
        except OSError:
            continue
        if found.st_mode & 0o022 or found.st_uid not in (0, entry.pw_uid):
            return (
                f"sshd will not take the keys of {entry.pw_name}: {place} is writable by others, or not theirs "
                f"(mode {stat.S_IMODE(found.st_mode):04o}, uid {found.st_uid}); next, on the node: "
                f"chown {entry.pw_name} {place}; chmod go-w {place}"
            )
    return ""


def _sshd_config() -> str:
    return "".join(map(_read, ("/etc/ssh/sshd_config", *glob.glob("/etc/ssh/sshd_config.d/*.conf"))))


def _may_differ() -> bool:
    """Return whether sshd may look for the keys of one person elsewhere than for those of another."""
    return bool(re.search(r"^\s*match\b.*^\s*authorizedkeysfile\b", _sshd_config(), re.I | re.M | re.S))


def _is_locked(name: str) -> bool:
    """Return whether the account has expired on the day that we write for those that cannot be deleted yet."""
    for line in _read("/etc/shadow").splitlines():
        fields = line.split(":")
        if fields[0] == name and len(fields) > 7:
            return fields[7] == _LOCKED
    return False


def _processes(uid: int) -> list[int]:
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{name}").st_uid == uid:
                found.append(int(name))
    return found


def _end_processes(uid: int) -> None:
    """Ask them to end, and end those that do not."""
    deadline = time.monotonic() + 2 * _SESSION_SECONDS
    while (left := _processes(uid)) and time.monotonic() < deadline:
        patience_is_over = time.monotonic() > deadline - _SESSION_SECONDS
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if patience_is_over else signal.SIGTERM)
        time.sleep(0.2)
