# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.sshd import guard
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.sshd.process import Listener, Socket


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The guard's own directory, on a machine without systemd."""
    folder = tmp_path / "state"
    monkeypatch.setattr(guard, "STATE", str(folder))
    monkeypatch.setattr(guard, "_PENDING", f"{folder}/pending")
    monkeypatch.setattr(guard, "_SCRIPT", f"{folder}/restore.sh")
    monkeypatch.setattr(guard, "_RECORD", f"{tmp_path}/etc/.gpuops-before")
    monkeypatch.setattr(guard, "has_systemd", lambda: False)
    return folder


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """One file that is there, and one that is not."""
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "sshd_config").write_bytes(b"Port 22\r\n\xff")
    (folder / "sshd_config").chmod(0o640)
    return folder / "sshd_config", folder / "drop-in.conf"


def run(command: t.Sequence[str]) -> tuple[int, str]:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def listing(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mode) for path in folder.iterdir()}


def change(files: tuple[Path, Path], seconds: int = 60) -> None:
    guard.arm([str(path) for path in files], [], None, seconds, run)
    guard.write(str(files[0]), b"Port 2222\n")
    guard.write(str(files[1]), b"MaxAuthTries 1\n")


def test_everything_comes_back(files: tuple[Path, Path], state: Path) -> None:
    before = listing(files[0].parent)
    change(files)
    assert files[0].read_bytes() == b"Port 2222\n"
    assert files[0].stat().st_mode & 0o777 == 0o640
    assert files[1].stat().st_mode & 0o777 == 0o644
    assert guard.restore(run)
    assert listing(files[0].parent) == before
    assert not state.exists()
    assert not guard.restore(run)


def test_the_machine_does_it_when_nobody_comes(files: tuple[Path, Path], state: Path) -> None:
    before = listing(files[0].parent)
    change(files, seconds=1)
    deadline = time.monotonic() + 10
    while state.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert listing(files[0].parent) == before
    assert not guard.keep(run), "too late to be kept"


def test_what_is_proven_stays(files: tuple[Path, Path], state: Path) -> None:
    change(files, seconds=1)
    assert guard.keep(run)
    time.sleep(1.3)
    assert {name: content for name, (content, _mode) in listing(files[0].parent).items()} == {
        "sshd_config": b"Port 2222\n",
        "drop-in.conf": b"MaxAuthTries 1\n",
    }
    assert not state.exists()
    assert not guard.keep(run)


@pytest.mark.parametrize("again", ["keep", "restore", "arm"])
@pytest.mark.parametrize("left", ["kept", "armed", "started anew"])
def test_old_files_of_a_run_that_broke_off_go_with_the_next(
    files: tuple[Path, Path], state: Path, left: str, again: str
) -> None:
    """Among them may be private keys, whatever they are called."""
    change(files)
    guard._stop_timer(run)
    if left == "kept":
        (state / "pending").rename(state / "kept")
    elif left == "armed":
        (state / "pending").unlink()
    else:
        shutil.rmtree(state)
    if again == "arm":
        guard.arm([], [], None, 60, run)
        assert guard.keep(run)
    elif again == "restore":
        assert not guard.restore(run)
    else:
        assert guard.keep(run) == (left == "kept")
        assert not guard.restore(run)
    assert sorted(listing(files[0].parent)) == ["drop-in.conf", "sshd_config"]
    assert files[0].read_bytes() == b"Port 2222\n"
    assert not state.exists()


def test_old_file_that_cannot_be_removed_is_remembered(files: tuple[Path, Path]) -> None:
    change(files)
    kept = Path(guard.kept_as(str(files[0])))
    kept.unlink()
    kept.mkdir()
    assert guard.keep(run)
    kept.rmdir()
    kept.write_bytes(b"old")
    guard.restore(run)
    assert not kept.exists()


def test_nobody_reads_a_private_key_while_it_is_copied(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(_path: str, _other: str) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    modes = []

    def copy(path: str, other: str) -> None:
        modes.append(os.stat(other).st_mode & 0o777)
        copy2(path, other)

    copy2 = shutil.copy2
    monkeypatch.setattr(os, "link", no_link)
    monkeypatch.setattr(shutil, "copy2", copy)
    before = listing(files[0].parent)
    change(files)
    assert modes == [0o600]
    guard.restore(run)
    assert listing(files[0].parent) == before


def test_old_files_come_back_without_a_free_byte(files: tuple[Path, Path]) -> None:
    """The old one is only renamed: it is the very same file."""
    inode = files[0].stat().st_ino
    change(files)
    assert files[0].stat().st_ino != inode
    guard.restore(run)
    assert files[0].stat().st_ino == inode


def test_nothing_is_left_when_it_cannot_be_armed(
    files: tuple[Path, Path], state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_seconds: int, _run: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(state))

    before = listing(files[0].parent)
    monkeypatch.setattr(guard, "_set_timer", full)
    with pytest.raises(OSError, match="No space left"):
        guard.arm([str(path) for path in files], [], None, 60, run)
    assert listing(files[0].parent) == before
    assert not state.exists()


def test_file_that_cannot_be_written_is_as_before(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = listing(files[0].parent)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        guard.write(str(files[0]), b"half of it")
    assert listing(files[0].parent) == before


def test_leftovers_of_a_run_that_armed_nothing_do_no_harm(files: tuple[Path, Path], state: Path) -> None:
    state.mkdir()
    assert not guard.restore(run)
    change(files)
    assert guard.restore(run)


def test_script() -> None:
    service = Listener(7, "/usr/sbin/sshd", ("-D",), "ssh.service", (), ())
    by_hand = Listener(8, "/usr/sbin/sshd", ("-p", "2222"), "", (), ())
    script = guard.restore_script({"/etc/ssh/sshd_config": True, "/etc/it's": False}, [service, by_hand], None)
    assert subprocess.run(["sh", "-n", "-c", script], check=False).returncode == 0
    for line in (
        "mv -f /etc/ssh/.sshd_config.gpuops-before /etc/ssh/sshd_config",
        """rm -f '/etc/it'"'"'s'""",
        "systemctl reload ssh.service || systemctl restart ssh.service",
        "systemctl is-active --quiet ssh.service || systemctl restart ssh.service",
        "kill -HUP 8 || /usr/sbin/sshd -p 2222",
        "kill -0 8 2>/dev/null || /usr/sbin/sshd -p 2222",
    ):
        assert f"\n{line}\n" in script
    waiting = Socket("ssh.socket", (22,))
    script = guard.restore_script({waiting.drop_in: False}, [service], waiting)
    assert "\nsystemctl stop ssh.service\nsystemctl daemon-reload\nsystemctl restart ssh.socket\n" in script
    assert "reload ssh.service" not in script
