# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.gpuops.fleet.plugins.action.fleet_user_keys import ARGUMENT_SPEC
from ansible_collections.gpuops.fleet.plugins.modules import fleet_user_keys as documentation
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.user_data import USER_SPEC
from lab_web import Web
from places import REPOSITORY

TOKEN = "ghp_s3cretT0ken"
PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - gpuops.fleet.fleet_user_keys:
        users: "{{ gpu_users }}"
        github_token: "{{ lookup('ansible.builtin.env', 'GITHUB_TOKEN') }}"
        github_api_url: "{{ api }}"
        timeout: "{{ timeout | default(omit) }}"
      register: resolved
      until: resolved.attempts == 2
      retries: 1
      delay: 0
    - ansible.builtin.copy:
        content: "{{ resolved | to_json }}"
        dest: "{{ playbook_dir }}/resolved.json"
        mode: "0600"
      check_mode: false
"""


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("alice", "bob"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)]
        subprocess.run(command, check=True)
    return folder


def play(
    folder: Path, users: list[dict[str, t.Any]], *more: str, api: str = "https://api.github.com"
) -> tuple[int, str]:
    """Run the playbook with everything that Ansible can be told to show, and return what it showed."""
    (folder / "play.yml").write_text(PLAY)
    (folder / "vars.yml").write_text(yaml.safe_dump({"gpu_users": users, "api": api}))
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
        "ANSIBLE_LOG_PATH": str(folder / "ansible.log"),
        "ANSIBLE_DISPLAY_ARGS_TO_STDOUT": "true",
        "ANSIBLE_NOCOLOR": "1",
        "GITHUB_TOKEN": TOKEN,
    }
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "gpu-1,", "-c", "local", "-vvvv"]
    command += [str(folder / "play.yml"), "-e", f"@{folder / 'vars.yml'}", *more]
    command += ["-e", f"ansible_python_interpreter={sys.executable}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, done.stdout + done.stderr + (folder / "ansible.log").read_text()


@pytest.mark.parametrize("mode", [[], ["--check"]], ids=["run", "check"])
def test_keys_are_found_and_no_secret_is_shown(tmp_path: Path, keys: Path, web: Web, mode: list[str]) -> None:
    web.says("/orgs/acme/teams/gpu/members?per_page=100", '[{"login": "alice"}]')
    web.says("/orgs/acme/teams/other/members?per_page=100", f"{TOKEN} is not JSON", status=200)
    users = [
        {
            "name": "alice", "uid": 2001, "keys": [str(keys / "alice.pub")], "expiry": datetime.date(2099, 3, 31),
            "sources": [{"url": web.says("/alice.keys", (keys / "bob.pub").read_text()), "team": "acme/gpu"}],
        },
        {"name": "bob", "keys": [(keys / "bob").read_text()]},
        {"name": "carol", "keys": [str(keys / "bob")]},
        {"name": "dave", "sources": [{"url": web.says("/dave.keys", "x"), "team": "acme/other"}]},
    ]  # fmt: skip
    rc, shown = play(tmp_path, users, *mode, api=web.url)
    assert rc == 0, shown
    assert {headers.get("Authorization") for path, headers in web.asked if "/orgs/" in path} == {f"Bearer {TOKEN}"}
    result = json.loads((tmp_path / "resolved.json").read_text())
    assert (result["changed"], result["attempts"]) == (False, 2)
    alice, bob, carol, dave = result["users"]
    words = (keys / "alice.pub").read_text().split()
    assert alice["keys"][0]["line"] == f'expiry-time="20990331235959" {" ".join(words)} from {keys}/alice.pub'
    assert len(alice["keys"]) == 2
    assert "PRIVATE key" in bob["error"]
    assert "PRIVATE key" in carol["error"]
    assert "not a list of members" in dave["error"]

    shown += json.dumps(result)
    assert alice["keys"][1]["fingerprint"] in shown  # else this test would see nothing at all
    assert TOKEN not in shown
    for line in (keys / "bob").read_text().splitlines()[1:-1]:
        assert line not in shown


@pytest.mark.parametrize(
    ("users", "more", "told"),
    [
        (
            [{"name": "alice", "uid": 7}, {"name": "bob", "uid": 7}],
            [],
            "localhost: uid 7 belongs to alice and bob. Next: ",
        ),
        ([{"name": "alice"}], ["-e", "timeout=0"], "localhost: timeout must be more than 0 s"),
        (
            [{"name": "alice"}],
            ["-e", "api=http://api.github.com"],
            "localhost: github_api_url: http://api.github.com is not",
        ),
    ],
)
def test_a_mistake_fails_the_task_with_one_message(
    tmp_path: Path, users: list[dict[str, t.Any]], more: list[str], told: str
) -> None:
    rc, shown = play(tmp_path, users, *more)
    assert rc == 2
    assert told in shown
    assert TOKEN not in shown


def test_documentation_and_argument_spec_agree() -> None:
    kept = ("type", "elements", "required", "choices", "default")

    def documented(options: dict[str, t.Any]) -> dict[str, t.Any]:
        return {name: {key: option[key] for key in kept if key in option} for name, option in options.items()}

    options = yaml.safe_load(documentation.DOCUMENTATION)["options"]
    spec = {name: {key: option[key] for key in kept if key in option} for name, option in ARGUMENT_SPEC.items()}
    assert documented(options) == spec
    assert documented(options["users"]["suboptions"]) == USER_SPEC
