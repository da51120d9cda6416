# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What SSH certificates say, what revokes them, and what a node needs to take them.

This module util is PRIVATE to the collection.
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
import os
import posixpath
import re
import typing as t
from dataclasses import dataclass

from ansible_collections.gpuops.fleet.plugins.module_utils._base.duration import DurationError, seconds
from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import ProblemError
from ansible_collections.gpuops.fleet.plugins.module_utils._base.public_key import (
    PublicKey,
    PublicKeyError,
    file_named,
    parse_line,
)

USER_CA = "/etc/ssh/gpuops-user-ca.pub"
PRINCIPALS = "/etc/ssh/gpuops-principals"
REVOKED = "/etc/ssh/gpuops-revoked-keys"
# ECDSA is not among them: it is not shown by a hardened sshd.
HOST_KEY_TYPES = ("ssh-ed25519", "ssh-rsa")
# The comment of a host key that was signed here, and so of its certificate.
SIGNED_HERE = "gpuops.fleet"

_ACCOUNT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?\Z")
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}\Z")
_HASH = "hash: "
# What was revoked, as it is kept beside the KRL.
_LINE = re.compile(r"(?:id|serial): .+|(?:hash|kept): (?P<key>SHA256:[A-Za-z0-9+/]{43})(?: # (?P<owner>.+))?")
# A key of somebody absent that somebody present has too: not revoked, and remembered for when they have it no more.
_KEPT = "kept: "
# Whose a key is that is revoked by itself; no account has such a name.
_LISTED = "(revoked)"
_KEY = re.compile(r"(ssh|ecdsa|sk)-\S+ AAAA")
# What both a line of authorized_keys and a certificate can allow or forbid.
_FEATURES = ("agent-forwarding", "port-forwarding", "pty", "user-rc", "x11-forwarding")

Person = t.Mapping[str, t.Any]
Read = t.Callable[[str], str]
Files = t.Dict[str, t.Optional[bytes]]


class CaError(ProblemError):
    """Raised for a CA, certificate or KRL that cannot be used."""


def read_text(path: str) -> str:
    """Read a file of this machine; ~ is the home of who runs this."""
    with open(os.path.expanduser(path), encoding="utf-8") as file:
        try:
            return file.read()
        except UnicodeDecodeError:
            raise CaError(f"{path} is not a text", remedy=f"file {path}") from None


def parse_keys(text: str) -> list[PublicKey]:
    """Read all keys of a .pub file or of several put together."""
    lines = (line.strip() for line in text.splitlines())
    return [parse_line(line) for line in lines if line and not line.startswith("#")]


def bare(key: PublicKey) -> str:
    """The text of a key without its comment, which is how certificates are matched with keys."""
    return f"{key.kind} {key.blob}"


def is_present(person: Person) -> bool:
    return bool(person.get("state", "present") == "present")


# --- revocation -----------------------------------------------------------------------------------------------------


def revocations(
    people: t.Sequence[Person], more: t.Sequence[str], read: Read, before: t.Sequence[tuple[str, str]] = ()
) -> list[str]:
    """Return the lines of a KRL: removed users by name and key, what is named, and last whose each key is.

    `before` are the keys of last time. One stays while its owner is absent, since the file or the answer that had it
    need not have it any more; without an owner, while anybody is.
    """
    absent = [person for person in people if not is_present(person)]
    names = {str(person["name"]) for person in absent}
    listed = set(map(_revocation, more))
    lost = {(key, str(person["name"])) for person in absent for key in _fingerprints(person, read)}
    lost |= {(key, owner) for key, owner in before if owner in names}
    known = {key for key, _owner in lost} | {entry[len(_HASH) :] for entry in listed}
    lost |= {(key, owner) for key, owner in before if names and not owner and key not in known}
    # A key that somebody keeps is not lost with the name that it had before.
    kept = {key for person in people if is_present(person) for key in _fingerprints(person, read)}
    return sorted(
        {_identity(name) for name in names}
        | {f"{_KEPT if key in kept else _HASH}{key}" + (f" # {owner}" if owner else "") for key, owner in lost}
        | {f"{entry} # {_LISTED}" if entry.startswith(_HASH) else entry for entry in listed}
    )


def remembered(text: str, source: str) -> list[tuple[str, str]]:
    """The keys in the lines of last time, and whose they are."""
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        match = _LINE.fullmatch(line)
        if line and not match:
            raise CaError(
                f"{source}: line {number} is not as it was written here, so what was revoked is not known: "
                f"{line[:80]!r}",
                remedy="correct it, or take it out",
            )
        if match and match["key"]:
            found.append((match["key"], match["owner"] or ""))
    return found


def krl_entries(lines: t.Sequence[str]) -> list[str]:
    """The lines as ssh-keygen -k reads them."""
    return sorted({line.partition(" #")[0] for line in lines if not line.startswith(_KEPT)})


def text_of_krl(said: str) -> str:
    """Return the keys of a KRL whose text is lost, from the hexadecimal digits of `ssh-keygen -Q -l`."""

    def usual(match: t.Match[str]) -> str:
        return f"{_HASH}SHA256:{base64.b64encode(bytes.fromhex(match[1])).decode().rstrip('=')}"

    lines = re.sub(rf"(?m)^{_HASH}SHA256:([0-9a-f]{{64}})$", usual, said).split("\n")
    return "".join(f"{line}\n" for line in lines if line.startswith(_HASH))


def _fingerprints(person: Person, read: Read) -> list[str]:
    """The keys of a person, also of one who has left and whose files may be gone too."""
    found: list[str] = []
    for entry in person.get("keys") or []:
        if not isinstance(entry, str):
            found.append(entry["fingerprint"])
            continue
        try:
            file = file_named(entry)
            found += [key.fingerprint for key in parse_keys(read(file) if file else entry)]
        except FileNotFoundError:
            if is_present(person):
                raise
        except PublicKeyError as error:
            raise CaError(f"the keys of {person['name']}: {error}") from None
    return found


def check_own_keys(entries: t.Sequence[str], own_keys: t.Iterable[str], source: str) -> None:
    """Refuse to shut out who revokes."""
    lost = sorted(key for key in own_keys if f"{_HASH}{key}" in entries)
    if lost:
        raise CaError(
            f"{' and '.join(lost)} must not be revoked, since this controller logs in with it",
            remedy=f"give this controller a key of its own, or take this one out of what is revoked, also out of "
            f"{source}",
        )


def _revocation(item: str) -> str:
    item = item.strip()
    if len(item.splitlines()) != 1:
        raise CaError(f"what is revoked must be one thing in one line, not {item.splitlines()}")
    if item.startswith("SHA256:"):
        # ssh-keygen would take more than one way to write it.
        if not _FINGERPRINT.match(item):
            raise CaError(f"{item} is no fingerprint as ssh-keygen -l shows it")
        return f"{_HASH}{item}"
    if item.startswith("serial:"):
        return f"serial: {item[len('serial:') :].strip()}"
    if _KEY.match(item):
        return f"{_HASH}{parse_line(item).fingerprint}"
    if file_named(item):
        raise CaError(f"{item} is a file, and what is revoked is named itself", remedy=f"ssh-keygen -lf {item}")
    return _identity(item)


def _identity(name: str) -> str:
    # ssh-keygen takes what follows a # for a comment, and a second line for another thing.
    if "#" in name or not name.isprintable():
        raise CaError(f"{name!r} cannot be revoked as the name in a certificate", remedy="without # and in one line")
    return f"id: {name}"


# --- what a person's certificate says -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """A certificate to be issued, in the words of community.crypto.openssh_cert."""

    key: PublicKey
    principals: list[str]
    options: list[str]
    valid_to: str
    # Issued anew unless the one that is there is still valid then.
    valid_at: str
    path: str


def find_person(people: t.Sequence[Person], name: str, today: datetime.date) -> Person:
    """The person who may have a certificate."""
    known = ", ".join(sorted(person["name"] for person in people if is_present(person))) or "nobody"
    if not name:
        raise CaError(f"no person was named; there are: {known}")
    person = next((person for person in people if person["name"] == name), None)
    if person is None:
        raise CaError(f"gpu_users has no {name}; there are: {known}")
    if not is_present(person):
        raise CaError(f"{name} is absent in gpu_users; there are: {known}")
    if person.get("expiry") and _last_day(person) < today:
        raise CaError(f"the access of {name} has ended on {_last_day(person)}; there are: {known}")
    return person


def _last_day(person: Person) -> datetime.date:
    # YAML makes a date of it, JSON and the command line a text.
    text = str(person["expiry"])
    try:
        return datetime.datetime.strptime(text[:10], "%Y-%m-%d").date()
    except ValueError:
        raise CaError(f"the expiry of {person['name']} is {text}, and not a day such as 2027-03-31") from None


def request(
    person: Person, key: str, validity: str, dest: str, folder: str, now: datetime.datetime, read: Read
) -> Request:
    """Return what is issued: with `key` for that file, else for the only key that the user has."""
    chosen, file = _choose_key(person, key, read)
    end = now + datetime.timedelta(seconds=lifetime(validity))
    valid_to = f"+{lifetime(validity)}s"
    if person.get("expiry"):
        last = datetime.datetime.combine(_last_day(person), datetime.time(23, 59, 59), now.tzinfo)
        if last < end:
            end, valid_to = last, last.strftime("%Y-%m-%dT%H:%M:%S")
    name = person["name"]
    beside = re.sub(r"\.pub\Z", "", os.path.expanduser(file)) if file else posixpath.join(folder, name)
    return Request(
        key=chosen,
        principals=_principals(person),
        options=certificate_options(person.get("options") or {}),
        valid_to=valid_to,
        valid_at=f"+{int((end - now).total_seconds()) // 3}s",
        path=dest or f"{beside}-cert.pub",
    )


def _principals(person: Person) -> list[str]:
    """Return the principals of a user. The roles ssh_ca and cloud_init have the same rule."""
    lists = []
    for field, default in (("cert_accounts", person["name"]), ("cert_groups", "gpu")):
        given = person.get(field)
        if given == []:
            raise CaError(f"the {field} of {person['name']} are empty, so a certificate would be good for nothing")
        lists.append([default] if given is None else given)
    return [f"{account}@{group}" for account in lists[0] for group in lists[1]]


def _choose_key(person: Person, key: str, read: Read) -> tuple[PublicKey, str]:
    found = []
    for entry in [key] if key else list(person.get("keys") or []):
        file = entry if key else file_named(entry)
        try:
            found += [(each, file) for each in parse_keys(read(file) if file else entry)]
        except PublicKeyError as error:
            raise CaError(f"{file or person['name']}: {error}") from None
    if len(found) == 1:
        return found[0]
    if not found:
        raise CaError(f"{key or person['name']} has no key; name a file that has one with -e key=FILE.pub")
    listed = ", ".join(f"{each.fingerprint} {file}".strip() for each, file in found)
    raise CaError(f"{key or person['name']} has several keys; name a file that has one with -e key=FILE.pub: {listed}")


def lifetime(text: str) -> int:
    """Return the seconds that a certificate is to live, from a time such as 12h or 1w2d."""
    try:
        found = seconds(text)
    except DurationError as error:
        raise CaError(str(error)) from None
    if not found:
        raise CaError(f"{text} is no time that a certificate can live")
    return found


def certificate_options(options: t.Mapping[str, t.Any]) -> list[str]:
    """The same limits as in authorized_keys. What a certificate cannot say is refused, since it would open more."""
    given = {name.lower().replace("_", "-"): value for name, value in options.items() if value not in (False, None)}
    found = ["clear"] if given.pop("restrict", False) else []
    for feature in _FEATURES:
        allowed, forbidden = given.pop(feature, False), given.pop(f"no-{feature}", False)
        if found[:1] == ["clear"]:
            found += [f"permit-{feature}"] if allowed else []
        elif forbidden:
            found.append(f"no-{feature}")
    if "command" in given:
        found.append(f"force-command={given.pop('command')}")
    if "from" in given:
        found.append("source-address=" + ",".join(map(_network, _words(given.pop("from")))))
    if given:
        raise CaError(f"a certificate cannot carry the option {', '.join(sorted(given))} of this person's keys")
    return found


def _words(value: t.Any) -> list[str]:
    return value.split(",") if isinstance(value, str) else list(value)


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        raise CaError(f"a certificate can name networks such as 10.0.0.0/8, and the option from has {text}") from None


# --- what a node needs ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trust:
    """Which certificates a node takes, and those of its own host keys by the text of the key."""

    authorities: t.Sequence[str]
    principals: t.Mapping[str, t.Sequence[str]]
    revoked: bytes
    certificates: t.Mapping[str, str]


def plan(trust: Trust | None, host_keys: t.Mapping[str, str], present: Files) -> Files:
    """The files of a node, from those that are there; None is a file that is not there. Without trust, none stays.

    `host_keys` are the texts of the public host keys by the path of the private ones.
    """
    wanted: Files = {path: None for path in present if posixpath.dirname(path) == PRINCIPALS}
    if trust is None:
        wanted.update({USER_CA: None, REVOKED: None})
        ours = [path for path, content in present.items() if (content or b"").endswith(f" {SIGNED_HERE}\n".encode())]
        return {**wanted, **{path: None for path in ours}}
    wanted[REVOKED] = trust.revoked
    wanted[USER_CA] = "".join(f"{bare(parse_line(each))}\n" for each in trust.authorities).encode()
    for account, principals in trust.principals.items():
        if not _ACCOUNT.match(account):
            raise CaError(f"{account!r} is no name of an account")
        wanted[f"{PRINCIPALS}/{account}"] = "".join(f"{each}\n" for each in principals).encode()
    for path, key in host_keys.items():
        if key in trust.certificates:
            wanted[certificate_path(path)] = f"{trust.certificates[key].strip()}\n".encode()
    return wanted


def certificate_path(host_key: str) -> str:
    return f"{host_key}-cert.pub"


def sshd_settings(host_keys: t.Iterable[str], exists: t.Callable[[str], bool]) -> dict[str, t.Any]:
    """Return the settings for sshd, of files that exist only: a missing KRL locks everybody out."""
    settings: dict[str, t.Any] = {}
    if exists(REVOKED):
        settings["RevokedKeys"] = REVOKED
    if exists(USER_CA) and exists(PRINCIPALS):
        settings["TrustedUserCAKeys"] = USER_CA
        settings["AuthorizedPrincipalsFile"] = f"{PRINCIPALS}/%u"
    certificates = [certificate_path(path) for path in host_keys if exists(certificate_path(path))]
    if certificates:
        settings["HostCertificate"] = certificates
    return settings
