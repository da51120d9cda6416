#!/bin/sh
# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# tests/ansible-test.sh sanity ...: run ansible-test on a copy of what this checkout ships, since it follows links and
# works only below .../ansible_collections/NAMESPACE/NAME. The tests are for ruff and mypy.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
copy=$tree/ansible_collections/gpuops/fleet
mkdir -p "$copy"
cd "$root"
git ls-files -co --exclude-standard -z -- ':!.ansible' ':!benchmarks' ':!inventory' ':!molecule' ':!tests' | xargs -0 cp -P --parents -t "$copy"
# ansible-test downloads a get-pip.py of the version that it names here; not every network lets it.
pip=$(sed -n "s/^ *pip='\([0-9.]*\)',.*/\1/p" \
    "$(python3 -c 'import ansible_test._internal.python_requirements as module; print(module.__file__)')" | tail -n 1 | tr . _)
cached=$HOME/.ansible/test/cache/get_pip_$pip.py
[ -e "$cached" ] || { mkdir -p "$(dirname "$cached")" && cp tests/get_pip.py "$cached"; }
cd "$copy"
ansible-test "$@" --color no
