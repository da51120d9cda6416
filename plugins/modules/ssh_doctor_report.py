#!/usr/bin/python
# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ssh_doctor_report
short_description: Show what ssh_doctor found on all nodes, and what to type
version_added: 0.2.0
author: gpuops.fleet contributors (@gpuops)
description:
  - Takes the results of M(gpuops.fleet.ssh_doctor) of all nodes, compares them with one another, and prints one line
    for each node that is well, the stages of each one that is not, then what to type for each of these, then a summary.
  - Only this comparison finds two names that lead to one machine, and two machines with one host key.
  - Runs on the control node. With C(-v) it prints all stages of all nodes. The colours are Ansible's, so C(NO_COLOR)
    and a file instead of a terminal switch them off.
notes:
  - It prints where the stdout callback is one for people, such as C(default). With any other, such as
    C(ansible.posix.json), the return values are all.
  - The task succeeds whatever was found. M(gpuops.fleet.ssh_doctor_verdict) makes an exit code of it.
extends_documentation_fragment:
  - gpuops.fleet._attributes
attributes:
  check_mode:
    support: full
    details:
      - Prints the same, and does not write O(dest).
  diff_mode:
    support: none
    details:
      - The report is shown already.
  idempotent:
    support: none
    details:
      - The report holds times, so each one differs.
options:
  nodes:
    description: What M(gpuops.fleet.ssh_doctor) returned, by the name of the node, in the order in which it is shown.
    type: dict
    required: true
  dest:
    description:
      - File on the control node for the whole report as JSON, the same as the return values RV(summary) and RV(nodes).
      - It is replaced in one step and readable by all. There are addresses and user names in it, and no secrets.
    type: path
seealso:
  - module: gpuops.fleet.ssh_doctor
  - module: gpuops.fleet.ssh_doctor_verdict
"""

EXAMPLES = r"""
- name: Examine the way to each node
  gpuops.fleet.ssh_doctor:
  register: doctor

- name: Show what was found
  gpuops.fleet.ssh_doctor_report:
    nodes: "{{ dict(ansible_play_hosts | zip(ansible_play_hosts | map('extract', hostvars, 'doctor'))) }}"
    dest: doctor.json
  run_once: true
"""

RETURN = r"""
summary:
  description: How many nodes have which verdict.
  type: dict
  returned: success
  contains:
    well:
      description: Number of nodes with nothing to be done.
      type: int
      sample: 61
    warning:
      description: Number of nodes that can be used, and have warnings.
      type: int
      sample: 2
    unreachable:
      description: Number of nodes that cannot be used.
      type: int
      sample: 1
nodes:
  description:
    - By the name of the node, its verdict (V(well), V(warning) or V(unreachable)) beside the return values of
      M(gpuops.fleet.ssh_doctor), in whose C(concerns) are also the causes V(same_machine) and V(shared_host_key).
  type: dict
  returned: success
  sample:
    gpu-2:
      verdict: unreachable
      ok: false
      cause:
        code: tcp_timeout
        seen: "203.0.113.7: timed out"
"""
