# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_drift
short_description: Report GPU configuration drift between nodes
version_added: 0.2.0
author: gpuops.fleet contributors (@gpuops)
description:
  - Takes the results of M(gpuops.fleet.gpu_probe) of all nodes, compares them, and prints where they differ, each time
    with the value that most nodes have and the nodes that have another one.
  - "Compared between all nodes: the version of the driver, whether its kernel module is the open or the proprietary
    one, the highest CUDA version, and the models of the GPUs."
  - "Compared between nodes that have the same model: the number of these GPUs, their video BIOS, ECC, MIG and
    persistence mode."
  - What a node does not know makes no difference.
  - Runs on the control node.
notes:
  - It prints where the stdout callback is one for people, such as C(default). With any other, such as
    C(ansible.posix.json), the return values are all.
  - The task succeeds whatever was found. A fleet in which groups of nodes are meant to differ is compared group by
    group, with a C(loop).
extends_documentation_fragment:
  - gpuops.fleet._attributes
  - gpuops.fleet._attributes.read_only
options:
  results:
    description:
      - What M(gpuops.fleet.gpu_probe) returned, by the name of the node.
      - Where the task failed or never ran, its failed result or an empty dictionary.
    type: dict
    required: true
seealso:
  - module: gpuops.fleet.gpu_probe
"""

EXAMPLES = r"""
- name: Read the GPUs of all nodes
  gpuops.fleet.gpu_probe:
  register: gpu
  ignore_unreachable: true

- name: Show which nodes are not like the others
  gpuops.fleet.gpu_drift:
    results: "{{ dict(ansible_play_hosts | zip(ansible_play_hosts | map('extract', hostvars, 'gpu'))) }}"
  register: gpu_drift
  run_once: true

- name: Stop when the drivers differ
  ansible.builtin.assert:
    that: gpu_drift.drift | selectattr("what", "eq", "driver_version") | length == 0
    fail_msg: "{{ gpu_drift.summary }}"
  run_once: true
"""

RETURN = r"""
drift:
  description: Each reading in which nodes differ, empty when they are alike.
  type: list
  elements: dict
  returned: success
  contains:
    what:
      description: The reading.
      type: str
      choices: [driver_version, kernel_module_flavor, cuda, models, gpu_count, vbios, ecc, mig, persistence]
      sample: driver_version
    model:
      description: The model of the GPUs for which this was compared, null where all nodes were.
      type: str
      sample: null
    majority:
      description: The value that more nodes have than any other, null when there is none.
      type: str
      sample: 570.148.08
    values:
      description:
        - The nodes that have each value, the value of most nodes first. GPUs of one node that differ give one value, as
          in V(off + on).
      type: dict
      sample:
        570.148.08: [gpu-1, gpu-2]
        550.163.01: [gpu-3]
    differing:
      description: The nodes that have another value than RV(drift[].majority), all of them when there is none.
      type: list
      elements: str
      sample: [gpu-3]
not_probed:
  description: The nodes without a result.
  type: list
  elements: str
  returned: success
  sample: []
summary:
  description: One line for people.
  type: str
  returned: success
  sample: "3 nodes compared: driver_version; not probed: gpu-9"
"""
