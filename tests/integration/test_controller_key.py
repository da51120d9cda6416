# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ssh_bootstrap and the key of the controller: made when missing, repaired where safe, else refused and kept."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PLAY = """
- hosts: gpu-1
  gather_facts: false
  tasks:
    - ansible.builtin.import_role: {name: gpuops.fleet.ssh_bootstrap, tasks_from: key}
"""


class Controller:
    """A home directory, and the part of the role that looks at its key."""

    def __init__(self, folder: Path) -> None:
        self.ssh = folder / ".ssh"
        self.key = self.ssh / "id_ed25519"
        self.public = self.ssh / "id_ed25519.pub"
        folder.mkdir(exist_ok=True)
        self.playbook = folder / "key.yml"
        self.playbook.write_text(PLAY)
        self.agent: dict[str, str] = {}

    def keygen(self, *arguments: str) -> None:
        self.ssh.mkdir(mode=0o700, exist_ok=True)
        subprocess.run(["ssh-keygen", "-q", "-f", self.key, "-C", "mine", *arguments], check=True)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        env = {key: value for key, value in os.environ.items() if key != "SSH_AUTH_SOCK"}
        env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
        env["ANSIBLE_CONFIG"] = str(REPOSITORY / "ansible.cfg")
        return subprocess.run(
            ["ansible-playbook", "-i", "gpu-1,", "-e", f"ssh_bootstrap_dir={self.ssh}", *arguments, self.playbook],
            env={**env, **self.agent},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def refuses(self, *words: str) -> None:
        """The run fails with one message that has these words, and the key is as it was."""
        before = self.key.read_bytes()
        run = self.run()
        text = " ".join(run.stdout.split())
        assert run.returncode == 2, run.stdout + run.stderr
        assert run.stdout.count("fatal:") == 1
        for word in ["localhost:", str(self.key), "Next:", *words]:
            assert word in text, text
        assert "Traceback" not in run.stdout + run.stderr
        assert self.key.read_bytes() == before


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    return Controller(tmp_path)


@pytest.fixture
def agent(controller: Controller) -> Iterator[Controller]:
    """A controller whose ssh-agent holds its key."""
    controller.keygen("-t", "ed25519", "-N", "secret words")
    socket = controller.ssh / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
    controller.agent = {"SSH_AUTH_SOCK": str(socket)}
    askpass = controller.ssh / "askpass"
    askpass.write_text("#!/bin/sh\necho secret words\n")
    askpass.chmod(0o700)
    while not socket.exists():
        assert process.poll() is None
    subprocess.run(
        ["setsid", "ssh-add", "-q", controller.key],
        env={**os.environ, **controller.agent, "SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force"},
        stdin=subprocess.DEVNULL,
        check=True,
    )
    yield controller
    process.kill()
    process.wait()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_key_is_made_once(controller: Controller) -> None:
    assert controller.run().returncode == 0
    assert controller.public.read_text().startswith("ssh-ed25519 ")
    assert [mode(path) for path in (controller.ssh, controller.key)] == [0o700, 0o600]
    first = controller.key.read_bytes()
    again = controller.run()
    assert "changed=0" in again.stdout
    assert controller.key.read_bytes() == first


def test_check_mode_makes_nothing(controller: Controller) -> None:
    assert controller.run("--check").returncode == 0
    assert not controller.ssh.exists()


def test_open_modes_are_closed(controller: Controller) -> None:
    controller.keygen("-t", "ed25519", "-N", "")
    controller.ssh.chmod(0o777)
    controller.key.chmod(0o644)
    run = controller.run()
    assert run.returncode == 0, run.stdout
    assert "changed=" in run.stdout
    assert [mode(path) for path in (controller.ssh, controller.key)] == [0o700, 0o600]


@pytest.mark.parametrize("state", ["missing", "of another key"])
def test_public_half_is_put_right(controller: Controller, tmp_path: Path, state: str) -> None:
    controller.keygen("-t", "ed25519", "-N", "")
    private, right = controller.key.read_bytes(), controller.public.read_text().split()[1]
    controller.public.unlink()
    if state == "of another key":
        other = Controller(tmp_path / "other")
        other.keygen("-t", "ed25519", "-N", "")
        controller.public.write_text(other.public.read_text())
    assert controller.run().returncode == 0
    assert controller.public.read_text().split()[1] == right
    assert controller.key.read_bytes() == private


def test_strong_rsa_key_is_kept(controller: Controller) -> None:
    controller.keygen("-t", "rsa", "-b", "3072", "-N", "")
    before = controller.key.read_bytes()
    run = controller.run()
    assert run.returncode == 0, run.stdout
    assert controller.key.read_bytes() == before
    assert controller.public.read_text().startswith("ssh-rsa ")


@pytest.mark.parametrize("kind", [("-t", "rsa", "-b", "2048"), ("-t", "dsa")], ids=["rsa-2048", "dsa"])
def test_weak_key_is_refused_with_the_command_for_a_better_one(controller: Controller, kind: tuple[str, ...]) -> None:
    try:
        controller.keygen(*kind, "-N", "")
    except subprocess.CalledProcessError:
        pytest.skip(f"this ssh-keygen cannot make a key with {' '.join(kind)} any more")
    controller.refuses("too weak", "ssh-keygen -t ed25519 -f")


def test_directory_is_refused(controller: Controller) -> None:
    controller.key.mkdir(parents=True)
    run = controller.run()
    assert run.returncode == 2
    assert "is a directory" in " ".join(run.stdout.split())
    assert controller.key.is_dir()


@pytest.mark.parametrize(("content", "words"), [("", "is empty"), ("no key\n", "is no usable private key")])
def test_file_that_is_no_key_is_refused(controller: Controller, content: str, words: str) -> None:
    controller.ssh.mkdir(mode=0o700)
    controller.key.write_text(content)
    controller.key.chmod(0o600)
    controller.refuses(words, "mv ")


@pytest.mark.parametrize("with_public", [True, False])
def test_passphrase_without_agent_is_refused(controller: Controller, with_public: bool) -> None:
    controller.keygen("-t", "ed25519", "-N", "secret words")
    if not with_public:
        controller.public.unlink()
    controller.refuses("has a passphrase", "ssh-add")


def test_passphrase_with_agent_is_fine(agent: Controller) -> None:
    before = agent.key.read_bytes()
    run = agent.run()
    assert run.returncode == 0, run.stdout
    assert agent.key.read_bytes() == before


def test_public_half_alone_is_not_replaced(controller: Controller) -> None:
    controller.keygen("-t", "ed25519", "-N", "")
    controller.key.unlink()
    before = controller.public.read_bytes()
    run = controller.run()
    assert run.returncode == 2
    assert "no ssh-agent holds the key" in " ".join(run.stdout.split())
    assert (controller.public.read_bytes(), controller.key.exists()) == (before, False)


def test_ssh_keygen_is_there() -> None:
    """The tests above mean nothing without it."""
    assert shutil.which("ssh-keygen")
