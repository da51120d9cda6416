# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The collector itself, with commands of the node that say what these tests want."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.audit.access import Access, MatchLine
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.audit.answer import (
    collector_command,
    parse_answer,
    parse_effective,
)

MARKER = "gpuops-0011"
SPEC = "user=root,addr=203.0.113.1"
SSHD = """case $* in
*user=refused*) echo "line 3: Bad configuration option" >&2; exit 255 ;;
*,addr=10.*) echo "passwordauthentication yes" ;;
*) echo "passwordauthentication no" ;;
esac
printf "%s\\n" "authorizedkeysfile .ssh/authorized_keys /keys-of/%u" "revokedkeys /no/such/file" "pidfile /no/such/pid"
"""
LOG = """\
2026-11-20T01:00:00+0000 gpu-1 sshd[11]: Invalid user admin from 198.51.100.7 port 40000
2026-11-20T01:00:01+0000 gpu-1 sshd[11]: Failed password for invalid user admin from 198.51.100.7 port 40000 ssh2
2026-11-20T01:00:02+0000 gpu-1 sshd[11]: Connection closed by invalid user admin 198.51.100.7 port 40000 [preauth]
2026-11-20T02:00:00+0000 gpu-1 sshd-session[12]: Connection reset by authenticating user root 198.51.100.7 port 1
2026-11-20T03:00:00+0000 gpu-1 sshd[13]: Failed publickey for gpu from 10.0.0.1 port 5 ssh2: ED25519 SHA256:x
2026-11-20T03:00:01+0000 gpu-1 sshd[13]: Accepted publickey for gpu from 10.0.0.1 port 5 ssh2: ED25519 SHA256:y
2026-11-21T03:00:01+0000 gpu-1 sshd[14]: Accepted publickey for gpu from 10.0.0.1 port 6 ssh2: ED25519 SHA256:y
2026-11-21T04:00:00+0000 gpu-1 sshd[15]: Invalid user x from 10.9.9.9 port 22 from 2001:db8::7 port 7
2026-11-21T05:00:00+0000 gpu-1 sshd[16]: Server listening on 0.0.0.0 port 22.
2026-11-21T05:00:00+0000 gpu-1 sudo[17]: Accepted publickey for root from 10.0.0.3 port 6 ssh2
"""


class NodeOfFiles:
    """A directory of commands that go before the real ones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        self.command("id", "echo 0")
        self.command("sshd", SSHD)
        self.command("journalctl", f"cat <<'EOF'\n{LOG}EOF")
        self.people("root:x:0:0:root:/nowhere:/bin/sh", f"gpu:x:1000:1000::{folder}:/bin/bash")

    def command(self, name: str, script: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def people(self, *lines: str) -> None:
        (self.folder / "passwd").write_text("\n".join(lines) + "\n")
        self.command("getent", f"cat {self.folder}/passwd")

    def answer(self, *specs: str, **environment: str) -> str:
        run = subprocess.run(
            collector_command(MARKER, specs),
            shell=True,
            env={"PATH": f"{self.folder}/bin:{os.environ['PATH']}", **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert run.returncode == 0, run.stderr
        return run.stdout

    def access(self, **environment: str) -> Access:
        return parse_answer(self.answer(**environment), MARKER)


@pytest.fixture
def node(tmp_path: Path) -> NodeOfFiles:
    return NodeOfFiles(tmp_path)


def make_key(folder: Path, comment: str) -> str:
    key = folder / f"key-{comment or 'none'}"
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(key)]
    subprocess.run(command, check=True)
    return key.with_suffix(".pub").read_text().strip()


def test_each_account_is_tried_from_elsewhere_and_from_the_controller(node: NodeOfFiles) -> None:
    access = node.access(SSH_CONNECTION="10.0.0.1 50000 10.0.0.9 2222", USER="gpu")
    assert (access.client, access.laddr, access.lport, access.login) == ("10.0.0.1", "10.0.0.9", "2222", "gpu")
    tried = [(each.user, each.address, each.get("passwordauthentication")) for each in access.effective]
    assert tried == [
        ("root", "203.0.113.1", "no"),
        ("root", "10.0.0.1", "yes"),
        ("gpu", "203.0.113.1", "no"),
        ("gpu", "10.0.0.1", "yes"),
    ]
    assert access.effective[0].missing_files == ("/no/such/file",)


def test_connections_asked_for_are_all_that_is_answered(node: NodeOfFiles) -> None:
    text = node.answer("user=a b,addr=10.1.1.1", "user=refused,addr=1.1.1.1")
    line = MatchLine("f:1", "all")
    good, bad = parse_effective(text, MARKER, [line, line])
    assert (good.user, good.get("passwordauthentication")) == ("a b", "yes")
    assert bad.refusal == "line 3: Bad configuration option"
    assert "accounts" not in text


def test_accounts_are_those_with_a_login_shell(node: NodeOfFiles) -> None:
    node.people(
        "root:x:0:0::/root:/usr/sbin/nologin",
        "toor::0:0::/root:/bin/sh",
        "daemon:x:1:1::/usr/sbin:/usr/sbin/nologin",
        "sync:x:4:65534::/bin:/bin/sync",
        "ann@corp.example:*:5000:5000::/home/ann:/bin/zsh",
        "odd name:x:1001:1001::/home/odd:/bin/sh",
        "sly:x:1002:1002::/home/sly|x:/bin/sh",
        "old:$6$salt$hash:1003:1003::/home/old:",
    )
    access = node.access()
    assert [account.name for account in access.accounts] == ["root", "toor", "ann@corp.example", "old"]
    assert access.left_out == 2
    assert access.superusers == ("root", "toor")
    assert ("toor", "empty") in access.passwords
    assert ("ann@corp.example", "locked") in access.passwords
    assert ("old", "set") in access.passwords


def test_more_than_a_hundred_accounts_are_not_all_tried(node: NodeOfFiles) -> None:
    node.people(*(f"u{n}:x:{n}:{n}::/nowhere:/bin/sh" for n in range(1000, 1103)))
    access = node.access()
    assert (len(access.accounts), access.left_out) == (100, 3)


def test_of_keys_and_passwords_only_what_may_be_known_is_said(node: NodeOfFiles) -> None:
    node.people("gpu:$6$salt$secrethash:1000:1000::" + str(node.folder) + ":/bin/sh")
    keys = node.folder / ".ssh" / "authorized_keys"
    keys.parent.mkdir(mode=0o700)
    lines = [make_key(node.folder, "alice@laptop"), make_key(node.folder, "")]
    keys.write_text(f'# staff\nfrom="10.0.0.0/8,192.0.2.1" {lines[0]}\nrubbish\n\n{lines[1]}\n')
    keys.chmod(0o620)
    text = node.answer()
    assert "secrethash" not in text
    (account,) = parse_answer(text, MARKER).accounts
    assert [(key.kind, key.comment) for key in account.all_keys] == [("ED25519", "alice@laptop"), ("ED25519", "")]
    assert [(path.path, path.mode) for path in account.paths][1:] == [(str(keys.parent), 0o700), (str(keys), 0o620)]


def test_a_connection_counts_once_by_how_it_ended(node: NodeOfFiles) -> None:
    logins = node.access().logins
    assert logins is not None
    assert logins.accepted == ((2, "2026-11-21T03:00:01+0000", "gpu", "10.0.0.1"),)
    assert sorted(logins.failed) == [
        (1, "2026-11-21T04:00:00+0000", "", "2001:db8::7"),
        (2, "2026-11-20T02:00:00+0000", "", "198.51.100.7"),
    ]


def test_a_log_of_the_old_form_is_read_too(node: NodeOfFiles) -> None:
    node.command(
        "journalctl", "echo Nov  2 01:02:03 gpu-1 sshd[9]: Accepted password for bob from 10.0.0.5 port 9 ssh2"
    )
    logins = node.access().logins
    assert logins is not None
    assert logins.accepted == ((1, "Nov-2T01:02:03", "bob", "10.0.0.5"),)


def test_sshd_that_refuses_ends_the_questions(node: NodeOfFiles) -> None:
    node.command("sshd", "echo $* >>" + str(node.folder) + "/asked; echo no hostkeys available >&2; exit 1")
    access = node.access()
    assert [each.refusal for each in access.effective] == ["no hostkeys available"]
    asked = (node.folder / "asked").read_text()
    assert "user=gpu" not in asked


def test_sshd_that_wants_its_directory_is_asked_in_another_way(node: NodeOfFiles) -> None:
    refusal = "Missing privilege separation directory: /run/sshd"
    node.command("sshd", f"[ $1 = -G ] || {{ echo {refusal} >&2; exit 255; }}; echo passwordauthentication no")
    assert [each.get("passwordauthentication") for each in node.access().effective] == ["no", "no"]
    (asked_for,) = parse_effective(node.answer(SPEC), MARKER, [MatchLine("f:1", "all")])
    assert asked_for.get("passwordauthentication") == "no"


def test_a_command_that_hangs_does_not_hold_the_audit(node: NodeOfFiles) -> None:
    node.command("timeout", 'shift; exec /usr/bin/timeout 0.2 "$@"')
    node.command("getent", "sleep 60")
    node.command("sshd", "sleep 60")
    access = node.access()
    assert access.effective[0].refusal == "sshd -T ended without a word"
    assert "root" in [account.name for account in access.accounts]
