# shellcheck shell=sh
# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The half of fleet_audit that runs on the node: it reads, writes nothing, says what is there and judges nothing.
# Arguments: MARKER, then connections as sshd -C wants them; with these it only says what sshd would do for each.
# No key and no password hash is ever printed: of keys the fingerprint, of passwords one of empty, locked and set.
# Comment lines and indentation are not sent. There is no apostrophe in the code: each level of quoting would make five.

set -u
marker=$1
shift
PATH=${PATH:-/usr/local/bin:/usr/bin:/bin}:/usr/local/sbin:/usr/sbin:/sbin
export PATH LC_ALL=C
most_accounts=100
first=""
how=-T

section() { printf "\n%s %s\n" "$marker" "$1"; }

if command -v timeout >/dev/null; then
    bounded() { timeout 10 "$@"; }
else
    bounded() { "$@"; }
fi

depth=0
config_files() {
    depth=$((depth + 1))
    for file; do
        [ -f "$file" ] || continue
        case $file in /*) ;; *) file=/etc/ssh/$file ;; esac
        printf "%s\n" "$file"
        # shellcheck disable=SC2046
        [ "$depth" -gt 16 ] || config_files $(sed -n \
            "s/^[[:space:]]*[Ii][Nn][Cc][Ll][Uu][Dd][Ee][[:space:]=]\{1,\}//p" "$file" 2>/dev/null | tr -d "\"")
    done
    depth=$((depth - 1))
}

value() { printf "%s\n" "$shown" | sed -n "s/^$1 //p"; }

ask() {
    printf "spec %s\n" "$1"
    shown=$(bounded "$sshd" "$how" -C "$1" 2>/dev/null) || {
        printf "refused %s\n" "$(bounded "$sshd" "$how" -C "$1" 2>&1 >/dev/null | tail -n 2 | tr "\r\n" " ")"
        return 1
    }
    [ "$shown" != "$first" ] || { printf "same\n"; return; }
    [ -n "$first" ] || first=$shown
    printf "%s\n" "$shown" | sed "s/^/set /"
    revoked=$(value revokedkeys)
    [ "${revoked:-none}" = none ] || [ -r "$revoked" ] || printf "missing %s\n" "$revoked"
}

keys_of() {
    printf "user %s\n" "$1"
    [ -x "$3" ] || [ ! -d "$3" ] || { printf "unreadable %s\n" "$3"; return; }
    for path in $(value authorizedkeysfile | sed "s|%u|$1|g; s|%U|$2|g; s|%h|$3|g"); do
        case $path in /*) ;; *) path=$3/$path ;; esac
        [ -f "$path" ] || continue
        stat -L -c "path %a %u %n" "$3" "${path%/*}" "$path"
        [ -r "$path" ] || { printf "unreadable %s\n" "$path"; continue; }
        printf "keys %s\n" "$path"
        head -c 1000000 "$path" | bounded ssh-keygen -lf - 2>/dev/null | sed "s/^/key /"
    done
}

effective_for_accounts() {
    printf "%s\n" "$accounts" | while IFS=: read -r name uid rest; do
        ask "user=$name,host=203.0.113.1,addr=203.0.113.1,laddr=$laddr,lport=$lport" || return
        keys_of "$name" "$uid" "${rest#*:}"
        [ -z "$client" ] || ask "user=$name,host=$client,addr=$client,laddr=$laddr,lport=$lport"
    done
}

# One line of the log for each address and user that came in, and for each address whose connections did not.
count_logins() {
    awk "
        {
            at = 0
            for (i = NF; i > 3; i--) if (\$i == \"port\") { at = i - 1; break }
            if (!at || !match(\$0, /sshd[-a-z]*\[[0-9]+\]: /)) next
            connection = substr(\$0, RSTART, RLENGTH) \$at
            stamp = \$1 ~ /^[0-9]/ ? \$1 : \$1 \"-\" \$2 \"T\" \$3
        }
        / Accepted [a-z\/-]+ for / {
            for (i = 1; i < at; i++) if (\$i == \"for\") break
            key = \$(i + 1) \" \" \$at
            accepted[key]++
            last[key] = stamp
            delete failed[connection]
            next
        }
        / (Failed [a-z\/-]+ for|Invalid user|Connection (closed|reset) by (authenticating|invalid) user) / {
            failed[connection] = \$at
            when[connection] = stamp
        }
        END {
            for (key in accepted) print \"accepted\", accepted[key], last[key], key
            for (connection in failed) {
                count[failed[connection]]++
                if (when[connection] > latest[failed[connection]]) latest[failed[connection]] = when[connection]
            }
            for (key in count) print \"failed\", count[key], latest[key], key
        }" | sort -k1,1 -k2,2rn | awk "++n[\$1] <= 50"
}

logins() {
    if command -v journalctl >/dev/null && [ -n "$(bounded journalctl -q -n 1 -o cat 2>/dev/null)" ]; then
        printf "source journal\n"
        bounded journalctl -q --no-pager --since=-7d -o short-iso -n 200000 -t sshd -t sshd-session 2>/dev/null | count_logins
    elif [ -r /var/log/auth.log ]; then
        printf "source /var/log/auth.log\n"
        tail -n 200000 /var/log/auth.log | count_logins
    fi
}

# Include takes names relative to it.
cd /etc/ssh || cd / || exit 1
sshd=$(command -v sshd) || sshd=""
if [ -n "$sshd" ]; then
    # sshd -T wants a directory that is there only while sshd runs; sshd -G, of OpenSSH 9.3 and later, does not.
    case $(bounded "$sshd" -T 2>&1 >/dev/null) in *"privilege separation directory"*)
        ! bounded "$sshd" -G >/dev/null 2>&1 || how=-G ;;
    esac
fi

if [ $# -gt 0 ]; then
    section effective
    for spec; do
        ask "$spec"
    done
    section end
    exit 0
fi

section node
printf "%s\n" "uid=$(id -u)" "sshd=$sshd" "login=${USER:-}" "connection=${SSH_CONNECTION:-}"
[ "$(id -u)" = 0 ] || { section end; exit 0; }

client="" laddr=127.0.0.1 lport=22
# shellcheck disable=SC2086
set -- ${SSH_CONNECTION:-}
[ $# -ne 4 ] || client=$1 laddr=$3 lport=$4

section accounts
passwd=$(bounded getent passwd || cat /etc/passwd)
printf "%s\n" "$passwd" | awk -F: "
    \$3 == 0 { print \"superuser \" \$1 }
    \$2 != \"x\" { print \"password \" (\$2 == \"\" ? \"empty\" : \$2 ~ /^[!*]/ ? \"locked\" : \"set\") \" \" \$1 }"
awk -F: "{ print \"password \" (\$2 == \"\" ? \"empty\" : \$2 ~ /^[!*]/ ? \"locked\" : \"set\") \" \" \$1 }" /etc/shadow
people=$(printf "%s\n" "$passwd" | awk -F: "\$1 == \"root\" || \$7 !~ /\/(nologin|false|sync|halt|shutdown)\$/ {
    print \$1 \":\" \$3 \":\" \$4 \":\" \$6 }")
accounts=$(printf "%s\n" "$people" | grep -E "^[@A-Za-z0-9._-]+:[0-9]+:[0-9]+:[^|&[:space:]\\]*\$" | head -n "$most_accounts")
printf "%s\n" "$accounts" | sed "s/^/account /"
printf "left_out %s\n" $(($(printf "%s\n" "$people" | wc -l) - $(printf "%s\n" "$accounts" | wc -l)))

section files
files=$(config_files /etc/ssh/sshd_config)
for path in /etc/ssh /etc/ssh/sshd_config.d $files; do
    [ ! -e "$path" ] || stat -L -c "file %a %u %n" "$path"
done
# shellcheck disable=SC2086
matches=$(grep -inHE "^[[:space:]]*match[[:space:]=]" $files /dev/null)
printf "%s\n" "$matches" | sed "s/^/match /"
case $matches in *[Gg][Rr][Oo][Uu][Pp]*)
    bounded getent group | awk -F: "{ print \"group \" \$1 \" \" \$3 \" \" \$4 }" ;;
esac
section drop_in
head -c 100000 /etc/ssh/sshd_config.d/00-gpuops.conf 2>/dev/null

section effective
if [ -n "$sshd" ]; then
    effective_for_accounts
    shown=$(bounded "$sshd" "$how" -C "user=root,host=203.0.113.1,addr=203.0.113.1,laddr=$laddr,lport=$lport" 2>/dev/null)
else
    shown=""
fi

section loaded
pidfile=$(value pidfile)
pid=$(cat "${pidfile:-/run/sshd.pid}" 2>/dev/null)
# sshd writes this file when it starts and after each reload.
if grep -qs sshd "/proc/${pid:-none}/comm"; then
    stat -c "loaded %Y %n" "$pidfile"
    # shellcheck disable=SC2086
    find $files -newer "$pidfile" -exec stat -c "newer %Y %n" {} +
fi

section host_keys
for key in $(value hostkey); do
    [ -f "$key" ] || continue
    stat -L -c "path %a %u %n" "$key"
    printf "key %s\n" "$(bounded ssh-keygen -lf "$key" 2>/dev/null)"
done

section moduli
moduli=$(value modulifile)
awk "\$1 !~ /^#/ && NF >= 7 { count[\$5 + 1]++ } END { for (bits in count) print \"moduli\", bits, count[bits] }" \
    "${moduli:-/etc/ssh/moduli}" 2>/dev/null

section logins
logins

section journal
for file in /var/log/journal/*/system.journal; do
    [ ! -f "$file" ] || printf "persistent\n"
done
for file in /run/log/journal/*/system.journal; do
    [ ! -f "$file" ] || printf "volatile\n"
done
section end
exit 0
