# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real commands: one whose reader goes must end, and nothing may stand beside a document."""

from __future__ import annotations

import fcntl
import json
import os
import re
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.terminal import is_for_people
from places import REPOSITORY

BIN = Path(sys.executable).parent
PROBE = ["ansible", "all", "-m", "gpuops.fleet.gpu_probe"]

# What each action takes of one node, what it shows for it, and what stands of that in its result.
EXAMINED: dict[str, Any] = {
    **{"ok": True, "stages": [], "cause": None, "concerns": []},
    **{"jump_hosts": [], "machine": "", "host_key_fingerprint": ""},
}
AUDITED = {"checks": [{"id": "a", "severity": "high", "status": "fail", "evidence": "seen", "remedy": "type it"}]}
REPORTS: dict[str, Any] = {
    "ssh_doctor_report": lambda hosts: {"nodes": dict.fromkeys(hosts, EXAMINED)},
    "fleet_audit_report": lambda hosts: {"nodes": dict.fromkeys(hosts, {**AUDITED, "host_keys": []})},
    "gpu_drift": lambda hosts: {
        "results": {host: {"driver": {"version": f"550.{number}"}, "gpus": []} for number, host in enumerate(hosts)}
    },
    "fleet_snapshot": lambda hosts: {
        "nodes": [
            {"host": host, "alias": host, "machine": host, "host_key": "SHA256:k", "failure": "off"} for host in hosts
        ]
    },
}
TWO = ["gpu-0", "gpu-1"]
SHOWN = {
    "ssh_doctor_report": "2 nodes: 2 well",
    "fleet_audit_report": "2 nodes: 2 high",
    "gpu_drift": "2 nodes compared: driver_version",
    "fleet_snapshot": "gpu-0 and gpu-1: one and the same host key",
}
FOR_MACHINES = """
from ansible.plugins.callback import CallbackBase
DOCUMENTATION = "name: for_machines\\ntype: stdout\\nshort_description: writes one word as JSON\\ndescription: []"
class CallbackModule(CallbackBase):
    CALLBACK_TYPE = "stdout"
    def v2_playbook_on_stats(self, stats):
        self._display.display('"done"')
"""


def environment(callback: str | None = None, **more: str) -> dict[str, str]:
    left = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    chosen = {"ANSIBLE_STDOUT_CALLBACK": callback} if callback else {}
    return {**left, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", **chosen, **more}


@pytest.fixture
def fleet(tmp_path: Path) -> str:
    """So many nodes that their answers are more than Ansible keeps in its buffer."""
    path = tmp_path / "hosts"
    path.write_text("".join(f"gpu-{number} ansible_connection=local\n" for number in range(8)))
    return str(path)


def playbook(tmp_path: Path, hosts: list[str], *actions: str) -> list[str]:
    """Reports of these nodes, and a task after them."""
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "tasks": [
            *({f"gpuops.fleet.{action}": REPORTS[action](hosts)} for action in actions),
            {"ansible.builtin.raw": f"touch {tmp_path}/done"},
        ],
    }
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    return ["ansible-playbook", f"{tmp_path}/play.yml"]


@contextmanager
def started(command: list[str], fleet: str, **streams: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A command of Ansible whose output is read here; it must have ended by itself."""
    process = subprocess.Popen(
        [str(BIN / command[0]), "-i", fleet, *command[1:]],
        env=environment(),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        **streams,
    )
    try:
        yield process
        process.wait(30)
    finally:
        # Ansible passes this on to its workers, which another signal would leave behind.
        process.terminate()
        process.wait(10)


def close(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout
    process.stdout.close()


def test_it_ends_when_its_reader_has_seen_enough(fleet: str) -> None:
    with started(PROBE, fleet, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline().startswith(b"gpu-")
        close(process)
    assert process.stderr
    assert (process.returncode, process.stderr.read()) == (0, b"")


@pytest.mark.parametrize("stderr", [None, subprocess.STDOUT], ids=["stdout", "both"])
def test_it_ends_when_nobody_reads(fleet: str, stderr: int | None) -> None:
    with started(PROBE, fleet, stderr=stderr) as process:
        close(process)
    assert process.returncode == 0


def test_it_ends_when_nothing_can_be_written(fleet: str) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [BIN / PROBE[0], "-i", fleet, *PROBE[1:]],
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
    assert "No space left on device" in done.stderr


@pytest.mark.parametrize("action", REPORTS)
def test_a_play_goes_on_when_somebody_leaves_the_pager(tmp_path: Path, fleet: str, action: str) -> None:
    with started(playbook(tmp_path, [f"gpu-{number:0150}" for number in range(1000)], action), fleet) as process:
        assert process.stdout
        descriptor, unread, patience = process.stdout.fileno(), 0, time.monotonic() + 20
        # Then what is left of the table waits in a write.
        while unread <= fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ) - 4096 and time.monotonic() < patience:
            time.sleep(0.1)
            (unread,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))
        assert not (tmp_path / "done").exists()
        close(process)
    assert process.returncode == 0
    assert (tmp_path / "done").exists()


def run(command: list[str], callback: str | None, **more: str) -> str:
    done = subprocess.run(
        [str(BIN / command[0]), "-i", "localhost,", *command[1:]],
        env=environment(callback, **more),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_people_see_every_report(tmp_path: Path) -> None:
    output = run(playbook(tmp_path, TWO, *REPORTS), None)
    assert [action for action in REPORTS if f"\n{SHOWN[action]}" not in output] == []


@pytest.mark.parametrize("callback", ["ansible.posix.json", "json"])
def test_a_document_is_all_there_is_and_tells_what_people_see(tmp_path: Path, callback: str) -> None:
    (play,) = json.loads(run(playbook(tmp_path, TWO, *REPORTS), callback))["plays"]
    doctor, audit, drift, snapshot, _done = (task["hosts"]["localhost"] for task in play["tasks"])
    assert doctor["summary"] == {"well": 2, "warning": 0, "unreachable": 0}
    assert (audit["summary"]["high"], audit["nodes"]["gpu-1"]["checks"][0]["remedy"]) == (2, "type it")
    assert drift["summary"] == "2 nodes compared: driver_version"
    assert snapshot["failures"]["gpu-1"] == "gpu-1: off. Next: ansible-playbook site.yml --limit gpu-1 -vvv"
    assert snapshot["shared_host_keys"] == [
        {
            "host_key": "SHA256:k",
            "aliases": ["gpu-0", "gpu-1"],
            "remedy": "ansible-playbook site.yml -e sshd_hardening_replace_host_key=SHA256:k",
        }
    ]


def test_lines_of_json_are_all_there_is(tmp_path: Path) -> None:
    for line in run(playbook(tmp_path, TWO, *REPORTS), "ansible.posix.jsonl").splitlines():
        json.loads(line)


def test_nothing_is_written_beside_a_strange_callback(tmp_path: Path) -> None:
    (tmp_path / "for_machines.py").write_text(FOR_MACHINES)
    output = run(playbook(tmp_path, TWO, *REPORTS), "for_machines", ANSIBLE_CALLBACK_PLUGINS=str(tmp_path))
    assert json.loads(output) == "done"


@pytest.mark.parametrize(
    ("options", "callback", "load", "is_shown"),
    [
        ([], None, "0", True),
        # Ad hoc Ansible does not heed it either.
        ([], "ansible.posix.json", "0", True),
        ([], "ansible.posix.json", "1", False),
        (["-o"], "ansible.posix.json", "1", True),
        (["-t", "answers"], None, "0", True),
    ],
)
def test_the_line_of_gpu_probe(
    tmp_path: Path, options: list[str], callback: str | None, load: str, is_shown: bool
) -> None:
    options = [str(tmp_path / option) if option == "answers" else option for option in options]
    output = run([*PROBE, "-c", "local", *options], callback, ANSIBLE_LOAD_CALLBACK_PLUGINS=load)
    assert bool(re.match("localhost: [^\n]+\nlocalhost \\| ", output)) is is_shown
    if not is_shown:
        json.loads(output)


@pytest.mark.parametrize(
    ("callback", "is_for"),
    [
        ("default", True),
        ("ansible.builtin.default", True),
        ("ansible.legacy.minimal", True),
        ("ansible.posix.debug", True),
        ("community.general.yaml", True),
        ("json", False),
        ("ansible.posix.jsonl", False),
        ("community.general.null", False),
        ("awx_display", False),
        ("acme.tools.default", False),
    ],
)
def test_which_callbacks_write_for_people(callback: str, is_for: bool) -> None:
    assert is_for_people(callback) is is_for
