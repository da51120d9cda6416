#!/usr/bin/python
# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ssh_doctor
short_description: Say why a node cannot be reached over SSH, and what to type
version_added: 0.1.0
author: gpuops.fleet contributors (@gpuops)
description:
  - Examines the way from the controller to a node in six stages and names the first one that fails, with the evidence,
    the cause from a closed table, and the next command to type.
  - The stages are V(inventory) (address and port are sane), V(resolve) (the name has addresses), V(tcp) (the port
    accepts a connection), V(banner) (an SSH server speaks), V(key) (the private key file is usable) and V(login) (the
    user's own OpenSSH client logs in and runs the command C(true)).
  - Runs wholly on the controller. It never opens Ansible's connection and needs nothing on the node, so it works where
    other modules end with C(UNREACHABLE).
  - When C(ssh -G) shows a C(ProxyJump) or C(ProxyCommand), the stages V(resolve), V(tcp) and V(banner) are skipped and
    C(ssh) decides in the stage V(login).
notes:
  - The task succeeds also when the node is sick, see RV(ok). It fails only on invalid options.
  - Each call makes two connections, one of them with a single login, since OpenSSH 9.8 and later locks out addresses
    after failed ones. No prompt is ever shown, no password is used, and no file is written.
  - Each stage ends at the limit O(timeout).
requirements:
  - OpenSSH client 7.6 or later on the controller
attributes:
  check_mode:
    support: full
    description: Only reads, so check mode does the same.
  diff_mode:
    support: none
    description: Changes nothing.
  idempotent:
    support: full
    description: Changes nothing.
options:
  host:
    description:
      - Name or address to connect to, or an alias from the ssh configuration.
      - The default is the variable C(ansible_host), else the inventory name of the host.
      - An empty value gives the cause V(no_address).
    type: str
  port:
    description:
      - TCP port.
      - The default is the variable C(ansible_port), else what the ssh configuration says, else 22.
    type: int
  user:
    description:
      - User to log in as.
      - The default is the variable C(ansible_user), else the remote user of the play, else what C(ssh) chooses.
    type: str
  identity_file:
    description:
      - Private key file on the controller. Only this key is offered.
      - The default is the variable C(ansible_ssh_private_key_file). Without either, C(ssh) chooses the keys and the
        stage V(key) is skipped.
    type: path
  known_hosts_file:
    description: The C(UserKnownHostsFile) of the login.
    type: path
  host_key_alias:
    description: The C(HostKeyAlias) of the login, the name of the node in the C(known_hosts) file.
    type: str
  ssh_config:
    description: Configuration file of C(ssh) to use instead of its own default, as C(ssh -F).
    type: path
  ssh_args:
    description:
      - More arguments for C(ssh), one word each, such as V(-J) and V(user@bastion).
      - The default is the variable C(ansible_ssh_common_args), split into words.
    type: list
    elements: str
  alias:
    description:
      - Name of the node in messages and remedies.
      - The default is the inventory name of the host.
    type: str
  timeout:
    description: Limit of each stage in seconds, more than 0.
    type: float
    default: 10.0
  password_given:
    description:
      - Whether the caller holds a password for the first contact.
      - Only changes the wording of the remedy. The password itself is not wanted here.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Examine the way to the node, also when it is down
  gpuops.fleet.ssh_doctor:
  register: doctor

- name: Say what to type
  ansible.builtin.debug:
    var: doctor.message
  when: not doctor.ok

- name: Wait for a node that is starting, but not for one that needs a person
  gpuops.fleet.ssh_doctor:
    timeout: 5
  register: doctor
  until: doctor.ok or not doctor.cause.transient
  retries: 10
  delay: 6

- name: Examine a machine that is in no inventory
  gpuops.fleet.ssh_doctor:
    alias: rented-1
    host: 203.0.113.7
    port: 40022
    user: root
    identity_file: ~/.ssh/fleet
"""

RETURN = r"""
ok:
  description: Whether the login works and the node runs a command.
  type: bool
  returned: success
  sample: false
message:
  description: The verdict in one line.
  type: str
  returned: success
  sample: >-
    gpu-1 (203.0.113.7:22): the machine is off, or a firewall drops the connection; seen: 203.0.113.7: timed out;
    next: look at the node and its firewall rules in the provider's console, then: ping -c 3 203.0.113.7
stages:
  description: The six stages in their order.
  type: list
  elements: dict
  returned: success
  contains:
    stage:
      description: One of V(inventory), V(resolve), V(tcp), V(banner), V(key), V(login).
      type: str
      sample: tcp
    status:
      description: V(ok), V(fail), or V(skipped) for a stage that was not needed or comes after the failed one.
      type: str
      sample: fail
    ms:
      description: Duration in milliseconds.
      type: int
      sample: 10004
    evidence:
      description: What was seen.
      type: str
      sample: "203.0.113.7: timed out"
cause:
  description: Why the first failed stage failed. V(null) when RV(ok) is true.
  type: dict
  returned: success
  contains:
    code:
      description: The code of the cause. The page C(docs/causes.md) of the collection lists them all.
      type: str
      sample: tcp_timeout
    seen:
      description: The evidence.
      type: str
      sample: "203.0.113.7: timed out"
    meaning:
      description: What that says about the node.
      type: str
      sample: the machine is off, or a firewall drops the connection
    remedy:
      description: What to do next, with a command that has the real values filled in.
      type: str
      sample: "look at the node and its firewall rules in the provider's console, then: ping -c 3 203.0.113.7"
    transient:
      description: Whether trying again later may help without a change by a person.
      type: bool
      sample: true
server_version:
  description: Software version from the identification line of the SSH server. V(null) when none was seen.
  type: str
  returned: success
  sample: OpenSSH_9.2p1 Debian-2+deb12u7
auth_methods:
  description: Authentication methods the server offers to this user. V(null) when the login did not come so far.
  type: list
  elements: str
  returned: success
  sample: [publickey, password]
host_key_fingerprint:
  description: Fingerprint of the host key the server showed. V(null) when the login did not come so far.
  type: str
  returned: success
  sample: SHA256:ycV9Ucl4glKj/bl/3uaWIJP4uPiKXBdXno0mX9p2sYE
"""
