# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure what jump hosts that stand in for each other add to a login, and print a table.

From the top of the repository: .venv/bin/python benchmarks/jump_hosts/run.py
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests" / "lab"))
from podman import podman

NODES = (
    "bastion-1=deb12:none@door",
    "bastion-2=deb12:none@door",
    "gpu-1=deb12:t4x1-470@inside",
    "gpu-2=deb12:t4x1-470@door",
)
LOGINS = 10
# After these nobody takes a bastion any more for what it was.
KEPT_SECONDS = 6


class Lab:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ssh = folder / "home" / ".ssh"
        self.script = [sys.executable, str(REPOSITORY / "tests" / "lab" / "lab.py"), "--dir", str(folder)]
        subprocess.run([*self.script, "up", *NODES], check=True)
        inventory = folder / "inventory" / "nodes.yml"
        groups = json.loads(inventory.read_text())
        groups["gpu"]["hosts"]["gpu-2"].update(
            ssh_bootstrap_jump_hosts=["bastion-1", "bastion-2"], ssh_bootstrap_direct="allow"
        )
        inventory.write_text(json.dumps(groups))
        self.hosts = {name: host for group in groups.values() for name, host in group["hosts"].items()}
        self.ssh.mkdir(mode=0o700, parents=True)
        subprocess.run(
            [Path(sys.executable).parent / "ansible-playbook", "-i", folder / "inventory", "site.yml"],
            cwd=REPOSITORY,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            stdout=subprocess.DEVNULL,
            check=True,
        )

    def podman(self, action: str, *names: str) -> None:
        podman(action, *(self.hosts[name]["lab_container"] for name in names))
        time.sleep(KEPT_SECONDS)

    def sshd(self, action: str, name: str) -> None:
        podman("exec", self.hosts[name]["lab_container"], "systemctl", action, "ssh")
        time.sleep(KEPT_SECONDS)

    def login(self, *arguments: str, fresh: bool = False, wanted: int = 0) -> float:
        """Median seconds of a login; fresh: no answer of a jump host is kept from the one before."""
        took = []
        for _login in range(LOGINS):
            if fresh:
                shutil.rmtree(self.ssh / "config.d" / ".gpuops-reach.cache", ignore_errors=True)
            start = time.monotonic()
            done = subprocess.run(
                ["ssh", "-F", self.ssh / "config", "-o", "BatchMode=yes", *arguments, "true"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
            )
            took.append(time.monotonic() - start)
            if done.returncode != wanted:
                raise SystemExit(f"ssh {' '.join(arguments)} ended with {done.returncode}: {done.stderr.decode()}")
        return statistics.median(took)

    def without_choice(self, *options: str, name: str) -> float:
        """A login by the same key and on a fixed way."""
        identity = ("-i", str(self.ssh / "id_ed25519"), "-o", f"HostKeyAlias={name}", "-o", "IdentitiesOnly=yes")
        known_hosts = ("-o", f"UserKnownHostsFile={self.ssh}/known_hosts.d/gpuops")
        return self.login(*options, *identity, *known_hosts, f"root@{self.hosts[name]['ansible_host']}")


def show(what: str, seconds: float, base: float) -> None:
    print(f"| {what} | {seconds * 1000:.0f} ms | {(seconds - base) * 1000:+.0f} ms |", flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        lab = Lab(Path(name))
        try:
            print("| login | median | beside the fixed way |\n| --- | ---: | ---: |")
            jump = lab.without_choice("-J", "bastion-1", name="gpu-1")
            direct = lab.without_choice(name="gpu-2")
            show("fixed `ProxyJump bastion-1`", jump, jump)
            show("fixed, directly", direct, direct)
            show("both up, answer kept", lab.login("gpu-1"), jump)
            show("both up, no answer kept", lab.login("gpu-1", fresh=True), jump)
            lab.sshd("stop", "bastion-1")
            show("first refuses, answer kept", lab.login("gpu-1"), jump)
            show("first refuses, no answer kept", lab.login("gpu-1", fresh=True), jump)
            lab.sshd("start", "bastion-1")
            lab.podman("pause", "bastion-1")
            show("first hangs, answer kept", lab.login("gpu-1"), jump)
            show("first hangs, no answer kept", lab.login("gpu-1", fresh=True), jump)
            lab.podman("unpause", "bastion-1")
            lab.sshd("stop", "bastion-1")
            lab.sshd("stop", "bastion-2")
            show("both refuse, direct forbidden: error, answer kept", lab.login("gpu-1", wanted=255), jump)
            show("both refuse, direct forbidden: error", lab.login("gpu-1", fresh=True, wanted=255), jump)
            show("both refuse, direct allowed, answer kept", lab.login("gpu-2"), direct)
            show("both refuse, direct allowed", lab.login("gpu-2", fresh=True), direct)
        finally:
            lab.podman("kill", *lab.hosts)
            subprocess.run([*lab.script, "down"], check=True)


if __name__ == "__main__":
    main()
