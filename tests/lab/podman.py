# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How podman is called on this host."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

CONTAINERS_CONF = Path(__file__).with_name("containers.conf")
INSTALL = "apt-get install podman iptables runc"
# The longest is a build, some minutes on a busy machine.
SECONDS = 600


class LabError(Exception):
    """The lab cannot do what was asked; the text is for the user."""


def as_root(*command: str, **settings: str) -> list[str]:
    """A command line for root: rootless containers need tun, subuids and delegated cgroups, which many hosts lack."""
    # netavark finds iptables on PATH
    env = {"PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin", **settings}
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    return [*sudo, "env", *(f"{key}={value}" for key, value in env.items()), *command]


def _run(args: list[str], quirk: bool, stdin: str | None) -> subprocess.CompletedProcess[str]:
    settings = {"CONTAINERS_CONF": str(CONTAINERS_CONF)} if quirk else {}
    # Always a stdin of its own: podman exec -i would eat the terminal's.
    command = as_root("podman", *args, **settings)
    try:
        return subprocess.run(command, input=stdin or "", text=True, capture_output=True, check=False, timeout=SECONDS)
    except subprocess.TimeoutExpired as error:
        raise LabError(f"podman {' '.join(args[:2])} did not end within {SECONDS} s; next: podman ps --all") from error


@cache
def needs_quirk(image: str) -> bool:
    """Find out by starting a container whether podman's defaults work on this host.

    Without CAP_SYS_RESOURCE a container may not raise the limits of its parent, and podman's default limits are
    higher than most hosts' own; with a hybrid cgroup tree only runc starts at all. Both are so in some CI machines.
    """
    plain = _run(["run", "--rm", "--network=none", image, "true"], False, None)
    if plain.returncode == 0:
        return False
    low = _run(["run", "--rm", "--network=none", image, "true"], True, None)
    if low.returncode == 0:
        return True
    raise LabError(
        f"podman cannot start a container on this host.\n"
        f"with its defaults: {plain.stderr.strip()}\nwith runc and low limits: {low.stderr.strip()}\n"
        f"next: {INSTALL}, then podman run --rm {image} true"
    )


def require() -> None:
    """Stop with the next command to type when podman is not installed."""
    if not shutil.which("podman"):
        raise LabError(f"podman is not installed, and the lab's nodes are podman containers; next: {INSTALL}")


def podman(*args: str, probe_image: str | None = None, stdin: str | None = None) -> str:
    """Run podman and return its standard output; with probe_image, in the way this host needs for containers."""
    quirk = probe_image is not None and needs_quirk(probe_image)
    result = _run(list(args), quirk, stdin)
    if result.returncode:
        raise LabError(f"podman {' '.join(args[:2])} failed with {result.returncode}: {result.stderr.strip()[-2000:]}")
    return result.stdout


def exists(kind: str, name: str) -> bool:
    """Tell whether an image or a container of that name is there."""
    return _run([kind, "exists", name], False, None).returncode == 0
