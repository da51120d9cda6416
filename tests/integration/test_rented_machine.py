# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rented machine gets another address and port, and one that has only an address gets a name."""

from __future__ import annotations

import re
import subprocess
import typing as t
from dataclasses import replace

import pytest
from podman import podman

if t.TYPE_CHECKING:
    from integration.conftest import Fleet

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("bad-input")]


def ssh(fleet: Fleet, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["ssh", "-F", str(fleet.ssh / "config"), "-o", "BatchMode=yes", *arguments]
    return subprocess.run(
        command, env=fleet.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def second_address(fleet: Fleet, name: str) -> str:
    """The address of a node beside the published port by which the lab reaches it."""
    container = fleet.nodes[name].container
    return podman("inspect", "--format", "{{.NetworkSettings.IPAddress}}", container).strip()


def test_machine_that_moves_keeps_its_name_and_identity(settled_fleet: Fleet) -> None:
    fleet = settled_fleet
    config = fleet.ssh / "config"
    config.write_text(config.read_text() + f"\nHost *\n  ControlMaster auto\n  ControlPath {fleet.home}/s-%n\n")
    pinned = (fleet.ssh / "known_hosts.d" / "gpuops").read_bytes()
    before = config.read_bytes()
    old = fleet.hosts["gpu-1"]
    master = subprocess.Popen(
        ["ssh", "-F", str(config), "-o", "BatchMode=yes", "gpu-1", "echo connected; read -r line; echo $line"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=fleet.environment(),
        text=True,
    )
    try:
        assert master.stdin
        assert master.stdout
        assert master.stdout.readline() == "connected\n"
        address = second_address(fleet, "gpu-1")
        moved = replace(fleet, hosts={**fleet.hosts, "gpu-1": {**old, "ansible_host": address, "ansible_port": 22}})
        # With the old address closed, an alias that still led there, or a socket that did, would be seen.
        assert ssh(moved, "-O", "check", "gpu-1").returncode == 0
        run = moved.site("--tags", "reach")
        assert run.rc == 0, run.text
        assert re.search(rf"^gpu-1 +{re.escape(address)}:22 +yes", run.text, re.MULTILINE), run.text
        assert ssh(moved, "-O", "check", "gpu-1").returncode == 255
        assert not list(fleet.home.glob("s-*"))
        now = ssh(moved, "-v", "gpu-1", "true")
        assert now.returncode == 0
        assert f"Connecting to {address} [{address}] port 22" in now.stderr
        # What ran in the old connection goes on.
        assert master.communicate("still here\n", timeout=10)[0] == "still here\n"
    finally:
        master.kill()
    assert (fleet.ssh / "known_hosts.d" / "gpuops").read_bytes() == pinned
    assert config.read_bytes() == before


def test_bare_addresses_get_names_after_the_project(settled_fleet: Fleet) -> None:
    addresses = [second_address(settled_fleet, name) for name in ("gpu-1", "gpu-2")]
    hosts = {
        address: {"ansible_password": settled_fleet.hosts["gpu-1"]["ansible_password"], "ssh_bootstrap_project": "llm"}
        for address in addresses
    }
    fleet = replace(settled_fleet, hosts=hosts)
    for name in ("config.d", "known_hosts.d"):
        for file in (fleet.ssh / name).iterdir():
            file.unlink()
    run = fleet.site("--tags", "reach")
    assert run.rc == 0, run.text
    for alias, node in (("llm-1", "gpu-1"), ("llm-2", "gpu-2")):
        done = ssh(fleet, alias, "hostname")
        assert (done.stdout, done.returncode) == (f"{node}\n", 0), done.stderr
    adhoc = subprocess.run(
        ["ansible", "-i", str(fleet.inventory), "gpu", "-m", "ping"],
        env=fleet.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert adhoc.returncode == 0, adhoc.stdout + adhoc.stderr
    assert addresses[0] in adhoc.stdout
