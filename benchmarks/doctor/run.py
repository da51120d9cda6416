# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure the doctor's playbook against ansible -m ping on the same nodes, and print a table.

From the top of the repository, as root: .venv/bin/python benchmarks/doctor/run.py
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
NODES = 64
PORT = 2222
LIMIT = 10
REPEAT = 3


@contextmanager
def sshd(folder: Path, address: str) -> Iterator[None]:
    """One node: an sshd with a host key and processes of its own, so that no two look like one machine."""
    key = folder / f"host-{address}"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    options = {
        "ListenAddress": address,
        "Port": PORT,
        "HostKey": key,
        "PidFile": "none",
        "UsePAM": "yes",
        "AuthorizedKeysFile": folder / "key.pub",
        "StrictModes": "no",
        "Subsystem": "sftp internal-sftp",
    }
    daemon = ["/usr/sbin/sshd", "-D", "-f", "/dev/null", *(f"-o{name}={value}" for name, value in options.items())]
    # A login on a new machine runs none of the start-up files that root has here.
    empty_home = ["sh", "-ec", 'mount -t tmpfs tmpfs "$HOME"; exec "$@"', "sh"]
    process = subprocess.Popen(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", *empty_home, *daemon],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def black_hole() -> Iterator[int]:
    """A port that never answers: nobody takes the connections that wait there already, so the next ones are dropped."""
    with socket.socket() as listener, ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _client in range(2):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def wait_for(address: str) -> None:
    """Wait until a node listens."""
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection((address, PORT), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def write_inventory(folder: Path, addresses: list[str], hole: int) -> None:
    """The nodes, the port that never answers, and what is known of them."""
    known = [f"[{address}]:{PORT} {(folder / f'host-{address}.pub').read_text()}" for address in addresses]
    (folder / "known_hosts").write_text("".join(known))
    hosts: dict[str, dict[str, object]] = {
        f"node-{number}": {"ansible_host": address, "ansible_port": PORT} for number, address in enumerate(addresses, 1)
    }
    hosts["hole"] = {"ansible_host": "127.0.0.1", "ansible_port": hole}
    options = ["-F", "/dev/null", "-o", f"UserKnownHostsFile={folder}/known_hosts", "-o", "IdentitiesOnly=yes"]
    variables = {
        "ansible_user": "root",
        "ansible_python_interpreter": "/usr/bin/python3",
        "ansible_ssh_private_key_file": str(folder / "key"),
        "ansible_ssh_common_args": shlex.join(options),
    }
    (folder / "inventory.json").write_text(json.dumps({"gpu": {"hosts": hosts, "vars": variables}}))


def timed(folder: Path, command: list[str], rc: int) -> float:
    """Seconds of a run that ends with this exit code; its connections are new ones."""
    with tempfile.TemporaryDirectory(dir=folder) as sockets:
        env = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "SSH_"))},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
            "TMPDIR": str(folder),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": sockets,
            "ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=2s",
        }
        start = time.monotonic()
        done = subprocess.run(
            [*command, "-i", str(folder / "inventory.json"), "-f", str(NODES)],
            cwd=REPOSITORY, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        seconds = time.monotonic() - start
        time.sleep(3)  # until Ansible's own connections have ended
    if done.returncode != rc:
        raise SystemExit(f"{shlex.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return seconds


def inside(folder: Path) -> float:
    """The seconds that the doctor itself took for its slowest node."""
    nodes = json.loads((folder / "doctor.json").read_text())["nodes"].values()
    return max(sum(stage["ms"] for stage in node["stages"]) for node in nodes) / 1000


def measure(folder: Path) -> None:
    """Print the table; ping and doctor take turns, so that a busy moment of the machine is one of both."""
    doctor = ["ansible-playbook", "playbooks/doctor.yml", "-e", f"doctor_json={folder}/doctor.json"]
    print("| nodes | ansible -m ping | doctor | ratio | slowest node, without Ansible |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, limit, rc in (("one", "node-1", 0), (str(NODES), "node-*", 0), (f"black hole, {LIMIT} s", "hole", 4)):
        took: dict[str, list[float]] = {"ping": [], "doctor": [], "inside": []}
        for _round in range(REPEAT):
            took["ping"].append(timed(folder, ["ansible", limit, "-m", "ping", "-T", str(LIMIT)], rc))
            took["doctor"].append(timed(folder, [*doctor, "-l", limit], rc))
            took["inside"].append(inside(folder))
        ping, whole, own = (statistics.median(values) for values in took.values())
        print(f"| {name} | {ping:.2f} s | {whole:.2f} s | {whole / ping:.1f} | {own:.2f} s |", flush=True)


def main() -> None:
    addresses = [f"127.0.1.{number}" for number in range(1, NODES + 1)]
    Path("/run/sshd").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True)
        for address in addresses:
            stack.enter_context(sshd(folder, address))
        for address in addresses:
            wait_for(address)
        write_inventory(folder, addresses, stack.enter_context(black_hole()))
        measure(folder)


if __name__ == "__main__":
    main()
