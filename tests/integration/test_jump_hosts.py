# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two bastions, a node that only they reach, and a node that this machine may also reach directly.

The node inside is on a network in which this machine has no address, so a login there has gone through a bastion; which
one it was, the node itself says.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from moments import WATCHED, run_until, task
from podman import podman

REPOSITORY = Path(__file__).resolve().parents[2]
NODES = (
    "bastion-1=deb12:none@door",
    "bastion-2=deb13:none@door",
    "gpu-1=deb11:t4x1-470@inside",
    "gpu-2=deb12:l40sx2-595@door",
)
BASTIONS = ("bastion-1", "bastion-2")
# For so long it is kept that a jump host answers, and that it does not.
UP_SECONDS, DOWN_SECONDS = 2, 6
SITE_SECONDS = 300
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("jump-hosts")]


@dataclass
class Lab:
    """The user's side of the lab."""

    folder: Path
    hosts: dict[str, dict[str, Any]]

    @property
    def ssh_directory(self) -> Path:
        return self.folder / "home" / ".ssh"

    def run(self, *command: str, text: str = "", seconds: float = 30) -> subprocess.CompletedProcess[str]:
        """Run a command of the user's, such as git, with the fleet's ssh configuration as its own."""
        ssh = f"ssh -F {self.ssh_directory}/config -o BatchMode=yes"
        env = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "GIT_SSH_COMMAND": ssh,
            "RSYNC_RSH": ssh,
            "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
        }
        return subprocess.run(
            command, cwd=REPOSITORY, env=env, input=text, capture_output=True, text=True, check=False, timeout=seconds
        )

    def ssh(self, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return self.run("ssh", "-F", f"{self.ssh_directory}/config", "-o", "BatchMode=yes", *arguments, text=text)

    def inner_address(self, name: str) -> str:
        """The address of a node on the network inside."""
        container = self.hosts[name]["lab_container"]
        networks = json.loads(podman("inspect", "--format", "{{json .NetworkSettings.Networks}}", container))
        return next(str(network["IPAddress"]) for key, network in networks.items() if key.endswith("-inside"))

    def way_to(self, name: str) -> str:
        """Log in, and return the name of the bastion that the node sees as its client, or "direct"."""
        done = self.ssh(name, "echo $SSH_CONNECTION")
        assert done.returncode == 0, done.stderr
        client = done.stdout.split()[0]
        up = [bastion for bastion in BASTIONS if self.is_up(bastion)]
        ways = {address: bastion for bastion in up for address in (self.inner_address(bastion), self.outer(bastion))}
        return ways.get(client, "direct")

    def outer(self, name: str) -> str:
        return str(self.hosts[name]["ansible_host"])

    def is_up(self, name: str) -> bool:
        container = self.hosts[name]["lab_container"]
        return podman("inspect", "--format", "{{.State.Running}}", container).strip() == "true"

    def have_up(self, *names: str) -> None:
        """Start and kill bastions, and wait until nobody takes them any more for what they were."""
        changed = [name for name in BASTIONS if self.is_up(name) != (name in names)]
        for name in changed:
            podman("start" if name in names else "kill", self.hosts[name]["lab_container"])
        # A machine that starts takes its time beside all else that runs here.
        end = time.monotonic() + 90
        for name in names:
            while not greets(self.outer(name)):
                assert time.monotonic() < end, f"{name} did not come back"
                time.sleep(0.2)
        if changed:
            time.sleep(DOWN_SECONDS if set(changed) & set(names) else UP_SECONDS)

    def start(self, playbook: str, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["ansible-playbook", "-i", str(self.folder / "inventory"), playbook, *arguments],
            cwd=REPOSITORY,
            env={
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "ANSIBLE_NOCOLOR": "1",
                **WATCHED,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def play(self, playbook: str, *arguments: str) -> tuple[int, str]:
        return end_of(self.start(playbook, *arguments), "")

    def files(self) -> dict[str, str]:
        """Name and content of the user's ssh files, but for what is kept for five seconds."""
        return {
            str(path): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.ssh_directory.rglob("*"))
            if path.is_file() and ".gpuops-reach.cache" not in path.parts
        }


def greets(address: str) -> bool:
    """Whether an SSH server speaks."""
    try:
        with socket.create_connection((address, 22), timeout=1) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def end_of(process: subprocess.Popen[str], text: str) -> tuple[int, str]:
    try:
        text += process.communicate(timeout=SITE_SECONDS)[0]
    finally:
        process.kill()
    assert "Traceback" not in text, text
    return process.returncode, text


def row(text: str, alias: str) -> str:
    """The line of a node in the table."""
    found = re.search(rf"^{alias} +\S+:\d+ .*$", text, re.MULTILINE)
    assert found, text
    return found.group(0)


@pytest.fixture(scope="module")
def whole_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The bastions in order, and the nodes as they were handed out; gpu-2 can do without its jump hosts."""
    folder = tmp_path_factory.mktemp("bastions")
    script = [sys.executable, str(REPOSITORY / "tests" / "lab" / "lab.py"), "--dir", str(folder)]
    try:
        subprocess.run([*script, "up", *NODES], check=True)
        inventory = folder / "inventory" / "nodes.yml"
        groups = json.loads(inventory.read_text())
        lab = Lab(folder, {name: host for group in groups.values() for name, host in group["hosts"].items()})
        groups["gpu"]["hosts"]["gpu-2"].update(ssh_bootstrap_jump_hosts=list(BASTIONS), ssh_bootstrap_direct="allow")
        inventory.write_text(json.dumps(groups))
        lab.ssh_directory.mkdir(mode=0o700, parents=True)
        code, text = lab.play("site.yml", "--limit", "bastion")
        assert code == 0, text
        yield lab
    finally:
        subprocess.run([*script, "down"], check=True)


@pytest.fixture(scope="module")
def site_that_lost_a_bastion(whole_lab: Lab) -> tuple[int, str]:
    """The first site.yml for the nodes. The first bastion dies while their sshd is changed."""
    process = whole_lab.start("site.yml", "--limit", "gpu")
    text = run_until(process, task("gpuops.fleet.sshd_policy"))
    podman("kill", whole_lab.hosts["bastion-1"]["lab_container"])
    return end_of(process, text)


@pytest.fixture
def lab(whole_lab: Lab, site_that_lost_a_bastion: tuple[int, str]) -> Lab:
    """The lab with both nodes in order."""
    code, text = site_that_lost_a_bastion
    assert code == 0, text
    return whole_lab


# In the order in which the bastions die and come back least often.


def test_run_survives_the_loss_of_a_bastion(site_that_lost_a_bastion: tuple[int, str]) -> None:
    code, text = site_that_lost_a_bastion
    assert code == 0, text
    assert re.search(r" yes +yes .* ok$", row(text, "gpu-1"))
    assert re.search(r" yes +yes .* ok$", row(text, "gpu-2"))


def test_scp_rsync_and_git_take_the_second_bastion(lab: Lab, tmp_path: Path) -> None:
    lab.have_up("bastion-2")
    (tmp_path / "sent").write_text("a file\n")
    config = f"{lab.ssh_directory}/config"
    for command in (
        ["scp", "-q", "-F", config, f"{tmp_path}/sent", "gpu-1:/root/by-scp"],
        ["scp", "-q", "-F", config, "gpu-1:/root/by-scp", f"{tmp_path}/by-scp"],
        ["rsync", "-a", f"{tmp_path}/sent", "gpu-1:/root/by-rsync"],
        ["rsync", "-a", "gpu-1:/root/by-rsync", f"{tmp_path}/by-rsync"],
        ["ssh", "-F", config, "gpu-1", "git init -q --bare -b main /root/project.git"],
        ["git", "clone", "-q", "gpu-1:/root/project.git", f"{tmp_path}/project"],
        ["git", "-C", f"{tmp_path}/project", "-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "-q",
         "--allow-empty", "-m", "by git"],
        ["git", "-C", f"{tmp_path}/project", "push", "-q", "origin", "HEAD:main"],
    ):  # fmt: skip
        done = lab.run(*command)
        assert done.returncode == 0, f"{command}: {done.stderr}"
    assert (tmp_path / "by-scp").read_text() == (tmp_path / "by-rsync").read_text() == "a file\n"
    assert "by git" in lab.ssh("gpu-1", "git -C /root/project.git log --oneline main").stdout


def test_editors_take_the_second_bastion(lab: Lab) -> None:
    """As VS Code's Remote-SSH does: a shell fed by standard input, and a SOCKS proxy in the same connection."""
    lab.have_up("bastion-2")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["ssh", "-F", f"{lab.ssh_directory}/config", "-T", "-D", str(port), "gpu-1", "sh"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as editor:
        assert editor.stdin
        assert editor.stdout
        editor.stdin.write("echo ready; hostname\n")
        editor.stdin.flush()
        assert [editor.stdout.readline().strip() for _line in range(2)] == ["ready", "gpu-1"]
        with socket.create_connection(("127.0.0.1", port), timeout=5) as proxy:
            proxy.sendall(b"\x05\x01\x00")
            assert proxy.recv(2) == b"\x05\x00"
            proxy.sendall(b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x16")
            assert proxy.recv(10)[1] == 0
            assert proxy.recv(8) == b"SSH-2.0-"
        editor.stdin.close()
        assert editor.wait(10) == 0


def test_first_bastion_is_taken_again_when_it_is_back(lab: Lab) -> None:
    lab.have_up("bastion-2")
    files = lab.files()
    assert lab.way_to("gpu-1") == "bastion-2"
    lab.have_up("bastion-1", "bastion-2")
    assert lab.way_to("gpu-1") == "bastion-1"
    assert lab.files() == files


def test_bastions_and_nodes_in_one_run_without_a_change(lab: Lab) -> None:
    lab.have_up("bastion-1", "bastion-2")
    code, text = lab.play("site.yml")
    assert code == 0, text
    assert " NO " not in row(text, "bastion-1") + row(text, "gpu-1")
    assert set(re.findall(r"changed=(\d+)", text)) == {"0"}, text


def test_bastion_that_hangs_is_passed_over(lab: Lab) -> None:
    lab.have_up("bastion-1", "bastion-2")
    container = lab.hosts["bastion-1"]["lab_container"]
    podman("pause", container)
    try:
        time.sleep(UP_SECONDS)
        start = time.monotonic()
        assert lab.ssh("gpu-1", "true").returncode == 0
        assert time.monotonic() - start < 6
    finally:
        podman("unpause", container)


def test_without_bastions_a_node_is_refused_or_reached_directly_as_was_asked(lab: Lab) -> None:
    lab.have_up()
    refused = lab.ssh("gpu-1", "true")
    assert refused.returncode == 255
    assert re.search(rf"connect to host {lab.outer('bastion-1')} port 22: \S+", refused.stderr)
    assert "no answer from the jump hosts bastion-1 bastion-2; next: ssh " in refused.stderr
    assert lab.way_to("gpu-2") == "direct"
    code, text = lab.play("gpuops.fleet.status")
    assert code == 2, text
    assert re.search(r" yes +yes .* ok$", row(text, "gpu-2"))
    assert re.search(r" NO ", row(text, "gpu-1"))
    # As long as the network remembers the machine its packets are lost, then it says that it is not there.
    verdict = r"jump host bastion-1: (the machine is off|no network path leads)"
    assert re.search(rf"^gpu-1 \(.*?\): {verdict}", text, re.MULTILINE), text
