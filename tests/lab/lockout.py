# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has locked people out of their machines, made for real, and what sshd_hardening must do about each.

A cell is a state of a node, and what the role is asked for. Either the change is made, or it is refused with the reason
and the node is as it was before. In both cases the door stays open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

RELEASES = ("deb11", "deb12", "deb13")
OLDEST, NEWEST = RELEASES[0], RELEASES[-1]
# Keywords have other names in OpenSSH 8.4, 9.2 and 10.0, sshd is strict about other things, nft prints sets otherwise.
DEPEND_ON_THE_RELEASE = (
    "root-only",
    "match-at-the-end",
    "allow-list",
    "duplicate-subsystem",
    "sshd-cannot-start-again",
)


@dataclass(frozen=True)
class Cell:
    """`mount` runs in the node's mounts with the rights of this machine's root, which the node's own root lacks."""

    name: str
    prepare: str = ""
    mount: str = ""
    user: str = "root"
    variables: Mapping[str, Any] = field(default_factory=dict)
    # What the message says, as a regular expression. Without it, the change is made.
    refused: str = ""
    # What `sshd -T` then says, beside that passwords are off; for another login than the cell's own with WHO.
    wanted: tuple[str, ...] = ()
    kept_for: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ports: tuple[int, ...] = (22,)
    # A command that then works on the node.
    works: str = "true"
    # The same machine under another name in the inventory.
    beside: Mapping[str, Any] = field(default_factory=dict)
    # No systemd: the first process is `sleep infinity`, and sshd was started by hand.
    pod: bool = False


MATCH = """
cat >> /etc/ssh/sshd_config << 'END'
Match User backup
    ForceCommand internal-sftp
    X11Forwarding no
Match Address 192.0.2.0/24
    MaxSessions 3
END
systemctl reload ssh
"""
CLOUD_INIT = r"""
printf 'PasswordAuthentication yes\nPermitRootLogin yes\nMaxSessions 50\n' > /etc/ssh/sshd_config.d/50-cloud-init.conf
systemctl reload ssh
"""
MOVE_KEY = """
mkdir -p /home/gpu/.ssh
mv /root/.ssh/authorized_keys /home/gpu/.ssh/
chown -R gpu:gpu /home/gpu/.ssh
"""
EXPIRED = """
mkdir -p /home/gpu/.ssh
cp /root/.ssh/authorized_keys /home/gpu/.ssh/
chown -R gpu:gpu /home/gpu/.ssh
chage -E 0 gpu
"""
# With each reload, users other than root are shut out, and with the next one they are let in again.
SHUT_OUT = r"""
mkdir -p /etc/systemd/system/ssh.service.d
printf '[Service]\nExecReload=/bin/sh -c "rm /run/nologin || touch /run/nologin"\n' \
    > /etc/systemd/system/ssh.service.d/toggle.conf
systemctl daemon-reload
"""
# It reads the same files, and its command line says another port.
SECOND_SSHD = """
cat > /etc/systemd/system/gpuops-second.service << 'END'
[Service]
Type=notify
ExecStart=/usr/sbin/sshd -D -p 2223
ExecReload=/bin/kill -HUP $MAINPID
KillMode=process
END
systemctl daemon-reload
systemctl start gpuops-second
"""
STOP_SSHD = """
kill "$(cat /run/sshd.pid)"
while [ -e /run/sshd.pid ]; do sleep 0.1; done
"""
# A reload is a new start of the same file, which is not found again. From 9.8 on, sshd takes no relative path at all.
RELATIVE = STOP_SSHD + "cd /usr/sbin\n./sshd -r\n"
GONE = STOP_SSHD + "cp /usr/sbin/sshd /opt/sshd\n/opt/sshd\nrm /opt/sshd\n"
UNTIL_LISTENING = "until ss -Hltn sport = :22 | grep -q .; do sleep 0.1; done\n"
FULL = """
cp -a {0} /tmp/full
mount -t tmpfs -o mode=755 tmpfs {0}
cp -a /tmp/full/. {0}
rm -rf /tmp/full
mount -o remount,size=$(df -k --output=used {0} | tail -n 1 | tr -d ' ')k {0}
"""
RUN_FULL = "mount -o remount,size=$(df -k --output=used /run | tail -n 1 | tr -d ' ')k /run\n"
READ_ONLY = "mount --bind /etc /etc\nmount -o remount,bind,ro /etc\n"
# Puts back what the three above did, innermost first.
UNMOUNT = """
umount -l /etc/ssh 2>/dev/null || true
umount -l /etc 2>/dev/null || true
umount -l /var 2>/dev/null || true
mount -o remount,size=1g /run
"""


def on_disk(*lines: str) -> str:
    """A drop-in that no sshd has read yet."""
    return "cat > /etc/ssh/sshd_config.d/60-vendor.conf << 'END'\n" + "\n".join(lines) + "\nEND\n"


def cells(release: str) -> list[Cell]:
    """The cells of a release."""
    refuses_duplicate = release in ("deb11", "deb12")
    return [
        Cell("root-only"),
        Cell(
            "sudo-user",
            MOVE_KEY,
            user="gpu",
            variables={"sshd_hardening_permit_root_login": "no"},
            wanted=("permitrootlogin no",),
        ),
        Cell(
            "match-at-the-end",
            MATCH,
            kept_for={
                "user=backup,host=localhost,addr=127.0.0.1": ("forcecommand internal-sftp", "x11forwarding no"),
                "user=root,host=localhost,addr=192.0.2.7": ("maxsessions 3",),
            },
        ),
        Cell("cloud-init", CLOUD_INIT, wanted=("maxsessions 50",)),
        Cell("no-systemd", pod=True),
        Cell("two-ports", variables={"sshd_hardening_ports": [22, 2222]}, ports=(22, 2222)),
        Cell("second-sshd", SECOND_SSHD, ports=(22, 2223)),
        Cell(
            "allow-list",
            "nft add table ip others",
            variables={"sshd_hardening_firewall": True, "sshd_hardening_from_networks": ["10.0.0.0/8", "fd00::/8"]},
            works="nft list table ip others && nft list table inet gpuops_ssh | grep -E 'tcp dport (22|. 22 .) drop' &&"
            " systemctl is-enabled gpuops-ssh-firewall",
        ),
        Cell(
            "allow-list-without-us",
            variables={"sshd_hardening_firewall": True, "sshd_hardening_from_networks": ["192.0.2.0/24"]},
            refused=r"DenyUsers \*|would drop root",
        ),
        Cell("disk-full-var", mount=FULL.format("/var")),
        Cell(
            "duplicate-subsystem",
            on_disk("Subsystem sftp internal-sftp"),
            refused="Subsystem '?sftp'? already defined" if refuses_duplicate else "",
        ),
        Cell("revoked-keys-missing", on_disk("RevokedKeys /etc/ssh/revoked_keys"), refused="RevokedKeys"),
        Cell("allow-users-typo", on_disk("AllowUsers rooot"), refused="AllowUsers rooot"),
        Cell(
            "sshd-cannot-start-again",
            (GONE if release == "deb13" else RELATIVE) + UNTIL_LISTENING,
            refused=r"/opt/sshd|\./sshd|absolute path",
            pod=True,
        ),
        Cell(
            "allow-users-asked",
            variables={"sshd_hardening_allow_users": ["nobodyhere"]},
            refused="AllowUsers nobodyhere",
        ),
        Cell("foreign-port", on_disk("Port 2222"), refused="2222"),
        Cell("port-moved-away", variables={"sshd_hardening_ports": [2222]}, refused=r"\b22\b.*2222|2222.*\b22\b"),
        Cell(
            "authorized-keys-elsewhere",
            on_disk("AuthorizedKeysFile /etc/ssh/keys/%u"),
            refused="AuthorizedKeysFile /etc/ssh/keys/",
        ),
        Cell(
            "account-expired",
            EXPIRED,
            beside={"ansible_user": "gpu"},
            refused=r"gpu\b.*expired|expired.*\bgpu\b",
        ),
        Cell(
            "root-forbidden-to-root",
            variables={"sshd_hardening_permit_root_login": "no"},
            refused="PermitRootLogin no",
        ),
        Cell("shut-out-by-the-reload", MOVE_KEY + SHUT_OUT, user="gpu", refused="put back: .*Connection closed by"),
        Cell("disk-full-etc-ssh", mount=FULL.format("/etc/ssh"), refused="No space left"),
        Cell("disk-full-run", mount=RUN_FULL, refused="No space left"),
        Cell("read-only-etc", mount=READ_ONLY, refused="Read-only file system"),
    ]
