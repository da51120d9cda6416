# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure what 50 people with 3 keys each cost on 3 nodes: the role, and a loop over modules for users and keys.

From the top of the repository: .venv/bin/python benchmarks/access/run.py     prints a table
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
NODES = {"gpu-1": "11", "gpu-2": "12", "gpu-3": "13"}
PEOPLE = 50
KEYS = 3
LOOP = [
    {
        "name": "Make the accounts",
        "ansible.builtin.user": {"name": "{{ item.name }}", "uid": "{{ item.uid }}", "shell": "/bin/bash"},
        "loop": "{{ gpu_users }}",
    },
    {
        "name": "Write the keys",
        "ansible.posix.authorized_key": {"user": "{{ item.0.name }}", "key": "{{ item.1 }}"},
        "loop": "{{ gpu_users | subelements('keys') }}",
    },
]
WAYS: dict[str, dict[str, Any]] = {
    "authorized_keys of this collection": {"roles": ["gpuops.fleet.authorized_keys"]},
    "loops over user and authorized_key": {"tasks": LOOP},
}


class Lab:
    """New nodes, into which this machine logs in by key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.script = [sys.executable, str(REPOSITORY / "tests" / "lab" / "lab.py"), "--dir", str(folder)]
        subprocess.run(
            [*self.script, "up", *(f"{name}=deb{release}:t4x1-470" for name, release in NODES.items())], check=True
        )
        (folder / "home" / ".ssh").mkdir(mode=0o700, parents=True)
        self.play({"roles": ["gpuops.fleet.ssh_bootstrap"]})

    def down(self) -> None:
        subprocess.run([*self.script, "down"], check=True)

    def play(self, play: dict[str, Any], **variables: Any) -> tuple[float, str]:
        """Run a play on all nodes; how long it took, and what it said."""
        playbook = self.folder / "play.yml"
        playbook.write_text(json.dumps([{"hosts": "gpu", "gather_facts": False, "vars": variables, **play}]))
        start = time.monotonic()
        done = subprocess.run(
            [Path(sys.executable).with_name("ansible-playbook"), "-i", self.folder / "inventory", playbook],
            cwd=REPOSITORY,
            env={**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(done.stdout)
        return time.monotonic() - start, done.stdout


def make_people(folder: Path) -> list[dict[str, Any]]:
    people = []
    for number in range(PEOPLE):
        keys = []
        for device in range(KEYS):
            file = folder / f"person{number}-{device}"
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", file.name, "-f", str(file)]
            subprocess.run(command, check=True)
            keys.append(file.with_suffix(".pub").read_text().strip())
        people.append({"name": f"person{number}", "uid": 3000 + number, "keys": keys})
    return people


def main() -> None:
    print(f"{PEOPLE} people with {KEYS} keys each on {len(NODES)} nodes\n")
    print("| way | first run, s | again, s | again: changed |\n| --- | ---: | ---: | ---: |")
    for name, play in WAYS.items():
        with tempfile.TemporaryDirectory() as folder:
            lab = Lab(Path(folder))
            try:
                people = make_people(lab.folder)
                first, _said = lab.play(play, gpu_users=people)
                again, said = lab.play(play, gpu_users=people)
            finally:
                lab.down()
            changed = 0 if said.count("changed=0") == len(NODES) else "some"
            print(f"| {name} | {first:.1f} | {again:.1f} | {changed} |", flush=True)


if __name__ == "__main__":
    main()
