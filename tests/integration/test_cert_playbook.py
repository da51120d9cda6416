# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A certificate for a person in one command. No node answers, since none is asked."""

from __future__ import annotations

import datetime
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PASSPHRASE = "not for others"
LAST_DAY = datetime.datetime.now(datetime.timezone.utc).date() + datetime.timedelta(days=2)

pytestmark = pytest.mark.xdist_group("cert-playbook")


def keygen(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        ["ssh-keygen", *arguments], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout


@dataclass(frozen=True)
class Controller:
    """A home with a CA and a list of people."""

    home: Path

    @property
    def ca(self) -> Path:
        return self.home / "ssh" / "gpuops-ca"

    def key(self, name: str) -> Path:
        path = self.home / name
        keygen("-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path))
        return Path(f"{path}.pub")

    def cert(self, extra: dict[str, Any], **environment: str) -> str:
        """Run the playbook; what it says, in one line."""
        people = [
            {
                "name": "alice",
                "keys": [str(self.home / "alice.pub")],
                "expiry": str(LAST_DAY),
                "options": {"restrict": True, "pty": True, "from": ["10.0.0.0/8"], "command": "nvidia-smi -L"},
                "cert_accounts": ["alice", "train"],
            },
            {"name": "mallory", "state": "absent"},
        ]
        host = {"ansible_host": "192.0.2.1", "ssh_bootstrap_dir": str(self.home / "ssh"), "gpu_users": people}
        (self.home / "nodes.json").write_text(json.dumps({"gpu": {"hosts": {"gpu-1": host, "gpu-2": host}}}))
        env = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "SSH_"))}
        env.update(
            HOME=str(self.home),
            PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            ANSIBLE_CONFIG=str(REPOSITORY / "ansible.cfg"),
            ANSIBLE_NOCOLOR="1",
            **environment,
        )
        command = [
            "ansible-playbook",
            "-i",
            str(self.home / "nodes.json"),
            "gpuops.fleet.cert",
            "-e",
            json.dumps(extra),
        ]
        done = subprocess.run(
            command, cwd=REPOSITORY, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        text = " ".join((done.stdout + done.stderr).replace("''", "'").split())
        assert "Traceback" not in text
        assert (done.returncode == 0) == ("failed=1" not in text), text
        return text


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    controller = Controller(tmp_path)
    (tmp_path / "ssh").mkdir(mode=0o700)
    controller.key("alice")
    return controller


@pytest.fixture
def agent() -> Iterator[dict[str, str]]:
    said = subprocess.run(["ssh-agent", "-s"], capture_output=True, text=True, check=True).stdout
    environment = dict(re.findall(r"(SSH_\w+)=([^;]+);", said))
    yield environment
    subprocess.run(["ssh-agent", "-k"], env={**os.environ, **environment}, capture_output=True, check=True)


def test_certificate_has_the_limits_of_the_person_and_is_renewed_late(controller: Controller) -> None:
    path = controller.home / "alice-cert.pub"
    wanted = {"person": "alice", "validity": "1w"}
    said = controller.cert(wanted)
    assert f"alice: {path} (new)" in said
    assert f"ssh -o CertificateFile={path} alice@NODE" in said
    shown = keygen("-L", "-f", str(path), TZ="UTC")
    assert 'Key ID: "alice"' in shown
    lists = " ".join(shown.split())
    assert "Principals: alice@gpu train@gpu Critical Options:" in lists
    assert "source-address 10.0.0.0/8" in lists
    assert "force-command nvidia-smi -L" in lists
    assert lists.endswith("Extensions: permit-pty")
    assert f" to {LAST_DAY}T23:59:59 " in lists

    issued = path.read_bytes()
    assert f"alice: {path} (as before)" in controller.cert(wanted)
    assert path.read_bytes() == issued
    # Of a long life, less than a third is left of this one.
    limits = ["-O", "clear", "-O", "permit-pty", "-O", "source-address=10.0.0.0/8", "-O", "force-command=nvidia-smi -L"]
    principals = ["-n", "alice@gpu,train@gpu", "-I", "alice", "-V", "-1h:+1s"]
    keygen("-q", "-s", str(controller.ca / "user_ca"), *principals, *limits, str(controller.home / "alice.pub"))
    assert f"alice: {path} (new)" in controller.cert(wanted)


def test_people_who_get_none_are_told_why_and_who_does(controller: Controller) -> None:
    assert "mallory is absent in gpu_users; there are: alice. Next: ansible-playbook" in controller.cert(
        {"person": "mallory"}
    )
    assert not controller.ca.exists()


def test_ca_with_a_passphrase_signs_through_the_agent(controller: Controller, agent: dict[str, str]) -> None:
    controller.ca.mkdir(mode=0o700)
    ca = controller.ca / "user_ca"
    keygen("-q", "-t", "ed25519", "-N", PASSPHRASE, "-f", str(ca))
    ask = controller.home / "ask"
    ask.write_text(f"#!/bin/sh\necho '{PASSPHRASE}'\n")
    ask.chmod(0o700)

    said = controller.cert({"person": "alice"})
    assert f"{ca} cannot be used; ssh-keygen says:" in said
    assert f'eval "$(ssh-agent)" && ssh-add {ca}, and set ssh_ca_use_agent: true' in said
    wanted = {"person": "alice", "ssh_ca_use_agent": True}
    assert f"no ssh-agent holds the CA {ca}.pub (SHA256:" in controller.cert(wanted, **agent)

    env = {**os.environ, **agent, "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"}
    subprocess.run(["ssh-add", str(ca)], env=env, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    assert "alice-cert.pub (new)" in controller.cert(wanted, **agent)
    signer = keygen("-L", "-f", str(controller.home / "alice-cert.pub"))
    assert keygen("-l", "-f", f"{ca}.pub").split()[1] in signer


def test_ca_whose_private_key_is_gone_is_not_made_anew(controller: Controller) -> None:
    controller.cert({"person": "alice"})
    public = (controller.ca / "user_ca.pub").read_bytes()
    (controller.ca / "user_ca").unlink()
    said = controller.cert({"person": "alice"})
    assert f"next: mv {controller.ca}/user_ca.pub {controller.ca}/user_ca-old.pub" in said
    assert (controller.ca / "user_ca.pub").read_bytes() == public
    assert not (controller.ca / "user_ca").exists()
