# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit against real nodes: what is seeded is found, each under its own name, and no secret comes out."""

from __future__ import annotations

import json
import re
import subprocess
import typing as t
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import pytest

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.conftest import Fleet, Node

REPOSITORY = Path(__file__).resolve().parents[2]
SERIOUS = ("high", "critical")

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("bad-input")]

# Nothing is reloaded, so the sshd that runs goes on to let us in. RevokedKeys of a missing file would end that.
SEED = """
useradd -m -p "$1" alice
useradd -m -p "*" bob
useradd -M guest
passwd -d guest >/dev/null
useradd -o -u 0 -p "*" toor
mkdir -m 700 ~bob/.ssh
ssh-keygen -q -t rsa -b 2048 -N "" -C old -f /tmp/seed
cat /tmp/seed.pub /tmp/seed.pub /root/.ssh/authorized_keys >~bob/.ssh/authorized_keys
rm /tmp/seed
ssh-keygen -q -t ed25519 -N "" -C "" -f /tmp/seed
cat /tmp/seed.pub >>~bob/.ssh/authorized_keys
chmod 664 ~bob/.ssh/authorized_keys
chown -R bob: ~bob
chmod 640 /etc/ssh/ssh_host_ecdsa_key
echo "X11Forwarding no" >/etc/ssh/sshd_config.d/70-open.conf
chmod 666 /etc/ssh/sshd_config.d/70-open.conf
printf "%s\\n" "MaxAuthTries 9" "Ciphers aes256-ctr,aes256-cbc" >/tmp/seed
printf "%s\\n" "MaxSessions 50" "RevokedKeys /etc/ssh/revoked" | cat - /etc/ssh/sshd_config >>/tmp/seed
cat /tmp/seed >/etc/ssh/sshd_config
printf "Match Address 192.0.2.0/24 User bob\\n  PasswordAuthentication yes\\n" >>/etc/ssh/sshd_config
grep -n "^Match Address 192.0.2" /etc/ssh/sshd_config | cut -d: -f1
"""
UNSEED = (
    "rm -f /tmp/seed /tmp/seed.pub; for user in alice bob guest toor; do userdel -f -r $user 2>/dev/null || true; done"
)
FOUND = {
    "password_login", "superusers", "empty_passwords", "key_files", "keys_weak", "keys_duplicate", "keys_shared",
    "keys_without_comment", "password_without_key", "host_key_files", "sshd_files", "drift", "max_auth_tries",
    "weak_ciphers", "max_sessions", "revoked_keys", "loaded",
}  # fmt: skip


@dataclass(frozen=True)
class Audit:
    """What a run said, and the files that it wrote."""

    rc: int
    text: str
    report: dict[str, t.Any]
    suites: ET.Element

    def failing(self, host: str) -> dict[str, dict[str, str]]:
        checks = self.report["nodes"][host]["checks"]
        return {check["id"]: check for check in checks if check["status"] == "fail"}

    def unknown(self, host: str) -> list[str]:
        return [check["id"] for check in self.report["nodes"][host]["checks"] if check["status"] == "unknown"]


def audit(fleet: Fleet, *arguments: str) -> Audit:
    fleet.inventory.mkdir(exist_ok=True)
    if not (fleet.inventory / "group_vars").exists():
        (fleet.inventory / "group_vars").symlink_to(REPOSITORY / "inventory" / "group_vars")
    hosts = {name: {**host, "ssh_bootstrap_dir": str(fleet.ssh)} for name, host in fleet.hosts.items()}
    (fleet.inventory / "nodes.yml").write_text(json.dumps({"gpu": {"hosts": hosts}}))
    files = [fleet.home.with_name(name) for name in ("audit.json", "audit.xml")]
    command = ["ansible-playbook", "-i", str(fleet.inventory), "gpuops.fleet.audit", *arguments]
    command += ["-e", f"audit_json={files[0]}", "-e", f"audit_junit={files[1]}"]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=fleet.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert "Traceback" not in done.stdout, done.stdout
    return Audit(done.returncode, done.stdout, json.loads(files[0].read_text()), ET.parse(files[1]).getroot())


@pytest.fixture
def seeded(settled_fleet: Fleet) -> Iterator[tuple[Node, str, str]]:
    """A node with something wrong of each kind, the password hash of a user there, and the line of the Match block."""
    node = settled_fleet.nodes["gpu-1"]
    password_hash = node.sh("openssl passwd -6 a-password-of-alice").strip()
    try:
        yield node, password_hash, node.sh(SEED, password_hash).strip()
    finally:
        node.sh(UNSEED)


def test_healthy_nodes_have_nothing_serious(settled_fleet: Fleet) -> None:
    before = {name: node.sh("find /etc /root /home -type f | sort | xargs sha256sum") for name, node in
              settled_fleet.nodes.items()}  # fmt: skip
    run = audit(settled_fleet)
    assert run.rc == 0, run.text
    for host, node in settled_fleet.nodes.items():
        serious = [check["id"] for check in run.failing(host).values() if check["severity"] in SERIOUS]
        assert (serious, run.unknown(host)) == ([], []), run.text
        assert not FOUND & set(run.failing(host)), run.text
        logins = next(check for check in run.report["nodes"][host]["checks"] if check["id"] == "logins")
        assert re.search(r"root from \S+ [0-9]+x, last 20", logins["evidence"])
        assert node.sh("find /etc /root /home -type f | sort | xargs sha256sum") == before[host]


def test_each_seeded_problem_is_found_and_a_lost_node_is_told(
    settled_fleet: Fleet, seeded: tuple[Node, str, str]
) -> None:
    _node, password_hash, line = seeded
    settled_fleet.nodes["gpu-2"].sh("systemctl stop ssh; pkill -KILL sshd || true")
    run = audit(settled_fleet, "-vvvv")
    assert run.rc == 4, run.text

    failing = run.failing("gpu-1")
    of_the_release = {"weak_macs", "max_startups", "x11_forwarding", "moduli"}
    assert set(failing) - of_the_release == FOUND, run.text
    assert run.unknown("gpu-1") == []
    evidence = {name: check["evidence"] for name, check in failing.items()}
    assert evidence["password_login"].endswith(
        f"for bob from 192.0.2.0 (/etc/ssh/sshd_config:{line}: Match Address 192.0.2.0/24 User bob)"
    )
    assert evidence["superusers"] == "uid 0 too: toor"
    assert evidence["password_without_key"] == "a password and no key: alice"
    assert "maxauthtries is 9 for root, not 4" in evidence["drift"]
    assert "/etc/ssh/sshd_config.d/70-open.conf (mode 0666, uid 0)" in evidence["sshd_files"]
    assert "/etc/ssh/ssh_host_ecdsa_key (mode 0640, uid 0)" in evidence["host_key_files"]

    assert re.search(
        r"^gpu-2  not audited\n  .*\n(  .*\n)*  next: ansible-playbook gpuops.fleet.doctor", run.text, re.M
    )
    assert run.report["nodes"]["gpu-2"]["verdict"] == "unreachable"
    assert [suite.get("name") for suite in run.suites] == ["gpu-1", "gpu-2"]
    assert run.suites[1].get("errors") == "1"

    # At -vvvv Ansible shows all that a node answers.
    assert "password set alice" in run.text
    assert password_hash not in run.text
    assert password_hash.split("$")[-1][:30] not in run.text
    assert "PRIVATE KEY" not in run.text
