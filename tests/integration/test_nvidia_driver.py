# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role nvidia_driver installs, reboots and sets up the daemon of a node with a GPU on PCI, only when asked to.

Packages, apt, dpkg and systemd are real. The packages hold next to nothing and come from a source on the node, and a
reboot is a program that writes a new boot id and loads the simulated driver.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from podman import podman

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("nvidia-driver")]

REPOSITORY = Path(__file__).resolve().parents[2]
LAB = REPOSITORY / "tests" / "lab" / "lab.py"
PREPARE = r"""
rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/* /var/lib/apt/lists/*
mkdir /srv/apt
package() {  # NAME VERSION DEPENDS, and its files below /srv/NAME
    mkdir -p "/srv/$1/DEBIAN"
    {
        printf 'Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: lab\nDescription: lab\n' "$1" "$2"
        [ -z "$3" ] || echo "Depends: $3"
    } > "/srv/$1/DEBIAN/control"
    dpkg-deb --build --root-owner-group "/srv/$1" "/srv/apt/$1_$2.deb" > /dev/null
}
install -D /usr/local/bin/nvidia-smi /srv/nvidia-driver/usr/bin/nvidia-smi
rm /usr/local/bin/nvidia-smi
install -D /bin/sleep /srv/nvidia-persistenced/usr/bin/nvidia-persistenced
install -d /srv/nvidia-persistenced/lib/systemd/system
printf '%s\n' '[Service]' 'ExecStart=/usr/bin/nvidia-persistenced infinity' 'StandardInput=file:/dev/nvidia0' \
    '[Install]' 'WantedBy=multi-user.target' > /srv/nvidia-persistenced/lib/systemd/system/nvidia-persistenced.service
package nvidia-kernel-dkms 470.1 ''
package nvidia-driver 470.1 nvidia-kernel-dkms
package nvidia-persistenced 470.1 ''
package "linux-headers-$(uname -r)" 1 ''
cat > /srv/index <<'END'
cd /srv/apt
for file in *.deb; do
    dpkg-deb --field "$file"
    sum=$(sha256sum "$file")
    printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$file" "$(stat -c %s "$file")" "${sum%% *}"
done > Packages
END
sh /srv/index
touch /dev/nvidia0
cat > /usr/local/bin/cat <<'END'
#!/bin/sh
[ "$*" != /proc/sys/kernel/random/boot_id ] || exec /bin/cat /etc/gpuops-lab/boot_id
exec /bin/cat "$@"
END
rm /sbin/shutdown
cat > /sbin/shutdown <<'END'
#!/bin/sh
cp /proc/sys/kernel/random/uuid /etc/gpuops-lab/boot_id
tree "$(cat /etc/gpuops-lab/after-boot)"
END
cat > /usr/local/bin/tree <<'END'
#!/bin/sh
exec python3 /opt/gpuops-lab/simulator/sysroot.py --machine t4x1-470 --dest /opt/gpuops-lab/sysroot --fault "$1"
END
chmod 755 /usr/local/bin/cat /usr/local/bin/tree /sbin/shutdown
cp /proc/sys/kernel/random/uuid /etc/gpuops-lab/boot_id
"""
# A machine as it is before somebody thinks of a driver.
BARE = r"""
systemctl unmask nvidia-persistenced 2> /dev/null
dpkg --purge nvidia-driver nvidia-kernel-dkms nvidia-persistenced "linux-headers-$(uname -r)" > /dev/null 2>&1
rm -f /srv/apt/nvidia-driver_9*
sh /srv/index
echo 'deb [trusted=yes] file:/srv/apt ./' > /etc/apt/sources.list
apt-get -qq update
tree not_installed
: > /etc/gpuops-lab/after-boot
"""
INSTALLED = "dpkg-query --show --showformat '${Package} ${db:Status-Status} ${Version}\n' 'nvidia*' 'linux-headers*'"


@dataclass(frozen=True)
class Machine:
    """A machine with a GPU on PCI and no driver, that a play is run on."""

    folder: Path
    container: str

    def sh(self, script: str) -> str:
        return podman("exec", self.container, "sh", "-c", script)

    def packages(self) -> dict[str, str]:
        listed = [line.split() for line in self.sh(f"{INSTALLED} 2> /dev/null || true").splitlines()]
        return {name: version for name, status, version in listed if status == "installed"}

    def boot(self) -> str:
        return self.sh("cat /etc/gpuops-lab/boot_id")

    def play(self, *arguments: str, entry: str = "main", **variables: Any) -> tuple[int, str]:
        """Run the role; the exit code, and what was said with each run of white space as one blank."""
        play = {
            "hosts": "gpu",
            "gather_facts": False,
            "tasks": [{"import_role": {"name": "gpuops.fleet.nvidia_driver", "tasks_from": entry}}],
        }
        (self.folder / "play.yml").write_text(json.dumps([play]))
        done = subprocess.run(
            [
                "ansible-playbook", "-i", str(self.folder / "nodes.json"), "-e", json.dumps(variables), *arguments,
                str(self.folder / "play.yml"),
            ],
            cwd=REPOSITORY,
            env={
                **{key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")},
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
                "ANSIBLE_NOCOLOR": "1",
            },
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            timeout=120,
        )  # fmt: skip
        assert "Traceback" not in done.stdout, done.stdout
        return done.returncode, " ".join(done.stdout.split())


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("nvidia-driver")
    lab = [sys.executable, str(LAB), "--dir", str(folder)]
    try:
        subprocess.run([*lab, "up", "gpu-1=deb12:t4x1-470~ubuntu"], check=True)
        host = json.loads((folder / "inventory" / "nodes.yml").read_text())["gpu"]["hosts"]["gpu-1"]
        mine = {
            **{key: host[key] for key in ("ansible_host", "ansible_port", "ansible_user")},
            "ansible_become": True,
            "ansible_ssh_private_key_file": str(folder / "home" / ".ssh" / "id_ed25519"),
            "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR",
        }
        (folder / "nodes.json").write_text(json.dumps({"gpu": {"hosts": {"gpu-1": mine}}}))
        machine = Machine(folder, host["lab_container"])
        machine.sh(f"set -e\n{PREPARE}")
        yield machine
    finally:
        subprocess.run([*lab, "down"], check=True)


@pytest.fixture
def machine(prepared: Machine) -> Machine:
    prepared.sh(BARE)
    return prepared


def test_check_mode_shows_the_plan_and_changes_nothing(machine: Machine) -> None:
    rc, text = machine.play("--check", nvidia_driver_install=True)
    assert rc == 0, text
    headers = f"linux-headers-{machine.sh('uname -r').strip()}"
    for line in ("nvidia-driver 470.1", "nvidia-kernel-dkms 470.1", f"{headers} 1"):
        assert f"- {line} " in text, text
    assert "changed=1 " in text
    assert machine.packages() == {}


@pytest.mark.parametrize("entry", ["main", "look"])
def test_nothing_is_installed_unasked(machine: Machine, entry: str) -> None:
    rc, text = machine.play(entry=entry, nvidia_driver_install=entry == "look", nvidia_driver_reboot=entry == "look")
    assert rc == 2
    assert "gpu-1: driver_missing: 1 NVIDIA GPU on PCI and no NVIDIA driver. Next: " in text
    assert machine.packages() == {}


def test_installs_once_and_reboots_only_without_work_on_the_gpu(machine: Machine) -> None:
    boot = machine.boot()
    machine.sh("sleep 600 < /dev/nvidia0 > /dev/null 2>&1 & echo $! > /run/work")
    pid = machine.sh("cat /run/work").strip()
    try:
        rc, text = machine.play(nvidia_driver_install=True, nvidia_driver_reboot=True)
    finally:
        machine.sh(f"kill {pid}")
    assert rc == 2
    assert f"GPUs are in use by sleep (pid {pid}). Next: drain the node" in text
    assert machine.boot() == boot
    assert machine.packages().keys() == {
        "nvidia-driver", "nvidia-kernel-dkms", f"linux-headers-{machine.sh('uname -r').strip()}",
    }  # fmt: skip
    # What is on the disk now is not touched any more.
    rc, text = machine.play(nvidia_driver_install=True)
    assert rc == 2
    assert "gpu-1: driver_not_loaded: /usr/bin/nvidia-smi is installed" in text
    assert "changed=0 " in text


def test_new_driver_works_after_the_reboot_and_is_never_upgraded(machine: Machine) -> None:
    # It has the GPU open, and is no work.
    machine.sh("apt-get -qq install nvidia-persistenced; systemctl start nvidia-persistenced")
    boot = machine.boot()
    rc, text = machine.play(nvidia_driver_install=True, nvidia_driver_reboot=True, nvidia_driver_expect={"count": 1})
    assert rc == 0, text
    assert machine.boot() != boot
    before = machine.packages()
    machine.sh(
        "set -e; cd /srv; sed -i 's/^Version: .*/Version: 999/' nvidia-driver/DEBIAN/control;"
        " dpkg-deb --build nvidia-driver apt/nvidia-driver_999.deb; sed -i 's/^Version: .*/Version: 470.1/'"
        " nvidia-driver/DEBIAN/control; sh index; apt-get -qq update"
    )
    assert "999" in machine.sh("apt-cache policy nvidia-driver")
    boot = machine.boot()
    rc, text = machine.play(nvidia_driver_install=True, nvidia_driver_reboot=True)
    assert rc == 0, text
    assert "changed=0 " in text
    assert machine.packages() == before
    assert machine.boot() == boot


def test_reboot_that_does_not_help_is_said_once(machine: Machine) -> None:
    machine.sh("echo no_driver > /etc/gpuops-lab/after-boot")
    rc, text = machine.play(nvidia_driver_install=True, nvidia_driver_reboot=True)
    assert rc == 2
    assert "gpu-1: after a reboot it still needs one: the driver is new" in text
    assert "Next: ssh gpu-1 'dkms status; modprobe -v nvidia; dmesg | grep -i nvrm'" in text
    assert len(re.findall(r"\[ERROR\]", text)) == 1


@pytest.mark.parametrize(("next_kernel", "reboots"), [(True, True), (False, False)])
def test_reboot_never_starts_a_kernel_without_a_module(machine: Machine, next_kernel: bool, reboots: bool) -> None:
    machine.sh("tree ''")
    boot = machine.boot()
    driver = {
        "kernel_module_version": "470.1",
        "module_on_disk_version": "470.2",
        "user_space_version": "470.2",
        "dkms": {"next_kernel": next_kernel, "next_kernel_release": "7.0.0-lab"},
    }
    probe = {"state": "driver_library_mismatch", "summary": "", "driver": driver, "gpus": [], "health": []}
    _rc, text = machine.play(entry="reboot", nvidia_driver_probe=probe)
    assert (machine.boot() != boot) == reboots
    refusal = (
        "gpu-1: a reboot is needed (driver 470.1 is loaded, 470.2 is installed) and was not done, since it would start"
        " kernel 7.0.0-lab, which has no NVIDIA module. Next: ssh gpu-1 'apt-get install linux-headers-7.0.0-lab; "
    )
    assert (refusal in text) != reboots


def test_missing_source_of_packages_is_named(machine: Machine) -> None:
    machine.sh("rm -rf /etc/apt/sources.list /var/lib/apt/lists/*")
    rc, text = machine.play(nvidia_driver_install=True)
    assert rc == 2
    assert "gpu-1: no driver was installed: No package matching 'nvidia-driver' is available. Next: ssh gpu-1 " in text
    assert "(Debian has it in the component non-free, which has to be in the sources below /etc/apt)" in text


def test_persistence_daemon_runs_or_not_as_wanted(machine: Machine) -> None:
    machine.sh("tree ''; apt-get -qq install nvidia-driver")
    rc, text = machine.play(nvidia_driver_persistence_daemon=True)
    assert rc == 2
    assert "gpu-1: nvidia-persistenced is not running: Could not find the requested service" in text
    assert "Next: ssh gpu-1 'apt-get install nvidia-persistenced; systemctl status nvidia-persistenced'" in text
    # The package may start and enable it, or not.
    machine.sh("apt-get -qq install nvidia-persistenced; systemctl disable --now nvidia-persistenced 2> /dev/null")
    for wanted, active, enabled in ((True, "active", "enabled"), (False, "inactive", "masked")):
        for changed in ("changed=1 ", "changed=0 "):
            rc, text = machine.play(nvidia_driver_persistence_daemon=wanted)
            assert rc == 0, text
            assert changed in text
        assert machine.sh("systemctl is-active nvidia-persistenced || true").strip() == active
        assert machine.sh("systemctl is-enabled nvidia-persistenced || true").strip() == enabled
