#!/bin/sh
# Be the first process of a machine: start.sh LOWER FOLDER NAME [FROM=TO ...]
#
# The root is an overlay of LOWER with FOLDER/upper. Each FROM is seen at TO, read-only.
# All mounts are in this process' own namespace and go with it; it ends with its input.
set -eu
lower=$1 folder=$2 name=$3
shift 3
root=$folder/root
mount --make-rprivate /
mount -t overlay -o "lowerdir=$lower,upperdir=$folder/upper,workdir=$folder/work" "$name" "$root"
hostname "$name"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
mount -t tmpfs -o mode=755,nosuid tmpfs "$root/dev"
for each in null zero full random urandom tty; do
    : >"$root/dev/$each"
    mount --bind "/dev/$each" "$root/dev/$each"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts "$root/dev/pts"
mount -t tmpfs -o "mode=1777,nosuid,nodev${SHM:+,size=$SHM}" tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s fd/0 "$root/dev/stdin"
ln -s fd/1 "$root/dev/stdout"
ln -s fd/2 "$root/dev/stderr"
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs "$root/run"
for each; do
    mkdir -p "$root${each#*=}"
    mount --bind -o ro "${each%%=*}" "$root${each#*=}"
done
read -r pid _ </proc/self/stat # as the outside numbers it
cd "$root"
mkdir -p .outside
pivot_root . .outside
# bash, because it buries the orphans that the first process inherits.
exec chroot . /bin/bash -c '
    umount -l /.outside && rmdir /.outside
    [ -z "$READ_ONLY" ] || mount -o remount,bind,ro / || exit
    echo "$1"
    while read -r _; do :; done
' "$name" "$pid"
