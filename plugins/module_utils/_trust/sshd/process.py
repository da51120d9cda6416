# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which sshd answers on this machine, how to have it read its files again, and what it offers now.

This module util is PRIVATE to the collection. Everything is found out from the running machine: a systemd service, a
socket that systemd holds, several of them, or an sshd that somebody started in a container.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import socket
import struct
import time
import typing as t
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.gpuops.fleet.plugins.module_utils._base import kexinit
from ansible_collections.gpuops.fleet.plugins.module_utils._base.kexinit import KexinitError
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.sshd.effective import Effective
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.sshd.settings import SshdError

_DIRECTORY = "/run/sshd"
_TRIES = 5

Run = t.Callable[[t.Sequence[str]], t.Tuple[int, str]]

_IDENTIFICATION = b"SSH-2.0-gpuops.fleet_sshd_policy\r\n"
_LISTEN = "0A"
_SOCKETS = ("ssh.socket", "sshd.socket")
# These are decided by GSSAPIKexAlgorithms.
_GSSAPI = "gss-"


@dataclass(frozen=True)
class Listener:
    """An sshd that waits for connections: with the options of its command line, in a systemd unit or in none."""

    pid: int
    program: str
    options: tuple[str, ...]
    unit: str
    sockets: tuple[tuple[str, int], ...]
    # Another one after each start and each reload.
    incarnation: tuple[str, ...]

    @property
    def config(self) -> str:
        """The main file it reads."""
        if "-f" in self.options:
            return self.options[self.options.index("-f") + 1]
        return "/etc/ssh/sshd_config"

    @property
    def overriding(self) -> list[str]:
        """The options that win over every file, for `sshd -T` too."""
        chosen: list[str] = []
        for place, option in enumerate(self.options):
            if option in ("-o", "-p"):
                chosen += self.options[place : place + 2]
            elif re.match("-[op].", option):
                chosen.append(option)
        return chosen


def parse_title(text: str) -> tuple[str, tuple[str, ...]]:
    """Program and options from the command line of a listening sshd, which it has written over with its title."""
    text = text.replace("\0", " ").strip()
    title = re.match(r"sshd: (.*?) \[listener\]", text)
    command = shlex.split(title.group(1) if title else text)
    return command[0], tuple(command[1:])


def parse_listening(text: str) -> dict[str, tuple[str, int]]:
    """Address and port of each listening socket in /proc/net/tcp or tcp6, by its inode."""
    found = {}
    for line in text.splitlines()[1:]:
        fields = line.split()
        if fields[3] != _LISTEN:
            continue
        place, port = fields[1].split(":")
        # Four bytes at a time, each in the order of this machine.
        packed = b"".join(struct.pack("=I", int(place[start : start + 8], 16)) for start in range(0, len(place), 8))
        family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
        found[fields[9]] = (socket.inet_ntop(family, packed), int(port, 16))
    return found


def listeners(run: Run, proc: Path = Path("/proc")) -> list[Listener]:
    """Every sshd of this machine that listens; those in other containers are not ours."""
    listening: dict[str, tuple[str, int]] = {}
    for name in ("tcp", "tcp6"):
        if (proc / "net" / name).exists():
            listening.update(parse_listening((proc / "net" / name).read_text()))
    found = []
    for folder in proc.glob("[0-9]*"):
        try:
            # A session may listen too, for a forwarded port.
            if _name(folder) != "sshd" or _name(proc / str(_parent(folder))) == "sshd":
                continue
            if os.readlink(folder / "ns/mnt") != os.readlink(proc / "self/ns/mnt"):
                continue
            open_files = {os.readlink(fd) for fd in (folder / "fd").iterdir()}
            inodes = sorted(inode for inode in listening if f"socket:[{inode}]" in open_files)
            if not inodes:
                continue
            pid = int(folder.name)
            program, options = parse_title((folder / "cmdline").read_text(errors="replace"))
            # The kernel lays a program out anew each time it is started, also by the same process.
            incarnation = ((folder / "auxv").read_bytes().hex(), *inodes)
            found.append(
                Listener(
                    pid, program, options, _unit(run, folder), tuple(listening[inode] for inode in inodes), incarnation
                )
            )
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            # It has just ended, or is a user's, which root of a container may not look into.
            continue
    return sorted(found, key=lambda listener: listener.pid)


def _name(folder: Path) -> str:
    return (folder / "comm").read_text().strip() if (folder / "comm").exists() else ""


def _parent(folder: Path) -> int:
    return int((folder / "stat").read_text().rpartition(")")[2].split()[1])


def sshd_program() -> str | None:
    """The sshd of this machine. It is not on the path of everybody who may run it."""
    return shutil.which("sshd", path="/usr/sbin:/sbin:/usr/local/sbin:/usr/bin")


def ask_sshd(run: Run, command: t.Sequence[str]) -> tuple[int, str]:
    """Run `sshd -t` or `sshd -T`, which say nothing without their directory.

    A socket makes it with the first connection only, and the service that the socket starts takes it along when it
    ends, which may be between our making it and sshd's looking for it.
    """
    for _try in range(_TRIES):
        with contextlib.suppress(OSError):
            os.makedirs(_DIRECTORY, mode=0o755, exist_ok=True)
        code, said = run(command)
        if not code or _DIRECTORY not in said:
            break
    return code, said


def has_systemd() -> bool:
    """Return whether systemd runs this machine, as sd_booted(3) asks."""
    return os.path.isdir("/run/systemd/system")


def _unit(run: Run, folder: Path) -> str:
    """The systemd service whose main process this is."""
    if not has_systemd():
        return ""
    units = re.findall(r"([^/\n]+\.service)", (folder / "cgroup").read_text())
    if units and run(["systemctl", "show", "--property=MainPID", "--value", units[-1]])[1].strip() == folder.name:
        return str(units[-1])
    return ""


@dataclass(frozen=True)
class Socket:
    """A socket of systemd's that waits for connections in the place of sshd, and starts one when there is one."""

    unit: str
    ports: tuple[int, ...]

    @property
    def service(self) -> str:
        """Return the unit that the socket starts; it is none where each connection gets a new sshd."""
        return self.unit.replace(".socket", ".service")

    @property
    def drop_in(self) -> str:
        return f"/etc/systemd/system/{self.unit}.d/00-gpuops.conf"


def active_socket(run: Run) -> Socket | None:
    if not has_systemd():
        return None
    for unit in _SOCKETS:
        if run(["systemctl", "is-active", "--quiet", unit])[0] == 0:
            _code, listens = run(["systemctl", "show", "--property=Listen", "--value", unit])
            return Socket(unit, tuple(sorted({int(port) for port in re.findall(r":(\d+) \(Stream\)", listens)})))
    return None


def origin(proc: Path = Path("/proc"), pid: str = "self") -> tuple[str, str, int] | None:
    """Return SSH_CONNECTION of an ancestor: source address, and address and port of the server.

    sudo does not hand the variable on, and root of a container may not read it from a user's process.
    """
    while pid not in ("0", "1"):
        folder = proc / pid
        variables: list[bytes] = []
        with contextlib.suppress(PermissionError):
            variables = (folder / "environ").read_bytes().split(b"\0")
        for variable in variables:
            if variable.startswith(b"SSH_CONNECTION="):
                address, _port, local_address, local_port = variable.decode().partition("=")[2].split()
                return address, local_address, int(local_port)
        pid = str(_parent(folder))
    return None


def reload_command(listener: Listener) -> list[str]:
    """Return the command that makes this sshd read its files again."""
    if listener.unit:
        return ["systemctl", "reload", listener.unit]
    return ["kill", "-HUP", str(listener.pid)]


def check_reloadable(listener: Listener) -> None:
    """A sshd that cannot start itself again ends when it is told to."""
    if listener.unit:
        return
    if listener.program.startswith("/") and not os.access(listener.program, os.X_OK):
        raise SshdError(
            f"the sshd with process {listener.pid} was started as {listener.program}, which is not there any more, and "
            f"would end when it is told to read its files again",
            remedy="start it as $(command -v sshd)",
        )
    if not listener.program.startswith("/"):
        raise SshdError(
            f"the sshd with process {listener.pid} was started as {listener.program}, without its whole path, and "
            f"would end when it is told to read its files again",
            remedy="start it as $(command -v sshd), in the template or script that starts this container",
        )


def reload(
    before: t.Sequence[Listener], waiting: Socket | None, ports: t.Sequence[int], run: Run, patience: float = 10.0
) -> None:
    """Have every sshd read its files again, and wait until it has."""
    commands = reload_commands(before, waiting)
    for command in commands:
        code, said = run(command)
        if code:
            raise SshdError(f"{shlex.join(command)} ended with {code}: {said.strip()}")
    if waiting:
        # The service took its directory along.
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
        return
    old = {listener.incarnation for listener in before}
    deadline = time.monotonic() + patience
    while True:
        new = [listener for listener in listeners(run) if listener.incarnation not in old]
        if len(new) >= len(before) and all(_listens(new, port) for port in ports):
            return
        if time.monotonic() > deadline:
            told = ", ".join(shlex.join(command) for command in commands)
            raise SshdError(f"sshd did not listen again within {patience:g} s of: {told}")
        time.sleep(0.05)


def reload_commands(found: t.Sequence[Listener], waiting: Socket | None) -> list[list[str]]:
    """Return the commands that make every sshd read its files again.

    One that has its socket from systemd cannot be told to. It is stopped, systemd goes on to listen, and the next
    connection starts one that reads the new files. Sessions are processes of their own and stay.
    """
    commands = [["systemctl", "stop", waiting.service]] if waiting else []
    return commands + [reload_command(each) for each in found if not waiting or each.unit != waiting.service]


def _listens(found: t.Sequence[Listener], port: int) -> bool:
    return any(number == port for listener in found for _address, number in listener.sockets)


# --- what it offers -------------------------------------------------------------------------------------------------


def doors(found: t.Sequence[Listener], waiting: Socket | None, ports: t.Sequence[int]) -> list[tuple[str, int]]:
    """Return the (address, port) at which this machine reaches sshd, one for each of these ports."""
    places = [("localhost", port) for port in waiting.ports] if waiting else []
    places += [place for listener in found for place in listener.sockets]
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    chosen = {port: (loopback.get(address, address), port) for address, port in reversed(places) if port in ports}
    return [chosen.get(port, ("localhost", port)) for port in ports]


def offer(door: tuple[str, int], patience: float = 5.0) -> dict[str, str]:
    """Return the algorithms that sshd offers to a new connection.

    Raises SshdError when it has not said them within `patience` seconds, or is no sshd.
    """
    port = door[1]
    deadline = time.monotonic() + patience
    try:
        with socket.create_connection(door, timeout=patience) as connection:
            _line, data = _receive(connection, b"", kexinit.take_identification, "SSH-", deadline)
            connection.sendall(_IDENTIFICATION)
            payload, _rest = _receive(connection, data, kexinit.take_packet, "what it offers", deadline)
        if payload[:1] != bytes([kexinit.KEXINIT]):
            raise KexinitError("it does not begin with a key exchange")
        offered = kexinit.parse_kexinit(payload)
    except (OSError, KexinitError) as error:
        raise SshdError(f"port {port} of this machine does not answer as sshd: {error}") from error
    return {
        "KexAlgorithms": ",".join(name for name in offered.kex if not name.startswith(_GSSAPI)),
        "HostKeyAlgorithms": ",".join(offered.host_keys),
        "Ciphers": ",".join(offered.ciphers),
        "MACs": ",".join(offered.macs),
    }


def _receive(
    connection: socket.socket,
    data: bytes,
    take: t.Callable[[bytes], tuple[bytes, bytes] | None],
    what: str,
    deadline: float,
) -> tuple[bytes, bytes]:
    """Read on until `take` finds a part in `data`; return the part, and what follows it."""
    while not (taken := take(data)):
        left = deadline - time.monotonic()
        if left <= 0 or len(data) > kexinit.MOST_BYTES:
            raise KexinitError(f"{len(data)} bytes, and it has not said {what}")
        connection.settimeout(left)
        chunk = connection.recv(4096)
        if not chunk:
            raise KexinitError(f"it ended the connection before it said {what}")
        data += chunk
    return taken


def differing_offer(door: tuple[str, int], effective: Effective) -> dict[str, str]:
    """Return by keyword what the running sshd offers other than its files say."""
    found = {}
    for keyword, value in offer(door).items():
        names, allowed = value.split(","), effective[keyword.lower()][0].split(",")
        # The host keys that are there limit the types.
        if (not set(names) <= set(allowed)) if keyword == "HostKeyAlgorithms" else names != allowed:
            found[keyword] = value
    return found
