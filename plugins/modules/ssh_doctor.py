#!/usr/bin/python
# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ssh_doctor
short_description: Diagnose why a node cannot be reached over SSH
version_added: 0.1.0
author: gpuops.fleet contributors (@gpuops)
description:
  - Examines the way from the control node to a node stage by stage, and names the first stage that fails with the
    evidence, the cause from a closed table, and the next command to type. What works but is not well is listed too.
  - The stages are V(inventory) (address and port are sane, and C(ssh) accepts its configuration), V(resolve) (all
    addresses of the name), V(tcp) (the port accepts a connection), V(banner) (an SSH server speaks), V(algorithms)
    (client and server share some, paramiko too), V(host_key) (it is the known one), V(key) (the private key file is
    usable), V(login) (the user's own OpenSSH client logs in), V(command) (the shell runs a command, and prints nothing
    else), V(sftp) and V(forwarding) (the server allows them), V(python), V(sudo), V(clock) and V(disk) (the node
    itself).
  - Each jump host of C(ProxyJump) is examined before it up to the stage V(login), the nearest first. A C(ProxyCommand)
    is left to C(ssh), and the stages V(resolve) to V(algorithms) are skipped.
  - One run of Ansible examines a jump host once, for all nodes behind it, and each of them only logs in on it. When the
    jump host cannot be used, the cause is that of all nodes that are examined within the next 10 seconds.
  - Runs wholly on the control node. It never opens Ansible's connection and needs nothing on the node but a shell, so
    it works where other modules end with C(UNREACHABLE).
  - All causes are in C(docs/causes.md) of the collection.
notes:
  - The task succeeds also when the node is sick, see RV(ok). It fails only on invalid options.
  - Each examination makes two connections to the node, one of them with a single login, since OpenSSH 9.8 and later
    locks out addresses after failed ones. When OpenSSH's client cannot get as far as the login, paramiko asks the
    server once for its methods. No prompt is ever shown, no password is used, and no file is written on either side.
  - Each stage ends at the limit O(timeout), and all stages of an examination together end at four times that.
requirements:
  - OpenSSH client 7.6 or later on the control node
  - paramiko on the control node (without it, what it would be asked is skipped)
extends_documentation_fragment:
  - gpuops.fleet._attributes
  - gpuops.fleet._attributes.read_only
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
      - Private key file on the control node. Only this key is offered.
      - The default is the variable C(ansible_ssh_private_key_file). Without either, C(ssh) chooses the keys.
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
  attempts:
    description:
      - How often to examine the node while the cause is one that may pass by itself, such as a node that is starting.
      - Any other cause ends it at once.
    type: int
    default: 1
  delay:
    description:
      - Seconds to wait before the second attempt. The time doubles with each further one, and up to a quarter of it is
        added at random, so that a fleet does not come back all at once.
      - After an attempt to log in the pause is at least 8 seconds, since servers count these.
    type: float
    default: 2.0
  deadline:
    description: Seconds from the start after which no further attempt begins.
    type: float
    default: 60.0
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
    attempts: 10
    deadline: 300
  register: doctor
  failed_when: not doctor.ok

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
    gpu-1 (203.0.113.7:22): the machine is off, or a firewall drops the connection: 203.0.113.7: timed out.
    Next: look at the node and its firewall rules in the provider's console, then: ping -c 3 203.0.113.7
problems:
  description: The cause as data of which RV(message) is made, an empty list if the login works.
  type: list
  elements: dict
  returned: success
  sample:
    - what: "gpu-1 (203.0.113.7:22): the machine is off, or a firewall drops the connection"
      seen: "203.0.113.7: timed out"
      remedy: "look at the node and its firewall rules in the provider's console, then: ping -c 3 203.0.113.7"
      where: ""
      host: gpu-1
attempts:
  description: How often the node was examined. All else is from the last time.
  type: int
  returned: success
  sample: 1
stages:
  description: The stages in their order.
  type: list
  elements: dict
  returned: success
  contains:
    stage:
      description: The name of the stage, see the description of the module.
      type: str
      sample: tcp
    status:
      description:
        - V(ok), V(warn) for what works but is not well, V(fail), or V(skipped) for a stage that was not needed or comes
          after the failed one.
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
jump_hosts:
  description: The jump hosts on the way, the nearest first, up to the first one that fails.
  type: list
  elements: dict
  returned: success
  contains:
    host:
      description: Its name in C(ProxyJump).
      type: str
      sample: bastion
    ok:
      description: Whether the login there works.
      type: bool
      sample: true
    stages:
      description: As RV(stages), up to V(login).
      type: list
      elements: dict
      sample: []
    shared:
      description:
        - The names of the stages that were seen, and timed, when the run examined the jump host for another node.
        - M(gpuops.fleet.ssh_doctor_report) does not count their time again for this one.
      type: list
      elements: str
      sample: [inventory, resolve, tcp, banner, algorithms, key]
    cause:
      description: As RV(cause).
      type: dict
cause:
  description: Why the first failed stage failed, on the node or on a jump host. V(null) when RV(ok) is true.
  type: dict
  returned: success
  contains:
    code:
      description: The code of the cause. The page C(docs/causes.md) of the collection lists them all.
      type: str
      sample: tcp_timeout
    stage:
      description: Where it was found.
      type: str
      sample: tcp
    severity:
      description: V(fail), or V(warn) in RV(concerns).
      type: str
      sample: fail
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
concerns:
  description: What works but is not well, such as a full disk or a wrong clock. Each is like RV(cause).
  type: list
  elements: dict
  returned: success
  sample: []
machine:
  description:
    - Tells machines apart, also containers of one host and clones of one image. Two nodes with the same value are one.
    - V(null) when the login did not come so far.
  type: str
  returned: success
  sample: 2fc2e7fd-3a4c-4d8f-8d5f-6c0b9a0a5a0e pid:[4026531836]
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
