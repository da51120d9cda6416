#!/usr/bin/python

# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ssh_alias
short_description: Manage host aliases for the OpenSSH client
version_added: 0.1.0
description:
  - Gives machines short names, so that C(ssh), C(scp), C(rsync), C(git) and editors reach them by C(ssh gpu-1).
  - Writes the aliases to a file of its own, C(config.d/gpuops.conf) next to O(path), and puts one C(Include) line for
    this file at the top of O(path). Nothing else in the user's configuration is changed.
  - In ssh_config the first value wins, so an alias wins over what the user's own file says for the same name.
  - OpenSSH is the judge. A configuration that C(ssh -G) rejects is refused, and every new or changed alias must come
    out of C(ssh -G) exactly as asked. Otherwise both files stay as they were.
author: gpuops.fleet contributors (@gpuops)
extends_documentation_fragment:
  - gpuops.fleet._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Returns the content of both files before and after, where they change.
  idempotent:
    support: full
    details:
      - A second run with the same options changes no byte.
options:
  aliases:
    description:
      - The aliases, each with the same keys as for one alias at the top level.
      - Aliases that are not in this list are kept.
      - Exactly one of O(aliases) and O(name) is required.
    type: list
    elements: dict
    suboptions:
      name:
        description:
          - The alias. Several patterns are separated by blanks, with C(*) and C(?) as wildcards and a leading C(!) to
            negate, as in a C(Host) line of ssh_config.
          - Names without wildcards are written before those with wildcards, whatever the order of the list.
        type: str
        required: true
      hostname:
        description: The address or name to connect to.
        type: str
      port:
        description: The TCP port, V(1) to V(65535).
        type: int
      user:
        description: The user to log in as.
        type: str
      identity_file:
        description: The private key files to offer, in this order. V(~) and C(%) tokens are expanded by ssh.
        type: list
        elements: str
      certificate_file:
        description: The certificates to offer with the keys, in this order.
        type: list
        elements: str
      identities_only:
        description: Whether to offer only the configured keys, not all keys of the agent.
        type: bool
      host_key_alias:
        description: The name under which the host key is looked up in the known_hosts files.
        type: str
      known_hosts_file:
        description: The file with the known host keys (C(UserKnownHostsFile)).
        type: str
      proxy_jump:
        description: One jump host, or several separated by commas that are used one behind the other.
        type: str
      jump_hosts:
        description:
          - Jump hosts that stand in for each other, in order of priority. Each is an alias, of this module or not, or
            C([user@]host[:port]).
          - Each connection, by whatever program, goes by the first one where an SSH server answers within 2 seconds,
            the look-up of its name included. That it answers is kept for a second, and that it does not for 5 seconds,
            so a jump host that comes back is used again without a run of the module.
          - Of a jump host that itself has a jump host, the first host on the way is tested. One with a C(ProxyCommand)
            is taken to answer.
          - They hold for the name in capitals and in small letters, since C(Match) of ssh makes no difference. Two
            aliases that differ only in this need the same ones.
          - Excludes O(aliases[].proxy_jump).
        type: list
        elements: str
      direct:
        description:
          - What to do when none of O(aliases[].jump_hosts) answers. With V(forbid), which holds if this is not set, ssh
            fails with an error of the first jump host. With V(allow) it connects without a jump host.
        type: str
        choices: [allow, forbid]
      local_forward:
        description: Local ports to forward, each as V([address:]port host:port).
        type: list
        elements: str
      remote_forward:
        description: Remote ports to forward, each as V([address:]port host:port) or, for SOCKS, as V([address:]port).
        type: list
        elements: str
      dynamic_forward:
        description: Local SOCKS ports, each as V([address:]port).
        type: list
        elements: str
      keepalive:
        description:
          - When to give up a connection on which nothing comes back any more.
          - Either O(aliases[].keepalive.profile), or O(aliases[].keepalive.interval) with
            O(aliases[].keepalive.count).
        type: dict
        suboptions:
          profile:
            description:
              - V(interactive) asks each 60 seconds and gives up after 120 questions, so that a shell outlives an
                outage; C(TCPKeepAlive) is off.
              - V(bounded) asks each 15 seconds and gives up after 4 questions, for automation.
              - V(transfer) asks each 5 seconds and gives up after 3 questions, so that a copy is soon tried again.
            type: str
            choices: [interactive, bounded, transfer]
          interval:
            description: Seconds without data after which to ask the server (C(ServerAliveInterval)).
            type: int
          count:
            description: Questions without an answer after which to give up (C(ServerAliveCountMax)).
            type: int
      connect_timeout:
        description: Seconds to wait for a connection. Where none is set, the system waits for about two minutes.
        type: int
      control_master:
        description: Whether this connection may be shared by later ones (C(ControlMaster)).
        type: str
        choices: ["auto", "autoask", "ask", "yes", "no"]
      control_path:
        description:
          - The socket of a shared connection (C(ControlPath)), such as V(~/.ssh/%C), or V(none).
          - Refused if it has more than 86 bytes when its tokens are expanded for this alias. The address of a socket
            holds 104 bytes on some systems, and ssh appends 17 while it makes the socket.
        type: str
      control_persist:
        description:
          - How long a shared connection stays open after its last use (C(ControlPersist)), V(yes), V(no), or a time
            such as V(10m).
        type: str
      options:
        description:
          - Any other ssh_config keyword with its value, written in this order.
          - A value with blanks is one argument and is quoted. A list gives several arguments, or one line for each item
            where OpenSSH adds up lines (C(SendEnv)).
          - Commands (such as C(ProxyCommand)) and values made of words (such as C(SendEnv)) are written as they are.
        type: dict
  name:
    description:
      - The alias, for one alias without O(aliases).
      - See O(aliases[].name).
    type: str
  hostname:
    description: See O(aliases[].hostname).
    type: str
  port:
    description: See O(aliases[].port).
    type: int
  user:
    description: See O(aliases[].user).
    type: str
  identity_file:
    description: See O(aliases[].identity_file).
    type: list
    elements: str
  certificate_file:
    description: See O(aliases[].certificate_file).
    type: list
    elements: str
  identities_only:
    description: See O(aliases[].identities_only).
    type: bool
  host_key_alias:
    description: See O(aliases[].host_key_alias).
    type: str
  known_hosts_file:
    description: See O(aliases[].known_hosts_file).
    type: str
  proxy_jump:
    description: See O(aliases[].proxy_jump).
    type: str
  jump_hosts:
    description: See O(aliases[].jump_hosts).
    type: list
    elements: str
  direct:
    description: See O(aliases[].direct).
    type: str
    choices: [allow, forbid]
  local_forward:
    description: See O(aliases[].local_forward).
    type: list
    elements: str
  remote_forward:
    description: See O(aliases[].remote_forward).
    type: list
    elements: str
  dynamic_forward:
    description: See O(aliases[].dynamic_forward).
    type: list
    elements: str
  keepalive:
    description: See O(aliases[].keepalive).
    type: dict
    suboptions:
      profile:
        description: See O(aliases[].keepalive.profile).
        type: str
        choices: [interactive, bounded, transfer]
      interval:
        description: See O(aliases[].keepalive.interval).
        type: int
      count:
        description: See O(aliases[].keepalive.count).
        type: int
  connect_timeout:
    description: See O(aliases[].connect_timeout).
    type: int
  control_master:
    description: See O(aliases[].control_master).
    type: str
    choices: ["auto", "autoask", "ask", "yes", "no"]
  control_path:
    description: See O(aliases[].control_path).
    type: str
  control_persist:
    description: See O(aliases[].control_persist).
    type: str
  options:
    description: See O(aliases[].options).
    type: dict
  exclusive:
    description:
      - Whether O(aliases) is the whole truth. All other aliases that the module wrote are removed, and those with
        wildcards get the order of the list. An empty list removes all.
      - Needs O(state=present).
    type: bool
    default: false
  ignore_unknown:
    description:
      - Whether to leave out keywords that this ssh does not know, instead of a failure that names its version. They
        are written as comments; run the module again after an update of OpenSSH.
      - The keyword C(IgnoreUnknown) is not used, because only the first one in a configuration counts, and it would
        switch off the user's own.
    type: bool
    default: false
  leave_out_refused:
    description:
      - Whether to write the other aliases of the list when some of them cannot be had, instead of a failure that writes
        none. RV(refused) says which were left out. For a list that comes from an inventory.
    type: bool
    default: false
  backup:
    description: Whether to keep a copy of O(path) next to it before it is changed.
    type: bool
    default: false
  owner:
    description:
      - The user of this machine whose configuration it is. The home directory is that of the user database, as for ssh,
        not that of E(HOME).
      - Another user than the one who runs the module needs root.
    type: str
  path:
    description:
      - The user's main ssh configuration. It is created with mode V(0600) if it does not exist; otherwise its owner,
        its mode and, if it is a symbolic link, the link are kept.
      - When root runs the module for a path below a directory of another user, it acts as that user.
      - If this is not set, it is C(.ssh/config) in the home directory of O(owner).
    type: path
  state:
    description:
      - V(present) adds the aliases, or replaces those with the same name.
      - V(absent) removes them and needs only the names. With the last alias the C(Include) line and all that the module
        made go too. The user's configuration is not judged for this, so that the way back is always open.
    type: str
    choices: [present, absent]
    default: present
notes:
  - Addresses, users, host key aliases and C(ProxyJump) may hold no blank, no quote and no other character that a shell
    reads, and start with no dash, since OpenSSH hands them on to shells.
  - C(ssh -G) runs the commands of C(Match exec) in the user's configuration.
  - One C(ssh -G) costs about 10 ms. When a run changes more than 100 names, one name of each shape is verified, where
    two aliases have the same shape if they differ only in plain words for the name, address, port, user and host key
    alias.
  - All configurations in one directory share one file of aliases.
  - For O(jump_hosts) a shell script, C(config.d/.gpuops-reach), tests with C(ssh-keyscan) what answers; such a test
    takes about 30 ms where the jump host is near. It asks C(ssh -G) for the address of a jump host, in
    C(~/.ssh/config), or in O(path) of the last run if that is another file.
  - ACLs and extended attributes of O(path) are not kept.
requirements:
  - ssh (OpenSSH client)
"""

EXAMPLES = r"""
- name: Reach one node by a short name
  gpuops.fleet.ssh_alias:
    name: gpu-1
    hostname: 192.0.2.11
    port: 22022
    user: root
    identity_file: [~/.ssh/id_fleet]
    identities_only: true

- name: Reach the whole fleet, with one known_hosts file for it
  gpuops.fleet.ssh_alias:
    aliases:
      - name: gpu-1
        hostname: 192.0.2.11
        host_key_alias: gpu-1
      - name: gpu-2
        hostname: 192.0.2.12
        host_key_alias: gpu-2
      - name: gpu-* !gpu-test
        user: ubuntu
        known_hosts_file: ~/.ssh/known_hosts.fleet
        proxy_jump: bastion.example.org
        local_forward: ["8888 localhost:8888", "6006 localhost:6006"]
        keepalive:
          profile: interactive
        options:
          SendEnv: [LANG, LC_*]

- name: Make the list the whole truth, and go by whichever bastion answers
  gpuops.fleet.ssh_alias:
    exclusive: true
    aliases:
      - name: bastion-a
        hostname: 198.51.100.1
        connect_timeout: 5
      - name: bastion-b
        hostname: 198.51.100.2
        connect_timeout: 5
      - name: gpu-1
        hostname: 10.0.0.11
        jump_hosts: [bastion-a, bastion-b]
        control_master: auto
        control_path: ~/.ssh/%C
        control_persist: 10m

- name: Take thousands of aliases from a JSON file, which costs Ansible half of what variables do
  gpuops.fleet.ssh_alias:
    aliases: "{{ lookup('ansible.builtin.file', 'aliases.json') | from_json }}"

- name: Forget a node
  gpuops.fleet.ssh_alias:
    name: gpu-1
    state: absent
"""

RETURN = r"""
path:
  description: The user's main ssh configuration.
  returned: success
  type: str
  sample: /home/alice/.ssh/config
aliases_file:
  description: The file with the aliases.
  returned: success
  type: str
  sample: /home/alice/.ssh/config.d/gpuops.conf
aliases:
  description: The names that are present by this call; empty with O(state=absent).
  returned: success
  type: list
  elements: str
  sample: [gpu-1, gpu-2]
shadows:
  description:
    - Names for which the user's own file has a C(Host) line with exactly this name and another host name, port or user
      than the alias, which now wins. Files that the user's own file includes are not searched.
  returned: success
  type: list
  elements: str
  sample: []
connections_closed:
  description:
    - Names that led elsewhere before or are gone, and had a shared connection (C(ControlPath)) to there. It takes no
      new session, so the next C(ssh) goes where the name leads now. Sessions that run in it go on.
  returned: success
  type: list
  elements: str
  sample: [gpu-1]
refused:
  description: The names that were left out, each with the reason.
  returned: with O(leave_out_refused=true)
  type: dict
  sample: {"gpu-7": "jump_hosts: gpu-7 goes by gpu-7, which has no end; ..."}
backup_file:
  description: The copy of O(path) as it was before.
  returned: with O(backup=true), if O(path) was there and changed
  type: str
  sample: /home/alice/.ssh/config.4711.2026-01-31@12:00:00~
diff:
  description: The files before and after, where they change.
  returned: success, in diff mode
  type: list
  elements: dict
  contains:
    before_header:
      description: The file.
      type: str
    before:
      description: Its content before; empty where there was no file.
      type: str
    after_header:
      description: The file.
      type: str
    after:
      description: Its content after; empty where there is no file any more.
      type: str
"""

import contextlib
import os
import stat
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuops.fleet.plugins.module_utils._reach import alias as ssh_alias
from ansible_collections.gpuops.fleet.plugins.module_utils._reach import failover as ssh_failover

ALIAS_SPEC: dict[str, dict[str, t.Any]] = {
    "name": {"type": "str"},
    "hostname": {"type": "str"},
    "port": {"type": "int"},
    "user": {"type": "str"},
    "identity_file": {"type": "list", "elements": "str"},
    "certificate_file": {"type": "list", "elements": "str"},
    "identities_only": {"type": "bool"},
    "host_key_alias": {"type": "str", "no_log": False},
    "known_hosts_file": {"type": "str"},
    "proxy_jump": {"type": "str"},
    "jump_hosts": {"type": "list", "elements": "str"},
    "direct": {"type": "str", "choices": ["allow", "forbid"]},
    "local_forward": {"type": "list", "elements": "str"},
    "remote_forward": {"type": "list", "elements": "str"},
    "dynamic_forward": {"type": "list", "elements": "str"},
    "keepalive": {
        "type": "dict",
        "options": {
            "profile": {"type": "str", "choices": ["interactive", "bounded", "transfer"]},
            "interval": {"type": "int"},
            "count": {"type": "int"},
        },
        "mutually_exclusive": [("profile", "interval"), ("profile", "count")],
        "required_together": [("interval", "count")],
        "required_one_of": [("profile", "interval")],
    },
    "connect_timeout": {"type": "int"},
    "control_master": {"type": "str", "choices": ["auto", "autoask", "ask", "yes", "no"]},
    "control_path": {"type": "str"},
    "control_persist": {"type": "str"},
    "options": {"type": "dict"},
}


def find_changes(path: str, own_path: str, own: ssh_alias.OwnFile, removing: bool) -> list[ssh_alias.Change]:
    """Return the files as they are and as they have to be."""
    include = ssh_alias.include_line(own_path)
    own_directory = os.path.dirname(own_path)
    target, own_target = os.path.realpath(path), os.path.realpath(own_path)
    script_path = os.path.join(own_directory, ssh_failover.SCRIPT_FILE)
    main, own_before = ssh_alias.read_file(target), ssh_alias.read_file(own_target)
    script, script_after = ssh_alias.read_file(script_path), None
    if not own.blocks:
        main_after = None if main is None else ssh_alias.without_include(main, include)
        if main_after == b"" and "config" in own.made:
            main_after = None
        own_after = None
    else:
        main_after = main if removing else ssh_alias.with_include(main or b"", include)
        own_after = ssh_alias.render_own(own, ssh_alias.probe_command(own_directory, path))
        if ssh_alias.failovers(own):
            script_after = ssh_failover.SCRIPT.encode()
    main_mode = 0o600 if main is None else stat.S_IMODE(os.stat(target).st_mode)
    changes = [
        ssh_alias.Change(script_path, script, script_after, 0o700),
        ssh_alias.Change(own_target, own_before, own_after, 0o600),
        ssh_alias.Change(target, main, main_after, main_mode),
    ]
    if not own.blocks:
        # ssh does not mind an Include of nothing, but a killed run must not leave aliases that nothing includes.
        changes.reverse()
    elif script_after is None:
        # Until the aliases are written, they run the script.
        changes.append(changes.pop(0))
    return [change for change in changes if change.before != change.after or ssh_alias.has_other_mode(change)]


def manage(module: AnsibleModule, ssh: str, path: str, aliases: list[ssh_alias.Alias]) -> dict[str, t.Any]:
    """Bring all files into the wanted state."""
    exclusive = module.params["exclusive"]
    removing = module.params["state"] == "absent" or not aliases
    directory = os.path.dirname(path)
    own_directory = os.path.join(directory, ssh_alias.OWN_DIRECTORY)
    own_path = os.path.join(own_directory, ssh_alias.OWN_FILE)
    result: dict[str, t.Any] = {
        "changed": False,
        "path": path,
        "aliases_file": own_path,
        "aliases": [] if removing else [alias.name for alias in aliases],
        "shadows": [],
        "connections_closed": [],
    }
    ssh_alias.check_place(path)
    missing = {"directory": not os.path.isdir(directory)}
    if not (aliases or exclusive) or (removing and missing["directory"]):
        return result

    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(ssh_alias.scratch_directory())
        if not module.check_mode:
            if not removing:
                stack.enter_context(ssh_alias.made_directory(directory))
            stack.enter_context(ssh_alias.locked(directory))
        missing[ssh_alias.OWN_DIRECTORY] = not os.path.isdir(own_directory)
        if not removing and not module.check_mode:
            stack.enter_context(ssh_alias.made_directory(own_directory))

        main = ssh_alias.read_file(path)
        missing["config"] = main is None
        old = ssh_alias.parse_own(ssh_alias.read_file(own_path), own_path)
        blocks = {} if exclusive else dict(old.blocks)
        changed_aliases = []
        made = set(old.made)
        if removing:
            for alias in aliases:
                blocks.pop(alias.name, None)
        else:
            if main is not None:
                ssh_alias.check_config(ssh, path, main)
            if module.params["ignore_unknown"]:
                aliases = ssh_alias.leave_out_unknown(ssh, aliases, scratch)
            blocks.update({alias.name: ssh_alias.render_block(alias) for alias in aliases})
            changed_aliases = [alias for alias in aliases if blocks[alias.name] != old.blocks.get(alias.name)]
            made |= {part for part, is_missing in missing.items() if is_missing}
        own = ssh_alias.OwnFile(blocks, frozenset(made))
        changes = find_changes(path, own_path, own, removing)
        user_config = ssh_alias.without_include(main or b"", ssh_alias.include_line(own_path))
        if changed_aliases:
            ssh_alias.check_changed(changed_aliases, own)
            ssh_alias.verify_before_writing(ssh, changed_aliases, own, user_config, scratch)
        if not removing:
            result["shadows"] = ssh_alias.find_shadows(ssh, aliases, user_config, scratch)
        result["changed"] = bool(changes)
        if module._diff:
            result["diff"] = [_diff(change) for change in changes]
        if changes and not module.check_mode:
            target = os.path.realpath(path)
            if module.params["backup"] and main is not None and any(change.path == target for change in changes):
                result["backup_file"] = module.backup_local(target)
            result["connections_closed"] = ssh_alias.stop_sharing(
                ssh,
                path,
                user_config + "".join(old.blocks.values()).encode("utf-8", "surrogateescape"),
                ssh_alias.moved(old.blocks, blocks),
            )
            plain = [alias for alias in changed_aliases if ssh_alias.is_plain(alias.name)]
            ssh_alias.commit(changes)
            try:
                ssh_alias.verify(ssh, path, ssh_alias.hosts_to_verify(plain[:1], own)[:1], scratch)
            except ssh_alias.AliasError:
                ssh_alias.undo(changes)
                raise
            if not ssh_alias.failovers(own):
                ssh_alias.remove_cache(os.path.join(own_directory, ssh_failover.SCRIPT_FILE))
            if not blocks and ssh_alias.OWN_DIRECTORY in made:
                ssh_alias.remove_empty(own_directory)
    if changes and not blocks and "directory" in made and not module.check_mode:
        ssh_alias.remove_empty(directory)
    return result


def _diff(change: ssh_alias.Change) -> dict[str, str]:
    return {
        "before_header": change.path,
        "before": (change.before or b"").decode("utf-8", "replace"),
        "after_header": change.path,
        "after": (change.after or b"").decode("utf-8", "replace"),
    }


def run(module: AnsibleModule, ssh: str, path: str | None, asked: list[dict[str, t.Any]]) -> dict[str, t.Any]:
    """Check what is asked for, and manage the files as their owner."""
    if module.params["state"] == "present":
        aliases = [ssh_alias.parse_alias(alias) for alias in asked]
    else:
        aliases = [ssh_alias.Alias(ssh_alias.parse_name(alias["name"]), ()) for alias in asked]
        if module.params["exclusive"]:
            raise ssh_alias.AliasError(
                "exclusive goes with state=present only; to remove all aliases use: exclusive=true aliases=[]"
            )
    ssh_alias.refuse_duplicates(alias.name for alias in aliases)
    owner = module.params["owner"]
    user = ssh_alias.find_user(owner) if owner else ssh_alias.current_user()
    path = os.path.abspath(path or os.path.join(user.pw_dir, ".ssh", "config"))
    with ssh_alias.acting_as(user.pw_uid if owner else ssh_alias.owner_of(path)):
        return manage(module, ssh, path, aliases)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "aliases": {
                "type": "list",
                "elements": "dict",
                "options": {**ALIAS_SPEC, "name": {"type": "str", "required": True}},
            },
            **ALIAS_SPEC,
            "exclusive": {"type": "bool", "default": False},
            "ignore_unknown": {"type": "bool", "default": False},
            "backup": {"type": "bool", "default": False},
            "owner": {"type": "str"},
            "path": {"type": "path"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            # For the role ssh_bootstrap: one refused alias must not take those of all other nodes with it.
            "leave_out_refused": {"type": "bool", "default": False},
        },
        mutually_exclusive=[("aliases", option) for option in ALIAS_SPEC],
        required_one_of=[("aliases", "name")],
        supports_check_mode=True,
    )
    path = module.params["path"]
    ssh = module.get_bin_path("ssh")
    if ssh is None:
        module.fail_json(
            msg="there is no ssh on this machine; install the OpenSSH client: apt-get install openssh-client"
        )
    asked = module.params["aliases"] if module.params["aliases"] is not None else [module.params]
    refused: dict[str, str] = {}
    result = None
    try:
        while result is None:
            try:
                result = run(module, ssh, path, [alias for alias in asked if alias["name"] not in refused])
            except ssh_alias.AliasError as exc:
                left_out = {alias["name"] for alias in asked if alias["name"] in exc.names} - refused.keys()
                if not (module.params["leave_out_refused"] and left_out):
                    raise
                refused.update(dict.fromkeys(left_out, str(exc)))
    except ssh_alias.AliasError as exc:
        module.fail_json(msg=str(exc))
    except OSError as exc:
        module.fail_json(msg=ssh_alias.explain(exc, path or "~/.ssh/config"))
    if module.params["leave_out_refused"]:
        result["refused"] = refused
    # Without the aliases as asked: for a large fleet Ansible would take longer over this echo than over the rest.
    options = {option: value for option, value in module.params.items() if value is not None and option != "aliases"}
    module.exit_json(**result, invocation={"module_args": options})


if __name__ == "__main__":
    main()
