# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two jump hosts that want a second factor of people: who gets in, who only gets through, and to where.

Each of them stands for the node behind the other: on the network inside, in which this machine has no address.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pexpect
import pytest
from podman import podman

REPOSITORY = Path(__file__).resolve().parents[2]
NODES = ("bastion-1=deb12:none@door", "bastion-2=deb13:none@door")
OTHER = {"bastion-1": "bastion-2", "bastion-2": "bastion-1"}
both_releases = pytest.mark.parametrize("bastion", OTHER)
SITE_SECONDS = 300
# Of ansible-playbook for one role, and of ssh.
PLAY_SECONDS, LOGIN_SECONDS = 300, 30
# Anna and Ben have a shell, and Ben has no secret. Jo and Jill may only jump. Robots, Jill too, are asked for no code.
PEOPLE = """
groupadd robots
useradd --create-home --shell /bin/bash anna
useradd --create-home --shell /bin/bash ben
useradd --create-home --shell /bin/bash --groups robots robot
useradd --create-home --shell /bin/bash --groups jump jo
useradd --create-home --shell /bin/bash --groups jump,robots jill
echo anna:the-unix-password | chpasswd
echo 'auth optional pam_group.so' >> /etc/pam.d/common-auth
echo 'sshd;*;*;Al0000-2400;video' >> /etc/security/group.conf
for user in anna ben robot jo jill; do
    install -d -m 700 -o $user -g $user /home/$user/.ssh
    echo "$1" > /home/$user/.ssh/authorized_keys
    echo 'touch /tmp/shell-of-$USER' > /home/$user/.bashrc
done
for user in anna jo; do
    su - $user -c 'google-authenticator --time-based --disallow-reuse --force --no-rate-limit --no-confirm --quiet -w 3'
done
"""
WITHOUT_PACKAGE = "s/^Package: libpam-google-authenticator$/Package: something-else/"
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("bastion")]


@dataclass(frozen=True)
class Lab:
    """The administrator's side of the lab, and a key that all the people share."""

    folder: Path
    hosts: dict[str, dict[str, Any]]

    @property
    def config(self) -> Path:
        """The ssh configuration of a person."""
        return self.folder / "person" / "config"

    def on(self, bastion: str, script: str, *arguments: str) -> str:
        """Run a script on the node past its sshd."""
        return podman("exec", self.hosts[bastion]["lab_container"], "sh", "-ec", script, "sh", *arguments)

    def outer(self, bastion: str) -> str:
        return str(self.hosts[bastion]["ansible_host"])

    def inner(self, bastion: str) -> str:
        """The address of a node on the network inside."""
        networks = json.loads(
            podman("inspect", "--format", "{{json .NetworkSettings.Networks}}", self.hosts[bastion]["lab_container"])
        )
        return next(str(network["IPAddress"]) for key, network in networks.items() if key.endswith("-inside"))

    def ansible(self, program: str, *arguments: str, seconds: float = PLAY_SECONDS) -> tuple[int, str]:
        done = subprocess.run(
            [program, "-i", str(self.folder / "inventory"), *arguments],
            cwd=REPOSITORY,
            env={
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "ANSIBLE_NOCOLOR": "1",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=seconds,
        )
        assert "Traceback" not in done.stdout, done.stdout
        return done.returncode, done.stdout

    def site(self) -> tuple[int, str]:
        """Run site.yml for the bastions; the nodes behind them are only names in the inventory."""
        return self.ansible("ansible-playbook", "site.yml", "--limit", "bastion", seconds=SITE_SECONDS)

    def play(self, folder: Path, *roles: str) -> tuple[int, str]:
        """Ask for another setting of sshd on the first bastion, by these roles."""
        play = folder / "play.yml"
        play.write_text(json.dumps([{"hosts": "bastion-1", "gather_facts": False, "roles": roles}]))
        return self.ansible("ansible-playbook", str(play), "-e", "sshd_hardening_max_auth_tries=3")

    def person(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ssh or scp as a person whom nothing can be asked."""
        return subprocess.run(
            [program, "-F", str(self.config), "-o", "BatchMode=yes", *arguments],
            input="",
            capture_output=True,
            text=True,
            check=False,
            timeout=LOGIN_SECONDS,
        )

    def type_into_ssh(self, answer: str, *arguments: str) -> tuple[int, str]:
        """Log in at a terminal and answer what is asked for; exit code and all that was shown."""
        ssh = pexpect.spawn("ssh", ["-F", str(self.config), *arguments], encoding="utf-8", timeout=LOGIN_SECONDS)
        shown = ""
        while ssh.expect(["Verification code: ", "[Pp]assword: ", pexpect.EOF]) < 2:
            shown += ssh.before + ssh.after
            ssh.sendline(answer)
        ssh.close()
        return ssh.exitstatus, shown + ssh.before

    def code(self, bastion: str, user: str) -> str:
        """What the authenticator app of a person shows now (RFC 6238)."""
        secret = self.on(bastion, 'head -n 1 "/home/$1/.google_authenticator"', user).strip()
        key = base64.b32decode(secret + "=" * (-len(secret) % 8))
        digest = hmac.digest(key, struct.pack(">Q", int(time.time()) // 30), "sha1")
        (number,) = struct.unpack_from(">I", digest, digest[-1] & 15)
        return f"{(number & 0x7FFFFFFF) % 10**6:06}"

    def journal(self, bastion: str) -> str:
        return self.on(bastion, "journalctl --output=cat")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The bastions after their first site.yml, with people on them."""
    folder = tmp_path_factory.mktemp("bastion")
    script = [sys.executable, str(REPOSITORY / "tests" / "lab" / "lab.py"), "--dir", str(folder)]
    try:
        subprocess.run([*script, "up", *NODES], check=True)
        inventory = folder / "inventory" / "nodes.yml"
        groups = json.loads(inventory.read_text())
        lab = Lab(folder, groups["bastion"]["hosts"])
        lab.hosts["bastion-2"]["sshd_hardening_mfa_without_secret"] = "allow"
        groups["bastion"]["vars"] = {
            "sshd_hardening_mfa": True,
            "sshd_hardening_mfa_exempt_groups": ["robots"],
            "sshd_hardening_penalty_exempt": ["10.0.0.0/8"],
            "ssh_bastion_enabled": True,
        }
        groups["gpu"] = {"hosts": {"gpu-1": {"ansible_host": lab.inner("bastion-1")}, "gpu-2": {}}}
        groups["gpu"]["hosts"]["gpu-2"]["ansible_host"] = lab.inner("bastion-2")
        inventory.write_text(json.dumps(groups))
        (folder / "home" / ".ssh").mkdir(mode=0o700, parents=True)
        lab.config.parent.mkdir(mode=0o700)
        key = lab.config.with_name("key")
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "people", "-f", str(key)], check=True)
        lab.config.write_text(
            f"IdentityFile {key}\nIdentitiesOnly yes\nNumberOfPasswordPrompts 1\nConnectTimeout 5\n"
            "StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\n"
        )
        code, text = lab.site()
        assert code == 0, text
        for bastion in OTHER:
            lab.on(bastion, PEOPLE, key.with_suffix(".pub").read_text())
        yield lab
    finally:
        subprocess.run([*script, "down"], check=True)


# --- the second factor ----------------------------------------------------------------------------------------------


@both_releases
def test_person_gets_in_by_key_and_code_and_by_each_code_once(lab: Lab, bastion: str) -> None:
    code = lab.code(bastion, "anna")
    assert lab.type_into_ssh(code, f"anna@{lab.outer(bastion)}", "hostname")[1].endswith(f"\n{bastion}\r\n")
    status, shown = lab.type_into_ssh(code, f"anna@{lab.outer(bastion)}", "hostname")
    assert status == 255, shown
    assert "Permission denied (keyboard-interactive)" in shown
    assert "Trying to reuse a previously used time-based code" in lab.journal(bastion)


@both_releases
@pytest.mark.parametrize("answer", ["000000", "the-unix-password", ""])
def test_person_without_the_right_code_is_refused(lab: Lab, bastion: str, answer: str) -> None:
    status, shown = lab.type_into_ssh(answer, f"anna@{lab.outer(bastion)}", "hostname")
    assert status == 255, shown
    assert "Permission denied (keyboard-interactive)" in shown
    assert "assword" not in shown


@both_releases
def test_code_without_the_key_is_refused(lab: Lab, bastion: str) -> None:
    code = lab.code(bastion, "anna")
    status, shown = lab.type_into_ssh(code, "-o", "PubkeyAuthentication=no", f"anna@{lab.outer(bastion)}", "hostname")
    assert status == 255, shown
    assert "Permission denied (publickey)" in shown


def test_person_without_a_secret_is_refused_and_told_what_to_do(lab: Lab) -> None:
    status, shown = lab.type_into_ssh("", f"ben@{lab.outer('bastion-1')}", "hostname")
    assert status == 255, shown
    assert "Ask an administrator to run for you: google-authenticator" in shown


def test_person_without_a_secret_is_let_in_where_that_is_allowed_and_told_what_to_do(lab: Lab) -> None:
    status, shown = lab.type_into_ssh("", "-tt", f"ben@{lab.outer('bastion-2')}", "hostname")
    assert status == 0, shown
    assert "\nbastion-2\r\n" in shown
    assert "Make one now: google-authenticator" in shown


@both_releases
def test_member_of_an_exempt_group_needs_no_code_and_gets_what_pam_gives(lab: Lab, bastion: str) -> None:
    done = lab.person("ssh", f"robot@{lab.outer(bastion)}", "id -Gn")
    assert "video" in done.stdout.split(), done.stderr


def test_second_run_logs_in_and_changes_nothing(lab: Lab) -> None:
    code, text = lab.site()
    assert code == 0, text
    assert text.count("changed=0") == len(OTHER), text


def test_hardening_alone_does_not_take_the_rules_of_the_jump_host_away(lab: Lab, tmp_path: Path) -> None:
    code, text = lab.play(tmp_path, "gpuops.fleet.sshd_hardening")
    assert code == 2, text
    assert "bastion-1: sshd was not changed: it would lose the rules of ssh_bastion" in text


def test_without_the_package_nothing_is_changed(lab: Lab, tmp_path: Path) -> None:
    """It is not there, and there is nowhere to get it from."""
    files = "cat /etc/pam.d/sshd /etc/ssh/sshd_config.d/00-gpuops.conf"
    before = lab.on("bastion-1", files)
    lab.on("bastion-1", 'sed -i.saved "$1" /var/lib/dpkg/status; mv /etc/apt /etc/apt.away', WITHOUT_PACKAGE)
    try:
        code, text = lab.play(tmp_path, "gpuops.fleet.ssh_bastion", "gpuops.fleet.sshd_hardening")
    finally:
        lab.on("bastion-1", "mv /var/lib/dpkg/status.saved /var/lib/dpkg/status; mv /etc/apt.away /etc/apt")
    assert code == 2, text
    assert "bastion-1: sshd was not changed: libpam-google-authenticator cannot be installed: " in text
    assert lab.on("bastion-1", files) == before


# --- the jump host --------------------------------------------------------------------------------------------------


@both_releases
def test_person_jumps_with_key_and_code(lab: Lab, bastion: str) -> None:
    target = f"robot@{lab.inner(OTHER[bastion])}"
    status, shown = lab.type_into_ssh(lab.code(bastion, "jo"), "-J", f"jo@{lab.outer(bastion)}", target, "hostname")
    assert status == 0, shown
    assert shown.endswith(f"\n{OTHER[bastion]}\r\n")


@both_releases
def test_files_are_copied_through_the_jump_host(lab: Lab, bastion: str, tmp_path: Path) -> None:
    (tmp_path / "sent").write_text("a file\n")
    target = f"robot@{lab.inner(OTHER[bastion])}"
    jump = ["-o", f"ProxyJump=jill@{lab.outer(bastion)}"]
    scp = lab.person("scp", "-q", *jump, f"{tmp_path}/sent", f"{target}:by-scp")
    assert scp.returncode == 0, scp.stderr
    ssh = f"ssh -F {lab.config} {' '.join(jump)}"
    subprocess.run(
        ["rsync", "-a", "-e", ssh, f"{target}:by-scp", f"{tmp_path}/back"], check=True, timeout=LOGIN_SECONDS
    )
    assert (tmp_path / "back").read_text() == "a file\n"


def test_aliases_that_pass_over_a_dead_jump_host_take_this_one(lab: Lab, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(f"Include {lab.config}\n")
    dead = {"name": "dead", "hostname": lab.outer("bastion-1"), "port": 9, "user": "jill"}
    alive = {"name": "alive", "hostname": lab.outer("bastion-1"), "user": "jill"}
    node = {"name": "node", "hostname": lab.inner("bastion-2"), "user": "robot", "jump_hosts": ["dead", "alive"]}
    arguments = json.dumps({"path": str(config), "aliases": [dead, alive, node]})
    code, text = lab.ansible("ansible", "localhost", "-c", "local", "-m", "gpuops.fleet.ssh_alias", "-a", arguments)
    assert code == 0, text
    done = subprocess.run(
        ["ssh", "-F", str(config), "-o", "BatchMode=yes", "node", "hostname"],
        capture_output=True,
        text=True,
        check=False,
        timeout=LOGIN_SECONDS,
    )
    assert done.stdout == "bastion-2\n", done.stderr


@both_releases
@pytest.mark.parametrize(
    "arguments",
    [
        ["JUMP"],
        ["JUMP", "hostname"],
        ["-tt", "JUMP", "hostname"],
        ["-s", "JUMP", "sftp"],
        ["-A", "-X", "JUMP", "hostname"],
        ["-W", "127.0.0.1:22", "JUMP"],
        ["-W", "TARGET:80", "JUMP"],
        ["-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:TARGET:22", "JUMP"],
        ["-N", "-o", "ExitOnForwardFailure=yes", "-R", "/tmp/socket-of-jill:TARGET:22", "JUMP"],
        ["-N", "-o", "ExitOnForwardFailure=yes", "-w", "any", "JUMP"],
    ],
    ids=" ".join,
)
def test_nothing_else_is_to_be_had(lab: Lab, bastion: str, arguments: list[str]) -> None:
    names = {"JUMP": f"jill@{lab.outer(bastion)}", "TARGET": lab.inner(OTHER[bastion])}
    command = [argument.replace("TARGET", names["TARGET"]).replace("JUMP", names["JUMP"]) for argument in arguments]
    done = lab.person("ssh", *command)
    assert done.returncode == 255, done.stdout
    assert "Permission denied" not in done.stderr
    assert done.stdout == ""
    assert lab.on(bastion, "ls /tmp").find("-of-jill") == -1


@both_releases
def test_sockets_of_the_jump_host_are_not_reached(lab: Lab, bastion: str, tmp_path: Path) -> None:
    lab.on(bastion, "test -S /run/dbus/system_bus_socket")
    here = tmp_path / "here"
    forward = f"{here}:/run/dbus/system_bus_socket"
    said = tmp_path / "said"
    alone = ["ssh", "-F", str(lab.config), "-o", "BatchMode=yes", "-o", "ControlPath=none"]
    command = [*alone, "-N", "-L", forward, f"jill@{lab.outer(bastion)}"]
    # Into a file: the shared connection to the jump host on the way stays, and would hold a pipe, for a minute.
    with said.open("w") as file, subprocess.Popen(command, stderr=file) as ssh:
        try:
            end = time.monotonic() + LOGIN_SECONDS
            while not here.exists():
                assert time.monotonic() < end
                time.sleep(0.1)
            with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(ConnectionResetError):
                client.settimeout(5)
                client.connect(str(here))
                client.recv(1)
        finally:
            ssh.terminate()
    assert "open failed" in said.read_text()


@both_releases
def test_journal_has_where_they_went_and_where_they_may_not(lab: Lab, bastion: str) -> None:
    target = lab.inner(OTHER[bastion])
    jump = f"jill@{lab.outer(bastion)}"
    lab.person("ssh", "-J", jump, f"robot@{target}", "true")
    lab.person("ssh", "-W", "127.0.0.1:25", jump)
    journal = lab.journal(bastion)
    assert f"target {target} port 22\n" in journal
    assert "to connect to host 127.0.0.1 port 25, but the request was denied" in journal
    assert "Accepted publickey for jill from " in journal


@both_releases
def test_only_the_group_is_kept_to_it(lab: Lab, bastion: str) -> None:
    done = lab.person("ssh", "-tt", f"robot@{lab.outer(bastion)}", "tty")
    assert done.stdout.startswith("/dev/pts/"), done.stderr
