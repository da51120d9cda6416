# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A KRL of real keys, as ssh-keygen reads it."""

from __future__ import annotations

import os
import shutil
import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.ca import CaError
from ansible_collections.gpuops.fleet.plugins.modules import ssh_krl

pytestmark = pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="needs ssh-keygen")


class Module:
    """What run() needs of an AnsibleModule."""

    check_mode = False

    def __init__(self, folder: Path, **options: t.Any) -> None:
        self.params = {"path": str(folder / "krl"), "people": [], "revoked": [], "own_keys": [], **options}
        self.tmpdir = str(folder)
        self.warnings: list[str] = []
        self.warn = self.warnings.append
        self.atomic_move = os.replace

    def run_command(self, command: list[str], data: str = "") -> tuple[int, str, str]:
        done = subprocess.run(command, input=data, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    def set_mode_if_different(self, path: str, mode: int, _changed: bool) -> None:
        os.chmod(path, mode)


class Ca:
    """The directory of the CA, and keys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.text = folder / "krl.txt"

    def key(self, name: str) -> Path:
        path = self.folder / f"{name}.pub"
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path.with_suffix(""))]
        subprocess.run(command, check=True)
        return path

    def run(self, **options: t.Any) -> tuple[dict[str, t.Any], list[str]]:
        module = Module(self.folder, **options)
        return ssh_krl.run(t.cast("t.Any", module)), module.warnings

    def revokes(self, key: Path) -> bool:
        command = ["ssh-keygen", "-Q", "-f", str(self.folder / "krl"), str(key)]
        return "REVOKED" in subprocess.run(command, capture_output=True, text=True, check=False).stdout


@pytest.fixture
def ca(tmp_path: Path) -> Ca:
    return Ca(tmp_path)


def absent(name: str, *keys: Path) -> dict[str, t.Any]:
    return {"name": name, "state": "absent", "keys": [str(key) for key in keys]}


def test_key_stays_revoked_when_its_file_is_emptied_and_gone(ca: Ca) -> None:
    mallory, other = ca.key("mallory"), ca.key("other")
    shutil.copy(mallory, ca.folder / "file.pub")
    people = [absent("mallory", ca.folder / "file.pub")]
    assert ca.run(people=people)[0]["changed"]
    (ca.folder / "file.pub").write_text("")
    assert not ca.run(people=people)[0]["changed"]
    (ca.folder / "file.pub").unlink()
    # Also where the KRL is made anew for another reason.
    done, warnings = ca.run(people=[*people, absent("other", other)])
    assert (done["changed"], warnings) == (True, [])
    assert ca.revokes(mallory)
    assert ca.revokes(other)
    assert "# mallory\n" in ca.text.read_text()
    assert all(" # " not in entry for entry in done["entries"])
    # Her entry is taken out.
    ca.run(people=[absent("other", other)])
    assert not ca.revokes(mallory)
    assert ca.revokes(other)


@pytest.mark.parametrize("lost", ["owners", "text", "content"])
def test_memory_without_owners_is_kept_while_anybody_is_absent(ca: Ca, lost: str) -> None:
    mallory = ca.key("mallory")
    ca.run(people=[absent("mallory", mallory)])
    if lost == "text":
        ca.text.unlink()
    elif lost == "content":
        ca.text.write_text("")
    else:
        ca.text.write_text(ca.text.read_text().replace(" # mallory", ""))
    mallory.rename(ca.folder / "away.pub")
    done, warnings = ca.run(people=[absent("mallory", mallory)])
    assert len(warnings) == (lost != "owners")
    assert ca.revokes(ca.folder / "away.pub")
    assert done["entries"][0] in ca.text.read_text().splitlines()
    assert not ca.run(people=[absent("mallory", mallory)])[0]["changed"]
    ca.run()
    assert not ca.revokes(ca.folder / "away.pub")


def test_key_goes_by_hand_with_its_line_and_the_krl(ca: Ca) -> None:
    mallory = ca.key("mallory")
    ca.run(people=[absent("mallory", mallory)])
    ca.text.write_text("id: mallory\n")
    (ca.folder / "krl").unlink()
    ca.run(people=[absent("mallory")])
    assert not ca.revokes(mallory)


def test_lost_memory_is_not_taken_for_an_empty_one(ca: Ca) -> None:
    (ca.folder / "krl").write_text("no KRL")
    with pytest.raises(
        CaError, match=r"not a KRL that ssh-keygen can read, and .*krl\.txt does not say.*put both back"
    ):
        ca.run(people=[absent("mallory")])
    ca.text.write_bytes(b"\xff\n")
    with pytest.raises(CaError, match=r"krl\.txt is not a text"):
        ca.run(people=[absent("mallory")])
    assert (ca.folder / "krl").read_text() == "no KRL"


def test_damaged_krl_is_made_anew_from_its_text(ca: Ca) -> None:
    mallory = ca.key("mallory")
    ca.run(people=[absent("mallory", mallory)])
    (ca.folder / "krl").write_bytes((ca.folder / "krl").read_bytes()[:20])
    done, warnings = ca.run(people=[absent("mallory")])
    assert (done["changed"], warnings) == (True, [])
    assert ca.revokes(mallory)


def test_where_nobody_can_say_what_was_revoked_nothing_is_changed(ca: Ca, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an OpenSSH that cannot list a KRL, the text is all there is."""
    mallory = ca.key("mallory")
    ca.run(people=[absent("mallory", mallory)])
    run_command = Module.run_command
    monkeypatch.setattr(
        Module,
        "run_command",
        lambda self, command, **more: (1, "", "") if "-l" in command else run_command(self, command, **more),
    )
    assert not ca.run(people=[absent("mallory")])[0]["changed"]
    ca.text.unlink()
    with pytest.raises(CaError, match=r"krl\.txt does not say what it revoked"):
        ca.run(people=[absent("mallory")])
    assert ca.revokes(mallory)


def test_key_that_somebody_had_for_one_run_does_not_come_back(ca: Ca) -> None:
    mallory = ca.key("mallory")
    ca.run(people=[absent("mallory", mallory)])
    ca.run(people=[absent("mallory"), {"name": "bob", "keys": [str(mallory)]}])
    assert not ca.revokes(mallory)
    ca.run(people=[absent("mallory"), {"name": "bob", "keys": []}])
    assert ca.revokes(mallory)


def test_own_key_that_was_revoked_before_changes_nothing(ca: Ca) -> None:
    mallory = ca.key("mallory")
    fingerprint = ca.run(people=[absent("mallory", mallory)])[0]["entries"][0].partition(" ")[2]
    before = ca.text.read_text()
    with pytest.raises(CaError, match="must not be revoked, since this controller logs in with it"):
        ca.run(people=[absent("mallory"), absent("oscar")], own_keys=[fingerprint])
    assert ca.text.read_text() == before


def test_check_mode_writes_nothing_and_says_whose_keys_go(ca: Ca, monkeypatch: pytest.MonkeyPatch) -> None:
    ca.run(people=[absent("mallory", ca.key("mallory"))])
    before = ca.text.read_text()
    monkeypatch.setattr(Module, "check_mode", True)
    done, _warnings = ca.run()
    assert (done["changed"], done["diff"]["before"], done["diff"]["after"]) == (True, before, "")
    assert ca.text.read_text() == before
