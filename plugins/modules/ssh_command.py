#!/usr/bin/python
# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: ssh_command
short_description: "[INTERNAL] Run ssh on the control node"
version_added: 0.2.0
description:
  - Used by the roles of this collection only; it may change without notice.
  - Runs a program like C(ansible.builtin.command) delegated to the control node, without a terminal, without questions
    and with a deadline, and fails never. It starts no Python, which is most of what such a task costs.
  - Runs in check mode too.
author:
  - gpuops.fleet contributors (@gpuops)
extends_documentation_fragment:
  - gpuops.fleet._attributes
  - gpuops.fleet._attributes.read_only
options:
  cmd:
    description: The command line, quoted as for a shell. No shell is started.
    type: str
    required: true
  deadline:
    description: Seconds after which the program is ended.
    type: float
    default: 60
"""

EXAMPLES = r"""
- name: Test the login
  gpuops.fleet.ssh_command:
    cmd: ssh -o BatchMode=yes {{ alias | quote }} true
  register: login
"""

RETURN = r"""
rc:
  description: The exit code of the program; 124 if it did not end in time, 127 if it is not there.
  type: int
  returned: success
  sample: 255
stdout:
  description: What it wrote, without the line breaks at the end.
  type: str
  returned: success
  sample: ""
stderr:
  description: What it wrote of errors, without the line breaks at the end.
  type: str
  returned: success
  sample: "ssh: connect to host 192.0.2.11 port 22: Connection refused"
"""
