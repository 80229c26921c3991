#!/bin/sh
# What `make demo` does: makes a disk, copies it, compares, and shows what there is to see. It needs
# no file of yours, and leaves none.
#
#   examples/demo.sh VMM
set -eu
vmm=$(realpath "$1")
folder=$(realpath "$(mktemp -d)")
trap 'rm -rf "$folder"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 141' PIPE
trap 'exit 143' TERM
cd "$folder"

# Shows a command and runs it.
run() {
  printf '\n$ vmm %s\n' "$*"
  "$vmm" "$@"
}

head -c 25600 /dev/urandom > small.img
head -c 268435456 /dev/urandom > disk.img

echo 'This host:'
run --check .

echo
echo 'A small disk, 50 sectors. Where there is no terminal, each message of the guest is a line:'
# shellcheck disable=SC2016
printf '\n$ vmm -p 25 small.img copy.img | cat\n'
# Not a pipe: its status would be lost.
"$vmm" -p 25 small.img copy.img > lines
cat lines
cmp small.img copy.img

echo
echo 'A disk of 256 MiB. On a terminal there is a bar; --stats says what it cost:'
run --stats -p 100 disk.img copy.img

cmp disk.img copy.img
printf '\n%s\n' 'Both copies were compared, and are equal.'
