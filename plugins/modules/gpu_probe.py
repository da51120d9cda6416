# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_probe
short_description: Gather information about NVIDIA GPUs and check their health
version_added: 0.1.0
description:
  - Asks a node once, over the connection that is there, and gives one typed answer for a healthy or a sick machine.
  - Reads C(/proc), C(/sys), C(/dev) and the kernel log, and runs C(nvidia-smi) when the kernel driver is loaded (and on
    WSL). Without a loaded driver C(nvidia-smi) is not started, since as root it makes device nodes and may load the
    driver.
  - A sick node is an answer, not a failure of the task, unless O(fail_on) says otherwise. The task fails on wrong
    options, or when the node gives no answer; the message then names the host and the next command.
author: gpuops.fleet contributors (@gpuops)
options:
  deadline:
    description:
      - Seconds after which what runs on the node is killed and left behind; RV(state) is V(unresponsive) if that was
        C(nvidia-smi -q -x).
      - The answer comes at most about two seconds later, also when C(nvidia-smi) cannot be killed.
      - The task keyword C(async), when shorter, takes its place, and so does C(timeout) without the three seconds that
        are left for the way.
      - At least 1.
    type: int
    default: 60
  expect:
    description:
      - What the node must have. Each given key adds one check to RV(health); it does not change RV(state).
    type: dict
    suboptions:
      count:
        description: Number of usable GPUs, which the driver lists and which are not lost.
        type: int
      model:
        description: Part of the name of every GPU, in upper or lower case.
        type: str
      memory:
        description: Memory of every GPU in MiB, give or take 3 %.
        type: int
        version_added: 0.2.0
      min_driver:
        description: Lowest driver version, such as V(550.90.07), compared number by number.
        type: str
      cuda:
        description: CUDA version that the driver must be able to run, such as V(12.8).
        type: str
        version_added: 0.2.0
      nvlinks:
        description: Active NVLinks of every GPU.
        type: int
        version_added: 0.2.0
      pcie_width:
        description: PCIe lanes of every GPU.
        type: int
        version_added: 0.2.0
      ecc:
        description: Whether ECC is on.
        type: bool
        version_added: 0.2.0
      mig:
        description: Whether MIG is on.
        type: bool
        version_added: 0.2.0
      persistence:
        description: Whether persistence mode is on.
        type: bool
        version_added: 0.2.0
  fields:
    description:
      - Ask for less. State, GPUs, MIG and evidence are always there; what is not asked for is neither gathered nor
        returned, and its checks are not made.
      - V(driver) is all of RV(driver) but versions of the loaded driver, and V(processes), V(nvlinks), V(topology),
        V(kernel_events) and V(health) the return values of these names.
    type: list
    elements: str
    choices: [driver, health, kernel_events, nvlinks, processes, topology]
    default: [driver, health, kernel_events, nvlinks, processes, topology]
    version_added: 0.2.0
  backend:
    description:
      - Who reads the GPUs.
      - V(auto) takes C(nvidia-smi), and NVML when C(nvidia-smi) is missing or cannot answer for the healthy GPUs
        because of a sick one, and the node has Python.
      - V(nvidia_smi) is never NVML.
      - V(nvml) is the driver's library, by Python on the node (3.8 or newer; nothing is installed), without
        C(nvidia-smi).
      - V(sysfs) starts neither, so that the GPUs come from PCI alone, and RV(state) is V(unknown) when the driver is
        loaded.
    type: str
    choices: [auto, nvidia_smi, nvml, sysfs]
    default: auto
    version_added: 0.2.0
  kernel_log_hours:
    description:
      - Look for RV(kernel_events) in the last so many hours, over reboots, as far as the journal goes.
      - V(0) is since the node started.
    type: int
    default: 0
    version_added: 0.2.0
  policy:
    description:
      - Changes to the health policy of the collection, by the ids of its checks; see C(docs/see.md).
    type: dict
    default: {}
    version_added: 0.2.0
  fail_on:
    description:
      - Fail the task for a check of RV(health) that failed with at least this severity.
      - With V(critical) and V(warning), a RV(state) that is not V(ok) always fails the task, whatever its severity, but
        for V(no_gpu) where O(expect.count) is 0.
      - An expectation that cannot be told fails it like one that is missed. As a rule both are critical, see O(policy).
      - The answer is returned all the same.
    type: str
    choices: [none, critical, warning]
    default: none
    version_added: 0.2.0
requirements:
  - "On the node: a POSIX shell (dash, bash or busybox) and coreutils or busybox. No Python, except for NVML."
notes:
  - C(nvidia-smi) and NVML are never started while C(/sys) and C(/proc) say that the driver is not loaded, but on WSL;
    where it is loaded and the user is root, they may make device nodes C(/dev/nvidia*) that are missing.
  - The environment variable E(GPUOPS_SYSROOT) on the node, set with the task keyword C(environment), is put before
    all that is read of C(/proc), C(/sys), C(/dev), C(/run), C(/var), C(/boot), C(/lib/modules), C(/usr/lib),
    C(/usr/lib64) and C(/.dockerenv), for labs and recordings. The kernel log is then the file C(/dev/kmsg) below it,
    and a kernel module is a text as C(modinfo) prints it. The answer is marked as RV(simulated).
  - C(nvidia-smi), C(nv-fabricmanager) and C(nvidia-ctk) are found by E(PATH), and in C(/usr/sbin), C(/sbin) and
    C(/usr/lib/wsl/lib), and the library of NVML by the loader, with E(GPUOPS_SYSROOT) too.
  - At most 8 MiB of output of C(nvidia-smi) is read. It goes to a directory of its own in C(/dev/shm), else E(TMPDIR),
    C(/tmp) or C(/var/tmp), which is removed at the end.
  - GPUs that are bound to C(vfio-pci), and GPUs of the host that a container was not given, are neither listed
    nor missed.
  - With C(async) and C(poll=0) the task waits for the answer all the same, and leaves it for
    C(ansible.builtin.async_status).
extends_documentation_fragment:
  - gpuops.fleet._attributes
  - gpuops.fleet._attributes.read_only
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

- name: Stop at a node that should not get work
  gpuops.fleet.gpu_probe:
    fail_on: critical

- name: Ask for no more than the GPUs and their checks
  gpuops.fleet.gpu_probe:
    fields: [health]

- name: Look back over reboots, and take Xid 64 less seriously
  gpuops.fleet.gpu_probe:
    kernel_log_hours: 48
    policy:
      kernel_events:
        xids:
          64: {severity: warning}

- name: Read by NVML, for the links and instances that nvidia-smi does not show
  gpuops.fleet.gpu_probe:
    backend: nvml
"""

RETURN = r"""
state:
  description:
    - V(ok) - the driver answers, lists every GPU that PCI shows for this host, and no reading of it failed.
    - V(degraded) - C(nvidia-smi) or NVML answers, but a GPU cannot be opened, is on PCI and not listed, has unreadable
      fields, or the exit code reports a problem.
    - V(no_gpu) - no NVIDIA GPU for this host.
    - V(driver_missing) - a GPU on PCI, no driver is loaded, and no part of one is on disk. Without V(driver) in
      O(fields), only C(nvidia-smi) and the module of the running kernel are looked for, else also modules of other
      kernels, DKMS and the library.
    - V(driver_not_loaded) - a part of a driver is on disk, such as C(nvidia-smi) or a kernel module, but the kernel
      driver is not loaded or does not answer C(nvidia-smi). Whether there is a GPU on PCI is said in RV(summary).
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
backend:
  description: Who read the GPUs, V(nvidia_smi), V(nvml), or V(sysfs) when neither could.
  type: str
  returned: success
  sample: nvidia_smi
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
problems:
  description: What failed, as data from which C(msg) is made.
  type: list
  elements: dict
  returned: failure
  sample:
    - what: gpu_probe
      seen: "8x NVIDIA H100 80GB HBM3, driver 570.148.08, CUDA 12.8: gpu_lost"
      remedy: dmesg | grep -iE "NVRM|Xid"
      where: ""
      host: gpu-1
driver:
  description:
    - The driver, on disk and loaded. Without V(driver) in O(fields) only RV(driver.version), RV(driver.cuda_version),
      RV(driver.loaded) and RV(driver.kernel_module_version).
  type: dict
  returned: success
  contains:
    version:
      description:
        - Version of the loaded driver as C(nvidia-smi) or NVML reports it, else the kernel module's, else
          null.
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
    kernel_module_flavor:
      description: V(open) or V(proprietary), null when unknown.
      type: str
      sample: open
    module_on_disk_version:
      description:
        - Version of the module that the running kernel would load, null when unknown, as where the module that was
          found is of another branch than the library.
      type: str
      sample: 570.148.08
    user_space_version:
      description: Version of C(libnvidia-ml) on disk, null when unknown.
      type: str
      sample: 570.148.08
    dkms:
      description:
        - Whether DKMS has the driver, and whether the running kernel and the one that would start next have a module of
          it, from DKMS or a package; null when unknown, or where no kernel has one and neither has DKMS.
      type: dict
      sample: {registered: true, running_kernel: true, next_kernel: true, next_kernel_release: 6.1.0-41-amd64}
    nouveau_loaded:
      description: Whether nouveau is loaded.
      type: bool
      sample: false
    secure_boot:
      description: Whether Secure Boot is on, null when unknown.
      type: bool
      sample: false
    fabric_manager:
      description: Whether the fabric manager is installed and running, and its version; null for what is not known.
      type: dict
      sample: {installed: true, running: true, version: 570.148.08}
    persistence_daemon_running:
      description: Whether C(nvidia-persistenced) runs, null when unknown.
      type: bool
      sample: true
    container_toolkit_version:
      description: Version of the NVIDIA Container Toolkit, null when it is not installed.
      type: str
      sample: 1.17.8
    peermem_loaded:
      description: Whether C(nvidia_peermem) is loaded.
      type: bool
      sample: false
    reboot_pending:
      description: Whether a reboot is due, by the driver or by the distribution.
      type: bool
      sample: false
    reboot_reason:
      description: Why, empty when none is due.
      type: str
      sample: ""
gpus:
  description:
    - The GPUs in the order of C(nvidia-smi), then those that the driver cannot open, known from PCI alone.
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
      description: Product name; of a GPU that the driver cannot open, the name of its PCI id.
      type: str
      sample: NVIDIA H100 80GB HBM3
    architecture:
      description: Architecture.
      type: str
      sample: Hopper
    compute_capability:
      description: CUDA compute capability.
      type: str
      sample: "9.0"
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
    memory_free_mib:
      description: Free memory in MiB.
      type: int
      sample: 81075
    memory_reserved_mib:
      description: Memory that the driver keeps, in MiB.
      type: int
      sample: 480
    utilization_gpu_percent:
      description: Part of the time in which the GPU was busy, in percent.
      type: int
      sample: 0
    utilization_memory_percent:
      description: Part of the time in which its memory was busy, in percent.
      type: int
      sample: 0
    temperature_gpu_c:
      description: Temperature in degrees Celsius.
      type: int
      sample: 29
    temperature_memory_c:
      description: Temperature of the memory in degrees Celsius.
      type: int
      sample: 37
    temperature_slowdown_c:
      description:
        - Temperature in degrees Celsius at which the GPU slows down, null where the driver has a margin
          instead.
      type: int
      sample: 87
    temperature_shutdown_c:
      description: Temperature in degrees Celsius at which the GPU stops, null where the driver has a margin instead.
      type: int
      sample: 90
    temperature_margin_c:
      description:
        - Degrees that are left before the GPU slows down; more is cooler. Null where the driver has
          thresholds instead.
      type: int
      sample: 58
    power_draw_w:
      description: Power in watts, the average where the driver has one.
      type: float
      sample: 68.57
    power_limit_w:
      description: Limit in force, in watts.
      type: float
      sample: 700.0
    power_limit_default_w:
      description: Limit from the factory, in watts.
      type: float
      sample: 700.0
    power_limit_max_w:
      description: Highest limit that can be set, in watts.
      type: float
      sample: 700.0
    clock_graphics_mhz:
      description: Graphics clock in MHz.
      type: int
      sample: 345
    clock_sm_mhz:
      description: Clock of the streaming multiprocessors in MHz.
      type: int
      sample: 345
    clock_memory_mhz:
      description: Memory clock in MHz.
      type: int
      sample: 2619
    clock_graphics_max_mhz:
      description: Highest graphics clock in MHz.
      type: int
      sample: 1980
    clock_sm_max_mhz:
      description: Highest clock of the streaming multiprocessors in MHz.
      type: int
      sample: 1980
    clock_memory_max_mhz:
      description: Highest memory clock in MHz.
      type: int
      sample: 2619
    performance_state:
      description: Performance state, V(P0) is the fastest.
      type: str
      sample: P0
    throttle_reasons:
      description:
        - Why the clocks are not at their highest, such as V(gpu_idle), V(sw_power_cap) or
          V(hw_thermal_slowdown).
      type: list
      elements: str
      sample: [gpu_idle]
    persistence_mode:
      description: Whether persistence mode is on.
      type: bool
      sample: true
    compute_mode:
      description: Who may compute.
      type: str
      sample: Default
    ecc_mode_current:
      description: Whether ECC is on.
      type: bool
      sample: true
    ecc_mode_pending:
      description: Whether it will be after the next reset.
      type: bool
      sample: true
    ecc_errors_volatile:
      description: ECC errors since the driver was loaded.
      type: dict
      sample: {corrected: 0, uncorrected: 0}
    ecc_errors_aggregate:
      description: ECC errors of the GPU's life.
      type: dict
      sample: {corrected: 0, uncorrected: 0}
    ecc_sram_threshold_exceeded:
      description: Whether there were too many errors of the SRAM.
      type: bool
      sample: false
    retired_pages:
      description: Memory pages that are out of use, on GPUs before Ampere.
      type: dict
      sample: {single_bit: 0, double_bit: 0, pending: false}
    remapped_rows:
      description: Memory rows that are replaced by spare ones, on Ampere and later.
      type: dict
      sample: {correctable: 0, uncorrectable: 0, pending: false, failure: false}
    mig_mode_current:
      description: Whether MIG is on.
      type: bool
      sample: false
    mig_mode_pending:
      description: Whether it will be after the next reset.
      type: bool
      sample: false
    pcie_link_gen_current:
      description: PCIe generation in use; an idle GPU goes down to 1.
      type: int
      sample: 5
    pcie_link_gen_max:
      description: Highest PCIe generation of GPU and slot.
      type: int
      sample: 5
    pcie_link_width_current:
      description: PCIe lanes in use.
      type: int
      sample: 16
    pcie_link_width_max:
      description: Highest number of PCIe lanes.
      type: int
      sample: 16
    pcie_replay_count:
      description: PCIe packets that were sent again.
      type: int
      sample: 0
    numa_node:
      description: NUMA node.
      type: int
      sample: 0
    fabric:
      description: State of the GPU in its NVSwitch fabric.
      type: dict
      sample: {state: Completed, status: Success, health: Healthy}
    recovery_action:
      description: What the driver asks for, in lower case.
      type: str
      sample: none
    mig_devices:
      description:
        - MIG devices, each with its number in C(nvidia-smi -L), the ids of its instances, its profile and its memory.
      type: list
      elements: dict
      sample:
        - index: 0
          uuid: MIG-1f7c2a0e-8a52-5c0e-9d5e-0f6b7c1d2e3f
          profile: 3g.40gb
          gpu_instance_id: 2
          compute_instance_id: 0
          memory_total_mib: 40448
          memory_used_mib: 13
    nvlinks:
      description:
        - NVLinks, those that are alike together; null when nobody could tell.
        - C(links) has their numbers, C(count) says how many they are.
      type: list
      elements: dict
      sample:
        - {links: "0-4,6-17", count: 17, active: true, speed_gbyte_s: 26.562}
        - {links: "5", count: 1, active: false, speed_gbyte_s: null}
    processes:
      description: Processes on the GPU, null when nobody could tell.
      type: list
      elements: dict
      sample:
        - pid: 4242
          name: python3
          type: C
          memory_used_mib: 1024
          gpu_instance_id: null
          compute_instance_id: null
    errors:
      description:
        - For each of these keys that could not be read, the text that the driver gave instead.
        - The key V(handle) is a GPU that the driver could not open.
      type: dict
      sample: {}
topology:
  description: How GPUs and network cards are connected.
  type: dict
  returned: success
  contains:
    matrix:
      description:
        - For each GPU the kind of connection to each other one and to each network card, in the words of
          C(nvidia-smi topo -m).
      type: dict
      sample: {GPU0: {GPU1: NV18, NIC0: PXB}}
    gpus:
      description: The processors near each GPU.
      type: list
      elements: dict
      sample:
        - {index: 0, cpu_affinity: 0-55, numa_node: 0}
    nics:
      description: InfiniBand and RoCE devices.
      type: list
      elements: dict
      sample:
        - {label: NIC0, name: mlx5_0, bus_id: "0000:18:00.0", numa_node: 0}
    nvswitches:
      description: PCI addresses of the NVSwitches.
      type: list
      elements: str
      sample: ["0000:07:00.0"]
kernel_events:
  description: What the kernel log says about the GPUs.
  type: dict
  returned: when O(fields) has V(kernel_events)
  contains:
    source:
      description: V(dmesg), V(journal), V(kmsg) for a recording, or V(none).
      type: str
      sample: dmesg
    complete:
      description:
        - Whether the log goes back to the start of the time that was asked for. V(false) also when it was not read.
      type: bool
      sample: true
    since_seconds:
      description: Length of that time in seconds, null when there is no log.
      type: float
      sample: 86400.0
    error:
      description: Why the log could not be read, empty when it was.
      type: str
      sample: ""
    events:
      description: Xids, SXids and other messages of the driver, repeated ones as one.
      type: list
      elements: dict
      contains:
        kind:
          description:
            - V(bus_loss) is a GPU that fell off the bus without an Xid, V(driver) another message of the driver.
          type: str
          choices: [xid, sxid, bus_loss, driver]
          sample: xid
        code:
          description: Number of the Xid or SXid, null for the other kinds.
          type: int
          sample: 79
        mnemonic:
          description: NVIDIA's name for the Xid, null when there is none.
          type: str
          sample: ROBUST_CHANNEL_GPU_HAS_FALLEN_OFF_THE_BUS
        description:
          description: What the Xid means in NVIDIA's catalogue, null when it is not in there.
          type: str
          sample: GPU has fallen off the bus
        bus_id:
          description: PCI address of the GPU or NVSwitch, null when the log does not name it.
          type: str
          sample: "0000:4c:00.0"
        gpu_index:
          description: Index of the GPU, null when it is not listed.
          type: int
          sample: 3
        uuid:
          description: UUID of the GPU, null when unknown.
          type: str
          sample: GPU-3c6f2a0e-8a52-4c0e-9d5e-0f6b7c1d2e3f
        gpu_instance:
          description: MIG GPU instance, null for the whole GPU.
          type: int
          sample: 5
        compute_instance:
          description: MIG compute instance, null for a whole GPU instance.
          type: int
          sample: 0
        link:
          description: Number of the NVLink, null when it is not about one.
          type: int
          sample: null
        pid:
          description: Process, null when unknown.
          type: int
          sample: 4242
        process:
          description: Name of the process, null when unknown.
          type: str
          sample: python3
        message:
          description: What the driver said.
          type: str
          sample: GPU has fallen off the bus.
        count:
          description: How often.
          type: int
          sample: 1
        first_seconds:
          description: When first, in seconds after the node started; negative is before that.
          type: float
          sample: 812.4
        last_seconds:
          description: When last, in seconds after the node started; negative is before that.
          type: float
          sample: 812.4
        age_seconds:
          description: How long ago that was, in seconds.
          type: float
          sample: 604.2
        bucket:
          description: Kind of resolution in NVIDIA's catalogue, null when it is not in there.
          type: str
          sample: RESTART_BM
        action:
          description: What to do.
          type: str
          choices: [none, restart_app, reset_gpu, drain, reboot, check_power, update, contact_support]
          sample: reboot
        severity:
          description: Weight, as the action without the changes of O(policy), which are for RV(health).
          type: str
          choices: [critical, warning, info]
          sample: critical
        cleared:
          description: Whether a reset, a reboot or a newly loaded driver has ended it.
          type: bool
          sample: false
evidence:
  description: What RV(state) follows from. For a healthy node only the run of C(nvidia-smi).
  type: list
  elements: dict
  returned: success
  contains:
    command:
      description: Command by which a person sees the same on the node, or the library of NVML.
      type: str
      sample: nvidia-smi -q -x
    rc:
      description: Exit code, or what NVML returned; null when it did not end.
      type: int
      sample: 15
    output:
      description: First 2 KiB of the output. For a whole XML document only the text around it.
      type: str
      sample: "Unable to determine the device handle for GPU 1: GPU is lost.  Reboot the system to recover this GPU"
remedy:
  description: What to do next about RV(state), else about the worst check that failed; empty when there is nothing.
  type: str
  returned: success
  sample: ""
health:
  description:
    - The checks; what they look for is in the policy of the collection, see O(policy).
    - Without V(health) in O(fields) only the check V(state).
  type: list
  elements: dict
  returned: success
  contains:
    id:
      description: Name of the check, such as V(state), V(expect_count) or V(row_remap_failure).
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
      choices: [critical, warning, info]
      sample: critical
    evidence:
      description: What was seen.
      type: str
      sample: 7 usable GPUs, 8 expected
    remedy:
      description: What to do next, empty when the status is V(ok).
      type: str
      sample: Compare `nvidia-smi -L` with `lspci -nn | grep -i 10de` on the node, or correct the expectation.
    action:
      description: Kind of the remedy, such as V(none), V(restart_app), V(reset_gpu), V(reboot), V(drain) or V(rma).
      type: str
      sample: drain
    gpus:
      description: Indices of the GPUs that are concerned, empty for the whole node.
      type: list
      elements: int
      sample: []
probe_seconds:
  description: Seconds that the node took for C(nvidia-smi), the kernel log and files, without the connection and NVML.
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
        - C(health) is what the checks come to, V(ok), V(warning), V(critical), or V(unknown) when the state or an
          expectation cannot be told. It is null without V(health) in O(fields).
      type: dict
      sample:
        state: ok
        health: ok
        count: 8
        names: [NVIDIA H100 80GB HBM3]
        driver_version: 570.148.08
        cuda_version: "12.8"
        simulated: false
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuops.fleet.plugins.module_utils._see.gpu.nvml import read
from ansible_collections.gpuops.fleet.plugins.module_utils._see.gpu.options import ARGUMENT_SPEC


def main() -> None:
    """The half that runs on the node with Python, started by the action plugin when NVML is to be asked."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        module.exit_json(nvml=read(module.params["deadline"]))
    except OSError as error:
        module.fail_json(msg=f"NVML could not be asked, since no process could be started: {error.strerror}")


if __name__ == "__main__":
    main()
