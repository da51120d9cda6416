# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_probe
short_description: Tell what NVIDIA GPUs a node has and whether they work
version_added: 0.1.0
description:
  - Asks a node once, over the connection that is there, and gives one typed answer for a healthy or a sick machine.
  - Reads C(/proc), C(/sys) and C(/dev) and runs C(nvidia-smi -q -x) when the kernel driver is loaded (and on WSL).
    Without a loaded driver C(nvidia-smi) is not started, since as root it makes device nodes and may load the driver.
  - A sick node is an answer, not a failure of the task. The task fails on wrong options, or when the node gives no
    answer; the message then names the host and the next command.
author: gpuops.fleet contributors (@gpuops)
options:
  deadline:
    description:
      - Seconds after which C(nvidia-smi) is killed and left behind; RV(state) is then V(unresponsive).
      - The answer comes at most about two seconds later, also when C(nvidia-smi) cannot be killed.
      - At least 1.
    type: int
    default: 60
  expect:
    description:
      - What the node must have. Each given key adds one check to RV(health); it does not change RV(state).
    type: dict
    suboptions:
      count:
        description: Number of usable GPUs, which C(nvidia-smi) lists and which are not lost.
        type: int
      model:
        description: Part of the name of every GPU, in upper or lower case.
        type: str
      min_driver:
        description: Lowest driver version, such as V(550.90.07), compared number by number.
        type: str
requirements:
  - "On the node: a POSIX shell (dash, bash or busybox) and coreutils or busybox. No Python."
notes:
  - The environment variable E(GPUOPS_SYSROOT) on the node, set with the task keyword C(environment), is put before
    C(/proc), C(/sys), C(/dev) and C(/lib/modules), for labs and recordings. The answer is then marked as RV(simulated).
  - C(nvidia-smi) is found by E(PATH), and in C(/usr/lib/wsl/lib).
  - At most 8 MiB of output of C(nvidia-smi) is read.
  - GPUs that are bound to C(vfio-pci), and GPUs of the host that a container was not given, are neither listed
    nor missed.
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying target.
    support: full
    details: The module only reads, and does the same in check mode.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: none
    details: The module changes nothing.
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
    details: The module changes nothing.
"""

EXAMPLES = r"""
- name: See what the node has
  gpuops.fleet.gpu_probe:
  register: gpu

- name: Show it in one line
  ansible.builtin.debug:
    var: gpu.summary

- name: Probe nodes that must have eight H100
  gpuops.fleet.gpu_probe:
    deadline: 30
    expect:
      count: 8
      model: H100
      min_driver: "550.90.07"
  register: gpu

- name: Stop when a check failed
  ansible.builtin.assert:
    that: gpu.health | selectattr("status", "eq", "fail") | length == 0
    fail_msg: "{{ gpu.summary }} {{ gpu.remedy }}"
"""

RETURN = r"""
state:
  description:
    - V(ok) - the driver answers and lists every GPU.
    - V(degraded) - C(nvidia-smi) answers, but a GPU cannot be opened, is on PCI and not listed, has unreadable fields,
      or the exit code reports a problem.
    - V(no_gpu) - no NVIDIA GPU for this host.
    - V(driver_missing) - a GPU on PCI, but neither a driver nor a tool on disk.
    - V(driver_not_loaded) - C(nvidia-smi) or a kernel module is on disk, but the kernel driver is not loaded or does
      not answer C(nvidia-smi). Whether there is a GPU on PCI is said in RV(summary).
    - V(tools_missing) - the kernel driver is loaded, but C(nvidia-smi) or its library is not there.
    - V(driver_library_mismatch) - kernel driver, library and C(nvidia-smi) are of different versions.
    - V(no_permission) - the user of the connection may not open the GPUs.
    - V(gpu_lost) - at least one GPU is lost (fell off the bus).
    - V(reset_required) - at least one GPU must be reset.
    - V(unresponsive) - C(nvidia-smi) did not end in O(deadline), or left a process behind instead of an answer.
    - V(unknown) - none of these could be told; neither good nor bad, see RV(evidence).
  type: str
  returned: success
  choices:
    - ok
    - degraded
    - no_gpu
    - driver_missing
    - driver_not_loaded
    - tools_missing
    - driver_library_mismatch
    - no_permission
    - gpu_lost
    - reset_required
    - unresponsive
    - unknown
  sample: ok
simulated:
  description: Whether the node answered from E(GPUOPS_SYSROOT), so that this is not real hardware.
  type: bool
  returned: success
  sample: false
summary:
  description: One line for people. It says V(simulated) for a simulated node.
  type: str
  returned: success
  sample: "8x NVIDIA H100 80GB HBM3, driver 570.148.08, CUDA 12.8: ok"
driver:
  description: The driver.
  type: dict
  returned: success
  contains:
    version:
      description: What C(nvidia-smi) reports, else the loaded kernel module's version, else null.
      type: str
      sample: 570.148.08
    cuda_version:
      description: Highest CUDA version of the driver, null when unknown.
      type: str
      sample: "12.8"
    loaded:
      description: Whether the kernel driver is loaded.
      type: bool
      sample: true
    kernel_module_version:
      description: Version of the loaded kernel module, null when none is loaded.
      type: str
      sample: 570.148.08
gpus:
  description:
    - The GPUs in the order of C(nvidia-smi), then those that are only on PCI, of which only the bus id is known.
    - What the driver does not know (V(N/A)) is null.
  type: list
  elements: dict
  returned: success
  contains:
    index:
      description: Position in the list of C(nvidia-smi).
      type: int
      sample: 0
    uuid:
      description: UUID.
      type: str
      sample: GPU-3c6f2a0e-8a52-4c0e-9d5e-0f6b7c1d2e3f
    serial:
      description: Serial number.
      type: str
      sample: "1650000000001"
    name:
      description: Product name.
      type: str
      sample: NVIDIA H100 80GB HBM3
    bus_id:
      description: PCI address in the form of Linux, in lower case.
      type: str
      sample: "0000:1b:00.0"
    vbios_version:
      description: Version of the video BIOS.
      type: str
      sample: 96.00.99.00.01
    memory_total_mib:
      description: Memory in MiB.
      type: int
      sample: 81559
    memory_used_mib:
      description: Used memory in MiB.
      type: int
      sample: 4
    utilization_gpu_percent:
      description: Part of the time in which the GPU was busy, in percent.
      type: int
      sample: 0
    temperature_gpu_c:
      description: Temperature in degrees Celsius.
      type: int
      sample: 29
    power_draw_w:
      description: Power in watts, the average where the driver has one.
      type: float
      sample: 68.57
    persistence_mode:
      description: Whether persistence mode is on.
      type: bool
      sample: true
    ecc_mode_current:
      description: Whether ECC is on.
      type: bool
      sample: true
    mig_mode_current:
      description: Whether MIG is on.
      type: bool
      sample: false
    pcie_link_width_current:
      description: PCIe lanes in use.
      type: int
      sample: 16
    errors:
      description: For each of these keys that could not be read, the text that C(nvidia-smi) gave instead.
      type: dict
      sample: {}
evidence:
  description: What RV(state) follows from. For a healthy node only the run of C(nvidia-smi).
  type: list
  elements: dict
  returned: success
  contains:
    command:
      description: Command by which a person sees the same on the node.
      type: str
      sample: nvidia-smi -q -x
    rc:
      description: Exit code, null when the command did not end.
      type: int
      sample: 15
    output:
      description: First 2 KiB of the output. For a whole XML document only the text around it.
      type: str
      sample: "Unable to determine the device handle for GPU 1: GPU is lost.  Reboot the system to recover this GPU"
remedy:
  description: What to do next about RV(state), empty when there is nothing to do.
  type: str
  returned: success
  sample: ""
health:
  description: One check for RV(state) and one for each key of O(expect).
  type: list
  elements: dict
  returned: success
  contains:
    id:
      description: V(state), V(expect_count), V(expect_model) or V(expect_min_driver).
      type: str
      sample: expect_count
    status:
      description: V(ok), V(fail), or V(unknown), which is neither good nor bad.
      type: str
      choices: [ok, fail, unknown]
      sample: fail
    severity:
      description: Weight of a failure.
      type: str
      choices: [critical, warning]
      sample: critical
    evidence:
      description: What was seen.
      type: str
      sample: 7 usable GPUs, 8 expected
    remedy:
      description: What to do next, empty when the status is V(ok).
      type: str
      sample: Compare `nvidia-smi -L` with `lspci -nn | grep -i 10de` on the node, or correct the expectation.
probe_seconds:
  description: Seconds that the node took to answer, without the connection.
  type: float
  returned: success
  sample: 0.61
ansible_facts:
  description: Facts to keep.
  type: dict
  returned: success
  contains:
    gpu:
      description:
        - The answer in small, with RV(state), C(count) (GPUs that the driver lists), C(names) (each name once),
          C(driver_version), C(cuda_version) and RV(simulated).
      type: dict
      sample:
        state: ok
        count: 8
        names: [NVIDIA H100 80GB HBM3]
        driver_version: 570.148.08
        cuda_version: "12.8"
        simulated: false
"""
