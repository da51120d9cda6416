#!/usr/bin/python
# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: alias_verify
short_description: "[INTERNAL] Verify the login to a node and its alias from outside"
version_added: 0.2.0
description:
  - Used by the roles of this collection only; it may change without notice.
  - Logs in by a new connection as M(gpuops.fleet.ssh_doctor) does, and then uses the alias as its user would, with the
    user's own OpenSSH and configuration, and without a prompt. It fails with the problems as data.
  - Runs on the control node. In check mode the alias is not used, since it may not be there yet.
author:
  - gpuops.fleet contributors (@gpuops)
extends_documentation_fragment:
  - gpuops.fleet._attributes
  - gpuops.fleet._attributes.read_only
options:
  alias:
    description: The short name of the node.
    type: str
    required: true
  config:
    description: The user's ssh configuration.
    type: path
    required: true
  use:
    description: Whether the alias is used, after the login.
    type: bool
    default: true
  run_nvidia_smi:
    description:
      - Whether C(nvidia-smi -L) is run through the alias. Without a driver, C(nvidia-smi) run by root would make device
        files, and one that hangs would hang once more.
    type: bool
    default: false
  nvidia_smi_must_work:
    description: Whether it is a failure if C(nvidia-smi -L) fails.
    type: bool
    default: false
  verify_command:
    description: A command that must succeed on the node, through its alias. Empty for none.
    type: str
    default: ""
  deadline:
    description: Seconds that a command on the node may take.
    type: float
    default: 60
seealso:
  - module: gpuops.fleet.ssh_doctor
"""

EXAMPLES = r"""
- name: Verify the alias as its user would use it
  gpuops.fleet.alias_verify:
    alias: gpu-1
    config: ~/.ssh/config
    run_nvidia_smi: true
"""

RETURN = r"""
ok:
  description: Whether the new connection logged in. The other values of M(gpuops.fleet.ssh_doctor) are returned too.
  type: bool
  returned: always
machine:
  description: What tells the machine behind the alias from all others. Empty if that is not known.
  type: str
  returned: always
  sample: "7a3c5c0e-1c0f-4a57-8c26-1c2a2b1d1c55 pid:[4026531836]"
problems:
  description: What does not work, each with C(what), C(seen), C(remedy), C(where) and C(host).
  type: list
  elements: dict
  returned: failure
"""
