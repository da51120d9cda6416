# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.gpuops.fleet.plugins.action import fleet_audit, fleet_audit_report
from ansible_collections.gpuops.fleet.plugins.modules import fleet_audit as audit_documentation
from ansible_collections.gpuops.fleet.plugins.modules import fleet_audit_report as report_documentation
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.audit.checks import CHECKS
from places import REPOSITORY

CHECK = {
    "id": "password_login", "title": "t", "severity": "high", "cis": "", "status": "fail", "evidence": "seen",
    "remedy": "type this",
}  # fmt: skip
AUDITED = {"checks": [CHECK], "host_keys": ["SHA256:a"]}


def ansible(module: str, arguments: dict[str, t.Any], *more: str, **environment: str) -> tuple[int, str, t.Any]:
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        "ANSIBLE_NOCOLOR": "1",
        **environment,
    }
    command = [str(Path(sys.executable).parent / "ansible"), "-i", "gpu-1,", "-c", "local", "all"]
    command += ["-m", f"gpuops.fleet.{module}", *(["-a", json.dumps(arguments)] if arguments else []), *more]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, done.stdout, json.loads(done.stdout.partition(" => ")[2] or "null")


@pytest.mark.parametrize("mode", [[], ["--check"]])
def test_a_node_is_audited_check_by_check_also_in_check_mode(tmp_path: Path, mode: list[str]) -> None:
    (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n")
    (tmp_path / "id").chmod(0o755)
    rc, _text, result = ansible("fleet_audit", {"alias": "node-1"}, *mode, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert (rc, result["changed"], result["host_keys"]) == (0, False, [])
    assert [check["id"] for check in result["checks"]] == [check.id for check in CHECKS]
    assert {check["status"] for check in result["checks"]} == {"unknown"}


def test_where_the_connection_comes_from_is_known_through_sudo(tmp_path: Path) -> None:
    commands = {
        "id": "echo 0",
        "getent": "echo gpu:x:1000:1000::/nowhere:/bin/sh",
        "sshd": "case $* in *,addr=10.*) echo passwordauthentication yes ;; *) echo passwordauthentication no ;; esac",
        "sudo": 'while [ $1 != /bin/sh ]; do shift; done; exec env -i PATH=$PATH $1 $2 "$3"',
    }
    for name, script in commands.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    _rc, _text, result = ansible(
        "fleet_audit",
        {},
        "-b",
        PATH=f"{tmp_path}:{os.environ['PATH']}",
        SSH_CONNECTION="10.0.0.1 50000 10.0.0.9 22",
        # Else there is no sudo where the tests run as root.
        ANSIBLE_BECOME_ALLOW_SAME_USER="1",
    )
    found = {check["id"]: check["evidence"] for check in result["checks"]}
    assert found["password_login"] == "sshd takes password for gpu from 10.0.0.1"


def test_a_wrong_baseline_is_told_before_the_node_is_asked() -> None:
    rc, _text, result = ansible(
        "fleet_audit", {"baseline": {"max_sesions": {}}}, "-e", "ansible_shell_executable=/bin/false"
    )
    assert rc == 2
    assert result["msg"] == (
        "gpu-1: baseline: no check is called 'max_sesions'. Did you mean max_sessions? "
        "Next: ansible-doc gpuops.fleet.fleet_audit"
    )


def test_no_answer_fails_with_host_and_next_command() -> None:
    rc, _text, result = ansible("fleet_audit", {}, "-e", "ansible_shell_executable=/bin/false")
    assert rc == 2
    assert result["msg"].startswith("gpu-1: fleet_audit: the collector did not answer: exit code 1, no output.")
    assert "Next: ansible gpu-1 -m ansible.builtin.raw" in result["msg"]


def test_report_on_the_terminal_in_the_result_and_in_files(tmp_path: Path) -> None:
    files = {"json_dest": str(tmp_path / "audit.json"), "junit_dest": str(tmp_path / "audit.xml")}
    (tmp_path / "audit.json").write_text("of the last run")
    rc, text, result = ansible("fleet_audit_report", {"nodes": {"gpu-2": AUDITED, "gpu-1": {}}, **files})
    assert rc == 0
    assert text.startswith("\ngpu-2  1 high, 0 of 1 ok\n  high      password_login        seen\n")
    assert "\n2 nodes: 1 high, 1 not audited\nnext: " in text
    assert result["changed"] is True
    assert json.loads((tmp_path / "audit.json").read_text()) == {key: result[key] for key in ("summary", "nodes")}
    assert '<testsuite name="gpu-2" ' in (tmp_path / "audit.xml").read_text()
    assert [stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()] == [0o644, 0o644]


def test_check_mode_shows_the_same_and_writes_nothing(tmp_path: Path) -> None:
    arguments = {"nodes": {"gpu-1": AUDITED}, "json_dest": str(tmp_path / "audit.json")}
    _rc, checked, result = ansible("fleet_audit_report", arguments, "-C")
    _rc, done, plain = ansible("fleet_audit_report", {"nodes": {"gpu-1": AUDITED}})
    assert checked.partition("gpu-1 | ")[0] == done.partition("gpu-1 | ")[0]
    assert (result["changed"], plain["changed"]) == (True, False)
    assert not list(tmp_path.iterdir())


def test_verbose_shows_every_check() -> None:
    nodes = {"gpu-1": {**AUDITED, "checks": [{**CHECK, "status": "ok"}]}}
    assert "\n  ok        password_login        seen\n" in ansible("fleet_audit_report", {"nodes": nodes}, "-v")[1]


@pytest.mark.parametrize("option", ["json_dest", "junit_dest"])
def test_file_that_cannot_be_written(tmp_path: Path, option: str) -> None:
    path = tmp_path / "missing" / "audit"
    rc, _text, result = ansible("fleet_audit_report", {"nodes": {"gpu-1": AUDITED}, option: str(path)})
    assert rc == 2
    assert result["msg"] == (
        f"{option}: the report cannot be written to {path}: No such file or directory. Next: ls -ld {path.parent}"
    )


def test_what_is_no_result_is_refused_by_name() -> None:
    rc, _text, result = ansible("fleet_audit_report", {"nodes": {"gpu-7": "well"}})
    assert rc == 2
    assert "gpu-7 holds no result of fleet_audit: well" in result["msg"]


@pytest.mark.parametrize(
    ("action", "documentation"),
    [(fleet_audit, audit_documentation), (fleet_audit_report, report_documentation)],
    ids=["audit", "report"],
)
def test_documentation_and_argument_spec_agree(action: t.Any, documentation: t.Any) -> None:
    options = yaml.safe_load(documentation.DOCUMENTATION)["options"]
    kept = ("type", "required", "default")
    documented = {name: {key: option[key] for key in kept if key in option} for name, option in options.items()}
    assert documented == action.ARGUMENT_SPEC
