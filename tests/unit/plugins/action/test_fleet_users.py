# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
import yaml
from ansible.plugins.action import ActionBase
from ansible_collections.gpuops.fleet.plugins.action import fleet_users
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.users import PERSON_SPEC
from ansible_collections.gpuops.fleet.plugins.modules import fleet_users as documentation
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.causes import SickError

KEY = {"line": "ssh-ed25519 AAAA a", "blob": "AAAA", "fingerprint": "SHA256:a", "source": "inventory"}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> t.Callable[..., tuple[dict[str, t.Any], list[dict[str, t.Any]]]]:
    def act(answer: dict[str, t.Any] | None = None, **arguments: t.Any) -> t.Any:
        asked: list[dict[str, t.Any]] = []

        def module(_name: str, options: dict[str, t.Any], **_more: object) -> dict[str, t.Any]:
            asked.append(options)
            return {"changed": False, **(answer or {})}

        action = fleet_users.ActionModule.__new__(fleet_users.ActionModule)
        action._task = type("Task", (), {"args": arguments})()
        action._templar = type("Templar", (), {"template": staticmethod(lambda value: value)})()
        action._play_context = type("Context", (), {"remote_user": None})()
        monkeypatch.setattr(ActionBase, "run", lambda _self, _tmp, _vars: {})
        monkeypatch.setattr(action, "_execute_module", module)
        return action.run(task_vars={"inventory_hostname": "gpu-1", "ansible_user": "ops"}), asked

    return act


Run = t.Callable[..., t.Tuple[t.Dict[str, t.Any], t.List[t.Dict[str, t.Any]]]]


def test_node_learns_who_changes_it_and_no_more_of_the_people_than_it_needs(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_users, "keys_in_use", lambda target: {f"SHA256:{target.user}"})
    _result, asked = run(users=[{"name": "alice", "keys": [KEY], "cert_accounts": ["alice"]}])
    assert asked == [
        {
            "users": [{"name": "alice", "keys": [{"line": KEY["line"]}]}],
            "own_keys": ["SHA256:ops"],
            "login_user": "ops",
        }
    ]


def test_broken_ssh_configuration_stops_it_before_the_node(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_target: object) -> t.NoReturn:
        raise SickError("ssh_config_error", "line 3: Bad configuration option")

    monkeypatch.setattr(fleet_users, "keys_in_use", broken)
    result, asked = run(users=[])
    assert result["failed"]
    assert "gpu-1: nothing was changed" in result["msg"]
    assert "line 3" in result["msg"]
    assert asked == []


def test_failure_names_the_host(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_users, "keys_in_use", lambda _target: set())
    result, _asked = run({"failed": True, "msg": "alice: no", "exception": "Traceback"}, users=[])
    assert result["msg"] == "gpu-1: alice: no"
    assert "exception" not in result


def test_documented_people_are_those_of_the_module() -> None:
    documented = yaml.safe_load(documentation.DOCUMENTATION)["options"]["users"]["suboptions"]
    assert documented.keys() == PERSON_SPEC.keys()
