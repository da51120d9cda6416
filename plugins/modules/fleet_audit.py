#!/usr/bin/python
# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_audit
short_description: Check who may get into a node over SSH, and change nothing
version_added: 0.2.0
author: gpuops.fleet contributors (@gpuops)
description:
  - Reads what C(sshd) would do for each account (C(sshd -T -C), from an address elsewhere and from the control node's,
    and once for each C(Match) block), the files it reads, host keys, C(authorized_keys), accounts and the log of
    logins, and judges each against a table of checks.
  - A check is V(ok), V(fail), V(unknown) (it could not be looked at) or V(skipped) (there is nothing to look at, or it
    is switched off). What is V(unknown) is never good.
  - One shell script is sent over Ansible's own connection, and a second time where there are C(Match) blocks. It needs
    no Python on the node. All judging is done on the control node.
  - All checks, with their severities and thresholds, are in C(docs/audit.md) of the collection.
notes:
  - The task succeeds whatever was found. It fails only on wrong options, and when the node gives no usable answer.
  - It has to run as root (C(become)). Without, all checks are V(unknown).
  - Of keys only fingerprints, lengths and comments leave the node, and of passwords only whether they are empty, locked
    or set. Addresses and names of those who logged in are in the result.
  - At most 100 accounts with a login shell are looked at. Where there are more, what concerns all is V(unknown).
requirements:
  - sshd of OpenSSH, ssh-keygen and awk on the node
extends_documentation_fragment:
  - gpuops.fleet._attributes
  - gpuops.fleet._attributes.read_only
options:
  baseline:
    description:
      - What is to be judged in another way, by the id of the check.
      - Each value is a dictionary with one or more of C(severity) (V(info), V(low), V(medium), V(high), V(critical)),
        C(enabled) (V(false) switches the check off) and C(expect) (the threshold, for checks that have one).
    type: dict
    default: {}
  alias:
    description: The name by which C(ssh) reaches the node, for remedies. The default is the name in the inventory.
    type: str
seealso:
  - module: gpuops.fleet.fleet_audit_report
"""

EXAMPLES = r"""
- name: Read how the doors stand
  gpuops.fleet.fleet_audit:
  register: audit

- name: Allow more sessions, take X11 more seriously, and do not ask for the journal
  gpuops.fleet.fleet_audit:
    baseline:
      max_sessions:
        expect: 50
      x11_forwarding:
        severity: high
      journal:
        enabled: false
  register: audit

- name: Stop when a password lets somebody in, or when nobody knows
  ansible.builtin.assert:
    that: (audit.checks | selectattr('id', 'eq', 'password_login') | first).status == 'ok'
"""

RETURN = r"""
checks:
  description: The checks in the order of the table.
  type: list
  elements: dict
  returned: success
  contains:
    id:
      description: The name of the check.
      type: str
      sample: password_login
    title:
      description: What is wanted.
      type: str
      sample: nobody gets in with a password alone
    severity:
      description: How bad it is when the check fails, V(info), V(low), V(medium), V(high) or V(critical).
      type: str
      sample: high
    cis:
      description:
        - The number of the recommendation for the same setting in the CIS Benchmark for Debian 13, or empty. What it
          wants may differ.
      type: str
      sample: 5.1.21
    status:
      description: V(ok), V(fail), V(unknown) or V(skipped).
      type: str
      sample: fail
    evidence:
      description: What was seen.
      type: str
      sample: "sshd takes password for gpu from 203.0.113.1"
    remedy:
      description: The next command to type, with real values. Empty when there is nothing to do.
      type: str
      sample: ansible-playbook site.yml --tags trust --limit gpu-1
host_keys:
  description: The fingerprints of the host keys, by which M(gpuops.fleet.fleet_audit_report) compares nodes.
  type: list
  elements: str
  returned: success
  sample: ["SHA256:ycV9Ucl4glKj/bl/3uaWIJP4uPiKXBdXno0mX9p2sYE"]
"""
