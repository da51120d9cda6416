# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The driver of a node, loaded and on disk, as gpu_probe returns it. **PRIVATE** to the collection."""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.answer import NodeAnswer

_VERSION = re.compile(r"^NVRM version:.*?\s(\d+(?:\.\d+)+)\s", re.MULTILINE)


def loaded_version(answer: NodeAnswer) -> str | None:
    """The version of the loaded kernel module."""
    match = _VERSION.search(answer.proc_version + "\n")
    return (match[1] if match else answer.module_version) or None


def driver_facts(answer: NodeAnswer, version: str | None, cuda_version: str | None, *, on_disk: bool) -> dict[str, Any]:
    """RV(driver); version and CUDA version are what nvidia-smi or NVML say. on_disk: whether that was asked for."""
    module = loaded_version(answer)
    facts: dict[str, Any] = {
        "version": version or module,
        "cuda_version": cuda_version,
        "loaded": answer.driver_loaded or version is not None,
        "kernel_module_version": module,
    }
    if on_disk:
        facts.update(_on_disk(answer, module))
    return facts


def _on_disk(answer: NodeAnswer, module: str | None) -> dict[str, Any]:
    host = answer.host
    on_disk = _version_on_disk(answer, module)
    reason = _reboot_reason(answer, module, on_disk)
    return {
        "kernel_module_flavor": _flavor(answer, module, on_disk),
        "module_on_disk_version": on_disk,
        "user_space_version": host.library_version or None,
        "dkms": {
            "registered": host.dkms_registered,
            "running_kernel": _has_module(answer, host.kernel_release),
            "next_kernel": _has_module(answer, host.next_kernel),
            "next_kernel_release": host.next_kernel or None,
        },
        "nouveau_loaded": host.nouveau_loaded,
        "secure_boot": host.secure_boot,
        "fabric_manager": {
            "installed": host.fabric_manager_installed,
            "running": host.fabric_manager_running,
            "version": host.fabric_manager_version or None,
        },
        "persistence_daemon_running": host.persistence_daemon_running,
        "container_toolkit_version": host.container_toolkit_version or None,
        "peermem_loaded": host.peermem_loaded,
        "reboot_pending": bool(reason),
        "reboot_reason": reason,
    }


def _version_on_disk(answer: NodeAnswer, module: str | None) -> str | None:
    """Return the version on disk, None where the file that was read is of another branch than the library."""
    version, library = answer.host.module_on_disk_version, answer.host.library_version
    if library and version != module and version.partition(".")[0] != library.partition(".")[0]:
        return None
    return version or None


def _flavor(answer: NodeAnswer, module: str | None, on_disk: str | None) -> str | None:
    if answer.proc_version:
        return "open" if "Open Kernel Module" in answer.proc_version else "proprietary"
    if on_disk and module in (None, on_disk) and answer.host.module_license:
        return "open" if "MIT" in answer.host.module_license else "proprietary"
    return None


def _has_module(answer: NodeAnswer, kernel: str) -> bool | None:
    """Return whether a kernel finds an NVIDIA module; None where none does, as in a container."""
    kernels = answer.host.module_kernels
    return kernel in kernels if kernel and (kernels or answer.host.dkms_registered) else None


def _reboot_reason(answer: NodeAnswer, module: str | None, on_disk: str | None) -> str:
    host = answer.host
    if module and on_disk and on_disk != module:
        return f"driver {module} is loaded, {on_disk} is installed"
    if module and host.library_version and host.library_version != module:
        return f"driver {module} is loaded, its library is {host.library_version}"
    return "the distribution asks for a reboot" if host.reboot_required else ""
