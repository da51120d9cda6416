# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import typing as t

import pytest
import yaml
from ansible_collections.gpuops.fleet.plugins.action.ssh_doctor import ARGUMENT_SPEC
from ansible_collections.gpuops.fleet.plugins.modules import ssh_doctor as documentation
from places import REPOSITORY


def _ansible(variables: dict[str, t.Any], arguments: dict[str, t.Any], *more: str) -> dict[str, t.Any]:
    """Run the module ad hoc on the host gpu-x and return its result."""
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        "ANSIBLE_NOCOLOR": "1",
    }
    command = [str(pathlib.Path(sys.executable).parent / "ansible"), "-i", "gpu-x,", "all"]
    command += ["-m", "gpuops.fleet.ssh_doctor", "-e", json.dumps(variables), *more]
    if arguments:
        command += ["-a", json.dumps(arguments)]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    _before, found, verdict = finished.stdout.partition("gpu-x | ")
    assert found, finished.stdout + finished.stderr
    status, _arrow, result = verdict.partition(" => ")
    return {"failed": status != "SUCCESS", **json.loads(result)}


@pytest.fixture(scope="module")
def closed_port() -> t.Iterator[int]:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield unused.getsockname()[1]


@pytest.mark.parametrize("more", [[], ["-C"]])
def test_a_sick_node_does_not_fail_the_task(closed_port: int, more: list[str]) -> None:
    variables = {
        "ansible_host": "{{ address }}",
        "address": "127.0.0.1",
        "ansible_port": closed_port,
        "ansible_user": "me",
        "ansible_ssh_private_key_file": "/k/id",
        "ansible_ssh_common_args": "-o 'IPQoS=lowdelay throughput'",
    }
    result = _ansible(variables, {"ssh_config": "none"}, *more)
    assert (result["failed"], result["changed"], result["ok"]) == (False, False, False)
    assert result["cause"]["code"] == "tcp_refused"
    assert result["message"].startswith(f"gpu-x (127.0.0.1:{closed_port}): ")
    assert result["message"].endswith(
        f"ssh -v -F none -i /k/id -o IdentitiesOnly=yes -p {closed_port} -o 'IPQoS=lowdelay throughput' me@127.0.0.1"
    )


@pytest.mark.parametrize(
    ("variables", "arguments", "code"),
    [
        ({"ansible_host": ""}, {}, "no_address"),
        ({"ansible_host": "127.0.0.1"}, {"host": ""}, "no_address"),
        ({"ansible_port": "70000"}, {}, "port_invalid"),
    ],
)
def test_bad_inventory_is_a_diagnosis(variables: dict[str, t.Any], arguments: dict[str, t.Any], code: str) -> None:
    result = _ansible(variables, arguments)
    assert (result["failed"], result["cause"]["code"]) == (False, code)


@pytest.mark.parametrize(
    ("variables", "arguments", "message"),
    [
        ({}, {"timeout": 0}, "timeout must be more than 0 seconds"),
        ({}, {"attempts": 0}, "attempts must be 1 or more"),
        ({}, {"delay": -1}, "delay must be 0 seconds or more"),
        ({}, {"prot": 22}, "Unsupported parameters"),
        ({"ansible_ssh_common_args": "-o 'x"}, {}, "ansible_ssh_common_args of gpu-x cannot be split into words"),
    ],
)
def test_bad_options_fail(variables: dict[str, t.Any], arguments: dict[str, t.Any], message: str) -> None:
    result = _ansible(variables, arguments)
    assert result["failed"]
    assert message in result["msg"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_when_ansible_is_interrupted(tmp_path: pathlib.Path, number: signal.Signals) -> None:
    proxy = tmp_path / "proxy"
    proxy.write_text(f"echo $PPID > {tmp_path}/pid\nexec sleep 600\n")
    command = [str(pathlib.Path(sys.executable).parent / "ansible"), "-i", "gpu-x,", "all"]
    command += ["-m", "gpuops.fleet.ssh_doctor", "-a", "timeout=60 ssh_config=none"]
    command += ["-e", json.dumps({"ansible_ssh_common_args": f"-o 'ProxyCommand=sh {proxy}'"})]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg")}
    with subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as ansible:
        ssh = _eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip())
        arguments = pathlib.Path(f"/proc/{ssh}/cmdline").read_text().split("\0")
        socket_path = pathlib.Path(arguments[arguments.index("-S") + 1])
        assert socket_path.parent.is_dir()
        os.killpg(ansible.pid, number)
        ansible.communicate(timeout=30)
    _eventually(lambda: not socket_path.parent.exists())
    _eventually(lambda: not pathlib.Path(f"/proc/{ssh}").exists())


def _eventually(condition: t.Callable[[], t.Any]) -> t.Any:
    for _attempt in range(300):
        if result := condition():
            return result
        time.sleep(0.1)
    pytest.fail("never came true")


def test_documented_options_are_those_of_the_action() -> None:
    documented = yaml.safe_load(documentation.DOCUMENTATION)["options"]
    wanted = {name: {k: v for k, v in option.items() if k != "description"} for name, option in documented.items()}
    assert wanted == ARGUMENT_SPEC
