//! Data that has no place on its disk yet, and that a file system may not know of when it is asked for
//! holes (lseek(2), SEEK_DATA). Linux's ext4 looks up extents together with what waits for a place, but a
//! list of single blocks, as files of ext2 and ext3 have it, alone: a hole goes on over new data to the
//! next block that has a place. Once the data has been written back, the answer is right.

use std::os::fd::AsFd;

use rustix::fs::{FsWord, Stat, major};

use super::system::{fstatfs, ioctl_getflags};

/// The blocks of a file of ext4 are told of by extents (linux/fs.h, `FS_EXTENT_FL`). Layers over it pass
/// this on.
const EXTENTS: u32 = 0x0008_0000;

/// File systems that count what waits for a place, by the number that statfs(2) gives: XFS, btrfs, tmpfs.
const COUNTING: [FsWord; 3] = [0x5846_5342, 0x9123_683e, 0x0102_1994];

/// Whether holes of the regular file `file`, which has the status `stat`, are told only of what has been
/// written back, as far as is known. It is taken for granted of a file system that is not known: another
/// one may lie behind it, as behind layers or a network.
pub(super) fn may_miss_delayed(file: impl AsFd, stat: &Stat) -> bool {
    let has_extents = || ioctl_getflags(&file).is_ok_and(|flags| flags.bits() & EXTENTS != 0);
    let counts = || fstatfs(&file).is_ok_and(|answer| COUNTING.contains(&answer.f_type));
    // The likely question comes first: ext4 has a device, which btrfs and tmpfs do not show.
    let counted = match major(stat.st_dev) {
        0 => counts() || has_extents(),
        _ => has_extents() || counts(),
    };
    !counted
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;
    use crate::files::system::fstat;

    #[test]
    fn the_usual_file_systems_count_what_has_no_place_yet() {
        // Others than these may be below a temporary folder.
        const KNOWN: [FsWord; 4] = [0xef53, COUNTING[0], COUNTING[1], COUNTING[2]];
        let on_disk = tempfile::tempfile().unwrap().into();
        let in_memory = memfd_create("file", MemfdFlags::CLOEXEC).unwrap();
        for file in [on_disk, in_memory] {
            if KNOWN.contains(&fstatfs(&file).unwrap().f_type) {
                assert!(!may_miss_delayed(&file, &fstat(&file).unwrap()));
            }
        }
    }

    #[test]
    fn of_a_file_system_that_is_not_known_the_worst_is_assumed() {
        let file = std::fs::File::open("/proc/self/maps").unwrap();
        assert!(may_miss_delayed(&file, &fstat(&file).unwrap()));
    }
}
