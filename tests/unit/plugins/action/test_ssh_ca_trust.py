# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from ansible.plugins.action import ActionBase
from ansible_collections.gpuops.fleet.plugins.action import ssh_ca_trust
from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import (
    Problem,
    failed_result,
    problems_of,
)

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGtra2tra2tra2tra2tra2tra2tra2tra2tra2tra2tr"


def run(monkeypatch: pytest.MonkeyPatch, answer: dict[str, t.Any]) -> tuple[dict[str, t.Any], list[t.Any]]:
    """Have the half on the node answer this; the result, and what it was asked."""
    asked = []

    def module(name: str, arguments: dict[str, t.Any], **_more: object) -> dict[str, t.Any]:
        asked.append((name, arguments))
        return dict(answer)

    action = ssh_ca_trust.ActionModule.__new__(ssh_ca_trust.ActionModule)
    action._task = type("Task", (), {"args": {"state": "absent"}})()
    monkeypatch.setattr(ActionBase, "run", lambda _self, _tmp, _vars: {})
    monkeypatch.setattr(action, "_execute_module", module)
    return action.run(task_vars={"inventory_hostname": "gpu-1"}), asked


def test_answer_of_the_node_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {"changed": True, "host_keys": [KEY], "sshd_settings": {}}
    result, asked = run(monkeypatch, answer)
    assert result == answer
    assert asked == [("gpuops.fleet.ssh_ca_trust", {"state": "absent"})]


def test_failure_of_the_node_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    remedy = "apt-get install openssh-server"
    answer = failed_result([Problem("there is no sshd on this machine", remedy=remedy)])
    result, _asked = run(monkeypatch, answer)
    assert result["msg"] == f"gpu-1: there is no sshd on this machine. Next: {remedy}"
    assert problems_of(result["problems"], "gpu-1")[0].remedy == remedy


def test_module_that_broke_off_has_its_message_with_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    result, _asked = run(monkeypatch, {"failed": True, "msg": "Killed", "exception": "(traceback)"})
    assert (result["failed"], result["msg"]) == (True, "gpu-1: Killed")
    assert "exception" not in result


@pytest.mark.parametrize(
    "host_keys", [[KEY, f"{KEY}\n@cert-authority * {KEY}"], ["../../x AAAA"], None], ids=["line", "path", "nothing"]
)
def test_nothing_is_passed_on_that_is_no_host_key(monkeypatch: pytest.MonkeyPatch, host_keys: t.Any) -> None:
    result, _asked = run(monkeypatch, {"changed": True, "host_keys": host_keys, "ansible_facts": {"ssh_ca_dir": "/"}})
    assert sorted(result) == ["failed", "msg", "problems"]
    assert result["msg"].startswith("gpu-1: what it says of its host keys was not taken: ")
