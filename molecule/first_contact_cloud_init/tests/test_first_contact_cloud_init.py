# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What cloud-init itself made of the user-data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from outside import Outside
from podman import podman

LAB = Outside(Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "lab")


@pytest.mark.parametrize("alias", LAB.nodes)
def test_cloud_init_had_nothing_to_complain_of(alias: str) -> None:
    complaints = "grep -E 'WARNING|ERROR|Traceback' /var/log/cloud-init.log || true"
    assert podman("exec", LAB.container(alias), "sh", "-c", complaints) == ""


@pytest.mark.parametrize("alias", LAB.nodes)
def test_node_has_no_other_host_key(alias: str) -> None:
    keys = podman("exec", LAB.container(alias), "sh", "-c", "ls /etc/ssh/ssh_host_*").split()
    assert keys == ["/etc/ssh/ssh_host_ed25519_key", "/etc/ssh/ssh_host_ed25519_key.pub"]


def test_user_data_is_private() -> None:
    folder = LAB.ssh_dir / "gpuops-cloud-init"
    assert {path.name: path.stat().st_mode & 0o777 for path in [folder, *folder.iterdir()]} == {
        "gpuops-cloud-init": 0o700,
        "gpu-1.yml": 0o600,
        "gpu-2.yml": 0o600,
    }
