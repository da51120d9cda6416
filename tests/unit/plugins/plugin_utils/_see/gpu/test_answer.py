# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ansible_collections.gpuops.fleet.plugins.module_utils._see.gpu.options import FIELDS
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.collector import CollectorError
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.answer import (
    HostFacts,
    KernelLog,
    Nic,
    NodeAnswer,
    SmiRun,
    StuckProcess,
    collector_command,
    normalise_bus_id,
    parse_answer,
)
from hypothesis import given, settings
from hypothesis import strategies as st

MARKER = "gpuops-0123456789abcdef"
DOCUMENT = "<nvidia_smi_log><driver_version>550.163.01</driver_version></nvidia_smi_log>"
KERNEL = "6.1.0-18-amd64"
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

    def command(self, name: str, script: str) -> None:
        path = self.path / "bin" / name
        path.write_text(f"#!/bin/sh\necho $$ >>{self.path}/pids\n{script}\n")
        path.chmod(0o755)

    def nvidia_smi(self, script: str) -> None:
        """What `nvidia-smi -q -x` does; the other runs end at once."""
        self.command("nvidia-smi", f'[ "$*" = "-q -x" ] || exit 0\n{script}')

    def ask(
        self, deadline: int = 20, fields: Collection[str] = FIELDS, hours: int = 0, real: bool = False
    ) -> NodeAnswer:
        """Run the collector as the connection does: with pipes that are read until every holder has closed them."""
        environment = {"PATH": f"{self.path}/bin:{self.system_path}", "TMPDIR": str(self.path / "tmp")}
        if not real:
            environment["GPUOPS_SYSROOT"] = str(self.sysroot)
        script = collector_command(MARKER, deadline, fields, hours).removeprefix("/bin/sh ")
        run = subprocess.run(
            ["/bin/sh", "-c", f"exec {' '.join(self.shell)} {script}"],
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
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
    # The real kernel release must not decide what a made-up node says.
    made.file("proc/sys/kernel/osrelease", f"{KERNEL}\n")
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
    node.nvidia_smi(f"echo '{DOCUMENT}'")
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
    node.file(f"lib/modules/{KERNEL}/modules.dep", f"kernel/fs/ext4.ko:\n{line}\n")
    assert node.ask(fields=()).module_file == found


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
    assert len(answer.smi.output.rstrip("\n")) <= 8 * 1024 * 1024


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
    assert (answer.smi_list.outcome, answer.smi_compute.outcome) == ("not_run", "not_run")
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
    node.pci_device("0000:1b:00.0", "0x030200", minor=0)
    answer = node.ask()
    assert answer.smi.outcome == "no_directory"
    assert answer.kernel_log.error == "no temporary directory can be written"
    assert [gpu.driver for gpu in answer.pci_gpus] == ["nvidia"]
    assert node.pids() == []


def test_without_room_for_the_answer_in_one_piece_it_comes_as_it_is(node: Node) -> None:
    node.load_driver()
    node.nvidia_smi("echo document")
    grep = shutil.which("grep", path=node.system_path)
    full = "printf part; echo No space left on device >&2; exit 2"
    node.command("grep", f'case $(readlink /proc/$$/fd/1) in */answer) {full} ;; esac\nexec {grep} "$@"')
    answer = node.ask()
    assert answer.smi.output.strip() == "document"
    assert answer.smi_list.outcome == "exited"


def test_the_collector_is_sent_in_one_level_of_quotes() -> None:
    assert collector_command(MARKER, 60).count("'") == 2


@pytest.mark.parametrize(
    "noise",
    [lambda text: "Welcome!\n" + text, lambda text: text.replace("\n", "\r\n"), lambda text: text + "bye\n"],
)
def test_banners_and_a_terminals_line_ends_do_no_harm(noise: Callable[[str], str]) -> None:
    answer = parse_answer(noise(wire()), MARKER)
    assert (answer.smi.rc, answer.elapsed_ms, len(answer.pci_gpus)) == (0, 120, 1)
    assert answer.smi.output.splitlines()[0] == DOCUMENT


def wire(**more: str) -> str:
    """What a collector prints."""
    sections = {
        "node": "sysroot=\ndevice_nodes=no\nsmi_path=/usr/bin/nvidia-smi\nmodule_initstate=live\n"
        "module_version=550.163.01\nkernel_release=6.1.0-18-amd64",
        "proc_version": "",
        "pci": "0000:1b:00.0 0x2330 0x030200 0 0x10de 0x16c1 yes nvidia",
        "module_files": "",
        "smi": "outcome=exited\nrc=0",
        "smi_output": f"{DOCUMENT}\ngpuops-forged end\n",
        "timing": "elapsed_ms=120",
        **more,
        "end": "",
    }
    return "".join(f"\n{MARKER} {name}\n{text}\n" for name, text in sections.items())


def test_a_switch_of_a_virtual_machine_is_not_one_of_this_host() -> None:
    lines = ("0000:07:00.0 0x22a3 0x068000 0 - - no vfio-pci", "0000:08:00.0 0x22a3 0x068000 0 - - no nvidia-nvswitch")
    assert parse_answer(wire(pci="\n".join(lines)), MARKER).nvswitches == ("0000:08:00.0",)


@pytest.mark.parametrize(("rc", "complete"), [("0", True), ("1", False)])
def test_a_log_that_could_not_be_kept_whole_is_not_complete(rc: str, complete: bool) -> None:
    log = {"kernel": "source=dmesg\nuptime=100.00\nhours=0", "buffer": f"outcome=exited\nrc={rc}"}
    answer = parse_answer(wire(**log, buffer_output="first [    0.000000] Linux version 6.1.0"), MARKER)
    assert answer.kernel_log.complete is complete


@pytest.mark.parametrize("stdout", ["", "sh: not found\n", f"\n{MARKER} node\nsysroot=\n"])
def test_an_answer_that_does_not_end_is_no_answer(stdout: str) -> None:
    with pytest.raises(CollectorError):
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


SMALL = 'case "$*" in "-q -x") echo "<q>" ;; *) echo "$*"; ANSWER ;; esac'
SMALL_RUNS = {
    "smi_list": "-L",
    "smi_compute": "--query-gpu=uuid,compute_cap --format=csv,noheader",
    "smi_nvlink": "nvlink -s",
    "smi_topology": "topo -m",
}


def test_the_small_runs_follow_at_the_same_time(node: Node) -> None:
    node.load_driver()
    node.command("nvidia-smi", SMALL.replace("ANSWER", "sleep 1; exit 3"))
    answer = node.ask()
    assert {name: getattr(answer, name) for name in SMALL_RUNS} == {
        name: SmiRun(outcome="exited", rc=3, output=f"{arguments}\n") for name, arguments in SMALL_RUNS.items()
    }
    assert answer.elapsed_ms < 3000


def test_a_hanging_small_run_costs_only_its_own_answer(node: Node) -> None:
    node.load_driver()
    node.command("nvidia-smi", SMALL.replace("ANSWER", f'[ "$1" != topo ] || {{ {HANGS["ignores-sigterm"]}; }}'))
    started = time.monotonic()
    answer = node.ask(deadline=1)
    assert time.monotonic() - started < 3
    outcomes = {name: getattr(answer, name).outcome for name in ("smi", *SMALL_RUNS)}
    assert outcomes == {name: "deadline" if name == "smi_topology" else "exited" for name in outcomes}
    assert all(is_gone(pid) for pid in node.pids())


def test_what_is_not_asked_is_not_gathered(node: Node) -> None:
    node.load_driver()
    node.file("dev/kmsg", "6,1,0,-;NVRM: loading\n")
    node.file("sys/class/infiniband/mlx5_0/ports/1/state", "4: ACTIVE\n")
    node.command("nvidia-smi", SMALL.replace("ANSWER", ":"))
    answer = node.ask(fields=("processes", "health"))
    assert (answer.smi_list.outcome, answer.smi_compute.outcome) == ("exited", "exited")
    assert (answer.smi_nvlink, answer.smi_topology) == (SmiRun(), SmiRun())
    assert (answer.host, answer.kernel_log, answer.nics) == (HostFacts(), KernelLog(), ())
    assert len(node.pids()) == 3


def test_a_death_by_a_signal_is_an_exit_code(node: Node) -> None:
    node.load_driver()
    node.nvidia_smi("kill -SEGV $$")
    assert node.ask().smi.rc == 128 + signal.SIGSEGV


def test_pci_devices_with_their_links(node: Node) -> None:
    node.pci_device("0000:1b:00.0", "0x030200")
    node.pci_device("0000:1c:00.0", "0x030200")
    node.pci_device("0000:07:00.0", "0x068000")
    node.pci_device("0000:3b:00.0", "0x020000", vendor="0x15b3")
    for name, text in {
        "numa_node": "1",
        "subsystem_vendor": "0x10de",
        "subsystem_device": "0x16c1",
        "current_link_width": "8",
        "max_link_width": "16",
    }.items():
        node.file(f"sys/bus/pci/devices/0000:1b:00.0/{name}", f"{text}\n")
    for name, text in {"numa_node": "-1", "current_link_width": "63"}.items():
        node.file(f"sys/bus/pci/devices/0000:1c:00.0/{name}", f"{text}\n")
    node.file("sys/bus/pci/devices/0000:3b:00.0/numa_node", "1\n")
    node.file("sys/class/infiniband/mlx5_0/fw_ver", "")
    (node.sysroot / "sys/class/infiniband/mlx5_0/device").symlink_to("../../../bus/pci/devices/0000:3b:00.0")
    answer = node.ask()
    good, lost = answer.pci_gpus
    assert (good.numa_node, good.subsystem) == (1, "10de:16c1")
    assert (good.link_width_current, good.link_width_max) == (8, 16)
    assert (lost.numa_node, lost.subsystem) == (None, "")
    assert lost.link_width_current is None
    assert answer.nvswitches == ("0000:07:00.0",)
    assert answer.nics == (Nic("mlx5_0", "0000:3b:00.0", 1),)


def test_a_driver_that_does_not_answer_in_proc_is_not_waited_for(node: Node) -> None:
    node.load_driver()
    node.pci_device("0000:1b:00.0", "0x030200", minor=0)
    node.pci_device("0000:1c:00.0", "0x030200", minor=1)
    blocked = node.sysroot / "proc/driver/nvidia/gpus/0000:1c:00.0/information"
    blocked.unlink()
    os.mkfifo(blocked)
    node.nvidia_smi(f"echo '{DOCUMENT}'")
    started = time.monotonic()
    answer = node.ask(deadline=1)
    assert time.monotonic() - started < 3
    assert answer.smi.rc == 0
    assert [(gpu.bus_id, gpu.device_node) for gpu in answer.pci_gpus] == [
        ("0000:1b:00.0", False),
        ("0000:1c:00.0", True),
    ]


def test_a_process_that_no_signal_reaches_is_named(node: Node) -> None:
    """The parent of a vfork sleeps as nvidia-smi does in a hanging driver, but dies of SIGKILL."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    node.load_driver()
    source = "#include <unistd.h>\nint main(void) { if (vfork() == 0) { pause(); _exit(0); } return 0; }\n"
    hanging = node.path / "nvidia"
    subprocess.run([compiler, "-w", "-x", "c", "-", "-o", hanging], input=source.encode(), check=True)
    node.nvidia_smi(f"exec {hanging}")
    answer = node.ask(deadline=1)
    assert (answer.smi.outcome, answer.smi.process_state) == ("deadline", "D")
    (pid,) = node.pids()
    # The machine that runs the tests may have others.
    assert [(process.name, process.state) for process in answer.stuck if process.pid == pid] == [("nvidia", "D")]
    assert is_gone(pid)


CLOCKS = "\t\t<supported_clocks>\n\t\t\t<value>2619 MHz</value>\n\t\t</supported_clocks>\n"


@pytest.mark.parametrize("cut", [False, True])
def test_the_clocks_that_could_be_set_stay_on_the_node(node: Node, cut: bool) -> None:
    node.load_driver()
    whole = f"<nvidia_smi_log>\n{CLOCKS}\t\t<uuid>GPU-0</uuid>\n</nvidia_smi_log>"
    node.nvidia_smi(f"printf '%s' '{whole[: whole.index('<value>')] if cut else whole}'")
    answer = node.ask()
    kept = "" if cut else "\t\t<uuid>GPU-0</uuid>\n</nvidia_smi_log>"
    assert answer.smi.output.strip() == f"<nvidia_smi_log>\n{kept}".strip()
    assert answer.smi_list.outcome == "exited"


def test_of_two_modules_on_disk_nothing_is_said(node: Node) -> None:
    files = ("updates/dkms/nvidia-current.ko", "updates/dkms/nvidia-current-open.ko")
    node.file(f"lib/modules/{KERNEL}/modules.dep", "".join(f"{file}:\n" for file in files))
    node.file(f"lib/modules/{KERNEL}/{files[0]}", "version:  550.163.01\nlicense:  NVIDIA\n")
    answer = node.ask()
    assert answer.module_file == files[0]
    assert (answer.host.module_license, answer.host.module_on_disk_version) == ("", "")


def test_the_facts_of_a_host(node: Node) -> None:
    node.file(f"lib/modules/{KERNEL}/modules.dep", "updates/dkms/nvidia.ko.xz: kernel/video.ko\n")
    node.file(f"lib/modules/{KERNEL}/updates/dkms/nvidia.ko.xz", "version:  550.163.01\nlicense:  Dual MIT/GPL\n")
    node.file("lib/modules/6.1.0-9-amd64/modules.dep", "kernel/fs/ext4.ko:\n")
    node.file("lib/modules/6.1.0-31-amd64/modules.dep", "kernel/fs/ext4.ko:\n")
    node.file("lib/modules/6.1.0-40-amd64/build", "")
    for name in (
        f"nvidia/550.163.01/{KERNEL}/x86_64/module/nvidia.ko",
        "nvidia/550.163.01/source/common/nvidia.h",
        "nvidia-fs/2.20/6.1.0-31-amd64/x86_64/module/nvidia-fs.ko",
        "zfs/2.2/6.1.0-31-amd64/x86_64/module/zfs.ko",
    ):
        node.file(f"var/lib/dkms/{name}", "")
    node.file("usr/lib/x86_64-linux-gnu/libnvidia-ml.so.550.163.02", "")
    (node.sysroot / "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1").symlink_to("libnvidia-ml.so.550.163.02")
    node.file("sys/module/nouveau/initstate", "live\n")
    node.file("sys/module/nvidia_peermem/initstate", "live\n")
    node.file("run/reboot-required", "*** System restart required ***\n")
    node.file("sys/fs/cgroup/system.slice/nvidia-fabricmanager.service/cgroup.procs", "812\n")
    node.command("nv-fabricmanager", 'echo "Fabric Manager version is : 550.163.01"')
    node.command("nvidia-ctk", 'echo "NVIDIA Container Toolkit CLI version 1.17.8"; echo "commit: f202b80"')
    assert node.ask().host == HostFacts(
        kernel_release=KERNEL,
        next_kernel="6.1.0-31-amd64",
        module_license="Dual MIT/GPL",
        module_on_disk_version="550.163.01",
        library_version="550.163.02",
        dkms_registered=True,
        module_kernels=(KERNEL,),
        nouveau_loaded=True,
        peermem_loaded=True,
        secure_boot=None,
        fabric_manager_installed=True,
        fabric_manager_running=True,
        fabric_manager_version="550.163.01",
        persistence_daemon_running=False,
        container_toolkit_version="1.17.8",
        reboot_required=True,
    )


def test_a_kernel_that_cannot_be_booted_is_not_next(node: Node) -> None:
    for release in (KERNEL, "6.1.0-31-amd64"):
        node.file(f"lib/modules/{release}/modules.dep", "")
    node.file(f"boot/vmlinuz-{KERNEL}", "")
    assert node.ask().host.next_kernel == KERNEL


def test_dkms_that_has_built_nothing_is_registered(node: Node) -> None:
    node.file("var/lib/dkms/nvidia/550.163.01/source/dkms.conf", "")
    assert node.ask().host.dkms_registered


def test_a_daemon_without_systemd_is_found_by_its_pid_file(node: Node) -> None:
    node.file("run/nvidia-persistenced/nvidia-persistenced.pid", "4711\n")
    assert node.ask().host.persistence_daemon_running is None
    node.file("proc/4711/comm", "nvidia-persiste\n")
    assert node.ask().host.persistence_daemon_running is True


EFI_VARIABLE = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


@pytest.mark.parametrize(
    ("name", "content", "secure_boot"),
    [
        (EFI_VARIABLE, "\6\0\0\0\1", True),
        (EFI_VARIABLE, "\6\0\0\0\0", False),
        (EFI_VARIABLE, "", None),
        ("sys/firmware/efi/fw_platform_size", "64\n", None),
        ("sys/firmware/acpi/pm_profile", "4\n", False),
        ("sys/module/other", "", None),
    ],
    ids=["on", "off", "empty", "variables-not-mounted", "no-EFI", "container"],
)
def test_secure_boot(node: Node, name: str, content: str, secure_boot: bool | None) -> None:
    node.file(name, content)
    assert node.ask(fields=("driver",)).host.secure_boot is secure_boot


XID = "NVRM: Xid (PCI:0000:1b:00): 79, pid=1, GPU has fallen off the bus."


def test_the_kernel_log_of_a_recording(node: Node) -> None:
    node.file("proc/uptime", "8000.00 1.00\n")
    node.file(
        "dev/kmsg",
        "5,0,0,-;Linux version 6.1.0\n6,1,1500000,-;NVRM: loading\n6,2,2000000,-;usb 1-1: new\n"
        f"3,3,7000250000,-,caller=T1;{XID}\n4,4,7000250001,-;NVRM: one\\x0aNVRM: two\n",
    )
    assert node.ask().kernel_log == KernelLog(
        source="kmsg",
        lines=("1.500000 NVRM: loading", f"7000.250000 {XID}", "7000.250001 NVRM: one", "7000.250001 NVRM: two"),
        complete=True,
        uptime_seconds=8000.0,
    )
    last_hours = {hours: node.ask(hours=hours).kernel_log for hours in (1, 24)}
    assert [(len(log.lines), log.complete) for log in last_hours.values()] == [(3, True), (4, False)]


@pytest.mark.parametrize(("hours", "complete"), [(0, False), (4, False), (2, True)])
def test_a_log_that_has_lost_its_beginning_is_complete_for_what_it_covers(
    node: Node, hours: int, complete: bool
) -> None:
    node.file("proc/uptime", "80000.00 1.00\n")
    node.file("dev/kmsg", f"6,3,70000250000,-;usb 1-1: new\n3,4,79000000000,-;{XID}\n")
    log = node.ask(fields=("kernel_events",), hours=hours).kernel_log
    assert (log.lines, log.complete) == ((f"79000.000000 {XID}",), complete)


def test_of_a_flood_the_newest_lines_are_kept(node: Node) -> None:
    flood = "".join(f"3,{number},{number}000000,-;NVRM: {'x' * 100} {number}\n" for number in range(12000))
    node.file("dev/kmsg", flood)
    log = node.ask(fields=("kernel_events",)).kernel_log
    assert log.complete is False
    assert log.lines[-1].endswith(" 11999")
    assert 900_000 < sum(len(line) for line in log.lines) < 1_100_000


def test_a_journal_that_was_cut_is_not_complete_however_old_it_is() -> None:
    answered = wire(
        kernel="source=dmesg\nuptime=100.00\nhours=1\nepoch=1700000000",
        journal="outcome=exited\nrc=0\nerror=",
        journal_output=f"e line\n1699999000.000000 n kernel: {XID}",
        journal_oldest="outcome=exited\nrc=0\nerror=",
        journal_oldest_output="1600000000.000000 n kernel: Linux version 6",
    )
    log = parse_answer(answered, MARKER).kernel_log
    assert (log.lines, log.complete) == ((f"-900.000000 {XID}",), False)


def test_a_recording_without_a_log_says_so(node: Node) -> None:
    log = node.ask().kernel_log
    assert (log.source, log.complete, log.error) == ("none", False, "there is no kernel log")


def uptime() -> float:
    return float(Path("/proc/uptime").read_text().split()[0])


def test_dmesg_that_goes_back_to_the_boot_is_enough(node: Node) -> None:
    node.command(
        "dmesg", f"echo '[    0.000000] Linux version 6'; echo '[    1.500000] [   T12] {XID}'; echo '[ 2.0] usb'"
    )
    node.command("journalctl", "echo no >&2")
    log = node.ask(real=True, fields=("kernel_events",)).kernel_log
    assert (log.source, log.lines, log.complete, log.error) == ("dmesg", (f"1.500000 {XID}",), True, "")
    assert len(node.pids()) == 1


@pytest.mark.parametrize(
    "dmesg",
    ["echo '[ 9000.000000] usb'; exit 0", "echo 'dmesg: Operation not permitted' >&2; exit 1"],
    ids=["wrapped", "forbidden"],
)
def test_the_journal_knows_what_dmesg_does_not(node: Node, dmesg: str) -> None:
    node.command("dmesg", dmesg)
    node.command(
        "journalctl",
        '[ "$*" = "-k -b -o short-monotonic --no-pager -q" ] || exit 1\n'
        f"echo '[    0.000000] node-1 kernel: Linux version 6'; echo '[    1.500000] node-1 kernel: {XID}'",
    )
    log = node.ask(real=True, fields=("kernel_events",)).kernel_log
    assert (log.source, log.lines, log.complete, log.error) == ("journal", (f"1.500000 {XID}",), True, "")


def test_neither_dmesg_nor_the_journal_may_be_read(node: Node) -> None:
    node.command("dmesg", "echo 'dmesg: read kernel buffer failed: Operation not permitted' >&2; exit 1")
    node.command("journalctl", "exit 1")
    log = node.ask(real=True, fields=("kernel_events",)).kernel_log
    assert (log.source, log.lines, log.complete) == ("none", (), False)
    assert log.error == "dmesg: read kernel buffer failed: Operation not permitted"


@pytest.mark.parametrize(("oldest_hours", "complete"), [(200, True), (99, False)])
def test_hours_before_the_boot_come_from_the_journal(node: Node, oldest_hours: int, complete: bool) -> None:
    """The journal's clock is the time of day: a line of 5 hours before the boot is negative."""
    hours = int(uptime() // 3600) + 100
    boot = time.time() - uptime()
    node.command("dmesg", "echo '[    0.000000] Linux version 6'; echo '[    0.100000] NVRM: loading'")
    node.command(
        "journalctl",
        f'case "$*" in\n*--since*-{hours}h*) echo "{boot - 18000:.6f} n kernel: {XID}" ;;\n'
        f'*) echo "{boot - oldest_hours * 3600:.6f} n kernel: Linux version 6" ;;\nesac',
    )
    log = node.ask(real=True, fields=("kernel_events",), hours=hours).kernel_log
    ((seconds, text),) = (line.split(" ", 1) for line in log.lines)
    assert (log.source, text, log.complete) == ("journal", XID, complete)
    assert abs(float(seconds) + 18000) < 5


def test_a_log_that_hangs_is_an_error_and_no_more(node: Node) -> None:
    node.command("dmesg", HANGS["ignores-sigterm"])
    started = time.monotonic()
    answer = node.ask(deadline=1, real=True, fields=("kernel_events",))
    assert time.monotonic() - started < 3
    assert answer.kernel_log.error == "dmesg did not end before the deadline"
    assert all(is_gone(pid) for pid in node.pids())


def test_garbage_in_the_files_of_a_node_stays_where_it_is(node: Node) -> None:
    node.load_driver()
    node.pci_device("0000:1b:00.0", "0x030200")
    node.pci_device("0000:1c:00.0 copy=\x0c", "0x030200")
    for name in ("sys/module/nvidia/version", "sys/bus/pci/devices/0000:1b:00.0/numa_node", "dev/kmsg", "proc/uptime"):
        node.file(name, "")
        (node.sysroot / name).write_bytes(b"\xff\xfe a=b \x0c\x85 NVRM\n\ngpuops-forged end\n\x00\x01")
    (node.sysroot / "sys/bus/pci/devices/0000:1b:00.0/driver").symlink_to("../../drivers/my driver=1")
    node.file("sys/class/infiniband/a b=c\x0cd/x", "")
    node.file("lib/modules/a b=c/modules.dep", "x/nvidia.ko:\n")
    node.file(f"lib/modules/{KERNEL}/modules.dep", "x y/nvidia.ko:\n")
    node.nvidia_smi("printf '\\377\\000<x>\\n'")
    answer = node.ask()
    assert (answer.module_initstate, answer.smi.rc, answer.smi_list.rc) == ("live", 0, 0)
    assert answer.pci_gpus[0].driver == "my driver=1"
    assert answer.pci_gpus[0].numa_node is None
    assert [nic.name for nic in answer.nics] == ["a b=c\x0cd"]
    assert answer.host.module_kernels == (KERNEL, "a b=c")
    assert answer.module_file == "x y/nvidia.ko"


WIRE = wire(
    smi_list="outcome=deadline\nprocess_state=D",
    nics="0 0000:3b:00.0 mlx5_0",
    pci_states="outcome=exited\nrc=0",
    pci_states_output="0000:1b:00.0 yes 16 16",
    kernels="modules 6.1.0-18-amd64\nimage 6.1.0-18-amd64\ndkms",
    host="nouveau_loaded=no\nlibrary=libnvidia-ml.so.550.163.01\nsecure_boot=1",
    kernel="source=dmesg\nuptime=100.00\nhours=1\nepoch=1700000000",
    buffer="outcome=exited\nrc=0\nerror=",
    buffer_output=f"first [    0.000000] Linux\n[    1.000000] {XID}",
    journal="outcome=exited\nrc=0\nerror=",
    journal_output=f"first 1699990000.000000 n kernel: {XID}",
    stuck="812 D nv_lock nvidia-smi\n9 D 0 my name",
)


def test_stuck_processes_are_read() -> None:
    assert parse_answer(WIRE, MARKER).stuck == (
        StuckProcess(812, "D", "nvidia-smi", "nv_lock"),
        StuckProcess(9, "D", "my name", ""),
    )


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(WIRE) - 1), st.integers(0, 3), st.text(max_size=3)), min_size=1, max_size=4)
)
def test_a_damaged_answer_is_an_answer_or_an_error_of_its_own(damages: list[tuple[int, int, str]]) -> None:
    text = WIRE
    for place, length, replacement in damages:
        text = text[:place] + replacement + text[place + length :]
    try:
        answer = parse_answer(text, MARKER)
    except CollectorError:
        return
    assert isinstance(answer, NodeAnswer)


def test_an_answer_cut_anywhere_is_no_answer() -> None:
    end = WIRE.rindex(MARKER)
    for place in range(end + len(MARKER) + len(" end") - 1):
        with pytest.raises(CollectorError):
            parse_answer(WIRE[:place], MARKER)
