# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many GPU nodes on this machine: an sshd for each, on an address of 127.0.0.0/8, and a simulated machine behind it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

SIMULATOR = Path(__file__).resolve().parents[2] / "tests" / "lab" / "simulator"
MACHINE = "h100x8-570"
RELAYED = "relayed"
START_SECONDS = 30
REPLAY = """#!/bin/sh
case $SSH_ORIGINAL_COMMAND in
    *" gpu_probe gpuops-"*)
        marker=${{SSH_ORIGINAL_COMMAND##*" gpu_probe "}}
        sleep {seconds}
        exec sed "s/^recorded /${{marker%% *}} /" "{answer}"
        ;;
esac
exec sh -c "$SSH_ORIGINAL_COMMAND"
"""


@dataclass(frozen=True)
class Cpu:
    """Seconds of processor time: of the shared connections of the controller, and of the nodes."""

    connections: float
    nodes: float


class Relay(threading.Thread):
    """Pass one connection at a time on to a node, and count the bytes."""

    def __init__(self, node: tuple[str, int]) -> None:
        super().__init__(daemon=True)
        self.node = node
        self.server = socket.create_server(("127.0.0.1", 0))
        self.to_node = self.from_node = 0

    def run(self) -> None:
        while True:
            client, _address = self.server.accept()
            with client, socket.create_connection(self.node) as node:
                back = threading.Thread(target=self.answer, args=(node, client))
                back.start()
                while data := client.recv(65536):
                    self.to_node += len(data)
                    node.sendall(data)
                node.shutdown(socket.SHUT_WR)
                back.join()

    def answer(self, node: socket.socket, client: socket.socket) -> None:
        while data := node.recv(65536):
            self.from_node += len(data)
            client.sendall(data)


class Fleet:
    """The nodes, and the ssh_config by which they are reached from its folder."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        self.names = [f"127.0.{1 + index // 250}.{1 + index % 250}" for index in range(count)]
        self.daemons: list[subprocess.Popen[bytes]] = []
        node = folder / "node"
        self.node_environment = {
            "HOME": f"{node}/home",
            "GPUOPS_SYSROOT": f"{node}/root",
            "PATH": f"{node}/bin:/usr/bin:/bin",
        }
        with socket.create_server(("", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.relay = Relay((self.names[0], self.port))

    def __enter__(self) -> Fleet:
        self.write_node()
        self.write_ssh()
        sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin") or "/usr/sbin/sshd"
        try:
            for name in self.names:
                command = [sshd, "-D", "-e", "-f", f"{self.folder}/sshd_config", "-o", f"ListenAddress={name}"]
                self.daemons.append(subprocess.Popen(command, stdin=subprocess.DEVNULL))
            for name in self.names:
                self.wait_for(name)
        except BaseException:
            self.__exit__()
            raise
        self.relay.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()
        for daemon in self.daemons:
            daemon.terminate()
        for daemon in self.daemons:
            daemon.wait()

    def wait_for(self, name: str) -> None:
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection((name, self.port)).close()
                return
            except ConnectionRefusedError:
                if time.monotonic() > end or any(daemon.poll() is not None for daemon in self.daemons):
                    raise SystemExit(f"sshd of {name} does not run; see what it said above") from None
                time.sleep(0.05)

    def write_node(self) -> None:
        """What each node has: an nvidia-smi that prints ready answers, and the files of a simulated machine."""
        node = self.folder / "node"
        for new in ("bin", "home"):
            (node / new).mkdir(parents=True)
        (node / "bin" / "nvidia-smi").symlink_to(SIMULATOR / "recorded_smi.sh")
        tree = ("--machine", MACHINE, "--dest", node / "root", "--answers")
        subprocess.run([sys.executable, SIMULATOR / "sysroot.py", *tree], check=True)

    def replay(self, answer: str, seconds: float) -> None:
        """From now on the nodes answer gpu_probe with a recording, and leave the processors to the controller."""
        recorded, script = self.folder / "recorded", self.folder / "replay"
        recorded.write_text(answer)
        script.write_text(REPLAY.format(seconds=seconds, answer=recorded))
        script.chmod(0o755)
        with (self.folder / "sshd_config").open("a") as config:
            config.write(f"ForceCommand {script}\n")
        self.close()
        for daemon in self.daemons:
            daemon.send_signal(signal.SIGHUP)
        for name in self.names:
            self.wait_for(name)

    def write_ssh(self) -> None:
        for key in ("host_key", "user_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / key], check=True)
        variables = " ".join(f"{name}={value}" for name, value in self.node_environment.items())
        (self.folder / "sshd_config").write_text(
            f"Port {self.port}\nHostKey {self.folder}/host_key\nAuthorizedKeysFile {self.folder}/user_key.pub\n"
            "PidFile none\nStrictModes no\nUsePAM no\nLogLevel FATAL\n"
            f"SetEnv {variables}\n"
        )
        (self.folder / "known_hosts").write_text(f"node {(self.folder / 'host_key.pub').read_text()}")
        # Compression and shared connections are Ansible's defaults; in a file all tools have the same.
        (self.folder / "ssh_config").write_text(
            f"Host {RELAYED}\n  HostName 127.0.0.1\n  Port {self.relay.server.getsockname()[1]}\n"
            f"Host *\n  Port {self.port}\n  IdentityFile {self.folder}/user_key\n  IdentitiesOnly yes\n"
            f"  HostKeyAlias node\n  UserKnownHostsFile {self.folder}/known_hosts\n  Compression yes\n"
            f"  ControlMaster auto\n  ControlPersist 30m\n  ControlPath {self.folder}/cp-%n\n"
        )

    def ssh(self, *arguments: str) -> None:
        # The shared connection keeps stderr open, so that must not be a pipe.
        subprocess.run(
            ["ssh", "-F", self.folder / "ssh_config", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )

    def open(self, names: list[str]) -> None:
        """Have a shared connection to each of these."""
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda name: self.ssh(name, "true"), names))

    def close(self) -> None:
        """End the shared connections."""
        with ThreadPoolExecutor(4) as pool:
            sockets = list(self.folder.glob("cp-*"))
            list(pool.map(lambda path: self.ssh("-O", "exit", path.name.removeprefix("cp-")), sockets))
        while any(self.folder.glob("cp-*")):
            time.sleep(0.05)

    def cpu(self) -> Cpu:
        """What was spent so far, by living processes and the children that they have waited for."""
        parents: dict[int, int] = {}
        spent: dict[int, float] = {}
        shared: set[int] = set()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                stat = (process / "stat").read_text().rpartition(")")[2].split()
                command = (process / "cmdline").read_bytes()
            except OSError:
                continue
            pid = int(process.name)
            parents[pid] = int(stat[1])
            spent[pid] = sum(map(int, stat[11:15])) / os.sysconf("SC_CLK_TCK")
            if command.startswith(f"ssh: {self.folder}/cp-".encode()):
                shared.add(pid)
        nodes = {daemon.pid for daemon in self.daemons}
        found = nodes
        while found := {pid for pid, parent in parents.items() if parent in found}:
            nodes = nodes | found
        return Cpu(sum(spent[pid] for pid in shared), sum(spent.get(pid, 0) for pid in nodes))
