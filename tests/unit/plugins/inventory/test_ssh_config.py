# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import typing as t

import pytest
from places import REPOSITORY

CONFIG = """\
Host gpu-1 gpu-2
  HostName %h.example.org
  IdentityFile /k/id
Host gpu-2
  ProxyJump bastion
Host bastion localhost
  ProxyCommand via {{ lookup("pipe", "id") }}
Host *
  User me
"""


def _run(command: str, *arguments: str | pathlib.Path, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", **env}
    program = pathlib.Path(sys.executable).parent / command
    return subprocess.run(
        [program, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def _list(source: pathlib.Path, *more: str, **env: str) -> dict[str, t.Any]:
    done = _run("ansible-inventory", "-i", source, "--list", *more, **env)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def source(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "config").write_text(CONFIG)
    source = tmp_path / "fleet.ssh_config.yml"
    source.write_text("plugin: gpuops.fleet.ssh_config\npath: config\n")
    return source


def _add(source: pathlib.Path, lines: str) -> None:
    source.write_text(source.read_text() + lines)


def test_hosts_and_their_variables(source: pathlib.Path) -> None:
    (source.parent / "group_vars").mkdir()
    (source.parent / "group_vars/gpu.yml").write_text(
        "ansible_user: root\nansible_ssh_common_args: -o HostKeyAlias=x\n"
    )
    listed = _list(source)
    assert sorted(listed["gpu"]["hosts"]) == ["bastion", "gpu-1", "gpu-2"]
    assert listed["_meta"]["hostvars"]["gpu-1"] == {
        "ansible_host": "gpu-1.example.org",
        "ansible_port": 22,
        "ansible_user": "me",
        "ansible_ssh_common_args": f"-F {source.parent}/config",
        "ansible_ssh_private_key_file": "/k/id",
    }


def test_nothing_of_the_file_is_a_template(source: pathlib.Path) -> None:
    done = _run(
        "ansible", "-i", source, "bastion", "-m", "ansible.builtin.debug", "-a", "var=ansible_ssh_common_args"
    )  # fmt: skip
    assert 'via {{ lookup("pipe", "id") }}' in done.stdout


def test_selection_group_and_construction(source: pathlib.Path) -> None:
    _add(
        source,
        "include: ['gpu-*', 'b*']\nexclude: [gpu-1]\ngroup: lab nodes\nstrict: true\n"
        "compose: {ansible_become: ansible_user != 'root'}\n"
        "groups: {jumped: ssh_bootstrap_proxy_jump is defined}\nkeyed_groups: [{prefix: user, key: ansible_user}]\n",
    )
    done = _run("ansible-inventory", "-i", source, "--list")
    listed = json.loads(done.stdout)
    assert sorted(listed["lab_nodes"]["hosts"]) == sorted(listed["user_me"]["hosts"]) == ["bastion", "gpu-2"]
    assert listed["jumped"]["hosts"] == ["gpu-2"]
    assert listed["_meta"]["hostvars"]["gpu-2"]["ansible_become"] is True


def test_cache_is_kept_until_it_is_flushed(source: pathlib.Path) -> None:
    _add(source, f"cache: true\ncache_plugin: ansible.builtin.jsonfile\ncache_connection: {source.parent}/cache\n")
    before = _list(source)
    (source.parent / "config").write_text("Host gpu-9\n")
    assert _list(source) == before
    assert _list(source, "--flush-cache")["gpu"]["hosts"] == ["gpu-9"]
    assert _list(source)["gpu"]["hosts"] == ["gpu-9"]


@pytest.mark.parametrize(
    ("config", "seen"),
    [
        ("Host a\n  Prot 22\n", "a: ssh rejects {0}: {0}: line 2: Bad configuration option: prot; "),
        (None, "{0}: No such file or directory. Next: ls -la {0}\n"),
        ("Host *\n", "{0} gives a name that include and exclude leave. Next: grep -i '^ *host' {0}\n"),
    ],
)
def test_bad_input_is_said(source: pathlib.Path, config: str | None, seen: str) -> None:
    path = source.parent / "config"
    path.unlink()
    if config is not None:
        path.write_text(config)
    done = _run("ansible-inventory", "-i", source, "--list")
    assert seen.format(path) in done.stderr
    assert "Next: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_broken_configuration_can_end_the_run(source: pathlib.Path) -> None:
    (source.parent / "config").write_text("Host a\n  Prot 22\n")
    assert _run("ansible-inventory", "-i", source, "--list", ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED="1").returncode


def test_other_file_names_are_left_to_other_plugins(source: pathlib.Path) -> None:
    renamed = source.rename(source.parent / "fleet.yml")
    assert "could not be verified by inventory plugin" in _run("ansible-inventory", "-i", renamed, "--list").stderr


def test_examples_of_the_inventory_readme(tmp_path: pathlib.Path) -> None:
    """Hosts of an ssh_config, grouped by the GPUs that a probe has left in the fact cache."""
    readme = (REPOSITORY / "inventory/README.md").read_text()
    (hosts,) = re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)
    inventory = tmp_path / "inventory"
    inventory.mkdir()
    (tmp_path / "config").write_text("Host gpu-1 gpu-2 gpu-3 other\n")
    (inventory / "fleet.ssh_config.yml").write_text(f"{hosts}path: ../config\n")
    shutil.copy(REPOSITORY / "inventory/zz_gpu_groups.yml", inventory)
    cache = {
        "ANSIBLE_CACHE_PLUGIN": "ansible.builtin.jsonfile",
        "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(tmp_path / "facts"),
    }
    well = {"state": "ok", "names": ["NVIDIA H100 80GB HBM3"] * 2, "driver_version": "570.148.08", "simulated": True}
    sick = {"state": "driver_not_loaded", "names": [], "driver_version": None, "simulated": False}
    for host, facts in {"gpu-1": well, "gpu-2": sick}.items():
        arguments = json.dumps({"cacheable": True, "gpu": facts})
        done = _run("ansible", "-i", inventory, host, "-m", "ansible.builtin.set_fact", "-a", arguments, **cache)
        assert done.returncode == 0, done.stdout + done.stderr
    listed = _list(inventory, **cache)
    members = {group: body["hosts"] for group, body in listed.items() if "hosts" in body}
    assert members == {
        "gpu": ["gpu-1", "gpu-2", "gpu-3"],
        "gpu_h100": ["gpu-1"],
        "driver_570": ["gpu-1"],
        "gpu_simulated": ["gpu-1"],
        "gpu_not_ok": ["gpu-2"],
    }
