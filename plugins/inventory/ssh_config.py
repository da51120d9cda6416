# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts out of an ssh_config."""

from __future__ import annotations

DOCUMENTATION = r"""
name: ssh_config
short_description: Read hosts from an OpenSSH client configuration
version_added: 0.1.0
author: gpuops.fleet contributors (@gpuops)
description:
  - Makes a host of each literal name on the C(Host) lines of an C(ssh_config), and of the files that it includes. A
    name with a wildcard or a negation is a pattern, and no host.
  - Every value comes from C(ssh -G -F PATH NAME), so C(Match), C(Include), defaults below C(Host *) and all else
    count as for ssh.
  - The host variables are the resolved values, not the alias. C(ansible_host), C(ansible_port), C(ansible_user) (the
    local user where the configuration says none), C(ansible_ssh_private_key_file), and in C(ansible_ssh_common_args)
    whatever else decides how the node is reached, such as C(ProxyJump), C(ProxyCommand), C(HostKeyAlias),
    C(UserKnownHostsFile) or C(CertificateFile).
  - For the role P(gpuops.fleet.ssh_bootstrap#role) also C(ssh_bootstrap_key), where the key is there, and
    C(ssh_bootstrap_proxy_jump).
  - Behind a C(ProxyJump) or C(ProxyCommand) a host has a C(ansible_control_path) of its own. Otherwise Ansible would
    share one connection among nodes that have the same private address in different networks.
  - These are host variables, so they win over C(group_vars).
  - The source is a YAML file whose name ends with C(ssh_config.yml) or C(ssh_config.yaml).
notes:
  - C(ssh -G) runs the commands of C(Match exec) lines. They are those of your own file, and run once for each host,
    each time that the inventory is read. O(cache=true) saves that.
  - C(StrictHostKeyChecking) is not taken over, nor are known hosts in C(/dev/null). Host keys are checked.
  - C(localhost), C(127.0.0.1) and C(::1) are left out, since Ansible means the control node by them.
  - Names that only C(Match) lines give are not found, nor are those behind an C(Include) whose path holds a C(%)
    token or an environment variable.
  - Without C(IdentityFile), the key with a usual name such as C(~/.ssh/id_ed25519) is taken if it is the only one.
    Where there are several, the key is left open.
  - C(/etc/ssh/ssh_config) is not read for the values. ssh reads it when it connects, if O(path) is
    C(~/.ssh/config).
options:
  plugin:
    description: Marks the file as a source for this plugin.
    type: str
    required: true
    choices: [gpuops.fleet.ssh_config]
  path:
    description:
      - The configuration to read. A relative path starts at the directory of the source file.
      - If it is not C(~/.ssh/config), C(-F) with this path is part of C(ansible_ssh_common_args).
    type: str
    default: ~/.ssh/config
  include:
    description: Globs of which a name must match one. Letter case counts.
    type: list
    elements: str
    default: ["*"]
  exclude:
    description: Globs of which a name must match none. Letter case counts.
    type: list
    elements: str
    default: []
  group:
    description: The group that all hosts are put in.
    type: str
    default: gpu
extends_documentation_fragment:
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
"""

EXAMPLES = r"""
# fleet.ssh_config.yml: all hosts of ~/.ssh/config whose name starts with gpu-
plugin: gpuops.fleet.ssh_config
include: ["gpu-*"]
---
# lab.ssh_config.yml: a file of its own, kept for an hour, and groups by what was read
plugin: gpuops.fleet.ssh_config
path: lab/ssh_config
exclude: ["bastion*", "*.example.org"]
group: lab
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/gpuops
cache_timeout: 3600
compose:
  ansible_become: ansible_user != 'root'
groups:
  behind_bastion: ssh_bootstrap_proxy_jump is defined
keyed_groups:
  - prefix: user
    key: ansible_user
"""

import os
import shutil
import typing as t

from ansible import constants as C
from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible.template import trust_as_template
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.config_hosts import (
    SshConfigError,
    host_names,
    read_hosts,
    select_names,
)

if t.TYPE_CHECKING:
    from ansible.inventory.data import InventoryData
    from ansible.parsing.dataloader import DataLoader


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    """Read the names, let ssh resolve them, and add the hosts."""

    NAME = "gpuops.fleet.ssh_config"

    def verify_file(self, path: str) -> bool:
        return super().verify_file(path) and path.endswith(("ssh_config.yml", "ssh_config.yaml"))

    def parse(self, inventory: InventoryData, loader: DataLoader, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        group = inventory.add_group(self._sanitize_group_name(self.get_option("group")))
        for name, variables in self._hosts(path, cache).items():
            inventory.add_host(name, group=group)
            for key, value in variables.items():
                # A plain word is marked as such, or ansible-inventory --list would wrap it, and testinfra reads that.
                # What could be a template is never one: the file is data.
                plain = isinstance(value, str) and "{" not in value
                inventory.set_variable(name, key, trust_as_template(value) if plain else value)
            strict = self.get_option("strict")
            self._set_composite_vars(self.get_option("compose"), inventory.hosts[name].get_vars(), name, strict)
            self._add_host_to_composed_groups(self.get_option("groups"), {}, name, strict)
            self._add_host_to_keyed_groups(self.get_option("keyed_groups"), {}, name, strict)

    def _hosts(self, path: str, cache: bool) -> dict[str, dict[str, t.Any]]:
        use_cache = self.get_option("cache")
        key = self.get_cache_key(path)
        if use_cache and cache and key in self.cache:
            cached: dict[str, dict[str, t.Any]] = self.cache[key]
            return cached
        hosts = self._read(path)
        if use_cache:
            self.cache[key] = hosts
        return hosts

    def _read(self, source: str) -> dict[str, dict[str, t.Any]]:
        asked = os.path.expanduser(self.get_option("path"))
        path = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(source)), asked))
        ssh = shutil.which("ssh")
        if not ssh:
            raise AnsibleParserError(f"{source}: no ssh in PATH. Next: apt-get install openssh-client")
        try:
            names = select_names(
                host_names(path), self.get_option("include"), [*C.LOCALHOST, *self.get_option("exclude")]
            )
            if not names:
                self.display.warning(
                    f"{source}: no Host line of {path} gives a name that include and exclude leave."
                    f" Next: grep -i '^ *host' {path}"
                )
            return read_hosts(ssh, path, names)
        except SshConfigError as error:
            raise AnsibleParserError(str(error)) from None
