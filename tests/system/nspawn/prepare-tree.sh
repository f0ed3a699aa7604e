#!/bin/sh
# Makes a small Debian with systemd as its first process in the folder TREE, once. The mirror is the one this machine
# gets its own packages from.
#   prepare-tree.sh TREE
set -eu

tree=$1
[ -e "$tree/.complete" ] && exit 0

mirror=$(apt-cache policy | awk '$2 ~ /^https?:/ && $3 ~ /\/main$/ && $3 !~ /-(security|updates|backports)\// { print $2; exit }')
suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
[ -n "$mirror" ] || { echo "apt knows no mirror of the main archive" >&2; exit 3; }
[ -n "$suite" ] || { echo "/etc/os-release names no suite" >&2; exit 3; }

rm -rf "$tree"
mkdir -p "$tree"
if ! debootstrap --variant=minbase --include=systemd-sysv,dbus,procps "$suite" "$tree" "$mirror" >"$tree.log" 2>&1; then
    tail -n 20 "$tree.log" >&2
    exit 3
fi
# What is booted starts nothing that the test does not need.
rm -f "$tree"/var/cache/apt/archives/*.deb
systemctl --root="$tree" mask apt-daily.timer apt-daily-upgrade.timer >/dev/null 2>&1
touch "$tree/.complete"
