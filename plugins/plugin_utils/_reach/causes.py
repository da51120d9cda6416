# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The closed table of what can be wrong with a node on the way over SSH. docs/causes.md is made from it.

This plugin util is PRIVATE to the collection.
"""

from __future__ import annotations

from dataclasses import dataclass

STAGES = (
    "inventory",
    "resolve",
    "tcp",
    "banner",
    "algorithms",
    "host_key",
    "key",
    "login",
    "command",
    "sftp",
    "forwarding",
    "python",
    "sudo",
    "clock",
    "disk",
)


@dataclass(frozen=True)
class Cause:
    """One reason.

    `stage` is where it is usually found; a result carries the stage of its case. `severity` is fail where the node
    cannot be used, warn where it can. `seen` says what the doctor meets, for the documentation; a result carries the
    evidence of its case instead.
    `remedy` may name these fields, all quoted for a shell: alias (inventory name), host, address, user, login (the
    arguments after `ssh`), copy_id (those after `ssh-copy-id`), identity (private key file), known_hosts (file),
    known_name (the entry in it), fingerprint (host key the server showed), query (argument of `ssh -Q`).
    `transient` says that the same call may succeed later without a change by a person.
    """

    code: str
    stage: str
    severity: str
    seen: str
    meaning: str
    remedy: str
    transient: bool = False
    remedy_with_password: str = ""


class SickError(Exception):
    """A stage failed: the code of the cause, what was seen, and values for the remedy."""

    def __init__(self, code: str, seen: str, **values: str) -> None:
        super().__init__(seen)
        self.code = code
        self.seen = " ".join(seen.split())
        self.values = values


_TABLE = (
    # inventory
    Cause(
        "no_address",
        "inventory",
        "fail",
        "no address for the host",
        "the inventory gives no address",
        "set ansible_host, then check with: ansible-inventory --host {alias}",
    ),
    Cause(
        "address_invalid",
        "inventory",
        "fail",
        "a leading dash, a blank, a quote or another character that a shell reads in the address",
        "the address in the inventory is malformed",
        "correct ansible_host, then check with: ansible-inventory --host {alias}",
    ),
    Cause(
        "port_invalid",
        "inventory",
        "fail",
        "a port that is no number from 1 to 65535",
        "the port in the inventory is malformed",
        "correct ansible_port, then check with: ansible-inventory --host {alias}",
    ),
    Cause(
        "user_invalid",
        "inventory",
        "fail",
        "a user that starts with a dash or holds a blank, a quote or another character that a shell reads",
        "the user in the inventory is malformed",
        "correct ansible_user, then check with: ansible-inventory --host {alias}",
    ),
    Cause(
        "jump_invalid",
        "inventory",
        "fail",
        "a jump host that starts with a dash or holds a blank, a quote or another character that a shell reads",
        "the jump host in the inventory is malformed",
        "correct ssh_bootstrap_proxy_jump (or ProxyJump elsewhere), then check with: ansible-inventory --host {alias}",
    ),
    Cause(
        "ssh_missing",
        "inventory",
        "fail",
        "no ssh program",
        "OpenSSH's client is not installed on the controller",
        "apt-get install openssh-client (Debian, Ubuntu) or dnf install openssh-clients",
    ),
    Cause(
        "ssh_config_error",
        "inventory",
        "fail",
        "ssh -G refuses its configuration",
        "ssh cannot use its configuration file or arguments",
        "correct what is named, then check with: ssh -G {login}",
    ),
    Cause(
        "same_machine",
        "inventory",
        "warn",
        "two names in the inventory lead to one machine",
        "the fleet counts this machine twice, and two runs on it get in each other's way",
        "ansible-inventory --host {alias}, then correct ansible_host or ansible_port of one of them",
    ),
    # resolve
    Cause(
        "name_unknown",
        "resolve",
        "fail",
        "the resolver knows no address for the name",
        "no such host name",
        "correct ansible_host or the DNS record, then check with: getent hosts {host}",
    ),
    Cause(
        "resolver_failed",
        "resolve",
        "fail",
        "the resolver reported a temporary failure or gave no answer in time",
        "name resolution does not work on the controller at the moment",
        "check with: getent hosts {host}",
        transient=True,
    ),
    # tcp
    Cause(
        "tcp_refused",
        "tcp",
        "fail",
        "connection refused",
        "the machine answers, but nothing listens on this port (still booting, sshd stopped, or the port has changed)",
        "compare the port with the provider's console, then: ssh -v {login}",
        transient=True,
    ),
    Cause(
        "tcp_timeout",
        "tcp",
        "fail",
        "no answer to the connection request",
        "the machine is off, or a firewall drops the connection",
        "look at the node and its firewall rules in the provider's console, then: ping -c 3 {host}",
        transient=True,
    ),
    Cause(
        "tcp_unreachable",
        "tcp",
        "fail",
        "no route to the host or network",
        "no network path leads from the controller to the node",
        "check VPN and routes: ip route get {address}",
        transient=True,
    ),
    Cause(
        "tcp_address_dead",
        "tcp",
        "warn",
        "one of the addresses of the name takes no connection, a later one does",
        "every connection waits for the dead address first (often IPv6 without a route)",
        "remove the dead address from DNS, or set AddressFamily inet for it in ~/.ssh/config; check with: "
        "getent ahosts {host}",
    ),
    Cause(
        "jump_failed",
        "tcp",
        "fail",
        "the connection ended before the node itself answered",
        "the way through the jump host or proxy command does not lead to the node",
        "ssh -v {login}",
        transient=True,
    ),
    Cause(
        "jump_forwarding_off",
        "tcp",
        "fail",
        "the jump host answers that forwarding is prohibited",
        "the jump host lets us in, but lets nobody go on from there (AllowTcpForwarding, PermitOpen, restrict)",
        "as root on the jump host: sshd -T | grep -iE 'forwarding|permitopen'",
    ),
    # banner
    Cause(
        "not_ssh",
        "banner",
        "fail",
        "bytes that are no SSH identification",
        "another service than SSH answers on this port",
        "compare the port with the provider's console, then correct ansible_port and check with: "
        "ansible-inventory --host {alias}",
    ),
    Cause(
        "tarpit",
        "banner",
        "fail",
        "line after line, and never an SSH identification",
        "a tarpit for attackers (endlessh) listens on this port, the real SSH server is on another one",
        "compare the port with the provider's console, then correct ansible_port and check with: "
        "ansible-inventory --host {alias}",
    ),
    Cause(
        "banner_timeout",
        "banner",
        "fail",
        "an open connection without an SSH identification",
        "the port is open, but no SSH server speaks (overloaded node, tarpit, or a port forwarder without a target)",
        "restart the node or its sshd in the provider's console, then: ssh -v {login}",
        transient=True,
    ),
    Cause(
        "banner_closed",
        "banner",
        "fail",
        "the connection was closed before any byte",
        "the server or a forwarder before it drops the connection (sshd not up behind it, or this address is banned)",
        "look for bans (fail2ban-client status sshd) and for sshd on the node's console, then: ssh -v {login}",
        transient=True,
    ),
    Cause(
        "max_startups",
        "banner",
        "fail",
        "Exceeded MaxStartups",
        "the server has too many logins in progress and turns new ones away",
        "wait a few seconds or lower the forks, then: ssh -v {login}",
        transient=True,
    ),
    Cause(
        "penalties",
        "banner",
        "fail",
        "Not allowed at this time",
        "the server takes no connection from here for now: it penalises this address for failed logins "
        "(PerSourcePenalties), or has too many logins in progress (since 9.8, OpenSSH says the same of MaxStartups)",
        "stop retrying for a minute (sleep 60), then: ssh -v {login}",
        transient=True,
    ),
    Cause(
        "ssh_protocol_old",
        "banner",
        "fail",
        "an identification of SSH protocol 1",
        "the server speaks only SSH protocol 1",
        "replace the SSH server by the provider's console, then: ssh -v {login}",
    ),
    # algorithms
    Cause(
        "kex_timeout",
        "algorithms",
        "fail",
        "no end of the key exchange within the limit",
        "the key exchange hangs (often big packets get lost on the way: MTU; or the node is overloaded)",
        "test the path with full packets: ping -c 3 -M do -s 1472 {host}",
        transient=True,
    ),
    Cause(
        "protocol_error",
        "algorithms",
        "fail",
        "bytes after the identification that are no SSH key exchange",
        "something on this port claims to be an SSH server and breaks the protocol",
        "compare the port with the provider's console, then: ssh -vvv {login}",
    ),
    Cause(
        "no_matching_algorithm",
        "algorithms",
        "fail",
        "no matching algorithm found",
        "client and server have no algorithm in common",
        "compare the server's offer with: ssh -Q {query}; then update the older OpenSSH",
    ),
    Cause(
        "paramiko_incompatible",
        "algorithms",
        "warn",
        "the server offers nothing of one kind that paramiko knows",
        "OpenSSH gets in, tools built on paramiko do not",
        "on the controller: pip install --upgrade paramiko; or allow one algorithm more in sshd_config of the node",
    ),
    # host_key
    Cause(
        "host_key_unknown",
        "host_key",
        "fail",
        "no host key is known",
        "the node's host key has never been accepted on this controller",
        "compare {fingerprint} with the provider's console, then: ssh -o StrictHostKeyChecking=accept-new {login} true",
    ),
    Cause(
        "host_key_changed",
        "host_key",
        "fail",
        "remote host identification has changed",
        "the node shows another host key than the known one (rebuilt, another machine on this address, or an attack)",
        "only if the node was rebuilt: ssh-keygen -R {known_name} -f {known_hosts}; then run this again",
    ),
    Cause(
        "host_key_revoked",
        "host_key",
        "fail",
        "a revoked host key",
        "the node shows a host key that was revoked",
        "do not log in; look at the node in the provider's console, then: ssh-keygen -F {known_name} -f {known_hosts}",
    ),
    Cause(
        "host_cert_invalid",
        "host_key",
        "fail",
        "a host certificate that is expired or names another host",
        "the certificate of the node's host key is not valid for this name at this time",
        "sign the host key again; look at the certificate on the node: ssh-keygen -L -f "
        "/etc/ssh/ssh_host_ed25519_key-cert.pub",
    ),
    Cause(
        "shared_host_key",
        "host_key",
        "warn",
        "two machines show one host key",
        "whoever is root on one of them can pose as the other (made from one image with keys in it)",
        "ansible-playbook gpuops.fleet.site -l {alias} -e sshd_hardening_replace_host_key={fingerprint}",
    ),
    # key
    Cause(
        "key_missing",
        "key",
        "fail",
        "no such private key file",
        "the private key file does not exist on the controller",
        "correct the path, or make the key with: ssh-keygen -t ed25519 -f {identity}",
    ),
    Cause(
        "key_unreadable",
        "key",
        "fail",
        "the private key file cannot be read",
        "the user running this may not read the private key file",
        "ls -l {identity}",
    ),
    Cause(
        "key_permissions",
        "key",
        "fail",
        "a private key file open to other users",
        "ssh ignores this private key because other users can read it",
        "chmod 600 {identity}",
    ),
    Cause(
        "key_invalid",
        "key",
        "fail",
        "a file that holds no key OpenSSH can load",
        "the private key file is damaged or in a foreign format",
        "ssh-keygen -y -f {identity}",
    ),
    Cause(
        "key_obsolete",
        "key",
        "fail",
        "a key of a kind that OpenSSH no longer takes (DSA, RSA-1, short RSA)",
        "the private key is too old for the client or the server",
        "make a new one: ssh-keygen -t ed25519 -f ~/.ssh/id_ed25519",
    ),
    Cause(
        "key_pub_mismatch",
        "key",
        "fail",
        "a .pub file that does not belong to the private key",
        "ssh offers the key of the .pub file, and cannot prove that it has it",
        "ssh-keygen -y -f {identity} > {identity}.pub",
    ),
    Cause(
        "auth_many_keys",
        "key",
        "warn",
        "six or more keys to offer",
        "servers hang up after six keys (MaxAuthTries), so the right one may never be tried",
        "set IdentityFile and IdentitiesOnly yes for this host, or: ssh -o IdentitiesOnly=yes -i {identity} {login}",
    ),
    # login
    Cause(
        "key_passphrase",
        "login",
        "fail",
        "the server accepts the key, but the client could not sign with it",
        "the node takes this key, but it is locked here (passphrase, and no agent that holds it unlocked)",
        "ssh-add {identity}",
    ),
    Cause(
        "auth_no_key",
        "login",
        "fail",
        "no key was offered",
        "this client has no usable key to offer (none there, or locked by a passphrase without an agent)",
        "ssh-add -l; ssh-keygen -y -f {identity}",
    ),
    Cause(
        "auth_key_refused",
        "login",
        "fail",
        "permission denied after all keys were offered, no password possible",
        "the node does not accept our key for this user",
        "add the line this prints to authorized_keys of {user} by the provider's console: ssh-keygen -y -f {identity}",
    ),
    Cause(
        "auth_password_only",
        "login",
        "fail",
        "permission denied for keys, the server also offers password or keyboard-interactive",
        "the node does not accept our key for this user yet, but a first contact by password is possible",
        "ssh-copy-id {copy_id}",
        remedy_with_password="go on with the password that was given: ansible-playbook gpuops.fleet.site -l {alias}",
    ),
    Cause(
        "auth_publickey_off",
        "login",
        "fail",
        "publickey is not among the methods that the server offers",
        "the node takes no keys from this user, whatever key it is",
        "as root on the node: sshd -T -C user={user} | grep -E 'pubkey|authenticationmethods'",
    ),
    Cause(
        "auth_root_refused",
        "login",
        "fail",
        "the server accepted the key of root and then refused the login",
        "the key is right, but the node does not let root in (PermitRootLogin)",
        "set ansible_user to the user that the provider names, or on its console: sshd -T | grep -i permitrootlogin",
    ),
    Cause(
        "account_expired",
        "login",
        "fail",
        "Your account has expired",
        "the account on the node is past its expiry date",
        "as root on the node: chage -E -1 {user}",
    ),
    Cause(
        "auth_account_refused",
        "login",
        "fail",
        "the server accepted the key and then refused the login",
        "the key is right, but the server does not let this account in (expired, locked, no root login, AllowUsers)",
        "try another user, or on its console: chage -l {user}; sshd -T -C user={user} | grep -E 'root|allow|deny'",
    ),
    Cause(
        "system_closed",
        "login",
        "fail",
        "System is booting up, or System is going down",
        "the node is starting or stopping, and lets only root in",
        "wait for it, then: ssh -v {login}",
        transient=True,
    ),
    Cause(
        "auth_second_factor",
        "login",
        "fail",
        "partial success, more methods are required",
        "the key is accepted, but the server also wants a second factor",
        "exempt this user on the node (Match User with AuthenticationMethods publickey), then: ssh -v {login}",
    ),
    Cause(
        "auth_too_many_failures",
        "login",
        "fail",
        "too many authentication failures",
        "the client offered too many keys before the right one",
        "ssh -o IdentitiesOnly=yes -i {identity} {login}",
    ),
    Cause(
        "auth_timeout",
        "login",
        "fail",
        "no end of the authentication within the limit",
        "authentication hangs on the server (slow reverse DNS, PAM, or an overloaded node)",
        "ssh -v {login}",
        transient=True,
    ),
    Cause(
        "connection_reset",
        "login",
        "fail",
        "connection reset",
        "the server or a device on the way cut the connection",
        "ssh -v {login}",
        transient=True,
    ),
    Cause(
        "connection_closed",
        "login",
        "fail",
        "connection closed by the server",
        "the server ended the connection",
        "ssh -v {login}",
        transient=True,
    ),
    Cause(
        "jump_refused",
        "login",
        "fail",
        "the jump host's host key or our login there was refused",
        "the login on the jump host fails, the node itself was not reached",
        "repair the login on the jump host first: ssh -v {login}",
    ),
    Cause(
        "unknown",
        "login",
        "fail",
        "a failure not in this table",
        "ssh failed for a reason the doctor does not know",
        "ssh -vvv {login}",
    ),
    # command
    Cause(
        "account_nologin",
        "command",
        "fail",
        "This account is currently not available",
        "the account has no login shell (nologin)",
        "as root on the node: usermod -s /bin/bash {user}",
    ),
    Cause(
        "password_expired",
        "command",
        "fail",
        "Password change required",
        "the login works, but the password of the account must be changed first",
        "ssh -t {login}",
    ),
    Cause(
        "command_swallowed",
        "command",
        "fail",
        "login and exit status are fine, but the command never ran",
        "a start-up file of the shell ends or replaces it (exit, exec), or a forced command stands in for it",
        "look for exit and exec in ~/.bashrc, and for command= in ~/.ssh/authorized_keys of {user}",
    ),
    Cause(
        "command_failed",
        "command",
        "fail",
        "login succeeded, the command `true` did not",
        "the login works, but the account runs no commands (nologin, forced command, broken shell or start-up file)",
        "on the node's console: getent passwd {user}",
    ),
    Cause(
        "command_timeout",
        "command",
        "fail",
        "login succeeded, the command `true` did not end within the limit",
        "the login works, but the shell hangs (home directory on a dead network disk, or a start-up file that waits)",
        "ssh -v {login} true",
        transient=True,
    ),
    Cause(
        "shell_noise",
        "command",
        "warn",
        "text before the output of the command",
        "a start-up file of the shell prints, which breaks scp, sftp, rsync and Ansible",
        "print only in interactive shells; find the line on the node: ssh {login} grep -n echo .bashrc .profile .cshrc",
    ),
    Cause(
        "home_missing",
        "command",
        "warn",
        "the home directory does not exist",
        "the account has no home directory, so Ansible has no place for its files",
        "as root on the node: mkhomedir_helper {user}",
    ),
    # sftp
    Cause(
        "sftp_missing",
        "sftp",
        "warn",
        "subsystem request failed",
        "the server has no sftp (as rented containers behind a proxy), so file transfer by sftp and scp fails",
        "set ansible_ssh_transfer_method: piped for this host, or on the node: Subsystem sftp internal-sftp "
        "in sshd_config",
    ),
    Cause(
        "sftp_failed",
        "sftp",
        "warn",
        "an answer that is not sftp, or none",
        "the server starts sftp, but it does not work",
        "set ansible_ssh_transfer_method: piped for this host, and look with: sftp -v {login}",
    ),
    # forwarding
    Cause(
        "forwarding_off",
        "forwarding",
        "warn",
        "administratively prohibited",
        "the server forwards no TCP ports, so tunnels (Jupyter, VS Code, ProxyJump) do not work",
        "as root on the node: sshd -T -C user={user} | grep -iE 'forwarding|permitopen'",
    ),
    # python
    Cause(
        "python_missing",
        "python",
        "warn",
        "no python3",
        "Ansible modules need Python on the node",
        "as root on the node: apt-get install -y python3 (Debian, Ubuntu) or dnf install -y python3",
    ),
    Cause(
        "python_old",
        "python",
        "warn",
        "a python3 before 3.8",
        "this Python is too old for Ansible",
        "install Python 3.8 or later on the node and set ansible_python_interpreter",
    ),
    # sudo
    Cause(
        "sudo_password",
        "sudo",
        "warn",
        "a password is required",
        "sudo works only with a password",
        "add --ask-become-pass to the playbook, or as root on the node: visudo -f /etc/sudoers.d/{user}",
    ),
    Cause(
        "sudo_missing",
        "sudo",
        "warn",
        "no sudo",
        "this user is not root and cannot become root",
        "as root on the node: apt-get install -y sudo, then: visudo -f /etc/sudoers.d/{user}",
    ),
    Cause(
        "sudo_refused",
        "sudo",
        "warn",
        "sudo refuses for another reason than a password",
        "this user cannot become root",
        "ssh -t {login} sudo -v",
    ),
    # clock
    Cause(
        "clock_off",
        "clock",
        "warn",
        "more than a minute of difference between node and controller",
        "a wrong clock breaks certificates, tokens, logs and make",
        "as root on the node: timedatectl set-ntp true, then: timedatectl timesync-status",
    ),
    # disk
    Cause(
        "disk_full",
        "disk",
        "warn",
        "less than 100 MiB free on /, /tmp or the home directory",
        "Ansible and jobs soon fail for want of space",
        "ssh {login} df -h / /tmp .",
    ),
    Cause(
        "inodes_full",
        "disk",
        "warn",
        "fewer than 1000 inodes free on /, /tmp or the home directory",
        "no new files can be made, whatever the free space (too many small files)",
        "ssh {login} df -i / /tmp .",
    ),
    Cause(
        "disk_not_writable",
        "disk",
        "warn",
        "/tmp or the home directory cannot be written",
        "the file system is read-only after an error, or belongs to somebody else",
        "ssh {login} ls -ld /tmp . and: ssh {login} mount",
    ),
)

CAUSES = {cause.code: cause for cause in _TABLE}
