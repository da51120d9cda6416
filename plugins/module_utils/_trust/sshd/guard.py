# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Change files of sshd with a way back: unless it is told to keep them, the machine itself puts the old ones back.

This module util is PRIVATE to the collection. The way back is a shell script in /run that needs neither Ansible nor
Python nor a free byte on the disk: the old files wait beside the new ones under another name, and are renamed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import tempfile
import time
import typing as t

from ansible_collections.gpuops.fleet.plugins.module_utils._trust.sshd import firewall
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.sshd.process import (
    Listener,
    Run,
    Socket,
    has_systemd,
    reload_command,
)
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.sshd.settings import SshdError

STATE = "/run/gpuops-sshd"
UNIT = "gpuops-sshd-rollback"
# Who renames this file first decides: the timer, or the run that has proven its change.
_PENDING = f"{STATE}/pending"
_SCRIPT = f"{STATE}/restore.sh"
# Which files wait: on the disk as they are, so that both are still there when the machine was started anew in between.
_RECORD = "/etc/ssh/.gpuops-before"
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def kept_as(path: str) -> str:
    """Return where the old file waits, a name that sshd and systemd do not read."""
    folder, name = os.path.split(path)
    return f"{folder}/.{name}.gpuops-before"


def restore_script(paths: t.Mapping[str, bool], listeners: t.Sequence[Listener], waiting: Socket | None) -> str:
    """The way back, for files that were there before (True) or not (False)."""
    lines = [
        "#!/bin/sh",
        "# Written by gpuops.fleet: puts the old configuration of sshd back, unless the new one was proven.",
        _PATH,
        f"mv {_PENDING} {STATE}/restoring 2>/dev/null || exit 0",
    ]
    for path, was_there in paths.items():
        if was_there:
            # mv leaves both names of one file: that of a file which was never written anew.
            lines.append(f"mv -f {shlex.quote(kept_as(path))} {shlex.quote(path)}")
            lines.append(f"rm -f {shlex.quote(kept_as(path))}")
        else:
            lines.append(f"rm -f {shlex.quote(path)}")
    if firewall.RULES in paths:
        lines += [shlex.join(command) for command in firewall.commands(paths[firewall.RULES])]
    lines.append("mkdir -p /run/sshd")
    if waiting:
        lines.append(f"systemctl stop {waiting.service}")
        if waiting.drop_in in paths:
            lines += ["systemctl daemon-reload", f"systemctl restart {waiting.unit}"]
    for listener in listeners:
        if waiting and listener.unit == waiting.service:
            continue
        again = shlex.join(reload_command(listener))
        if listener.unit:
            start, runs = f"systemctl restart {listener.unit}", f"systemctl is-active --quiet {listener.unit}"
        else:
            start, runs = shlex.join([listener.program, *listener.options]), f"kill -0 {listener.pid} 2>/dev/null"
        # A reload can end an sshd that cannot listen any more, a moment later.
        lines += [f"{again} || {start}", "sleep 1", f"{runs} || {start}"]
    lines += [f"rm -f {_RECORD}", f"rm -rf {STATE}"]
    return "\n".join(lines) + "\n"


def arm(
    paths: t.Sequence[str], listeners: t.Sequence[Listener], waiting: Socket | None, seconds: int, run: Run
) -> None:
    """Keep the old files and set the timer."""
    _forget()
    os.mkdir(STATE, 0o700)
    there = {path: os.path.exists(path) for path in paths}
    try:
        write(_RECORD, json.dumps(paths).encode())
        for path, was_there in there.items():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(kept_as(path))
            if was_there:
                _keep(path)
        with open(_SCRIPT, "w", encoding="utf-8") as script:
            script.write(restore_script(there, listeners, waiting))
        with open(_PENDING, "w", encoding="utf-8"):
            pass
        _set_timer(seconds, run)
    except (OSError, SshdError):
        _forget()
        raise


def _keep(path: str) -> None:
    try:
        os.link(path, kept_as(path))
    except OSError:
        # It may be a private key: nobody else reads it before it has the mode of the other.
        os.close(os.open(kept_as(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        shutil.copy2(path, kept_as(path))
        status = os.stat(path)
        os.chown(kept_as(path), status.st_uid, status.st_gid)


def _set_timer(seconds: int, run: Run) -> None:
    if has_systemd():
        run(["systemctl", "reset-failed", f"{UNIT}.service", f"{UNIT}.timer"])
        command = ["systemd-run", "--quiet", f"--unit={UNIT}", f"--on-active={seconds}s"]
        code, said = run([*command, "--timer-property=AccuracySec=100ms", "/bin/sh", _SCRIPT])
        if code:
            raise SshdError(f"systemd-run cannot set the timer that puts everything back: {said.strip()}")
        return
    # setsid: what ends this connection must not end the timer.
    timer = subprocess.Popen(
        ["/bin/sh", "-c", f"sleep {seconds}; exec /bin/sh {_SCRIPT}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        close_fds=True,
        cwd="/",
    )
    with open(f"{STATE}/timer.pid", "w", encoding="utf-8") as file:
        file.write(str(timer.pid))


def _stop_timer(run: Run) -> None:
    if has_systemd():
        run(["systemctl", "stop", f"{UNIT}.timer"])
        return
    with contextlib.suppress(OSError, ValueError), open(f"{STATE}/timer.pid", encoding="utf-8") as file:
        os.killpg(int(file.read()), 15)


def _forget() -> None:
    """Remove the old files, also those of a run that broke off: among them may be private keys."""
    # Where one cannot be removed, the record stays for the next run.
    with contextlib.suppress(OSError):
        with open(_RECORD, encoding="utf-8") as record:
            paths = json.load(record)
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(kept_as(path))
        os.unlink(_RECORD)
    shutil.rmtree(STATE, ignore_errors=True)


def write(path: str, content: bytes | None) -> None:
    """Put a file in its place in one step, with the mode and owner of the one before; None removes it."""
    if content is None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        # Made for our file, unless somebody else has put one there too.
        if path.endswith(".socket.d/00-gpuops.conf"):
            with contextlib.suppress(OSError):
                os.rmdir(os.path.dirname(path))
        return
    target = os.path.realpath(path)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".", suffix=".gpuops-new", dir=os.path.dirname(target))
    try:
        with os.fdopen(handle, "wb") as file:
            if os.path.exists(target):
                before = os.stat(target)
                os.fchmod(file.fileno(), before.st_mode & 0o7777)
                os.fchown(file.fileno(), before.st_uid, before.st_gid)
            else:
                os.fchmod(file.fileno(), 0o644)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, target)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def keep(run: Run) -> bool:
    """The change is proven; False when nothing waits for that any more."""
    with contextlib.suppress(FileNotFoundError):
        os.rename(_PENDING, f"{STATE}/kept")
    # Of a keep that broke off, the old files are still to be removed.
    if not os.path.exists(f"{STATE}/kept"):
        return False
    _stop_timer(run)
    _forget()
    return True


def restore(run: Run) -> bool:
    """Put everything back now, and wait for it, also where the timer has begun to; False when nothing waits."""
    if not os.path.exists(_PENDING) and not os.path.exists(f"{STATE}/restoring"):
        _forget()
        return False
    _stop_timer(run)
    code, said = run(["/bin/sh", _SCRIPT])
    deadline = time.monotonic() + 10
    while os.path.exists(STATE) and time.monotonic() < deadline:
        time.sleep(0.1)
    if os.path.exists(STATE):
        raise SshdError(
            f"{_SCRIPT} did not put everything back, it ended with {code}: {said.strip()}", remedy=f"sh -x {_SCRIPT}"
        )
    return True
