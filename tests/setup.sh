#!/bin/sh
# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Install what the demo and the tests need: Debian packages where they are missing, Python packages in VENV (default .venv).
set -eu
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}
python=${PYTHON:-python3}
PATH=$PATH:/usr/sbin:/sbin

missing=
want() { # want COMMAND PACKAGE
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
want podman podman
want runc runc
want iptables iptables
want mmdebstrap mmdebstrap
want shellcheck shellcheck
want ssh openssh-client
want ps procps
want rsync rsync
want git git
want busybox busybox
want cc gcc
# Some tests start an sshd of their own. Nobody's machine gets a server by running tests, except a CI machine.
[ "${CI:-}" != true ] || want sshd openssh-server
[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing="$missing debian-archive-keyring"
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"

if [ -n "$missing" ]; then
    sudo=
    if [ "$(id -u)" != 0 ]; then
        sudo=sudo
        command -v sudo >/dev/null 2>&1 || {
            echo "setup: these Debian packages are missing:$missing" >&2
            echo "setup: next, as root: apt-get install$missing" >&2
            exit 1
        }
    fi
    echo "setup: installing$missing"
    # shellcheck disable=SC2086  # a list of words
    if ! { $sudo apt-get update -qq && $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing; } >.setup.log 2>&1; then
        tail -n 5 .setup.log >&2
        echo "setup: next, as root: apt-get install$missing" >&2
        exit 1
    fi
    rm -f .setup.log
fi

wanted=$(cat requirements.txt requirements-dev.txt)
if [ "$wanted" != "$(cat "$venv/.ready" 2>/dev/null)" ]; then
    echo "setup: Python packages in $venv (once, one to two minutes)"
    "$python" -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r requirements-dev.txt
    echo "$wanted" >"$venv/.ready"
fi
