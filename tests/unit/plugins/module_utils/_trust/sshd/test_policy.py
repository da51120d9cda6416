# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.sshd import guard
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.sshd import policy as sshd_policy
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.sshd.policy import (
    BANNER,
    CONFIG,
    DROP_IN,
    INCLUDE,
    MODULI,
    MODULI_BEFORE,
    PAM,
    Policy,
)
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.sshd.settings import SshdError

SMALL, BIG = b"2023 2 6 100 2047 2 AA\n", b"2023 2 6 100 4095 2 BB\n"
DEBIAN = b"Include /etc/ssh/sshd_config.d/*.conf\nX11Forwarding yes\n"
DEBIAN_PAM = b"# PAM for sshd\n@include common-auth\n\xff"
BARE = b"# no drop-ins\r\nPort 22\r\n\xff"


def policy(present: bool = True, banner: str = "", moduli_bits: int = 3072, pam_auth: tuple[str, ...] = ()) -> Policy:
    return Policy(present, {}, {}, [], banner, pam_auth, moduli_bits, "", [])


def files(main: bytes = DEBIAN, **others: bytes) -> sshd_policy.Files:
    there = {CONFIG: main, DROP_IN: None, BANNER: None, PAM: DEBIAN_PAM, MODULI: SMALL + BIG, MODULI_BEFORE: None}
    return {**there, **others}


@pytest.mark.parametrize("main", [DEBIAN, BARE, b"Match User bob\n" + DEBIAN, b""])
def test_there_and_back_is_the_same_bytes(main: bytes) -> None:
    before = files(main)
    wanted = policy(banner="hello", pam_auth=("auth required pam_a.so", "auth required pam_b.so"))
    there = {**before, **sshd_policy.plan(wanted, "MaxAuthTries 4\n", before)}
    assert there[DROP_IN] == b"MaxAuthTries 4\n"
    assert there[BANNER] == b"hello\n"
    assert there[MODULI] == BIG
    again = {**there, **sshd_policy.plan(wanted, "MaxAuthTries 4\n", there)}
    assert again == there
    assert {**there, **sshd_policy.plan(policy(present=False), "", there)} == before


@pytest.mark.parametrize(("main", "added"), [(DEBIAN, b""), (BARE, INCLUDE.encode())])
def test_main_file_changes_only_where_it_must(main: bytes, added: bytes) -> None:
    assert sshd_policy.plan(policy(), "", files(main))[CONFIG] == added + main


def test_include_goes_when_the_main_file_has_one_of_its_own() -> None:
    assert sshd_policy.plan(policy(), "", files(INCLUDE.encode() + DEBIAN))[CONFIG] == DEBIAN


def test_moduli_of_an_upgrade_are_not_lost() -> None:
    upgraded = {**files(), MODULI: SMALL + BIG + BIG, MODULI_BEFORE: SMALL + BIG}
    wanted = sshd_policy.plan(policy(), "", upgraded)
    assert (wanted[MODULI], wanted[MODULI_BEFORE]) == (BIG + BIG, SMALL + BIG + BIG)
    wanted = sshd_policy.plan(policy(present=False), "", upgraded)
    assert (wanted[MODULI], wanted[MODULI_BEFORE]) == (SMALL + BIG + BIG, None)


def test_moduli_are_left_alone_when_not_asked() -> None:
    assert MODULI not in sshd_policy.plan(policy(moduli_bits=0), "", files())


def test_nothing_of_pam_is_asked_before_ours() -> None:
    ours = sshd_policy.plan(policy(pam_auth=("auth required pam_a.so",)), "", files())[PAM] or b""
    by_hand = b"auth required pam_by_hand.so\n"
    other = (
        sshd_policy.plan(policy(pam_auth=("auth required pam_b.so",)), "", {**files(), PAM: by_hand + ours})[PAM] or b""
    )
    assert b"pam_a" not in other
    assert [line for line in other.splitlines() if not line.startswith(b"# ")][:3] == [
        b"auth required pam_b.so",
        by_hand.strip(),
        b"@include common-auth",
    ]


def test_codes_cannot_be_asked_for_without_a_file_of_pam() -> None:
    with pytest.raises(SshdError, match=PAM):
        sshd_policy.plan(policy(pam_auth=("auth required pam_a.so",)), "", {**files(), PAM: None})
    assert PAM not in sshd_policy.plan(policy(), "", {**files(), PAM: None})


def run(command: t.Sequence[str]) -> tuple[int, str]:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def make_key(path: Path, kind: str = "ed25519") -> str:
    """A host key; the text of its private half."""
    path.parent.mkdir(exist_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "", "-f", path], check=True)
    return path.read_text()


@pytest.mark.parametrize(
    ("path", "text", "is_shown"),
    [
        (DROP_IN, "MaxAuthTries 4\n", True),
        ("/etc/systemd/system/ssh.socket.d/00-gpuops.conf", "[Socket]\n", True),
        ("/etc/ssh/keys/host.ed25519", "{private}", False),
        ("/etc/ssh/ssh_host_ed25519", "{private}", False),
        ("/etc/ssh/ssh_host_ed25519_key", "{private}", False),
        ("/etc/ssh/named-like-a.pub", "{private}", False),
        (BANNER, "{private}", False),
        ("/etc/ssh/keys/host.raw", "\x01secret", False),
        ("/etc/ssh/keys/host.ed25519.pub", "{public}", True),
        ("/etc/ssh/keys/host.ed25519.pub", "secret {public}", False),
        ("/etc/ssh/keys/host.ed25519.pub", "{public}{private}", False),
    ],
)
def test_diff_shows_only_what_is_known_to_be_public(tmp_path: Path, path: str, text: str, is_shown: bool) -> None:
    private = make_key(tmp_path / "key")
    content = text.format(private=private, public=(tmp_path / "key.pub").read_text())
    shown = sshd_policy._diff(path, content.encode(), None)
    assert shown["before"] == (content if is_shown else "not shown, since it may be a private key\n")
    assert shown["after"] == ""


def test_all_host_keys_are_made_anew_whatever_they_are_called(tmp_path: Path) -> None:
    scratch, of_agent = tmp_path / "scratch", tmp_path / "agent"
    paths = [tmp_path / "a" / "host.ed25519", tmp_path / "b" / "host.ed25519", tmp_path / "host"]
    scratch.mkdir()
    old = [make_key(path, kind) for path, kind in zip(paths, ("ed25519", "ecdsa", "ed25519"))]
    make_key(of_agent)
    of_agent.unlink()
    fingerprint = run(["ssh-keygen", "-l", "-f", f"{paths[2]}.pub"])[1].split()[1]
    Path(f"{paths[2]}.pub").unlink()
    effective = {"hostkey": [*map(str, paths), str(of_agent), str(tmp_path / "not-there")]}
    assert sshd_policy._new_host_keys("SHA256:other", effective, run, str(scratch)) == {}
    files = sshd_policy._new_host_keys(fingerprint, effective, run, str(scratch))
    assert sorted(files) == sorted(f"{path}{half}" for path in paths for half in ("", ".pub"))
    assert all(b"PRIVATE KEY" in (files[str(path)] or b"") for path in paths)
    assert not {(content or b"").decode() for content in files.values()} & set(old)
    assert (files[f"{paths[1]}.pub"] or b"").startswith(b"ecdsa-sha2-nistp256 ")
    assert list(scratch.iterdir()) == [], "no private key is left there"


def test_host_keys_that_are_shown_may_have_any_name(tmp_path: Path) -> None:
    make_key(tmp_path / "host")
    effective = {"hostkey": [str(tmp_path / "host"), "/not/there"], "hostkeyalgorithms": ["ssh-ed25519"]}
    public = (tmp_path / "host.pub").read_text().strip()
    assert sshd_policy._shown_host_keys({}, effective) == [public]
    assert sshd_policy._shown_host_keys({f"{tmp_path}/host.pub": b"ssh-ed25519 B x\n"}, effective) == ["ssh-ed25519 B"]


def test_keep_that_is_tried_again_finds_it_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed: sshd_policy.Files = {str(tmp_path / "host.ed25519"): b"new", str(tmp_path / "removed"): None}
    token = sshd_policy._token(changed)
    monkeypatch.setattr(guard, "keep", lambda _run: False)
    (tmp_path / "host.ed25519").write_bytes(b"new")
    assert not sshd_policy.keep(token, run)
    (tmp_path / "host.ed25519").write_bytes(b"old")
    with pytest.raises(SshdError, match="the time was up"):
        sshd_policy.keep(token, run)
    (tmp_path / "host.ed25519").write_bytes(b"new")
    (tmp_path / "removed").touch()
    with pytest.raises(SshdError, match="the time was up"):
        sshd_policy.keep(token, run)
