#!/usr/bin/python
# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ssh_doctor_verdict
short_description: Set the task result to ok, failed or unreachable
version_added: 0.2.0
author: gpuops.fleet contributors (@gpuops)
description:
  - Turns a verdict of M(gpuops.fleet.ssh_doctor_report) or M(gpuops.fleet.fleet_audit_report) into Ansible's own.
    So C(ansible-playbook) ends with 4 when a node is V(unreachable), else with 2 when one has a V(warning), and the
    C(PLAY RECAP) counts the node as such.
  - Runs on the control node and does nothing else.
extends_documentation_fragment:
  - gpuops.fleet._attributes
  - gpuops.fleet._attributes.read_only
options:
  verdict:
    description:
      - V(unreachable) ends the node as unreachable, V(warning) as failed. V(well) is a success.
    type: str
    required: true
    choices: [well, warning, unreachable]
seealso:
  - module: gpuops.fleet.ssh_doctor_report
  - module: gpuops.fleet.fleet_audit_report
"""

EXAMPLES = r"""
- name: Count the sick nodes as failed or unreachable
  gpuops.fleet.ssh_doctor_verdict:
    verdict: "{{ doctor_report.nodes[inventory_hostname].verdict }}"
"""

RETURN = r"""
msg:
  description: Where to read on.
  type: str
  returned: when the verdict is not V(well)
  sample: the report above says why, and what to type
"""
