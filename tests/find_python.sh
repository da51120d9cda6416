#!/bin/sh
# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Print the path of a Python 3.13. It has to run: pyenv has a shim on PATH for each version that it knows, and that of a
# version which is not active only ends with 127.
for python in python3.13 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.13.*/bin/python3; do
    if "$python" -c '' 2>/dev/null; then
        command -v "$python"
        exit
    fi
done
echo "test-matrix: no Python 3.13 here, so ansible-core 2.21 was not tried" >&2
exit 1
