# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An allow-list of networks for the ports of sshd, as a table of nftables beside those that are there.

This module util is PRIVATE to the collection.
"""

from __future__ import annotations

import ipaddress
import shutil
import typing as t

from ansible_collections.gpuops.fleet.plugins.module_utils._trust.sshd.process import Run, has_systemd
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.sshd.settings import Login, SshdError

RULES = "/etc/ssh/gpuops-firewall.nft"
_SERVICE = "gpuops-ssh-firewall.service"
UNIT = f"/etc/systemd/system/{_SERVICE}"
_TABLE = "inet gpuops_ssh"
UNIT_TEXT = f"""# Written by gpuops.fleet, role sshd_hardening.
[Unit]
Description=Networks that may reach sshd
After=nftables.service
ConditionPathExists={RULES}

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/nft -f {RULES}

[Install]
WantedBy=multi-user.target
"""


def render(networks: t.Sequence[str], ports: t.Sequence[int]) -> str:
    """The rules. Open connections stay, and this machine itself always gets in."""
    accepted = []
    for family, version in (("ip", 4), ("ip6", 6)):
        of_family = [str(network) for network in _parse(networks) if network.version == version]
        if of_family:
            accepted.append(f"        {family} saddr {{ {', '.join(of_family)} }} accept")
    return "\n".join(
        [
            "# Written by gpuops.fleet, role sshd_hardening. Other tables stay as they are.",
            # Named first, so that there is one to delete.
            f"table {_TABLE}",
            f"delete table {_TABLE}",
            f"table {_TABLE} {{",
            "    chain input {",
            "        type filter hook input priority -5; policy accept;",
            '        iifname "lo" accept',
            "        ct state established,related accept",
            *accepted,
            f"        tcp dport {{ {', '.join(map(str, ports))} }} drop",
            "    }",
            "}",
            "",
        ]
    )


def _parse(networks: t.Sequence[str]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    try:
        return [ipaddress.ip_network(network, strict=False) for network in networks]
    except ValueError as error:
        raise SshdError(f"{error}; wanted networks such as 10.0.0.0/8") from error


def check(networks: t.Sequence[str], logins: t.Sequence[Login], staged: str, run: Run) -> None:
    """Want the rules to be valid, and to let the logins through."""
    if not shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin") or not has_systemd():
        raise SshdError("an allow-list for the port needs nftables and systemd", remedy="apt-get install nftables")
    for login in logins:
        address = ipaddress.ip_address(login.address)
        if not address.is_loopback and not any(address in network for network in _parse(networks)):
            raise SshdError(f"the firewall would drop {login.user} from {login.address}: not in {', '.join(networks)}")
    code, said = run(["nft", "-c", "-f", staged])
    if code:
        raise SshdError(f"nft rejects the rules: {said.strip()}")


def is_loaded(run: Run) -> bool:
    return run(["nft", "list", "table", *_TABLE.split()])[0] == 0


def commands(wanted: bool) -> list[list[str]]:
    """Bring the rules into force, now and when the machine starts; or take them back."""
    if wanted:
        return [["systemctl", "daemon-reload"], ["nft", "-f", RULES], ["systemctl", "enable", "--quiet", _SERVICE]]
    return [
        ["nft", "delete", "table", *_TABLE.split()],
        ["rm", "-f", f"/etc/systemd/system/multi-user.target.wants/{_SERVICE}"],
        ["systemctl", "daemon-reload"],
    ]
