# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a program of this machine, within a limit of time and of output.

This plugin util is PRIVATE to the collection.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
import typing as t
from dataclasses import dataclass

_OUTPUT_BYTES = 1 << 20


@dataclass(frozen=True)
class Finished:
    """A process that ended, or was ended at its limit (then rc is None)."""

    rc: int | None
    stdout: str
    stderr: str


class Program:
    """A program without terminal and questions. It and its children end with the block, if not by themselves."""

    def __init__(
        self,
        argv: t.Sequence[str],
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
        environment: t.Mapping[str, str] | None = None,
        is_cut_off: bool = True,
    ) -> None:
        """Start it. One that says too much is cut off: its pipe is read no more. Else the rest is dropped."""
        env = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "SSH_ASKPASS")}
        env.update(LC_ALL="C", SSH_ASKPASS_REQUIRE="never", **(environment or {}))
        self._process = subprocess.Popen(
            argv, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, env=env, start_new_session=True
        )
        self._output = {"stdout": bytearray(), "stderr": bytearray()}
        self._is_cut_off = is_cut_off
        self._pipes = selectors.DefaultSelector()
        for name in self._output:
            if pipe := getattr(self._process, name):
                self._pipes.register(pipe, selectors.EVENT_READ, name)

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self.say_no_more()
        self._pipes.close()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe:
                pipe.close()

    @property
    def stdout(self) -> bytes:
        return bytes(self._output["stdout"])

    @property
    def stderr(self) -> str:
        return self._output["stderr"].decode("utf-8", "replace")

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def say(self, text: bytes) -> None:
        """A program that does not listen is noticed by its answer."""
        if self._process.stdin:
            with contextlib.suppress(OSError):
                self._process.stdin.write(text)
                self._process.stdin.flush()

    def say_no_more(self) -> None:
        if self._process.stdin:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def read(self, timeout: float, until: t.Callable[[], bool]) -> bool:
        """Collect output until there is enough of it; False when the program, or the time, ended before."""
        deadline = time.monotonic() + timeout
        while not (enough := until()) and self._pipes.get_map() and (remaining := deadline - time.monotonic()) > 0:
            events = self._pipes.select(min(remaining, 0.1))
            for key, _mask in events:
                chunk = os.read(key.fd, 1 << 16)
                output = self._output[key.data]
                if len(output) <= _OUTPUT_BYTES:
                    output += chunk
                if not chunk or (self._is_cut_off and len(output) > _OUTPUT_BYTES):
                    self._pipes.unregister(key.fileobj)
            # A child that outlives the program (a proxy command) keeps the pipes open.
            if not events and self._process.poll() is not None:
                break
        return enough or until()

    def finish(self, timeout: float) -> Finished:
        """Collect the rest; a program that has not ended in time ends with the block."""
        deadline = time.monotonic() + timeout
        self.read(timeout, lambda: False)
        rc: int | None = None
        # Without pipes it is about to end, however busy the machine is.
        if not self._pipes.get_map():
            deadline = max(deadline, time.monotonic() + 1)
        with contextlib.suppress(subprocess.TimeoutExpired):
            rc = self._process.wait(max(deadline - time.monotonic(), 0.05))
        return Finished(rc, self.stdout.decode("utf-8", "replace"), self.stderr)


def run_command(argv: t.Sequence[str], timeout: float, environment: t.Mapping[str, str] | None = None) -> Finished:
    """Run a program to its end, or to the limit; of much output the beginning is returned."""
    try:
        with Program(argv, environment=environment, is_cut_off=False) as program:
            return program.finish(timeout)
    except FileNotFoundError:
        return Finished(127, "", f"{argv[0]}: command not found")
