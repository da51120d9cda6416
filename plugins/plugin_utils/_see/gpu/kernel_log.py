# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the kernel log says about the GPUs: Xids, SXids and the driver's complaints. **PRIVATE** to the collection."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.gpuops.fleet.plugins.module_utils._see.gpu.record import Gpu
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.answer import KernelLog, normalise_bus_id

ACTIONS = {
    "none": "nothing",
    "restart_app": "restart the application; an application that causes it again has a bug",
    "reset_gpu": "end what uses the GPU and reset it; reboot when that fails",
    "drain": "give the node no new work, let the running work end, then reset the GPU",
    "reboot": "drain the node and reboot it",
    "check_power": "switch the machine off, check the power cables and the seating of the GPU",
    "update": "install the driver, the firmware or the vGPU software that fits",
    "contact_support": "run nvidia-bug-report.sh and send its log to the vendor",
}

# The numbers of Xid 154; their names differ by driver version.
_RECOVERY_ACTIONS = {0: "none", 1: "reset_gpu", 2: "reboot", 3: "drain", 4: "drain", 6: "reset_gpu", 7: "reboot"}

_NVLINK5_XIDS = range(144, 151)

# Before Ampere there is no row remapping: the same numbers tell of page retirement.
_PAGE_RETIREMENT = {
    63: ("INFOROM_PAGE_RETIREMENT_EVENT", "GPU memory page retirement event"),
    64: ("INFOROM_PAGE_RETIREMENT_FAILURE", "GPU memory page retirement failure"),
}
_NO_ROW_REMAPPING = ("kepler", "maxwell", "pascal", "volta", "turing")

_BUS = r"([0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}(?:\.[0-7])?)"
_LINE = re.compile(r"(-?[0-9]{1,12}(?:\.[0-9]{1,9})?) (.*)", re.DOTALL)
_XID = re.compile(
    rf"NVRM: Xid \(?(?:PCI:)?{_BUS}(?: *GPU-I: *([0-9]{{1,4}}))?(?: *GPU-CI: *([0-9]{{1,4}}))? *\)?"
    r": ([0-9]{1,6})(?:, *(.*)|\s*$)"
)
_PID = re.compile(r"pid=(?:([0-9]{1,10})|[^,]*)(?:, *|$)")
# A name may hold ", ": it ends where a message begins, not farther than the 15 characters that the kernel keeps of it.
_NAME = re.compile(r"name=(?:(.{1,15}?), (?=[A-Z]|channel |[0-9a-f]{8} )|([^,]*)(?:, *|$))")
_NVLINK4 = re.compile(r"\bon link ([0-9]{1,3})")
_NVLINK5 = re.compile(r"(\S+)\s+(Fatal|Nonfatal)\s+XC\S+\s+i\S+\s+Link\s+(-1|[0-9]{1,3})\b")
_RECOVERY = re.compile(r"recovery action changed from .* to 0x([0-9a-fA-F]{1,4})\b")
_SXID = re.compile(rf"SXid \(PCI:{_BUS}\): ([0-9]{{1,6}}), (?!Severity |Data \{{)((Fatal|Non-fatal)?.*)", re.IGNORECASE)
_SXID_LINK = re.compile(r"Link ([0-9]{1,3})")
_UUID = re.compile(rf"NVRM: GPU at PCI:{_BUS}: (GPU-[0-9a-f-]+)")
_OPENING = re.compile(rf"NVRM: The NVIDIA .*?{_BUS}")
_DRIVERS_GPU = re.compile(rf"NVRM: .*?{_BUS}")
_RATE_LIMIT = re.compile(rf"Rate limiting GSP RPC error prints .* PCI:{_BUS} \(printing 1 of every ([0-9]{{1,4}})")
_SUPPRESSED = re.compile(r"([0-9]{1,9}) callbacks suppressed")
_CLIENT = re.compile(r"API mismatch: the client(?: '(.*?)')?(?: \(pid ([0-9]{1,10})\))? has the version ([0-9.]*[0-9])")
_MODULE = re.compile(r"this kernel module has the version ([0-9.]*[0-9])")

# Text -> kind, action, severity
_DRIVER_TEXTS = (
    ("fallen off the bus", "bus_loss", "reboot", "critical"),
    ("RmInitAdapter failed", "driver", "reboot", "critical"),
    ("does not have the necessary power cables connected", "driver", "check_power", "critical"),
)


class _Xid(NamedTuple):
    mnemonic: str
    description: str
    bucket: str
    action: str
    severity: str


_UNKNOWN_XID = _Xid("", "", "", "contact_support", "warning")


@dataclass
class _Event:
    """One entry of RV(kernel_events.events); a repeated line adds to RV(count)."""

    kind: str
    first_seconds: float
    last_seconds: float
    action: str
    severity: str
    message: str
    code: int | None = None
    mnemonic: str | None = None
    description: str | None = None
    bucket: str | None = None
    bus_id: str | None = None
    gpu_index: int | None = None
    uuid: str | None = None
    gpu_instance: int | None = None
    compute_instance: int | None = None
    link: int | None = None
    pid: int | None = None
    process: str | None = None
    count: int = 1
    cleared: bool = False
    age_seconds: float = 0.0


def kernel_events(log: KernelLog, gpus: Sequence[Gpu], hours: int | None) -> dict[str, Any]:
    """The events since boot, or of the last hours; those that a reset, a driver load or a reboot ended are cleared."""
    reader = _Reader(gpus)
    seconds = 0.0
    for line in log.lines:
        text = line
        # The later lines of one message have no time of their own.
        if match := _LINE.match(line):
            seconds, text = float(match[1]), match[2]
        reader.read(seconds, text.rstrip())
    reader.believe_driver()
    window = hours * 3600.0 if hours else log.uptime_seconds
    events = []
    for event in reader.events:
        age = log.uptime_seconds - event.last_seconds
        if age <= window:
            event.age_seconds = round(max(age, 0.0), 3)
            event.cleared |= event.last_seconds < 0
            events.append(vars(event))
    return {
        "source": log.source,
        "complete": log.complete,
        "since_seconds": None if log.source == "none" else window,
        "error": log.error,
        "events": events,
    }


def describe(event: Mapping[str, Any]) -> str:
    """One event in one line for people."""
    label = {"xid": f"Xid {event['code']}", "sxid": f"SXid {event['code']}", "bus_loss": "Bus loss"}.get(
        event["kind"], "NVIDIA driver"
    )
    message = event["message"]
    description = event["description"] or ""
    if description.lower() not in message.lower():
        message = f"{description}: {message}" if message else description
    if event["process"]:
        message += f" [{event['process']}" + (f", pid {event['pid']}]" if event["pid"] else "]")
    times = f", {event['count']} times" if event["count"] > 1 else ""
    action = "" if event["action"] == "none" else f" -> {event['action']}"
    cleared = " (cleared)" if event["cleared"] else action
    return f"{label}{_place(event)}, {_ago(event['age_seconds'])}{times}: {message or 'no text'}{cleared}"


def _place(event: Mapping[str, Any]) -> str:
    details = [event["bus_id"]] if event["bus_id"] else []
    if event["gpu_instance"] is not None:
        details.append(f"GPU instance {event['gpu_instance']}")
    if event["gpu_index"] is not None:
        return f" on GPU {event['gpu_index']} ({', '.join(details)})"
    device = "NVSwitch" if event["kind"] == "sxid" else "GPU"
    return f" on {device} {', '.join(details)}" if details else ""


def _ago(seconds: float) -> str:
    for unit, name, limit in ((1, "s", 90), (60, "min", 90), (3600, "h", 48)):
        if seconds < unit * limit:
            return f"{int(seconds / unit)} {name} ago"
    return f"{int(seconds / 86400)} d ago"


@cache
def _catalogue() -> dict[int, _Xid]:
    lines = Path(__file__).with_name("xids.csv").read_text(encoding="utf-8").splitlines()
    rows = csv.reader(line for line in lines if not line.startswith(("#", "xid,")))
    return {int(row[0]): _Xid(*row[1:]) for row in rows}


@cache
def _full_bus_id(text: str) -> str:
    return normalise_bus_id(text if "." in text else f"{text}.0")


class _Reader:
    """Reads line after line and keeps what later lines refer to."""

    def __init__(self, gpus: Sequence[Gpu]) -> None:
        self.events: list[_Event] = []
        self._gpus = gpus
        self._by_bus = {gpu.bus_id: gpu for gpu in gpus if gpu.bus_id}
        self._by_uuid = {gpu.uuid: gpu for gpu in gpus if gpu.uuid}
        self._uuids: dict[str, str] = {}
        self._open: dict[tuple[Any, ...], _Event] = {}
        self._rates: dict[str, int] = {}
        self._last: _Event | None = None
        self._booted = False
        # A message of several lines names the GPU in the first one only.
        self._opening: tuple[float, str | None] = (0.0, None)
        self._client: re.Match[str] | None = None

    def read(self, seconds: float, text: str) -> None:
        if seconds >= 0 and not self._booted:
            self._booted = True
            self._start_over()
        # Most lines are none of these: a look for a word is cheaper than a pattern.
        if "NVRM: Xid" in text and (match := _XID.search(text)):
            self._xid(seconds, match)
        elif "SXid" in text and (match := _SXID.search(text)):
            self._sxid(seconds, match)
        elif "callbacks suppressed" in text and (match := _SUPPRESSED.search(text)) and self._last:
            self._last.count += int(match[1])
        elif "Nvlink Core is being initialized" in text:
            self._start_over()
        elif "NVRM: " in text:
            self._driver(seconds, text)

    def believe_driver(self) -> None:
        """A driver that asked for a recovery and asks no more has had it; the reset itself leaves no line."""
        recovered = {gpu.bus_id for gpu in self._gpus if gpu.recovery_action == "none"}
        asked = {event.bus_id: event.last_seconds for event in self._open.values() if event.code == 154}
        until = {bus_id: seconds for bus_id, seconds in asked.items() if bus_id in recovered}
        self._clear(lambda event: event.bus_id in until and event.last_seconds <= until[event.bus_id])

    def _xid(self, seconds: float, match: re.Match[str]) -> None:
        code = int(match[4])
        known = _catalogue().get(code, _UNKNOWN_XID)
        pid, process, message = _process(match[5] or "")
        event = _Event(
            kind="xid",
            first_seconds=seconds,
            last_seconds=seconds,
            action=known.action,
            severity=known.severity,
            message=message,
            code=code,
            mnemonic=known.mnemonic or None,
            description=known.description or None,
            bucket=known.bucket or None,
            bus_id=_full_bus_id(match[1]),
            gpu_instance=int(match[2]) if match[2] else None,
            compute_instance=int(match[3]) if match[3] else None,
            pid=pid,
            process=process,
        )
        self._locate(event)
        detail = ""
        if code == 119:
            event.count = self._rates.get(event.bus_id or "", 1)
        elif code == 154:
            detail = message
            self._recovery(event)
        elif code in _PAGE_RETIREMENT and self._retires_pages(event):
            event.mnemonic, event.description = _PAGE_RETIREMENT[code]
        elif code == 74 and (link := _NVLINK4.search(message)):
            event.link = int(link[1])
        elif code in _NVLINK5_XIDS and (link := _NVLINK5.search(message)):
            unit, severity, number = link.groups()
            detail = f"{unit} {severity}"
            event.link = None if number == "-1" else int(number)
            event.action, event.severity = ("reset_gpu", "critical") if severity == "Fatal" else ("none", "warning")
        self._add(event, detail)

    def _sxid(self, seconds: float, match: re.Match[str]) -> None:
        link = _SXID_LINK.search(match[3])
        action, severity = {"fatal": ("reset_gpu", "critical"), "non-fatal": ("none", "info")}.get(
            (match[4] or "").lower(), ("contact_support", "warning")
        )
        event = _Event(
            kind="sxid",
            first_seconds=seconds,
            last_seconds=seconds,
            action=action,
            severity=severity,
            message=match[3],
            code=int(match[2]),
            bus_id=_full_bus_id(match[1]),
            link=int(link[1]) if link else None,
        )
        self._add(event, severity)

    def _driver(self, seconds: float, text: str) -> None:
        if "loading NVIDIA" in text:
            # It is printed after the driver has looked at the GPUs: what it said about them then still holds.
            self._clear(lambda event: event.kind == "xid")
        elif "GPU at PCI:" in text and (match := _UUID.search(text)):
            self._uuids[_full_bus_id(match[1])] = match[2]
        elif "Rate limiting" in text and (match := _RATE_LIMIT.search(text)):
            self._rates[_full_bus_id(match[1])] = int(match[2])
        elif "has the version" in text:
            self._versions(seconds, text)
        else:
            if "NVRM: The NVIDIA" in text and (match := _OPENING.search(text)):
                self._opening = seconds, _full_bus_id(match[1])
            for known, kind, action, severity in _DRIVER_TEXTS:
                if known in text:
                    self._complaint(_Event(kind, seconds, seconds, action, severity, _message(text)), text, known)

    def _versions(self, seconds: float, text: str) -> None:
        if match := _CLIENT.search(text):
            self._client = match
        if (module := _MODULE.search(text)) and (client := self._client):
            message = f"API mismatch: the client has the version {client[3]}, this kernel module has {module[1]}"
            # The client was wrong, perhaps one of a container. When all are, nvidia-smi is, and says it.
            event = _Event("driver", seconds, seconds, "none", "info", message, process=client[1])
            event.pid = int(client[2]) if client[2] else None
            self._client = None
            self._add(event, message)

    def _complaint(self, event: _Event, text: str, known: str) -> None:
        opened, bus_id = self._opening
        if match := _DRIVERS_GPU.search(text):
            event.bus_id = _full_bus_id(match[1])
        elif event.first_seconds - opened < 1:
            event.bus_id = bus_id
        self._locate(event)
        # The driver tells the same loss twice, as Xid 79 and in words.
        if event.kind != "bus_loss" or not self._is_open(79, event.bus_id):
            self._add(event, known)

    def _add(self, event: _Event, detail: str) -> None:
        key = (
            event.kind,
            event.code,
            event.bus_id,
            event.gpu_instance,
            event.compute_instance,
            event.link,
            event.process,
            detail,
        )
        known = self._open.setdefault(key, event)
        if known is event:
            self.events.append(event)
        else:
            known.count += event.count
            known.last_seconds = event.last_seconds
        self._last = known

    def _start_over(self) -> None:
        self._rates.clear()
        self._clear(lambda _event: True)

    def _clear(self, ended: Callable[[_Event], bool]) -> None:
        for key, event in list(self._open.items()):
            if ended(event):
                event.cleared = True
                del self._open[key]

    def _recovery(self, event: _Event) -> None:
        match = _RECOVERY.search(event.message)
        if not match:
            return
        event.action = _RECOVERY_ACTIONS.get(int(match[1], 16), "contact_support")
        over = event.action == "none"
        event.severity = "info" if over else "critical"
        self._clear(lambda earlier: earlier.bus_id == event.bus_id and (over or earlier.code == 154))

    def _locate(self, event: _Event) -> None:
        bus_id = event.bus_id or ""
        gpu = self._by_bus.get(bus_id) or self._by_uuid.get(self._uuids.get(bus_id, ""))
        event.gpu_index = gpu.index if gpu else None
        event.uuid = gpu.uuid if gpu and gpu.uuid else self._uuids.get(bus_id)

    def _retires_pages(self, event: _Event) -> bool:
        gpu = self._by_bus.get(event.bus_id or "")
        architecture = (gpu.architecture or "") if gpu else ""
        return architecture.lower() in _NO_ROW_REMAPPING or "page retirement" in event.message.lower()

    def _is_open(self, code: int, bus_id: str | None) -> bool:
        return any(event.code == code and event.bus_id == bus_id for event in self._open.values())


def _process(text: str) -> tuple[int | None, str | None, str]:
    """Process id, name and message of what stands behind an Xid's number."""
    pid = name = None
    if match := _PID.match(text):
        pid = int(match[1]) if match[1] else None
        text = text[match.end() :]
    if match := _NAME.match(text):
        name = (match[1] or match[2] or "").strip()
        text = text[match.end() :]
    return pid, None if name in ("", "<unknown>") else name, text


def _message(text: str) -> str:
    """Return the message of the driver without the name of the GPU."""
    return re.sub(rf"^.*NVRM: (?:GPU (?:at )?(?:PCI:)?{_BUS}:? ?)?", "", text)
