# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ansible_collections.gpuops.fleet.plugins.plugin_utils._gpu_answer import (
    GpuAnswerError,
    NodeAnswer,
    collector_command,
    normalise_bus_id,
    parse_answer,
)

MARKER = "gpuops-0123456789abcdef"
DOCUMENT = "<nvidia_smi_log><driver_version>550.163.01</driver_version></nvidia_smi_log>"
SHELLS = ["dash", "bash", "busybox"]


@dataclass(frozen=True)
class Node:
    """A directory that stands for a node: sysroot, a directory of fake commands, a directory for temporary files."""

    path: Path
    shell: tuple[str, ...]
    system_path: str

    @property
    def sysroot(self) -> Path:
        return self.path / "sysroot"

    def file(self, name: str, text: str) -> None:
        path = self.sysroot / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def load_driver(self) -> None:
        self.file("proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.163.01  Tue\n")
        self.file("sys/module/nvidia/initstate", "live\n")
        self.file("sys/module/nvidia/version", "550.163.01\n")

    def pci_device(self, bus_id: str, pci_class: str, vendor: str = "0x10de", minor: int | None = None) -> None:
        for name, text in (("vendor", vendor), ("device", "0x2330"), ("class", pci_class)):
            self.file(f"sys/bus/pci/devices/{bus_id}/{name}", text + "\n")
        if minor is not None:
            (self.sysroot / f"sys/bus/pci/devices/{bus_id}/driver").symlink_to("../../drivers/nvidia")
            information = f"Model: \t\t NVIDIA L40S\nDevice Minor: \t {minor}\nGPU Excluded:\t No\n"
            self.file(f"proc/driver/nvidia/gpus/{bus_id}/information", information)

    def nvidia_smi(self, script: str) -> None:
        path = self.path / "bin" / "nvidia-smi"
        path.write_text(f"#!/bin/sh\necho $$ >>{self.path}/pids\n{script}\n")
        path.chmod(0o755)

    def ask(self, deadline: int = 20) -> NodeAnswer:
        """Run the collector as the connection does: with pipes that are read until every holder has closed them."""
        environment = {
            "PATH": f"{self.path}/bin:{self.system_path}",
            "TMPDIR": str(self.path / "tmp"),
            "GPUOPS_SYSROOT": str(self.sysroot),
        }
        script = collector_command(MARKER, deadline).removeprefix("/bin/sh ")
        run = subprocess.run(
            ["/bin/sh", "-c", f"exec {' '.join(self.shell)} {script}"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=deadline + 5,
            check=False,
        )
        assert run.returncode == 0
        assert run.stderr == ""
        assert list((self.path / "tmp").iterdir()) == []
        return parse_answer(run.stdout, MARKER)

    def pids(self) -> list[int]:
        path = self.path / "pids"
        return [int(word) for word in path.read_text().split()] if path.exists() else []


@pytest.fixture(params=SHELLS)
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    shell, system_path = (str(request.param),), "/usr/sbin:/usr/bin:/sbin:/bin"
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    for name in ("bin", "tmp", "sysroot"):
        (tmp_path / name).mkdir()
    if request.param == "busybox":
        applets = tmp_path / "applets"
        applets.mkdir()
        for name in subprocess.run(["busybox", "--list"], capture_output=True, text=True, check=True).stdout.split():
            (applets / name).symlink_to(str(shutil.which("busybox")))
        shell, system_path = (str(applets / "sh"),), str(applets)
    made = Node(tmp_path, shell, system_path)
    yield made
    for pid in made.pids():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def is_gone(pid: int) -> bool:
    """Whether the process has ended; the one who reaps it may be slow."""
    for _attempt in range(40):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_an_empty_node(node: Node) -> None:
    answer = node.ask()
    assert (answer.driver_loaded, answer.smi_path, answer.pci_gpus, answer.smi.outcome) == (False, "", (), "not_run")
    assert answer.sysroot == str(node.sysroot)


def test_a_working_node(node: Node) -> None:
    node.load_driver()
    node.pci_device("0000:1b:00.0", "0x030200", minor=0)
    node.pci_device("0000:1c:00.0", "0x030200")
    node.pci_device("0000:1d:00.0", "0x068000")
    node.pci_device("0000:00:02.0", "0x030000", vendor="0x8086")
    node.file("dev/nvidia0", "")
    node.nvidia_smi(f"[ \"$*\" = '-q -x' ] && echo '{DOCUMENT}'")
    answer = node.ask()
    assert (answer.smi.outcome, answer.smi.rc, answer.smi.output) == ("exited", 0, DOCUMENT + "\n")
    assert (answer.driver_loaded, answer.module_version, answer.device_nodes) == (True, "550.163.01", True)
    assert [(gpu.bus_id, gpu.device_id, gpu.driver, gpu.in_proc, gpu.device_node) for gpu in answer.pci_gpus] == [
        ("0000:1b:00.0", "0x2330", "nvidia", True, True),
        ("0000:1c:00.0", "0x2330", "", False, False),
    ]
    assert answer.smi.left_running is False


def test_without_a_loaded_driver_nvidia_smi_is_not_run(node: Node) -> None:
    node.pci_device("0000:1b:00.0", "0x030200")
    node.nvidia_smi("true")
    answer = node.ask()
    assert (answer.smi.outcome, answer.smi_path) == ("not_run", f"{node.path}/bin/nvidia-smi")
    assert node.pids() == []


def test_on_wsl_nvidia_smi_is_run(node: Node) -> None:
    node.file("dev/dxg", "")
    node.nvidia_smi(f"echo '{DOCUMENT}'")
    assert node.ask().smi.rc == 0


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("updates/dkms/nvidia.ko.xz: kernel/drivers/acpi/video.ko", "updates/dkms/nvidia.ko.xz"),
        ("updates/dkms/nvidia-current.ko:", "updates/dkms/nvidia-current.ko"),
        ("updates/dkms/nvidia-legacy-390xx.ko:", "updates/dkms/nvidia-legacy-390xx.ko"),
        ("kernel/drivers/video/fbdev/nvidia/nvidiafb.ko.xz:", ""),
        ("kernel/drivers/platform/x86/nvidia-wmi-ec-backlight.ko:", ""),
        ("kernel/other.ko: updates/dkms/nvidia.ko", ""),
    ],
)
def test_the_kernel_module_on_disk(node: Node, line: str, found: str) -> None:
    node.file(f"lib/modules/{os.uname().release}/modules.dep", f"kernel/fs/ext4.ko:\n{line}\n")
    assert node.ask().module_file == found


def test_exit_code_and_both_streams_are_kept(node: Node) -> None:
    node.load_driver()
    node.nvidia_smi("echo to stdout; echo to stderr >&2; exit 231")
    answer = node.ask()
    assert (answer.smi.rc, answer.smi.output) == (231, "to stdout\nto stderr\n")


def test_output_is_limited(node: Node) -> None:
    node.load_driver()
    node.nvidia_smi("exec yes " + "x" * 1000)
    answer = node.ask()
    assert answer.smi.outcome == "exited"
    assert len(answer.smi.output) <= 8 * 1024 * 1024


HANGS: dict[str, str] = {
    "ignores-sigterm": "trap '' TERM HUP INT; while :; do sleep 1; done",
    "child-keeps-the-output": "sleep 60 & echo $! >>PIDS; wait",
    "stopped": "kill -STOP $$",
    "stopped-child": "sh -c 'echo $$ >>PIDS; kill -STOP $$'",
    "reads-a-terminal": "read answer </dev/tty || sleep 60",
}


@pytest.mark.parametrize("hang", HANGS)
def test_a_hang_ends_at_the_deadline_and_leaves_nothing(node: Node, hang: str) -> None:
    node.load_driver()
    node.nvidia_smi(HANGS[hang].replace("PIDS", f"{node.path}/pids"))
    started = time.monotonic()
    answer = node.ask(deadline=1)
    assert time.monotonic() - started < 3
    assert answer.smi.outcome == "deadline"
    assert answer.smi.process_state in {"S", "T", "R"}
    assert answer.elapsed_ms >= 1000
    assert node.pids()
    assert all(is_gone(pid) for pid in node.pids())


def test_a_child_that_outlives_nvidia_smi_does_not_hold_the_answer(node: Node) -> None:
    node.load_driver()
    node.nvidia_smi(f"sleep 60 & echo $! >>{node.path}/pids; exit 0")
    started = time.monotonic()
    answer = node.ask(deadline=10)
    assert time.monotonic() - started < 3
    assert (answer.smi.outcome, answer.smi.rc, answer.smi.left_running) == ("exited", 0, True)
    assert all(is_gone(pid) for pid in node.pids())


def test_without_a_directory_to_write_to_nothing_is_run(node: Node) -> None:
    node.load_driver()
    node.nvidia_smi("true")
    mktemp = node.path / "bin" / "mktemp"
    mktemp.write_text("#!/bin/sh\nexit 1\n")
    mktemp.chmod(0o755)
    assert node.ask().smi.outcome == "no_directory"
    assert node.pids() == []


def test_the_collector_is_sent_in_one_level_of_quotes() -> None:
    assert collector_command(MARKER, 60).count("'") == 2


@pytest.mark.parametrize(
    "noise", [lambda text: "Welcome!\n" + text, lambda text: text.replace("\n", "\r\n"), lambda text: text + "bye\n"]
)
def test_banners_and_a_terminals_line_ends_do_no_harm(node: Node, noise: Callable[[str], str]) -> None:
    sections = {
        "node": "sysroot=\nwsl=no\ndevice_nodes=no\nsmi_path=/usr/bin/nvidia-smi\nmodule_initstate=live\n"
        "module_version=550.163.01\nmodule_file=",
        "proc_version": "",
        "pci": "0000:1b:00.0 0x2330 0x030200 nvidia yes no",
        "smi": "outcome=exited\nrc=0",
        "smi_output": f"{DOCUMENT}\ngpuops-forged end\n",
        "timing": "elapsed_ms=120",
        "end": "",
    }
    answer = parse_answer(noise("".join(f"\n{MARKER} {name}\n{text}\n" for name, text in sections.items())), MARKER)
    assert (answer.smi.rc, answer.elapsed_ms, len(answer.pci_gpus)) == (0, 120, 1)
    assert answer.smi.output.splitlines()[0] == DOCUMENT


@pytest.mark.parametrize("stdout", ["", "sh: not found\n", f"\n{MARKER} node\nsysroot=\n"])
def test_an_answer_that_does_not_end_is_no_answer(stdout: str) -> None:
    with pytest.raises(GpuAnswerError):
        parse_answer(stdout, MARKER)


@pytest.mark.parametrize(
    ("text", "bus_id"),
    [
        ("00000000:1B:00.0", "0000:1b:00.0"),
        ("0000:1b:00.0", "0000:1b:00.0"),
        ("00010000:01:00.0", "10000:01:00.0"),
        ("N/A", "n/a"),
    ],
)
def test_bus_ids_have_one_form(text: str, bus_id: str) -> None:
    assert normalise_bus_id(text) == bus_id
