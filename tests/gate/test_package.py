# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The built collection works with nothing but meta, plugins, roles and playbooks, as Galaxy's rules want it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from places import REPOSITORY

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
        "CHANGELOG.rst", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "LICENSE", "LICENSES", "README.md",
        "REUSE.toml", "SECURITY.md", "changelogs", "docs",
    }  # fmt: skip


def plugins(kind: str) -> set[str]:
    """Return the names of all plugins of a kind, from the tree."""
    return {path.stem for path in (REPOSITORY / "plugins" / kind).glob("*.py")}


@pytest.fixture(scope="module")
def documented(installed: Path) -> dict[str, dict[str, Any]]:
    """By name what ansible-doc says of each module, inventory plugin and filter of the installed collection."""
    found = {}
    for kind, folder in (("module", "modules"), ("inventory", "inventory"), ("filter", "filter")):
        names = [f"gpuops.fleet.{name}" for name in sorted(plugins(folder))]
        paths = {"ANSIBLE_COLLECTIONS_PATH": str(installed)}
        text = run("ansible-doc", "--json", "-t", kind, *names, cwd=installed, **paths)
        found.update({name.rpartition(".")[2]: said["doc"] for name, said in json.loads(text).items()})
    return found


def test_each_plugin_of_the_installed_collection_is_documented(documented: dict[str, dict[str, Any]]) -> None:
    assert documented.keys() == plugins("modules") | plugins("inventory") | plugins("filter")
    assert all(said["short_description"] and said["description"] for said in documented.values())


def test_version_added_is_the_release_that_announced_it(documented: dict[str, dict[str, Any]]) -> None:
    """Else the changelog never announces it."""
    announced = {}
    changelog = yaml.safe_load((REPOSITORY / "changelogs" / "changelog.yaml").read_text())
    for version, release in changelog["releases"].items():
        kinds = [release.get("modules", []), *release.get("plugins", {}).values()]
        announced.update({each["name"]: version for kind in kinds for each in kind})
    coming = yaml.safe_load((REPOSITORY / "galaxy.yml").read_text())["version"]
    assert coming not in announced.values(), "after a release, galaxy.yml has the next version"
    assert {name: said["version_added"] for name, said in documented.items()} == {
        name: announced.get(name, coming) for name in documented
    }


def test_each_action_and_module_is_in_the_action_group() -> None:
    """So that module_defaults of the group reach it."""
    group = yaml.safe_load((REPOSITORY / "meta" / "runtime.yml").read_text())["action_groups"]["fleet"]
    assert group == sorted(plugins("modules"))
    assert plugins("action") <= plugins("modules")


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
