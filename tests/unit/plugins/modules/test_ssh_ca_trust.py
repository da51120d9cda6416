# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import pytest
from ansible_collections.gpuops.fleet.plugins.module_utils._trust import ca as ssh_ca
from ansible_collections.gpuops.fleet.plugins.modules import ssh_ca_trust

Run = t.Callable[[str], bool]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of root")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> t.Iterator[Run]:
    """Bring the files to a node, on which nobody but root may read what is new; whether something was changed."""
    folder = str(tmp_path / "principals")
    for util in (ssh_ca, ssh_ca_trust):
        monkeypatch.setattr(util, "PRINCIPALS", folder)
        monkeypatch.setattr(util, "REVOKED", str(tmp_path / "revoked"))
    monkeypatch.setattr(ssh_ca, "USER_CA", str(tmp_path / "ca"))
    monkeypatch.setattr(ssh_ca_trust, "ask_sshd", lambda _module: {})
    monkeypatch.setattr(ssh_ca_trust, "check_revoked", lambda _module, _content: None)

    def trust(state: str) -> bool:
        options = {
            "state": state,
            "authorities": [],
            "principals": {"alice": ["alice@gpu"]},
            "revoked": "",
            "certificates": {},
        }
        module = t.cast("t.Any", type("Module", (), {"params": options, "check_mode": False}))
        return bool(ssh_ca_trust.run(module)["changed"])

    before = os.umask(0o077)
    yield trust
    os.umask(before)


def test_people_may_read_their_principals(run: Run, tmp_path: Path) -> None:
    assert run("present")
    assert (tmp_path / "principals").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "principals" / "alice").stat().st_mode & 0o7777 == 0o644
    assert not run("present")


def test_folder_that_people_may_not_enter_is_opened_again(run: Run, tmp_path: Path) -> None:
    run("present")
    (tmp_path / "principals").chmod(0o750)
    assert run("present")
    assert (tmp_path / "principals").stat().st_mode & 0o7777 == 0o755
    os.chown(tmp_path / "principals", 65534, 0)
    assert run("present")
    assert (tmp_path / "principals").owner() == "root"


def test_nothing_is_left(run: Run, tmp_path: Path) -> None:
    run("present")
    assert run("absent")
    assert list(tmp_path.iterdir()) == []
    assert not run("absent")
