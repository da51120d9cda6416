# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from ansible.plugins.action import ActionBase
from ansible_collections.gpuops.fleet.plugins.action import ssh_krl
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.causes import SickError
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.client import Target

HostVars = t.Dict[str, t.Dict[str, t.Any]]
BY_KEY = {"ansible_ssh_private_key_file": "/keys/a"}


def keys_in_use(target: Target) -> set[str]:
    if target.identity_file == "/keys/broken":
        raise SickError("key_invalid", "/keys/broken does not tell its public key")
    return {"/keys/a": {"SHA256:a"}, None: {"SHA256:agent", "SHA256:a"}}.get(target.identity_file, set())


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> t.Callable[[HostVars], tuple[dict[str, t.Any], list[dict[str, t.Any]]]]:
    def act(hosts: HostVars) -> t.Any:
        asked: list[dict[str, t.Any]] = []

        def module(_name: str, options: dict[str, t.Any], **_more: object) -> dict[str, t.Any]:
            asked.append(options)
            return {"changed": False}

        action = ssh_krl.ActionModule.__new__(ssh_krl.ActionModule)
        action._task = type("Task", (), {"args": {"path": "/ca/krl"}})()
        action._play_context = type("Context", (), {"remote_user": None})()
        monkeypatch.setattr(ActionBase, "run", lambda _self, _tmp, _vars: {})
        monkeypatch.setattr(ssh_krl, "keys_in_use", keys_in_use)
        monkeypatch.setattr(action, "_execute_module", module)
        hostvars = {name: {"inventory_hostname": name, **variables} for name, variables in hosts.items()}
        return action.run(task_vars={"ansible_play_hosts": list(hosts), "hostvars": hostvars}), asked

    return act


Run = t.Callable[[HostVars], t.Tuple[t.Dict[str, t.Any], t.List[t.Dict[str, t.Any]]]]


def test_module_learns_the_keys_of_all_hosts_of_the_play(run: Run) -> None:
    box = {"ansible_connection": "containers.podman.podman", "ansible_ssh_private_key_file": "/keys/none"}
    _result, asked = run({"gpu-1": BY_KEY, "gpu-2": {}, "box": box})
    assert asked == [{"path": "/ca/krl", "own_keys": ["SHA256:a", "SHA256:agent"]}]


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("/keys/broken", "/keys/broken does not tell its public key"),
        ("/keys/none", "there is none"),
    ],
)
def test_key_that_cannot_be_told_stops_it(run: Run, key: str, reason: str) -> None:
    result, asked = run({"gpu-1": BY_KEY, "gpu-2": {"ansible_ssh_private_key_file": key}})
    assert result["failed"]
    assert result["msg"].startswith("gpu-2: nothing was revoked")
    assert result["msg"].endswith(f": {reason}. Next: set ansible_ssh_private_key_file")
    assert asked == []
