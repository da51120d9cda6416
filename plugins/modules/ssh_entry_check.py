#!/usr/bin/python
# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: ssh_entry_check
short_description: "[INTERNAL] Check what the inventory says of one node before ssh is given it"
version_added: 0.2.0
description:
  - Used by the roles of this collection only; it may change without notice.
  - Fails for a node whose alias, address, port, user or jump hosts ssh or a shell would read as something else, such as
    an option, a command or a wildcard, and for what M(gpuops.fleet.ssh_alias) would refuse. The message names the
    variable and the next command.
  - Runs on the control node, whatever the connection of the host is, and starts no process.
author:
  - gpuops.fleet contributors (@gpuops)
extends_documentation_fragment:
  - gpuops.fleet._attributes
  - gpuops.fleet._attributes.read_only
options:
  entry:
    description:
      - The alias of the node, as in O(gpuops.fleet.ssh_alias#module:aliases). Numbers may be texts; what is empty is
        left out.
    type: dict
    required: true
  first_user:
    description: The user of the first login, where it is another one.
    type: str
    default: ""
seealso:
  - module: gpuops.fleet.ssh_alias
"""

EXAMPLES = r"""
- name: Check what the inventory says of the node
  gpuops.fleet.ssh_entry_check:
    entry:
      name: "{{ inventory_hostname }}"
      hostname: "{{ ansible_host }}"
      port: "{{ ansible_port }}"
  register: checked
"""

RETURN = r"""
entry:
  description: The alias as M(gpuops.fleet.ssh_alias) takes it.
  type: dict
  returned: success
  sample: {"name": "gpu-1", "hostname": "192.0.2.11", "port": 22}
"""
