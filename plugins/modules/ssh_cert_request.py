# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ssh_cert_request
short_description: Compute which SSH certificate a user may have
version_added: 0.2.0
author: gpuops.fleet contributors (@gpuops)
description:
  - Says what a certificate for a person of C(gpu_users) is to say, in the words of
    C(community.crypto.openssh_cert), which issues it. It changes nothing.
  - Refuses people who are unknown, absent or whose access has ended, and options of their keys that a certificate
    cannot carry.
options:
  people:
    description:
      - People as in C(gpu_users).
    type: list
    elements: dict
    required: true
  person:
    description:
      - Whose certificate it is.
    type: str
    required: true
  key:
    description:
      - A file with the public key to be certified. If nothing is said, it is the only key that the person has in
        O(people).
    type: path
  validity:
    description:
      - For how long, such as V(12h). Never beyond the person's C(expiry).
    type: str
    required: true
  dest:
    description:
      - Where the certificate goes. If nothing is said, it is beside the file with the key as for C(ssh-keygen -s), or
        in O(folder) where the key is in O(people) itself.
    type: path
  folder:
    description:
      - Where certificates go that have no other place.
    type: path
    required: true
extends_documentation_fragment:
  - gpuops.fleet._attributes
  - gpuops.fleet._attributes.read_only
"""

EXAMPLES = r"""
- name: Work out the certificate of alice
  gpuops.fleet.ssh_cert_request:
    people: "{{ gpu_users }}"
    person: alice
    validity: 8h
    folder: ~/certificates
  delegate_to: localhost
  register: request
"""

RETURN = r"""
public_key:
  description: The public key to be certified.
  type: str
  returned: success
  sample: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJX2...
principals:
  description: The principals, as ACCOUNT@GROUP.
  type: list
  elements: str
  returned: success
  sample: [alice@gpu]
options:
  description: The options.
  type: list
  elements: str
  returned: success
  sample: [clear, permit-pty]
valid_to:
  description: When it ends.
  type: str
  returned: success
  sample: +43200s
valid_at:
  description: When the one that is there must still be valid, to be kept. That is after a third of a full life.
  type: str
  returned: success
  sample: +14400s
path:
  description: Where the certificate goes.
  type: str
  returned: success
  sample: /home/alice/.ssh/id_ed25519-cert.pub
"""

import datetime
import os
import typing as t
from dataclasses import replace

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import failed_result, problem_of
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.ca import (
    CaError,
    bare,
    find_person,
    read_text,
    request,
)


def run(options: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    now = datetime.datetime.now(datetime.timezone.utc)
    person = find_person(options["people"], options["person"], now.date())
    wanted = request(
        person,
        options["key"] or "",
        options["validity"],
        options["dest"] or "",
        options["folder"],
        now,
        read_text,
    )
    return {
        "public_key": bare(wanted.key),
        "principals": wanted.principals,
        "options": wanted.options,
        "valid_to": wanted.valid_to,
        "valid_at": wanted.valid_at,
        "path": os.path.abspath(wanted.path),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "people": {"type": "list", "elements": "dict", "required": True},
            "person": {"type": "str", "required": True},
            "key": {"type": "path", "no_log": False},
            "validity": {"type": "str", "required": True},
            "dest": {"type": "path"},
            "folder": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**run(module.params))
    except (CaError, OSError) as error:
        problem = problem_of(error)
        remedy = problem.remedy or "ansible-playbook gpuops.fleet.cert -e person=NAME -e key=FILE.pub"
        module.fail_json(**failed_result([replace(problem, host="localhost", remedy=remedy)]))


if __name__ == "__main__":
    main()
