# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A login user who is yet to be made, and cannot be; Molecule has those who can."""

from __future__ import annotations

import typing as t

import pytest

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.conftest import Fleet

pytestmark = pytest.mark.xdist_group("bad-input")

NODE_FILES = "cd / && find etc/ssh etc/sudoers.d etc/passwd root home -type f | sort | xargs sha256sum"


@pytest.fixture
def wanting_mlops(new_fleet: Fleet) -> Iterator[Fleet]:
    """The inventory wants a user who is not there; beside root, a user without sudo has the password."""
    password = new_fleet.hosts["gpu-1"]["ansible_password"]
    new_fleet.nodes["gpu-1"].sh(f"useradd --create-home plain; echo plain:{password} | chpasswd")
    new_fleet.nodes["gpu-2"].sh("mv /usr/sbin/visudo /usr/sbin/visudo.away")
    for host in new_fleet.hosts.values():
        host.update(ansible_user="mlops", ssh_bootstrap_first_user="root")
    yield new_fleet
    new_fleet.nodes["gpu-1"].sh("userdel --remove plain")
    new_fleet.nodes["gpu-2"].sh("userdel --remove mlops || true; rm -f /etc/sudoers.d/login-gpuops-mlops")


def test_each_reason_why_the_user_cannot_be_made_is_one_message(wanting_mlops: Fleet) -> None:
    fleet = wanting_mlops
    good = fleet.hosts.pop("gpu-1")
    fleet.hosts["unknown"] = {**good, "ssh_bootstrap_first_user": "nobody-here"}
    # Other spellings of the address: with the same one they would be refused as twins.
    fleet.hosts["everybody"] = {**good, "ansible_user": "ALL", "ansible_host": "127.1"}
    fleet.hosts["no-sudo"] = {**good, "ssh_bootstrap_first_user": "plain", "ansible_host": "localhost"}
    before = fleet.nodes["gpu-1"].sh(NODE_FILES)
    run = fleet.site("--tags", "reach")
    expected = {
        "everybody": ("ALL is not made, since a sudo rule with that name", "set ansible_user to"),
        "unknown": ("mlops cannot log in yet, and nobody-here could not make that user", "--limit unknown --ask-pass"),
        "no-sudo": ("plain could not make that user; seen: ", "plain@localhost sudo -n true"),
        "gpu-2": ("visudo", "apt-get install -y sudo"),
    }
    assert sorted(run.complaints()) == sorted(expected), run.text
    for host, (cause, command) in expected.items():
        assert cause in run.complaints()[host][0]
        assert command in run.complaints()[host][1]
    assert fleet.nodes["gpu-1"].sh(NODE_FILES) == before

    # Who was made without sudo has no key, so the next run does the rest.
    assert fleet.nodes["gpu-2"].sh("ls -A /home/mlops/.ssh 2>/dev/null || true") == ""
    fleet.nodes["gpu-2"].sh("mv /usr/sbin/visudo.away /usr/sbin/visudo")
    del fleet.hosts["unknown"], fleet.hosts["no-sudo"], fleet.hosts["everybody"]
    seen = fleet.site("--tags", "reach", "--check")
    assert "would be set up" in seen.text
    again = fleet.site("--tags", "reach")
    assert again.rc == 0, again.text
    assert fleet.ssh_into("gpu-2").returncode == 0
