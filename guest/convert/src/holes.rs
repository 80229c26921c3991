//! The holes of a file, as the VMM says: an image may show as data what its file has no data for.

use alloc::vec::Vec;
use core::ops::Range;

use guest_protocol::DataList;

use crate::SECTOR;

/// Where a file has no data, so that its bytes are zero and need not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileHoles(Vec<Range<u64>>);

impl FileHoles {
    /// What `list` says of a file of `length` bytes. What fills up its last sector is zero, too.
    #[must_use]
    pub fn new(list: &DataList<'_>, length: u64) -> Self {
        let to_sector = |hole: Range<u64>| match hole.end == length {
            true => hole.start..length.next_multiple_of(SECTOR),
            false => hole,
        };
        Self(list.holes(length).map(to_sector).collect())
    }

    /// How many of the `length` bytes at `offset` of the file lie all in a hole, or all outside of
    /// one; and whether it is a hole that they lie in.
    #[must_use]
    pub fn stretch(&self, offset: u64, length: u64) -> (u64, bool) {
        let next = self.0.partition_point(|hole| hole.end <= offset);
        match self.0.get(next) {
            Some(hole) if hole.start <= offset => (length.min(hole.end - offset), true),
            Some(hole) => (length.min(hole.start - offset), false),
            None => (length, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_and_data_follow_each_other() {
        let list = DataList::new(&[8192..16_384, 1 << 20..(1 << 20) + 4096]);
        let length = (2 << 20) + 5;
        let holes = FileHoles::new(&list, length);
        let end = (2 << 20) + 512;
        for (offset, length, expected) in [
            (0, 100, (100, true)),
            (100, u64::MAX, (8092, true)),
            (8191, 2, (1, true)),
            (8192, 10, (10, false)),
            (10_000, u64::MAX, (6384, false)),
            (16_384, 4096, (4096, true)),
            (1 << 20, 1 << 20, (4096, false)),
            (end - 512, 512, (512, true)),
            (end - 1, 512, (1, true)),
            (end, 512, (512, false)),
        ] {
            assert_eq!(holes.stretch(offset, length), expected, "{offset}");
        }
    }

    #[test]
    fn a_file_of_which_nothing_is_known_has_no_holes() {
        for holes in [
            FileHoles::default(),
            FileHoles::new(&DataList::everything(), 1 << 40),
        ] {
            assert_eq!(holes.stretch(0, u64::MAX), (u64::MAX, false));
        }
    }
}
