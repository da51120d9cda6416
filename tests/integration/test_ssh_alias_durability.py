# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ssh_alias under kill -9, and two of it at once."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.gpuops.fleet.plugins.module_utils._reach import failover as ssh_failover
from ansible_collections.gpuops.fleet.plugins.modules import ssh_alias

SSH = shutil.which("ssh") or ""
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not SSH, reason="no OpenSSH client on this machine")]

USER_CONFIG = b"# mine\nHost web\n\tPort  2200 # here\nHost *\n  User bob\n"
KILLS = 200
ROUNDS = 100
NAMES = ("gpu-0", "gpu-1", "gpu-2")
PLAIN = [{"name": name, "port": 2300} for name in NAMES]
WITH_JUMP_HOSTS = [{"name": name, "port": 2301, "jump_hosts": ["192.0.2.1"]} for name in NAMES]


def run(path: Path, **params: t.Any) -> dict[str, t.Any]:
    output = io.StringIO()
    args = {"path": str(path), **params}
    with patch_module_args(args), contextlib.redirect_stdout(output), pytest.raises(SystemExit):
        ssh_alias.main()
    return t.cast("dict[str, t.Any]", json.loads(output.getvalue()))


def in_a_child(path: Path, **params: t.Any) -> multiprocessing.process.BaseProcess:
    # A fork has Python and Ansible loaded already, so that a kill hits the work and not the imports.
    process = multiprocessing.get_context("fork").Process(target=run, args=(path,), kwargs=params)
    process.start()
    return process


def port(path: Path, host: str) -> str:
    # Without the network, as the module itself asks.
    environment = {**os.environ, ssh_failover.DEPTH_VARIABLE: str(ssh_failover.MAX_DEPTH)}
    output = subprocess.run(
        [SSH, "-G", "-F", str(path), host],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    ).stdout
    return next(line for line in output.splitlines() if line.startswith("port ")).split()[1]


def aliases_in(own: Path) -> bytes:
    """The file without the line on what the module made around it: a directory that a killed run left is taken as
    the user's."""
    lines = own.read_bytes().splitlines(keepends=True) if own.exists() else []
    return b"".join(line for line in lines if not line.startswith(b"# Made by"))


def test_a_killed_run_leaves_the_old_or_the_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    config = tmp_path / ".ssh" / "config"
    config.parent.mkdir(0o700)
    config.write_bytes(USER_CONFIG)
    own = config.parent / "config.d" / "gpuops.conf"
    script = own.parent / ssh_failover.SCRIPT_FILE

    ports: dict[bytes, str] = {b"": "22"}
    took = 0.0
    for aliases in (PLAIN, WITH_JUMP_HOSTS):
        start = time.monotonic()
        run(config, aliases=aliases, exclusive=True)
        took = max(took, time.monotonic() - start)
        ports[aliases_in(own)] = str(aliases[0]["port"])
    mains = {USER_CONFIG, config.read_bytes()}
    seen_ports = set()

    seed = 20260101
    moments = random.Random(seed)
    killed = 0
    for turn in range(KILLS):
        aliases = moments.choice([PLAIN, WITH_JUMP_HOSTS, []])
        process = in_a_child(config, aliases=aliases, exclusive=True)
        time.sleep(moments.uniform(0, took))
        os.kill(t.cast("int", process.pid), signal.SIGKILL)
        process.join(30)
        killed += process.exitcode == -signal.SIGKILL
        where = f"seed {seed}, turn {turn}"
        content = aliases_in(own)
        assert content in ports, where
        assert config.read_bytes() in mains, where
        included = config.read_bytes() != USER_CONFIG
        seen = {port(config, name) for name in NAMES}
        assert seen == {ports[content] if included else "22"}, where
        assert port(config, "web") == "2200", where
        assert b"exec" not in content or script.read_text() == ssh_failover.SCRIPT, where
        seen_ports |= seen
    assert killed > KILLS / 4
    assert seen_ports == set(ports.values())

    run(config, aliases=PLAIN, exclusive=True)
    run(config, aliases=[], exclusive=True)
    assert [path.name for path in config.parent.rglob("*") if path.is_file()] == ["config"]
    assert config.read_bytes() == USER_CONFIG


def test_what_a_killed_run_left_of_the_script_goes_with_the_last_alias(tmp_path: Path) -> None:
    config = tmp_path / ".ssh" / "config"
    config.parent.mkdir(0o700)
    run(config, aliases=PLAIN, exclusive=True)
    (config.parent / "config.d" / f".{ssh_failover.SCRIPT_FILE}.gpuops-new").write_bytes(b"#!/b")
    run(config, aliases=[], exclusive=True)
    assert list(config.parent.iterdir()) == []


def test_two_runs_at_once_are_both_there(tmp_path: Path) -> None:
    config = tmp_path / ".ssh" / "config"
    for turn in range(ROUNDS):
        started = [in_a_child(config, name=f"gpu-{turn}-{side}", port=2222) for side in ("a", "b")]
        for process in started:
            process.join(60)
        own = (config.parent / "config.d" / "gpuops.conf").read_text()
        assert all(f"Host gpu-{turn}-{side}\n" in own for side in ("a", "b")), f"turn {turn}"
    assert own.count("Host ") == 2 * ROUNDS
    assert {port(config, f"gpu-{turn}-{side}") for turn in (0, ROUNDS - 1) for side in ("a", "b")} == {"2222"}
