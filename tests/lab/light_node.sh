#!/bin/sh
# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Process 1 of a light node, in mount, pid, uts, ipc and network namespaces of its own: light_node.sh NAME FOLDER LOWER
# FOLDER has upper/, work/ and root/ of this node; LOWER is what lies below them, as overlayfs wants it.
set -eu
name=$1 folder=$2 lower=$3
hostname "$name"
# Else the mounts would be seen outside.
mount --make-rprivate /
layers="lowerdir=$lower,upperdir=$folder/upper,workdir=$folder/work"
# volatile: what lies below need not be written to the disk when the node goes.
mount -t overlay -o "$layers,volatile" light "$folder/root" 2>/dev/null || mount -t overlay -o "$layers" light "$folder/root"
cd "$folder/root"
# The kernel makes a new proc only where it sees a whole one, so before the old root goes.
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755,size=1m dev dev
for device in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
    numbers=${device#*:}
    mknod -m 666 "dev/${device%%:*}" c "${numbers%:*}" "${numbers#*:}"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr
mount -t tmpfs -o mode=1777,size=64m shm dev/shm
mount -t tmpfs -o mode=755,size=16m run run
mkdir -p run/sshd run/lock
ip link set lo up
pivot_root . mnt
umount -l /mnt
cd /
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root container=light
/usr/sbin/sshd -E /run/sshd.log </dev/null >/dev/null 2>&1
# sshd may be started anew, so it is not process 1. A shell that waits for a child also reaps what was left to it.
exec sh -c 'while :; do sleep 100000 & wait $!; done' </dev/null >/dev/null 2>&1
