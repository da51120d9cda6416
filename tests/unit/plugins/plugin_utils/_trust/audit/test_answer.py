# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import subprocess

import pytest
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.collector import CollectorError
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.audit.access import (
    Access,
    Effective,
    MatchLine,
)
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.audit.answer import (
    MOST_CHARACTERS,
    collector_command,
    parse_answer,
    parse_effective,
)

MARKER = "gpuops-0011"
ED25519 = "256 SHA256:6Jn6rs5fM+Kf9DmRAyB8BO/jx4K9Glk/suvFzC0VdAM alice@laptop (ED25519)"
SPEC = "user=root,host=203.0.113.1,addr=203.0.113.1,laddr=10.0.0.9,lport=22"
SECTIONS = {
    "node": "uid=0\nsshd=/usr/sbin/sshd\nlogin=gpu\nconnection=10.0.0.1 50022 10.0.0.9 22",
    "accounts": "superuser root\nsuperuser toor\npassword locked root\npassword set gpu\npassword empty guest\n"
    "account root:0:0:/root\naccount gpu:1000:1000:/home/gpu\nleft_out 2",
    "files": "file 755 0 /etc/ssh\nfile 666 0 /etc/ssh/sshd_config\n"
    "match /etc/ssh/sshd_config:12:  Match  User=backup\ngroup staff 50 alice,bob",
    "drop_in": "# ours\nPasswordAuthentication no",
    "effective": f"spec {SPEC}\nset passwordauthentication no\nset acceptenv LANG\nset acceptenv LC_*\nuser root\n"
    "path 700 0 /root\npath 700 0 /root/.ssh\npath 600 0 /root/.ssh/authorized_keys\n"
    f"keys /root/.ssh/authorized_keys\nkey {ED25519}\n"
    "key 256 SHA256:x ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 (ED25519)\nkey 2048 SHA256:y no comment (RSA)\n"
    f"spec {SPEC.replace('root', 'gpu', 1)}\nsame\nuser gpu\nunreadable /home/gpu\n"
    f"spec {SPEC.replace('203.0.113.1', '10.0.0.1')}\nset passwordauthentication yes\nmissing /etc/ssh/revoked",
    "loaded": "loaded 1700000000 /run/sshd.pid\nnewer 1700000005 /etc/ssh/sshd_config",
    "host_keys": f"path 600 0 /etc/ssh/ssh_host_ed25519_key\nkey {ED25519}\nkey ",
    "moduli": "moduli 3072 7\nmoduli 2048 5",
    "logins": "source journal\naccepted 12 2026-11-23T02:00:34+0000 root 10.0.0.1\n"
    "failed 3 Nov-22T01:00:00 2001:db8::7",
    "journal": "volatile",
}


def answer(**changed: str) -> str:
    sections = {**SECTIONS, **changed}
    return "".join(f"\n{MARKER} {name}\n{text}\n" for name, text in sections.items()) + f"\n{MARKER} end\n"


def parsed(**changed: str) -> Access:
    return parse_answer(answer(**changed), MARKER)


def test_the_whole_answer_is_read() -> None:
    access = parsed()
    assert (access.uid, access.login, access.client, access.laddr, access.lport) == (
        0,
        "gpu",
        "10.0.0.1",
        "10.0.0.9",
        "22",
    )
    assert access.superusers == ("root", "toor")
    assert dict(access.passwords) == {"root": "locked", "gpu": "set", "guest": "empty"}
    assert access.left_out == 2
    assert [(file.path, file.mode) for file in access.files] == [("/etc/ssh", 0o755), ("/etc/ssh/sshd_config", 0o666)]
    assert access.matches == (MatchLine("/etc/ssh/sshd_config:12", "User=backup"),)
    assert access.groups == (("staff", "50", ("alice", "bob")),)
    assert access.drop_in == "# ours\nPasswordAuthentication no"
    assert (access.loaded, access.newer) == (1700000000, ((1700000005, "/etc/ssh/sshd_config"),))
    assert [key.kind for key in access.host_keys] == ["ED25519"]
    assert access.moduli == ((2048, 5), (3072, 7))
    assert access.logins is not None
    assert access.logins.accepted == ((12, "2026-11-23T02:00:34+0000", "root", "10.0.0.1"),)
    assert access.logins.failed == ((3, "Nov-22T01:00:00", "", "2001:db8::7"),)
    assert access.journal == "volatile"


def test_keys_belong_to_the_account_before_them_and_need_no_comment() -> None:
    root, gpu = parsed().accounts
    assert [path.path for path in root.paths] == ["/root", "/root/.ssh", "/root/.ssh/authorized_keys"]
    assert root.keys[0][0] == "/root/.ssh/authorized_keys"
    assert [(key.kind, key.bits, key.comment) for key in root.all_keys] == [
        ("ED25519", 256, "alice@laptop"),
        ("ED25519", 256, ""),
        ("RSA", 2048, ""),
    ]
    assert (gpu.all_keys, gpu.unreadable) == ([], ("/home/gpu",))


def test_connections_of_sshd_are_told_apart() -> None:
    first, alike, other = parsed().effective
    assert (alike.user, alike.settings) == ("gpu", first.settings)
    assert first.settings["acceptenv"] == ("LANG", "LC_*")
    assert first.get("acceptenv") == "LANG"
    assert first.get("nothing") == ""
    assert (other.address, other.get("passwordauthentication"), other.missing_files) == (
        "10.0.0.1", "yes", ("/etc/ssh/revoked",),
    )  # fmt: skip


def test_refusal_of_sshd_is_kept() -> None:
    (refused,) = parsed(effective=f"spec {SPEC}\nrefused line 3: Bad configuration option: Foo \n").effective
    assert (refused.settings, refused.refusal) == ({}, "line 3: Bad configuration option: Foo")


def test_what_stands_around_the_answer_and_a_terminals_line_ends_do_no_harm() -> None:
    assert parse_answer(f"Welcome!\n{answer()}bye\n".replace("\n", "\r\n"), MARKER) == parsed()


def test_without_root_nothing_but_that_is_told() -> None:
    text = f"\n{MARKER} node\nuid=1000\nsshd=/usr/sbin/sshd\n\n{MARKER} end\n"
    assert parse_answer(text, MARKER) == Access(uid=1000, sshd="/usr/sbin/sshd")


def test_what_would_steer_a_terminal_is_taken_out() -> None:
    access = parsed(files="file 644 0 /etc/ssh/\x1b[2Jx\nmatch /etc/ssh/a:1:Match User \x1b[31mx")
    assert access.files[0].path == "/etc/ssh/?[2Jx"
    assert access.matches[0].criteria == "User ?[31mx"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "did not answer"),
        ("sh: 1: not found", "did not answer"),
        (answer()[: answer().index(f"{MARKER} moduli")], "is incomplete"),
        (answer().replace(MARKER, "gpuops-2222"), "did not answer"),
        (answer(node="uid=zero\nsshd="), "makes no sense"),
        (answer(files="file 6x6 0 /etc/ssh"), "makes no sense"),
        (answer(effective=f"spec {SPEC}\nkeys /root/x"), "makes no sense"),
        (answer(effective=f"spec {SPEC}\n"), "makes no sense"),
        (answer(host_keys="key 256 SHA256:$(id) root@gpu-1 (ED25519)"), "makes no sense"),
        (answer(host_keys="key \x00\ufffd\ufffd"), "makes no sense"),
        (answer(accounts="left_out many"), "makes no sense"),
        ("x" * (MOST_CHARACTERS + 1), "longer than 8 MB"),
    ],
    ids=[
        "empty",
        "text",
        "truncated",
        "other-marker",
        "uid",
        "mode",
        "no-user",
        "no-settings",
        "command",
        "binary",
        "number",
        "huge",
    ],
)
def test_an_answer_that_cannot_be_trusted_is_refused(text: str, message: str) -> None:
    with pytest.raises(CollectorError, match=message):
        parse_answer(text, MARKER)


def test_answers_for_match_blocks_name_them() -> None:
    line = MatchLine("f:1", "User backup")
    text = f"\n{MARKER} effective\nspec {SPEC}\nset passwordauthentication yes\n{MARKER} end\n"
    (found,) = parse_effective(text, MARKER, [line])
    assert found == Effective("root", "203.0.113.1", {"passwordauthentication": ("yes",)}, match=line)
    with pytest.raises(CollectorError, match="for 1 of 2 connections"):
        parse_effective(text, MARKER, [line, line])
    with pytest.raises(CollectorError, match="makes no sense"):
        parse_effective(f"\n{MARKER} end\n", MARKER, [])


def test_the_collector_runs_as_anybody_and_says_only_what_it_may() -> None:
    """As a user without rights, where there is one to become."""
    command = ["setpriv", "--reuid=65534", "--clear-groups", "sh", "-c", collector_command(MARKER)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if run.returncode and "setpriv" in run.stderr:
        pytest.skip("needs root, to be somebody else")
    assert run.stderr == ""
    assert parse_answer(run.stdout, MARKER).accounts == ()
