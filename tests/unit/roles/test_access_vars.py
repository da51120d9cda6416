# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What roles make of the data of the people, without a node."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
import yaml
from places import REPOSITORY

Value = t.Callable[..., t.Any]


@pytest.fixture
def value(tmp_path: Path) -> Value:
    """What a role makes of these variables, for the node gpu-1 of the group gpu."""
    inventory = tmp_path / "hosts.yml"
    inventory.write_text("gpu: {hosts: {gpu-1: {ansible_connection: local}}}")
    settings = {"ANSIBLE_CONFIG": f"{REPOSITORY}/ansible.cfg", "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}

    def ask(role: str, expression: str, **given: t.Any) -> t.Any:
        command = [str(Path(sys.executable).with_name("ansible")), "gpu-1", "-i", str(inventory)]
        for name in ("defaults", "vars"):
            command += ["-e", f"@{REPOSITORY}/roles/{role}/{name}/main.yml"]
        message = json.dumps({"msg": f"{{{{ {expression} }}}}"})
        command += ["-e", json.dumps(given), "-m", "ansible.builtin.debug", "-a", message]
        done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout.partition("=>")[2])["msg"]

    return ask


def test_user_data_has_the_keys_of_files_and_of_the_inventory(value: Value, tmp_path: Path) -> None:
    (tmp_path / "own.pub").write_text("ssh-ed25519 AAAA own\n")
    (tmp_path / "alice.pub").write_text("# alice\nssh-ed25519 AAAA alice\n")
    keys = ["", f" {tmp_path}/alice.pub\n", "ssh-ed25519 AAAA bob", "ssh-ed25519 AAAA own"]
    found = value("cloud_init", "__cloud_init_keys", ssh_bootstrap_key=str(tmp_path / "own"), cloud_init_keys=keys)
    assert found == ["ssh-ed25519 AAAA own", "ssh-ed25519 AAAA alice", "ssh-ed25519 AAAA bob"]


def test_false_from_the_command_line_is_false(value: Value) -> None:
    given = {"ssh_bootstrap_dir": "~/.ssh", "ssh_ca_enabled": "false"}
    assert value("cloud_init", "cloud_init_user_ca", **given) == ""
    given = {"__sshd_hardening_users": ["root"], "sshd_hardening_mfa": "false"}
    expression = "[__sshd_hardening_pam_auth, __sshd_hardening_blocks, __sshd_hardening_settings]"
    pam, blocks, settings = value("sshd_hardening", expression, **given)
    assert (pam, blocks, settings["ChallengeResponseAuthentication"]) == ([], [], False)
    assert "UsePAM" not in settings


def test_empty_list_is_nobody_and_no_list_is_the_default(value: Value) -> None:
    people = [
        {"name": "alice"},
        {"name": "bob", "cert_accounts": None, "cert_groups": None},
        {"name": "carol", "cert_accounts": []},
        {"name": "dave", "cert_groups": []},
        {"name": "erin", "cert_accounts": ["erin", "train"], "cert_groups": ["gpu", "other"]},
        {"name": "mallory", "state": "absent"},
    ]
    wanted = {name: [f"{name}@gpu"] for name in ("alice", "bob", "erin", "train")}
    assert value("ssh_ca", "__ssh_ca_principals", gpu_users=people) == wanted
    for user in ("bob", "carol", "dave", "train"):
        given = {"gpu_users": people, "__cloud_init_user": user}
        assert value("cloud_init", "__cloud_init_principals", **given) == wanted.get(user, [])


def test_keys_of_the_team_are_those_of_the_login_user(value: Value) -> None:
    alice, ops = {"name": "alice", "keys": ["a"]}, {"name": "ops", "uid": 7}
    for people, wanted in (
        ([], [{"name": "ops", "keys": ["t"]}]),
        ([alice], [alice, {"name": "ops", "keys": ["t"]}]),
        ([ops], [{**ops, "keys": ["t"]}]),
        ([{**ops, "keys": None}], [{**ops, "keys": ["t"]}]),
        ([{**ops, "keys": ["o"]}, alice], [alice, {**ops, "keys": ["o", "t"]}]),
    ):
        given = {"gpu_users": people, "ansible_user": "ops", "authorized_keys_present": ["t"]}
        assert value("authorized_keys", "__authorized_keys_people", **given) == wanted


def test_user_who_is_everybody_to_sudo_cannot_have_a_rule(value: Value) -> None:
    rules = []
    for role in ("ssh_bootstrap", "cloud_init"):
        name = f"__{role}_user_can_have_rule"
        assert value(role, name, ansible_user="ALL", ssh_bootstrap_dir="~/.ssh") is False
        text = yaml.safe_load((REPOSITORY / "roles" / role / "vars" / "main.yml").read_text())[name]
        rules += re.findall(r"match\('(.+)'\)", text)
    assert rules[0] == rules[1]
    fine = ["ops", "Ops", "a.b-c", "ops@corp"]
    others = ["ALL", "OPS", "Defaults", "Defaults@x", "Cmd_Alias", "User_Alias", "%sudo", "#0", "a,b", "a b", ""]
    assert [name for name in fine + others if re.match(rules[0], name)] == fine


@pytest.mark.parametrize("exclusive", [True, False])
def test_line_of_the_ca_that_would_go_again_is_refused(tmp_path: Path, exclusive: bool) -> None:
    (tmp_path / "user_ca.pub").write_text("ssh-ed25519 AAAA the ca\n")
    variables = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "ansible_user": "ops",
        "ssh_ca_dir": str(tmp_path),
        "gpu_users": [{"name": "alice", "cert_accounts": ["ops"]}, {"name": "ops", "exclusive": exclusive}],
    }
    inventory = tmp_path / "hosts.json"
    inventory.write_text(json.dumps({"gpu": {"hosts": {"gpu-1": variables}}}))
    role = {"name": "gpuops.fleet.ssh_ca", "tasks_from": "by_authorized_keys"}
    play = {"hosts": "gpu", "gather_facts": False, "tasks": [{"ansible.builtin.include_role": role}]}
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    keys = tmp_path / ".ssh" / "authorized_keys"
    keys.parent.mkdir()
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    command = [program, "-i", str(inventory), str(tmp_path / "play.yml")]
    env = {**os.environ, "ANSIBLE_CONFIG": f"{REPOSITORY}/ansible.cfg", "HOME": str(tmp_path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode != 0) is exclusive, done.stdout + done.stderr
    if exclusive:
        assert "take exclusive: true of ops out of gpu_users" in " ".join(done.stdout.split())
        assert not keys.exists()
    else:
        assert 'cert-authority,principals="ops@gpu" ssh-ed25519 AAAA the ca\n' in keys.read_text()
