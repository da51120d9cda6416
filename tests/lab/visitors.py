# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Visit an sshd as others do: with ssh-audit, and with the clients that people have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podman import LabError, podman

PYTHON_CLIENT = Path(__file__).with_name("python_client.py")
KEY = "/root/visitor"
OPENSSH = (
    "ssh", "-F", "none", "-i", KEY, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=accept-new",
    "-o", "UserKnownHostsFile=/dev/null",
)  # fmt: skip


@dataclass(frozen=True)
class Scan:
    """What ssh-audit has against the algorithms that an sshd offers."""

    algorithms: int
    fails: list[str]
    warns: list[str]


def _ssh_audit(*arguments: str) -> dict[str, Any]:
    # Its rate test would open hundreds of connections.
    command = [sys.executable, "-m", "ssh_audit.ssh_audit", "--skip-rate-test", "--json", *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    try:
        return dict(json.loads(done.stdout))
    except ValueError:
        raise LabError(f"{' '.join(command)} ended with {done.returncode}: {done.stdout}{done.stderr}") from None


def scan(host: str, port: int) -> Scan:
    """Rate the algorithms of an sshd."""
    report = _ssh_audit("--port", str(port), host)
    offered = [entry for kind in ("kex", "key", "enc", "mac") for entry in report[kind]]

    def notes(kind: str) -> list[str]:
        return [f"{entry['algorithm']}: {note}" for entry in offered for note in entry["notes"].get(kind, [])]

    return Scan(len(offered), notes("fail"), notes("warn"))


def against_policy(host: str, port: int, policy: str) -> list[dict[str, Any]]:
    """What of an sshd is not as a policy wants it; policy is the name of a built-in one, or a file."""
    return list(_ssh_audit("--policy", policy, "--port", str(port), host)["errors"])


def give_key(container: str, key: str) -> None:
    """Let root of a node log in elsewhere by this key."""
    podman("exec", "-i", container, "sh", "-c", f"umask 77; cat > {KEY}", stdin=key)


def address(container: str) -> str:
    """Where other nodes reach a node."""
    return podman("exec", container, "hostname", "-I").split()[0]


def log_in_from(container: str, client: tuple[str, ...], host: str) -> str:
    """Log in as root from one node to another; empty if that works, else why not."""
    try:
        who = podman("exec", container, *client, f"root@{host}", "id -un")
    except LabError as error:
        return str(error)
    return "" if who.strip() == "root" else f"logged in as {who!r}"


def log_in_by_python(library: str, host: str, port: int, key: Path, packages: str = "") -> str:
    """Log in as root with a library of Python's, from a folder if one is named; empty if that works, else why not."""
    done = subprocess.run(
        [sys.executable, PYTHON_CLIENT, library, host, str(port), key],
        env={**os.environ, "PYTHONPATH": packages},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return "" if done.stdout.strip() == "root" else done.stderr.strip() or f"logged in as {done.stdout!r}"
