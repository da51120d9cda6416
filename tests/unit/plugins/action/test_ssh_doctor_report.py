# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import pathlib
import stat
import subprocess
import sys
import typing as t

import pytest
import yaml
from ansible_collections.gpuops.fleet.plugins.action import ssh_doctor_report, ssh_doctor_verdict
from ansible_collections.gpuops.fleet.plugins.modules import ssh_doctor_report as report_documentation
from ansible_collections.gpuops.fleet.plugins.modules import ssh_doctor_verdict as verdict_documentation
from places import REPOSITORY

WELL = {
    "ok": True,
    "stages": [{"stage": "tcp", "status": "ok", "ms": 10, "evidence": "connected"}],
    "cause": None,
    "concerns": [],
    "jump_hosts": [],
    "machine": "m1",
    "host_key_fingerprint": "SHA256:k1",
}


def _ansible(module: str, arguments: dict[str, t.Any], *more: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        "ANSIBLE_NOCOLOR": "1",
    }
    command = [str(pathlib.Path(sys.executable).parent / "ansible"), "-i", "gpu-1,", "all"]
    command += ["-m", f"gpuops.fleet.{module}", "-a", json.dumps(arguments), *more]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def _result(done: subprocess.CompletedProcess[str]) -> dict[str, t.Any]:
    found: dict[str, t.Any] = json.loads(done.stdout.partition(" => ")[2])
    return found


def test_report_on_the_terminal_in_the_result_and_in_the_file(tmp_path: pathlib.Path) -> None:
    dest = tmp_path / "doctor.json"
    dest.write_text("of the last run")
    dest.chmod(0o600)
    done = _ansible("ssh_doctor_report", {"nodes": {"gpu-2": WELL, "gpu-1": WELL}, "dest": str(dest)})
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("\ngpu-2    0.01 s  warning\ngpu-1    0.01 s  warning\n\ngpu-2: ")
    assert "\n2 nodes: 2 warning\n\n" in done.stdout
    result = _result(done)
    assert result["changed"] is True
    assert result["summary"] == {"well": 0, "warning": 2, "unreachable": 0}
    assert json.loads(dest.read_text()) == {key: result[key] for key in ("summary", "nodes")}
    assert stat.S_IMODE(dest.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [dest]


def test_check_mode_shows_the_same_and_writes_nothing(tmp_path: pathlib.Path) -> None:
    arguments = {"nodes": {"gpu-1": WELL}, "dest": str(tmp_path / "doctor.json")}
    checked, done = (
        _ansible("ssh_doctor_report", arguments, "-C"),
        _ansible("ssh_doctor_report", {"nodes": {"gpu-1": WELL}}),
    )
    assert checked.stdout.partition("gpu-1 | ")[0] == done.stdout.partition("gpu-1 | ")[0]
    assert _result(checked)["changed"] is True
    assert _result(done)["changed"] is False
    assert not list(tmp_path.iterdir())


def test_verbose_shows_every_stage() -> None:
    done = _ansible("ssh_doctor_report", {"nodes": {"gpu-1": WELL}}, "-v")
    assert "\n  tcp           0.01 s  ok    connected\n" in done.stdout


@pytest.mark.parametrize(
    ("dest", "told"), [("missing/doctor.json", "No such file or directory"), ("", "Is a directory")]
)
def test_file_that_cannot_be_written(tmp_path: pathlib.Path, dest: str, told: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / dest
    done = _ansible("ssh_doctor_report", {"nodes": {"gpu-1": WELL}, "dest": str(path)})
    assert done.returncode == 2
    assert "Traceback" not in done.stdout + done.stderr
    message = _result(done)["msg"]
    assert f"cannot be written to {path}: {told}" in message
    assert f"Next: ls -ld {path.parent}" in message
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize(
    "examined", [{"failed": True, "msg": "timeout must be more"}, "the stages"], ids=["failed", "text"]
)
def test_what_is_no_result_of_the_doctor_is_refused_by_name(examined: object) -> None:
    done = _ansible("ssh_doctor_report", {"nodes": {"gpu-7": examined}})
    assert done.returncode == 2
    assert f"gpu-7 holds no result of ssh_doctor: {examined}" in _result(done)["msg"]


@pytest.mark.parametrize(("verdict", "rc"), [("well", 0), ("warning", 2), ("unreachable", 4)])
def test_verdict_is_the_exit_code(verdict: str, rc: int) -> None:
    done = _ansible("ssh_doctor_verdict", {"verdict": verdict}, "-C")
    assert done.returncode == rc, done.stdout + done.stderr
    assert ("the report above says why" in done.stdout) is bool(rc)


@pytest.mark.parametrize(
    ("action", "documentation"),
    [(ssh_doctor_report, report_documentation), (ssh_doctor_verdict, verdict_documentation)],
    ids=["report", "verdict"],
)
def test_documentation_and_argument_spec_agree(action: t.Any, documentation: t.Any) -> None:
    options = yaml.safe_load(documentation.DOCUMENTATION)["options"]
    kept = ("type", "required", "choices")
    documented = {name: {key: option[key] for key in kept if key in option} for name, option in options.items()}
    assert documented == action.ARGUMENT_SPEC
