# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Light nodes are nodes: reached over real ssh, apart from each other, and gone without a trace."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from light import BRIDGE, LightLab, NoLightNodesError
from places import REPOSITORY

COUNT = 4

pytestmark = pytest.mark.xdist_group("light-nodes")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LightLab]:
    try:
        nodes = LightLab(tmp_path_factory.mktemp("light"), COUNT).__enter__()
    except NoLightNodesError as error:
        pytest.skip(str(error))
    yield nodes
    nodes.__exit__()
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    assert BRIDGE not in links
    assert str(nodes.folder) not in Path("/proc/mounts").read_text()
    assert all(node.process is None for node in nodes.nodes.values())


def test_ansible_reaches_each_of_them_over_ssh(lab: LightLab) -> None:
    command = [str(Path(sys.executable).with_name("ansible")), "gpu", "-i", str(lab.write_inventory()), "-m", "raw"]
    command += ["-a", "hostname; nvidia-smi -L | wc -l", "-e", "ansible_ssh_common_args=-oStrictHostKeyChecking=no"]
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "SSH_"))},
        "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
        "ANSIBLE_SSH_ARGS": "-o ControlPath=none -o UserKnownHostsFile=/dev/null",
        "HOME": str(lab.folder),
    }
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in lab.nodes:
        assert f"{name}\n8\n" in done.stdout.replace("\r", ""), done.stdout


def test_nodes_reach_one_another_and_see_only_themselves(lab: LightLab) -> None:
    other = lab.nodes["light-2"]
    key = (other.folder / "ssh_host_ed25519_key.pub").read_text().split()[1]
    assert key in lab.sh("light-1", f"ssh-keyscan -t ed25519 {other.address} 2>/dev/null")
    assert len(lab.sh("light-1", "ls -d /proc/[0-9]*").split()) < 10
    assert other.address not in lab.sh("light-1", "ip address")


def test_restored_node_is_as_it_was_handed_out(lab: LightLab) -> None:
    key = lab.sh("light-1", "cat /etc/ssh/ssh_host_ed25519_key.pub")
    lab.sh("light-1", "touch /root/mark; rm /etc/ssh/sshd_config")
    lab.sh("light-2", "touch /root/mark")
    lab.restore("light-1")
    assert lab.sh("light-1", "ls /root; cat /etc/ssh/ssh_host_ed25519_key.pub; test -s /etc/ssh/sshd_config") == key
    assert lab.sh("light-2", "ls /root") == "mark\n"
