# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible_collections.gpuops.fleet.plugins.action import sshd_policy
from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import Problem
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.shared import folder_of_this_run
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.client import Target

WELL = {"ok": True, "message": "", "auth_methods": ["publickey"]}
SICK = {"ok": False, "problems": [Problem("gpu-1 (h:22): refused", remedy="look")], "auth_methods": None}
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGtra2tra2tra2tra2tra2tra2tra2tra2tra2tra2tr"
PENDING = {"changed": True, "pending": True, "token": "t", "host_keys": [KEY]}
KEPT = {"changed": True}


class Node:
    """Answers of the half on the node, and of new connections, in their order."""

    def __init__(self, answers: t.Sequence[t.Any], looks: t.Sequence[dict[str, t.Any]]) -> None:
        self.answers, self.looks = list(answers), list(looks)
        self.asked: list[dict[str, t.Any]] = []
        self.targets: list[Target] = []
        self.known: list[str] = []

    def module(self, _name: str, arguments: dict[str, t.Any], **_more: object) -> dict[str, t.Any]:
        self.asked.append(arguments)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)

    def look(self, target: Target, *limits: object) -> dict[str, t.Any]:
        assert limits[-1] == folder_of_this_run(), "a jump host is examined once a run"
        self.targets.append(target)
        self.known.append(Path(target.known_hosts_file).read_text() if target.known_hosts_file else "")
        return self.looks.pop(0)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> t.Callable[..., dict[str, t.Any]]:
    def act(node: Node, **arguments: t.Any) -> dict[str, t.Any]:
        action = sshd_policy.ActionModule.__new__(sshd_policy.ActionModule)
        action._task = type("Task", (), {"args": arguments})()
        action._templar = type("Templar", (), {"template": staticmethod(lambda value: value)})()
        action._play_context = type("Context", (), {"remote_user": None})()
        monkeypatch.setattr(ActionBase, "run", lambda _self, _tmp, _vars: {})
        monkeypatch.setattr(action, "_execute_module", node.module)
        monkeypatch.setattr(sshd_policy, "diagnose_patiently", node.look)
        names = {"inventory_hostname": "gpu-1", "ansible_user": "root", "ansible_host": "h", "ansible_port": 2201}
        return action.run(task_vars={**names, "hostvars": {"gpu-1-bob": {"ansible_user": "bob"}}})

    return act


Run = t.Callable[..., dict[str, t.Any]]


def test_change_that_is_proven_is_kept(run: Run) -> None:
    node = Node([PENDING, KEPT], [WELL, WELL])
    result = run(node, settings={"MaxAuthTries": 3})
    assert (result["changed"], result["pending"], result["auth_methods"]) == (True, False, ["publickey"])
    assert node.asked == [{"settings": {"MaxAuthTries": 3}, "users": ["root"]}, {"phase": "keep", "token": "t"}]


def test_other_logins_of_the_same_sshd_are_proven_too(run: Run) -> None:
    node = Node([PENDING, KEPT], [WELL] * 4)
    run(node, hosts=["gpu-1", "gpu-1-bob"])
    assert [(target.user, target.host, target.port) for target in node.targets] == [
        ("root", "h", 2201),
        ("bob", "h", 2201),
    ] * 2
    assert node.asked[0] == {"users": ["bob", "root"]}


def test_after_the_change_the_host_keys_count_that_the_node_has_named(run: Run) -> None:
    node = Node([PENDING, KEPT], [WELL, WELL])
    run(node)
    assert node.known == ["", f"gpu-1 {KEY}\n"]
    assert [target.host_key_alias for target in node.targets] == [None, "gpu-1"]


def test_nothing_is_touched_when_a_login_fails_before(run: Run) -> None:
    node = Node([], [WELL, SICK])
    result = run(node, hosts=["gpu-1", "gpu-1-bob"])
    assert result["failed"]
    assert result["msg"] == "gpu-1: sshd was not changed: gpu-1 (h:22): refused. Next: look"
    assert node.asked == []


def test_reason_of_the_node_is_passed_on(run: Run) -> None:
    result = run(Node([{"failed": True, "msg": "sshd would refuse root"}], [WELL]))
    assert result["msg"].startswith("gpu-1: sshd was not changed: sshd would refuse root. Next: ssh gpu-1 grep -rnE")


@pytest.mark.parametrize(
    ("remedy", "told"),
    [
        ("apt-get install openssh-server", "Next: on the node: apt-get install openssh-server"),
        ("", "Next: ssh gpu-1 grep -rnE"),
    ],
)
def test_the_remedy_says_where_it_is_typed(run: Run, remedy: str, told: str) -> None:
    problem = {"what": "there is no sshd", "remedy": remedy, "where": "node"}
    assert told in run(Node([{"failed": True, "msg": "", "problems": [problem]}], [WELL]))["msg"]


def test_own_variables_are_where_to_look_when_they_are_the_reason(run: Run) -> None:
    reason = "AllowUsers nobody, which is what this change asks for"
    result = run(Node([{"failed": True, "msg": "", "problems": [{"what": reason}], "asked_for": True}], [WELL]))
    assert result["msg"].endswith(
        f"{reason}. Next: ansible-inventory --host gpu-1, and change the sshd_hardening variables that say so"
    )


def test_settled_node_is_left_alone(run: Run) -> None:
    node = Node([{"changed": False, "pending": False, "host_keys": [KEY]}], [WELL])
    result = run(node)
    assert (result["changed"], result["host_keys"]) == (False, [KEY])
    assert len(node.asked) == 1


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([PENDING, {"changed": True}], "gpu-1: the change to sshd was put back: gpu-1 (h:22): refused. Next: look"),
        ([PENDING, {"failed": True}], "the change to sshd is put back by the node itself within 7 s: gpu-1 (h:22)"),
        ([PENDING, AnsibleConnectionFailure("gone")], "is put back by the node itself within 7 s"),
    ],
    ids=["restored", "not restored", "unreachable"],
)
def test_change_that_locks_out_is_put_back(run: Run, answers: list[t.Any], words: str) -> None:
    node = Node(answers, [WELL, SICK])
    result = run(node, rollback_seconds=7)
    assert (result["failed"], result["changed"], result["pending"]) == (True, False, False)
    assert words in result["msg"]
    assert node.asked[-1] == {"phase": "restore"}


def test_proof_that_came_too_late(run: Run) -> None:
    node = Node([PENDING, {"failed": True, "msg": "the time was up"}, {"changed": False}], [WELL, WELL])
    assert "was put back: the time was up. Next: " in run(node)["msg"]


@pytest.mark.parametrize("pending", [True, False])
@pytest.mark.parametrize(
    "host_keys",
    [[KEY, f"{KEY}\n@cert-authority * {KEY}"], [f"* {KEY}"], KEY, None],
    ids=["line", "name", "text", "none"],
)
def test_no_host_is_known_by_what_is_no_host_key(run: Run, host_keys: t.Any, pending: bool) -> None:
    node = Node([{**PENDING, "pending": pending, "host_keys": host_keys}, {"changed": True}], [WELL])
    result = run(node)
    assert result["failed"]
    assert "host_keys" not in result
    words = "the change to sshd was put back" if pending else "sshd was not changed"
    assert result["msg"].startswith(f"gpu-1: {words}: what it says of its host keys was not taken: ")
    assert result["msg"].endswith(". Next: ssh gpu-1 'head -v /etc/ssh/*.pub'")
    assert [asked.get("phase") for asked in node.asked] == [None, "restore"][: 1 + pending]
    assert node.known == [""], "nothing is proven by such keys"


def test_lost_connection_is_not_swallowed(run: Run) -> None:
    with pytest.raises(AnsibleConnectionFailure):
        run(Node([AnsibleConnectionFailure("gone")], [WELL]))
