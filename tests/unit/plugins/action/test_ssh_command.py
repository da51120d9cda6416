# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import shlex
import sys
import typing as t

import pytest
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.gpuops.fleet.plugins.action.ssh_command import ActionModule


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> t.Callable[..., dict[str, t.Any]]:
    def act(cmd: str, deadline: float = 10.0) -> dict[str, t.Any]:
        action = ActionModule.__new__(ActionModule)
        monkeypatch.setattr(ActionBase, "run", lambda _self, _tmp, _vars: {})
        options = {"cmd": cmd, "deadline": deadline}
        monkeypatch.setattr(action, "validate_argument_spec", lambda _spec: (None, options))
        return action.run(task_vars={"inventory_hostname": "gpu-1"})

    return act


Run = t.Callable[..., dict[str, t.Any]]


def test_what_a_program_says_comes_back_and_fails_nothing(run: Run) -> None:
    script = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(255)"
    assert run(shlex.join([sys.executable, "-c", script])) == {
        "changed": False,
        "failed": False,
        "rc": 255,
        "stdout": "out",
        "stderr": "err",
    }


def test_no_shell_reads_the_words(run: Run) -> None:
    assert run("echo '$(id)' ';' 'a  b'")["stdout"] == "$(id) ; a  b"


def test_program_that_hangs_is_ended_and_named(run: Run) -> None:
    result = run("sleep 30", deadline=0.2)
    assert (result["rc"], result["stderr"]) == (124, "no end within 0.2 s")


def test_program_that_is_not_there(run: Run) -> None:
    assert run("no-such-ssh gpu-1")["rc"] == 127


def test_quote_without_its_end_is_one_message(run: Run) -> None:
    with pytest.raises(
        AnsibleActionFail, match=r"gpu-1: .*: No closing quotation\. Next: ansible-inventory --host gpu-1"
    ):
        run("ssh -o 'ProxyCommand=x gpu-1")
