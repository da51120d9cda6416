# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import datetime
import functools
import json
import os
import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import Problem
from ansible_collections.gpuops.fleet.plugins.module_utils._base.public_key import parse_line
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.fetch import NoAnswer, fetch
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.user_data import UserError, read_people
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.user_keys import GitHub, Sources, resolve
from lab_web import Web

NOW = datetime.datetime(2026, 11, 23, 12, tzinfo=datetime.timezone.utc)
TOKEN = "ghp_s3cret"


def blob(*fields: bytes) -> str:
    return base64.b64encode(b"".join(len(field).to_bytes(4, "big") + field for field in fields)).decode()


def key(name: str) -> str:
    return f"ssh-ed25519 {blob(b'ssh-ed25519', name.encode().ljust(32))}"


def rsa(bits: int) -> str:
    modulus = (1 << (bits - 1)).to_bytes(bits // 8, "big")
    return "ssh-rsa " + blob(b"ssh-rsa", b"A", b"\0" + modulus)


def fingerprint(name: str) -> str:
    return parse_line(key(name)).fingerprint


def run(
    *users: dict[str, t.Any],
    api: str = "https://api.github.com",
    token: str = TOKEN,
    timeout: float = 5,
    get: t.Any = fetch,
) -> tuple[dict[str, dict[str, t.Any]], list[str]]:
    people = read_people(users)
    sources = Sources(people, functools.partial(get, timeout=timeout), GitHub(api, token), NOW)
    found, remarks = resolve(people, sources, NOW.date())
    assert [user["name"] for user in found] == [user["name"] for user in users]
    return {user["name"]: user for user in found}, remarks


def lines(user: dict[str, t.Any]) -> list[str]:
    assert user["error"] == ""
    return [found["line"] for found in user["keys"]]


def error_of(user: dict[str, t.Any]) -> str:
    """A person whose keys are not known has none in the result: the node leaves what is there."""
    assert user["keys"] == []
    assert user["error"].isprintable()
    assert user["error"].startswith(f"{user['name']}: ")
    assert str(Problem(**user["problem"])) == user["error"]
    return str(user["error"])


# --- from text and files --------------------------------------------------------------------------------------------


def test_a_key_as_text_becomes_the_line_that_the_node_writes(tmp_path: Path) -> None:
    user = {"name": "alice", "uid": 2001, "keys": [key("a") + "  alice@laptop "], "options": {"restrict": True}}
    found, remarks = run({**user, "expiry": "2027-03-31"})
    line = f'restrict,expiry-time="20270331235959" {key("a")} alice@laptop from inventory'
    assert found["alice"] == {
        "name": "alice", "uid": 2001, "state": "present", "home": "keep", "exclusive": False, "end_sessions": False,
        "error": "", "problem": None, "keys": [
            {"line": line, "blob": key("a").split()[1], "fingerprint": fingerprint("a"), "source": "inventory"}
        ],
    }  # fmt: skip
    assert not remarks
    (tmp_path / "authorized_keys").write_text(line + "\n")
    listed = subprocess.run(
        ["ssh-keygen", "-lf", tmp_path / "authorized_keys"], capture_output=True, text=True, check=True
    )
    assert listed.stdout.split()[1] == fingerprint("a")


def test_files_and_texts_may_hold_several_keys_and_comments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "alice.pub").write_bytes(b"\xef\xbb\xbf# two\r\n\r\n" + f"{key('a')}\r\n{key('b')} b\n".encode())
    found, _remarks = run({"name": "alice", "keys": ["~/alice.pub", f"# old\n{key('c')}\n"]})
    assert lines(found["alice"]) == [
        f"{key('a')} alice from ~/alice.pub",
        f"{key('b')} b from ~/alice.pub",
        f"{key('c')} alice from inventory",
    ]


def test_a_comment_cannot_bring_control_characters_along() -> None:
    found, _remarks = run({"name": "alice", "keys": [f"{key('a')} \x1b[31mred\ttab"]})
    assert lines(found["alice"]) == [f"{key('a')} ?[31mred tab from inventory"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("alice.pub", "number 2 of keys: line 1: no public key.*its path from / or ~"),
        ("", "an empty text"),
        (key("a")[:-3], "line 1: not base64, or truncated"),
        (f"{key('a')}\nhello world", "line 2: no public key"),
        (f"restrict {key('a')}", "has options before it; write them into the options of alice"),
        (rsa(1024), "too weak: RSA 1024 bits"),
        ("ssh-dss " + blob(b"ssh-dss", b"p", b"q", b"g", b"y"), "too weak: DSA"),
        ("/nowhere/alice.pub", "/nowhere/alice.pub: No such file or directory. Next: ls -l /nowhere/alice.pub"),
        ("/dev/zero", "/dev/zero: not a regular file"),
        ("/", "/: not a regular file"),
        ("/a\0b", "cannot be the name of a file"),
        ("/\ud800", "cannot be the name of a file"),
        ("\ud800", "not a text"),
    ],
)
def test_a_bad_key_is_an_error_of_that_person_only(text: str, told: str) -> None:
    found, _remarks = run({"name": "alice", "keys": [key("a"), text]}, {"name": "bob", "keys": [key("b")]})
    with pytest.raises(AssertionError, match=told):
        raise AssertionError(error_of(found["alice"]))
    assert len(lines(found["bob"])) == 1


def test_a_file_that_blocks_or_is_huge_is_an_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "huge").write_text(f"{key('a')}\n" * 20000)
    found, _remarks = run(
        {"name": "alice", "keys": [str(tmp_path / "fifo")]}, {"name": "bob", "keys": [str(tmp_path / "huge")]}
    )
    assert "not a regular file" in error_of(found["alice"])
    assert "more than 1 MB" in error_of(found["bob"])


def test_a_private_key_is_refused_and_in_no_message(tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "id"], check=True)
    private = (tmp_path / "id").read_text()
    found, remarks = run(
        {"name": "alice", "keys": [private]},
        {"name": "bob", "keys": [str(tmp_path / "id")]},
        {"name": "eve", "keys": [private], "state": "absent"},
    )
    assert "PRIVATE key" in error_of(found["alice"])
    assert "PRIVATE key" in error_of(found["bob"])
    for body in private.splitlines()[1:-1]:
        assert body not in json.dumps([found, remarks])


# --- from URLs ------------------------------------------------------------------------------------------------------


def test_a_url_is_fetched_once_for_all_and_named_in_the_comment(web: Web) -> None:
    url = web.says("/alice.keys", f"{key('a')}\n{key('b')}\n")
    found, _remarks = run({"name": "alice", "sources": [url]}, {"name": "ops", "sources": [{"url": url}]})
    assert lines(found["alice"]) == [f"{key('a')} alice from {url}", f"{key('b')} alice from {url}"]
    assert len(lines(found["ops"])) == 2
    assert web.paths() == ["/alice.keys"]


def test_at_most_eight_are_asked_at_once(web: Web) -> None:
    users = [
        {"name": f"u{number}", "sources": [web.says(f"/u{number}.keys", key(str(number)), wait=0.1)]}
        for number in range(24)
    ]
    found, _remarks = run(*users)
    assert all(len(lines(user)) == 1 for user in found.values())
    assert 1 < web.busiest <= 8


HTML = {"Content-Type": "text/html; charset=utf-8"}


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        ({"status": 404}, "HTTP 404, no such user"),
        ({"status": 503}, "HTTP 503"),
        ({"status": 204}, "HTTP 204"),
        ({"status": 403}, "HTTP 403"),
        ({"status": 429}, "HTTP 429, too many requests"),
        ({"status": 429, "headers": {"Retry-After": "90"}}, "too many requests; wait until 2026-11-23 12:01:30 UTC"),
        ({"status": 403, "headers": {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1795435200"}},
         "HTTP 403, too many requests; wait until 2026-11-23 12:00:00 UTC"),
        ({"status": 429, "headers": {"Retry-After": "Mon, 23 Nov 2026 13:00:00 GMT"}}, "Mon, 23 Nov 2026 13:00:00 GMT"),
        ({"body": ""}, "an empty answer, no key in it"),
        ({"body": "\n\n"}, "an empty answer, no key in it"),
        ({"body": "<!doctype html><p>Log in", "headers": {}}, "a web page, not keys"),
        ({"body": "Log in", "headers": HTML}, "a web page, not keys"),
        ({"body": f"{key('a')}\nnot a key\n"}, "line 2: no public key"),
        ({"body": f"{key('a')}\nssh-ed25519 AAAA"}, "line 2: truncated"),
        ({"body": b"\xff\xfe\x00"}, "not a text"),
        ({"body": f"{key('a')}\n", "missing": 82, "headers": {"Connection": "close"}}, "truncated: 82 bytes"),
        ({"body": f"{key('a')}\n" * 20000}, "more than 1 MB"),
        ({"body": key("a"), "wait": 5}, "no complete answer within 0.5 s"),
        ({"body": key("a"), "drip": 0.1}, "no complete answer within 0.5 s"),
        ({"status": 302, "headers": {"Location": "http://example.org/"}}, "redirect"),
    ],
)  # fmt: skip
def test_a_source_that_fails_takes_nobodys_keys_away(web: Web, reply: dict[str, t.Any], told: str) -> None:
    url = web.says("/alice.keys", **reply)
    found, _remarks = run(
        {"name": "alice", "keys": [key("z")], "sources": [url]}, {"name": "bob", "keys": [key("b")]}, timeout=0.5
    )
    message = error_of(found["alice"])
    assert message.startswith(f"alice: {url}: ")
    assert told in message
    assert message.endswith(f"Next: curl -sSi {url}")
    assert len(lines(found["bob"])) == 1


def test_a_server_that_never_answers_does_not_hold_up_everybody() -> None:
    asked: list[str] = []

    def get(url: str, _headers: t.Any, timeout: float) -> t.Any:
        asked.append(url)
        raise NoAnswer(f"no complete answer within {timeout:g} s")

    users = [{"name": f"u{number}", "sources": [f"https://down.example/u{number}.keys"]} for number in range(100)]
    found, _remarks = run(*users, get=get)
    assert len(asked) < 20
    assert "not asked: down.example has not answered 8 times" in error_of(found["u99"])


# --- pins -----------------------------------------------------------------------------------------------------------


def test_a_key_outside_of_the_fingerprints_is_an_error_and_a_missing_one_a_remark(web: Web) -> None:
    url = web.says("/alice.keys", f"{key('a')}\n{key('new')}\n")
    pinned = {"url": url, "fingerprints": [fingerprint("a")]}
    found, _remarks = run({"name": "alice", "sources": [pinned]})
    message = error_of(found["alice"])
    assert f"has {fingerprint('new')}, its fingerprints may only be {fingerprint('a')}." in message

    pinned["fingerprints"] = [fingerprint("a"), fingerprint("new"), fingerprint("old")]
    found, remarks = run({"name": "alice", "sources": [pinned]})
    assert len(lines(found["alice"])) == 2
    assert remarks == [f"alice: {fingerprint('old')} of the fingerprints is no longer at {url}"]


# --- teams ----------------------------------------------------------------------------------------------------------


def team(web: Web, *pages: list[str], path: str = "/api/orgs/acme/teams/gpu/members") -> None:
    """Pages and the links between them, as GitHub has them."""
    paths = [f"{path}?per_page=100"] + [f"{path}?per_page=100&page={number}" for number in range(2, len(pages) + 1)]
    for number, logins in enumerate(pages):
        links = [f'<{web.url}{paths[number - 1]}>; rel="prev"'] if number else []
        links += [f'<{web.url}{paths[number + 1]}>; rel="next"'] if number + 1 < len(pages) else []
        links += [f'<{web.url}{paths[-1]}>; rel="last"']
        body = json.dumps([{"login": login, "id": 1} for login in logins])
        web.says(paths[number], body, headers={"Link": ", ".join(links)})


def members(web: Web, *logins: str, slug: str = "acme/gpu") -> list[dict[str, t.Any]]:
    return [
        {"name": login, "sources": [{"url": web.says(f"/{login}.keys", key(login)), "team": slug}]} for login in logins
    ]


def test_only_members_get_in_and_the_token_is_for_the_api_only(web: Web) -> None:
    team(web, ["Alice"], ["dave"], ["carol"])
    found, remarks = run(*members(web, "alice", "bob", "carol"), api=f"{web.url}/api/")
    assert len(lines(found["alice"])) == len(lines(found["carol"])) == 1
    assert lines(found["bob"]) == []
    assert remarks == [f"bob: bob is not in acme/gpu: no keys from {web.url}/bob.keys", "bob has no keys"]
    for path, headers in web.asked:
        assert headers.get("Authorization") == (f"Bearer {TOKEN}" if path.startswith("/api/") else None)
        assert headers.get("X-Github-Api-Version") == ("2022-11-28" if path.startswith("/api/") else None)
        assert headers["User-Agent"] == "gpuops.fleet"
    assert sum(path.startswith("/api/") for path in web.paths()) == 3


def test_an_organisation_without_a_team(web: Web) -> None:
    team(web, ["alice"], path="/orgs/acme/members")
    found, _remarks = run(*members(web, "alice", "bob", slug="acme"), api=web.url)
    assert (len(lines(found["alice"])), lines(found["bob"])) == (1, [])


def test_other_keys_of_somebody_who_is_not_in_the_team_stay(web: Web) -> None:
    team(web, ["alice"])
    (bob,) = members(web, "bob")
    found, _remarks = run({**bob, "keys": [key("b")]}, api=f"{web.url}/api")
    assert lines(found["bob"]) == [f"{key('b')} bob from inventory"]


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        ({"status": 401}, "the token is wrong or has expired"),
        ({"status": 404}, "no such team, or the token may not see it"),
        ({"status": 403, "headers": {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1795435200"}},
         "too many requests; wait until 2026-11-23 12:00:00 UTC"),
        ({"status": 502}, "HTTP 502"),
        ({"body": "[]"}, "no members at all that this token can see"),
        ({"body": "<html>"}, "not a list of members"),
        ({"body": '{"message": "hello"}'}, "not a list of members"),
        ({"body": '[{"id": 1}]'}, "not a list of members"),
        ({"body": '[{"login": null}]'}, "not a list of members"),
        ({"body": '[{"login": "alice"}]', "headers": {"Link": '<https://evil.example/>; rel="next"'}},
         "the next page is on another server"),
        ({"body": '[{"login": "alice"}]', "missing": 9, "headers": {"Connection": "close"}}, "truncated"),
        ({"body": "[]", "wait": 5}, "no complete answer"),
        ({"status": 302, "headers": {"Location": f"https://evil.example/{TOKEN}"}}, "another server"),
    ],
)  # fmt: skip
def test_a_list_of_members_that_is_not_whole_removes_nobody(web: Web, reply: dict[str, t.Any], told: str) -> None:
    path = "/orgs/acme/teams/gpu/members"
    web.says(f"{path}?per_page=100", **reply)
    found, _remarks = run(*members(web, "alice", "bob"), api=web.url, timeout=0.5)
    for user in found.values():
        message = error_of(user)
        assert told in message
        assert "who is in acme/gpu is not known" in message
        assert f'Next: curl -sSi -H "Authorization: Bearer $GITHUB_TOKEN" {web.url}{path}' in message
        assert TOKEN not in message


def test_a_page_that_fails_makes_the_whole_list_unknown(web: Web) -> None:
    team(web, ["alice"], ["bob"])
    web.says("/api/orgs/acme/teams/gpu/members?per_page=100&page=2", status=500)
    found, _remarks = run(*members(web, "alice", "bob"), api=f"{web.url}/api")
    assert "HTTP 500" in error_of(found["alice"])
    assert "HTTP 500" in error_of(found["bob"])


def test_pages_end(web: Web) -> None:
    path = "/orgs/acme/teams/gpu/members?per_page=100"
    web.says(path, '[{"login": "alice"}]', headers={"Link": f'<{web.url}{path}>; rel="next"'})
    found, _remarks = run(*members(web, "alice"), api=web.url)
    assert "more than 100 pages" in error_of(found["alice"])


def test_a_token_that_sees_only_public_members_removes_nobody(web: Web) -> None:
    """GitHub redirects who is no member of the organisation to the list of those who are so in public."""
    public = web.says("/orgs/acme/public_members?per_page=100", '[{"login": "alice"}]')
    web.says("/orgs/acme/members?per_page=100", status=302, headers={"Location": public})
    found, _remarks = run(*members(web, "alice", "bob", slug="acme"), api=web.url)
    assert "sees only its public members" in error_of(found["bob"])


def test_without_a_token_nothing_is_known_of_a_team(web: Web) -> None:
    found, _remarks = run(*members(web, "alice"), api=web.url, token="")
    assert "is not known without a token. Next: export GITHUB_TOKEN=" in error_of(found["alice"])
    assert web.paths() == ["/alice.keys"]


@pytest.mark.parametrize(
    ("api", "token", "told"),
    [
        ("http://api.github.com", TOKEN, "github_api_url: http://api.github.com is not https"),
        ("https://api.github.com", f"{TOKEN}\nX: y", "github_token has blanks"),
        ("https://api.github.com", f"{TOKEN}\u00e9", "github_token has blanks"),
    ],
)
def test_a_token_that_could_leak_is_refused(api: str, token: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as error:
        run(api=api, token=token)
    assert TOKEN not in str(error.value)
    assert TOKEN not in repr(GitHub(api, token))


# --- people who leave, and remarks ----------------------------------------------------------------------------------


def test_what_is_not_known_of_an_absent_person_is_a_remark_and_no_error(web: Web) -> None:
    sources = [web.says("/eve.keys", rsa(1024)), f"{web.url}/gone.keys"]
    user = {"name": "eve", "state": "absent", "keys": [key("e"), "/nowhere"], "sources": sources}
    found, remarks = run({**user, "sources": [*sources, {"url": f"{web.url}/eve.keys", "team": "acme/gpu"}]})
    assert [line.split()[1] for line in lines(found["eve"])] == [key("e").split()[1], rsa(1024).split()[1]]
    assert [remark for remark in remarks if "twice" not in remark] == [
        "eve is absent, and not all keys to take away are known: "
        "/nowhere: No such file or directory. Next: ls -l /nowhere",
        "eve is absent, and not all keys to take away are known: "
        f"{web.url}/gone.keys: HTTP 404, no such user. Next: curl -sSi {web.url}/gone.keys",
    ]


def test_who_leaves_cannot_take_the_key_of_somebody_else_along(web: Web) -> None:
    url = web.says("/eve.keys", f"{key('e')}\n{key('bob')}\n")
    found, remarks = run(
        {"name": "eve", "state": "absent", "sources": [url]}, {"name": "bob", "keys": [key("bob"), "broken"]}
    )
    assert [of["fingerprint"] for of in found["eve"]["keys"]] == [fingerprint("e")]
    assert f"eve is absent, but {fingerprint('bob')} stays valid: it is also a key of somebody else" in remarks


def test_only_the_fingerprints_of_an_absent_person_count(web: Web) -> None:
    url = web.says("/eve.keys", f"{key('e')}\n{key('controller')}\n")
    source = {"url": url, "fingerprints": [fingerprint("e")]}
    found, _remarks = run({"name": "eve", "state": "absent", "sources": [source]})
    assert [of["fingerprint"] for of in found["eve"]["keys"]] == [fingerprint("e")]


def test_what_deserves_a_look_is_a_remark() -> None:
    strong = parse_line(rsa(3072)).fingerprint
    weak = parse_line(rsa(2048)).fingerprint
    found, remarks = run(
        {"name": "alice", "keys": [rsa(2048), rsa(3072), rsa(3072) + " again"]},
        {"name": "bob", "keys": [rsa(3072)], "expiry": "2026-11-22"},
        {"name": "carol", "keys": [key("c")], "expiry": "2026-11-23"},
        {"name": "dave"},
    )
    assert remarks == [
        f"alice: {weak} from inventory is weak: RSA 2048 bits",
        f"alice has {strong} twice: from inventory and from inventory",
        "bob: the last day was 2026-11-22, no key lets in any more",
        "dave has no keys",
        f"alice and bob have the same key {strong}",
    ]
    assert len(lines(found["alice"])) == 2
    assert lines(found["bob"])[0].startswith('expiry-time="20261122235959" ssh-rsa ')
    assert lines(found["dave"]) == []
