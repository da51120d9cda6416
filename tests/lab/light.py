# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Light nodes: many machines on this one, without containers and without systemd, started in milliseconds.

Each is an sshd in namespaces of its own, on an address of its own, over the root file system of a node image. What it
writes goes to a layer of its own, which is dropped to restore it. They reach one another and this machine only.
For scale, and for what needs no systemd. Linux, root, and an overlay file system that may lie on the image's.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import typing as t
from dataclasses import dataclass
from pathlib import Path

import lab
from podman import LabError, podman

SCRIPT = Path(__file__).with_name("light_node.sh")
# One lab of light nodes at a time has the bridge. 198.18.0.0/15 is for tests of networks (RFC 2544).
BRIDGE = "gpuops-light"
NETWORK = "198.18.0.1/16"
START_SECONDS = 60
NAMESPACES = ["--mount", "--uts", "--ipc", "--pid", "--net"]
# What lab.py does for each node, once for all of them: a layer between theirs and the image.
HAND_OUT = """
mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" handed "$2/root"
mount -t proc proc "$2/root/proc"
exec chroot "$2/root" sh -ec '
    chpasswd
    echo "$1" > /etc/gpuops-lab/machine
    python3 /opt/gpuops-lab/simulator/sysroot.py --machine "$1" --dest /opt/gpuops-lab/sysroot
    echo GPUOPS_SYSROOT=/opt/gpuops-lab/sysroot >> /etc/environment
    rm -f /etc/ssh/ssh_host_*' sh "$3"
"""


class NoLightNodesError(LabError):
    """This machine cannot have light nodes: no root, or no overlay on the file system of the images."""


@dataclass
class LightNode:
    """One of them; the process is unshare, whose only child is process 1 of the node."""

    name: str
    address: str
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    def first_process(self) -> int:
        """Return the id that process 1 of the node has on this machine."""
        assert self.process
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])


class LightLab:
    """Light nodes of one machine type, and their inventory; a context manager."""

    def __init__(self, folder: Path, count: int, machine: str = "h100x8-570", release: str = "deb12") -> None:
        self.folder = folder.resolve()
        self.machine = machine
        self.release = release
        self.password = secrets.token_urlsafe(12)
        self.nodes = {
            name: LightNode(name, f"198.18.{1 + index // 250}.{1 + index % 250}", self.folder / "nodes" / name)
            for index, name in enumerate(f"light-{number}" for number in range(1, count + 1))
        }
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> LightLab:
        if os.geteuid():
            raise NoLightNodesError("light nodes need root; next: sudo, or use lab.py")
        with self._stack:
            self._lock()
            lower = self._image()
            self._lower = f"{self._hand_out(lower)}:{lower}"
            self._bridge()
            self._stack.callback(self._stop_all)
            for node in self.nodes.values():
                self.start(node.name)
            for node in self.nodes.values():
                self._wait(node)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

    def inventory(self) -> dict[str, dict[str, t.Any]]:
        """Return the variables of each node as the inventory has them."""
        return {
            node.name: {
                "ansible_host": node.address,
                "ansible_password": self.password,
                "ssh_bootstrap_dir": str(self.folder / "home" / ".ssh"),
            }
            for node in self.nodes.values()
        }

    def write_inventory(self) -> Path:
        """Write the inventory, with the group_vars that users get, and return its folder."""
        group_vars = self.folder / "inventory" / "group_vars"
        group_vars.parent.mkdir(parents=True)
        group_vars.symlink_to(lab.REPOSITORY / "inventory" / "group_vars")
        nodes = group_vars.with_name("nodes.yml")
        nodes.touch(mode=0o600)
        nodes.write_text(json.dumps({"gpu": {"hosts": self.inventory()}}))
        return group_vars.parent

    def sh(self, name: str, script: str) -> str:
        """Run a script on a node past its sshd."""
        command = ["nsenter", "--target", str(self.nodes[name].first_process()), *NAMESPACES, "sh", "-ec", script]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout

    def start(self, name: str) -> None:
        """Start a node that does not run, with the disk and the host key that it has."""
        node = self.nodes[name]
        for part in ("upper/etc/ssh", "work", "root"):
            (node.folder / part).mkdir(parents=True, exist_ok=True)
        (node.folder / "upper" / "etc" / "hostname").write_text(f"{name}\n")
        self._copy_host_key(node)
        # It ends with this process, however that ends.
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", *NAMESPACES, "--fork", "--kill-child"]
        with (node.folder / "log").open("ab") as log:
            node.process = subprocess.Popen(
                [*command, "sh", str(SCRIPT), name, str(node.folder), self._lower],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._connect(node)

    def stop(self, name: str) -> None:
        """Kill all processes of a node; the kernel takes its mounts away."""
        node = self.nodes[name]
        if node.process:
            with contextlib.suppress(OSError, IndexError):
                os.kill(node.first_process(), signal.SIGKILL)
            node.process.kill()
            node.process.wait()
            node.process = None
            # It goes with the namespace, but not at once.
            subprocess.run(["ip", "link", "del", _cable(node)], capture_output=True, check=False)

    def restore(self, name: str) -> None:
        """Bring a node back to how it was handed out; its host key stays."""
        self.stop(name)
        for part in ("upper", "work"):
            shutil.rmtree(self.nodes[name].folder / part)
        self.start(name)
        self._wait(self.nodes[name])

    def _lock(self) -> None:
        lock = os.open(Path(tempfile.gettempdir(), f"{BRIDGE}.lock"), os.O_CREAT | os.O_WRONLY, 0o600)
        self._stack.callback(os.close, lock)
        fcntl.flock(lock, fcntl.LOCK_EX)

    def _image(self) -> str:
        node = lab.Node("light", self.release, self.machine)
        image = lab.images([node])[node]
        self._stack.callback(podman, "image", "unmount", image)
        return podman("image", "mount", image).strip()

    def _hand_out(self, lower: str) -> Path:
        handed = self.folder / "handed"
        for part in ("upper", "work", "root"):
            (handed / part).mkdir(parents=True)
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-ec", HAND_OUT, "sh", lower, str(handed), self.machine],
            input=f"root:{self.password}\n",
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise NoLightNodesError(f"no light nodes on this machine: {done.stderr.strip()}; next: use lab.py")
        return handed / "upper"

    def _bridge(self) -> None:
        # That of a process that was killed; the nodes of it are gone.
        subprocess.run(["ip", "link", "del", BRIDGE], capture_output=True, check=False)
        for command in (
            f"ip link add {BRIDGE} type bridge",
            f"ip addr add {NETWORK} dev {BRIDGE}",
            f"ip link set {BRIDGE} up",
        ):
            _run(command.split())
        self._stack.callback(_run, ["ip", "link", "del", BRIDGE])

    def _connect(self, node: LightNode) -> None:
        """Give a node its end of a cable, as soon as it has a network namespace of its own."""
        assert node.process
        pid = node.process.pid
        ours = os.readlink("/proc/self/ns/net")
        end = time.monotonic() + START_SECONDS
        while os.readlink(f"/proc/{pid}/ns/net") == ours:
            if node.process.poll() is not None or time.monotonic() > end:
                raise LabError(f"{node.name} did not start: {(node.folder / 'log').read_text().strip()}")
            time.sleep(0.002)
        # The same after a restart: whoever talked to the node would go on with the old one for a minute.
        mac = "02:00:" + ":".join(f"{int(part):02x}" for part in node.address.split("."))
        peer = ["peer", "name", "eth0", "address", mac, "netns", str(pid)]
        _run(["ip", "link", "add", _cable(node), "master", BRIDGE, "up", "type", "veth", *peer])
        inside = f"ip addr add {node.address}/16 dev eth0; ip link set eth0 up"
        _run(["nsenter", "--target", str(pid), "--net", "sh", "-ec", inside])

    def _copy_host_key(self, node: LightNode) -> None:
        key = node.folder / "ssh_host_ed25519_key"
        if not key.exists():
            _run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", node.name, "-f", str(key)])
        for half in (key, key.with_suffix(".pub")):
            shutil.copy2(half, node.folder / "upper" / "etc" / "ssh")

    def _wait(self, node: LightNode) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection((node.address, 22), 1) as there:
                if there.recv(4) == b"SSH-":
                    return
            time.sleep(0.01)
        raise LabError(f"{node.name} does not answer: {(node.folder / 'log').read_text().strip()}")

    def _stop_all(self) -> None:
        for name in self.nodes:
            self.stop(name)


def _cable(node: LightNode) -> str:
    """Return the name of a node's link on the bridge."""
    return f"gpuops-{node.name.rpartition('-')[2]}"


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
