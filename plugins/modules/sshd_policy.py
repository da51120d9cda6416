# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: sshd_policy
short_description: Apply an sshd configuration with automatic rollback
version_added: 0.2.0
author: gpuops.fleet contributors (@gpuops)
description:
  - Writes one drop-in, C(/etc/ssh/sshd_config.d/00-gpuops.conf), which sshd reads before the files of others. Those
    stay as they are.
  - Before anything is written, the result is tried beside the real files. C(sshd -t) must take it, C(sshd -T) must
    show what was asked for, and none of O(users) may be refused by it. If one would be, the module fails, says why,
    and nothing has changed.
  - The change is made with a timer on the node that puts everything back after O(rollback_seconds). It is stopped only
    after B(a new connection) from this control node has logged in as the user of each of O(hosts). Before the change,
    the same is wanted.
  - Algorithms that the node's OpenSSH does not have are left out, and so are keywords that only newer ones know.
options:
  hosts:
    description:
      - The hosts of the inventory that are this sshd, for the case that there are several, with other users. The one
        that the task runs for if nothing is said.
    type: list
    elements: str
  state:
    description:
      - Whether the policy is in force. V(absent) removes what this module has put there and brings back the files
        that were there before.
    type: str
    choices: [present, absent]
    default: present
  settings:
    description:
      - Keywords of C(sshd_config) and their values, in this order.
    type: dict
    default: {}
  algorithms:
    description:
      - Lists of algorithms, best first, for C(KexAlgorithms), C(Ciphers), C(MACs), C(HostKeyAlgorithms) and
        C(PubkeyAcceptedAlgorithms). A list of which this OpenSSH has nothing is an error.
    type: dict
    default: {}
  blocks:
    description:
      - Match blocks for the end of the drop-in.
    type: list
    elements: dict
    default: []
    suboptions:
      criteria:
        description: What follows the word C(Match).
        type: str
        required: true
      settings:
        description: Keywords and their values.
        type: dict
        required: true
  banner:
    description:
      - What everybody sees before the login. Empty for nothing.
    type: str
    default: ""
  pam_auth:
    description:
      - Lines for the beginning of C(/etc/pam.d/sshd), between two marks, which say what is asked for where sshd takes
        keyboard-interactive or passwords. Empty for none.
    type: list
    elements: str
    default: []
  moduli_bits:
    description:
      - Groups in C(/etc/ssh/moduli) that have fewer bits are taken out. V(0) leaves the file alone.
    type: int
    default: 0
  replace_host_key:
    description:
      - A fingerprint. Where the node has a host key with it, all its host keys are made anew, and RV(host_keys)
        has them. For machines made from one image, which share their host keys. Nothing is left of the old ones. Keys
        that only an agent has (C(HostKeyAgent)) stay.
    type: str
    default: ""
  allow_networks:
    description:
      - Only from these networks are the ports of sshd reached at all, by a table of nftables of its own. Others stay.
        Empty for no such table.
    type: list
    elements: str
    default: []
  rollback_seconds:
    description:
      - Seconds after which everything is put back, unless O(phase=keep) came before.
    type: int
    default: 30
  phase:
    description:
      - What the half on the node does. Set by the half on the control node.
    type: str
    choices: [change, keep, restore]
    default: change
  users:
    description:
      - Whom sshd must not refuse. Set by the half on the control node.
    type: list
    elements: str
  token:
    description:
      - Which change to keep. Set by the half on the control node.
    type: str
extends_documentation_fragment:
  - gpuops.fleet._attributes
attributes:
  check_mode:
    support: full
    details:
      - The result is tried and shown, nothing is written but C(/run/sshd) where it is missing.
  diff_mode:
    support: full
    details:
      - Shows each file; of C(/etc/ssh/moduli) only how many groups there are, and nothing of private keys, whatever
        their files are called.
  idempotent:
    support: full
notes:
  - Needs root on the node, and OpenSSH 8.2 or later, which has C(Include).
  - Works with sshd as a service of systemd, with a socket of systemd's, with several of them, and without systemd.
    It never restarts sshd.
"""

EXAMPLES = r"""
- name: Take no passwords
  gpuops.fleet.sshd_policy:
    settings:
      PasswordAuthentication: "no"
      KbdInteractiveAuthentication: "no"

- name: Undo it
  gpuops.fleet.sshd_policy:
    state: absent
"""

RETURN = r"""
auth_methods:
  description: How the server lets somebody in, as the last new connections saw it.
  type: list
  elements: str
  returned: success
  sample: [publickey]
files:
  description: The files that were changed, or would be.
  type: list
  elements: str
  returned: success
  sample: [/etc/ssh/sshd_config.d/00-gpuops.conf]
left_out:
  description: Keywords that this OpenSSH does not have.
  type: list
  elements: str
  returned: success
  sample: [RequiredRSASize]
exceptions:
  description: Lines in Match blocks of others that say something else. They were kept.
  type: list
  elements: str
  returned: success
  sample: ["/etc/ssh/sshd_config:130: Match User backup: PasswordAuthentication yes"]
host_keys:
  description:
    - The public host keys that sshd shows afterwards. The task fails where the node names anything else.
  type: list
  elements: str
  returned: success
  sample: [ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJX2...]
recovered:
  description: Whether a change of an earlier run, which was never proven, was put back first.
  type: bool
  returned: success
  sample: false
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import failed_result, problem_of
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.sshd.policy import Policy, change, keep, restore
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.sshd.settings import (
    AskedForError,
    Block,
    SshdError,
    words,
)

ARGUMENT_SPEC: dict[str, dict[str, t.Any]] = {
    "hosts": {"type": "list", "elements": "str"},
    "phase": {"type": "str", "choices": ["change", "keep", "restore"], "default": "change"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "settings": {"type": "dict", "default": {}},
    "algorithms": {"type": "dict", "default": {}},
    "blocks": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "criteria": {"type": "str", "required": True},
            "settings": {"type": "dict", "required": True},
        },
    },
    "banner": {"type": "str", "default": ""},
    "pam_auth": {"type": "list", "elements": "str", "default": []},
    "moduli_bits": {"type": "int", "default": 0},
    "replace_host_key": {"type": "str", "default": "", "no_log": False},
    "allow_networks": {"type": "list", "elements": "str", "default": []},
    "users": {"type": "list", "elements": "str"},
    "rollback_seconds": {"type": "int", "default": 30},
    "token": {"type": "str", "no_log": False},
}


def policy_of(options: t.Mapping[str, t.Any]) -> Policy:
    """Return the policy that the options of the module describe."""

    def settings(values: t.Mapping[str, object]) -> dict[str, str]:
        return {keyword: words(value) for keyword, value in values.items()}

    return Policy(
        present=options["state"] == "present",
        settings=settings(options["settings"]),
        algorithms=options["algorithms"],
        blocks=[Block(block["criteria"], settings(block["settings"])) for block in options["blocks"]],
        banner=options["banner"],
        pam_auth=options["pam_auth"],
        moduli_bits=options["moduli_bits"],
        replace_host_key=options["replace_host_key"],
        allow_networks=options["allow_networks"],
    )


def result_of(module: AnsibleModule) -> dict[str, t.Any]:
    """Do what the phase asks for. Raises SshdError."""

    def run(command: t.Sequence[str]) -> tuple[int, str]:
        code, out, err = module.run_command(list(command), environ_update={"LC_ALL": "C"})
        return code, err + out if code else out

    options = module.params
    if options["phase"] == "keep":
        return {"changed": keep(options["token"], run)}
    if options["phase"] == "restore":
        return {"changed": restore(run)}
    return change(
        policy_of(options), options["users"], options["rollback_seconds"], run, module.tmpdir, dry=module.check_mode
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENT_SPEC,
        required_if=[("phase", "keep", ["token"]), ("phase", "change", ["users"])],
        supports_check_mode=True,
    )
    try:
        result = result_of(module)
    except (SshdError, OSError) as error:
        module.fail_json(asked_for=isinstance(error, AskedForError), **failed_result([problem_of(error)]))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
