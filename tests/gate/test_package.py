# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The built collection works with nothing but meta, plugins, roles and playbooks, as Galaxy's rules want it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
KEPT = {"meta", "plugins", "roles", "playbooks", "MANIFEST.json", "FILES.json"}


def run(*command: str, cwd: Path, **env: str) -> str:
    """Run one of this virtualenv's commands and return what it printed."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, "PATH": path, **env}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection as a user of Galaxy has it."""
    folder = tmp_path_factory.mktemp("galaxy")
    # Only what git knows: a user's tarball is not built from somebody's working tree.
    source = folder / "source"
    names = run("git", "ls-files", "-co", "--exclude-standard", cwd=REPOSITORY).splitlines()
    for name in names:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, source / name, follow_symlinks=False)
    run("ansible-galaxy", "collection", "build", "--output-path", str(folder), cwd=source)
    (tarball,) = folder.glob("gpuops-fleet-*.tar.gz")
    run("ansible-galaxy", "collection", "install", "--offline", "-p", str(folder), str(tarball), cwd=folder)
    tree = folder / "ansible_collections" / "gpuops" / "fleet"
    for entry in tree.iterdir():
        if entry.name not in KEPT:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    return folder


def test_tarball_holds_no_clutter(installed: Path) -> None:
    listed = run("tar", "-tzf", str(next(installed.glob("*.tar.gz"))), cwd=installed).splitlines()
    tops = {name.split("/")[0] for name in listed}
    assert tops <= KEPT | {
        "CHANGELOG.rst", "CONTRIBUTING.md", "LICENSE", "LICENSES", "README.md", "REUSE.toml", "changelogs", "docs",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "name"),
    [("inventory", "ssh_config")]
    + [
        ("module", name)
        for name in (
            "gpu_drift",
            "gpu_probe",
            "ssh_alias",
            "ssh_doctor",
            "ssh_doctor_report",
            "ssh_doctor_verdict",
            "fleet_audit",
            "fleet_audit_report",
            "fleet_lock",
            "fleet_snapshot",
            "fleet_user_keys",
        )
    ],
)
def test_documentation_of_the_installed_collection(installed: Path, kind: str, name: str) -> None:
    paths = {"ANSIBLE_COLLECTIONS_PATH": str(installed)}
    text = run("ansible-doc", "-t", kind, f"gpuops.fleet.{name}", cwd=installed, **paths)
    assert "gpuops.fleet" in text


def test_site_playbook_of_the_installed_collection(installed: Path) -> None:
    """A node that is not there is enough to see every play, role and plugin load."""
    inventory = installed / "hosts.yml"
    inventory.write_text("gpu: {hosts: {gpu-1: {ansible_host: no-such-host.invalid}}}\n")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    site = subprocess.run(
        ["ansible-playbook", "-i", inventory, "gpuops.fleet.site", "-e", f"ssh_bootstrap_dir={installed}/.ssh"],
        cwd=installed,
        env={**os.environ, "PATH": path, "ANSIBLE_COLLECTIONS_PATH": str(installed), "HOME": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert site.returncode == 2, site.stdout + site.stderr
    assert "gpu-1 (no-such-host.invalid" in site.stdout
    assert "\n  next: " in site.stdout


def test_doctor_playbook_of_the_installed_collection(installed: Path) -> None:
    """Where the inventory says nothing of how to connect, the doctor takes the way of the aliases."""
    inventory = installed / "closed.yml"
    inventory.write_text("gpu: {hosts: {gpu-1: {ansible_host: 127.0.0.1, ansible_port: 1}}}\n")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    doctor = subprocess.run(
        ["ansible-playbook", "-i", inventory, "gpuops.fleet.doctor", "-e", f"ssh_bootstrap_dir={installed}/.ssh"],
        cwd=installed,
        env={**os.environ, "PATH": path, "ANSIBLE_COLLECTIONS_PATH": str(installed), "HOME": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert doctor.returncode == 4, doctor.stdout + doctor.stderr
    assert "(tcp_refused)\n" in doctor.stdout
    assert f"ssh -v -i {installed}/.ssh/id_ed25519 " in doctor.stdout
    assert "HostKeyAlias=gpu-1" in doctor.stdout
