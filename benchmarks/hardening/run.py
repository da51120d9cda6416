# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure how strict sshd_hardening leaves sshd, what it costs, and what is lost, beside stock and other roles.

From the top of the repository:
    .venv/bin/python benchmarks/hardening/run.py [--devsec CHECKOUT] [--willshersystems CHECKOUT]   prints a table
    .venv/bin/python benchmarks/hardening/run.py --clients                       renews the table in docs/clients.md
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests" / "lab"))
import visitors
from podman import podman

RELEASES = {"gpu-1": "11", "gpu-2": "12", "gpu-3": "13"}
POLICIES = {"gpu-2": "Hardened Debian 12 (version 3)", "gpu-3": "Hardened Debian 13 (version 1)"}
CLIENTS_PAGE = REPOSITORY / "docs" / "clients.md"
# OpenSSH 9.8 and later shut a scanner out for a while.
PENALTY_SECONDS = 40

# What a person has set: two Match blocks and a drop-in.
SEED = r"""
printf 'Match User backup\n  ForceCommand /bin/true\nMatch Address 203.0.113.0/24\n  X11Forwarding yes\n' \
    >> /etc/ssh/sshd_config
printf 'MaxSessions 50\n' > /etc/ssh/sshd_config.d/60-person.conf
"""
MATCH_BLOCKS = {
    "user=backup,host=there,addr=192.0.2.1": "forcecommand /bin/true",
    "user=root,host=there,addr=203.0.113.1": "x11forwarding yes",
}
DROP_INS = {"user=root,host=there,addr=192.0.2.1": "maxsessions 50"}

# Each is given root@address, as $0.
DEBIAN_CLIENTS = {
    "dropbear-bin": ("Dropbear", 'dbclient -y -y -i /root/visitor.dropbear "$0" id -un'),
    "putty-tools": ("PuTTY", 'echo y | plink -ssh -i /root/visitor.ppk "$0" id -un'),
    "libssh2-1*": (
        "libssh2",
        'curl -sSk --key /root/visitor.pem --pubkey /root/visitor.pem.pub -u root: "sftp://${0#*@}/etc/passwd" '
        "> /root/visitor.got && head -n 1 /root/visitor.got | cut -d : -f 1",
    ),
}
# Debian builds libssh2 without ed25519 before 13, so it has an RSA key.
INSTALL_CLIENTS = """
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends dropbear-bin putty-tools curl
dropbearconvert openssh dropbear /root/visitor /root/visitor.dropbear
puttygen /root/visitor -O private -o /root/visitor.ppk
"""


class Lab:
    """A node of each release, into which this machine logs in by key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ssh = folder / "home" / ".ssh"
        self.script = [sys.executable, str(REPOSITORY / "tests" / "lab" / "lab.py"), "--dir", str(folder)]
        nodes = [f"{name}=deb{release}:t4x1-470" for name, release in RELEASES.items()]
        subprocess.run([*self.script, "up", *nodes], check=True)
        self.hosts = json.loads((folder / "inventory" / "nodes.yml").read_text())["gpu"]["hosts"]
        self.ssh.mkdir(mode=0o700, parents=True)
        code, said = self.play("gpu", "gpuops.fleet.ssh_bootstrap")
        if code:
            raise SystemExit(said)

    def down(self) -> None:
        subprocess.run([*self.script, "down"], check=True)

    def play(self, hosts: str, role: str, facts: bool = False, **variables: object) -> tuple[int, str]:
        """Run a role, and return how that ended and what was said."""
        playbook = self.folder / "play.yml"
        playbook.write_text(
            json.dumps([{"hosts": hosts, "gather_facts": facts, "vars": variables, "roles": [{"role": role}]}])
        )
        done = subprocess.run(
            [Path(sys.executable).with_name("ansible-playbook"), "-i", self.folder / "inventory", playbook],
            cwd=REPOSITORY,
            env={**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    def sh(self, node: str, script: str) -> str:
        """Run a script past sshd."""
        return podman("exec", self.hosts[node]["lab_container"], "sh", "-ec", script)

    def door(self, node: str) -> tuple[str, int]:
        return self.hosts[node]["ansible_host"], self.hosts[node]["ansible_port"]

    def ssh_to(self, *arguments: str) -> str:
        """What a new connection of the user's brings; empty if it does not work."""
        options = ["-o", "BatchMode=yes", "-o", "ControlPath=none", "-o", "ConnectTimeout=10"]
        command = ["timeout", "15", "ssh", "-F", str(self.ssh / "config"), *options, *arguments]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False).stdout

    def lost(self, node: str, wanted: dict[str, str]) -> int:
        """How many settings of a person's are no longer in force."""
        return sum(line not in self.sh(node, f"sshd -T -C {who}").splitlines() for who, line in wanted.items())


def timed_run(lab: Lab, node: str, role: str, facts: bool, variables: dict[str, object]) -> tuple[str, str]:
    """Run a role on one node: the tasks it took, and the seconds."""
    start = time.monotonic()
    code, said = lab.play(node, role, facts, **variables)
    seconds = f"{time.monotonic() - start:.1f}"
    counters = {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", said.rpartition("PLAY RECAP")[2])}
    if counters.get("unreachable"):
        seconds += ", unreachable"
    elif code:
        seconds += ", failed"
    return str(counters.get("ok", 0)), seconds


def passes(lab: Lab, node: str) -> str:
    """Whether a node passes ssh-audit's policy for its release; stricter: all that it offers is in there."""
    if node not in POLICIES:
        return "there is none"
    errors = visitors.against_policy(*lab.door(node), POLICIES[node])
    if not errors:
        return "passed"
    within = all({*error["actual"]} <= {*error["expected_required"], *error["expected_optional"]} for error in errors)
    return "stricter" if within else "failed"


def measure(name: str, role: str, facts: bool = False, **variables: object) -> None:
    """Print a line of the table for each release."""
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder))
        try:
            lines = {}
            for node, release in RELEASES.items():
                lab.sh(node, SEED)
                tasks = first = again = "-"
                if role:
                    tasks, first = timed_run(lab, node, role, facts, variables)
                    _tasks, again = timed_run(lab, node, role, facts, variables)
                login = "works" if lab.ssh_to(node, "id -un") == "root\n" else "**refused**"
                forward = "works" if lab.ssh_to("-W", "127.0.0.1:22", node).startswith("SSH-2.0") else "**refused**"
                lost = f"{lab.lost(node, MATCH_BLOCKS)} of 2 | {lab.lost(node, DROP_INS)} of 1"
                lines[node] = (
                    f"| {release} | {name} |",
                    f"{login} | {forward} | {lost} | {tasks} | {first} | {again} |",
                )
            for node in RELEASES:
                found = visitors.scan(*lab.door(node))
                lines[node] = (
                    f"{lines[node][0]} {len(found.fails)} | {len(found.warns)} | {found.algorithms} |",
                    lines[node][1],
                )
            time.sleep(PENALTY_SECONDS)
            for node in RELEASES:
                print(f"{lines[node][0]} {passes(lab, node)} | {lines[node][1]}", flush=True)
        finally:
            lab.down()


def hardening(devsec: Path | None, willshersystems: Path | None) -> None:
    print(
        "| Debian | sshd by | fails | warns | algorithms | policy | new login | `-W` | Match blocks lost "
        "| drop-ins lost | tasks | first run, s | again, s |\n"
        "| --- | --- | ---: | ---: | ---: | --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
        flush=True,
    )
    ours = "gpuops.fleet.sshd_hardening"
    measure("stock", "")
    measure("compat", ours)
    measure("strict", ours, sshd_hardening_profile="strict")
    for name, checkout, role in (
        ("devsec.hardening", devsec, "roles/ssh_hardening"),
        ("willshersystems.sshd", willshersystems, "."),
    ):
        if checkout:
            measure(name, str((checkout / role).resolve()), facts=True)
        else:
            print(f"| | {name} | not measured: no checkout was named |")


def clients() -> None:
    """Write the table of who gets in."""
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder))
        try:
            CLIENTS_PAGE.write_text(
                re.sub(r"(?:^\|.*\n)+", client_table(lab), CLIENTS_PAGE.read_text(), count=1, flags=re.MULTILINE)
            )
        finally:
            lab.down()


def client_table(lab: Lab) -> str:
    key = lab.ssh / "id_ed25519"
    pem = lab.folder / "visitor.pem"
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "3072", "-m", "PEM", "-N", "", "-f", str(pem)], check=True)
    public = pem.with_name("visitor.pem.pub").read_text()
    names: list[tuple[str, str, tuple[str, ...]]] = []
    for node, host in lab.hosts.items():
        container = host["lab_container"]
        visitors.give_key(container, key.read_text())
        podman("exec", "-i", container, "sh", "-c", "umask 77; cat > /root/visitor.pem", stdin=pem.read_text())
        podman("exec", "-i", container, "sh", "-c", "cat > /root/visitor.pem.pub", stdin=public)
        podman("exec", "-i", container, "sh", "-c", "cat >> /root/.ssh/authorized_keys", stdin=public)
        lab.sh(node, INSTALL_CLIENTS)
        names.append((f"OpenSSH {installed(lab, node, 'openssh-client')}", container, visitors.OPENSSH))
        for package, (name, script) in DEBIAN_CLIENTS.items():
            names.append((f"{name} {installed(lab, node, package)}", container, ("sh", "-c", script)))
    names.sort(key=lambda entry: entry[0].split()[0].lower())
    old = lab.folder / "paramiko"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(old), "paramiko==3.5.*"]
    subprocess.run(pip, check=True)
    libraries = [
        ("paramiko 3.5", "paramiko", str(old)),
        (f"paramiko {version('paramiko')}", "paramiko", ""),
        (f"asyncssh {version('asyncssh')}", "asyncssh", ""),
    ]
    rows: dict[str, list[str]] = {name: [] for name in [entry[0] for entry in names + libraries]}
    for profile, targets in (("compat", tuple(RELEASES)), ("strict", ("gpu-2", "gpu-3"))):
        code, said = lab.play(
            ",".join(targets),
            "gpuops.fleet.sshd_hardening",
            sshd_hardening_profile=profile,
            sshd_hardening_penalty_exempt=["0.0.0.0/0"],
        )
        if code:
            raise SystemExit(said)
        for target in targets:
            address = visitors.address(lab.hosts[target]["lab_container"])
            answers = {name: visitors.log_in_from(source, command, address) for name, source, command in names}
            for name, library, packages in libraries:
                answers[name] = visitors.log_in_by_python(library, *lab.door(target), key, packages)
            for name, why in answers.items():
                rows[name].append("**no**" if why else "yes")
                if why:
                    print(f"{name} to {target} in {profile}: {why.splitlines()[-1]}", file=sys.stderr)
    head = (
        "| client | `compat` on 11 | on 12 | on 13 | `strict` on 12 | on 13 |\n| --- | --- | --- | --- | --- | --- |\n"
    )
    return head + "".join(f"| {name} | {' | '.join(cells)} |\n" for name, cells in rows.items())


def installed(lab: Lab, node: str, package: str) -> str:
    """The version of a package without what Debian adds: 1:9.2p1-2+deb12u7 is 9.2."""
    found = lab.sh(node, f"dpkg-query -W -f '${{Version}}\\n' '{package}'").split()[0]
    return re.sub(r"^\d+:|p\d+.*|[-+].*", "", found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", action="store_true", help="try the clients, and write docs/clients.md")
    parser.add_argument("--devsec", type=Path, help="checkout of dev-sec/ansible-collection-hardening")
    parser.add_argument("--willshersystems", type=Path, help="checkout of willshersystems/ansible-sshd")
    args = parser.parse_args()
    if args.clients:
        clients()
    else:
        hardening(args.devsec, args.willshersystems)


if __name__ == "__main__":
    main()
