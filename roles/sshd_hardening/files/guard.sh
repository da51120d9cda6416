#!/bin/sh
# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# guard.sh check USER | arm SECONDS FILE... | reload | disarm | rollback: change sshd's configuration with a way back.
# Armed, the node restores FILE... by itself after SECONDS, even when nobody can log in any more.
set -eu
PATH=$PATH:/usr/sbin:/sbin
state=/run/gpuops-sshd
unit=gpuops-sshd-rollback

refuse() {
    echo "$*"
    exit 1
}

has_systemd() { [ -d /run/systemd/system ]; }

# The service that answers now; nothing when systemd only holds the socket.
service() {
    for name in ssh sshd; do
        if systemctl is-active --quiet "$name"; then
            echo "$name"
            return
        fi
    done
}

socket() { systemctl is-active --quiet ssh.socket || systemctl is-active --quiet sshd.socket; }

reload() {
    mkdir -p /run/sshd
    sshd -t
    if ! has_systemd; then
        kill -HUP "$(cat /run/sshd.pid)"
    elif [ -n "$(service)" ]; then
        systemctl reload "$(service)"
    else
        socket # the next connection starts an sshd, which reads the new files
    fi
}

matches() { # matches "NAMES" "PATTERNS"
    for name in $1; do
        for pattern in $2; do
            # shellcheck disable=SC2254  # a pattern it is
            case $name in ${pattern%%@*}) return 0 ;; esac
        done
    done
    return 1
}

# What lies on disk and is not in force yet would come into force with our reload, whoever wrote it, and our way back
# would not take it back.
check() {
    mkdir -p /run/sshd
    sshd -t 2>&1 || refuse "sshd rejects the files that are there already"
    if has_systemd; then
        [ -n "$(service)" ] || socket || refuse "systemd runs neither ssh.service nor ssh.socket"
    else
        kill -0 "$(cat /run/sshd.pid 2>/dev/null)" 2>/dev/null || refuse "no systemd, and /run/sshd.pid names no running sshd"
    fi
    rules=$(sshd -T -C "user=$1,host=localhost,addr=127.0.0.1")
    of() { echo "$rules" | sed -n "s/^$1 //p" | tr '\n' ' '; }
    set -f
    groups=$(id -Gn "$1")
    ! matches "$1" "$(of denyusers)" || refuse "sshd would refuse $1: DenyUsers $(of denyusers)"
    ! matches "$groups" "$(of denygroups)" || refuse "sshd would refuse $1: DenyGroups $(of denygroups)"
    [ -z "$(of allowusers)" ] || matches "$1" "$(of allowusers)" || refuse "sshd would refuse $1: AllowUsers $(of allowusers)"
    [ -z "$(of allowgroups)" ] || matches "$groups" "$(of allowgroups)" ||
        refuse "sshd would refuse $1: AllowGroups $(of allowgroups)"
    case " $(of authenticationmethods)" in
    *" any "* | *" publickey "* | " ") ;;
    *) refuse "sshd would want more than a key: AuthenticationMethods $(of authenticationmethods)" ;;
    esac
    case " $(of authorizedkeysfile)" in
    *.ssh/authorized_keys*) ;;
    *) refuse "sshd would look for keys elsewhere: AuthorizedKeysFile $(of authorizedkeysfile)" ;;
    esac
    # With socket activation, systemd listens and not sshd.
    if command -v ss >/dev/null && ! { has_systemd && socket; }; then
        for address in $(of listenaddress); do
            ss -ltnH | awk '{ print $4 }' | grep -qxF "$address" ||
                refuse "a reload would change where sshd listens: $address is configured, and nothing listens there now"
        done
    fi
}

armed() { [ -e "$state/files" ] || refuse "the time was up before the change was proven, and the node took it back"; }

stop_timer() {
    if has_systemd; then
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
    rm -rf "$state"
    # A reload can end an sshd that cannot listen any more; then it is started again.
    reload || { has_systemd && systemctl restart ssh; }
}

arm() {
    seconds=$1
    shift
    umask 077
    # A run that was killed may have left a change that its timer is about to take back: let it, first.
    [ ! -e "$state/files" ] || { stop_timer; restore; }
    rm -rf "$state"
    mkdir "$state"
    cp "$0" "$state/guard.sh"
    number=0
    for file in "$@"; do
        number=$((number + 1))
        [ ! -e "$file" ] || cp -p "$file" "$state/$number"
        echo "$number $file" >> "$state/files"
    done
    if has_systemd; then
        systemctl reset-failed "$unit.service" "$unit.timer" 2>/dev/null || true
        systemd-run --quiet --unit="$unit" --on-active="${seconds}s" --timer-property=AccuracySec=1s \
            /bin/sh "$state/guard.sh" restore
    else
        setsid sh -c "sleep $seconds; exec sh $state/guard.sh restore" </dev/null >/dev/null 2>&1 &
        echo $! > "$state/timer.pid"
    fi
}

case $1 in
check) check "$2" ;;
arm)
    shift
    arm "$@"
    ;;
reload)
    armed
    reload
    ;;
disarm)
    armed
    stop_timer
    rm -rf "$state"
    ;;
rollback)
    [ -e "$state/files" ] || exit 0
    stop_timer
    restore
    ;;
restore) restore ;;
*) exit 64 ;;
esac
