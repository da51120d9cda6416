# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node of the lab with every failure of failures.py on it, each made for real.

Each failure has a port of its own on the node's address. Behind it is a machine in the machine: an sshd (or what stands
in for it) with its own processes and mounts, its own host key and its own /root. So one container holds eighty of them,
and none shares penalties, start-up files or file systems with another.
"""

from __future__ import annotations

import shlex
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from failures import FAILURES, PLACE, Failure
from podman import as_root, podman

PORTS = {name: 2201 + number for number, name in enumerate(dict.fromkeys(failure.name for failure in FAILURES))}

SSHD_CONFIG = f"""
PidFile none
UsePAM yes
PasswordAuthentication no
ChallengeResponseAuthentication no
AuthorizedKeysFile {PLACE}/authorized_keys
"""
USERS = """
for user in gpu intern guest expired stale; do useradd --create-home --shell /bin/bash $user; done
useradd --create-home --shell /bin/sh dash
useradd --create-home --shell /usr/sbin/nologin nologin
useradd --no-create-home --shell /bin/bash homeless
chage --expiredate 0 expired
chage --lastday 0 stale
printf '%s ALL=(ALL) NOPASSWD: ALL\\n' gpu dash homeless > /etc/sudoers.d/doctor-lab
echo 'intern ALL=(ALL) ALL' >> /etc/sudoers.d/doctor-lab
"""
SSHD = f"""
mount -t tmpfs -o mode=700 tmpfs /root
{{prepare}}
exec /usr/sbin/sshd -D -e -f {PLACE}/sshd_config -p "$port" {{options}}
"""


class SickNode:
    """A container with all failures of its release on it, and a folder with all that a user has of them."""

    def __init__(self, release: str, container: str, home: Path) -> None:
        self.container = container
        self.home = home
        self.failures = [failure for failure in FAILURES if release in failure.releases]
        wanted = "{{.State.Pid}} {{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
        self.pid, self.address = podman("inspect", "--format", wanted, container).split()[:2]

    def start(self) -> None:
        """Make all keys, and start the servers; return when they listen."""
        self.make_keys()
        served = [failure for failure in self.failures if not failure.beside and failure.server is not None]
        with_sshd = [failure for failure in served if not failure.server]
        push = self.home / "push"
        push.mkdir()
        keygen(push / "rsa", "-t", "rsa", "-b", "2048")
        for failure in with_sshd:
            if not failure.host_key:
                keygen(push / failure.name)
        keygen(self.home / "ca")
        expired = push / "expired-certificate.pub"
        run("ssh-keygen", "-q", "-s", self.home / "ca", "-h", "-I", "lab", "-V", "-2d:-1d", expired)
        (push / "sshd_config").write_text(SSHD_CONFIG)
        (push / "banner").write_text("Permission denied (publickey).\nConnection closed by policy.\n")
        (push / "pam").write_text("auth required pam_permit.so\naccount required pam_deny.so\n")
        (push / "slow").write_text("#!/bin/sh\nexec sleep 1000\n")
        (push / "date").write_text(f"#!/bin/sh\nexec {PLACE}/real-date -d '10 minutes ago' \"$@\"\n")
        for program in ("slow", "date"):
            (push / program).chmod(0o755)
        accepted = [self.home / f"{key}.pub" for key in ("key", "locked", "rsa1024", "accepted-mismatch")]
        (push / "authorized_keys").write_text("".join(file.read_text() for file in accepted))
        self.known_hosts(push, with_sshd)
        podman("cp", str(push), f"{self.container}:{PLACE}")
        script = [
            f"chown -R root:root {PLACE}",
            f'cp "$(command -v date)" {PLACE}/real-date',
            USERS,
            *(self.launcher(failure) for failure in served),
        ]
        self.on_node("-m", "-p", "-u", "-i", "sh", "-ec", "\n".join(script))
        for failure in served:
            if failure.firewall:
                where = ["-I", "INPUT", "-p", "tcp", "--dport", str(PORTS[failure.name])]
                self.on_node("iptables", *where, *failure.firewall.split())
        # By looking, since some of them count connections.
        listening = "for port; do until ss -Hltn sport = :$port | grep -q .; do sleep 0.1; done; done"
        podman(
            "exec", self.container, "timeout", "30", "sh", "-c", listening, "sh", *(str(PORTS[f.name]) for f in served)
        )

    def on_node(self, *command: str) -> None:
        """Run something in the node's network with all rights of this machine's root, which the node's own lacks."""
        run(*as_root("nsenter", "-t", self.pid, "-n", *command))

    def launcher(self, failure: Failure) -> str:
        """Shell that starts one server in the background, with its own processes and mounts."""
        body = failure.server
        if not body:
            options = [f"-oHostKey={PLACE}/{failure.host_key or failure.name}"]
            if failure.known == "certificate":
                options.append(f"-oHostCertificate={PLACE}/{failure.name}-cert.pub")
            if failure.sftp:
                options.append(f"-oSubsystem=sftp {failure.sftp}")
            options += [f"-o{option}" for option in failure.sshd]
            body = SSHD.format(prepare=failure.prepare, options=shlex.join(options))
        body = f"port={PORTS[failure.name]}\n{body}"
        unshare = shlex.join(["unshare", "-m", "-p", "--fork", "--mount-proc", "sh", "-ec", body])
        return f"{unshare} < /dev/null > {PLACE}/{failure.name}.log 2>&1 &"

    def make_keys(self) -> None:
        """The keys of a user who tries them all."""
        for key in ("key", "stranger", "locked", "wrong", "accepted-mismatch", *(f"many-{n}" for n in range(7))):
            keygen(self.home / key)
        keygen(self.home / "rsa1024", "-t", "rsa", "-b", "1024")
        # ssh-keygen of OpenSSH 10 makes none any more.
        run("openssl", "dsaparam", "-noout", "-genkey", "-out", self.home / "dsa", "1024")
        (self.home / "dsa").chmod(0o600)
        (self.home / "open").write_bytes((self.home / "key").read_bytes())
        (self.home / "open").chmod(0o644)
        (self.home / "invalid").write_text("no key at all\n")
        (self.home / "invalid").chmod(0o600)
        (self.home / "mismatch").write_bytes((self.home / "accepted-mismatch").read_bytes())
        (self.home / "mismatch").chmod(0o600)
        (self.home / "mismatch.pub").write_text((self.home / "stranger.pub").read_text())

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Hold what needs holding, and provoke what passes by itself."""
        with ExitStack() as stack:
            agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(self.home / "agent")], stdout=subprocess.DEVNULL)
            stack.callback(agent.wait)
            stack.callback(agent.terminate)
            self.lock_key()
            stack.enter_context(socket.create_connection((self.address, PORTS["max-startups"])))
            if "penalties" in [failure.name for failure in self.failures]:
                self.be_penalised()
            yield

    def lock_key(self) -> None:
        """Let the agent hold a key whose file has a passphrase."""
        deadline = time.monotonic() + 10
        while not succeeds("env", f"SSH_AUTH_SOCK={self.home}/agent", "ssh-add", "-q", self.home / "locked"):
            assert time.monotonic() < deadline, "ssh-agent does not start"
            time.sleep(0.1)
        run("ssh-keygen", "-q", "-p", "-N", "passphrase", "-f", self.home / "locked")

    def be_penalised(self) -> None:
        """Fail to log in until the server has had enough."""
        address = (self.address, PORTS["penalties"])
        target = ["-p", address[1], "-i", self.home / "stranger", f"root@{address[0]}"]
        deadline = time.monotonic() + 10
        while True:
            with socket.create_connection(address) as connection:
                if b"Not allowed" in connection.recv(64):
                    return
            assert time.monotonic() < deadline, "sshd penalises nobody"
            succeeds("ssh", "-F", self.home / "config", "-o", "BatchMode=yes", *target, "true")

    def known_hosts(self, keys: Path, with_sshd: list[Failure]) -> None:
        """What the user knows of each server."""
        lines = []
        for failure in with_sshd:
            name = f"[{self.address}]:{PORTS[failure.name]}"
            own, wrong, ca = (
                " ".join(file.with_suffix(".pub").read_text().split()[:2])
                for file in (keys / (failure.host_key or failure.name), self.home / "wrong", self.home / "ca")
            )
            if failure.known in ("right", "revoked"):
                lines.append(f"{name} {own}")
            if failure.known == "revoked":
                lines.append(f"@revoked {name} {own}")
            if failure.known == "wrong":
                lines.append(f"{name} {wrong}")
            if failure.known == "certificate":
                lines.append(f"@cert-authority {name} {ca}")
        (self.home / "known_hosts").write_text("\n".join(lines) + "\n")
        jumps = {name for failure in self.failures for name in failure.through}
        config = []
        for name in sorted(jumps):
            config += [f"Host {name}", f"HostName {self.address}", f"Port {PORTS[name]}", "User root"]
            config += [f"IdentityFile {self.home}/key"]
        config += ["Host *", "IdentitiesOnly yes", f"UserKnownHostsFile {self.home}/known_hosts"]
        config += ["GlobalKnownHostsFile /dev/null"]
        (self.home / "config").write_text("\n".join(config) + "\n")

    def hosts(self) -> dict[str, dict[str, object]]:
        """One host of the inventory for each failure."""
        many = [self.home / f"many-{number}" for number in range(7)]
        options = {
            "many": " ".join(f"-o IdentityFile={key}" for key in many),
            "many_right_first": " ".join(f"-o IdentityFile={key}" for key in [self.home / "key", *many]),
            "home": self.home,
            "address": self.address,
        }
        hosts = {}
        for failure in self.failures:
            arguments = f"-F {self.home}/config {failure.arguments.format(**options)}"
            if failure.through:
                arguments += f" -o ProxyJump={','.join(failure.through)}"
            variables: dict[str, object] = {
                "ansible_host": self.address,
                "ansible_port": PORTS[failure.beside or failure.name],
                "ansible_user": failure.user,
                "ansible_ssh_common_args": arguments,
            }
            if failure.key:
                variables["ansible_ssh_private_key_file"] = str(self.home / failure.key)
            for key, value in failure.variables.items():
                variables[key] = value.format(**options) if isinstance(value, str) else value
            hosts[failure.name] = variables
        return hosts


def keygen(path: Path, *options: str) -> None:
    """Let ssh-keygen make a key."""
    run("ssh-keygen", "-q", *(options or ("-t", "ed25519")), "-N", "", "-f", path)


def run(*command: object) -> None:
    """Run a program that must not fail."""
    done = subprocess.run(
        [str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{shlex.join(str(word) for word in command)[:200]}\n{done.stdout}{done.stderr}"


def succeeds(*command: object) -> bool:
    """Run a program that may fail, and say whether it did."""
    argv = [str(word) for word in command]
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0
