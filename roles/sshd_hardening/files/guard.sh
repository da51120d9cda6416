#!/bin/sh
# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# guard.sh admits USER | arm SECONDS FILE... | reload | disarm | rollback: change sshd's configuration with a way back.
# Armed, the node restores FILE... by itself after SECONDS, even when nobody can log in any more.
set -eu
PATH=$PATH:/usr/sbin:/sbin
state=/run/gpuops-sshd
unit=gpuops-sshd-rollback

reload() {
    mkdir -p /run/sshd
    sshd -t
    if [ -d /run/systemd/system ]; then
        for service in ssh sshd; do
            if systemctl is-active --quiet "$service"; then
                systemctl reload "$service"
                return
            fi
        done
        # Socket-activated: the next connection starts an sshd, which reads the new files.
        systemctl is-active --quiet ssh.socket || systemctl is-active --quiet sshd.socket
    else
        kill -HUP "$(cat /run/sshd.pid)"
    fi
}

# What lies on disk and is not in force yet would come into force with the reload, whoever wrote it.
admits() {
    mkdir -p /run/sshd
    rules=$(sshd -T -C "user=$1,host=localhost,addr=127.0.0.1" | grep -E '^(allow|deny)(users|groups) ') || return 0
    set -f
    for kind in denyusers allowusers denygroups allowgroups; do
        patterns=$(echo "$rules" | sed -n "s/^$kind //p")
        [ -n "$patterns" ] || continue
        case $kind in
        *users) names=$1 ;;
        *) names=$(id -Gn "$1") ;;
        esac
        found=
        for name in $names; do
            for pattern in $patterns; do
                # shellcheck disable=SC2254  # a pattern it is
                case $name in ${pattern%%@*}) found=$pattern ;; esac
            done
        done
        case $kind in
        allow*) [ -n "$found" ] ;;
        deny*) [ -z "$found" ] ;;
        esac || {
            echo "sshd would refuse $1: $(echo "$rules" | grep "^$kind " | tr '\n' ' ')"
            return 1
        }
    done
}

disarm() {
    if [ -d /run/systemd/system ]; then
        systemctl stop "$unit.timer" 2>/dev/null || true
    elif [ -e "$state/timer.pid" ]; then
        kill "$(cat "$state/timer.pid")" 2>/dev/null || true
    fi
}

restore() {
    while read -r number file; do
        if [ -e "$state/$number" ]; then
            cp -p "$state/$number" "$file"
        else
            rm -f "$file"
        fi
    done < "$state/files"
    reload
    rm -rf "$state"
}

case $1 in
admits) admits "$2" ;;
arm)
    seconds=$2
    shift 2
    umask 077
    # A run that was killed may have left a change that its timer is about to take back: let it, first.
    [ ! -e "$state/files" ] || { disarm; restore; }
    rm -rf "$state"
    mkdir "$state"
    cp "$0" "$state/guard.sh"
    number=0
    for file in "$@"; do
        number=$((number + 1))
        [ ! -e "$file" ] || cp -p "$file" "$state/$number"
        echo "$number $file" >> "$state/files"
    done
    if [ -d /run/systemd/system ]; then
        systemctl reset-failed "$unit.service" "$unit.timer" 2>/dev/null || true
        systemd-run --quiet --unit="$unit" --on-active="${seconds}s" --timer-property=AccuracySec=1s \
            /bin/sh "$state/guard.sh" restore
    else
        setsid sh -c "sleep $seconds; exec sh $state/guard.sh restore" </dev/null >/dev/null 2>&1 &
        echo $! > "$state/timer.pid"
    fi
    ;;
reload) reload ;;
disarm)
    disarm
    rm -rf "$state"
    ;;
rollback)
    disarm
    restore
    ;;
restore) restore ;;
*) exit 64 ;;
esac
