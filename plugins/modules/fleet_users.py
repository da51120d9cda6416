# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_users
short_description: Manage user accounts, sudo rules and SSH keys
version_added: 0.2.0
author: gpuops.fleet contributors (@gpuops)
description:
  - Accounts, groups, sudo rules and authorized keys of any number of people, in one task over the wire.
  - The keys of a person are a block of lines in the first file that C(AuthorizedKeysFile) of sshd names. Each run
    writes the block anew, so a key that is taken out of the list goes. Lines that others wrote stay byte for byte,
    except one with a key of the list, which would undo its options.
  - The keys by which this control node may be logged in are never taken away, and neither is the account that it
    logs in as.
  - Somebody who is absent loses sudo rule, keys and account, and O(users[].keys) of theirs are taken out of the files
    of all other accounts too, unless somebody in the list has the same key. RV(had_access) says what they had.
  - What else is in a person's own file counts for that account alone, since the person can write there. RV(remarks)
    names a key that was in the file of somebody absent and is in that of somebody else.
  - A person who cannot be had as wanted fails alone. The module goes on with the others, and then fails with what was
    wrong with each.
options:
  users:
    description:
      - The people, as M(gpuops.fleet.fleet_user_keys) returns them. Whoever is not in the list is left as they
        are. RV(remarks) names those who have keys of an earlier list.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The name of the account.
        type: str
        required: true
      state:
        description: Whether the person may get in.
        type: str
        choices: [present, absent]
        default: present
      uid:
        description:
          - The number of the account. An account that has another one is an error, since the files of the person
            would stay with the old one.
        type: int
      gid:
        description: The number of the person's own group. For a new account with O(users[].uid) the same if not given.
        type: int
      groups:
        description:
          - All groups of the person besides their own. Those that are missing are made. Left as they are if not given.
        type: list
        elements: str
      shell:
        description: The login shell. C(/bin/bash) for a new account.
        type: str
      sudo:
        description:
          - What follows the name in a line of sudoers. C(visudo) checks it before it is written. Empty for no rule of
            this module; those that others wrote stay.
          - Refused for a name that means others there, such as C(ALL), another one of capitals, which may be a
            C(User_Alias), or C(Defaults), and where it would go on with other users or another line.
        type: str
        default: ""
      keys:
        description: The keys.
        type: list
        elements: dict
        default: []
        suboptions:
          line:
            description: A complete line of C(authorized_keys).
            type: str
            required: true
      error:
        description:
          - Why the keys are not known, or nothing. What this module gave the person then stays in their own files, and
            does not keep a key of somebody absent in those of others.
        type: str
        default: ""
      exclusive:
        description: Whether keys go that others wrote into the person's files.
        type: bool
        default: false
      home:
        description:
          - What becomes of the home of somebody absent. V(archive) packs it into C(/var/backups), for root to read, and
            removes it.
        type: str
        choices: [keep, archive, remove]
        default: keep
      end_sessions:
        description:
          - Whether the processes of somebody absent are ended. If not, and there are some, the account stays locked,
            without keys and sudo rule, until a run finds none.
        type: bool
        default: false
  own_keys:
    description: The fingerprints of keys that stay. Set by the half on the control node.
    type: list
    elements: str
    default: []
  login_user:
    description: The account that stays. Set by the half on the control node.
    type: str
    default: ""
extends_documentation_fragment:
  - gpuops.fleet._attributes
attributes:
  check_mode:
    support: full
    details:
      - What C(useradd) or C(userdel) would refuse is not seen.
  diff_mode:
    support: full
    details:
      - For each user what they have and what they get, keys by their fingerprints.
  idempotent:
    support: full
notes:
  - Needs root on the node, and C(useradd), C(usermod) and C(userdel).
  - Files in a home are read and written as its owner.
seealso:
  - module: gpuops.fleet.fleet_user_keys
"""

EXAMPLES = r"""
- name: Find the keys of the people
  gpuops.fleet.fleet_user_keys:
    users: "{{ gpu_users }}"
  register: people

- name: Let them in
  gpuops.fleet.fleet_users:
    users: "{{ people.users }}"

- name: Bob has left, and his home is kept for his successor
  gpuops.fleet.fleet_users:
    users:
      - name: bob
        state: absent
        home: archive
        end_sessions: true
"""

RETURN = r"""
users_changed:
  description: The accounts that were changed, or would be.
  type: list
  elements: str
  returned: always
  sample: [alice, bob]
had_access:
  description:
    - What those who are absent had until now, on this node, with the keys of theirs in the files of other accounts.
  type: dict
  returned: always
  sample:
    bob:
      - account uid=2002 gid=2002 groups=docker shell=/bin/bash
      - key SHA256:Zx0... bob@laptop
      - key SHA256:Zx0... bob@laptop as root
remarks:
  description: What somebody should look at, with the next command.
  type: list
  elements: str
  returned: always
  sample:
    - "carol has keys of gpu_users, and is in that list no more; next: list them again with state: absent"
problems:
  description: Which users could not be configured, and why. The others are as the list says.
  type: list
  elements: dict
  returned: failure
  sample:
    - what: alice has the uid 1001 here, and gpu_users wants 2001
      seen: ""
      remedy: usermod -u 2001 alice
      where: node
      host: gpu-1
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import failed_result
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.users import (
    PERSON_SPEC,
    FleetUsersError,
    Login,
    Machine,
    one_at_a_time,
    read_person,
    settle,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "users": {"type": "list", "elements": "dict", "required": True, "options": PERSON_SPEC},
            "own_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "login_user": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )

    def run(command: t.Sequence[str]) -> tuple[int, str]:
        code, out, err = module.run_command(list(command), environ_update={"LC_ALL": "C"})
        return code, err + out if code else out

    login = Login(module.params["login_user"], frozenset(module.params["own_keys"]))
    try:
        people = [read_person(person) for person in module.params["users"]]
        with one_at_a_time():
            result = settle(people, login, Machine(run, module.tmpdir), module.check_mode)
    except FleetUsersError as error:
        module.fail_json(**failed_result([error.problem]))
    problems = result.pop("problems")
    if problems:
        result.update(failed_result(problems))
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
