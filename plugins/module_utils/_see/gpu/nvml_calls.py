# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The calls of NVML through ctypes, for every driver since 390. **PRIVATE** to the collection.

They may block or crash: only the child that nvml starts makes them.
"""

from __future__ import annotations

import typing as t
from ctypes import (
    CDLL,
    Array,
    Structure,
    byref,
    c_char,
    c_char_p,
    c_double,
    c_int,
    c_longlong,
    c_ubyte,
    c_uint,
    c_ulong,
    c_ulonglong,
    c_ushort,
    c_void_p,
    create_string_buffer,
    sizeof,
)
from dataclasses import asdict

from ansible_collections.gpuops.fleet.plugins.module_utils._see.gpu.record import Gpu

# WSL first: there a library that the loader knows would be one for real hardware.
_LIBRARIES = (
    "/usr/lib/wsl/lib/libnvidia-ml.so.1",
    "libnvidia-ml.so.1",
    "/usr/lib64/libnvidia-ml.so.1",
    "/usr/lib/libnvidia-ml.so.1",
    "/usr/lib64/nvidia/libnvidia-ml.so.1",
)

_SUCCESS = 0
_INVALID_ARGUMENT = 2
_NOT_SUPPORTED = 3
_NOT_FOUND = 6
_FUNCTION_NOT_FOUND = 13
_GPU_IS_LOST = 15
# The library or the GPU does not have this; an older call may, and if none does, that is no fault of the GPU.
_ABSENT = {
    _INVALID_ARGUMENT,
    _NOT_SUPPORTED,
    _FUNCTION_NOT_FOUND,
    21,  # no data
    25,  # another version of the struct
    26,  # deprecated
}
_INIT_WITHOUT_GPUS = 1
_MIB = 1024 * 1024

_ARCHITECTURES = {
    2: "Kepler",
    3: "Maxwell",
    4: "Pascal",
    5: "Volta",
    6: "Turing",
    7: "Ampere",
    8: "Ada Lovelace",
    9: "Hopper",
    10: "Blackwell",
    13: "Rubin",
}
_COMPUTE_MODES = {0: "Default", 1: "Exclusive_Thread", 2: "Prohibited", 3: "Exclusive_Process"}
_RECOVERY_ACTIONS = {
    0: "none",
    1: "gpu reset",
    2: "node reboot",
    3: "drain p2p",
    4: "drain and reset",
    5: "recover imex domain",
    6: "bus reset",
    7: "system reboot",
}
_THROTTLE_REASONS = (
    "gpu_idle",
    "applications_clocks_setting",
    "sw_power_cap",
    "hw_slowdown",
    "sync_boost",
    "sw_thermal_slowdown",
    "hw_thermal_slowdown",
    "hw_power_brake_slowdown",
    "display_clocks_setting",
)
_FABRIC_STATES = {1: "Not Started", 2: "In Progress", 3: "Completed"}
_FABRIC_COMPLETED = 3
_FABRIC_HEALTH = {1: "Healthy", 2: "Unhealthy", 3: "Limited Capacity"}

# Names for which the driver has had more than one stand newest first; the numbers are arguments of the call.
_TEXTS = {
    "uuid": "nvmlDeviceGetUUID",
    "serial": "nvmlDeviceGetSerial",
    "name": "nvmlDeviceGetName",
    "vbios_version": "nvmlDeviceGetVbiosVersion",
}
_NUMBERS: dict[str, tuple[tuple[t.Any, ...], ...]] = {
    "temperature_shutdown_c": (("nvmlDeviceGetTemperatureThreshold", 0),),
    "temperature_slowdown_c": (("nvmlDeviceGetTemperatureThreshold", 1),),
    "clock_graphics_mhz": (("nvmlDeviceGetClockInfo", 0),),
    "clock_sm_mhz": (("nvmlDeviceGetClockInfo", 1),),
    "clock_memory_mhz": (("nvmlDeviceGetClockInfo", 2),),
    "clock_graphics_max_mhz": (("nvmlDeviceGetMaxClockInfo", 0),),
    "clock_sm_max_mhz": (("nvmlDeviceGetMaxClockInfo", 1),),
    "clock_memory_max_mhz": (("nvmlDeviceGetMaxClockInfo", 2),),
    "pcie_link_gen_current": (("nvmlDeviceGetCurrPcieLinkGeneration",),),
    "pcie_link_gen_max": (("nvmlDeviceGetMaxPcieLinkGeneration",),),
    "pcie_link_width_current": (("nvmlDeviceGetCurrPcieLinkWidth",),),
    "pcie_link_width_max": (("nvmlDeviceGetMaxPcieLinkWidth",),),
    "pcie_replay_count": (("nvmlDeviceGetPcieReplayCounter",),),
}
_MILLIWATTS: dict[str, tuple[tuple[t.Any, ...], ...]] = {
    "power_draw_w": (("nvmlDeviceGetPowerUsage",),),
    "power_limit_w": (("nvmlDeviceGetEnforcedPowerLimit",), ("nvmlDeviceGetPowerManagementLimit",)),
    "power_limit_default_w": (("nvmlDeviceGetPowerManagementDefaultLimit",),),
}
# The lists of one fixed struct: an id that this driver or GPU does not have fails by itself.
_FIELDS = (
    ("temperature_memory_c", 82),
    ("recovery_action", 230),
    ("retired_pages", 29),
    ("retired_pages", 30),
    ("retired_pages", 31),
    ("remapped_rows", 142),
    ("remapped_rows", 143),
    ("remapped_rows", 144),
    ("remapped_rows", 145),
)
_FIELD_NVLINK_SPEED = 164
_FIELD_NVLINK_COMMON_SPEED = 90
# More than any GPU has: the end of the links is an error code.
_NVLINK_LIMIT = 64


class _PciInfo(Structure):
    _fields_ = (
        ("bus_id_legacy", c_char * 16),
        ("domain", c_uint),
        ("bus", c_uint),
        ("device", c_uint),
        ("device_id", c_uint),
        ("subsystem_id", c_uint),
        ("bus_id", c_char * 32),
    )


class _MemoryV1(Structure):
    _fields_ = (("total", c_ulonglong), ("free", c_ulonglong), ("used", c_ulonglong))


class _MemoryV2(Structure):
    _fields_ = (
        ("version", c_uint),
        ("total", c_ulonglong),
        ("reserved", c_ulonglong),
        ("free", c_ulonglong),
        ("used", c_ulonglong),
    )


class _Temperature(Structure):
    _fields_ = (("version", c_uint), ("sensor", c_uint), ("value", c_int))


class _MarginTemperature(Structure):
    _fields_ = (("version", c_uint), ("value", c_int))


class _SramErrors(Structure):
    _fields_ = (("version", c_uint), ("counters", c_ulonglong * 11), ("threshold_exceeded", c_uint))


class _FabricV1(Structure):
    _fields_ = (("cluster", c_ubyte * 16), ("status", c_uint), ("clique", c_uint), ("state", c_ubyte))


class _FabricV2(Structure):
    _fields_ = (("version", c_uint), *_FabricV1._fields_, ("health_mask", c_uint))


class _FabricV3(Structure):
    _fields_ = (*_FabricV2._fields_, ("health", c_ubyte))


class _FieldValue(Structure):
    _fields_ = (
        ("id", c_uint),
        ("scope", c_uint),
        ("timestamp", c_longlong),
        ("latency", c_longlong),
        ("type", c_uint),
        ("code", c_int),
        ("value", c_ubyte * 8),
    )


_VALUE_TYPES: tuple[t.Any, ...] = (c_double, c_uint, c_ulong, c_ulonglong, c_longlong, c_int, c_ushort)


def ask_nvml(tell: t.Callable[..., None]) -> None:
    """Tell what is learned, fact by fact, and before each step what the step is."""
    library, error = _load()
    if library is None:
        tell(outcome="no_library", error=error)
        return
    tell(library_version=_version(library, "nvmlSystemGetNVMLVersion"), step="when it was started")
    code = _call(library, ("nvmlInitWithFlags", _INIT_WITHOUT_GPUS), ("nvmlInit_v2",))[0]
    if code != _SUCCESS:
        error = f"Failed to initialize NVML: {_error_text(library, code)}"
        tell(outcome="init_failed", error=error, init_code=code)
        return
    tell(driver_version=_version(library, "nvmlSystemGetDriverVersion"), cuda_version=_cuda_version(library))
    count = c_uint()
    code = _call(library, ("nvmlDeviceGetCount_v2", byref(count)))[0]
    if code != _SUCCESS:
        error = f"Failed to count the GPUs: {_error_text(library, code)}"
        tell(outcome="init_failed", error=error, init_code=code)
        return
    for index in range(count.value):
        tell(step=f"when asked about GPU {index}")
        gpu, lost = _read_gpu(library, index)
        tell(gpus=[asdict(gpu)], lost=[index] if lost else [])
    tell(outcome="answered")


def _load() -> tuple[CDLL | None, str]:
    errors = {}
    for name in _LIBRARIES:
        try:
            library = CDLL(name)
        except OSError as exc:
            errors[name] = str(exc)
            continue
        # The stub that CUDA has for linking knows no GPU.
        if _is_real_library_mapped():
            library.nvmlErrorString.restype = c_char_p
            return library, ""
        errors[name] = f"{name}: only the stub of CUDA was found"
    return None, errors["libnvidia-ml.so.1"]


def _is_real_library_mapped() -> bool:
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        return any("libnvidia-ml" in line and "/stubs/" not in line for line in file)


def _call(library: CDLL, *attempts: tuple[t.Any, ...]) -> tuple[int, str]:
    """The first of these calls that this library has: its code, and its name."""
    code, name = _FUNCTION_NOT_FOUND, ""
    for name, *arguments in attempts:
        function = getattr(library, name, None)
        code = function(*arguments) if function else _FUNCTION_NOT_FOUND
        if code not in _ABSENT:
            break
    return code, name


def _error_text(library: CDLL, code: int) -> str:
    text: bytes | None = library.nvmlErrorString(code)
    return text.decode("utf-8", "replace") if text else f"NVML error {code}"


def _version(library: CDLL, name: str) -> str | None:
    text = create_string_buffer(96)
    return _decode(text) if _call(library, (name, text, sizeof(text)))[0] == _SUCCESS else None


def _cuda_version(library: CDLL) -> str | None:
    number = c_int()
    code = _call(
        library,
        ("nvmlSystemGetCudaDriverVersion_v2", byref(number)),
        ("nvmlSystemGetCudaDriverVersion", byref(number)),
    )[0]
    return f"{number.value // 1000}.{number.value % 1000 // 10}" if code == _SUCCESS else None


def _decode(text: Array[c_char]) -> str:
    return text.value.decode("utf-8", "replace")


class _Device:
    """A GPU or a MIG device; what went wrong is kept under the key that stays None."""

    def __init__(self, library: CDLL, handle: c_void_p) -> None:
        self._library = library
        self._handle = handle
        self.errors: dict[str, str] = {}
        self.lost = False

    def ask(self, keys: str, *attempts: tuple[t.Any, ...]) -> str:
        """The name of the call that answered, empty when none did."""
        code, name = _call(self._library, *((name, self._handle, *rest) for name, *rest in attempts))
        self.note(keys, code)
        return name if code == _SUCCESS else ""

    def note(self, keys: str, code: int) -> None:
        if code != _SUCCESS and code not in _ABSENT:
            self.errors.update((key, self.error_text(code)) for key in keys.split())
            self.lost = self.lost or code == _GPU_IS_LOST

    def error_text(self, code: int) -> str:
        return _error_text(self._library, code)

    def numbers(self, keys: str, *attempts: tuple[t.Any, ...], kind: t.Any = c_uint) -> dict[str, int]:
        """A call whose last arguments are these numbers; empty when it does not answer."""
        outs = {key: kind() for key in keys.split()}
        pointers = [byref(out) for out in outs.values()]
        if not self.ask(keys, *((*attempt, *pointers) for attempt in attempts)):
            return {}
        return {key: int(out.value) for key, out in outs.items()}

    def number(self, key: str, *attempts: tuple[t.Any, ...], kind: t.Any = c_uint) -> int | None:
        return self.numbers(key, *attempts, kind=kind).get(key)

    def flags(self, keys: str, name: str) -> dict[str, bool]:
        return {key: bool(value) for key, value in self.numbers(keys, (name,)).items()}

    def text(self, key: str, name: str) -> str | None:
        out = create_string_buffer(96)
        return _decode(out) if self.ask(key, (name, out, sizeof(out))) else None

    def fields(self, wanted: t.Sequence[tuple[str, int, int]]) -> list[int | None]:
        """The values of these (key, field id, scope)."""
        values = (_FieldValue * len(wanted))()
        for value, (_key, field_id, scope) in zip(values, wanted):
            # Stays when a library leaves the value as it is.
            value.id, value.scope, value.code = field_id, scope, _NOT_SUPPORTED
        code = _call(self._library, ("nvmlDeviceGetFieldValues", self._handle, len(wanted), values))[0]
        found: list[int | None] = []
        for value, (key, _field_id, _scope) in zip(values, wanted):
            own_code = code or value.code
            self.note(key, own_code)
            known = own_code == _SUCCESS and value.type < len(_VALUE_TYPES)
            found.append(int(_VALUE_TYPES[value.type].from_buffer(value.value).value) if known else None)
        return found

    def mig_devices(self) -> t.Iterator[tuple[int, _Device]]:
        for index in range(self.number("mig_devices", ("nvmlDeviceGetMaxMigDeviceCount",)) or 0):
            handle = c_void_p()
            call = ("nvmlDeviceGetMigDeviceHandleByIndex", self._handle, index, byref(handle))
            code = _call(self._library, call)[0]
            if code == _SUCCESS:
                yield index, _Device(self._library, handle)
            elif code != _NOT_FOUND:
                self.note("mig_devices", code)

    def nvlink_states(self) -> t.Iterator[tuple[int, bool]]:
        for link in range(_NVLINK_LIMIT):
            active = c_uint()
            code = _call(self._library, ("nvmlDeviceGetNvLinkState", self._handle, link, byref(active)))[0]
            if code == _SUCCESS:
                yield link, bool(active.value)
            elif code != _NOT_SUPPORTED:
                self.note("nvlinks", code)
                return


def _read_gpu(library: CDLL, index: int) -> tuple[Gpu, bool]:
    """One GPU, and whether it is lost."""
    handle = c_void_p()
    code = _call(library, ("nvmlDeviceGetHandleByIndex_v2", index, byref(handle)))[0]
    if code != _SUCCESS:
        return Gpu(index=index, errors={"handle": _error_text(library, code)}), code == _GPU_IS_LOST
    device = _Device(library, handle)
    record: dict[str, t.Any] = {
        **{key: device.text(key, name) for key, name in _TEXTS.items()},
        **{key: device.number(key, *attempts) for key, attempts in _NUMBERS.items()},
        **{key: _watts(device.number(key, *attempts)) for key, attempts in _MILLIWATTS.items()},
        **_identity(device),
        **_memory(device),
        **_readings(device),
        **_modes(device),
        **_damage(device),
        "mig_devices": _mig_devices(device),
        "nvlinks": _nvlinks(device),
        "fabric": _fabric(device),
    }
    return Gpu(index=index, errors=device.errors, **record), device.lost


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000


def _group(**values: int | bool | None) -> dict[str, int | bool | None] | None:
    return None if all(value is None for value in values.values()) else values


def _flag(value: int | None) -> bool | None:
    return None if value is None else bool(value)


def _versioned(struct: t.Any, version: int) -> t.Any:
    return struct(version=sizeof(struct) | version << 24)


def _identity(device: _Device) -> dict[str, t.Any]:
    pci = _PciInfo()
    on_pci = device.ask("bus_id", ("nvmlDeviceGetPciInfo_v3", byref(pci)))
    version = (c_int * 2)()
    has_cuda = device.ask(
        "compute_capability",
        ("nvmlDeviceGetCudaComputeCapability", byref(version), byref(version, sizeof(c_int))),
    )
    architecture = device.number("architecture", ("nvmlDeviceGetArchitecture",))
    return {
        "bus_id": f"{pci.domain:04x}:{pci.bus:02x}:{pci.device:02x}.0" if on_pci else None,
        "compute_capability": f"{version[0]}.{version[1]}" if has_cuda else None,
        "architecture": None if architecture is None else _ARCHITECTURES.get(architecture),
    }


def _memory(device: _Device) -> dict[str, int]:
    new, old = _versioned(_MemoryV2, 2), _MemoryV1()
    name = device.ask(
        "memory_total_mib memory_used_mib memory_free_mib",
        ("nvmlDeviceGetMemoryInfo_v2", byref(new)),
        ("nvmlDeviceGetMemoryInfo", byref(old)),
    )
    if not name:
        return {}
    memory = new if name.endswith("_v2") else old
    parts = ("total", "used", "free", "reserved") if memory is new else ("total", "used", "free")
    return {f"memory_{part}_mib": getattr(memory, part) // _MIB for part in parts}


def _readings(device: _Device) -> dict[str, t.Any]:
    busy = (c_uint * 2)()
    has_load = device.ask(
        "utilization_gpu_percent utilization_memory_percent", ("nvmlDeviceGetUtilizationRates", byref(busy))
    )
    new, old = _versioned(_Temperature, 1), c_uint()
    sensor = device.ask(
        "temperature_gpu_c", ("nvmlDeviceGetTemperatureV", byref(new)), ("nvmlDeviceGetTemperature", 0, byref(old))
    )
    margin = _versioned(_MarginTemperature, 1)
    has_margin = device.ask("temperature_margin_c", ("nvmlDeviceGetMarginTemperature", byref(margin)))
    least = c_uint()
    limit = device.number("power_limit_max_w", ("nvmlDeviceGetPowerManagementLimitConstraints", byref(least)))
    return {
        "utilization_gpu_percent": busy[0] if has_load else None,
        "utilization_memory_percent": busy[1] if has_load else None,
        "temperature_gpu_c": None if not sensor else new.value if sensor.endswith("V") else old.value,
        "temperature_margin_c": margin.value if has_margin else None,
        "power_limit_max_w": _watts(limit),
        "throttle_reasons": _throttle_reasons(device),
    }


def _throttle_reasons(device: _Device) -> list[str] | None:
    mask = device.number(
        "throttle_reasons",
        ("nvmlDeviceGetCurrentClocksEventReasons",),
        ("nvmlDeviceGetCurrentClocksThrottleReasons",),
        kind=c_ulonglong,
    )
    if mask is None:
        return None
    known = [name for bit, name in enumerate(_THROTTLE_REASONS) if mask >> bit & 1]
    later = mask >> len(_THROTTLE_REASONS) << len(_THROTTLE_REASONS)
    return [*known, *([f"{later:#x}"] if later else [])]


def _modes(device: _Device) -> dict[str, t.Any]:
    compute = device.number("compute_mode", ("nvmlDeviceGetComputeMode",))
    state = device.number("performance_state", ("nvmlDeviceGetPerformanceState",))
    return {
        **device.flags("persistence_mode", "nvmlDeviceGetPersistenceMode"),
        **device.flags("ecc_mode_current ecc_mode_pending", "nvmlDeviceGetEccMode"),
        **device.flags("mig_mode_current mig_mode_pending", "nvmlDeviceGetMigMode"),
        "compute_mode": None if compute is None else _COMPUTE_MODES.get(compute),
        # 32 is unknown
        "performance_state": f"P{state}" if state is not None and state < 32 else None,
    }


def _damage(device: _Device) -> dict[str, t.Any]:
    ecc = {
        key: _group(
            corrected=device.number(key, ("nvmlDeviceGetTotalEccErrors", 0, counter), kind=c_ulonglong),
            uncorrected=device.number(key, ("nvmlDeviceGetTotalEccErrors", 1, counter), kind=c_ulonglong),
        )
        for counter, key in enumerate(("ecc_errors_volatile", "ecc_errors_aggregate"))
    }
    sram = _versioned(_SramErrors, 1)
    has_sram = device.ask("ecc_sram_threshold_exceeded", ("nvmlDeviceGetSramEccErrorStatus", byref(sram)))
    memory, action, single, double, retiring, correctable, uncorrectable, pending, failure = device.fields(
        [(key, field_id, 0) for key, field_id in _FIELDS]
    )
    return {
        **ecc,
        "ecc_sram_threshold_exceeded": bool(sram.threshold_exceeded) if has_sram else None,
        "temperature_memory_c": memory,
        "recovery_action": None if action is None else _RECOVERY_ACTIONS.get(action, f"action {action}"),
        "retired_pages": _group(single_bit=single, double_bit=double, pending=_flag(retiring)),
        "remapped_rows": _group(
            correctable=correctable, uncorrectable=uncorrectable, pending=_flag(pending), failure=_flag(failure)
        ),
    }


def _mig_devices(device: _Device) -> list[dict[str, t.Any]]:
    found = []
    for index, child in device.mig_devices():
        memory = _memory(child)
        # "NVIDIA A100-SXM4-40GB MIG 1g.5gb"
        profile = (child.text("name", "nvmlDeviceGetName") or "").rpartition(" MIG ")
        found.append(
            {
                "index": index,
                "uuid": child.text("uuid", "nvmlDeviceGetUUID"),
                "profile": profile[2] if profile[1] else None,
                "gpu_instance_id": child.number("gpu_instance_id", ("nvmlDeviceGetGpuInstanceId",)),
                "compute_instance_id": child.number("compute_instance_id", ("nvmlDeviceGetComputeInstanceId",)),
                "memory_total_mib": memory.get("memory_total_mib"),
                "memory_used_mib": memory.get("memory_used_mib"),
            }
        )
        if child.errors:
            device.errors["mig_devices"] = next(iter(child.errors.values()))
        device.lost = device.lost or child.lost
    return found


def _nvlinks(device: _Device) -> list[dict[str, t.Any]] | None:
    states = dict(device.nvlink_states())
    if not states:
        return None
    # Drivers before 510 have one speed for all links.
    wanted = [("nvlinks", _FIELD_NVLINK_SPEED, link) for link in states]
    *speeds, common = device.fields([*wanted, ("nvlinks", _FIELD_NVLINK_COMMON_SPEED, 0)])
    links = []
    for (link, active), own in zip(states.items(), speeds):
        speed = common if own is None else own
        links.append(
            {"link": link, "active": active, "speed_gbyte_s": speed / 1000 if active and speed is not None else None}
        )
    return links


def _fabric(device: _Device) -> dict[str, t.Any] | None:
    structs = (_versioned(_FabricV3, 3), _versioned(_FabricV2, 2), _FabricV1())
    names = ("nvmlDeviceGetGpuFabricInfoV", "nvmlDeviceGetGpuFabricInfoV", "nvmlDeviceGetGpuFabricInfo")
    for name, fabric in zip(names, structs):
        if device.ask("fabric", (name, byref(fabric))):
            break
    else:
        return None
    if fabric.state not in _FABRIC_STATES:
        return None
    status = device.error_text(fabric.status) if fabric.status else "Success"
    return {
        "state": _FABRIC_STATES[fabric.state],
        "status": status if fabric.state == _FABRIC_COMPLETED else None,
        "health": _FABRIC_HEALTH.get(getattr(fabric, "health", 0)),
    }
