# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab from outside: by the aliases that were made, and the user's own OpenSSH."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import LABEL, POD_COMMAND, lab_name, run
from podman import podman


@dataclass(frozen=True)
class Outside:
    """The lab in a folder."""

    folder: Path

    @property
    def nodes(self) -> dict[str, dict[str, Any]]:
        """What the lab's inventory says of each node."""
        return dict(json.loads((self.folder / "inventory" / "nodes.yml").read_text())["gpu"]["hosts"])

    @property
    def ssh_dir(self) -> Path:
        """The user's ssh directory."""
        return self.folder / "home" / ".ssh"

    def container(self, alias: str) -> str:
        """The container that a node is."""
        return str(self.nodes[alias]["lab_container"])

    def restart(self, alias: str) -> int:
        """Start a pod again on another port, with the disk that it had, and return the port.

        podman keeps the port of a container, and those who rent out pods do not: the container is made anew.
        """
        container = self.container(alias)
        label = f"{LABEL}={lab_name(self.folder)}"
        image = podman("commit", "--quiet", "--change", f"LABEL {label}", container).strip()
        podman("rm", "--force", "--time", "0", container)
        given = ["--hostname", alias, "--label", label, "--publish=127.0.0.1::22"]
        run(container, image, *given, image, "sh", "-c", POD_COMMAND)
        listens = "until ss -Hltn sport = :22 | grep -q .; do sleep 0.2; done"
        podman("exec", container, "timeout", "30", "sh", "-c", listens)
        return int(podman("port", container, "22/tcp").strip().rpartition(":")[2])

    def known_hosts(self) -> str:
        """The host keys that are pinned."""
        return (self.ssh_dir / "known_hosts.d" / "gpuops").read_text()

    def ssh(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Use an alias with nobody there to answer a prompt."""
        return subprocess.run(
            ["ssh", "-F", str(self.ssh_dir / "config"), "-o", "BatchMode=yes", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
