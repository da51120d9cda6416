# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who logs in to machines that were handed out with the provider's user, and who does not any more."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from outside import Outside
from podman import podman

LAB = Outside(Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "lab")


@pytest.mark.parametrize(("alias", "user"), [("gpu-1", "ubuntu"), ("gpu-2", "mlops"), ("gpu-3", "mlops")])
def test_alias_logs_in_as_the_user_of_the_inventory(alias: str, user: str) -> None:
    assert LAB.ssh(alias, "id", "-un").stdout == f"{user}\n"


@pytest.mark.parametrize(("alias", "user"), [("gpu-2", "ubuntu"), ("gpu-2", "root"), ("gpu-3", "root")])
def test_those_who_were_handed_out_are_closed(alias: str, user: str) -> None:
    refused = LAB.ssh("-l", user, alias, "true")
    assert refused.returncode == 255
    assert "Permission denied (publickey)." in refused.stderr


def test_user_whom_the_provider_made_keeps_the_key() -> None:
    """Closed is the door, so that `sshd_hardening_state: absent` opens it again."""
    keys = podman("exec", LAB.container("gpu-2"), "cat", "/home/ubuntu/.ssh/authorized_keys")
    assert keys == (LAB.ssh_dir / "id_ed25519.pub").read_text()


@pytest.mark.parametrize("alias", ["gpu-2", "gpu-3"])
def test_made_user_has_one_key_and_a_rule_that_sudo_takes(alias: str) -> None:
    own = podman("exec", LAB.container(alias), "cat", "/home/mlops/.ssh/authorized_keys")
    assert own == (LAB.ssh_dir / "id_ed25519.pub").read_text()
    checked = podman("exec", LAB.container(alias), "visudo", "-c")
    assert "/etc/sudoers.d/login-gpuops-mlops: parsed OK" in checked
