# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure ssh_alias against a loop over community.general.ssh_config, and print a table.

From the top of the repository: .venv/bin/python benchmarks/ssh_alias/run.py
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
SIZES = (10, 1_000, 10_000)
# One item of the loop takes about as long as a whole run of ssh_alias.
LOOP_SIZES = (10, 100)
LOOP_OF = 1_000
REPEAT = 3

SSH_ALIAS = """
- hosts: localhost
  gather_facts: false
  tasks:
    - gpuops.fleet.ssh_alias:
        path: "{{ path }}"
        aliases: "{{ aliases }}"
"""
LOOP = """
- hosts: localhost
  gather_facts: false
  tasks:
    - community.general.ssh_config:
        ssh_config_file: "{{ path }}"
        host: "{{ item.name }}"
        hostname: "{{ item.hostname }}"
        port: "{{ item.port | string }}"
        remote_user: "{{ item.user }}"
      loop: "{{ aliases }}"
      loop_control: {label: "{{ item.name }}"}
"""
START = """
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.ping:
"""


def aliases(count: int) -> list[dict[str, object]]:
    """A fleet of plain aliases."""
    return [
        {
            "name": f"gpu-{index}",
            "hostname": f"10.{index >> 16}.{index >> 8 & 255}.{index & 255}",
            "port": 22,
            "user": "root",
        }
        for index in range(count)
    ]


def play(directory: Path, playbook: str, count: int) -> tuple[float, float]:
    """Seconds and MiB of the largest process of one ansible-playbook."""
    (directory / "play.yml").write_text(playbook)
    (directory / "vars.json").write_text(
        json.dumps({"path": str(directory / ".ssh/config"), "aliases": aliases(count)})
    )
    (directory / "ansible.cfg").touch()
    command = [
        str(Path(sys.executable).parent / "ansible-playbook"),
        *("-i", "localhost,", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}"),
        *("-e", f"@{directory}/vars.json", str(directory / "play.yml")),
    ]
    start = time.monotonic()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": f"{REPOSITORY}/.ansible/collections",
            "ANSIBLE_CONFIG": str(directory / "ansible.cfg"),
        },
    )
    output = process.stdout.read() if process.stdout else b""
    _pid, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - start
    if process.returncode:
        raise SystemExit(output.decode()[-2000:])
    return seconds, usage.ru_maxrss / 1024


def measure(count: int) -> tuple[dict[str, float], dict[str, float]]:
    """Median seconds and most MiB of Ansible alone, of a ping with the same variables, of a first and a second run.

    They take turns, so that a busy moment of the machine is one of all.
    """
    seconds: dict[str, list[float]] = {}
    memory: dict[str, list[float]] = {}
    for _round in range(REPEAT):
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            (directory / ".ssh").mkdir()
            for what, playbook, size in (
                ("start", START, 1),
                ("ping", START, count),
                ("first", SSH_ALIAS, count),
                ("again", SSH_ALIAS, count),
            ):
                took, mebibytes = play(directory, playbook, size)
                seconds.setdefault(what, []).append(took)
                memory.setdefault(what, []).append(mebibytes)
    return (
        {what: statistics.median(values) for what, values in seconds.items()},
        {what: max(values) for what, values in memory.items()},
    )


def ssh_g(count: int) -> float:
    """Median milliseconds of ssh -G for the last of so many aliases."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / ".ssh").mkdir()
        play(directory, SSH_ALIAS, count)
        took = []
        for _round in range(15):
            start = time.monotonic()
            subprocess.run(
                [shutil.which("ssh") or "ssh", "-G", "-F", str(directory / ".ssh/config"), f"gpu-{count - 1}"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=True,
            )
            took.append(time.monotonic() - start)
    return statistics.median(took) * 1000


def main() -> None:
    print("| aliases | one ping | ping with the same variables | first run | without a change", end="")
    print(" | first run: times one ping, times that ping | largest process: ping, ssh_alias | ssh -G |")
    print("| ---: " * 8 + "|")
    ours = {}
    for count in (*SIZES, *set(LOOP_SIZES).difference(SIZES)):
        took, memory = measure(count)
        ours[count] = took["first"]
        print(
            f"| {count} | " + " | ".join(f"{took[what]:.2f} s" for what in ("start", "ping", "first", "again")), end=""
        )
        print(f" | {took['first'] / took['start']:.1f}, {took['first'] / took['ping']:.1f}", end="")
        print(f" | {memory['ping']:.0f}, {memory['first']:.0f} MiB | {ssh_g(count):.1f} ms |", flush=True)
    print("\n| hosts | loop over community.general.ssh_config | ssh_alias | ratio |")
    print("| ---: | ---: | ---: | ---: |")
    loop = {}
    for count in LOOP_SIZES:
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            (directory / ".ssh").mkdir()
            loop[count] = play(directory, LOOP, count)[0]
        print(f"| {count} | {loop[count]:.1f} s | {ours[count]:.2f} s | {loop[count] / ours[count]:.0f} |", flush=True)
    small, large = LOOP_SIZES
    each = (loop[large] - loop[small]) / (large - small)
    total = loop[small] + each * (LOOP_OF - small)
    print(f"| {LOOP_OF} | {total:.0f} s (extrapolated, {each:.2f} s each) | {ours[LOOP_OF]:.2f} s", end="")
    print(f" | {total / ours[LOOP_OF]:.0f} |")


if __name__ == "__main__":
    main()
