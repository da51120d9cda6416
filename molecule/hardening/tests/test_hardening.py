# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How strict the two profiles are, by ssh-audit, and which clients they let in.

The nodes come in the profile compat. From the first test on that takes strict, they have been through that.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import visitors
from podman import podman
from ssh_audit.builtin_policies import BUILTIN_POLICIES

SCENARIO = Path(__file__).resolve().parents[1]
REPOSITORY = SCENARIO.parents[1]
LAB = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "lab"
NODES = json.loads((LAB / "inventory" / "nodes.yml").read_text())["gpu"]["hosts"]
KEY = LAB / "home" / ".ssh" / "id_ed25519"

BULLSEYE, BOOKWORM, TRIXIE = "gpu-1", "gpu-2", "gpu-3"
# Those of the releases are the OpenSSH 8.4, 9.2 and 10.0 of the nodes themselves.
OPENSSH = {"OpenSSH 8.4": BULLSEYE, "OpenSSH 9.2": BOOKWORM, "OpenSSH 10.0": TRIXIE}
PYTHON = ("paramiko", "asyncssh")
# What strict leaves of Debian 12's key exchange is sntrup761 only.
SHUT_OUT = {
    ("OpenSSH 8.4", BOOKWORM): "no matching key exchange method",
    ("OpenSSH 8.4", TRIXIE): "no matching key exchange method",
    ("paramiko", BOOKWORM): "no acceptable kex algorithm",
    ("asyncssh", BOOKWORM): "No matching key exchange algorithm",
}
FINGERPRINT = "find /etc/ssh -type f -exec sha256sum {} + ; stat -c '%n %y' /etc/ssh /etc/ssh/sshd_config.d"


def harden(*arguments: str) -> str:
    """Run the role once more, and return what was said."""
    done = subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"),
            f"--inventory={SCENARIO / 'inventory'}",
            f"--inventory={LAB / 'inventory'}",
            SCENARIO / "converge.yml",
            *arguments,
        ],
        cwd=REPOSITORY,
        env={**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
        check=False,
    )
    return done.stdout


def recap(said: str) -> dict[str, dict[str, int]]:
    """The counters of each node."""
    lines = re.findall(r"^(gpu-\d) +: (.+)$", said, re.MULTILINE)
    assert [name for name, _counters in lines] == list(NODES), said
    return {
        name: {key: int(value) for key, value in (pair.split("=") for pair in counters.split())}
        for name, counters in lines
    }


def door(node: str) -> tuple[str, int]:
    """Where this machine reaches a node's sshd."""
    return NODES[node]["ansible_host"], NODES[node]["ansible_port"]


def log_in(client: str, node: str) -> str:
    """Log in as root with a client; empty if that works, else why not."""
    if client in PYTHON:
        return visitors.log_in_by_python(client, *door(node), KEY)
    source, target = NODES[OPENSSH[client]]["lab_container"], NODES[node]["lab_container"]
    return visitors.log_in_from(source, visitors.OPENSSH, visitors.address(target))


@pytest.fixture(scope="session", autouse=True)
def visiting() -> None:
    """The nodes may log in to each other."""
    for node in NODES.values():
        visitors.give_key(node["lab_container"], KEY.read_text())


@pytest.fixture(scope="session")
def strict() -> dict[str, Any]:
    """All nodes were asked to be strict: what was said, and the first node's files before and after."""
    bullseye = NODES[BULLSEYE]["lab_container"]
    before = podman("exec", bullseye, "sh", "-c", FINGERPRINT)
    said = harden("-e", "sshd_hardening_profile=strict")
    return {"said": said, "before": before, "after": podman("exec", bullseye, "sh", "-c", FINGERPRINT)}


def test_second_run_changes_nothing_and_is_short() -> None:
    said = harden()
    for counters in recap(said).values():
        assert counters["changed"] == counters["failed"] == counters["unreachable"] == 0, said
        assert 0 < counters["ok"] + counters["skipped"] <= 20, said


@pytest.mark.parametrize("node", NODES)
def test_compat_passes_the_audit(node: str) -> None:
    assert visitors.scan(*door(node)).fails == []


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("client", [*OPENSSH, *PYTHON])
def test_compat_lets_every_client_in(client: str, node: str) -> None:
    assert log_in(client, node) == ""


def test_strict_is_refused_where_it_would_let_nobody_in(strict: dict[str, Any]) -> None:
    reason = "this OpenSSH has none of the KexAlgorithms that this change asks for: mlkem768x25519-sha256"
    assert f"Action failed: {BULLSEYE}: sshd was not changed: {reason}" in strict["said"]
    counters = recap(strict["said"])[BULLSEYE]
    assert (counters["failed"], counters["changed"]) == (1, 0), strict["said"]
    assert strict["after"] == strict["before"]


@pytest.mark.parametrize("node", [BOOKWORM, TRIXIE])
def test_strict_leaves_nothing_to_complain_of(node: str, strict: dict[str, Any]) -> None:
    assert recap(strict["said"])[node]["failed"] == 0, strict["said"]
    found = visitors.scan(*door(node))
    assert (found.fails, found.warns) == ([], [])


@pytest.mark.usefixtures("strict")
def test_strict_passes_the_policy_of_trixie() -> None:
    assert visitors.against_policy(*door(TRIXIE), "Hardened Debian 13 (version 1)") == []


@pytest.mark.usefixtures("strict")
def test_strict_passes_the_policy_of_bookworm_as_a_subset(tmp_path: Path) -> None:
    """The built-in policy wants curve25519 and Diffie-Hellman offered as well, so nothing post-quantum only passes it.

    As a policy of one's own it may allow less, and then all that is offered must be in it.
    """
    wanted = BUILTIN_POLICIES["Hardened Debian 12 (version 3)"]
    policy = tmp_path / "policy.txt"
    policy.write_text(
        f"""name = "Hardened Debian 12 or stricter"
version = {wanted["version"]}
allow_algorithm_subset_and_reordering = true
allow_hostkey_subset_and_reordering = true
host keys = {", ".join(wanted["host_keys"])}
host_key_sizes = {json.dumps(wanted["hostkey_sizes"])}
dh_modulus_sizes = {json.dumps(wanted["dh_modulus_sizes"])}
key exchanges = {", ".join(wanted["kex"])}
ciphers = {", ".join(wanted["ciphers"])}
macs = {", ".join(wanted["macs"])}
"""
    )
    assert visitors.against_policy(*door(BOOKWORM), str(policy)) == []


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("node", [BOOKWORM, TRIXIE])
@pytest.mark.parametrize("client", [*OPENSSH, *PYTHON])
def test_strict_lets_in_who_can_do_its_key_exchange(client: str, node: str) -> None:
    said = log_in(client, node)
    if reason := SHUT_OUT.get((client, node)):
        assert reason in said
    else:
        assert said == ""
