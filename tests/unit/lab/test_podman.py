# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether podman's defaults work is found out by trying, here with a podman that behaves as told."""

from __future__ import annotations

import stat
from pathlib import Path

import podman
import pytest


@pytest.fixture
def podman_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for a podman of the test's own, the only one on PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CONTAINERS_CONF", raising=False)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    podman.needs_quirk.cache_clear()
    return tmp_path / "podman"


def write(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_defaults_are_kept_where_they_work(podman_is: Path) -> None:
    write(podman_is, 'echo "conf=$CONTAINERS_CONF"')
    assert not podman.needs_quirk("image")
    assert podman.podman("run", "image", probe_image="image") == "conf=\n"


def test_low_limits_where_only_they_work(podman_is: Path) -> None:
    write(podman_is, '[ -n "$CONTAINERS_CONF" ] && cat "$CONTAINERS_CONF"')
    assert podman.needs_quirk("image")
    assert 'runtime = "runc"' in podman.podman("run", "image", probe_image="image")


def test_both_failures_are_told(podman_is: Path) -> None:
    write(podman_is, 'echo "no ${CONTAINERS_CONF:-defaults}" >&2; exit 126')
    with pytest.raises(podman.LabError, match=r"(?s)no defaults.*containers\.conf.*next: apt-get install"):
        podman.needs_quirk("image")


def test_podman_that_is_missing_is_named(podman_is: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(podman_is.parent))
    with pytest.raises(podman.LabError, match=r"podman is not installed.*next: apt-get install podman"):
        podman.require()


def test_podman_that_hangs_is_ended(podman_is: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podman, "SECONDS", 0.2)
    write(podman_is, "exec sleep 60")
    with pytest.raises(podman.LabError, match=r"podman run image did not end within 0\.2 s; next: podman ps"):
        podman.podman("run", "image")
