#!/usr/bin/python
# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: controller_key
short_description: Ensure that the control node has a usable SSH key pair
version_added: 0.2.0
description:
  - Makes an ed25519 key without a passphrase where there is none. A key that is there is never overwritten.
  - Closes its mode, and puts its public half right where that is missing or of another key.
  - Fails for what is no key, for DSA and RSA of less than 3072 bits, and for a key with a passphrase that no agent
    holds. The message has the next command.
  - Runs on the control node, whatever the connection of the host is.
author:
  - gpuops.fleet contributors (@gpuops)
extends_documentation_fragment:
  - gpuops.fleet._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details:
      - Nothing of a private key is ever shown.
  idempotent:
    support: full
options:
  path:
    description:
      - The private key. Its public half is beside it, with C(.pub) added to the name.
    type: path
    required: true
  private_directories:
    description:
      - Directories on the control node that only their owner may enter, mode V(0700). Made when missing.
    type: list
    elements: path
    default: []
"""

EXAMPLES = r"""
- name: See to the key of this control node
  gpuops.fleet.controller_key:
    path: ~/.ssh/id_ed25519
    private_directories: [~/.ssh]
  run_once: true
"""

RETURN = r"""#"""
