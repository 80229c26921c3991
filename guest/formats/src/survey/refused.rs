//! The parts of the disk whose tables were refused, since others lie where they do. Their entries are
//! looked at in no later pass: all that they take is taken by the entries of those others.

use alloc::vec::Vec;
use core::ops::Range;

/// The most parts that are kept, neighbours counted as one: 16 KiB of memory. Of a table more the
/// entries are looked at, and are overlaps of their own.
const MOST: usize = 1024;

/// The parts, in the order of the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Refused(Vec<Range<u64>>);

impl Refused {
    /// Adds a part, which is none of those that there are.
    pub(super) fn add(&mut self, part: Range<u64>) {
        let index = self.0.partition_point(|other| other.end < part.start);
        let has_room = self.0.len() < MOST;
        match self.0.get_mut(index) {
            Some(other) if other.end == part.start => other.end = part.end,
            Some(other) if other.start == part.end => other.start = part.start,
            _ if has_room => self.0.insert(index, part),
            _ => {}
        }
    }

    /// Whether the byte `at` of the disk is in one of the parts.
    pub(super) fn has(&self, at: u64) -> bool {
        let index = self.0.partition_point(|part| part.end <= at);
        self.0.get(index).is_some_and(|part| part.start <= at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_one_part_whichever_comes_first() {
        let mut refused = Refused::default();
        for part in [10..20, 40..50, 20..30, 30..35, 5..10, 35..40] {
            refused.add(part);
        }
        let found = (0..60).filter(|at| refused.has(*at));
        assert!(found.eq(5..50));
        assert!(refused.0.len() < 3);
    }

    #[test]
    fn no_more_than_the_memory_allows_are_kept() {
        let mut refused = Refused::default();
        (0..2000).for_each(|part| refused.add(part * 10..part * 10 + 5));
        assert_eq!(refused.0.len(), MOST);
        assert!(refused.has(4) && !refused.has(5) && !refused.has(19_990));
    }
}
