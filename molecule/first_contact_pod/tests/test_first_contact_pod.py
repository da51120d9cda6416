# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A container that starts again has another port; its alias follows, and its host key is the one that is known."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from outside import Outside
from podman import podman

FOLDER = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
REPOSITORY = Path(__file__).resolve().parents[3]
LAB = Outside(FOLDER / "lab")


def test_node_is_a_pod() -> None:
    assert podman("exec", LAB.container("gpu-1"), "cat", "/proc/1/comm") == "sleep\n"
    assert LAB.ssh("-s", "gpu-1", "sftp").returncode != 0


def test_alias_follows_a_pod_that_starts_again() -> None:
    before = LAB.known_hosts()
    port = LAB.restart("gpu-1")
    assert LAB.ssh("gpu-1", "true").returncode == 255
    said = subprocess.run(
        [
            "ansible-playbook",
            "-i",
            LAB.folder / "inventory",
            "site.yml",
            "--tags",
            "reach",
            "-e",
            f"ansible_port={port}",
        ],
        cwd=REPOSITORY,
        env={**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stdout
    assert LAB.ssh("gpu-1", "true").returncode == 0
    assert LAB.known_hosts() == before
