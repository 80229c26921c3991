//! What the entries for each part of the disk take of the file, so that a pass goes through only the
//! parts that take something of its window.
//!
//! The disk has at most [`MOST`] parts, which take 128 KiB of memory. Most images have what is close
//! together on the disk close together in the file as well.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use crate::source::to_usize;

/// The most parts of a disk.
const MOST: u64 = 4096;

/// The parts of a disk, and what each takes of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Groups {
    /// How many bytes of the disk a part has: whole clusters.
    length: u64,
    /// What each part takes for tables, and for anything else: from the first byte to the end of the
    /// last one. Many writers have tables far from the data.
    takes: Vec<[Range<u64>; 2]>,
}

impl Groups {
    /// The parts of a disk of `size` bytes with clusters of `cluster` bytes.
    pub(super) fn new(size: u64, cluster: u64) -> Self {
        let most = size.div_ceil(MOST).max(1);
        let length = most.div_ceil(cluster).saturating_mul(cluster);
        Self {
            length,
            takes: vec![[0..0, 0..0]; to_usize(size.div_ceil(length))],
        }
    }

    /// Notes what a table or another entry for the byte `at` of the disk takes.
    pub(super) fn note(&mut self, at: u64, takes: &Range<u64>, is_table: bool) {
        let part = self.takes.get_mut(to_usize(at / self.length));
        if let (Some([table, other]), false) = (part, takes.is_empty()) {
            let noted = if is_table { table } else { other };
            *noted = match noted.is_empty() {
                true => takes.clone(),
                false => noted.start.min(takes.start)..noted.end.max(takes.end),
            };
        }
    }

    /// What the part with the byte `at` of the disk takes, and where the next part begins.
    pub(super) fn part(&self, at: u64) -> ([Range<u64>; 2], u64) {
        let index = at / self.length;
        let takes = self.takes.get(to_usize(index)).cloned();
        let next = (index + 1).saturating_mul(self.length);
        (takes.unwrap_or_default(), next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_takes_what_its_entries_take() {
        let mut groups = Groups::new(1 << 40, 65536);
        groups.note(0, &(700..800), false);
        groups.note(65536, &(100..200), false);
        groups.note(65536, &(5..5), false);
        groups.note(0, &(1000..1001), true);
        groups.note((1 << 40) - 1, &(1..2), false);
        assert_eq!(groups.part(0), ([1000..1001, 100..800], 256 << 20));
        assert_eq!(groups.part(256 << 20), ([0..0, 0..0], 512 << 20));
        assert_eq!(groups.part((1 << 40) - 1), ([0..0, 1..2], 1 << 40));
        let small = Groups::new(65537, 65536);
        assert_eq!((small.takes.len(), small.part(65536).1), (2, 131_072));
        assert_eq!(Groups::new(0, 512).takes.len(), 0);
    }
}
