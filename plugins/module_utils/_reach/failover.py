# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Jump hosts that fail over, in terms of ssh_config(5) alone: Match exec and ProxyJump.

This module util is PRIVATE to the collection.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

from ansible_collections.gpuops.fleet.plugins.module_utils._base.patterns import matches_one

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# Hidden from Include config.d/* in the user's own configuration, which would read it as ssh_config.
SCRIPT_FILE = ".gpuops-reach"
CACHE_SUFFIX = ".cache"
# From this depth on the script says yes without a look: for checks of a file without the network.
DEPTH_VARIABLE = "GPUOPS_REACH_DEPTH"
MAX_DEPTH = 4

JUMP_HOST = re.compile(
    r"(?:[A-Za-z0-9_.+][A-Za-z0-9_.+-]*@)?(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.][A-Za-z0-9_.-]*)(?::(?P<port>[0-9]+))?\Z"
)
MARK = "  # jump_hosts: "
NOTE = re.compile(rf"^{MARK}(?P<hosts>.+); direct: (?P<direct>allow|forbid)$", re.MULTILINE)

# The address is asked of ssh at the time of each test, not written here: it may be that of an alias of the user's own,
# which changes without a run of the module, and a stale address would take a jump host that is up for dead.
SCRIPT = r"""#!/bin/sh
# Managed by gpuops.fleet (module gpuops.fleet.ssh_alias); run by ssh for Match exec in gpuops.conf:
#   .gpuops-reach [-F CONFIG] [--last] JUMP_HOST [EARLIER...]
# Exit status 0: an SSH server answers at JUMP_HOST within 2 s, and none of the EARLIER ones is known to answer.
# That one answers is kept for 1 s, so that a loop over a fleet asks once, and that none does for 5 s, where the
# directory beside this file can be written. With --last it says so when none of them answers.

# A login shows what a Match exec complains of, and some shells do of the processes that are killed below.
exec 3>&2 2>/dev/null

config='' last=''
if [ "$1" = -F ]; then
    config=$2
    shift 2
fi
if [ "$1" = --last ]; then
    last=yes
    shift
fi
jump_host=$1
shift
cache=$0.cache

# ssh -G below may run this file again, for jump hosts that have jump hosts.
depth=${GPUOPS_REACH_DEPTH:-0}
[ "$depth" -lt 4 ] || exit 0
export GPUOPS_REACH_DEPTH=$((depth + 1))

kept() {
    time=''
    read -r time answer <"$cache/$1"
    case $time in '' | *[!0-9]*) return 1 ;; esac
    age=$(($(date +%s) - time)) limit=5
    [ "$answer" = down ] || limit=1
    [ "$age" -ge 0 ] && [ "$age" -le "$limit" ]
}

keep() {
    mkdir -p "$cache" && echo "$(date +%s) $answer" >"$cache/$jump_host.$$" &&
        mv -f "$cache/$jump_host.$$" "$cache/$jump_host"
}

# limited SECONDS COMMAND...: run it, and kill it when the time is over; ssh-keyscan -T does not limit name look-ups.
# One process sleeps, one waits for the command; whichever ends first ends the other, so that nothing is left behind.
limited() {
    sleep "$1" >/dev/null 3>&- &
    timer=$!
    shift
    {
        trap 'kill -9 "$command"' TERM
        "$@" 3>&- &
        command=$!
        wait "$command"
        status=$?
        kill "$timer"
        exit "$status"
    } &
    worker=$!
    # A shell lets what it has in the background ignore the interrupt key.
    trap 'kill "$timer" "$worker"; exit 1' HUP INT TERM
    if wait "$timer"; then
        kill "$worker"
    fi
    wait "$worker"
}

# Set host and port to what ssh connects to first on its way to a jump host; they stay empty for a ProxyCommand.
resolve() {
    host=${1##*@} login=${1%"${1##*@}"} port=''
    case $host in
    *\]) ;;
    *:*) port=${host##*:} host=${host%:*} ;;
    esac
    host=${host#\[} host=${host%\]}
    # Up to four jump hosts of the jump host may be tested by this.
    settings=$(limited 8 ssh ${config:+-F "$config"} -G ${login:+-l "${login%@}"} ${port:+-p "$port"} -- "$host") ||
        return
    host='' port='' next=''
    while read -r keyword value; do
        case $keyword in
        hostname) host=$value ;;
        port) port=$value ;;
        proxyjump) next=${value%%,*} ;;
        proxycommand) proxy_command=yes ;;
        esac
    done <<END
$settings
END
}

answers() {
    proxy_command='' next=$1
    for _hop in 1 2 3 4 5 6 7 8; do
        resolve "$next" || return
        [ -n "$next" ] || break
    done
    # Nobody can tell what a ProxyCommand reaches but itself.
    [ -z "$proxy_command" ] || return 0
    # No server has an ecdsa-sk key, so that ends soon after the banner; OpenSSH before 8.2 does not know the type.
    for type in ecdsa-sk ed25519; do
        case $(limited 2 ssh-keyscan -T 2 -t "$type" -p "$port" -- "$host" 2>&1) in
        *SSH-*) return 0 ;;
        *nknown\ key\ type*) ;;
        *) return 1 ;;
        esac
    done
    return 1
}

for earlier in "$@"; do
    if kept "$earlier" && [ "$answer" = up ]; then
        exit 1
    fi
done
# Of many that would ask at once one does, and the others wait: OpenSSH 9.8 and later turn an address away that connects
# often without a login. Who waits in vain for four seconds or a little more, as for one that was killed, takes the lock
# away; not all at the same moment, so that again one of those who wait gets it.
umask 077
if ! kept "$jump_host" && [ "$depth" = 0 ] && mkdir -p "$cache"; then
    lock=$cache/$jump_host.lock waits=0
    until mkdir "$lock" || [ ! -d "$lock" ] || [ "$waits" -ge 80 ] || kept "$jump_host"; do
        sleep 0.1
        waits=$((waits + 1))
        [ "$waits" != "$((40 + $$ % 20))" ] || rmdir "$lock"
    done
    trap 'rmdir "$lock"' EXIT
fi
if ! kept "$jump_host"; then
    answer=down
    if answers "$jump_host"; then
        answer=up
    fi
    keep
fi
[ "$answer" != up ] || exit 0
if [ -n "$last" ] && [ "$depth" = 0 ]; then
    echo "gpuops.fleet: no answer from the jump hosts ${*:+$* }$jump_host;" \
        "next: ssh ${config:+-F $config }-v ${1:-$jump_host}" >&3
fi
exit 1
"""


class FailoverError(Exception):
    """Raised for a list of jump hosts that cannot be used."""


@dataclass(frozen=True)
class Failover:
    """Jump hosts in order of priority, and whether to connect directly when none is reachable."""

    jump_hosts: tuple[str, ...]
    direct: str


def parse_failover(jump_hosts: Sequence[str], direct: str | None) -> Failover | None:
    """Check the jump hosts of one alias as asked."""
    for jump_host in jump_hosts:
        found = JUMP_HOST.match(jump_host)
        if not found:
            raise FailoverError(f"jump_hosts: {jump_host!r} is not an alias or [user@]host[:port]")
        if not 1 <= int(found["port"] or 22) <= 65535:
            raise FailoverError(f"jump_hosts: the port of {jump_host!r} is not between 1 and 65535")
    if len(set(jump_hosts)) != len(jump_hosts):
        raise FailoverError(f"jump_hosts: one host twice in {', '.join(jump_hosts)}")
    if direct and not jump_hosts:
        raise FailoverError("direct says what to do without jump_hosts that answer, but there are no jump_hosts")
    return Failover(tuple(jump_hosts), direct or "forbid") if jump_hosts else None


def render_note(failover: Failover) -> str:
    """The comment in the Host block of an alias from which its Match blocks are made."""
    return f"{MARK}{' '.join(failover.jump_hosts)}; direct: {failover.direct}\n"


def read_note(block: str) -> Failover | None:
    """The jump hosts in the Host block of an alias."""
    found = NOTE.search(block)
    return Failover(tuple(found["hosts"].split()), found["direct"]) if found else None


def render_match(names: Iterable[str], failover: Failover, probe: str) -> str:
    """The Match blocks of aliases with the same jump hosts.

    C(originalhost) comes first, so that the probe runs for these names only; the last block takes ProxyJump from
    everything below, the user's own configuration included.
    """
    patterns = ",".join(pattern for name in names for pattern in name.split())
    lines = []
    for index, jump_host in enumerate(failover.jump_hosts):
        tried = " ".join([jump_host, *failover.jump_hosts[:index]])
        if failover.direct == "forbid" and jump_host == failover.jump_hosts[-1]:
            tried = f"--last {tried}"
        lines += [f'Match originalhost {patterns} exec "{probe} {tried}"', f"  ProxyJump {jump_host}"]
    last = failover.jump_hosts[0] if failover.direct == "forbid" else "none"
    return "\n".join([*lines, f"Match originalhost {patterns}", f"  ProxyJump {last}"]) + "\n"


def render_matches(failovers: Mapping[str, Failover], probe: str) -> list[str]:
    """The Match blocks of plain names, shared where the jump hosts are the same."""
    names: dict[Failover, list[str]] = {}
    for name, failover in failovers.items():
        names.setdefault(failover, []).append(name)
    return [render_match(same, failover, probe) for failover, same in names.items()]


def find_loop(failovers: Mapping[str, Failover]) -> list[str]:
    """Jump hosts that are reached through themselves, in order; empty if there are none."""
    plain: dict[str, list[Failover]] = {}
    others: list[tuple[str, Failover]] = []
    for any_case, failover in failovers.items():
        # As Match, which takes capitals for small letters.
        name = any_case.lower()
        if re.search(r"[*?!]", name):
            others.append((name, failover))
        else:
            for pattern in name.split():
                plain.setdefault(pattern, []).append(failover)

    def walk(jump_host: str, way: list[str]) -> list[str]:
        if jump_host in way:
            return [*way[way.index(jump_host) :], jump_host]
        host = jump_host.rpartition("@")[2].partition(":")[0].lower()
        for failover in plain.get(host, []) + [item for name, item in others if matches_one(host, name.split())]:
            for behind in failover.jump_hosts:
                loop = walk(behind, [*way, jump_host])
                if loop:
                    return loop
        return []

    loops = (walk(jump_host, []) for failover in dict.fromkeys(failovers.values()) for jump_host in failover.jump_hosts)
    return next((loop for loop in loops if loop), [])


def depends_on_case(name: str, host: str) -> bool:
    """Return whether a Host line and a Match originalhost with these patterns differ about a host name."""
    lower = (host.lower(), name.lower())
    return lower != (host, name) and matches_one(lower[0], lower[1].split()) != matches_one(host, name.split())
