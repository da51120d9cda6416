# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure ssh_alias against a loop over community.general.ssh_config, and print tables.

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
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SIZES = (10, 100, 1_000, 10_000)
# One item of the loop takes about as long as a whole run of ssh_alias.
LOOP_SIZES = (10, 100)
LOOP_OF = 1_000
REPEAT = 3

PLAY = """
- hosts: localhost
  gather_facts: false
  tasks:
"""
PING = f"""{PLAY}
    - ansible.builtin.ping:
"""
SSH_ALIAS = f"""{PLAY}
    - gpuops.fleet.ssh_alias:
        path: "{{{{ playbook_dir }}}}/.ssh/config"
        aliases: >-
          """
FROM_FILE = SSH_ALIAS + "{{ lookup('ansible.builtin.file', playbook_dir ~ '/aliases.json') | from_json }}"
FROM_VARIABLES = SSH_ALIAS + "{{ aliases }}"
FROM_INVENTORY = (
    SSH_ALIAS
    + """
          {%- set found = [] -%}
          {%- for host in groups.gpu -%}
          {%- set node = hostvars[host] -%}
          {%- set done = found.append({'name': host, 'hostname': node.ansible_host, 'port': node.ansible_port,
                                       'user': node.ansible_user}) -%}
          {%- endfor -%}
          {{ found }}"""
)
LOOP = f"""{PLAY}
    - community.general.ssh_config:
        ssh_config_file: "{{{{ playbook_dir }}}}/.ssh/config"
        host: "{{{{ item.name }}}}"
        hostname: "{{{{ item.hostname }}}}"
        port: "{{{{ item.port | string }}}}"
        remote_user: "{{{{ item.user }}}}"
      loop: "{{{{ aliases }}}}"
      loop_control: {{label: "{{{{ item.name }}}}"}}
"""
EXTRA_VARS = ("-e", "@variables.json")
# The ways to hand the aliases over: the playbook, and what it needs on the command line.
WAYS = {
    "a JSON file, `lookup` and `from_json`": (FROM_FILE, ()),
    "extra variables, `-e @file`": (FROM_VARIABLES, EXTRA_VARS),
    "`vars_files` of the play": (FROM_VARIABLES.replace("  tasks:", "  vars_files: variables.json\n  tasks:"), ()),
    "an INI inventory and `hostvars`": (FROM_INVENTORY, ("-i", "inventory.ini")),
}


@dataclass(frozen=True)
class Cost:
    """What runs of one ansible-playbook took: the median, and the largest process of all."""

    seconds: float
    mebibytes: float


def write_inputs(directory: Path, count: int) -> None:
    """A fleet of plain aliases, in each form."""
    (directory / ".ssh").mkdir()
    aliases = [
        {
            "name": f"gpu-{index}",
            "hostname": f"10.{index >> 16}.{index >> 8 & 255}.{index & 255}",
            "port": 22,
            "user": "root",
        }
        for index in range(count)
    ]
    hosts = "\n".join(
        "{name} ansible_host={hostname} ansible_port={port} ansible_user={user}".format(**a) for a in aliases
    )
    (directory / "aliases.json").write_text(json.dumps(aliases))
    (directory / "variables.json").write_text(json.dumps({"aliases": aliases}))
    (directory / "inventory.ini").write_text(f"[gpu]\n{hosts}\n")
    (directory / "ansible.cfg").touch()


def play(directory: Path, playbook: str, arguments: tuple[str, ...] = ()) -> Cost:
    """One ansible-playbook."""
    (directory / "play.yml").write_text(playbook)
    start = time.monotonic()
    process = subprocess.Popen(
        [
            *(str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", "-c", "local"),
            *("-e", f"ansible_python_interpreter={sys.executable}", *arguments, "play.yml"),
        ],
        cwd=directory,
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
    return Cost(seconds, usage.ru_maxrss / 1024)


def measure(count: int, playbook: str, arguments: tuple[str, ...] = ()) -> dict[str, Cost]:
    """Ansible alone, a ping with the same input, a first and a second run of ssh_alias.

    They take turns, so that a busy moment of the machine is one of all.
    """
    costs: dict[str, list[Cost]] = {}
    ping = PING.replace("  tasks:", "  vars_files: variables.json\n  tasks:") if "vars_files" in playbook else PING
    for _round in range(REPEAT):
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            write_inputs(directory, count)
            costs.setdefault("start", []).append(play(directory, PING))
            costs.setdefault("ping", []).append(play(directory, ping, arguments))
            for what in ("first", "again"):
                costs.setdefault(what, []).append(play(directory, playbook, arguments))
    return {
        what: Cost(statistics.median(cost.seconds for cost in some), max(cost.mebibytes for cost in some))
        for what, some in costs.items()
    }


def ssh_g(count: int) -> float:
    """Median milliseconds of ssh -G for the last of so many aliases."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_inputs(directory, count)
        play(directory, FROM_FILE)
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


def table(*columns: str) -> None:
    print("\n| " + " | ".join(columns) + " |\n|" + " ---: |" * len(columns))


def row(*values: str) -> None:
    print("| " + " | ".join(values) + " |", flush=True)


def main() -> None:
    table("aliases", "one ping", "first run", "without a change", "first run / ping", "largest process", "ssh -G")
    ours = {}
    for count in SIZES:
        cost = measure(count, FROM_FILE)
        ours[count] = cost["first"].seconds
        row(
            str(count),
            *(f"{cost[what].seconds:.2f} s" for what in ("start", "first", "again")),
            f"{cost['first'].seconds / cost['start'].seconds:.1f}",
            f"{cost['first'].mebibytes:.0f} MiB",
            f"{ssh_g(count):.1f} ms",
        )
    table(
        f"{SIZES[-1]} aliases from",
        "one ping",
        "ping with this input",
        "first run",
        "/ ping",
        "/ ping with it",
        "largest process",
    )
    for way, (playbook, arguments) in WAYS.items():
        cost = measure(SIZES[-1], playbook, arguments)
        row(
            way,
            *(f"{cost[what].seconds:.2f} s" for what in ("start", "ping", "first")),
            *(f"{cost['first'].seconds / cost[what].seconds:.1f}" for what in ("start", "ping")),
            f"{cost['first'].mebibytes:.0f} MiB",
        )
    table("hosts", "loop over community.general.ssh_config", "ssh_alias", "ratio")
    loop = {}
    for count in LOOP_SIZES:
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            write_inputs(directory, count)
            loop[count] = play(directory, LOOP, EXTRA_VARS).seconds
        row(str(count), f"{loop[count]:.1f} s", f"{ours[count]:.2f} s", f"{loop[count] / ours[count]:.0f}")
    small, large = LOOP_SIZES
    each = (loop[large] - loop[small]) / (large - small)
    total = loop[small] + each * (LOOP_OF - small)
    row(
        str(LOOP_OF),
        f"{total:.0f} s (extrapolated, {each:.2f} s each)",
        f"{ours[LOOP_OF]:.2f} s",
        f"{total / ours[LOOP_OF]:.0f}",
    )


if __name__ == "__main__":
    main()
