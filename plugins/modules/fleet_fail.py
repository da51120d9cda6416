#!/usr/bin/python
# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_fail
short_description: "[INTERNAL] Fail for a node with problems as data"
version_added: 0.2.0
description:
  - Used by the roles of this collection only; it may change without notice.
  - Fails like C(ansible.builtin.fail), and returns what failed as data. The table at the end of a run shows each
    problem with its own remedy. With an empty list it does nothing.
  - Runs on the control node, whatever the connection of the host is, and starts no process.
author:
  - gpuops.fleet contributors (@gpuops)
extends_documentation_fragment:
  - gpuops.fleet._attributes
  - gpuops.fleet._attributes.read_only
options:
  problems:
    description: What failed.
    type: list
    elements: dict
    required: true
    suboptions:
      what:
        description: What failed.
        type: str
        required: true
      seen:
        description: What was seen of it.
        type: str
        default: ""
      remedy:
        description: The next command to type, or what to do.
        type: str
        default: ""
      where:
        description: Where to type it, V(node) or, if empty, the control node.
        type: str
        choices: ["", node]
        default: ""
      host:
        description: Not used, since a task fails for its own host. Modules of this collection return it.
        type: str
        default: ""
"""

EXAMPLES = r"""
- name: Fail if the command did not succeed
  gpuops.fleet.fleet_fail:
    problems:
      - what: the verification command failed
        seen: "exit code {{ verified.rc }}"
        remedy: "ssh {{ inventory_hostname }} {{ command | quote }}"
  when: verified.rc != 0
"""

RETURN = r"""
problems:
  description: The problems, each with the host.
  type: list
  elements: dict
  returned: failure
  sample:
    - {what: the verification command failed, seen: exit code 2, remedy: ssh gpu-1 true, where: "", host: gpu-1}
"""
