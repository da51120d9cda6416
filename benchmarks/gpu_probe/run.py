# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure gpu_probe on many nodes beside other ways to ask them, and print tables.

From the top of the repository: .venv/bin/python benchmarks/gpu_probe/run.py
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, field
from pathlib import Path

from fleet import RELAYED, Fleet

HERE = Path(__file__).resolve().parent
COLLECTIONS = HERE.parents[1] / ".ansible" / "collections"
sys.path.insert(0, str(COLLECTIONS))
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.answer import collector_command, parse_answer
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.smi_xml import cut_document, parse_log
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.state import Question, probe_result

SIZES = (1, 16, 64, 256)
ROUNDS = 3
FORKS = 10
OTHER_TOOLS = ("mitogen==0.3.54", "ClusterShell==1.10.1")
# A node's sshd, that of its connection, the controller's end of it; and some for what runs over it.
PROCESSES_EACH = 5


@dataclass(frozen=True)
class Way:
    """A way to ask all nodes, and what stands in its output once for each node that answered."""

    command: tuple[str, ...]
    answered: str
    environment: dict[str, str] = field(default_factory=dict)
    of_others: bool = False


@dataclass(frozen=True)
class Cost:
    """Seconds of one run: on the clock, of processors for the controller, and for the nodes."""

    clock: float
    controller: float
    nodes: float


class WayError(Exception):
    """Not all nodes answered."""


PLAYS = {
    "raw.yml": "ansible.builtin.raw: 'true'",
    # A node that is not in order did less.
    "probe.yml": "gpuops.fleet.gpu_probe: {fail_on: warning}",
}


def play(name: str, answered: str) -> Way:
    return Way((str(Path(sys.executable).with_name("ansible-playbook")), name), answered)


def ad_hoc(module: str, *arguments: str, answered: str = "| SUCCESS") -> Way:
    return Way((str(Path(sys.executable).with_name("ansible")), "all", "-m", module, *arguments), answered)


SMI = "nvidia-smi -q -x"
DOCUMENT = "<nvidia_smi_log>"
RAW = "`raw -a true`"
RAW_TASK = "`raw: true` in a play"
PROBE = "`gpu_probe`"
PROBE_TASK = "`gpu_probe:` in a play"
PLAIN = "plain module"
TASKS = (RAW_TASK, PROBE_TASK)
WAYS = {
    RAW: ad_hoc("ansible.builtin.raw", "-a", "true", answered="| CHANGED"),
    PROBE: ad_hoc("gpuops.fleet.gpu_probe", "-a", "fail_on=warning"),
    RAW_TASK: play("raw.yml", "changed: ["),
    PROBE_TASK: play("probe.yml", "ok: ["),
    "`ping`": ad_hoc("ansible.builtin.ping"),
    f"`shell -a '{SMI}'`": ad_hoc("ansible.builtin.shell", "-a", SMI, answered=DOCUMENT),
    PLAIN: ad_hoc("plain_gpu"),
    f"{PLAIN}, mitogen_linear": Way(
        ad_hoc("plain_gpu").command, "| SUCCESS", {"ANSIBLE_STRATEGY": "mitogen_linear"}, of_others=True
    ),
    f"clush `{SMI}`": Way(
        (
            *(sys.executable, "-m", "ClusterShell.CLI.Clush", "-f", str(FORKS)),
            *("-o", "-F ssh_config", "--hostfile", "hosts", SMI),
        ),
        DOCUMENT,
        of_others=True,
    ),
}


class Bench:
    """A fleet, and what asks it."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.folder = fleet.folder
        tools = self.folder / "tools"
        install = ("install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target", tools)
        subprocess.run([sys.executable, "-m", "pip", *install, *OTHER_TOOLS], check=False)
        (self.folder / "ansible.cfg").write_text(
            f"[defaults]\ninventory = hosts\nforks = {FORKS}\ncollections_path = {COLLECTIONS}\n"
            f"library = {HERE / 'library'}\nstrategy_plugins = {tools}/ansible_mitogen/plugins/strategy\n"
            f"interpreter_python = {sys.executable}\nlocal_tmp = {self.folder}/local\n"
            "[ssh_connection]\npipelining = true\nssh_args = -F ssh_config\n"
        )
        for name, task in PLAYS.items():
            (self.folder / name).write_text(
                f"- hosts: all\n  gather_facts: false\n  tasks:\n    - {task}\n      register: said\n"
            )
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        self.environment.update(ANSIBLE_CONFIG=str(self.folder / "ansible.cfg"), PYTHONPATH=str(tools))

    def run(self, way: Way, names: list[str]) -> Cost:
        (self.folder / "hosts").write_text("\n".join(names) + "\n")
        said = self.folder / "said"
        before = self.fleet.cpu()
        with said.open("wb") as output:
            start = time.monotonic()
            process = subprocess.Popen(
                way.command,
                cwd=self.folder,
                env={**self.environment, **way.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            _pid, status, usage = os.wait4(process.pid, 0)
            clock = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        after = self.fleet.cpu()
        text = said.read_text(errors="replace")
        if process.returncode or text.count(way.answered) != len(names):
            raise WayError(f"{' '.join(way.command)} ended with {process.returncode}:\n{text[:2000]}")
        connections = after.connections - before.connections
        return Cost(clock, usage.ru_utime + usage.ru_stime + connections, after.nodes - before.nodes)

    def working(self) -> dict[str, Way]:
        """The ways without the tools of others that do not work here, of which it is said why."""
        ways = {}
        for name, way in WAYS.items():
            try:
                self.run(way, self.fleet.names[:1])
            except WayError as error:
                if not way.of_others:
                    raise
                print(f"{name} is left out. {error}\n")
            else:
                ways[name] = way
        return ways

    def measure(self, ways: dict[str, Way], names: list[str], rounds: int) -> dict[tuple[str, str], Cost]:
        """The medians. All take turns, so that a busy moment of the machine is one of all."""
        costs: dict[tuple[str, str], list[Cost]] = {}
        for _round in range(rounds):
            for name, way in ways.items():
                self.fleet.close()
                costs.setdefault((name, "cold"), []).append(self.run(way, names))
            self.fleet.open(names)
            for name, way in ways.items():
                costs.setdefault((name, "warm"), []).append(self.run(way, names))
        return {
            which: Cost(*(statistics.median(values) for values in zip(*map(astuple, some))))
            for which, some in costs.items()
        }

    def wire(self, way: Way) -> tuple[int, int]:
        """Bytes to one node and from it, over a connection that is there."""
        self.fleet.close()
        self.fleet.open([RELAYED])
        relay = self.fleet.relay
        before = (relay.to_node, relay.from_node)
        self.run(way, [RELAYED])
        return relay.to_node - before[0], relay.from_node - before[1]


def table(*columns: str) -> None:
    print("\n| " + " | ".join(columns) + " |\n| --- |" + " ---: |" * (len(columns) - 1))


def row(*values: str) -> None:
    print("| " + " | ".join(values) + " |", flush=True)


def too_many(count: int) -> bool:
    allowed, _most = resource.getrlimit(resource.RLIMIT_NPROC)
    if os.geteuid() == 0 or allowed == resource.RLIM_INFINITY or count * PROCESSES_EACH < allowed:
        return False
    print(f"\n{count} nodes are left out: `ulimit -u` allows {allowed} processes, {count * PROCESSES_EACH} are needed")
    return True


def print_times(bench: Bench, ways: dict[str, Way], sizes: list[int], rounds: int, note: str = "") -> None:
    for count in sizes:
        if too_many(count):
            continue
        costs = bench.measure(ways, bench.fleet.names[:count], rounds)
        table(
            f"nodes: {count}{note}",
            "warm, s",
            "/ raw",
            "cold, s",
            "/ raw",
            "controller CPU, ms",
            "/ raw",
            "node CPU, ms",
        )
        for name in ways:
            warm, cold = costs[name, "warm"], costs[name, "cold"]
            raw = {state: costs[RAW_TASK if name in TASKS else RAW, state] for state in ("warm", "cold")}
            row(
                name,
                *(f"{warm.clock:.2f}", f"{warm.clock / raw['warm'].clock:.2f}"),
                *(f"{cold.clock:.2f}", f"{cold.clock / raw['cold'].clock:.2f}"),
                *(f"{warm.controller / count * 1000:.0f}", f"{warm.controller / raw['warm'].controller:.2f}"),
                f"{warm.nodes / count * 1000:.0f}",
            )
        if PLAIN in ways:
            faster = costs[PLAIN, "warm"].clock / costs[PROBE, "warm"].clock
            print(f"\ngpu_probe is {faster:.1f} times as fast as the plain module, warm")


def print_wire(bench: Bench, ways: dict[str, Way]) -> None:
    table("one node, warm", "bytes to it", "bytes from it")
    for name, way in ways.items():
        row(name, *(str(number) for number in bench.wire(way)))


def on_node(fleet: Fleet, *command: str) -> str:
    environment = {**os.environ, **fleet.node_environment}
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


def collect(fleet: Fleet) -> tuple[str, float]:
    """What a node answers, and how many seconds that takes it."""
    start = time.monotonic()
    answer = on_node(fleet, "sh", "-c", collector_command("recorded", 60))
    return answer, time.monotonic() - start


def print_parsing(answer: str, output: str) -> None:
    document = cut_document(output)[1]
    table("8 GPUs on the controller", "ms")
    row(f"parse the document ({len(document)} bytes)", f"{milliseconds(lambda: parse_log(document)):.1f}")
    whole = milliseconds(lambda: probe_result(parse_answer(answer, "recorded"), Question()))
    row("from the node's answer to the result", f"{whole:.1f}")


def milliseconds(call: Callable[[], object]) -> float:
    """Processor time of a call, the median of a hundred."""
    took = []
    for _call in range(100):
        start = time.process_time()
        call()
        took.append(time.process_time() - start)
    return statistics.median(took) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure gpu_probe on many nodes beside other ways to ask them.")
    parser.add_argument("--nodes", type=int, nargs="+", default=SIZES, help="fleets to measure (default: 1 16 64 256)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="runs of each kind, of which the median is shown")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Fleet(Path(folder), max(options.nodes)) as fleet:
        bench = Bench(fleet)
        print(f"Load of the machine before: {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
        try:
            ways = bench.working()
            answer, seconds = collect(fleet)
            print_parsing(answer, on_node(fleet, *SMI.split()))
            print_wire(bench, ways)
            print_times(bench, ways, options.nodes, options.rounds)
            fleet.replay(answer, seconds)
            few = {name: ways[name] for name in (RAW, PROBE, RAW_TASK, PROBE_TASK)}
            print_times(bench, few, options.nodes, options.rounds, ", recorded answers")
        except WayError as error:
            raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
