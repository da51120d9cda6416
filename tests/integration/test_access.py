# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who gets in with which key, on each Debian release, tried from outside with OpenSSH and paramiko.

The tests of this file build on each other: a team comes, changes and leaves.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paramiko
import pytest
from lab_web import Web
from podman import podman
from secret_watch import SEARCH_NODE, ArgumentWatch, holders

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("access")]

REPOSITORY = Path(__file__).resolve().parents[2]
RELEASES = ("deb11", "deb12", "deb13")
TOKEN = "ghp_seenNowhere0123456789"
FIRST = [
    {
        "hosts": "gpu",
        "gather_facts": False,
        "roles": ["gpuops.fleet.ssh_bootstrap", "gpuops.fleet.authorized_keys", "gpuops.fleet.sshd_hardening"],
    }
]
ACCESS = [{"hosts": "gpu", "gather_facts": False, "roles": ["gpuops.fleet.authorized_keys"]}]


@dataclass
class Team:
    """A fleet of one node of each release, and people with keys of their own."""

    folder: Path
    hosts: dict[str, dict[str, Any]]
    people: dict[str, dict[str, Any]] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    def key(self, name: str) -> Path:
        path = self.folder / "keys" / name
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"{name}@laptop", "-f", str(path)], check=True
            )
        return path

    def public(self, name: str) -> str:
        return self.key(name).with_suffix(".pub").read_text().strip()

    def fingerprint(self, name: str) -> str:
        listed = subprocess.run(["ssh-keygen", "-lf", self.key(name)], capture_output=True, text=True, check=True)
        return listed.stdout.split()[1]

    def play(self, playbook: list[dict[str, Any]], *arguments: str, **variables: Any) -> tuple[int, str]:
        """Run a playbook with the people as they are now."""
        file = self.folder / "play.yml"
        file.write_text(json.dumps(playbook))
        more = {"gpu_users": list(self.people.values()), "sshd_hardening_penalty_exempt": ["0.0.0.0/0"], **variables}
        (self.folder / "vars.json").write_text(json.dumps(more))
        done = subprocess.run(
            [
                "ansible-playbook", "-i", str(self.folder / "inventory"), "-e", f"@{self.folder}/vars.json",
                *arguments, str(file),
            ],
            cwd=REPOSITORY,
            env={
                **{key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "SSH_"))},
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
                "ANSIBLE_NOCOLOR": "1",
                "GITHUB_TOKEN": TOKEN,
                **self.environment,
            },
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            timeout=300,
        )  # fmt: skip
        assert "Traceback" not in done.stdout, done.stdout
        assert TOKEN not in done.stdout
        assert "PRIVATE KEY" not in done.stdout
        return done.returncode, done.stdout

    def settle(self, *arguments: str, **variables: Any) -> str:
        code, text = self.play(ACCESS, *arguments, **variables)
        assert code == 0, text
        return text

    def ssh(self, release: str, account: str, key: str, *command: str, options: tuple[str, ...] = ()) -> str:
        """What a person sees who logs in; the exit code before it if that is not 0."""
        done = subprocess.run(
            [
                "ssh", "-F", "none", "-i", str(self.key(key)), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
                "-o", f"UserKnownHostsFile={self.folder}/known_hosts", "-o", "StrictHostKeyChecking=accept-new",
                "-o", "LogLevel=ERROR", *options, "-p", str(self.hosts[release]["ansible_port"]),
                f"{account}@127.0.0.1", *(command or ("id", "-un")),
            ],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
        said = (done.stdout + done.stderr).strip()
        return f"{done.returncode}: {said}" if done.returncode else said

    def refused(self, release: str, account: str, key: str) -> bool:
        """Whether sshd turns a key away, and says so in its log: with the fingerprint, if there is such an account."""
        said = self.ssh(release, account, key)
        if "Permission denied" not in said:
            return False
        fingerprint = re.escape(self.fingerprint(key))
        logged = re.compile(rf"Failed publickey for {account} .*{fingerprint}|Invalid user {account} ")
        deadline = time.monotonic() + 5
        while not logged.search(self.sh(release, "journalctl -u ssh --no-pager -o cat")):
            assert time.monotonic() < deadline, f"{release} does not log who was refused as {account}"
            time.sleep(0.2)
        return True

    def sh(self, release: str, script: str) -> str:
        """Run a script past sshd."""
        return podman("exec", self.hosts[release]["lab_container"], "sh", "-ec", script)


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("access")
    lab = [sys.executable, str(REPOSITORY / "tests" / "lab" / "lab.py"), "--dir", str(folder)]
    try:
        subprocess.run([*lab, "up", *(f"{release}={release}:t4x1-470" for release in RELEASES)], check=True)
        team = Team(folder, json.loads((folder / "inventory" / "nodes.yml").read_text())["gpu"]["hosts"])
        names = ("alice", "bob", "ted", "frank", "carl", "rita", "root")
        team.people = {name: {"name": name, "keys": [team.public(name)]} for name in names}
        team.people["alice"].update(
            uid=2001, groups=["video", "ml"], sudo="ALL=(ALL:ALL) NOPASSWD: ALL",
            keys=[str(team.key("alice").with_suffix(".pub")), team.public("alice-desk")],
        )  # fmt: skip
        team.people["bob"].update(uid=2002, groups=["ml"])
        team.people["ted"]["expiry"] = "2024-02-29"
        team.people["frank"]["options"] = {"from": ["192.0.2.0/24"]}
        team.people["carl"]["options"] = {"restrict": True, "command": "echo only this"}
        team.people["rita"]["options"] = {"restrict": True}
        code, text = team.play(FIRST)
        assert code == 0, text
        assert re.search(r"ted: the last day was 2024-02-29", text)
        yield team
    finally:
        subprocess.run([*lab, "down"], check=True)


@pytest.mark.parametrize("release", RELEASES)
def test_right_ones_get_in(team: Team, release: str) -> None:
    assert team.ssh(release, "alice", "alice") == "alice"
    assert team.ssh(release, "alice", "alice-desk", "id -u; id -Gn; sudo -n id -un") == "2001\nalice video ml\nroot"
    assert team.ssh(release, "bob", "bob") == "bob"
    assert team.ssh(release, "bob", "bob", "sudo -n true").startswith("1: ")
    assert team.ssh(release, "root", "root") == "root"
    assert team.ssh(release, "carl", "carl", "id") == "only this"
    with paramiko.SSHClient() as client:
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        client.connect(
            "127.0.0.1", team.hosts[release]["ansible_port"], "alice", key_filename=str(team.key("alice")),
            allow_agent=False, look_for_keys=False,
        )  # fmt: skip
        assert client.exec_command("id -un")[1].read() == b"alice\n"


@pytest.mark.parametrize("release", RELEASES)
def test_all_others_are_refused_and_logged(team: Team, release: str) -> None:
    assert team.refused(release, "alice", "eve"), "a key that is nobody's"
    assert team.refused(release, "eve", "eve"), "nobody"
    assert team.refused(release, "root", "alice"), "somebody else's account"
    assert team.refused(release, "ted", "ted"), "expired"
    assert team.refused(release, "frank", "frank"), "from a wrong address"
    forward = ("-o", "ExitOnForwardFailure=yes", "-W", "127.0.0.1:22")
    assert team.ssh(release, "alice", "alice", options=forward).splitlines()[0].startswith(("SSH-2.0", "255: SSH-2.0"))
    assert "forwarding failed" in team.ssh(release, "rita", "rita", options=forward), "restrict"
    with paramiko.SSHClient() as client:
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        with pytest.raises(paramiko.AuthenticationException):
            client.connect(
                "127.0.0.1", team.hosts[release]["ansible_port"], "alice", key_filename=str(team.key("eve")),
                allow_agent=False, look_for_keys=False,
            )  # fmt: skip


def test_second_run_changes_nothing_and_check_mode_says_what_would(team: Team) -> None:
    assert team.settle().count("changed=0") == len(RELEASES)
    team.people["zoe"] = {"name": "zoe", "keys": [team.public("zoe")]}
    text = team.settle("--check", "--diff")
    assert text.count(f"+key {team.fingerprint('zoe')} zoe@laptop from inventory") == len(RELEASES)
    assert text.count("changed=1") == len(RELEASES)
    for release in RELEASES:
        assert team.sh(release, "id zoe 2>&1 || true").endswith("no such user\n")
    del team.people["zoe"]


def test_exclusive_leaves_the_keys_of_the_list_and_the_one_in_use(team: Team) -> None:
    for release in RELEASES:
        team.sh(release, f"echo '# by hand\n{team.public('eve')}' >> ~/.ssh/authorized_keys")
        assert team.ssh(release, "root", "eve") == "root"
    assert team.settle().count("changed=0") == len(RELEASES), "what others wrote stays"
    team.people["root"]["exclusive"] = True
    assert f"-key {team.fingerprint('eve')} eve@laptop" in team.settle("--diff")
    for release in RELEASES:
        assert team.refused(release, "root", "eve")
        assert team.ssh(release, "root", "root") == "root"
        assert "# by hand" in team.sh(release, "cat ~/.ssh/authorized_keys")
    # Also with a list that has nobody.
    team.people["root"]["keys"] = []
    team.settle()
    assert team.settle().count("changed=0") == len(RELEASES), "the controller itself still gets in"


def test_one_bad_person_does_not_hold_up_the_others(team: Team) -> None:
    team.sh("deb12", "useradd -m -u 2050 taken")
    new = {
        "zoe": {"uid": 2050},
        "yan": {"keys": [team.public("yan")], "sudo": "ALL=(ALL) NOPASSWD /bin/true:"},
        # To sudo, this is everybody.
        "ALL": {"keys": [team.public("yan")], "sudo": "ALL=(ALL) NOPASSWD: ALL"},
        "wes": {"keys": [team.public("yan")], "sudo": ", ALL ALL=(ALL) NOPASSWD: ALL"},
        "xia": {"keys": [team.public("xia")]},
    }
    team.people.update({name: {"name": name, **person} for name, person in new.items()})
    try:
        code, text = team.play(ACCESS)
        said = " ".join(text.split())
        assert code == 2
        assert "the uid 2050, which gpu_users gives zoe, is that of taken here" in said
        assert "deb13: yan: visudo refuses the sudo rule" in said
        assert said.count("ALL: in sudoers this name does not mean this account, but everybody") >= len(RELEASES)
        assert said.count("wes: the sudo rule ', ALL ALL=(ALL) NOPASSWD: ALL' would go on with") >= len(RELEASES)
        for release in RELEASES:
            assert team.ssh(release, "xia", "xia") == "xia"
            assert team.ssh(release, "xia", "xia", "sudo -n true").startswith("1: ")
            names = "{yan,ALL,wes}"
            left = team.sh(release, f"bash -c 'ls -d /etc/sudoers.d/*{names}* /home/{names}' 2>/dev/null || true")
            assert left == "", "not half of it either"
        team.people.update({name: {"name": name, "state": "absent", "home": "remove"} for name in new})
        team.settle()
    finally:
        for name in new:
            del team.people[name]


def test_keys_of_github_come_and_go_and_stay_while_it_is_down(team: Team) -> None:
    web = Web()
    try:
        keys = web.says("/hub.keys", f"{team.public('hub')}\n")
        members = "/orgs/acme/teams/gpu/members?per_page=100"
        web.says(members, json.dumps([{"login": "Hub"}]))
        team.people["hub"] = {"name": "hub", "sources": [{"url": keys, "team": "acme/gpu"}]}
        settings = {"authorized_keys_github_api_url": web.url}
        # What the token and the keys of people on this machine could be read from, while it runs and afterwards.
        secrets = [TOKEN, team.key("hub").read_text().splitlines()[4]]
        traces = team.folder / "traces"
        traces.mkdir()
        team.environment = {
            "ANSIBLE_CACHE_PLUGIN": "ansible.builtin.jsonfile",
            "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(traces / "facts"),
            "ANSIBLE_LOCAL_TEMP": str(traces / "tmp"),
            "ANSIBLE_LOG_PATH": str(traces / "log"),
            "ANSIBLE_KEEP_REMOTE_FILES": "1",
            "ANSIBLE_DISPLAY_ARGS_TO_STDOUT": "1",
        }
        with ArgumentWatch(*secrets) as watch:
            said = team.settle("-vvvv", "--diff", **settings)
        team.environment = {}
        assert watch.looks > 20
        assert not watch.found
        assert not [secret for secret in secrets if secret in said]
        assert not holders(traces, secrets)
        for release in RELEASES:
            for secret in secrets:
                assert team.sh(release, f"set -- '{secret}'{SEARCH_NODE}") == ""
        assert web.paths().count("/hub.keys") == 1, "once for all nodes"
        for release in RELEASES:
            assert team.ssh(release, "hub", "hub") == "hub"
            assert f"from {keys}" in team.sh(release, "cat ~hub/.ssh/authorized_keys")
        web.says("/hub.keys", "")
        team.people["leaver"] = {"name": "leaver", "state": "absent", "keys": [team.public("leaver")]}
        for release in RELEASES:
            team.sh(release, f"useradd -m leaver; echo '{team.public('leaver')}' >> ~carl/.ssh/authorized_keys")
        code, text = team.play(ACCESS, **settings)
        assert code == 2
        assert f"hub: {keys}: an empty answer" in " ".join(text.split())
        for release in RELEASES:
            assert team.ssh(release, "hub", "hub") == "hub"
            assert team.refused(release, "leaver", "leaver"), "who leaves does so even now"
            assert team.refused(release, "carl", "leaver")
        web.says("/hub.keys", f"{team.public('hub')}\n")
        web.says(members, json.dumps([{"login": "somebody"}]))
        assert "hub is not in acme/gpu" in " ".join(team.settle(**settings).split())
        for release in RELEASES:
            assert team.refused(release, "hub", "hub")
    finally:
        web.stop()
        team.people.pop("hub", None)
        team.people.pop("leaver", None)


def test_who_leaves_is_out_everywhere(team: Team) -> None:
    for release in RELEASES:
        # A door that nobody remembers, a pipe that would hold up whoever reads it, and a session that goes on.
        team.sh(release, "mkfifo ~bob/.ssh/authorized_keys2; chown bob ~bob/.ssh/authorized_keys2")
        team.sh(release, f"echo '{team.public('bob')}' >> ~carl/.ssh/authorized_keys; echo data > ~bob/results")
        # What bob writes between the marks of his own file takes nothing from others.
        claim = f"sed -i '/gpuops.fleet: begin/a {team.public('eve')}' ~bob/.ssh/authorized_keys"
        team.sh(release, f"echo '{team.public('eve')}' >> ~carl/.ssh/authorized_keys; {claim}")
        assert team.ssh(release, "bob", "eve") == "bob"
    sessions = [
        subprocess.Popen(
            [
                "ssh", "-F", "none", "-i", str(team.key("bob")), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
                "-o", f"UserKnownHostsFile={team.folder}/known_hosts", "-o", "StrictHostKeyChecking=accept-new",
                "-p", str(team.hosts[release]["ansible_port"]), "bob@127.0.0.1", "echo in; sleep 600",
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        for release in RELEASES
    ]  # fmt: skip
    try:
        for session in sessions:
            assert session.stdout
            assert session.stdout.readline() == "in\n"
        team.people["bob"].update(state="absent", home="archive")
        said = " ".join(team.settle().split())
        assert said.count("bob is locked out, but") == len(RELEASES)
        assert said.count(f"key {team.fingerprint('bob')} bob@laptop as carl") == len(RELEASES)
        assert said.count(f" had {team.fingerprint('eve')} too, which is in the file of carl") == len(RELEASES)
        for release, session in zip(RELEASES, sessions):
            assert team.refused(release, "bob", "bob")
            assert team.refused(release, "bob", "eve")
            assert team.refused(release, "carl", "bob")
            assert team.ssh(release, "carl", "eve") == "carl"
            assert session.poll() is None, "sessions end only on request"
        assert team.settle().count("changed=0") == len(RELEASES)
        team.people["bob"]["end_sessions"] = True
        team.settle()
        for release, session in zip(RELEASES, sessions):
            assert session.wait(timeout=10) != 0
            assert team.sh(release, "getent passwd bob || ls -d /home/bob 2>/dev/null || true") == ""
            archive = team.sh(release, "ls /var/backups/gpuops-home-bob-2002-*").strip()
            assert team.sh(release, f"stat -c %a {archive}; tar -xzOf {archive} bob/results") == "600\ndata\n"
            assert team.refused(release, "bob", "bob")
        assert team.settle().count("changed=0") == len(RELEASES)
    finally:
        for session in sessions:
            session.kill()
            session.wait()


def test_who_is_in_the_list_no_more_is_named(team: Team) -> None:
    del team.people["rita"]
    text = " ".join(team.settle().split())
    assert text.count("rita has keys of gpu_users, and is in that list no more; next: list them again") == len(RELEASES)
    assert text.count("changed=0") == len(RELEASES)


def test_team_of_the_login_user_needs_nobody_in_the_list(team: Team) -> None:
    team.settle("--limit", "deb13", gpu_users=[], authorized_keys_present=[team.public("xia")])
    assert team.ssh("deb13", "root", "xia") == "root"
