# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds after the first contact, however the machine was handed out, seen by the user's own OpenSSH."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from outside import Outside
from podman import podman

FOLDER = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
LAB = Outside(FOLDER / "lab")


@pytest.mark.parametrize("alias", LAB.nodes)
def test_alias_reaches_its_gpu_without_a_prompt(alias: str) -> None:
    answer = LAB.ssh(alias, "nvidia-smi", "-L")
    assert answer.returncode == 0, answer.stderr
    assert "(simulated)" in answer.stdout


@pytest.mark.parametrize("alias", LAB.nodes)
def test_alias_can_do_everything(alias: str) -> None:
    assert LAB.ssh(alias, "sudo -n id -u").stdout == "0\n"


@pytest.mark.parametrize("alias", LAB.nodes)
def test_password_is_not_offered(alias: str) -> None:
    refused = LAB.ssh("-o", "PubkeyAuthentication=no", alias, "true")
    assert refused.returncode == 255
    assert "Permission denied (publickey)." in refused.stderr


@pytest.mark.parametrize("alias", LAB.nodes)
def test_host_key_of_the_node_is_pinned(alias: str) -> None:
    shown = podman("exec", LAB.container(alias), "cat", "/etc/ssh/ssh_host_ed25519_key.pub").split()[:2]
    pinned = [line.split()[1:3] for line in LAB.known_hosts().splitlines() if line.split()[0] == alias]
    assert pinned == [shown]


def test_no_output_has_a_password_or_a_private_key() -> None:
    said = (FOLDER / "ansible.log").read_text()
    assert "ESTABLISH SSH CONNECTION" in said, "the run was not verbose enough to tell"
    host_keys = [podman("exec", LAB.container(alias), "cat", "/etc/ssh/ssh_host_ed25519_key") for alias in LAB.nodes]
    keys = [*host_keys, (LAB.ssh_dir / "id_ed25519").read_text()]
    secrets = [host["ansible_password"] for host in LAB.nodes.values() if "ansible_password" in host]
    secrets += [line for key in keys for line in re.findall(r"^[A-Za-z0-9+/=]+$", key, re.MULTILINE)]
    assert len(secrets) > len(keys)
    assert not [secret for secret in secrets if secret in said]
