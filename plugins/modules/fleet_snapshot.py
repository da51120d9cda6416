#!/usr/bin/python
# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_snapshot
short_description: Print a status table of the fleet
version_added: 0.1.0
description:
  - Takes what the roles of this collection have noted of each node, names aliases that end on one and the same machine,
    and prints a table with the cause and the next command for each node that failed.
  - Runs on the control node, reads nothing else and changes nothing.
notes:
  - It prints where the stdout callback is one for people, such as C(default). With any other, such as
    C(ansible.posix.json), the return values are all.
author:
  - gpuops.fleet contributors (@gpuops)
extends_documentation_fragment:
  - gpuops.fleet._attributes
  - gpuops.fleet._attributes.read_only
options:
  nodes:
    description: The nodes, in the order in which they are shown.
    type: list
    elements: dict
    required: true
    suboptions:
      host:
        description: The name in the inventory.
        type: str
        required: true
      alias:
        description: The short name.
        type: str
        required: true
      address:
        description: Host and port.
        type: str
      reachable:
        description: Whether a new connection logged in by key.
        type: bool
      hardened:
        description: Whether sshd offers no login by password.
        type: bool
      machine:
        description:
          - What tells this machine from all others. Nodes with the same one are the same machine.
          - Empty means that it is not known.
        type: str
        default: ""
      gpus:
        description: The names of the GPUs, one entry each.
        type: list
        elements: str
        default: []
      driver:
        description: The version of the driver.
        type: str
      cuda:
        description: The newest CUDA that the driver supports.
        type: str
      state:
        description: The state that M(gpuops.fleet.gpu_probe) gave.
        type: str
      host_key:
        description: The fingerprint of the host key. Machines that share one are named below the table.
        type: str
      problems:
        description:
          - What failed, as modules of this collection return it, each with C(what), C(seen), C(remedy) and C(where).
        type: list
        elements: dict
        default: []
      failure:
        description: What failed where there is only a message, as that of another module.
        type: str
        default: ""
"""

EXAMPLES = r"""
- name: Show the fleet
  gpuops.fleet.fleet_snapshot:
    nodes:
      - host: gpu-1
        alias: gpu-1
        address: 203.0.113.10:22
        reachable: true
        hardened: true
        gpus: [NVIDIA L40S, NVIDIA L40S]
        driver: 570.148.08
        cuda: "12.8"
        state: ok
      - host: gpu-2
        alias: gpu-2
        address: 203.0.113.11:22
        reachable: false
        problems:
          - what: nobody listens
            remedy: ssh -p 22 -v root@203.0.113.11
  run_once: true
"""

RETURN = r"""
nodes:
  description: The nodes as given, with the failures that only show when they are compared.
  type: list
  elements: dict
  returned: success
failures:
  description: For each node that failed, by its name in the inventory, what failed, and after C(Next:) what to type.
  type: dict
  returned: success
  sample: {gpu-2: "gpu-2: nobody listens. Next: ssh -p 22 -v root@203.0.113.11"}
shared_host_keys:
  description: Each host key that several machines show, with the aliases of these, and the command to type.
  type: list
  elements: dict
  returned: success
  sample:
    - host_key: SHA256:ycV9Ucl4glKj
      aliases: [gpu-1, gpu-2]
      remedy: ansible-playbook site.yml -e sshd_hardening_replace_host_key=SHA256:ycV9Ucl4glKj
"""
