#!/bin/sh
# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The simulated nvidia-smi for benchmarks with many nodes on one machine: it prints what `sysroot.py --answers` has
# written to $GPUOPS_SYSROOT, since nvidia_smi.py needs a Python for each call.
IFS=_
recorded=${GPUOPS_SYSROOT:-}/answers/$*
if [ -r "$recorded.rc" ]; then
    read -r code <"$recorded.rc"
    [ "$code" != 0 ] || exec cat "$recorded"
    cat "$recorded"
    exit "$code"
fi
echo "nvidia-smi of the gpuops.fleet lab: $recorded is not recorded; write it with sysroot.py --answers" >&2
exit 64
