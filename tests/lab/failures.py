# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Failures of SSH, and what the doctor has to say of each. sick_node.py makes them."""

from __future__ import annotations

from dataclasses import dataclass, field

ALL = ("deb11", "deb12", "deb13")
# On the node.
PLACE = "/var/lib/doctor-lab"

TCP_SERVER = """python3 -c '
import contextlib, socket, sys, threading, time
def serve(connection, address):
    with contextlib.suppress(OSError):
        {}
server = socket.create_server(("", int(sys.argv[1])))
while True:
    threading.Thread(target=serve, args=server.accept()).start()
' "$port"
"""


SLOW_LOGIN = ("AuthorizedKeysFile=none", f"AuthorizedKeysCommand={PLACE}/slow", "AuthorizedKeysCommandUser=root")


@dataclass(frozen=True)
class Failure:
    """One way to be unwell, and what the doctor has to say of it."""

    name: str
    # The code of the cause, or nothing where the login works.
    cause: str = ""
    warnings: tuple[str, ...] = ()
    # Options that win over those of the configuration above.
    sshd: tuple[str, ...] = ()
    sftp: str = "/usr/lib/openssh/sftp-server"
    # Shell, run by root in namespaces of its own before sshd starts there.
    prepare: str = ""
    # Shell that runs instead of sshd; None: nothing listens.
    server: str | None = ""
    # Arguments of iptables on the node.
    firewall: str = ""
    # Variables of the inventory, and more arguments for ssh. SickNode.hosts fills in the {names}.
    user: str = "root"
    key: str | None = "key"
    variables: dict[str, object] = field(default_factory=dict)
    arguments: str = ""
    # The jump hosts, by the names of other failures; with jump_cause the last one has it.
    through: tuple[str, ...] = ()
    jump_cause: bool = False
    # What known_hosts says: right, wrong, revoked, nothing, certificate.
    known: str = "right"
    # Another failure whose server it uses.
    beside: str = ""
    # The file of the server's host key, if it is not its own.
    host_key: str = ""
    releases: tuple[str, ...] = ALL


FAILURES = (
    # Well: no cause, no warning
    Failure("well-root"),
    Failure("well-sudo", user="gpu"),
    Failure("well-dash", user="dash"),
    Failure("well-one-session", sshd=("MaxSessions=1",)),
    Failure("well-banner", sshd=(f"Banner={PLACE}/banner",)),
    Failure("well-agent", key="locked", arguments="-o IdentityAgent={home}/agent"),
    Failure("well-password-too", sshd=("PasswordAuthentication=yes",)),
    # Not only for its own sake: many go through it at once.
    Failure("well-jump", sshd=("MaxStartups=100",)),
    Failure("well-behind-jump", through=("well-jump",)),
    Failure("well-behind-two", through=("well-root", "well-jump")),
    # The inventory, the name, the port
    Failure("no-address", "no_address", variables={"ansible_host": ""}, beside="well-root"),
    Failure("blank-address", "address_invalid", variables={"ansible_host": "{address} "}, beside="well-root"),
    Failure("option-address", "address_invalid", variables={"ansible_host": "-oProxyCommand=true"}, beside="well-root"),
    Failure("bad-port", "port_invalid", variables={"ansible_port": 70000}, beside="well-root"),
    Failure("bad-user", "user_invalid", variables={"ansible_user": "root;true"}, beside="well-root"),
    Failure("bad-jump", "jump_invalid", arguments="-o 'ProxyJump=x&true'", beside="well-root"),
    Failure("bad-config", "ssh_config_error", arguments="-o NoSuchKeyword=yes", beside="well-root"),
    Failure("no-such-name", "name_unknown", variables={"ansible_host": "no-such-host.invalid"}, beside="well-root"),
    Failure("refused", "tcp_refused", server=None),
    Failure("dropped", "tcp_timeout", firewall="-j DROP"),
    Failure("no-route", "tcp_unreachable", firewall="-j REJECT --reject-with icmp-host-unreachable"),
    # The first bytes
    Failure("http", "not_ssh", server='cd /mnt; python3 -m http.server "$port"'),
    Failure(
        "endlessh", "tarpit",
        server=TCP_SERVER.format('while True: connection.send(b"x8r\\r\\n"); time.sleep(0.5)'),
    ),
    Failure("silent", "banner_timeout", server=TCP_SERVER.format("time.sleep(1000)")),
    Failure("hangs-up", "banner_closed", server=TCP_SERVER.format("connection.close()")),
    Failure("max-startups", "max_startups", sshd=("MaxStartups=1", "LoginGraceTime=0"), releases=("deb11", "deb12")),
    # OpenSSH 9.8 and later says the same of both.
    Failure("max-startups", "penalties", sshd=("MaxStartups=1", "LoginGraceTime=0"), releases=("deb13",)),
    Failure("penalties", "penalties", sshd=("PerSourcePenalties=authfail:120s",), releases=("deb13",)),
    Failure(
        "protocol-1", "ssh_protocol_old",
        server=TCP_SERVER.format('connection.send(b"SSH-1.5-1.2.27\\r\\n"); time.sleep(1000)'),
    ),
    # The key exchange
    Failure("mtu", "kex_timeout", firewall="-m length --length 700: -j DROP"),
    Failure(
        "garbage", "protocol_error",
        server=TCP_SERVER.format('connection.send(b"SSH-2.0-x\\r\\n" + b"no packet\\r\\n" * 99); time.sleep(1000)'),
    ),
    Failure("old-kex", "no_matching_algorithm", sshd=("KexAlgorithms=diffie-hellman-group1-sha1",)),
    Failure("old-cipher", "no_matching_algorithm", sshd=("Ciphers=3des-cbc",)),
    Failure("old-mac", "no_matching_algorithm", sshd=("MACs=hmac-md5", "Ciphers=aes256-ctr")),
    Failure("old-host-key", "no_matching_algorithm", host_key="rsa", sshd=("HostKeyAlgorithms=ssh-rsa",)),
    Failure(
        "chacha-only", "", ("paramiko_incompatible",), sshd=("Ciphers=chacha20-poly1305@openssh.com",)
    ),
    Failure(
        "sntrup-only", "", ("paramiko_incompatible",),
        sshd=("KexAlgorithms=sntrup761x25519-sha512@openssh.com",), releases=("deb12", "deb13"),
    ),
    # The host key
    Failure("new-host", "host_key_unknown", known="nothing"),
    Failure("rebuilt", "host_key_changed", known="wrong"),
    Failure("revoked", "host_key_revoked", known="revoked"),
    Failure("expired-certificate", "host_cert_invalid", known="certificate"),
    # Our key
    Failure("no-key-file", "key_missing", key="nowhere", beside="well-root"),
    Failure("open-key", "key_permissions", key="open", beside="well-root"),
    Failure("no-key-in-file", "key_invalid", key="invalid", beside="well-root"),
    Failure("dsa-key", "key_obsolete", key="dsa"),
    Failure("short-key", "key_obsolete", key="rsa1024", sshd=("RequiredRSASize=2048",), releases=("deb12", "deb13")),
    Failure("other-pub", "key_pub_mismatch", key="mismatch"),
    Failure("locked-key", "key_passphrase", key="locked"),
    Failure("no-keys", "auth_no_key", key=None, arguments="-o IdentityFile=none"),
    Failure("many-keys", "", ("auth_many_keys",), key=None, arguments="{many_right_first}"),
    Failure("too-many-keys", "auth_too_many_failures", ("auth_many_keys",), key=None, arguments="{many}"),
    # The account
    Failure("stranger", "auth_key_refused", key="stranger"),
    Failure("wrong-user", "auth_key_refused", user="nobodyhere"),
    Failure("not-allowed", "auth_key_refused", sshd=("AllowUsers=gpu",)),
    Failure(
        "open-home", "auth_key_refused", sshd=("AuthorizedKeysFile=.ssh/authorized_keys",),
        prepare=f"mkdir -m 700 /root/.ssh; cp {PLACE}/authorized_keys /root/.ssh; chmod 777 /root",
    ),
    Failure("password-only", "auth_password_only", key="stranger", sshd=("PasswordAuthentication=yes",)),
    Failure("no-pubkey", "auth_publickey_off", sshd=("PubkeyAuthentication=no", "PasswordAuthentication=yes")),
    Failure("no-root", "auth_root_refused", sshd=("PermitRootLogin=no",)),
    Failure("expired", "account_expired", user="expired"),
    Failure("pam-says-no", "auth_account_refused", user="gpu", prepare=f"mount --bind {PLACE}/pam /etc/pam.d/sshd"),
    Failure(
        "booting", "system_closed", user="gpu",
        # What systemd writes there while it boots.
        prepare="mount -t tmpfs tmpfs /run; mkdir /run/sshd; echo 'System is booting up. Unprivileged users are not "
        "permitted to log in yet. Please come back later. For technical details, see pam_nologin(8).' > /run/nologin",
    ),
    Failure(
        "second-factor", "auth_second_factor",
        sshd=("AuthenticationMethods=publickey,password", "PasswordAuthentication=yes"),
    ),
    Failure(
        "slow-login", "auth_timeout",
        sshd=(*SLOW_LOGIN, "LoginGraceTime=0"),
    ),
    Failure(
        "grace-over", "connection_closed",
        # Long enough for a slow machine to wait for the login by then: writing to a closed one has another name.
        sshd=(*SLOW_LOGIN, "LoginGraceTime=6"),
    ),
    Failure(
        "cut-off", "connection_reset", firewall="-m connbytes --connbytes 4500: --connbytes-mode bytes "
        "--connbytes-dir both -j REJECT --reject-with tcp-reset",
    ),
    # The command
    Failure("nologin-shell", "account_nologin", user="nologin"),
    Failure("stale-password", "password_expired", user="stale"),
    Failure("bashrc-exits", "command_swallowed", prepare="echo exit > /root/.bashrc"),
    Failure("forced-true", "command_swallowed", sshd=("ForceCommand=true",)),
    Failure("forced-sftp", "command_failed", sshd=("ForceCommand=internal-sftp",)),
    Failure("forced-false", "command_failed", sshd=("ForceCommand=false",)),
    Failure("no-sessions", "command_failed", sshd=("MaxSessions=0",)),
    Failure("bashrc-hangs", "command_timeout", prepare="echo 'sleep 1000' > /root/.bashrc"),
    Failure("noisy-bashrc", "", ("shell_noise",), prepare="echo 'echo Welcome to node 7' > /root/.bashrc"),
    Failure("homeless", "", ("home_missing",), user="homeless"),
    # What works no more
    Failure("no-sftp", "", ("sftp_missing",), sftp=""),
    Failure("broken-sftp", "", ("sftp_failed",), sftp="/bin/false"),
    Failure("no-forwarding", "", ("forwarding_off",), sshd=("AllowTcpForwarding=no",)),
    Failure(
        "no-python", "", ("python_missing",),
        prepare='for python in /usr/bin/python3*; do mount --bind /dev/null "$(readlink -f "$python")"; done',
    ),
    Failure("sudo-password", "", ("sudo_password",), user="intern"),
    Failure("no-sudo", "", ("sudo_missing",), user="gpu", prepare="mount --bind /dev/null /usr/bin/sudo"),
    Failure("not-in-sudoers", "", ("sudo_password",), user="guest"),
    # The clock is this machine's own and stays: on that node it is `date` that lies.
    Failure("slow-clock", "", ("clock_off",), prepare=f'mount --bind {PLACE}/date "$(command -v date)"'),
    Failure(
        "full-disk", "", ("disk_full",),
        prepare="mount -t tmpfs -o size=200m tmpfs /tmp; head -c 195M /dev/zero > /tmp/filler",
    ),
    Failure("no-inodes", "", ("inodes_full",), prepare="mount -t tmpfs -o nr_inodes=500 tmpfs /tmp"),
    Failure("read-only", "", ("disk_not_writable",), prepare="mount -t tmpfs -o ro tmpfs /tmp"),
    # Jump hosts
    Failure("jump-refused", "tcp_refused", through=("refused",), jump_cause=True, beside="well-root"),
    Failure("jump-dropped", "tcp_timeout", through=("dropped",), jump_cause=True, beside="well-root"),
    Failure("jump-http", "not_ssh", through=("http",), jump_cause=True, beside="well-root"),
    Failure("jump-key-refused", "auth_key_refused", through=("not-allowed",), jump_cause=True, beside="well-root"),
    Failure("jump-rebuilt", "host_key_changed", through=("rebuilt",), jump_cause=True, beside="well-root"),
    Failure(
        "second-jump-refused", "tcp_refused", through=("well-jump", "refused"), jump_cause=True, beside="well-root"
    ),
    Failure("jump-forwards-nothing", "jump_forwarding_off", through=("no-forwarding",), beside="well-root"),
    Failure("refused-behind-jump", "tcp_refused", through=("well-jump",), beside="refused"),
    Failure("stranger-behind-jump", "auth_key_refused", through=("well-jump",), key="stranger"),
    Failure("rebuilt-behind-jump", "host_key_changed", through=("well-jump",), beside="rebuilt"),
    # Only seen from above
    Failure("twin-1", "", ("same_machine",)),
    Failure("twin-2", "", ("same_machine",), beside="twin-1"),
    Failure("clone-1", "", ("shared_host_key",)),
    Failure("clone-2", "", ("shared_host_key",), host_key="clone-1"),
)  # fmt: skip
