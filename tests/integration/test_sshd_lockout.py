# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nobody is locked out by sshd_hardening: each cell of tests/lab/lockout.py on a node.

The nodes of a release serve several cells, one after the other; those of one wave share a run of ansible-playbook.
The gate takes all cells on the release with the newest OpenSSH, and on the oldest those that depend on the release;
`make test-all AREA=trust` takes all cells, kills and changes on three releases.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from lab import LABEL, lab_name, node_image
from lockout import DEPEND_ON_THE_RELEASE, NEWEST, OLDEST, RELEASES, UNMOUNT, Cell, cells
from podman import as_root, podman

REPOSITORY = Path(__file__).resolve().parents[2]
LAB = REPOSITORY / "tests" / "lab" / "lab.py"
MACHINES = ("one", "two", "three", "four", "sockets")
PLAY_SECONDS = 600
# After that, a node whose controller was killed puts the old files back.
ROLLBACK_SECONDS = 30
SOCKET_RUNS = 10
# When the controller is killed, and where.
KILLED = {"armed": "one", "written": "two", "reloaded": "three", "proving": "four", "reloaded-pod": "pod"}

pytestmark = pytest.mark.slow

PREPARE = """
useradd --create-home --shell /bin/bash gpu
echo 'gpu ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/gpu
mkdir -p /root/.ssh
cat > /root/.ssh/authorized_keys
mkdir /before
cp -a /etc/ssh /root/.ssh /before/
"""
RESTORE = r"""
systemctl stop 'gpuops-*' 2>/dev/null || pkill -f '[g]puops-sshd' || true
systemctl reset-failed 2>/dev/null || true
nft flush ruleset 2>/dev/null || true
rm -f /etc/systemd/system/gpuops* /etc/systemd/system/*.wants/gpuops*
rm -rf /run/gpuops* /etc/ssh /root/.ssh /home/gpu/.ssh /etc/systemd/system/ssh.service.d /run/nologin
cp -a /before/ssh /etc/
cp -a /before/.ssh /root/
chage -E -1 gpu
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl restart ssh
else
    pkill -x sshd || true
    mkdir -p /run/sshd
    until ! ss -Hltn sport = :22 | grep -q .; do sleep 0.1; done
    /usr/sbin/sshd
    until [ -s /run/sshd.pid ]; do sleep 0.1; done
fi
"""
# What is there to see without its sshd: all files, what they would mean, what works in the background, and who listens.
LOOK = r"""
cd /etc/ssh
find . -printf '%p %M %U %G %l\n' | LC_ALL=C sort
find . -type f -exec sha256sum {} + | LC_ALL=C sort -k 2
printf '\f'
for login in "$@"; do
    mkdir -p /run/sshd
    sshd -T -C "$login" 2>&1 | LC_ALL=C sort
    printf '\f'
done
ls -d /run/gpuops* 2>/dev/null || true
find /etc -name '*.gpuops-*'
systemctl list-units --all --plain --no-legend 'gpuops-[s]shd-*' 2>/dev/null || true
pgrep -af '[g]puops-sshd' || true
printf '\f'
cat /run/sshd.pid 2>/dev/null || true
"""
# Ends when the node has put everything back, or when time is up.
HEALED = """
timeout $1 sh -c '
while [ -e /run/gpuops-sshd ] || [ -e /etc/ssh/sshd_config.d/00-gpuops.conf ]; do sleep 0.2; done
' || true
"""
# Says when the node has come so far: armed, written, reloaded, proving.
WATCH = r"""
import os, sys, time

def sockets(state):
    # Inodes; without connections of the machine to itself, which have one address at both ends.
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table][1:]
    ours = [row for row in rows if row[1].endswith(":0016") and row[3] == state and row[9] != "0"]
    return {row[9] for row in ours if state == LISTEN or row[1][:8] != row[2][:8]}

LISTEN, ESTABLISHED = "0A", "01"
listening = sockets(LISTEN)
known = None

def reached(step):
    global known
    if step == "armed":
        return os.path.exists("/run/gpuops-sshd")
    if step == "written":
        return os.path.exists("/etc/ssh/sshd_config.d/00-gpuops.conf")
    if not sockets(LISTEN) or sockets(LISTEN) == listening:
        return False
    if known is None:
        known = sockets(ESTABLISHED)
    return step == "reloaded" or sockets(ESTABLISHED) - known

print("watching", flush=True)
while not reached(sys.argv[1]):
    time.sleep(0.01)
print(sys.argv[1], flush=True)
"""
# What a hardened sshd offers.
HARDENED = ("publickey",)
OURS = re.compile("gpuops|[.]/moduli$")
HARDEN = [{"name": "Harden", "hosts": "gpu", "gather_facts": False, "roles": ["gpuops.fleet.sshd_hardening"]}]
OFTEN = [
    {
        "name": "Change something, again and again",
        "hosts": "gpu",
        "gather_facts": False,
        "tasks": [{"ansible.builtin.include_tasks": "once.yml", "loop": list(range(SOCKET_RUNS))}],
    }
]
ONCE = [
    {
        "name": "Harden",
        "ansible.builtin.include_role": {"name": "gpuops.fleet.sshd_hardening"},
        "vars": {"sshd_hardening_max_auth_tries": "{{ 3 + item % 2 }}"},
    },
    {
        "name": "Log in anew",
        "ansible.builtin.command": "{{ new_login }} /usr/sbin/sshd -T",
        "delegate_to": "localhost",
        "changed_when": False,
        "register": "seen",
        "failed_when": "'maxauthtries ' ~ (3 + item % 2) not in seen.stdout_lines",
    },
]


@dataclass(frozen=True)
class Machine:
    """A container, reached by its own address."""

    name: str
    container: str
    address: str
    password: str = ""

    def sh(self, script: str, *arguments: str, stdin: str = "") -> str:
        """Run a script past sshd."""
        return podman("exec", "-i", self.container, "sh", "-ec", script, "sh", *arguments, stdin=stdin)

    def mount(self, script: str) -> None:
        """Run a script in the mounts of this node with all rights."""
        pid = podman("inspect", "--format", "{{.State.Pid}}", self.container).strip()
        done = subprocess.run(
            as_root("nsenter", "-t", pid, "-m", "-p", "sh", "-ec", script), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{self.name}: {done.stderr}"


@dataclass(frozen=True)
class Login:
    """A new connection: whether it came in by the key, and what else sshd offered."""

    ok: bool
    methods: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class State:
    """What the node looks like from the inside, and from here."""

    files: str
    effective: tuple[str, ...]
    left: str
    pid: str
    login: Login


@dataclass(frozen=True)
class Run:
    """What ansible-playbook said."""

    rc: int
    text: str

    def recap(self, host: str) -> dict[str, int]:
        """The counters of a host at the end."""
        line = re.search(rf"^{re.escape(host)} +: (.+)$", self.text, re.MULTILINE)
        assert line, f"no recap of {host}:\n{self.text}"
        return {key: int(value) for key, value in (pair.split("=") for pair in line.group(1).split())}

    def ok(self, host: str) -> bool:
        """Whether no task of the host failed in the end."""
        counters = self.recap(host)
        return not counters["failed"] and not counters["unreachable"]

    def message(self, host: str) -> str:
        """The last failure of a host, as one line."""
        found = re.findall(rf"^fatal: \[{re.escape(host)}\]: .*\n((?:    .*\n|\n)*)", self.text, re.MULTILINE)
        # In YAML, a quote within quotes is written twice.
        return " ".join(found[-1].replace("''", "'").split()) if found else ""


@dataclass(frozen=True)
class Running:
    """A run that has not ended, and where it writes."""

    process: subprocess.Popen[bytes]
    log: Path

    def end(self) -> Run:
        """Wait for it."""
        try:
            rc = self.process.wait(PLAY_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"ansible-playbook did not end within {PLAY_SECONDS} s:\n{self.log.read_text()}")
        text = self.log.read_text()
        assert "Traceback" not in text, text
        return Run(rc, text)

    def kill(self) -> None:
        """Kill all that the run started, as when the controller's power fails; much of it has a session of its own."""
        mark = f"LOCKOUT_RUN={self.log.parent}".encode()
        while True:
            found = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if mark in environment(pid)]
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.poll()
            if not found:
                return


@dataclass
class Outcome:
    """All that was seen of a cell."""

    host: str
    before: State
    run: Run
    after: State
    session: bool = True
    again: Run | None = None
    kept: dict[str, str] = field(default_factory=dict)
    ports: dict[int, Login] = field(default_factory=dict)
    works: str = ""


@dataclass(frozen=True)
class Killed:
    """A node whose controller was killed."""

    cell: Cell
    before: State
    healed: State
    seconds: float


@dataclass(frozen=True)
class Ward:
    """The nodes of a release, and the controller's ssh directory."""

    release: str
    folder: Path
    machines: dict[str, Machine]
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    @property
    def ssh(self) -> Path:
        return self.folder / "ssh"

    @property
    def harden(self) -> Path:
        return self.folder / "harden.yml"

    @property
    def waves(self) -> list[dict[str, tuple[Cell, Machine]]]:
        """Which cells run at the same time, and where."""
        shared = [self.machines[name] for name in MACHINES if name != "sockets"]
        # Those of the gate on the oldest release are one wave.
        ordered = sorted(cells(self.release), key=lambda cell: cell.name not in DEPEND_ON_THE_RELEASE)
        with_systemd = [cell for cell in ordered if not cell.pod]
        waves = [
            {cell.name: (cell, machine) for cell, machine in zip(with_systemd[first:], shared)}
            for first in range(0, len(with_systemd), len(shared))
        ]
        for wave, cell in zip(waves, (cell for cell in ordered if cell.pod)):
            wave[cell.name] = (cell, self.machines["pod"])
        return waves

    def host(self, cell: str) -> str:
        """The name in the inventory; all messages have it, and so the release."""
        return f"{self.release}-{cell}"

    def ssh_command(self, host: str, machine: Machine, user: str, port: int = 22, ssh: Path | None = None) -> list[str]:
        """A connection of its own, that shares nothing and asks nothing."""
        ssh = ssh or self.ssh
        options = [
            "BatchMode=yes", "ControlPath=none", "ConnectTimeout=5", "IdentitiesOnly=yes",
            f"IdentityFile={ssh}/id_ed25519",
            f"UserKnownHostsFile={ssh}/known_hosts.d/gpuops", "GlobalKnownHostsFile=/dev/null", f"HostKeyAlias={host}",
            f"User={user}", f"Port={port}", f"HostName={machine.address}",
        ]  # fmt: skip
        return ["-F", "none", *(word for option in options for word in ("-o", option))]

    def login(self, host: str, machine: Machine, user: str, port: int = 22, ssh: Path | None = None) -> Login:
        """Log in."""
        command = ["ssh", "-v", *self.ssh_command(host, machine, user, port, ssh), host]
        done = subprocess.run(
            [*command, "true" if user == "root" else "sudo -n true"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
        offered = re.search(r"Authentications that can continue: (\S+)", done.stderr)
        methods = tuple(sorted(offered.group(1).split(","))) if offered else ()
        return Login(done.returncode == 0, methods, "\n".join(done.stderr.strip().splitlines()[-3:]))

    def look(self, cell: Cell, machine: Machine, methods: tuple[str, ...] = (), ssh: Path | None = None) -> State:
        """See what there is. A reload takes a moment: with `methods`, wait a few seconds until these are offered."""
        host = self.host(cell.name)
        end = time.monotonic() + 5
        while True:
            login = self.login(host, machine, cell.user, ssh=ssh)
            if not methods or login.ok and login.methods == methods or time.monotonic() > end:
                break
            # A source that fails often is turned away by OpenSSH 9.8 and later.
            time.sleep(1 if login.ok else 4)
        own = f"user={cell.user},host=localhost,addr=127.0.0.1"
        files, *effective, left, pid = machine.sh(LOOK, own, *cell.kept_for).split("\f")
        return State(files, tuple(effective), left.strip(), pid.strip(), login)

    def start(self, playbook: str | Path, hosts: dict[str, dict[str, Any]], name: str, *arguments: str) -> Running:
        """Start ansible-playbook on hosts of an inventory of its own."""
        inventory = self.folder / name
        inventory.mkdir(exist_ok=True)
        with contextlib.suppress(FileExistsError):
            (inventory / "group_vars").symlink_to(REPOSITORY / "inventory" / "group_vars")
        (inventory / "nodes.yml").write_text(json.dumps({"gpu": {"hosts": hosts}}))
        env = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "SSH_"))}
        env.update(
            HOME=str(self.folder),
            PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            ANSIBLE_CONFIG=str(REPOSITORY / "ansible.cfg"),
            ANSIBLE_NOCOLOR="1",
            LOCKOUT_RUN=str(inventory),
        )
        log = inventory / "log"
        with log.open("w") as output:
            process = subprocess.Popen(
                ["ansible-playbook", "-i", str(inventory / "nodes.yml"), playbook, *arguments],
                cwd=REPOSITORY, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        return Running(process, log)

    def play(self, playbook: str | Path, hosts: dict[str, dict[str, Any]], name: str, *arguments: str) -> Run:
        """Run ansible-playbook."""
        return self.start(playbook, hosts, name, *arguments).end()

    def variables(self, cell: Cell, machine: Machine, seconds: int = 120) -> dict[str, Any]:
        """What the inventory says of a cell."""
        return {
            "ansible_host": machine.address,
            "ansible_port": 22,
            "ansible_user": cell.user,
            "ssh_bootstrap_dir": str(self.ssh),
            "sshd_hardening_rollback_seconds": seconds,
            **cell.variables,
        }

    def prepare(self, cell: Cell, machine: Machine) -> None:
        """Bring a node into the state of the cell."""
        if not cell.pod:
            machine.mount(UNMOUNT)
        machine.sh(RESTORE + cell.prepare)
        if cell.mount:
            machine.mount(cell.mount)

    def wave(self, members: dict[str, tuple[Cell, Machine]]) -> None:
        """Run cells at the same time, each on a node of its own, and note what is seen."""
        hosts = {self.host(name): self.variables(cell, machine) for name, (cell, machine) in members.items()}
        beside = {
            f"{self.host(name)}-beside": {**hosts[self.host(name)], **cell.beside}
            for name, (cell, _machine) in members.items()
            if cell.beside
        }
        with contextlib.ExitStack() as stack, ThreadPoolExecutor(4) as pool:

            def each(do: Any) -> dict[str, Any]:
                return dict(zip(members, pool.map(lambda name: do(name, *members[name]), members)))

            each(lambda _name, cell, machine: self.prepare(cell, machine))
            sessions = {
                name: stack.enter_context(self.session(cell, machine)) for name, (cell, machine) in members.items()
            }
            before = each(lambda _name, cell, machine: self.look(cell, machine))
            run = self.play(self.harden, {**hosts, **beside}, "wave", "-l", ",".join(hosts))

            def seen(name: str, cell: Cell, machine: Machine) -> Outcome:
                methods = before[name].login.methods if not run.ok(self.host(name)) else HARDENED
                outcome = Outcome(self.host(name), before[name], run, self.look(cell, machine, methods))
                outcome.session = alive(sessions[name])
                if not cell.refused:
                    outcome.works = machine.sh(f"{{ {cell.works}; }} >&2 && echo works || echo does not work")
                    outcome.kept = self.kept(cell, machine)
                    outcome.ports = {
                        port: self.login(self.host(name), machine, cell.user, port) for port in cell.ports if port != 22
                    }
                return outcome

            self.outcomes.update(each(seen))
            settled = {self.host(name): hosts[self.host(name)] for name in members if run.ok(self.host(name))}
            if settled:
                again = self.play(self.harden, settled, "again")
                for name in members:
                    if self.host(name) in settled:
                        self.outcomes[name].again = again
            each(lambda _name, cell, machine: None if cell.pod else machine.mount(UNMOUNT))

    def kill(self, step: str, machine: Machine) -> Killed:
        """Kill the controller when the node has come to a step, and wait until the node has healed."""
        cell = Cell(f"killed-{step}", pod=machine.name == "pod")
        host = self.host(cell.name)
        self.prepare(cell, machine)
        before = self.look(cell, machine)
        watch = as_root("podman", "exec", machine.container, "python3", "-c", WATCH, step.partition("-")[0])
        with subprocess.Popen(watch, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as watching:
            assert watching.stdout
            assert watching.stdout.readline() == "watching\n"
            run = self.start(self.harden, {host: self.variables(cell, machine, ROLLBACK_SECONDS)}, cell.name)
            while watching.poll() is None and run.process.poll() is None:
                time.sleep(0.01)
            run.kill()
            watching.kill()
            assert watching.stdout.read(), f"{host}: the run ended before that step:\n{run.log.read_text()}"
        since = time.monotonic()
        machine.sh(HEALED, str(3 * ROLLBACK_SECONDS))
        seconds = time.monotonic() - since
        return Killed(cell, before, self.look(cell, machine, before.login.methods), seconds)

    @contextlib.contextmanager
    def session(self, cell: Cell, machine: Machine) -> Iterator[subprocess.Popen[str]]:
        """What runs in a connection of before."""
        host = self.host(cell.name)
        command = ["ssh", *self.ssh_command(host, machine, cell.user), host, "cat"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert alive(process), f"{host}: nobody gets in even before the change"
            try:
                yield process
            finally:
                process.kill()

    def kept(self, cell: Cell, machine: Machine) -> dict[str, str]:
        """What people use beside a shell; each answers with a word."""
        host = self.host(cell.name)
        options = self.ssh_command(host, machine, cell.user)

        def output(*command: str, text: str = "") -> str:
            done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=30)
            return (done.stdout + done.stderr).strip()

        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        forward = ["ssh", "-N", *options, "-L", f"127.0.0.1:{port}:127.0.0.1:22", host]
        with subprocess.Popen(forward, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            try:
                through = greeting(port, time.monotonic() + 10)
            finally:
                process.kill()
        return {
            "sftp": output("sftp", "-b", "-", *options, host, text="pwd\n"),
            "-W": output("ssh", *options, "-W", "127.0.0.1:22", host),
            "-L": through,
        }

    def outcome(self, name: str) -> Outcome:
        """What was seen of a cell; the whole wave is run when the first one is asked for."""
        if name not in self.outcomes:
            self.wave(next(wave for wave in self.waves if name in wave))
        return self.outcomes[name]

    def faults(self, name: str) -> list[str]:
        """Return all that is not as a cell wants it."""
        return faults(next(cell for cell in cells(self.release) if cell.name == name), self.outcome(name))


def environment(pid: int) -> list[bytes]:
    """The environment of a process; none of one that has ended or is another user's."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def alive(session: subprocess.Popen[str]) -> bool:
    """Whether what was opened before still answers."""
    assert session.stdin
    assert session.stdout
    try:
        session.stdin.write("still here\n")
        session.stdin.flush()
    except OSError:
        return False
    return session.stdout.readline() == "still here\n"


def greeting(port: int, end: float) -> str:
    """The first bytes of the server behind a local port."""
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                return connection.recv(8).decode(errors="replace")
        except OSError as error:
            if time.monotonic() > end:
                return str(error)
            time.sleep(0.1)


def difference(before: str, after: str) -> str:
    """The lines that are not the same, and of a long one its beginning."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), "before", "after", lineterm="", n=0)
    return "\n".join(line[:160] for line in lines)


def want_none(host: str, found: list[str]) -> None:
    """Say which cell failed, and all that was seen."""
    if found:
        pytest.fail("\n".join([f"{host}:", *found]), pytrace=False)


def faults_of_run(run: Run, host: str) -> list[str]:
    """The message, where there should be none."""
    return [] if run.ok(host) else [f"the run failed: {run.message(host)}"]


def faults_of_state(state: State, methods: tuple[str, ...]) -> list[str]:
    """In by key, with what sshd should offer, and nothing left."""
    found = []
    if not state.login.ok:
        found.append(f"LOCKED OUT: {state.login.text}")
    elif state.login.methods != methods:
        found.append(f"sshd offers {', '.join(state.login.methods)} and not {', '.join(methods)}")
    if state.left:
        found.append(f"left behind: {state.left}")
    return found


def faults(cell: Cell, seen: Outcome) -> list[str]:
    """All that is not as the cell wants it."""
    found = faults_of_state(seen.after, seen.before.login.methods if cell.refused else HARDENED)
    if not seen.session:
        found.append("the session of before has ended")
    message = seen.run.message(seen.host)
    if cell.refused:
        found += faults_of_refusal(cell, seen, message)
    elif not seen.run.ok(seen.host):
        found.append(f"the change was not made: {message}")
    else:
        found += faults_of_change(cell, seen)
    return found


def faults_of_refusal(cell: Cell, seen: Outcome, message: str) -> list[str]:
    """As before, and a message with the reason."""
    found = []
    if seen.run.ok(seen.host):
        found.append("the change was made")
    for wanted in (cell.refused, re.escape(seen.host), "[Nn]ext:"):
        if not re.search(wanted, message):
            found.append(f"no {wanted!r} in the message: {message}")
    if changed := difference(seen.before.files, seen.after.files):
        found.append(f"files are not as before:\n{changed}")
    if changed := difference("\n".join(seen.before.effective), "\n".join(seen.after.effective)):
        found.append(f"sshd -T is not as before:\n{changed}")
    if seen.after.pid != seen.before.pid:
        found.append("sshd was not reloaded but started anew")
    return found


def faults_of_change(cell: Cell, seen: Outcome) -> list[str]:
    """Hardened, and all else as before."""
    found = []
    hardened = ("passwordauthentication no", "kbdinteractiveauthentication no", "permitemptypasswords no")
    for line in (*hardened, *cell.wanted):
        if f"\n{line}\n" not in f"\n{seen.after.effective[0]}":
            found.append(f"sshd -T does not say: {line}")
    for (login, lines), effective in zip(cell.kept_for.items(), seen.after.effective[1:]):
        found += [
            f"sshd -T for {login} does not say: {line}" for line in lines if f"\n{line}\n" not in f"\n{effective}"
        ]
    changed = difference(seen.before.files, seen.after.files)
    # Small groups are taken out of moduli; the file of before is kept beside it.
    if foreign := [line for line in changed.splitlines()[2:] if line[0] in "-+" and not OURS.search(line)]:
        found.append("files of others are not as before:\n" + "\n".join(foreign))
    if seen.after.pid != seen.before.pid:
        found.append("sshd was not reloaded but started anew")
    for what, words in (("sftp", "Remote working directory"), ("-W", "SSH-2.0"), ("-L", "SSH-2.0")):
        if words not in seen.kept[what]:
            found.append(f"{what} does not work any more: {seen.kept[what]}")
    if seen.works != "works\n":
        found.append(f"{cell.works}: {seen.works}")
    found += [f"no login on port {port}: {login.text}" for port, login in seen.ports.items() if not login.ok]
    if not seen.again or not seen.again.ok(seen.host) or seen.again.recap(seen.host)["changed"]:
        found.append(f"the second run: {seen.again.text if seen.again else 'none'}")
    return found


def start_nodes(folder: Path, release: str, lab: list[str]) -> dict[str, Machine]:
    """Machines with systemd as the lab starts them, and one whose first process is `sleep`."""
    subprocess.run([*lab, "up", *(f"{name}={release}:t4x1-470" for name in MACHINES)], check=True)
    started = json.loads((folder / "inventory" / "nodes.yml").read_text())["gpu"]["hosts"]
    containers = {
        name: (str(started[name]["lab_container"]), str(started[name]["ansible_password"])) for name in MACHINES
    }
    pod = f"{lab_name(folder)}-pod"
    image = node_image(release, "simulated")
    labels = ["--label", f"{LABEL}={lab_name(folder)}"]
    podman(
        "run", "--detach", "--name", pod, "--hostname", "pod", *labels, image, "sleep", "infinity", probe_image=image
    )
    podman("exec", pod, "sh", "-ec", "ssh-keygen -A; mkdir -p /run/sshd; /usr/sbin/sshd")
    address = "{{.NetworkSettings.IPAddress}}"
    return {
        name: Machine(name, container, podman("inspect", "--format", address, container).strip(), password)
        for name, (container, password) in {**containers, "pod": (pod, "")}.items()
    }


def pin(ward: Ward) -> None:
    """Know the host keys under the names of the inventory."""
    known = {name: machine for wave in ward.waves for name, (_cell, machine) in wave.items()}
    known.update({f"{name}-beside": machine for name, machine in known.items()})
    known.update({f"killed-{step}": ward.machines[name] for step, name in KILLED.items()})
    known["sockets"] = ward.machines["sockets"]
    keys = {machine.name: machine.sh("cat /etc/ssh/ssh_host_ed25519_key.pub") for machine in ward.machines.values()}
    file = ward.ssh / "known_hosts.d" / "gpuops"
    file.parent.mkdir()
    file.write_text("".join(f"{ward.host(name)} {keys[machine.name]}" for name, machine in known.items()))


def on(release: str, *, in_gate: bool) -> Any:
    """Return a release, its nodes' worker, and whether only `make test-all` has it."""
    only_there = () if in_gate else (pytest.mark.full("trust"),)
    return pytest.param(release, marks=(pytest.mark.xdist_group(f"lockout-{release}"), *only_there))


def nodes_of(*releases: Any) -> pytest.MarkDecorator:
    """Return the mark of a test that is made for each of these releases."""
    return pytest.mark.parametrize("ward", releases, indirect=True, scope="module")


each_release = nodes_of(*(on(release, in_gate=release == NEWEST) for release in RELEASES))


@pytest.fixture(scope="module")
def ward(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    """The nodes of a release."""
    folder = tmp_path_factory.mktemp("w")
    lab = [sys.executable, str(LAB), "--dir", str(folder)]
    try:
        ward = Ward(request.param, folder, start_nodes(folder, request.param, lab))
        ward.ssh.mkdir(mode=0o700)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(ward.ssh / "id_ed25519")], check=True)
        key = (ward.ssh / "id_ed25519.pub").read_text()
        for name, playbook in (("harden", HARDEN), ("often", OFTEN), ("once", ONCE)):
            (folder / f"{name}.yml").write_text(json.dumps(playbook))
        for machine in ward.machines.values():
            machine.sh(PREPARE, stdin=key)
        pin(ward)
        yield ward
    finally:
        subprocess.run([*lab, "down"], check=True)


@pytest.fixture(scope="module")
def kills(ward: Ward) -> dict[str, Killed]:
    """The controller killed at each step, each time on another node."""
    with ThreadPoolExecutor(len(KILLED)) as pool:
        return dict(zip(KILLED, pool.map(lambda step: ward.kill(step, ward.machines[KILLED[step]]), KILLED)))


@pytest.fixture(scope="module")
def after_kills(ward: Ward, kills: dict[str, Killed]) -> tuple[Run, dict[str, State]]:
    """A run that nobody disturbs."""
    machines = {step: ward.machines[name] for step, name in KILLED.items()}
    hosts = {ward.host(kill.cell.name): ward.variables(kill.cell, machines[step]) for step, kill in kills.items()}
    run = ward.play(ward.harden, hosts, "after-kills")
    return run, {step: ward.look(kill.cell, machines[step], HARDENED) for step, kill in kills.items()}


@each_release
@pytest.mark.parametrize("name", [cell.name for cell in cells(NEWEST)])
def test_door_stays_open(ward: Ward, name: str) -> None:
    want_none(ward.host(name), ward.faults(name))


@nodes_of(on(OLDEST, in_gate=True))
@pytest.mark.parametrize("name", DEPEND_ON_THE_RELEASE)
def test_door_stays_open_with_the_oldest_openssh(ward: Ward, name: str) -> None:
    want_none(ward.host(name), ward.faults(name))


@each_release
@pytest.mark.parametrize("step", KILLED)
def test_node_heals_when_the_controller_is_killed(ward: Ward, kills: dict[str, Killed], step: str) -> None:
    killed = kills[step]
    found = faults_of_state(killed.healed, killed.before.login.methods)
    if changed := difference(killed.before.files, killed.healed.files):
        found.append(f"files are not as before:\n{changed}")
    if killed.seconds > ROLLBACK_SECONDS + 10:
        found.append(f"it took {killed.seconds:.0f} seconds")
    want_none(ward.host(killed.cell.name), found)


@each_release
@pytest.mark.parametrize("step", KILLED)
def test_next_run_after_a_kill_hardens(
    ward: Ward, kills: dict[str, Killed], after_kills: tuple[Run, dict[str, State]], step: str
) -> None:
    run, states = after_kills
    host = ward.host(kills[step].cell.name)
    want_none(host, faults_of_run(run, host) + faults_of_state(states[step], HARDENED))


# On these releases the Molecule scenario `default` begins so, too.
@nodes_of(*(on(release, in_gate=False) for release in RELEASES))
def test_first_contact_by_password_ends_hardened(ward: Ward) -> None:
    machine = ward.machines["one"]
    cell = Cell("first-contact", "rm -rf /root/.ssh")
    host = ward.host(cell.name)
    ward.prepare(cell, machine)
    ssh = ward.folder / "first-contact" / "ssh"
    variables = {**ward.variables(cell, machine), "ansible_password": machine.password, "ssh_bootstrap_dir": str(ssh)}
    run = ward.play("site.yml", {host: variables}, cell.name, "--tags", "reach,trust")
    want_none(host, faults_of_run(run, host) + faults_of_state(ward.look(cell, machine, HARDENED, ssh), HARDENED))


@each_release
def test_each_of_ten_changes_with_socket_activation_lets_us_in(ward: Ward) -> None:
    """Each connection has an sshd of its own, which systemd starts."""
    machine = ward.machines["sockets"]
    machine.sh("systemctl disable --now ssh.service; systemctl enable --now ssh.socket")
    cell = Cell("sockets")
    host = ward.host(cell.name)
    new_login = shlex.join(["ssh", *ward.ssh_command(host, machine, cell.user), host])
    variables = ward.variables(cell, machine)
    run = ward.play(ward.folder / "often.yml", {host: {**variables, "new_login": new_login}}, cell.name)
    found = faults_of_run(run, host)
    if run.recap(host)["changed"] < SOCKET_RUNS:
        found.append(f"not all runs changed something: {run.recap(host)}")
    found += faults_of_state(ward.look(cell, machine), HARDENED)
    again = ward.play(ward.harden, {host: variables}, "again")
    if not again.ok(host) or again.recap(host)["changed"]:
        found.append(f"the run after: {again.text}")
    want_none(host, found)
