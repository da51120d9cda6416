# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two nodes for the whole session, and for each test a home and an inventory of its own.

Each test begins with its nodes either as they are handed out (new) or after a first site.yml (settled).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from podman import podman

REPOSITORY = Path(__file__).resolve().parents[2]
LAB = REPOSITORY / "tests" / "lab"
NODES = ("gpu-1=deb12:h100x8-570", "gpu-2=deb13:rtx4090x2-550")
SITE_SECONDS = 300
# A complaint of the table: who and why, and below it what to type.
COMPLAINT = re.compile(r"^(\S+?)(?: \(.*?\))?: (.+)\n  next: (.+)$", re.MULTILINE)
USERS_CONFIG = "Host elsewhere\n  HostName 192.0.2.1\n\tUser  me # by hand\n\nHost *\n  ServerAliveInterval 30\n"

SAVE = """
mkdir -p /var/lab-states/$1
cp -a /etc/ssh /var/lab-states/$1/etc-ssh
! [ -d /root/.ssh ] || cp -a /root/.ssh /var/lab-states/$1/root-ssh
"""
# A restart, since a listener forgets penalties only with that.
RESTORE = """
systemctl stop gpuops-sshd-rollback.timer 2>/dev/null || true
rm -rf /etc/ssh /root/.ssh /run/gpuops-sshd
cp -a /var/lab-states/$1/etc-ssh /etc/ssh
! [ -d /var/lab-states/$1/root-ssh ] || cp -a /var/lab-states/$1/root-ssh /root/.ssh
systemctl reset-failed ssh
systemctl restart ssh
"""


@dataclass(frozen=True)
class Node:
    """A container that looks like a rented machine."""

    name: str
    container: str
    inventory: dict[str, Any]

    def sh(self, script: str, *arguments: str) -> str:
        """Run a script on the node past its sshd, as the provider's console does."""
        return podman("exec", self.container, "sh", "-ec", script, "sh", *arguments)

    def port(self) -> int:
        """The published port of sshd."""
        return int(podman("port", self.container, "22/tcp").strip().rpartition(":")[2])

    def fingerprint(self) -> str:
        """The fingerprint that the provider would show."""
        return self.sh("ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub").split()[1]


@dataclass(frozen=True)
class Run:
    """What a run of site.yml said."""

    rc: int
    text: str

    def complaints(self) -> dict[str, tuple[str, str]]:
        """The table's complaints: cause and next command of each host; two about one host are an error."""
        found = COMPLAINT.findall(self.text)
        hosts = [host for host, _cause, _command in found]
        assert len(hosts) == len(set(hosts)), f"more than one message about one host:\n{self.text}"
        return {host: (cause, command) for host, cause, command in found}

    def refusal(self) -> str:
        """The one message of a run that stopped at once, as one line."""
        fatal = re.findall(r"^\[ERROR\]: (.+)$", self.text, re.MULTILINE)
        assert len(fatal) == 1, f"wanted one error, got {len(fatal)}:\n{self.text}"
        return str(fatal[0])

    def recap(self, host: str) -> dict[str, int]:
        """The counters of a host at the end."""
        line = re.search(rf"^{re.escape(host)} +: (.+)$", self.text, re.MULTILINE)
        assert line, f"no recap of {host}:\n{self.text}"
        return {key: int(value) for key, value in (pair.split("=") for pair in line.group(1).split())}

    def is_complete(self, host: str) -> bool:
        """Whether the table shows the host reachable, hardened and ok."""
        return bool(re.search(rf"^{re.escape(host)} +\S+ +yes +yes +.+ +ok$", self.text, re.MULTILINE))


@dataclass(frozen=True)
class Fleet:
    """A controller's home, and the nodes that its inventory names."""

    home: Path
    hosts: dict[str, dict[str, Any]]
    nodes: dict[str, Node]

    @property
    def ssh(self) -> Path:
        """The user's ssh directory."""
        return self.home / ".ssh"

    @property
    def inventory(self) -> Path:
        """The inventory; outside of the home, since it holds the password."""
        return self.home.with_name("inventory")

    def environment(self) -> dict[str, str]:
        """The environment of the user."""
        env = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "SSH_"))}
        return {
            **env,
            "HOME": str(self.home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
        }

    def start(self, *arguments: str, within: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        """Start ansible-playbook site.yml."""
        self.inventory.mkdir(exist_ok=True)
        if not (self.inventory / "group_vars").exists():
            (self.inventory / "group_vars").symlink_to(REPOSITORY / "inventory" / "group_vars")
        # One try each, unless the test is about more.
        usual = {
            "ssh_bootstrap_dir": str(self.ssh),
            "ssh_bootstrap_attempts": 1,
            "sshd_hardening_rollback_seconds": 120,
        }
        hosts = {name: {**usual, **host} for name, host in self.hosts.items()}
        (self.inventory / "nodes.yml").write_text(json.dumps({"gpu": {"hosts": hosts}}))
        return subprocess.Popen(
            [*within, "ansible-playbook", "-i", str(self.inventory), "site.yml", *arguments],
            cwd=REPOSITORY,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def end(self, process: subprocess.Popen[str]) -> Run:
        """Wait for a run."""
        try:
            text = process.communicate(timeout=SITE_SECONDS)[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            text = process.communicate()[0]
            pytest.fail(f"site.yml did not end within {SITE_SECONDS} s:\n{text}")
        return Run(process.returncode, text)

    def site(self, *arguments: str, within: tuple[str, ...] = ()) -> Run:
        """Run site.yml; whatever happens, it shows no traceback and leaves the user's own files alone."""
        before = self.users_files()
        run = self.end(self.start(*arguments, within=within))
        assert "Traceback" not in run.text, run.text
        assert self.users_files() == before
        return run

    def users_files(self) -> dict[str, tuple[str, str]]:
        """Mode and content of all files in the ssh directory but the fleet's own, and but the Include line."""
        files = {}
        for path in sorted(self.ssh.rglob("*")):
            name = str(path.relative_to(self.ssh))
            if name.startswith(("known_hosts.d", "config.d", ".gpuops", "id_ed25519")) or path.is_dir():
                continue
            content = path.read_bytes()
            if name == "config":
                content = re.sub(rb"\AInclude [^\n]*/config\.d/gpuops\.conf\n", b"", content)
            files[name] = (oct(path.stat().st_mode), hashlib.sha256(content).hexdigest())
        return files

    def ssh_into(self, alias: str) -> subprocess.CompletedProcess[str]:
        """Use an alias as its user would."""
        options = ["-o", "BatchMode=yes", "-o", "ControlPath=none", "-o", "ConnectTimeout=5"]
        command = ["ssh", "-F", str(self.ssh / "config"), *options, alias, "true"]
        return subprocess.run(command, env=self.environment(), capture_output=True, text=True, check=False, timeout=30)


def fresh_fleet(folder: Path, nodes: dict[str, Node], state: str) -> Fleet:
    """Bring the nodes into a state, and give a home with files of the user's in it."""
    for node in nodes.values():
        node.sh(RESTORE, state)
    home = folder / "home"
    (home / ".ssh").mkdir(mode=0o700, parents=True)
    for name, text, mode in (
        ("config", USERS_CONFIG, 0o640),
        ("known_hosts", "elsewhere ssh-ed25519 AAAA\n", 0o644),
        ("id_rsa", "a key of the user's\n", 0o400),
        ("notes.txt", "not of ssh\r\n", 0o604),
    ):
        (home / ".ssh" / name).write_text(text)
        (home / ".ssh" / name).chmod(mode)
    hosts = {name: {**node.inventory, "ansible_port": node.port()} for name, node in nodes.items()}
    return Fleet(home, hosts, nodes)


@pytest.fixture(scope="session")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Node]]:
    """Two running nodes."""
    folder = tmp_path_factory.mktemp("lab")
    lab = [sys.executable, str(LAB / "lab.py"), "--dir", str(folder)]
    try:
        subprocess.run([*lab, "up", *NODES], check=True)
        hosts = json.loads((folder / "inventory" / "nodes.yml").read_text())["gpu"]["hosts"]
        found = {
            name: Node(name, host["lab_container"], {key: host[key] for key in ("ansible_host", "ansible_password")})
            for name, host in hosts.items()
        }
        for node in found.values():
            node.sh(SAVE, "new")
        yield found
    finally:
        subprocess.run([*lab, "down"], check=True)


@pytest.fixture(scope="session")
def settled_ssh(nodes: dict[str, Node], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ssh directory of a controller that has brought up both nodes."""
    fleet = fresh_fleet(tmp_path_factory.mktemp("first"), nodes, "new")
    run = fleet.site()
    assert run.rc == 0, run.text
    for node in nodes.values():
        node.sh(SAVE, "settled")
    return fleet.ssh


@pytest.fixture
def new_fleet(nodes: dict[str, Node], tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """A controller that has never seen its nodes."""
    return fresh_fleet(tmp_path_factory.mktemp("new"), nodes, "new")


@pytest.fixture
def settled_fleet(nodes: dict[str, Node], settled_ssh: Path, tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """A controller whose nodes are all in order."""
    fleet = fresh_fleet(tmp_path_factory.mktemp("settled"), nodes, "settled")
    shutil.copytree(settled_ssh, fleet.ssh, dirs_exist_ok=True)
    for file in (fleet.ssh / "config", fleet.ssh / "config.d" / "gpuops.conf"):
        file.write_text(file.read_text().replace(str(settled_ssh), str(fleet.ssh)))
    return fleet
