# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import typing as t
from dataclasses import replace

import pytest
from ansible_collections.gpuops.fleet.plugins.module_utils._base.public_key import fingerprint_of
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.causes import SickError
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.client import Route, Target
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.key import (
    PrivateKey,
    check_keys,
    is_obsolete,
    keys_in_use,
    parse_agent,
    parse_private_key,
    parse_public_key,
)
from hypothesis import given, settings, strategies

ROUTE = Route("192.0.2.7", 22, "me", "192.0.2.7", "/k/known_hosts")


def _keygen(path: pathlib.Path, *arguments: str, passphrase: str = "") -> str:
    subprocess.run(["ssh-keygen", "-q", "-N", passphrase, "-C", "", *arguments, "-f", str(path)], check=True)
    listed = subprocess.run(["ssh-keygen", "-l", "-f", str(path)], check=True, capture_output=True, text=True)
    return listed.stdout.split()[1]


def _sick(path: pathlib.Path, route: Route = ROUTE) -> tuple[str, str]:
    with pytest.raises(SickError) as caught:
        check_keys(str(path), route, 5)
    return caught.value.code, caught.value.seen


@pytest.fixture(name="agent")
def _agent(tmp_path: pathlib.Path) -> t.Iterator[Route]:
    started = subprocess.run(
        ["ssh-agent", "-s", "-a", str(tmp_path / "agent")], check=True, capture_output=True, text=True
    )
    pid = int(started.stdout.split("SSH_AGENT_PID=")[1].split(";")[0])
    yield replace(ROUTE, identity_agent=str(tmp_path / "agent"))
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)


def _add(agent: Route, path: pathlib.Path) -> None:
    environment = {**os.environ, "SSH_AUTH_SOCK": agent.identity_agent}
    subprocess.run(["ssh-add", "-q", str(path)], check=True, env=environment)


@pytest.mark.parametrize(
    ("arguments", "passphrase", "expected"),
    [
        (["-t", "ed25519"], "", "ED25519 256 bits {}, mode 0600"),
        (["-t", "ed25519"], "secret", "ED25519 256 bits {}, mode 0600, passphrase"),
        (["-t", "rsa", "-b", "2048", "-m", "PEM"], "", "RSA 2048 bits {}, mode 0600"),
        (["-t", "rsa", "-b", "2048", "-m", "PEM"], "secret", "RSA 2048 bits {}, mode 0600, passphrase"),
    ],
)
def test_usable_key(tmp_path: pathlib.Path, arguments: list[str], passphrase: str, expected: str) -> None:
    fingerprint = _keygen(tmp_path / "id", *arguments, passphrase=passphrase)
    assert check_keys(str(tmp_path / "id"), ROUTE, 5) == (expected.format(fingerprint), [], "")


def test_short_rsa_key_is_weak(tmp_path: pathlib.Path) -> None:
    _keygen(tmp_path / "id", "-t", "rsa", "-b", "1024")
    assert check_keys(str(tmp_path / "id"), ROUTE, 5).weak == "RSA 1024 bits"


def test_pub_file_of_another_key(tmp_path: pathlib.Path) -> None:
    _keygen(tmp_path / "id")
    other = _keygen(tmp_path / "other")
    (tmp_path / "other.pub").replace(tmp_path / "id.pub")
    path = tmp_path / "id"
    assert _sick(path) == ("key_pub_mismatch", f"{path}.pub is {other}, not the key of {path}")


def test_key_open_to_others_unless_the_agent_has_it(tmp_path: pathlib.Path, agent: Route) -> None:
    _keygen(tmp_path / "id")
    _add(agent, tmp_path / "id")
    (tmp_path / "id").chmod(0o644)
    assert check_keys(str(tmp_path / "id"), agent, 5).evidence.endswith("mode 0644, in the agent")
    assert _sick(tmp_path / "id") == ("key_permissions", f"{tmp_path}/id: mode 0644")


def test_key_that_is_only_in_the_agent(tmp_path: pathlib.Path, agent: Route) -> None:
    _keygen(tmp_path / "id")
    _add(agent, tmp_path / "id")
    (tmp_path / "id").unlink()
    assert "in the agent" in check_keys(str(tmp_path / "id"), agent, 5).evidence
    assert _sick(tmp_path / "id")[0] == "key_missing"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"PuTTY-User-Key-File-3: ssh-ed25519\n", "key_invalid"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n", "key_invalid"),
        (b"-----BEGIN DSA PRIVATE KEY-----\nAAAA\n-----END DSA PRIVATE KEY-----\n", "key_obsolete"),
        (b"SSH PRIVATE KEY FILE FORMAT 1.1\n\0\0", "key_obsolete"),
        (b"", "key_invalid"),
    ],
)
def test_file_that_is_no_key_of_today(tmp_path: pathlib.Path, content: bytes, expected: str) -> None:
    (tmp_path / "id").write_bytes(content)
    (tmp_path / "id").chmod(0o600)
    assert _sick(tmp_path / "id")[0] == expected


def test_keys_that_ssh_would_offer_are_counted_once(tmp_path: pathlib.Path, agent: Route) -> None:
    paths = [tmp_path / f"id{number}" for number in range(6)]
    for path in paths:
        _keygen(path)
    for path in paths[2:]:
        _add(agent, path)
    three = replace(agent, identity_files=tuple(str(path) for path in paths[:3]))
    report = check_keys(None, three, 5)
    assert report.evidence == f"ssh chooses: {paths[0]}, {paths[1]}, {paths[2]}, 4 in the agent"
    assert [(sick.code, sick.seen) for sick in report.warnings] == [("auth_many_keys", "6 keys, 4 in the agent")]
    assert check_keys(None, replace(three, identities_only=True), 5).warnings == []


def test_no_key_at_all() -> None:
    missing = replace(ROUTE, identity_files=("/nowhere/id",))
    assert check_keys(None, missing, 5) == ("ssh chooses: no key file", [], "")


def test_an_agent_that_is_gone_holds_nothing(tmp_path: pathlib.Path) -> None:
    _keygen(tmp_path / "id")
    gone = replace(ROUTE, identity_agent=str(tmp_path / "gone"))
    assert check_keys(str(tmp_path / "id"), gone, 5).evidence.endswith("mode 0600")


def test_agent_list() -> None:
    text = "256 SHA256:aa/+ me@home (ED25519)\n2048 SHA256:bb comment with blanks (RSA)\nThe agent has no identities.\n"
    assert parse_agent(text) == {"SHA256:aa/+", "SHA256:bb"}


@given(strategies.binary(max_size=200))
@settings(deadline=None)
def test_any_file_is_read(data: bytes) -> None:
    for content in (data, b"-----BEGIN OPENSSH PRIVATE KEY-----\n" + data + b"-----END"):
        key = parse_private_key(content)
        assert key is None or isinstance(key, PrivateKey)
        is_obsolete(content, key.public if key else b"")
    parse_public_key(data.decode("latin-1"))


def test_fingerprint(tmp_path: pathlib.Path) -> None:
    fingerprint = _keygen(tmp_path / "id")
    assert fingerprint_of(parse_public_key((tmp_path / "id.pub").read_text())) == fingerprint
    private = parse_private_key((tmp_path / "id").read_bytes())
    assert private
    assert fingerprint_of(private.public) == fingerprint


def test_keys_in_use_are_those_that_ssh_may_log_in_with(tmp_path: pathlib.Path, agent: Route) -> None:
    mine, held = _keygen(tmp_path / "mine", "-m", "PEM", "-t", "rsa"), _keygen(tmp_path / "held")
    (tmp_path / "mine.pub").unlink()
    _add(agent, tmp_path / "held")
    only = ("-o", "IdentitiesOnly=yes")
    assert keys_in_use(Target("n", "192.0.2.7", identity_file=str(tmp_path / "mine"), ssh_args=only)) == {mine}
    config = tmp_path / "config"
    config.write_text(f"IdentityFile {tmp_path}/mine\nIdentityAgent {agent.identity_agent}\n")
    assert keys_in_use(Target("n", "192.0.2.7", ssh_config=str(config))) == {mine, held}
    both = Target("n", "192.0.2.7", ssh_config=str(config), identity_file=str(tmp_path / "mine"))
    assert keys_in_use(both) == {mine, held}
    config.write_text(f"{config.read_text()}IdentitiesOnly yes\n")
    assert keys_in_use(Target("n", "192.0.2.7", ssh_config=str(config))) == {mine}


@pytest.mark.parametrize("named", ["only", "only.pub"])
def test_key_in_use_of_which_only_the_public_half_is_a_file(tmp_path: pathlib.Path, named: str) -> None:
    only = _keygen(tmp_path / "only")
    (tmp_path / "only").unlink()
    assert keys_in_use(Target("n", "192.0.2.7", identity_file=str(tmp_path / named))) == {only}


def test_key_in_use_with_a_passphrase(tmp_path: pathlib.Path) -> None:
    mine = _keygen(tmp_path / "mine", "-m", "PEM", "-t", "rsa", passphrase="secret")
    target = Target("n", "192.0.2.7", identity_file=str(tmp_path / "mine"))
    assert keys_in_use(target) == {mine}
    (tmp_path / "mine.pub").unlink()
    with pytest.raises(SickError, match="next: ssh-keygen -y -f"):
        keys_in_use(target)


def test_no_key_in_use(tmp_path: pathlib.Path) -> None:
    target = Target("n", "192.0.2.7", identity_file=str(tmp_path / "mine"))
    assert keys_in_use(target) == set()
    (tmp_path / "mine").write_text("nonsense")
    assert keys_in_use(target) == set()
