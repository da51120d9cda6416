# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import datetime
import hashlib
import re
import typing as t

import pytest
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.ca import (
    PRINCIPALS,
    REVOKED,
    USER_CA,
    CaError,
    Files,
    Trust,
    bare,
    certificate_options,
    check_own_keys,
    find_person,
    krl_entries,
    lifetime,
    plan,
    remembered,
    request,
    revocations,
    sshd_settings,
    text_of_krl,
)

NOW = datetime.datetime(2026, 11, 23, 12, 0, tzinfo=datetime.timezone.utc)
HEAD = b"\0\0\0\x0bssh-ed25519\0\0\0 "
BLOBS = {name: base64.b64encode(HEAD + name.encode().ljust(32)).decode() for name in ("a", "b", "ca", "host")}
A, B, CA, HOST = (f"ssh-ed25519 {blob}" for blob in BLOBS.values())
PRIVATE = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA\n"
FILES = {"/keys/a.pub": f"{A} alice@laptop\n", "~/b": f"# both\n{A}\n\n{B}\n", "/keys/none.pub": "\n", "~/a": PRIVATE}
ALICE = {"name": "alice", "keys": [f"{A} alice@laptop"]}


def hashed(name: str) -> str:
    digest = hashlib.sha256(base64.b64decode(BLOBS[name])).digest()
    return f"hash: SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def read(path: str) -> str:
    try:
        return FILES[path]
    except KeyError:
        raise FileNotFoundError(2, "No such file or directory", path) from None


def absent(*keys: t.Any, name: str = "mallory") -> dict[str, t.Any]:
    return {"name": name, "state": "absent", "keys": list(keys)}


@pytest.mark.parametrize(
    ("people", "more", "wanted"),
    [
        ([], [], []),
        ([ALICE], [], []),
        ([absent(A, "~/b")], [], [hashed("a"), hashed("b"), "id: mallory"]),
        ([absent(" /keys/a.pub\n")], [], [hashed("a"), "id: mallory"]),
        ([absent("/keys/gone.pub")], [], ["id: mallory"]),
        ([absent({"fingerprint": hashed("a")[6:]})], [], [hashed("a"), "id: mallory"]),
        # She has another name now, and the same key.
        ([ALICE, absent(A, name="al")], [], ["id: al"]),
        ([ALICE], ["bob", "serial: 7", "serial:8", f"{B} bob@home\n", f" {hashed('a')[6:]}"],
         [hashed("a"), hashed("b"), "id: bob", "serial: 7", "serial: 8"]),
    ],
)  # fmt: skip
def test_what_is_revoked(people: list[dict[str, t.Any]], more: list[str], wanted: list[str]) -> None:
    assert krl_entries(revocations(people, more, read)) == sorted(wanted)


MALLORYS, OSCARS, LISTED, NOBODYS = (
    f"{hashed('a')}{owner}" for owner in (" # mallory", " # os car", " # (revoked)", "")
)
MALLORYS_KEPT, NOBODYS_KEPT = (line.replace("hash: ", "kept: ") for line in (MALLORYS, NOBODYS))


@pytest.mark.parametrize(
    ("people", "more", "before", "wanted"),
    [
        ([absent(A)], [], [], [MALLORYS, "id: mallory"]),
        # The file, or the answer of GitHub, has it no more.
        ([absent("/keys/gone.pub")], [], [MALLORYS], [MALLORYS, "id: mallory"]),
        ([absent("/keys/none.pub", {"fingerprint": hashed("b")[6:]})], [], [MALLORYS],
         [MALLORYS, f"{hashed('b')} # mallory", "id: mallory"]),
        # The entry is taken out, or says present again.
        ([absent(name="oscar")], [], [MALLORYS], ["id: oscar"]),
        ([{"name": "mallory", "keys": []}], [], [MALLORYS], []),
        # A key of two people goes with the last one of them.
        ([absent(name="os car")], [], [MALLORYS, OSCARS], [OSCARS, "id: os car"]),
        # Somebody present has it too, and then no more.
        ([ALICE, absent()], [], [MALLORYS], [MALLORYS_KEPT, "id: mallory"]),
        ([absent()], [], [MALLORYS_KEPT], [MALLORYS, "id: mallory"]),
        # What was revoked by itself goes with its item, whoever is absent.
        ([absent()], [A], [], [LISTED, "id: mallory"]),
        ([absent()], [], [LISTED], ["id: mallory"]),
        ([absent(A)], [], [LISTED], [MALLORYS, "id: mallory"]),
        # Nobody knows whose it is.
        ([absent()], [], [NOBODYS, "id: zoe"], [NOBODYS, "id: mallory"]),
        ([absent(A)], [], [NOBODYS], [MALLORYS, "id: mallory"]),
        ([], [A], [NOBODYS], [LISTED]),
        ([ALICE, absent()], [], [NOBODYS], [NOBODYS_KEPT, "id: mallory"]),
        ([], [], [NOBODYS, "serial: 7"], []),
    ],
)  # fmt: skip
def test_key_stays_revoked_while_its_owner_is_absent(
    people: list[dict[str, t.Any]], more: list[str], before: list[str], wanted: list[str]
) -> None:
    memory = remembered("".join(f"{line}\n" for line in before), "/ca/krl.txt")
    found = revocations(people, more, read, memory)
    assert found == sorted(wanted)
    again = remembered("".join(f"{line}\n" for line in found), "/ca/krl.txt")
    assert revocations(people, more, read, again) == found


@pytest.mark.parametrize(
    "line", ["hash: SHA256:a", f"{hashed('a')} mallory", f" {hashed('a')}", f"{hashed('a')} # ", "x"]
)
def test_memory_that_was_not_written_here_is_refused(line: str) -> None:
    with pytest.raises(CaError, match=r"/ca/krl\.txt: line 2 is not as it was written here.*Next: correct it"):
        remembered(f"id: mallory\n{line}\n", "/ca/krl.txt")


def test_krl_says_what_it_revokes() -> None:
    digits = hashlib.sha256(base64.b64decode(BLOBS["a"])).hexdigest()
    said = f"# KRL version 0\n\nhash: SHA256:{digits}\n\n# Wildcard CA\nserial: 7\nid: mallory\n"
    assert remembered(text_of_krl(said), "/ca/krl") == [(hashed("a")[6:], "")]
    with pytest.raises(CaError, match="line 1 is not as"):
        remembered(text_of_krl("hash: SHA512:00\n"), "/ca/krl")


def test_key_that_cannot_be_read_is_no_reason_to_revoke_less() -> None:
    with pytest.raises(CaError, match="the keys of mallory: not base64, or truncated"):
        revocations([absent("ssh-ed25519 AAA")], [], read)
    with pytest.raises(FileNotFoundError):
        revocations([{"name": "alice", "keys": ["/keys/gone.pub"]}], [], read)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (f"{hashed('a')[6:]}=", "is no fingerprint as ssh-keygen -l shows it"),
        (f"{hashed('a')[6:]} # the laptop", "is no fingerprint"),
        (f"bob\n{hashed('a')}", "one thing in one line"),
        ("", "one thing in one line"),
        ("bob#2", "without # and in one line"),
        ("~/keys/lost.pub", "~/keys/lost.pub is a file.*Next: ssh-keygen -lf ~/keys/lost.pub"),
    ],
)
def test_what_ssh_keygen_would_read_otherwise_is_refused(item: str, message: str) -> None:
    with pytest.raises(CaError, match=message):
        revocations([], [item], read)


def test_own_key_is_not_revoked() -> None:
    own = hashed("a")[6:]
    check_own_keys(krl_entries(revocations([ALICE], ["bob"], read)), [own], "/ca/krl.txt")
    for lines in (revocations([absent("~/b")], [], read), revocations([absent()], [], read, [(own, "mallory")])):
        with pytest.raises(CaError, match=rf"{re.escape(own)} must not be revoked.*also out of /ca/krl\.txt"):
            check_own_keys(krl_entries(lines), [own, "SHA256:other"], "/ca/krl.txt")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "no person was named; there are: alice, carol"),
        ("zoe", "gpu_users has no zoe; there are: alice, carol"),
        ("mallory", "mallory is absent in gpu_users; there are: alice, carol"),
        ("carol", "the access of carol has ended on 2026-11-22"),
    ],
)
def test_who_gets_no_certificate(name: str, message: str) -> None:
    people = [ALICE, absent(), {"name": "carol", "expiry": "2026-11-22"}]
    with pytest.raises(CaError, match=message):
        find_person(people, name, NOW.date())


@pytest.mark.parametrize("expiry", ["2026-11-23", datetime.date(2026, 11, 23)])
def test_certificate_ends_with_the_last_day(expiry: object) -> None:
    person = {**ALICE, "expiry": expiry}
    assert find_person([person], "alice", NOW.date()) == person
    found = request(person, "", "52w", "", "/people", NOW, read)
    assert (found.valid_to, found.valid_at) == ("2026-11-23T23:59:59", f"+{(12 * 3600 - 1) // 3}s")
    assert request(person, "", "1h", "", "/people", NOW, read).valid_to == "+3600s"


def test_what_a_certificate_says() -> None:
    found = request(ALICE, "", "12h", "", "/people", NOW, read)
    assert (bare(found.key), found.principals, found.options) == (A, ["alice@gpu"], [])
    assert (found.valid_to, found.valid_at, found.path) == ("+43200s", "+14400s", "/people/alice-cert.pub")
    person = {**ALICE, "cert_accounts": ["alice", "root"], "cert_groups": ["gpu", "train"], "options": {"no-pty": True}}
    found = request(person, "", "12h", "/tmp/x", "/people", NOW, read)
    assert found.principals == ["alice@gpu", "alice@train", "root@gpu", "root@train"]
    assert (found.options, found.path) == (["no-pty"], "/tmp/x")


@pytest.mark.parametrize("field", ["cert_accounts", "cert_groups"])
def test_empty_list_is_nobody_and_no_list_is_the_default(field: str) -> None:
    assert request({**ALICE, field: None}, "", "12h", "", "/people", NOW, read).principals == ["alice@gpu"]
    with pytest.raises(CaError, match=f"the {field} of alice are empty"):
        request({**ALICE, field: []}, "", "12h", "", "/people", NOW, read)


@pytest.mark.parametrize(
    ("keys", "key", "wanted"),
    [
        (["/keys/a.pub"], "", "/keys/a-cert.pub"),
        ([" /keys/a.pub\n"], "", "/keys/a-cert.pub"),
        ([], "/keys/a.pub", "/keys/a-cert.pub"),
        ([A, B], "/keys/a.pub", "/keys/a-cert.pub"),
        ([A, B], "", "alice has several keys; name a file that has one with -e key=FILE.pub: SHA256:"),
        (["~/b"], "", r"several keys.* ~/b, SHA256:\S+ ~/b"),
        ([], "", "alice has no key; name a file that has one with -e key=FILE.pub"),
        ([A], "/keys/none.pub", "/keys/none.pub has no key"),
        ([A], "~/a", "~/a: this is a PRIVATE key; give the .pub file"),
    ],
)
def test_which_key_is_certified(keys: list[str], key: str, wanted: str) -> None:
    person = {"name": "alice", "keys": keys}
    if wanted.endswith("-cert.pub"):
        found = request(person, key, "12h", "", "/people", NOW, read)
        assert (bare(found.key), found.path) == (A, wanted)
    else:
        with pytest.raises(CaError, match=wanted):
            request(person, key, "12h", "", "/people", NOW, read)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, []),
        ({"restrict": False, "pty": True}, []),
        ({"restrict": True, "pty": True, "port_forwarding": True}, ["clear", "permit-port-forwarding", "permit-pty"]),
        ({"no-X11-forwarding": True}, ["no-x11-forwarding"]),
        ({"command": "nvidia-smi -L"}, ["force-command=nvidia-smi -L"]),
        ({"from": ["10.0.0.0/8", "192.0.2.7"]}, ["source-address=10.0.0.0/8,192.0.2.7/32"]),
        ({"from": "fd00::/8"}, ["source-address=fd00::/8"]),
    ],
)
def test_limits_of_her_keys_are_those_of_her_certificate(options: dict[str, t.Any], wanted: list[str]) -> None:
    assert certificate_options(options) == wanted


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"from": ["*.example.org"]}, r"from has \*\.example\.org"),
        ({"from": ["10.0.0.0/8", "!10.1.0.0/16"]}, "from has !10.1.0.0/16"),
        ({"from": ["10.0.0.1/8"]}, "from has 10.0.0.1/8"),
        ({"permitopen": ["localhost:8888"], "restrict": True}, "cannot carry the option permitopen"),
    ],
)
def test_limit_that_a_certificate_cannot_have_is_refused(options: dict[str, t.Any], message: str) -> None:
    with pytest.raises(CaError, match=message):
        certificate_options(options)


@pytest.mark.parametrize(
    ("text", "words"), [("", "is no time such as 12h"), ("forever", "is no time such as 12h"), ("0h", "can live")]
)
def test_no_certificate_lives_for_a_time_that_is_none(text: str, words: str) -> None:
    assert lifetime("1w2d") == 777600
    with pytest.raises(CaError, match=words):
        lifetime(text)


TRUST = Trust([f"{CA} the ca"], {"alice": ["alice@gpu", "alice@train"]}, b"KRL", {HOST: "cert text\n", B: "other"})
HOST_KEYS = {"/etc/ssh/ssh_host_ed25519_key": HOST, "/etc/ssh/ssh_host_rsa_key": A}
OURS = "/etc/ssh/ssh_host_ed25519_key-cert.pub"
FILES_OF_A_NODE: Files = {
    USER_CA: f"{CA}\n".encode(),
    REVOKED: b"KRL",
    f"{PRINCIPALS}/alice": b"alice@gpu\nalice@train\n",
    OURS: b"cert text\n",
}


def test_files_of_a_node() -> None:
    assert plan(TRUST, HOST_KEYS, {}) == FILES_OF_A_NODE


def test_account_that_nobody_has_a_certificate_for_loses_its_principals() -> None:
    present: Files = {f"{PRINCIPALS}/root": b"root@gpu\n", OURS: b"x"}
    assert plan(TRUST, HOST_KEYS, present) == {**FILES_OF_A_NODE, f"{PRINCIPALS}/root": None}


@pytest.mark.parametrize("account", ["../../root", "", "-alice", "a" * 33, "alice\n"])
def test_principals_are_written_for_names_of_accounts_only(account: str) -> None:
    with pytest.raises(CaError, match="is no name of an account"):
        plan(Trust([], {account: []}, b"", {}), {}, {})


def test_without_trust_only_the_certificate_of_another_ca_stays() -> None:
    present: Files = {f"{PRINCIPALS}/root": b"root@gpu\n", OURS: b"type blob gpuops.fleet\n", "/x-cert.pub": b"a b c\n"}
    assert plan(None, HOST_KEYS, present) == {USER_CA: None, REVOKED: None, f"{PRINCIPALS}/root": None, OURS: None}


def test_sshd_is_told_only_of_files_that_are_there() -> None:
    assert sshd_settings(HOST_KEYS, lambda path: False) == {}
    assert sshd_settings(HOST_KEYS, lambda path: path in (USER_CA, REVOKED, PRINCIPALS, OURS)) == {
        "RevokedKeys": REVOKED,
        "TrustedUserCAKeys": USER_CA,
        "AuthorizedPrincipalsFile": f"{PRINCIPALS}/%u",
        "HostCertificate": [OURS],
    }
