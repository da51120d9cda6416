# shellcheck shell=sh
# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The half of gpu_probe that runs on the node: it says what is there and judges nothing.
# Arguments: MARKER DEADLINE_SECONDS. Comment lines are not sent.
# There is no apostrophe in the code: every level of quoting on the way would make five characters of it.

set -u
marker=$1
deadline=$2
root=${GPUOPS_SYSROOT:-}
output_limit=8388608
PATH="${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}:/usr/lib/wsl/lib"
export PATH LC_ALL=C
dir=""
runner=""

section() { printf "\n%s %s\n" "$marker" "$1"; }

first_line() {
    line=""
    { read -r line <"$1"; } 2>/dev/null
}

now() {
    first_line /proc/uptime
    now=${line%% *}
    case $now in
        *.??) now=$((${now%.*} * 100 + 1${now#*.} - 100)) ;;
        *) now=$(($(date +%s) * 100)) ;;
    esac
}

# The runner goes first: it would write into the directory that is being removed.
# shellcheck disable=SC2317
cleanup() {
    [ -n "$dir" ] || return
    # bash tells of the jobs that it loses
    exec 2>/dev/null
    [ -z "$runner" ] || kill -9 "$runner"
    first_line "$dir/pid"
    [ -z "$line" ] || kill -9 "-$line" || kill -9 "$line"
    rm -rf "$dir"
}
trap cleanup 0
trap "exit 1" 1 2 15

device_minor() {
    minor=""
    while read -r word1 word2 value; do
        [ "$word1 $word2" != "Device Minor:" ] || minor=$value
    done <"$1"
}

pci_devices() {
    for device in "$root"/sys/bus/pci/devices/*; do
        first_line "$device/vendor"
        [ "$line" = 0x10de ] || continue
        bus_id=${device##*/}
        first_line "$device/device"
        id=$line
        first_line "$device/class"
        class=$line
        driver=$(readlink "$device/driver")
        information=$root/proc/driver/nvidia/gpus/$bus_id/information
        in_proc=no node=no
        if [ -r "$information" ]; then
            in_proc=yes
            device_minor "$information"
            [ ! -e "$root/dev/nvidia$minor" ] || node=yes
        fi
        printf "%s %s %s %s %s %s\n" "$bus_id" "${id:--}" "${class:--}" "${driver##*/}" "$in_proc" "$node"
    done
}

make_directory() {
    for base in "${TMPDIR:-/tmp}" /dev/shm /var/tmp; do
        dir=$(mktemp -d "$base/gpuops.XXXXXX" 2>/dev/null) || continue
        { echo writable >"$dir/out"; } 2>/dev/null && return
        rm -rf "$dir"
    done
    dir=""
    return 1
}

# nvidia-smi can sleep in the kernel where no signal reaches it: nothing here waits for it, it holds only files of the
# private directory, and it has a session of its own, so that its children can be killed with it.
run_smi() {
    make_directory || { printf "outcome=no_directory\n"; return; }
    session=$(command -v setsid) || session=""
    (
        ulimit -f $((output_limit / 512))
        $session "$smi" -q -x >"$dir/out" 2>&1 &
        echo $! >"$dir/pid"
        wait $!
        echo $? >"$dir/rc"
    ) </dev/null >/dev/null 2>&1 &
    runner=$!
    now
    end=$((now + deadline * 100))
    naps="0.02 0.03 0.05 0.1"
    while [ ! -s "$dir/rc" ] && [ "$now" -lt "$end" ]; do
        sleep "${naps%% *}" 2>/dev/null || sleep 1
        naps=${naps#* }
        now
    done
    first_line "$dir/pid"
    smi_pid=$line
    if [ -s "$dir/rc" ]; then
        wait "$runner"
        runner=""
        first_line "$dir/rc"
        printf "outcome=exited\nrc=%s\n" "$line"
        if kill -0 "-$smi_pid" 2>/dev/null; then
            printf "left_running=yes\n"
        else
            rm -f "$dir/pid"
        fi
    else
        first_line "/proc/$smi_pid/stat"
        line=${line##*) }
        printf "outcome=deadline\nprocess_state=%s\n" "${line%% *}"
    fi
    section smi_output
    head -c "$output_limit" "$dir/out"
}

now
start=$now
smi=$(command -v nvidia-smi) || smi=""
first_line "$root/sys/module/nvidia/initstate"
initstate=$line
first_line "$root/sys/module/nvidia/version"
module_version=$line
module_file=$(grep -oE "^[^:]*/nvidia(-current|-tesla[-0-9]*|-legacy-[0-9a-z]+)?\.ko[^:]*" \
    "$root/lib/modules/$(uname -r)/modules.dep" 2>/dev/null | head -n 1)
wsl=no
[ ! -e "$root/dev/dxg" ] || wsl=yes
nodes=no
for node in "$root"/dev/nvidia[0-9]*; do
    [ ! -e "$node" ] || nodes=yes
done

section node
printf "%s\n" "sysroot=$root" "wsl=$wsl" "device_nodes=$nodes" "smi_path=$smi" "module_initstate=$initstate" \
    "module_version=$module_version" "module_file=$module_file"
section proc_version
cat "$root/proc/driver/nvidia/version" 2>/dev/null
section pci
pci_devices

# As root nvidia-smi makes device nodes and may load the driver when it is not loaded, so it is not even started then.
section smi
if [ -n "$smi" ] && { [ -e "$root/proc/driver/nvidia/version" ] || [ "$initstate" = live ] || [ "$wsl" = yes ]; }; then
    run_smi
fi

section timing
now
printf "elapsed_ms=%s\n" $(((now - start) * 10))
section end
exit 0
