//! File systems whose files the kernel makes itself (proc(5), sysfs(5), linux/magic.h). Nobody else
//! can make a file there or replace one, and each says so in its own way, such as "no such file" of a
//! folder that is there.

use std::os::fd::AsFd;

use rustix::fs::FsWord;

use super::system::fstatfs;

/// By the number that statfs(2) gives.
const KERNEL_MADE: [FsWord; 16] = [
    // proc, sysfs, devpts
    0x9fa0,
    0x6265_6572,
    0x1cd1,
    // debugfs, tracefs, securityfs
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    // cgroup, cgroup2
    0x0027_e0eb,
    0x6367_7270,
    // bpf, configfs, binfmt_misc, efivarfs
    0xcafe_4a11,
    0x6265_6570,
    0x4249_4e4d,
    0xde5e_81e4,
    // selinuxfs, smackfs, fusectl, pstore
    0xf97c_ff8c,
    0x4341_5d53,
    0x6573_5543,
    0x6165_676c,
];

/// Whether the kernel makes the files in an open folder.
pub(super) fn is_kernel_made(folder: impl AsFd) -> bool {
    fstatfs(folder).is_ok_and(|answer| KERNEL_MADE.contains(&answer.f_type))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::File;

    use super::*;

    #[test]
    fn the_folders_of_the_kernel_are_told_from_those_of_users() {
        for (path, made) in [
            ("/proc", true),
            ("/proc/self/fd", true),
            ("/sys", true),
            ("/sys/kernel", true),
            ("/", false),
            ("/dev", false),
            ("/tmp", false),
        ] {
            // Not everything is mounted everywhere.
            let Ok(folder) = File::open(path) else {
                continue;
            };
            assert_eq!(is_kernel_made(&folder), made, "{path}");
        }
    }
}
