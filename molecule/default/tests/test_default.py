# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What site.yml leaves behind, seen on the nodes (testinfra) and from outside (the user's own OpenSSH)."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

LAB = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "lab"
NODES = json.loads((LAB / "inventory" / "nodes.yml").read_text())["gpu"]["hosts"]
SSH_DIR = LAB / "home" / ".ssh"
MODEL = {"gpu-1": "NVIDIA A100-SXM4-80GB", "gpu-2": "NVIDIA H100 80GB HBM3", "gpu-3": "NVIDIA GeForce RTX 4090"}
COUNT = {"gpu-1": 4, "gpu-2": 8, "gpu-3": 2}


def ssh(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The user's own OpenSSH, with nobody there to answer a prompt."""
    return subprocess.run(
        ["ssh", "-F", str(SSH_DIR / "config"), "-o", "BatchMode=yes", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("alias", NODES)
def test_alias_reaches_its_gpus_without_a_prompt(alias: str) -> None:
    answer = ssh(alias, "nvidia-smi", "-L")
    assert answer.returncode == 0, answer.stderr
    lines = answer.stdout.splitlines()
    assert len(lines) == COUNT[alias]
    assert all(f"{MODEL[alias]} (simulated)" in line for line in lines)


def test_aliases_reach_distinct_machines() -> None:
    assert {ssh(alias, "hostname").stdout.strip() for alias in NODES} == set(NODES)


@pytest.mark.parametrize("alias", NODES)
def test_password_is_no_longer_offered(alias: str) -> None:
    refused = ssh("-v", "-o", "PubkeyAuthentication=no", alias, "true")
    assert refused.returncode == 255
    assert "Permission denied (publickey)." in refused.stderr


def test_host_keys_are_pinned_to_the_alias() -> None:
    pinned = {line.split()[0] for line in (SSH_DIR / "known_hosts.d" / "gpuops").read_text().splitlines()}
    assert pinned == set(NODES)


def test_everything_of_the_user_is_private() -> None:
    modes = {path: path.stat().st_mode & 0o077 for path in [SSH_DIR, *SSH_DIR.rglob("*")] if path.suffix != ".pub"}
    modes.pop(SSH_DIR / "known_hosts.d" / "gpuops", None)  # public data, in a directory that is private
    assert set(modes.values()) == {0}, modes


def test_sshd_does_what_the_drop_in_says(host: Any) -> None:
    effective = host.run("sshd -T -C user=root,host=localhost,addr=127.0.0.1").stdout.splitlines()
    assert "passwordauthentication no" in effective
    assert "kbdinteractiveauthentication no" in effective
    assert "permitrootlogin without-password" in effective
    assert "allowtcpforwarding local" in effective


def test_what_the_provider_wrote_is_untouched(host: Any) -> None:
    provider = host.file("/etc/ssh/sshd_config.d/50-cloud-init.conf")
    assert provider.content_string == "PermitRootLogin yes\nPasswordAuthentication yes\n"


def test_no_rollback_is_pending(host: Any) -> None:
    assert host.run("systemctl list-units --all 'gpuops-*'").stdout.find("gpuops-sshd-rollback") == -1
    assert not host.file("/run/gpuops-sshd").exists


def test_one_key_was_installed(host: Any) -> None:
    keys = host.file("/root/.ssh/authorized_keys")
    assert keys.content_string.splitlines() == [(SSH_DIR / "id_ed25519.pub").read_text().strip()]
    assert keys.mode == 0o600


def test_nothing_failed_on_the_node(host: Any) -> None:
    assert host.run("systemctl is-system-running").stdout.strip() in {"running", "starting"}
    assert host.service("ssh").is_running
