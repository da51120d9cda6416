# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who gets in by certificate and who does not, told by real logins to three releases of Debian.

One story for all nodes: certificates are switched on, somebody leaves, the CA is replaced, certificates are switched
off. The tests ask what was seen on the way.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from lockout import RELEASES
from podman import podman

REPOSITORY = Path(__file__).resolve().parents[2]
LAB = REPOSITORY / "tests" / "lab" / "lab.py"
PLAY_SECONDS = 600
# What the roles ask sshd to read.
REVOKED = "/etc/ssh/gpuops-revoked-keys"
TRUST = [
    {
        "name": "Trust",
        "hosts": "gpu",
        "gather_facts": False,
        "tasks": [
            {"name": "Take certificates", "ansible.builtin.include_role": {"name": "gpuops.fleet.ssh_ca"}},
            {
                "name": "Harden sshd",
                "ansible.builtin.include_role": {"name": "gpuops.fleet.sshd_hardening"},
                "when": "only_ca is not defined",
            },
        ],
    }
]
# Where nothing that sshd is told changes: a third of the time.
ONLY_CA = ("-e", "only_ca=")
PREPARE = """
mkdir -p /root/.ssh
cat > /root/.ssh/authorized_keys
for name in alice bob mallory; do useradd --create-home --shell /bin/bash $name; done
mkdir -m 700 /home/mallory/.ssh
echo "$1" > /home/mallory/.ssh/authorized_keys
chown -R mallory:mallory /home/mallory/.ssh
"""
# As a rebuilt node whose image was given a certificate: the key, and what the CA says of it.
NEW_HOST_KEY = """
rm /etc/ssh/ssh_host_ed25519_key*
ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
cat /etc/ssh/ssh_host_ed25519_key.pub
"""
NEW_HOST_CERTIFICATE = """
cat > /etc/ssh/ssh_host_ed25519_key-cert.pub
systemctl reload ssh
until ssh-keyscan -t ed25519 127.0.0.1 2>/dev/null | grep -qF "$(cut -d ' ' -f 2 /etc/ssh/ssh_host_ed25519_key.pub)"; do
    sleep 0.1
done
"""
LEFT = "find /etc/ssh -name '*gpuops-*' -o -name '*-cert.pub'; sshd -T | grep -E '^(revokedkeys|trustedusercakeys)'"

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ssh-ca")]


@dataclass(frozen=True)
class Machine:
    """A node, reached by its own address."""

    name: str
    container: str
    address: str

    def sh(self, script: str, *arguments: str, stdin: str = "") -> str:
        """Run a script past sshd."""
        return podman("exec", "-i", self.container, "sh", "-ec", script, "sh", *arguments, stdin=stdin)


@dataclass(frozen=True)
class Run:
    """What ansible said."""

    rc: int
    text: str

    def counter(self, host: str, name: str) -> int:
        line = next(line for line in self.text.splitlines() if line.startswith(f"{host} ") and "changed=" in line)
        return int(line.partition(f"{name}=")[2].split()[0])


@dataclass
class Story:
    """The controller, its nodes, and all that was seen."""

    folder: Path
    machines: dict[str, Machine]
    people: list[dict[str, Any]] = field(default_factory=list)
    runs: dict[str, Run] = field(default_factory=dict)
    # Who got in, by the step, the release and the login.
    seen: dict[tuple[str, str, str], bool] = field(default_factory=dict)
    journal: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    found_on_node: dict[str, str] = field(default_factory=dict)

    @property
    def ssh(self) -> Path:
        return self.folder / "ssh"

    @property
    def ca(self) -> Path:
        return self.ssh / "gpuops-ca"

    def key(self, name: str) -> str:
        """Make a key pair; its public half."""
        path = self.folder / name
        if not path.exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path)], check=True)
        return Path(f"{path}.pub").read_text().strip()

    def fingerprint(self, name: str) -> str:
        path = self.folder / f"{name}.pub"
        return subprocess.run(
            ["ssh-keygen", "-lf", str(path)], capture_output=True, text=True, check=True
        ).stdout.split()[1]

    def sign(self, name: str, of: str, identity: str, principals: str, validity: str = "-5m:+1h") -> None:
        """Have the CA sign what a person or an attacker might hold."""
        for suffix in ("", ".pub"):
            shutil.copy(self.folder / f"{of}{suffix}", self.folder / f"{name}{suffix}")
        command = ["ssh-keygen", "-q", "-s", str(self.ca / "user_ca"), "-I", identity, "-n", principals, "-V", validity]
        subprocess.run([*command, str(self.folder / f"{name}.pub")], check=True)

    def ansible(self, name: str, program: str, *arguments: str) -> Run:
        settings = {
            "ansible_port": 22,
            "ssh_bootstrap_dir": str(self.ssh),
            "ssh_ca_enabled": True,
            "sshd_hardening_penalty_exempt": ["0.0.0.0/0"],
            "gpu_users": self.people,
        }
        hosts = {machine.name: {"ansible_host": machine.address, **settings} for machine in self.machines.values()}
        inventory = {"gpu": {"hosts": hosts}, "train": {"hosts": {"deb12": {}}}}
        (self.folder / "inventory" / "nodes.yml").write_text(json.dumps(inventory))
        env = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "SSH_"))}
        env.update(
            HOME=str(self.folder),
            PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            ANSIBLE_CONFIG=str(REPOSITORY / "ansible.cfg"),
            ANSIBLE_NOCOLOR="1",
        )
        done = subprocess.run(
            [program, "-i", str(self.folder / "inventory" / "nodes.yml"), *arguments],
            cwd=REPOSITORY, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, check=False, timeout=PLAY_SECONDS,
        )  # fmt: skip
        assert "Traceback" not in done.stdout, done.stdout
        self.runs[name] = Run(done.returncode, done.stdout)
        return self.runs[name]

    def trust(self, name: str, *arguments: str) -> None:
        """Run what site.yml runs, and want it to work."""
        run = self.ansible(name, "ansible-playbook", str(self.folder / "trust.yml"), *arguments)
        assert run.rc == 0, run.text

    def login(self, machine: Machine, user: str, key: str, known_hosts: str = "authorities", alias: str = "") -> bool:
        """Log in by a key, and by its certificate where it has one, knowing the nodes by `known_hosts` only."""
        options = [
            "BatchMode=yes", "ControlPath=none", "ConnectTimeout=5", "IdentitiesOnly=yes", "StrictHostKeyChecking=yes",
            f"UserKnownHostsFile={self.folder / known_hosts}", "GlobalKnownHostsFile=/dev/null",
            f"HostKeyAlias={alias or machine.name}", f"IdentityFile={self.folder / key}", f"HostName={machine.address}",
        ]  # fmt: skip
        command = [
            "ssh",
            "-F",
            "none",
            *(word for option in options for word in ("-o", option)),
            f"{user}@node",
            "true",
        ]
        return (
            subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=30).returncode
            == 0
        )

    def look(self, step: str, *logins: tuple[str, str], **how: str) -> None:
        """Try logins, each a user and a key, on all nodes."""

        def on(machine: Machine) -> list[tuple[str, bool]]:
            return [(f"{user} by {key}", self.login(machine, user, key, **how)) for user, key in logins]

        with ThreadPoolExecutor(len(self.machines)) as pool:
            for name, found in zip(self.machines, pool.map(on, self.machines.values())):
                self.seen.update({(step, name, login): got_in for login, got_in in found})


def start(folder: Path, lab: list[str]) -> Story:
    subprocess.run([*lab, "up", *(f"{release}={release}:t4x1-470" for release in RELEASES)], check=True)
    hosts = json.loads((folder / "inventory" / "nodes.yml").read_text())["gpu"]["hosts"]
    machines = {}
    for release in RELEASES:
        container = str(hosts[release]["lab_container"])
        address = podman("inspect", "--format", "{{.NetworkSettings.IPAddress}}", container).strip()
        machines[release] = Machine(release, container, address)
    story = Story(folder, machines)
    (story.ssh / "known_hosts.d").mkdir(parents=True, mode=0o700)
    (folder / "trust.yml").write_text(json.dumps(TRUST))
    controller = story.key("ssh/id_ed25519")
    pinned = ""
    for machine in machines.values():
        machine.sh(PREPARE, story.key("mallory"), stdin=f"{controller}\n")
        pinned += f"{machine.name} {machine.sh('cat /etc/ssh/ssh_host_ed25519_key.pub')}"
    (story.ssh / "known_hosts.d" / "gpuops").write_text(pinned)
    return story


def switch_on(story: Story) -> None:
    mallory = {"name": "mallory", "keys": [story.key("mallory")]}
    story.people = [
        {"name": "alice", "keys": [story.key("alice")]},
        {"name": "bob", "keys": [story.key("bob")], "cert_groups": ["train"]},
        mallory,
    ]
    revoked = json.dumps({"settings": {"RevokedKeys": REVOKED}})
    story.ansible("missing", "ansible", "gpu", "-m", "gpuops.fleet.sshd_policy", "-a", revoked)
    story.look("missing", ("root", "ssh/id_ed25519"), known_hosts="ssh/known_hosts.d/gpuops")
    story.trust("on", "-vvvv")
    known = (story.ssh / "known_hosts.d" / "gpuops").read_text().splitlines()
    (story.folder / "authorities").write_text("".join(f"{line}\n" for line in known if line.startswith("@")))
    out = str(story.folder / "issued-cert.pub")
    story.ansible("issue", "ansible-playbook", "gpuops.fleet.cert", "-e", f"person=alice out={out}", "-vvvv")
    for suffix in ("", ".pub"):
        shutil.copy(story.folder / f"alice{suffix}", story.folder / f"issued{suffix}")
    story.sign("other-principal", "alice", "alice-other-principal", "bob@gpu,alice")
    story.sign("other-group", "alice", "alice-other-group", "alice@train")
    story.sign("expired", "alice", "alice-expired", "alice@gpu", "-2h:-1h")
    story.sign("bob-train", "bob", "bob", "bob@train")
    story.sign("leaver", "mallory", "mallory", "alice@gpu")
    story.key("unknown")
    story.sign("leaver-new-key", "unknown", "mallory", "alice@gpu")
    story.trust("again")
    story.look(
        "on",
        ("alice", "issued"), ("alice", "other-principal"), ("alice", "expired"), ("bob", "bob-train"),
        ("bob", "issued"), ("root", "issued"), ("alice", "leaver"), ("alice", "leaver-new-key"), ("mallory", "mallory"),
    )  # fmt: skip
    story.look("other-group", ("alice", "other-group"))
    story.look("other-alias", ("alice", "issued"), alias="gpu-elsewhere")
    secrets = [(story.ca / name).read_text().splitlines()[2] for name in ("user_ca", "host_ca")]
    for machine in story.machines.values():
        grep = "for secret in $(cat); do grep -rlF $secret /etc /root /home /tmp /var /run 2>/dev/null || true; done"
        story.found_on_node[machine.name] = machine.sh(grep, stdin="\n".join(secrets))


def rebuild(story: Story) -> None:
    """Give each node another host key, with a certificate of the fleet's CA. The old key stays pinned."""
    for machine in story.machines.values():
        file = story.folder / f"host-{machine.name}.pub"
        file.write_text(machine.sh(NEW_HOST_KEY))
        command = ["ssh-keygen", "-q", "-s", str(story.ca / "host_ca"), "-h", "-I", machine.name, "-n", machine.name]
        subprocess.run([*command, str(file)], check=True)
        machine.sh(NEW_HOST_CERTIFICATE, stdin=file.with_name(f"host-{machine.name}-cert.pub").read_text())
    story.look("rebuilt", ("root", "ssh/id_ed25519"), known_hosts="ssh/known_hosts.d/gpuops")
    story.look("rebuilt-other-alias", ("root", "ssh/id_ed25519"), alias="gpu-elsewhere")


def replace_ca(story: Story) -> None:
    """While somebody leaves."""
    story.people[2]["state"] = "absent"
    (story.ca / "user_ca").unlink()
    (story.ca / "user_ca.pub").rename(story.ca / "user_ca-old.pub")
    story.trust("overlap")
    story.sign("alice-new", "alice", "alice", "alice@gpu")
    story.look(
        "overlap",
        ("alice", "issued"), ("alice", "alice-new"), ("alice", "leaver"), ("alice", "leaver-new-key"),
        ("mallory", "mallory"),
    )  # fmt: skip
    (story.ca / "user_ca-old.pub").unlink()
    # Nobody can say any more which keys mallory had.
    story.people[2]["keys"] = []
    story.trust("replaced", *ONLY_CA)
    story.look("replaced", ("alice", "issued"), ("alice", "alice-new"), ("mallory", "mallory"))


def switch_off(story: Story) -> None:
    story.ansible("early", "ansible", "gpu", "-m", "gpuops.fleet.ssh_ca_trust", "-a", "state=absent")
    damaged = json.dumps({"revoked": "U1NIS1JMCgA="})
    story.ansible("damaged", "ansible", "gpu", "-m", "gpuops.fleet.ssh_ca_trust", "-a", damaged)
    own_key = json.dumps({"ssh_ca_revoked": [story.key("ssh/id_ed25519")]})
    story.ansible("own-key", "ansible-playbook", str(story.folder / "trust.yml"), "-e", own_key, *ONLY_CA)
    story.look("refused", ("root", "ssh/id_ed25519"), ("alice", "alice-new"))
    for machine in story.machines.values():
        story.journal[machine.name] = machine.sh("journalctl -o cat --no-pager")
    story.trust("off", "-e", "ssh_ca_state=absent", *ONLY_CA)
    for machine in story.machines.values():
        story.left[machine.name] = machine.sh(f"{LEFT} || true")
    pods = "ssh/known_hosts.d/gpuops"
    story.look("off", ("root", "ssh/id_ed25519"), ("alice", "alice-new"), known_hosts=pods)
    story.people[0]["cert_accounts"] = ["root"]
    story.trust("pod", "-e", "ssh_ca_by_authorized_keys=true", *ONLY_CA)
    story.sign("pod-root", "alice", "alice", "root@gpu")
    story.look("pod", ("root", "ssh/id_ed25519"), ("root", "pod-root"), ("root", "alice-new"), known_hosts=pods)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("ca")
    lab = [sys.executable, str(LAB), "--dir", str(folder)]
    try:
        story = start(folder, lab)
        for chapter in (switch_on, rebuild, replace_ca, switch_off):
            chapter(story)
        yield story
    finally:
        subprocess.run([*lab, "down"], check=True)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(
    ("step", "login", "gets_in"),
    [
        ("on", "alice by issued", True),
        ("on", "alice by other-principal", False),
        ("on", "alice by expired", False),
        ("on", "bob by issued", False),
        ("on", "root by issued", False),
        ("on", "alice by leaver", True),
        ("on", "alice by leaver-new-key", True),
        ("on", "mallory by mallory", True),
        ("other-alias", "alice by issued", False),
        ("rebuilt", "root by ssh/id_ed25519", True),
        ("rebuilt-other-alias", "root by ssh/id_ed25519", False),
        ("overlap", "alice by issued", True),
        ("overlap", "alice by alice-new", True),
        ("overlap", "alice by leaver", False),
        ("overlap", "alice by leaver-new-key", False),
        ("overlap", "mallory by mallory", False),
        ("replaced", "alice by issued", False),
        ("replaced", "alice by alice-new", True),
        ("replaced", "mallory by mallory", False),
        ("off", "root by ssh/id_ed25519", True),
        ("off", "alice by alice-new", False),
        ("pod", "root by ssh/id_ed25519", True),
        ("pod", "root by pod-root", True),
        ("pod", "root by alice-new", False),
    ],
)
def test_who_gets_in(story: Story, release: str, step: str, login: str, gets_in: bool) -> None:
    assert story.seen[step, release, login] is gets_in


@pytest.mark.parametrize("release", RELEASES)
def test_group_of_the_inventory_decides_where_a_certificate_is_good(story: Story, release: str) -> None:
    is_member = release == "deb12"
    assert story.seen["on", release, "bob by bob-train"] is is_member
    # Nobody's data says that alice may come to this group, whatever a certificate says.
    assert not story.seen["other-group", release, "alice by other-group"]


@pytest.mark.parametrize("release", RELEASES)
def test_refusals_are_in_the_journal(story: Story, release: str) -> None:
    journal = story.journal[release]
    for name in ("other-principal", "other-group", "expired"):
        assert f"{story.fingerprint('alice')} ID alice-{name} " in journal
    assert f"ED25519 {story.fingerprint('mallory')} revoked by file {REVOKED}" in journal
    assert f"ED25519-CERT {story.fingerprint('unknown')} revoked by file {REVOKED}" in journal


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ("missing", f"RevokedKeys {REVOKED}, which cannot be read"),
        ("early", f"sshd still reads {REVOKED}, and would refuse every key without it"),
        ("damaged", "this OpenSSH cannot read the list of revoked keys, and would refuse every key"),
    ],
)
def test_what_would_lock_everybody_out_is_refused(story: Story, release: str, step: str, reason: str) -> None:
    run = story.runs[step]
    assert run.rc != 0
    assert reason in " ".join(run.text.split())
    assert f"{release} | FAILED" in run.text
    assert story.seen["missing" if step == "missing" else "refused", release, "root by ssh/id_ed25519"]


def test_key_of_the_controller_is_not_revoked(story: Story) -> None:
    run = story.runs["own-key"]
    assert run.rc != 0
    fingerprint = story.fingerprint("ssh/id_ed25519")
    assert f"{fingerprint} must not be revoked, since this controller logs in with it" in " ".join(run.text.split())


@pytest.mark.parametrize("release", RELEASES)
def test_second_run_changes_nothing(story: Story, release: str) -> None:
    assert story.runs["again"].counter(release, "changed") == 0, story.runs["again"].text


@pytest.mark.parametrize("release", RELEASES)
def test_nothing_is_left_when_it_is_switched_off(story: Story, release: str) -> None:
    assert sorted(story.left[release].splitlines()) == ["revokedkeys none", "trustedusercakeys none"]


def test_keys_of_the_cas_stay_on_the_controller(story: Story) -> None:
    assert set(story.found_on_node.values()) == {""}
    for name in ("user_ca", "host_ca"):
        path = story.ca / name
        assert path.stat().st_mode & 0o777 == 0o600
        # The lines of the private half; those before them have the public one.
        for line in path.read_text().splitlines()[2:-1]:
            assert all(line not in run.text for run in story.runs.values())
    assert story.ca.stat().st_mode & 0o777 == 0o700
