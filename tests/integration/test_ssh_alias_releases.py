# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ssh_alias on a node of each Debian release, with the OpenSSH, the Python and the shell that are there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import typing as t
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from podman import podman

REPOSITORY = Path(__file__).resolve().parents[2]
RELEASES = ("deb11", "deb12", "deb13")
USERS_CONFIG = "Host web\r\n  User  bob\r\nHost gpu-*\r\n  ServerAliveInterval 30"
OTHERS = ("web", "gpu-9", "elsewhere")
ALIASES: list[dict[str, t.Any]] = [
    {"name": "dead", "hostname": "127.0.0.1", "port": 1},
    {"name": "near", "hostname": "127.0.0.1"},
    {"name": "gpu-1", "hostname": "10.0.0.11", "jump_hosts": ["dead", "near"]},
    {"name": "gpu-2", "hostname": "10.0.0.12", "jump_hosts": ["dead"], "direct": "allow"},
    {
        "name": "gpu-3",
        "port": 2203,
        "identity_file": ["~/.ssh/a key", "~/.ssh/b#2"],
        "certificate_file": ["~/.ssh/a cert"],
        "known_hosts_file": "~/.ssh/known hosts",
        "local_forward": ["8888 localhost:8888"],
        "remote_forward": ["1080"],
        "keepalive": {"profile": "interactive"},
        "control_master": "auto",
        "control_path": "~/.ssh/%C",
        "control_persist": "10m",
        "options": {"SetEnv": ["A=b c"], "SendEnv": ["LANG", "LC_*"], "RekeyLimit": "1G 1h"},
    },
    {"name": "gpu-? !gpu-9", "user": "ubuntu", "options": {"LogLevel": "ERROR"}},
]
SEEN = {
    "gpu-1": {"hostname 10.0.0.11", "proxyjump near", "user ubuntu", "serveraliveinterval 30"},
    "gpu-3": {
        *("port 2203", "user ubuntu", "loglevel ERROR", "identityfile ~/.ssh/a key", "identityfile ~/.ssh/b#2"),
        *("serveraliveinterval 60", "controlpersist 600", "setenv A=b c", "sendenv LC_*"),
    },
}
# A keyword of OpenSSH 9.1.
NEW: dict[str, t.Any] = {"name": "new", "port": 2204, "options": {"RequiredRSASize": 2048}}


@dataclass(frozen=True)
class Nodes:
    """A running node of each release."""

    folder: Path
    containers: dict[str, str]

    def sh(self, release: str, script: str) -> str:
        """Run a script on a node."""
        return podman("exec", self.containers[release], "sh", "-ec", script)

    def ssh_alias(self, **options: t.Any) -> dict[str, dict[str, t.Any]]:
        """Run the module on all nodes; the result of each."""
        env = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "SSH_"))}
        run = subprocess.run(
            [
                "ansible",
                "all",
                "-i",
                self.folder / "hosts.json",
                "-m",
                "gpuops.fleet.ssh_alias",
                "-a",
                json.dumps(options),
            ],
            cwd=REPOSITORY,
            env={
                **env,
                "PATH": f"{Path(sys.executable).parent}:{env['PATH']}",
                "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
                "ANSIBLE_NOCOLOR": "1",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        results = {
            found[1]: json.JSONDecoder().raw_decode(run.stdout, found.end())[0]
            for found in re.finditer(r"^(\S+) \| \S+ => ", run.stdout, re.MULTILINE)
        }
        assert sorted(results) == sorted(RELEASES), run.stdout + run.stderr
        return results


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """The nodes, with a configuration of the user's."""
    folder = tmp_path_factory.mktemp("lab")
    lab = [sys.executable, str(REPOSITORY / "tests" / "lab" / "lab.py"), "--dir", str(folder)]
    try:
        subprocess.run([*lab, "up", *(f"{release}={release}:t4x1-470" for release in RELEASES)], check=True)
        hosts = json.loads((folder / "inventory" / "nodes.yml").read_text())["gpu"]["hosts"]
        started = Nodes(folder, {name: host.pop("lab_container") for name, host in hosts.items()})
        known_hosts = folder / "known_hosts"
        for name, host in hosts.items():
            started.sh(name, f"mkdir -pm 700 ~/.ssh; printf '{USERS_CONFIG}' >~/.ssh/config")
            key = started.sh(name, "cat /etc/ssh/ssh_host_ed25519_key.pub")
            with known_hosts.open("a") as stream:
                stream.write(f"[127.0.0.1]:{host['ansible_port']} {key}")
            host["ansible_user"] = "root"
            host["ansible_ssh_common_args"] = f"-o UserKnownHostsFile={known_hosts} -o ControlPath=none"
        (folder / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts}}))
        yield started
    finally:
        subprocess.run([*lab, "down"], check=True)


def test_aliases_on_each_release(nodes: Nodes) -> None:
    def seen(release: str) -> dict[str, set[str]]:
        names = [*OTHERS, *SEEN, "gpu-2", "new"]
        blocks = nodes.sh(release, f"for name in {' '.join(names)}; do echo; ssh -G $name; done </dev/null 2>/dev/null")
        return {name: set(block.splitlines()) for name, block in zip(names, blocks.split("\n\n"))}

    def files(release: str) -> str:
        return nodes.sh(release, "cd ~/.ssh; find . -exec stat -c '%A %U %n' {} +; find . -type f -exec sha256sum {} +")

    files_before = {release: files(release) for release in RELEASES}
    before = {release: seen(release) for release in RELEASES}

    first, again = nodes.ssh_alias(aliases=ALIASES), nodes.ssh_alias(aliases=ALIASES)
    assert [first[release].get("msg", "") for release in RELEASES] == [""] * 3
    assert [again[release]["changed"] for release in RELEASES] == [False] * 3
    for release in RELEASES:
        now = seen(release)
        assert {name: now[name] for name in OTHERS} == {name: before[release][name] for name in OTHERS}, release
        for name, lines in SEEN.items():
            assert lines <= now[name], (release, name)
        assert not [line for line in now["gpu-2"] if line.startswith("proxyjump")], release

    strict, lenient = nodes.ssh_alias(**NEW), nodes.ssh_alias(**NEW, ignore_unknown=True)
    assert "OpenSSH_8.4p1 rejects it: line 3: Bad configuration option: requiredrsasize" in strict["deb11"]["msg"]
    assert [lenient[release]["changed"] for release in RELEASES] == [True, False, False]
    for release in RELEASES:
        expected = {"port 2204"} if release == "deb11" else {"port 2204", "requiredrsasize 2048"}
        assert expected <= seen(release)["new"], release

    nodes.ssh_alias(aliases=[], exclusive=True)
    assert {release: files(release) for release in RELEASES} == files_before
