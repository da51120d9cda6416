# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""New machines with GPUs that let us in by a key, as root and as guest."""

from __future__ import annotations

import json
import subprocess
import sys
import typing as t
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from podman import podman

if t.TYPE_CHECKING:
    from collections.abc import Iterator

LAB = [sys.executable, str(Path(__file__).with_name("lab.py"))]
SET_FAULT = "python3 /opt/gpuops-lab/simulator/set_fault.py"
ALLOW = """
install -d -m 700 /root/.ssh
cat > /root/.ssh/authorized_keys
useradd --create-home --shell /bin/bash guest
cp -r /root/.ssh /home/guest/
chown -R guest: /home/guest/.ssh
"""


@contextmanager
def gpu_lab(folder: Path, nodes: dict[str, str]) -> Iterator[dict[str, dict[str, t.Any]]]:
    """Bring up nodes, name -> kind, and give their entries in the inventory."""
    try:
        subprocess.run([*LAB, "up", "--dir", folder, *(f"{name}={kind}" for name, kind in nodes.items())], check=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True)
        key = (folder / "key.pub").read_text()
        hosts = json.loads((folder / "inventory" / "nodes.yml").read_text())["gpu"]["hosts"]
        found = {
            name: {
                "ansible_host": host["ansible_host"],
                "ansible_port": host["ansible_port"],
                "ansible_ssh_private_key_file": str(folder / "key"),
                "ansible_ssh_common_args": "-F none -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null",
                "lab_container": host["lab_container"],
            }
            for name, host in hosts.items()
        }
        with ThreadPoolExecutor() as pool:
            containers = [host["lab_container"] for host in found.values()]
            list(pool.map(lambda node: podman("exec", "-i", node, "sh", "-ec", ALLOW, stdin=key), containers))
        yield found
    finally:
        subprocess.run([*LAB, "down", "--dir", folder], check=True)
