# shellcheck shell=sh
# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The half of gpu_probe that runs on the node: it says what is there and judges nothing.
# Arguments: MARKER DEADLINE_SECONDS HOURS [FIELD...]. Comment lines and indentation are not sent.
# There is no apostrophe in the code: every level of quoting on the way would make five characters of it.
# Files are read by the shell itself where that can be done: each command that is started costs the node a millisecond.

set -u
marker=$1
deadline=$2
hours=$3
shift 3
fields=" $* "
root=${GPUOPS_SYSROOT:-}
case $root in
    "" | /*) ;;
    *) root=$PWD/$root ;;
esac
output_limit=8388608
log_limit=1048576
PATH="${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}:/usr/sbin:/sbin:/usr/lib/wsl/lib"
export PATH LC_ALL=C
dir=""
jobs=""
newline="
"
# For a job that reads the kernel log: the first line, which tells how far back it goes, and the newest that matter
kernel_filter="\"\$@\" 2>\$0.err | sed -nE \
    -e \"1s/^/first /p;1d;/NVRM|nvidia-nvswitch|nvidia-nvlink|SXid|nouveau/p\" | tail -c $log_limit"

asked() {
    case $fields in
        *" $1 "*) return 0 ;;
    esac
    return 1
}

# Arguments: NAME [LINE...]. One write, since each is a packet, and work for both ends of the connection.
section() {
    head="$newline$marker $1"
    shift
    printf "%s\n" "$head" "$@"
}

first_line() {
    line=""
    { read -r line <"$1"; } 2>/dev/null
}

# The first word of a file, in the form in which it can stand between spaces.
word() {
    word=""
    # shellcheck disable=SC2034
    { read -r word others <"$1"; } 2>/dev/null
    : "${word:=-}"
}

now() {
    first_line /proc/uptime
    now=${line%% *}
    case $now in
        *.??) now=$((${now%.*} * 100 + 1${now#*.} - 100)) ;;
        *) now=$(($(date +%s) * 100)) ;;
    esac
}

# shellcheck disable=SC2317
cleanup() {
    [ -n "$dir" ] || return
    for job in $jobs; do
        eval "pid=\$pid_$job"
        [ -z "$pid" ] || kill -9 "-$pid" || kill -9 "$pid"
    done
    cd /
    rm -rf "$dir"
}
trap cleanup EXIT
# PIPE: dash would die of a closed connection without its exit trap.
trap "exit 1" HUP INT PIPE TERM

make_directory() {
    # In memory first: a disk that is full or does not answer does no harm then, and files cost less.
    for base in /dev/shm "${TMPDIR:-/tmp}" /tmp /var/tmp; do
        dir=$(mktemp -d "$base/gpuops.XXXXXX" 2>/dev/null) || continue
        # shellcheck disable=SC2015
        { cd "$dir" && echo writable >probe; } 2>/dev/null && dir=$PWD && return
        rm -rf "$dir"
    done
    dir=""
    return 1
}

# What can sleep in the kernel where no signal reaches it is a job: nothing here waits for its process, it holds only
# files of the private directory. One that may have children has a session of its own, so that they are killed with it.
# Arguments: JOB exec COMMAND..., or JOB FUNCTION.
start() {
    [ -n "$dir" ] || return
    job=$1
    shift
    jobs="$jobs $job"
    (
        # In blocks of 512 bytes, or of 1024 in bash.
        ulimit -f $((output_limit / 1024))
        "$@"
    ) </dev/null >"$job.out" 2>&1 &
    eval "pid_$job=\$!"
}

# Whether a job runs; one that has ended stays as a zombie until the shell takes notice of it. One of which another
# thread sleeps in the kernel is a zombie too, and to wait for it has no end.
runs() {
    eval "pid=\${pid_$1:-}"
    # To busybox an empty process id is a process.
    { [ -n "$pid" ] && kill -0 "$pid"; } 2>/dev/null || return 1
    first_line "/proc/$pid/stat"
    state=${line##*) }
    state=${state%% *}
    set -- "/proc/$pid/task/"*
    [ "$state" != Z ] || [ $# -gt 1 ]
}

await() {
    naps="0.05 0.1"
    now
    for job in "$@"; do
        while [ "$now" -lt "$end" ] && runs "$job"; do
            sleep "${naps%% *}" 2>/dev/null || sleep 1
            naps=${naps#* }
            now
        done
    done
}

# What stands before the output of a job.
report() {
    section "$1"
    if runs "$1"; then
        ended=no
        printf "outcome=deadline\nprocess_state=%s\n" "$state"
    else
        wait "$pid"
        printf "outcome=exited\nrc=%s\n" $?
        if kill -0 "-$pid" 2>/dev/null; then
            printf "left_running=yes\n"
        else
            eval "pid_$1="
        fi
    fi
    first_line "$1.err"
    printf "error=%s\n" "$line"
    section "$1_output"
}

# In /sys a link always leads somewhere, in a recording perhaps not.
link_name() {
    link_name=""
    [ -L "$1" ] || return
    if cd -P "$1" 2>/dev/null; then
        link_name=${PWD##*/}
    else
        link_name=$(readlink "$1")
        link_name=${link_name##*/}
    fi
}

pci_devices() {
    for device in $devices; do
        found=$device
        for name in device class numa_node subsystem_vendor subsystem_device; do
            word "$root/sys/bus/pci/devices/$device/$name"
            found="$found $word"
        done
        in_proc=no
        [ ! -r "$root/proc/driver/nvidia/gpus/$device/information" ] || in_proc=yes
        link_name "$root/sys/bus/pci/devices/$device/driver"
        printf "%s %s %s\n" "$found" "$in_proc" "$link_name"
    done
}

# The driver may make the reader of these wait for a lock that a hanging process holds, so this is a job.
# shellcheck disable=SC2317
pci_states() {
    for device in $devices; do
        node=no
        information=$root/proc/driver/nvidia/gpus/$device/information
        if [ -r "$information" ]; then
            minor=""
            while read -r word1 word2 value; do
                [ "$word1 $word2" != "Device Minor:" ] || minor=$value
            done <"$information"
            # A GPU that cannot say its number is no GPU that somebody else was given.
            [ -n "$minor" ] || node=-
            [ ! -e "$root/dev/nvidia$minor" ] || [ -z "$minor" ] || node=yes
        fi
        found="$device $node"
        for name in current_link_width max_link_width; do
            word "$root/sys/bus/pci/devices/$device/$name"
            found="$found $word"
        done
        printf "%s\n" "$found"
    done
}

nics() {
    for nic in "$root"/sys/class/infiniband/*; do
        [ -e "$nic" ] || continue
        word "$nic/device/numa_node"
        link_name "$nic/device"
        printf "%s %s %s\n" "$word" "${link_name:--}" "${nic##*/}"
    done
}

kernels() {
    for file in "$root"/lib/modules/*/modules.dep; do
        [ ! -e "$file" ] || { file=${file%/*}; printf "modules %s\n" "${file##*/}"; }
    done
    for file in "$root"/boot/vmlinuz-*; do
        [ ! -e "$file" ] || printf "image %s\n" "${file##*/vmlinuz-}"
    done
    for file in "$root"/var/lib/dkms/nvidia*/[0-9]*; do
        case $file in
            # GPUDirect Storage, not the driver
            */nvidia-fs/*) continue ;;
        esac
        [ ! -e "$file" ] || printf "dkms\n"
    done
}

# Whether a service runs, without asking systemd, which may itself hang. Arguments: UNIT PID_FILE COMMAND.
running() {
    running=""
    for slice in "$root/sys/fs/cgroup/system.slice" "$root/sys/fs/cgroup/systemd/system.slice"; do
        [ ! -d "$slice" ] || running=no
        first_line "$slice/$1.service/cgroup.procs"
        [ -z "$line" ] || { running=yes; return; }
    done
    first_line "$root/run/$2"
    first_line "$root/proc/${line:-none}/comm"
    # The kernel keeps 15 characters of a name.
    [ "$line" != "$3" ] || running=yes
}

secure_boot() {
    secure_boot=""
    efi=$root/sys/firmware/efi
    variable=$efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c
    if [ -e "$variable" ]; then
        secure_boot=$(od -An -tu1 "$variable" 2>/dev/null)
        secure_boot=${secure_boot##* }
    elif [ ! -e "$efi" ]; then
        # A container shows an empty directory, a machine without EFI what else its firmware has.
        for file in "$root"/sys/firmware/*; do
            [ ! -e "$file" ] || secure_boot=0
        done
    fi
}

library() {
    library=""
    for folder in usr/lib/x86_64-linux-gnu usr/lib/aarch64-linux-gnu usr/lib64 usr/lib; do
        if [ -e "$root/$folder/libnvidia-ml.so.1" ]; then
            library=$(readlink -f "$root/$folder/libnvidia-ml.so.1")
            return
        fi
    done
}

host() {
    nouveau=no peermem=no reboot_required=no
    [ ! -e "$root/sys/module/nouveau" ] || nouveau=yes
    [ ! -e "$root/sys/module/nvidia_peermem" ] || peermem=yes
    [ ! -e "$root/run/reboot-required" ] && [ ! -e "$root/var/run/reboot-required" ] || reboot_required=yes
    secure_boot
    library
    printf "%s\n" "nouveau_loaded=$nouveau" "peermem_loaded=$peermem" "reboot_required=$reboot_required" \
        "secure_boot=$secure_boot" "library=${library##*/}" "fabric_manager=$fabric_manager"
    running nvidia-fabricmanager nvidia-fabricmanager/nv-fabricmanager.pid nv-fabricmanage
    printf "fabric_manager_running=%s\n" "$running"
    running nvidia-persistenced nvidia-persistenced/nvidia-persistenced.pid nvidia-persiste
    printf "persistence_daemon_running=%s\n" "$running"
}

facts() {
    section node "sysroot=$root" "host=$host" "device_nodes=$nodes" "smi_path=$smi" \
        "module_initstate=$initstate" "module_version=$module_version" "kernel_release=$release"
    section proc_version
    {
        while IFS= read -r line; do
            printf "%s\n" "$line"
        done <"$root/proc/driver/nvidia/version"
    } 2>/dev/null
    section pci
    pci_devices
    if asked topology; then
        section nics
        nics
    fi
    section module_files "$modules"
    if asked driver; then
        section kernels
        kernels
        section host
        host
    fi
}

# The kernel's own buffer is enough when it goes back to the boot, or to the hours that were asked.
buffer_is_enough() {
    first_line buffer.out
    line=${line#first [}
    line=${line%%.*}
    case $line in
        "" | *[!0-9\ ]*) return 1 ;;
    esac
    [ $((line)) -le "$log_begins" ]
}

start_journal() {
    command -v journalctl >/dev/null || return
    if [ "$log_begins" -ge 0 ]; then
        start journal exec $session sh -c "$kernel_filter" journal \
            journalctl -k -b -o short-monotonic --no-pager -q
        return
    fi
    epoch=$(date +%s)
    start journal exec $session sh -c "$kernel_filter" journal \
        journalctl _TRANSPORT=kernel --since "-${hours}h" -o short-unix --no-pager -q
    # How far back the journal goes
    start journal_oldest exec $session sh -c "journalctl _TRANSPORT=kernel -o short-unix --no-pager -q | head -n 1"
}

stuck_processes() {
    ours=""
    others=""
    for process in /proc/[0-9]*; do
        first_line "$process/stat"
        case $line in
            *") D "*) ;;
            *) continue ;;
        esac
        name=${line#*\(}
        first_line "$process/wchan"
        name=${name%) D *}
        line="${process##*/} D ${line:--} $name$newline"
        case $name in
            nv*) ours=$ours$line ;;
            *) others=$others$line ;;
        esac
    done
    printf "%s%s" "$ours" "$others" | head -n 20
}

now
began=$now
end=$((now + deadline * 100))
session=""
! command -v setsid >/dev/null || session=setsid
smi=$(command -v nvidia-smi) || smi=""
first_line "$root/sys/module/nvidia/initstate"
initstate=$line
first_line "$root/sys/module/nvidia/version"
module_version=$line
first_line "$root/proc/sys/kernel/osrelease"
release=${line:-$(uname -r)}
wsl=no
[ ! -e "$root/dev/dxg" ] || wsl=yes
nodes=no
for node in "$root"/dev/nvidia[0-9]*; do
    [ ! -e "$node" ] || nodes=yes
done

# A host, and no container, which may be given some of the GPUs only
first_line "$root/proc/1/comm"
host=no
case $line in
    systemd | init) host=yes ;;
esac
for file in run/systemd/container run/.containerenv .dockerenv; do
    [ ! -e "$root/$file" ] || host=no
done

devices=""
for device in "$root"/sys/bus/pci/devices/*; do
    word "$device/vendor"
    [ "$word" != 0x10de ] || devices="$devices ${device##*/}"
done
# The kernels that have an NVIDIA module
set -- "$root/lib/modules/$release/modules.dep"
! asked driver || set -- "$root"/lib/modules/*/modules.dep
modules=""
[ ! -e "$1" ] || modules=$(grep -HoE "^[^:]*/nvidia(-current|-tesla[-0-9]*|-legacy-[0-9a-z]+)?(-open)?\.ko[^:]*" "$@" 2>/dev/null)
fabric_manager=no
! command -v nv-fabricmanager >/dev/null || fabric_manager=yes
printf "%s\n" "$(facts)"

# As root nvidia-smi makes device nodes and may load the driver when it is not loaded, so it is not even started then.
run_smi=no
if asked nvidia-smi && [ -n "$smi" ] && { [ -e "$root/proc/driver/nvidia/version" ] || [ "$initstate" = live ] || [ "$wsl" = yes ]; }; then
    run_smi=yes
fi
if ! make_directory; then
    section no_directory "for_smi=$run_smi"
    run_smi=no
fi
# bash tells there of each job that a signal ends.
exec 2>/dev/null
[ $run_smi = no ] || start smi exec $session "$smi" -q -x
[ -z "$devices" ] || start pci_states pci_states
if asked driver; then
    module=${modules#*"/$release/modules.dep:"}
    if [ "$module" != "$modules" ]; then
        # In a recording the module is a text: what modinfo prints of it
        show="modinfo"
        [ -z "$root" ] || show="cat"
        start modinfo exec $show "$root/lib/modules/$release/${module%%"$newline"*}"
    fi
    [ "$fabric_manager" = no ] || start fabric_manager exec $session nv-fabricmanager --version
    ! command -v nvidia-ctk >/dev/null || start container_toolkit exec nvidia-ctk --version
fi
if asked kernel_events; then
    first_line "$root/proc/uptime"
    [ -n "$line" ] || first_line /proc/uptime
    uptime=${line%% *}
    log_begins=0
    [ "$hours" -eq 0 ] || log_begins=$((${uptime%%.*} - hours * 3600))
    if [ -z "$root" ]; then
        source=dmesg
        start buffer exec $session sh -c "$kernel_filter" buffer dmesg
    else
        source=kmsg
        # Not the device, which would be read for ever
        [ ! -f "$root/dev/kmsg" ] || start buffer exec $session sh -c "$kernel_filter" buffer cat "$root/dev/kmsg"
    fi
fi

# The small runs come after the one that tells whether the driver answers at all.
await smi
if [ $run_smi = yes ] && ! runs smi; then
    start smi_list exec $session "$smi" -L
    start smi_compute exec $session "$smi" --query-gpu=uuid,compute_cap --format=csv,noheader
    ! asked nvlinks || start smi_nvlink exec $session "$smi" nvlink -s
    ! asked topology || start smi_topology exec $session "$smi" topo -m
fi
if asked kernel_events; then
    epoch=""
    await buffer
    [ -n "$root" ] || [ "$now" -ge "$end" ] || buffer_is_enough || start_journal
    section kernel "source=$source" "uptime=$uptime" "hours=$hours" "epoch=$epoch"
fi
# shellcheck disable=SC2086
await $jobs

ended=yes
files=""
for job in $jobs; do
    report "$job" >"$job.head"
    files="$files $job.head $job.out"
done
# Half of a document of nvidia-smi is the list of the clocks that could be set, which nobody asks for.
without_clocks() {
    # shellcheck disable=SC2086
    grep -ahvF -e "<supported_" -e "</supported_" -e "<value>" $files
}
# In one piece too, where there is room for it
[ -z "$files" ] || { without_clocks >answer && cat answer; } || without_clocks
if [ $ended = no ]; then
    section stuck
    stuck_processes
fi

now
section timing "elapsed_ms=$(((now - began) * 10))"
section end
exit 0
