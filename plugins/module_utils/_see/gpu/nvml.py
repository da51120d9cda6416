# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ask NVML, the driver's library, about the GPUs. **PRIVATE** to the collection.

A call of NVML may sleep in the kernel for ever, or crash. So a child makes the calls, writes what it learns to a pipe
line by line, and is left behind when it does not end.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import time
import typing as t

from ansible_collections.gpuops.fleet.plugins.module_utils._see.gpu.nvml_calls import ask_nvml


def read(deadline: float) -> dict[str, t.Any]:
    """Return what NVML says within so many seconds, also what it said before it hung or crashed."""
    start = time.monotonic()
    answer: dict[str, t.Any] = {
        "outcome": "",
        "error": "",
        "init_code": None,
        "driver_version": None,
        "cuda_version": None,
        "library_version": None,
        "gpus": [],
        "lost": [],
    }
    # Loaded by root without a driver, the library makes device nodes and may load the driver.
    if not _driver_loaded():
        answer.update(outcome="not_loaded", error="the NVIDIA kernel driver is not loaded")
    else:
        _ask_child(answer, start, deadline)
    return {**answer, "seconds": round(time.monotonic() - start, 3)}


def _driver_loaded() -> bool:
    root = os.environ.get("GPUOPS_SYSROOT", "")
    if os.path.exists(root + "/proc/driver/nvidia/version") or os.path.exists(root + "/dev/dxg"):
        return True
    try:
        with open(root + "/sys/module/nvidia/initstate", encoding="ascii") as file:
            return file.read().strip() == "live"
    except OSError:
        return False


def _ask_child(answer: dict[str, t.Any], start: float, deadline: float) -> None:
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        _run_child(send)
    os.close(send)
    step = "when it was loaded"
    open_end = True
    with os.fdopen(receive, "rb", buffering=0) as pipe:
        for line in _lines(pipe, start + deadline):
            if line is None:
                open_end = False
                break
            facts = json.loads(line)
            step = facts.pop("step", step)
            answer["lost"] += facts.pop("lost", [])
            answer["gpus"] += facts.pop("gpus", [])
            answer.update(facts)
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(OSError):
            kill(pid, signal.SIGKILL)
    if answer["outcome"]:
        return
    if open_end:
        answer.update(outcome="deadline", error=f"NVML did not answer within {deadline:g} seconds {step}")
    else:
        answer.update(outcome="crashed", error=f"NVML {_end_of(pid, start + deadline)} {step}")


def _lines(pipe: t.BinaryIO, end: float) -> t.Iterator[bytes | None]:
    """The whole lines that come before that time; the last one is None when the other end was closed."""
    rest = b""
    # The time also counts for a child that never stops to write.
    while time.monotonic() < end and select.select([pipe], [], [], max(0.0, end - time.monotonic()))[0]:
        data = pipe.read(65536)
        if not data:
            yield None
            return
        *lines, rest = (rest + data).split(b"\n")
        yield from lines


def _end_of(pid: int, end: float) -> str:
    """Return how a child ended that closed its pipe; it may hang in the kernel on its way out."""
    ended, status = os.waitpid(pid, os.WNOHANG)
    while not ended and time.monotonic() < end:
        time.sleep(0.01)
        ended, status = os.waitpid(pid, os.WNOHANG)
    if ended and os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"crashed with signal {number} ({signal.strsignal(number)})"
    return "ended the process"


def _run_child(send: int) -> t.NoReturn:
    """Hold nothing that keeps the connection open, and never come back into the module."""
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(null, descriptor)
        # Not up to the limit of open files, which can be a billion.
        for descriptor in [int(name) for name in os.listdir("/proc/self/fd")]:
            if descriptor > 2 and descriptor != send:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        # A crash must not leave a file on the node.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with os.fdopen(send, "wb", buffering=0) as pipe:

            def tell(**facts: t.Any) -> None:
                pipe.write(json.dumps(facts).encode() + b"\n")

            try:
                ask_nvml(tell)
            except Exception as exc:
                tell(outcome="crashed", error=f"gpu_probe failed in its NVML half: {type(exc).__name__}: {exc}")
    finally:
        os._exit(0)
