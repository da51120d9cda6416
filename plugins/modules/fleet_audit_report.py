#!/usr/bin/python
# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_audit_report
short_description: Show what fleet_audit found on all nodes, and what to type
version_added: 0.2.0
author: gpuops.fleet contributors (@gpuops)
description:
  - Takes the results of M(gpuops.fleet.fleet_audit) of all nodes, compares their host keys, and prints for each node
    what failed and what is not known, the worst first, each with the next command. A line for the fleet follows.
  - A node without a result, such as one that could not be reached, is listed as not audited.
  - Runs on the control node. With C(-v) it prints the checks that are in order too, and with them who logged in. The
    colours are Ansible's, so C(NO_COLOR) and a file instead of a terminal switch them off.
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
      - Prints the same, and writes no file.
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
    description:
      - What M(gpuops.fleet.fleet_audit) returned, by the name of the node, in the order in which it is shown.
      - Where the task failed or never ran, its failed result or an empty dictionary.
    type: dict
    required: true
  json_dest:
    description:
      - File on the control node for the whole report as JSON, the same as the return values RV(summary) and RV(nodes).
      - It is replaced in one step and readable by all. There are names of accounts and addresses in it, and no secrets.
    type: path
  junit_dest:
    description:
      - File on the control node for the report in the XML of JUnit, with a test suite for each node and a test case for
        each check. What failed is a failure, what is not known is an error, and either is skipped where its severity is
        V(info).
      - Otherwise as O(json_dest).
    type: path
seealso:
  - module: gpuops.fleet.fleet_audit
  - module: gpuops.fleet.ssh_doctor_verdict
"""

EXAMPLES = r"""
- name: Read how the doors stand
  gpuops.fleet.fleet_audit:
  register: audit
  ignore_unreachable: true

- name: Show what was found
  gpuops.fleet.fleet_audit_report:
    nodes: "{{ dict(ansible_play_hosts | zip(ansible_play_hosts | map('extract', hostvars, 'audit'))) }}"
    junit_dest: audit.xml
  run_once: true
"""

RETURN = r"""
summary:
  description:
    - How many checks of all nodes failed, by severity (C(critical), C(high), C(medium), C(low), C(info)), how many
      ended otherwise (C(unknown), C(ok), C(skipped)), and how many nodes were C(not_audited).
  type: dict
  returned: success
  sample: {critical: 0, high: 1, medium: 0, low: 2, info: 2, unknown: 0, ok: 73, skipped: 0, not_audited: 0}
nodes:
  description: By the name of the node, all that is known of it.
  type: dict
  returned: success
  contains:
    verdict:
      description:
        - V(unreachable), or V(warning) when the node could not be audited or a check of severity V(high) or V(critical)
          failed or is unknown, else V(well).
      type: str
      sample: warning
    reason:
      description: Why the node was not audited, or empty.
      type: str
      sample: ""
    remedy:
      description: The next command for a node that was not audited.
      type: str
      sample: ansible-playbook gpuops.fleet.doctor --limit gpu-1
    checks:
      description: As returned by M(gpuops.fleet.fleet_audit), and with C(host_key_shared) judged.
      type: list
      elements: dict
      sample: []
    host_keys:
      description: As returned by M(gpuops.fleet.fleet_audit).
      type: list
      elements: str
      sample: []
"""
