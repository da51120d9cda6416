#!/usr/bin/python
# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_lock
short_description: Lock a fleet for one playbook run
version_added: 0.1.0
description:
  - Fails when another C(ansible-playbook) on this control node holds the lock of the same fleet, and names it.
  - The lock belongs to the running C(ansible-playbook) process and ends with it, however it ends.
    Nothing needs to be cleaned up.
  - Runs on the control node, whatever the connection of the host is.
author:
  - gpuops.fleet contributors (@gpuops)
extends_documentation_fragment:
  - gpuops.fleet._attributes
attributes:
  check_mode:
    support: full
    details:
      - Nothing is locked in check mode, but a lock that another run holds is reported.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  path:
    description:
      - The directory on the control node that the runs share, as a rule the user's C(~/.ssh).
        Made with mode V(0700) when missing.
      - The lock is the file C(.gpuops-run.lock) in it.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Let only one run at a time change the fleet
  gpuops.fleet.fleet_lock:
    path: ~/.ssh
  run_once: true
"""

RETURN = r"""
path:
  description: The lock file.
  type: str
  returned: always
  sample: /home/ada/.ssh/.gpuops-run.lock
pid:
  description: The process that holds the lock now, which is the running C(ansible-playbook).
  type: int
  returned: success
  sample: 4711
"""
