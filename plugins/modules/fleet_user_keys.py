#!/usr/bin/python
# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_user_keys
short_description: Find the SSH public keys of users, in text, files and URLs
version_added: 0.2.0
description:
  - Checks a list of people, and turns their keys and sources into the complete lines of C(authorized_keys)
    that a node has to write. Runs on the control node, and changes nothing.
  - A source that fails, is empty, or holds a line that is no public key gives an error of that person, never fewer
    keys. A node leaves the keys of a person with an error alone, so that nobody is removed because a server is down.
  - Each URL is fetched once per run, for however many hosts, at most eight at the same time, over https only.
  - A mistake in the list itself, such as an unknown field or two people with the same uid, fails the task.
    All mistakes are named at once.
author:
  - gpuops.fleet contributors (@gpuops)
extends_documentation_fragment:
  - gpuops.fleet._attributes
  - gpuops.fleet._attributes.read_only
options:
  users:
    description:
      - The people. Fields that only the nodes need are checked for their type and handed on as they are.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The name of the account, 1 to 32 letters, digits, C(_), C(-) and dots, with a letter or C(_) first.
        type: str
        required: true
      state:
        description:
          - V(absent) is for people who have left. Their keys are looked for too, to find where else they open a door.
            What cannot be found is a remark then, no error.
          - A key of an absent person that a present one has too is left out, and a remark says so.
        type: str
        choices: [present, absent]
        default: present
      uid:
        description: The number of the account, the same on every node.
        type: int
      gid:
        description: The number of the person's own group. Like O(users[].uid) if not given.
        type: int
      groups:
        description: Exactly these further groups. Groups are left alone if not given.
        type: list
        elements: str
      shell:
        description: The login shell.
        type: str
      sudo:
        description: What stands after the name in sudoers. Nodes refuse it for a name that means others there.
        type: str
      keys:
        description:
          - Public keys as text, or the path of a file on the control node that holds some.
            A path begins with C(/) or C(~).
          - Options before a key are refused, they belong into O(users[].options).
        type: list
        elements: str
        default: []
      sources:
        description:
          - Where keys are fetched from. A URL, or a dictionary with C(url), C(team) and C(fingerprints).
          - C(url) begins with C(https://), or with C(http://) on this machine itself. Credentials in it are refused.
          - With C(team), as C(ORGANISATION/TEAM) or C(ORGANISATION), the source counts only while the login is a
            member. The login is the C(LOGIN) of a URL that ends in C(/LOGIN.keys). Needs O(github_token).
          - With C(fingerprints), as C(ssh-keygen -l) shows them, the source may have no other keys than these.
        type: list
        elements: raw
        default: []
      options:
        description:
          - Options of each of the keys, by the names that C(authorized_keys) has for them.
          - These are true or false. C(restrict), C(cert-authority), C(no-touch-required), C(verify-required), and
            C(pty), C(port-forwarding), C(agent-forwarding), C(X11-forwarding) and C(user-rc), each also with C(no-).
          - C(command) and C(tunnel) are texts.
          - C(from), C(principals), C(environment), C(permitopen) and C(permitlisten) are lists.
          - Others are refused, because sshd ignores a line with an option that it does not know.
        type: dict
        default: {}
      expiry:
        description:
          - The last day on which the keys let in, as C(YYYY-MM-DD). It ends at midnight of the node.
            Of a date with a time, the day counts.
        type: raw
      exclusive:
        description: Whether keys that others wrote into the person's C(authorized_keys) are removed.
        type: bool
        default: false
      home:
        description: What becomes of the home of a person with O(users[].state=absent).
        type: str
        choices: [keep, archive, remove]
        default: keep
      end_sessions:
        description: Whether running sessions of a person with O(users[].state=absent) are ended.
        type: bool
        default: false
      cert_accounts:
        description: The accounts that certificates of the person are good for.
        type: list
        elements: str
      cert_groups:
        description: The groups of the inventory whose nodes let certificates of the person in.
        type: list
        elements: str
  github_api_url:
    description: The API that is asked for members. Only this server gets O(github_token).
    type: str
    default: https://api.github.com
  github_token:
    description:
      - A token that may list the members of the teams, for classic tokens the scope C(read:org).
      - For the members of an organisation without a team, it must be the token of one of the members.
    type: str
    default: ""
  timeout:
    description: How many seconds a URL may take from the first packet to the last.
    type: float
    default: 10
seealso:
  - name: Options of authorized_keys
    description: What each of the options does.
    link: https://man.openbsd.org/sshd#AUTHORIZED_KEYS_FILE_FORMAT
  - name: Members of a team
    description: The API that is asked.
    link: https://docs.github.com/en/rest/teams/members
"""

EXAMPLES = r"""
- name: Find the keys of all people, once for all nodes
  gpuops.fleet.fleet_user_keys:
    users:
      - name: alice
        uid: 2001
        keys:
          - ~/keys/alice.pub
        sources:
          - https://github.com/alice.keys
      - name: bob
        uid: 2002
        expiry: 2027-03-31
        options:
          restrict: true
          pty: true
          from: [10.0.0.0/8]
        sources:
          - url: https://github.com/bob.keys
            team: acme/gpu
      - name: carol
        state: absent
    github_token: "{{ lookup('ansible.builtin.env', 'GITHUB_TOKEN') }}"
  register: resolved

- name: Stop if the keys of somebody are not known
  ansible.builtin.assert:
    that: resolved.users | map(attribute='error') | select | length == 0
    fail_msg: "{{ resolved.users | map(attribute='error') | select | join('\n') }}"
"""

RETURN = r"""
users:
  description:
    - The people, in the same order, without O(users[].keys), O(users[].sources), O(users[].options) and
      O(users[].expiry) as they were given. Other fields are there if they were given or have a default.
  type: list
  elements: dict
  returned: success
  contains:
    name:
      description: The name of the account.
      type: str
      sample: alice
    keys:
      description: The keys. Empty if RV(users[].error) is not.
      type: list
      elements: dict
      contains:
        line:
          description: The complete line for C(authorized_keys).
          type: str
          sample: restrict,expiry-time="20270331235959" ssh-ed25519 AAAAC3Nza... alice@laptop from inventory
        blob:
          description: The key itself, as base64.
          type: str
          sample: AAAAC3Nza...
        fingerprint:
          description: What C(ssh-keygen -l) and the log of sshd show.
          type: str
          sample: SHA256:uNiVztksCsDhcc0u9e8BrPUS8GwJHFlDpQ+IYBuDgeE
        source:
          description: The URL, the path, or V(inventory).
          type: str
          sample: https://github.com/alice.keys
    error:
      description:
        - Why the keys of the person are not known, and the next command. Empty if they are.
        - The keys that a node has of this person must be left alone then.
      type: str
      sample: >-
        alice: https://github.com/alice.keys: HTTP 404, no such user.
        Next: curl -sSi https://github.com/alice.keys
    problem:
      description: The same as data. Null if the keys are known.
      type: dict
      sample:
        what: "alice: https://github.com/alice.keys: HTTP 404, no such user"
        seen: ""
        remedy: curl -sSi https://github.com/alice.keys
        where: ""
        host: ""
remarks:
  description:
    - What somebody should look at some day. Weak keys, keys that two people share or one has twice, expired people,
      people without keys, people who are in their team no more, and what is not known of absent people.
  type: list
  elements: str
  returned: success
  sample:
    - "bob: SHA256:uNiVztksCsDhcc0u9e8BrPUS8GwJHFlDpQ+IYBuDgeE from https://github.com/bob.keys is weak: RSA 2048 bits"
"""
