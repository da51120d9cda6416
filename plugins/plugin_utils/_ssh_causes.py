# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The closed table of reasons why a node cannot be reached over SSH.

This plugin util is PRIVATE to the collection.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """One reason.

    `seen` says what the doctor meets, for the documentation; a result carries the evidence of its case instead.
    `remedy` may name these fields, all quoted for a shell: alias (inventory name), host, address, user, login (the
    arguments after `ssh`), copy_id (those after `ssh-copy-id`), identity (private key file), known_hosts (file),
    known_name (the entry in it), fingerprint (host key the server showed), query (argument of `ssh -Q`).
    `transient` says that the same call may succeed later without a change by a person.
    """

    code: str
    seen: str
    meaning: str
    remedy: str
    transient: bool = False
    remedy_with_password: str = ""


_TABLE = (
    # inventory
    Cause(
        "no_address",
        "no address for the host",
        "the inventory gives no address",
        "set ansible_host, then check with: ansible-inventory --host {alias}",
    ),
    Cause(
        "address_invalid",
        "blanks, control characters or a leading dash in the address",
        "the address in the inventory is malformed",
        "correct ansible_host, then check with: ansible-inventory --host {alias}",
    ),
    Cause(
        "port_invalid",
        "a port that is no number from 1 to 65535",
        "the port in the inventory is malformed",
        "correct ansible_port, then check with: ansible-inventory --host {alias}",
    ),
    # resolve
    Cause(
        "name_unknown",
        "the resolver knows no address for the name",
        "no such host name",
        "correct ansible_host or the DNS record, then check with: getent hosts {host}",
    ),
    Cause(
        "resolver_failed",
        "the resolver reported a temporary failure or gave no answer in time",
        "name resolution does not work on the controller at the moment",
        "check with: getent hosts {host}",
        transient=True,
    ),
    # tcp
    Cause(
        "tcp_refused",
        "connection refused",
        "the machine answers, but nothing listens on this port (still booting, sshd stopped, or the port has changed)",
        "compare the port with the provider's console, then: ssh -v {login}",
        transient=True,
    ),
    Cause(
        "tcp_timeout",
        "no answer to the connection request",
        "the machine is off, or a firewall drops the connection",
        "look at the node and its firewall rules in the provider's console, then: ping -c 3 {host}",
        transient=True,
    ),
    Cause(
        "tcp_unreachable",
        "no route to the host or network",
        "no network path leads from the controller to the node",
        "check VPN and routes: ip route get {address}",
        transient=True,
    ),
    # banner
    Cause(
        "not_ssh",
        "bytes that are no SSH identification",
        "another service than SSH answers on this port",
        "compare the port with the provider's console, then correct ansible_port and check with: "
        "ansible-inventory --host {alias}",
    ),
    Cause(
        "banner_timeout",
        "an open connection without an SSH identification",
        "the port is open, but no SSH server speaks (overloaded node, tarpit, or a port forwarder without a target)",
        "restart the node or its sshd in the provider's console, then: ssh -v {login}",
        transient=True,
    ),
    Cause(
        "banner_closed",
        "the connection was closed before any byte",
        "the server or a forwarder before it drops the connection (sshd not up behind it, or this address is banned)",
        "look for bans (fail2ban-client status sshd) and for sshd on the node's console, then: ssh -v {login}",
        transient=True,
    ),
    Cause(
        "max_startups",
        "Exceeded MaxStartups",
        "the server has too many logins in progress and turns new ones away",
        "wait a few seconds or lower the forks, then: ssh -v {login}",
        transient=True,
    ),
    Cause(
        "penalties",
        "Not allowed at this time",
        "the server refuses this address for a while after failed logins (PerSourcePenalties)",
        "stop retrying for a minute (sleep 60), then: ssh -v {login}",
        transient=True,
    ),
    Cause(
        "ssh_protocol_old",
        "an identification of SSH protocol 1",
        "the server speaks only SSH protocol 1",
        "replace the SSH server by the provider's console, then: ssh -v {login}",
    ),
    # key
    Cause(
        "key_missing",
        "no such private key file",
        "the private key file does not exist on the controller",
        "correct the path, or make the key with: ssh-keygen -t ed25519 -f {identity}",
    ),
    Cause(
        "key_unreadable",
        "the private key file cannot be read",
        "the user running this may not read the private key file",
        "ls -l {identity}",
    ),
    Cause(
        "key_permissions",
        "a private key file open to other users",
        "ssh ignores this private key because other users can read it",
        "chmod 600 {identity}",
    ),
    Cause(
        "key_invalid",
        "a file that holds no key OpenSSH can load",
        "the private key file is damaged or in a foreign format",
        "ssh-keygen -y -f {identity}",
    ),
    Cause(
        "key_passphrase",
        "the server accepts the key, but the client could not sign with it",
        "the node takes this key, but it is locked here (passphrase, and no agent that holds it unlocked)",
        "ssh-add {identity}",
    ),
    # login: this client
    Cause(
        "ssh_missing",
        "no ssh program",
        "OpenSSH's client is not installed on the controller",
        "apt-get install openssh-client (Debian, Ubuntu) or dnf install openssh-clients",
    ),
    Cause(
        "ssh_config_error",
        "ssh -G refuses its configuration",
        "ssh cannot use its configuration file or arguments",
        "correct what is named, then check with: ssh -G {login}",
    ),
    # login: the way there
    Cause(
        "jump_failed",
        "the connection ended before the node itself answered",
        "the way through the jump host or proxy command does not lead to the node",
        "ssh -v {login}",
        transient=True,
    ),
    Cause(
        "jump_refused",
        "the jump host's host key or our login there was refused",
        "the login on the jump host fails, the node itself was not reached",
        "repair the login on the jump host first: ssh -v {login}",
    ),
    Cause(
        "connection_reset",
        "connection reset",
        "the server or a device on the way cut the connection",
        "ssh -v {login}",
        transient=True,
    ),
    Cause(
        "connection_closed",
        "connection closed by the server",
        "the server ended the connection",
        "ssh -v {login}",
        transient=True,
    ),
    Cause(
        "kex_timeout",
        "no end of the key exchange within the limit",
        "the key exchange hangs (often big packets get lost on the way: MTU; or the node is overloaded)",
        "test the path with full packets: ping -c 3 -M do -s 1472 {host}",
        transient=True,
    ),
    Cause(
        "auth_timeout",
        "no end of the authentication within the limit",
        "authentication hangs on the server (slow reverse DNS, PAM, or an overloaded node)",
        "ssh -v {login}",
        transient=True,
    ),
    Cause(
        "no_matching_algorithm",
        "no matching algorithm found",
        "client and server have no algorithm in common",
        "compare the server's offer with: ssh -Q {query}; then update the older OpenSSH",
    ),
    # login: the server's identity
    Cause(
        "host_key_unknown",
        "no host key is known",
        "the node's host key has never been accepted on this controller",
        "compare {fingerprint} with the provider's console, then: ssh -o StrictHostKeyChecking=accept-new {login} true",
    ),
    Cause(
        "host_key_changed",
        "remote host identification has changed",
        "the node shows another host key than the known one (rebuilt, another machine on this address, or an attack)",
        "only if the node was rebuilt: ssh-keygen -R {known_name} -f {known_hosts}; then run this again",
    ),
    Cause(
        "host_key_revoked",
        "a revoked host key",
        "the node shows a host key that was revoked",
        "do not log in; look at the node in the provider's console, then: ssh-keygen -F {known_name} -f {known_hosts}",
    ),
    # login: our identity
    Cause(
        "auth_no_key",
        "no key was offered",
        "this client has no usable key to offer (none there, or locked by a passphrase without an agent)",
        "ssh-add -l; ssh-keygen -y -f {identity}",
    ),
    Cause(
        "auth_key_refused",
        "permission denied after all keys were offered, no password possible",
        "the node does not accept our key for this user",
        "add the line this prints to authorized_keys of {user} by the provider's console: ssh-keygen -y -f {identity}",
    ),
    Cause(
        "auth_password_only",
        "permission denied for keys, the server also offers password or keyboard-interactive",
        "the node does not accept our key for this user yet, but a first contact by password is possible",
        "ssh-copy-id {copy_id}",
        remedy_with_password="go on with the password that was given: ansible-playbook gpuops.fleet.site -l {alias}",
    ),
    Cause(
        "auth_account_refused",
        "the server accepted the key and then refused the login",
        "the key is right, but the server does not let this account in (expired, locked, no root login, AllowUsers)",
        "try another user, or on its console: chage -l {user}; sshd -T -C user={user} | grep -E 'root|allow|deny'",
    ),
    Cause(
        "auth_second_factor",
        "partial success, more methods are required",
        "the key is accepted, but the server also wants a second factor",
        "exempt this user on the node (Match User with AuthenticationMethods publickey), then: ssh -v {login}",
    ),
    Cause(
        "auth_too_many_failures",
        "too many authentication failures",
        "the client offered too many keys before the right one",
        "ssh -o IdentitiesOnly=yes -i {identity} {login}",
    ),
    # login: the command
    Cause(
        "command_failed",
        "login succeeded, the command `true` did not",
        "the login works, but the account runs no commands (nologin, forced command, broken shell or start-up file)",
        "on the node's console: getent passwd {user}",
    ),
    Cause(
        "command_timeout",
        "login succeeded, the command `true` did not end within the limit",
        "the login works, but the shell hangs (home directory on a dead network disk, or a start-up file that waits)",
        "ssh -v {login} true",
        transient=True,
    ),
    Cause(
        "unknown",
        "a failure not in this table",
        "ssh failed for a reason the doctor does not know",
        "ssh -vvv {login}",
    ),
)

CAUSES = {cause.code: cause for cause in _TABLE}
