# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The doctor against failures made for real (tests/lab/sick_node.py), on three releases of Debian, in one run."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from failures import ALL, Failure
from sick_node import PORTS, SickNode

REPOSITORY = Path(__file__).resolve().parents[2]
LAB = REPOSITORY / "tests" / "lab" / "lab.py"
LIMIT = 10

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("doctor-lab")]


@dataclass(frozen=True)
class Run:
    """What ansible-playbook said, and the report that it wrote."""

    rc: int
    text: str
    nodes: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Clinic:
    """Three nodes full of failures, in one inventory; a host is called RELEASE-FAILURE."""

    folder: Path
    labs: dict[str, SickNode]

    @property
    def sockets(self) -> Path:
        """Where the doctor's own connections have their sockets; a short name, since that of a socket must be short."""
        return self.folder / "s"

    def doctor(self, *arguments: str) -> Run:
        """Run the playbook."""
        dest = self.folder / "doctor.json"
        dest.unlink(missing_ok=True)
        env = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "SSH_"))}
        env.update(
            PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            ANSIBLE_CONFIG=str(REPOSITORY / "ansible.cfg"),
            ANSIBLE_NOCOLOR="1",
            TMPDIR=str(self.sockets),
        )
        command = ["ansible-playbook", "-i", str(self.folder / "inventory.json"), "playbooks/doctor.yml"]
        command += ["-e", f"doctor_json={dest}", *arguments]
        done = subprocess.run(
            command, cwd=REPOSITORY, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            timeout=600,
        )  # fmt: skip
        assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
        nodes = json.loads(dest.read_text())["nodes"] if dest.exists() else {}
        return Run(done.returncode, done.stdout, nodes)

    def files(self) -> dict[str, str]:
        """All files of the user, to see that they stay as they are."""
        return {
            str(path): hashlib.sha256(path.read_bytes()).hexdigest()
            for lab in self.labs.values()
            for path in sorted(lab.home.iterdir())
            if path.is_file()
        }


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    folder = tmp_path_factory.mktemp("doctor")
    lab = [sys.executable, str(LAB), "--dir", str(folder)]
    try:
        subprocess.run([*lab, "up", *(f"{release}={release}:t4x1-470" for release in ALL)], check=True)
        started = json.loads((folder / "inventory" / "nodes.yml").read_text())["gpu"]["hosts"]
        labs = {}
        hosts = {}
        with ExitStack() as stack:
            for release in ALL:
                home = folder / release
                home.mkdir()
                labs[release] = SickNode(release, started[release]["lab_container"], home)
                labs[release].start()
                hosts.update({f"{release}-{name}": host for name, host in labs[release].hosts().items()})
                stack.enter_context(labs[release].in_force())
            (folder / "s").mkdir()
            (folder / "inventory.json").write_text(json.dumps({"gpu": {"hosts": hosts}}))
            yield Clinic(folder, labs)
    finally:
        subprocess.run([*lab, "down"], check=True)


@pytest.fixture(scope="module")
def files_before(clinic: Clinic) -> dict[str, str]:
    return clinic.files()


@pytest.fixture(scope="module")
def run(clinic: Clinic, files_before: dict[str, str]) -> Run:
    return clinic.doctor()


def codes(found: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The cause and the warnings."""
    return (found["cause"] or {"code": ""})["code"], tuple(sorted(warning["code"] for warning in found["concerns"]))


@pytest.mark.parametrize("release", ALL)
def test_every_failure_is_called_by_its_name(release: str, clinic: Clinic, run: Run) -> None:
    failures = clinic.labs[release].failures
    assert len({failure.cause for failure in failures} | {w for failure in failures for w in failure.warnings}) > 25
    wrong = []
    for failure in failures:
        found = run.nodes[f"{release}-{failure.name}"]
        expected = (failure.cause, tuple(sorted(failure.warnings)))
        if codes(found) != expected:
            wrong.append(f"{failure.name:24}{expected} is called {codes(found)}: {found['message']}")
    assert not wrong, "\n" + "\n".join(wrong)


def jumps_of(clinic: Clinic, run: Run) -> Iterator[tuple[Failure, dict[str, Any]]]:
    for release, lab in clinic.labs.items():
        for failure in lab.failures:
            if failure.through:
                yield failure, run.nodes[f"{release}-{failure.name}"]


def test_jump_host_that_fails_is_named(clinic: Clinic, run: Run) -> None:
    for failure, found in jumps_of(clinic, run):
        hops = found["jump_hosts"]
        assert [hop["ok"] for hop in hops] == [True] * (len(failure.through) - failure.jump_cause) + [
            False
        ] * failure.jump_cause, failure.name
        if failure.jump_cause:
            assert hops[-1]["cause"]["code"] == failure.cause
            assert failure.through[-1] in found["message"]
            assert {stage["status"] for stage in found["stages"]} <= {"ok", "skipped"}


def test_no_stage_takes_longer_than_its_limit(run: Run) -> None:
    for host, found in run.nodes.items():
        for hop in [*found["jump_hosts"], found]:
            for stage in hop["stages"]:
                assert stage["ms"] < (LIMIT + 2) * 1000, f"{host}: {stage}"


def test_no_file_of_the_user_is_written(clinic: Clinic, run: Run, files_before: dict[str, str]) -> None:
    assert clinic.files() == files_before


def test_no_process_and_no_socket_is_left(clinic: Clinic, run: Run) -> None:
    assert list(clinic.sockets.iterdir()) == []
    running = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    assert [line for line in running.splitlines() if str(clinic.folder) in line and "ssh-agent" not in line] == []


def test_report_says_what_to_type_for_each_sick_node_and_for_no_other(clinic: Clinic, run: Run) -> None:
    assert run.rc == 4
    for release, lab in clinic.labs.items():
        for failure in lab.failures:
            host = f"{release}-{failure.name}"
            wanted = bool(failure.cause) or len(failure.warnings)
            assert run.text.count(f"\n{host}: ") == wanted, host
    assert run.text.count("\n  next: ") == sum(
        bool(failure.cause) or len(failure.warnings) for lab in clinic.labs.values() for failure in lab.failures
    )


@pytest.mark.parametrize(
    ("limit", "rc"),
    [
        (("well-root", "well-sudo"), 0),
        (("well-root", "no-sftp"), 2),
        (("well-root", "no-sftp", "refused"), 4),
        # A pair is seen as one only when both are looked at.
        (("twin-1",), 0),
    ],
    ids=["well", "warning", "unreachable", "half-a-pair"],
)
def test_exit_code_is_that_of_the_worst_node(clinic: Clinic, limit: tuple[str, ...], rc: int) -> None:
    run = clinic.doctor("-l", ",".join(f"deb12-{name}" for name in limit))
    assert run.rc == rc, run.text
    assert len(run.nodes) == len(limit)


def test_check_mode_examines_the_same_and_writes_no_report(clinic: Clinic) -> None:
    run = clinic.doctor("-l", "deb12-well-root,deb12-refused", "--check")
    assert run.rc == 4, run.text
    assert "\n2 nodes: 1 well, 1 unreachable\n" in run.text
    assert not run.nodes


def test_nodes_behind_one_jump_host_do_not_get_this_machine_banned(clinic: Clinic) -> None:
    """OpenSSH 9.8 and later count each connection without a login, and from the fifteenth on turn its address away."""
    node, jump = clinic.labs["deb12"], clinic.labs["deb13"]
    port = PORTS["well-jump"]
    way = f"-F {jump.home}/config -o ProxyJump=well-jump -o UserKnownHostsFile={node.home}/known_hosts"
    host = {"ansible_host": node.address, "ansible_port": port, "ansible_user": "root", "ansible_ssh_common_args": way}
    host["ansible_ssh_private_key_file"] = str(node.home / "key")
    crowd = {f"crowd-{number}": host for number in range(1, 20)}
    inventory = clinic.folder / "crowd.json"
    inventory.write_text(json.dumps({"gpu": {"children": {"crowd": {"hosts": crowd}}}}))
    for _run in range(2):
        run = clinic.doctor("-i", str(inventory), "-l", "crowd", "--forks", "10")
        assert len(run.nodes) == 19, run.text
        # All of them are one machine.
        assert {codes(found) for found in run.nodes.values()} == {("", ("same_machine",))}, run.text
        assert [bool(found["jump_hosts"][0]["shared"]) for found in run.nodes.values()].count(False) == 1
    login = ["ssh", "-F", f"{jump.home}/config", "-o", "BatchMode=yes", "well-jump", "true"]
    done = subprocess.run(login, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
