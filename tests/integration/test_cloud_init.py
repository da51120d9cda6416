# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What gpuops.fleet.cloud_init writes and pins, and what it leaves alone; Molecule boots machines from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
CA = "ssh-ed25519 AAAAone old\nssh-ed25519 AAAAtwo new\n"
TEAM = "# the team\nssh-ed25519 AAAAbob bob\n\nssh-ed25519 AAAAcarol carol\n"
PEOPLE = [
    {"name": "alice", "cert_accounts": ["root", "alice"], "cert_groups": ["gpu", "cpu"]},
    {"name": "gone", "state": "absent", "cert_accounts": ["root"], "cert_groups": ["all"]},
    {"name": "mlops", "cert_groups": ["cpu"]},
]
PLAIN, ROOT, KNOWN, BROKEN_OFF = "gpu-1", "gpu-2", "gpu-3", "gpu-4"

# They take the same controller through its life, one after the other.
pytestmark = pytest.mark.xdist_group("cloud-init")


@dataclass(frozen=True)
class Controller:
    """A controller whose machines are not there yet."""

    folder: Path

    @property
    def ssh_dir(self) -> Path:
        return self.folder / "home" / ".ssh"

    def play(self, *arguments: str, rc: int = 0) -> str:
        """Run the playbook, and return what it said, in one line."""
        env = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "SSH_"))}
        env.update(
            HOME=str(self.folder / "home"),
            TMPDIR=str(self.folder),
            PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            ANSIBLE_CONFIG=str(REPOSITORY / "ansible.cfg"),
            ANSIBLE_NOCOLOR="1",
        )
        done = subprocess.run(
            ["ansible-playbook", "-i", str(self.folder / "inventory"), "gpuops.fleet.cloud_init", *arguments],
            cwd=REPOSITORY,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == rc, done.stdout
        return " ".join(done.stdout.split())

    def user_data(self, host: str) -> Path:
        return self.ssh_dir / "gpuops-cloud-init" / f"{host}.yml"

    def content(self, host: str) -> dict[str, Any]:
        """The user-data as cloud-init reads it."""
        text = self.user_data(host).read_text()
        assert text.startswith("#cloud-config\n")
        return dict(yaml.safe_load(text))

    def pinned(self, host: str) -> list[str]:
        """The host keys that the fleet knows of a machine."""
        lines = [line.split() for line in (self.ssh_dir / "known_hosts.d" / "gpuops").read_text().splitlines()]
        return [" ".join(words[1:3]) for words in lines if words[0] == host]

    def files(self) -> dict[str, bytes]:
        """All that is in the ssh directory, but the lock that each run takes."""
        found = (path for path in self.ssh_dir.rglob("*") if path.is_file() and path.name != ".gpuops-run.lock")
        return {str(path): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Controller:
    """A controller with four machines in its inventory."""
    folder = tmp_path_factory.mktemp("cloud-init")
    for name in ("home", "inventory"):
        (folder / name).mkdir()
    # That a CA is trusted does not make a machine known.
    known_hosts = folder / "home" / ".ssh" / "known_hosts.d" / "gpuops"
    known_hosts.parent.mkdir(parents=True)
    known_hosts.write_text(f"@cert-authority gpu-* {CA.splitlines()[0]}\n")
    (folder / "ca.pub").write_text(CA)
    (folder / "team.pub").write_text(TEAM)
    (folder / "inventory" / "group_vars").symlink_to(REPOSITORY / "inventory" / "group_vars")
    usual = {
        "ssh_bootstrap_dir": str(folder / "home" / ".ssh"),
        "ansible_user": "mlops",
        "gpu_users": PEOPLE,
        "cloud_init_user_ca": str(folder / "ca.pub"),
        "authorized_keys_present": ["ssh-ed25519 AAAAbob bob", str(folder / "team.pub")],
    }
    hosts = {host: usual for host in (PLAIN, KNOWN, BROKEN_OFF)}
    hosts[ROOT] = {**usual, "ansible_user": "root"}
    (folder / "inventory" / "nodes.yml").write_text(json.dumps({"gpu": {"hosts": hosts}}))
    return Controller(folder)


@pytest.fixture(scope="module")
def first(controller: Controller) -> str:
    """What the first run said, as loud as can be."""
    return controller.play("-vvvv", "--diff")


def test_missing_ca_and_a_user_who_is_everybody_are_one_message_each(controller: Controller) -> None:
    said = controller.play("-l", PLAIN, "-e", "cloud_init_user_ca=~/no-such.pub", rc=2)
    wanted = f"{PLAIN}: there is no user CA in {controller.folder}/home/no-such.pub, and nothing was written. Next: "
    assert wanted in said
    said = controller.play("-l", PLAIN, "-e", "ansible_user=ALL", rc=2)
    assert f"{PLAIN}: a sudo rule with the name ALL would be one for others, and nothing was written. Next: " in said
    assert not controller.user_data(PLAIN).exists()


def test_host_key_is_pinned_before_the_machine_is_there(controller: Controller, first: str) -> None:
    for host in (PLAIN, ROOT, KNOWN, BROKEN_OFF):
        assert f"{host}: give {controller.user_data(host)} to the provider" in first
        key = controller.content(host)["ssh_keys"]
        assert controller.pinned(host) == [key["ed25519_public"]]
        loaded = subprocess.run(
            ["ssh-keygen", "-y", "-f", "/dev/stdin"],
            input=key["ed25519_private"], capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert loaded.stdout.split()[:2] == key["ed25519_public"].split()


def test_private_host_key_is_only_in_the_user_data(controller: Controller, first: str) -> None:
    private = controller.content(PLAIN)["ssh_keys"]["ed25519_private"].splitlines()[1:-1]
    assert not [line for line in private if line in first]
    holders = [path for path in controller.folder.rglob("*") if path.is_file() and private[-1] in path.read_text()]
    assert holders == [controller.user_data(PLAIN)]
    assert controller.user_data(PLAIN).stat().st_mode & 0o777 == 0o600
    assert controller.user_data(PLAIN).parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.usefixtures("first")
def test_people_and_certificates_are_those_of_the_inventory(controller: Controller) -> None:
    own = (controller.ssh_dir / "id_ed25519.pub").read_text().strip()
    keys = [own, "ssh-ed25519 AAAAbob bob", "ssh-ed25519 AAAAcarol carol"]
    mlops, root = controller.content(PLAIN), controller.content(ROOT)
    assert (mlops["users"][0]["name"], mlops["users"][0]["ssh_authorized_keys"]) == ("mlops", keys)
    assert (root["users"][0]["name"], root["users"][0]["ssh_authorized_keys"]) == ("root", keys)
    assert root["disable_root"] is False
    files = {file["path"]: file["content"] for file in root["write_files"]}
    assert files["/etc/ssh/gpuops-user-ca.pub"] == CA
    assert files["/etc/ssh/gpuops-principals/root"] == "root@gpu\n"
    assert "write_files" not in mlops, "nobody has a certificate that is good for mlops in this group"


@pytest.mark.usefixtures("first")
def test_what_is_there_or_known_is_left_alone(controller: Controller) -> None:
    controller.user_data(KNOWN).unlink()
    pinned = controller.ssh_dir / "known_hosts.d" / "gpuops"
    complete = pinned.read_text()
    pinned.write_text("".join(line for line in complete.splitlines(True) if not line.startswith(BROKEN_OFF)))
    before = controller.files()
    said = controller.play()
    assert [said.count(f"{host} : ok=") for host in (PLAIN, ROOT, KNOWN, BROKEN_OFF)] == [1] * 4
    assert (said.count("changed=0"), said.count("changed=1")) == (3, 1), said
    assert f"{KNOWN} is known already" in said
    assert sorted(pinned.read_text().splitlines()) == sorted(complete.splitlines())
    assert {**controller.files(), str(pinned): b""} == {**before, str(pinned): b""}


@pytest.mark.usefixtures("first")
def test_machine_gets_another_key_when_it_is_made_anew(controller: Controller) -> None:
    pinned, before = controller.pinned(PLAIN), controller.files()
    again = ("-l", PLAIN, "-e", "cloud_init_replace=true")
    said = controller.play("--check", "--diff", *again)
    assert "changed=3" in said, said
    assert controller.files() == before

    controller.play(*again)
    assert controller.pinned(PLAIN) == [controller.content(PLAIN)["ssh_keys"]["ed25519_public"]]
    assert controller.pinned(PLAIN) != pinned
