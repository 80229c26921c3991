//! How often the clusters are used that one pass counts, and as what.

use alloc::vec;
use alloc::vec::Vec;

use crate::source::to_usize;

/// What a cluster is used as. Only data and L2 tables may be used more than once, by snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Metadata that is used once.
    Single = 1,
    /// An L2 table.
    Table = 2,
    /// Data, compressed or not.
    Data = 4,
}

/// The counts of the clusters from number `start` on.
#[derive(Debug)]
pub(super) struct Window {
    start: u64,
    counts: Vec<u32>,
    uses: Vec<u8>,
    /// A bit for each cluster: whether the image says that its refcount is one.
    ones: Vec<u64>,
}

/// The bit beside those of [`Use`] that says that a use was not allowed beside another one.
const OVERLAP: u8 = 0x80;

impl Window {
    pub(super) fn new(clusters: u64) -> Self {
        let clusters = to_usize(clusters);
        Self {
            start: 0,
            counts: vec![0; clusters],
            uses: vec![0; clusters],
            ones: vec![0; clusters.div_ceil(64)],
        }
    }

    pub(super) fn start(&self) -> u64 {
        self.start
    }

    pub(super) fn end(&self) -> u64 {
        let length = u64::try_from(self.counts.len()).unwrap_or(u64::MAX);
        self.start.saturating_add(length)
    }

    /// The number of the window in which a cluster is. Windows are counted from 0.
    pub(super) fn number_of(&self, cluster: u64) -> u64 {
        cluster / (self.end() - self.start).max(1)
    }

    /// Moves the window on to the clusters behind it.
    pub(super) fn advance(&mut self) {
        self.start = self.end();
        self.counts.fill(0);
        self.uses.fill(0);
        self.ones.fill(0);
    }

    /// Notes that the image says that the refcount of a cluster of the window is one.
    pub(super) fn note_one(&mut self, cluster: u64) {
        let index = to_usize(cluster.saturating_sub(self.start));
        if let Some(word) = self.ones.get_mut(index / 64) {
            *word |= 1 << (index % 64);
        }
    }

    /// Whether that was noted. Nothing if the cluster is not in the window.
    pub(super) fn is_one(&self, cluster: u64) -> Option<bool> {
        let index = to_usize(cluster.checked_sub(self.start)?);
        self.counts.get(index)?;
        let word = self.ones.get(index / 64)?;
        Some(word >> (index % 64) & 1 == 1)
    }

    /// How many of the clusters from `first` to `last` are in the window.
    pub(super) fn within(&self, first: u64, last: u64) -> u64 {
        let end = last.saturating_add(1).min(self.end());
        end.saturating_sub(first.max(self.start))
    }

    /// Counts a use of the clusters from `first` to `last`, as far as they are in the window.
    pub(super) fn mark(&mut self, first: u64, last: u64, kind: Use) {
        let (low, high) = (
            first.max(self.start),
            last.saturating_add(1).min(self.end()),
        );
        for cluster in low..high {
            let index = to_usize(cluster - self.start);
            let (Some(count), Some(uses)) = (self.counts.get_mut(index), self.uses.get_mut(index))
            else {
                return;
            };
            let other = *uses & !(kind as u8) & !OVERLAP != 0;
            if other || (kind == Use::Single && *count > 0) {
                *uses |= OVERLAP;
            }
            *count = count.saturating_add(1);
            *uses |= kind as u8;
        }
    }

    pub(super) fn count(&self, cluster: u64) -> u32 {
        let index = to_usize(cluster.saturating_sub(self.start));
        self.counts.get(index).copied().unwrap_or(0)
    }

    pub(super) fn overlaps(&self, cluster: u64) -> bool {
        let index = to_usize(cluster.saturating_sub(self.start));
        self.uses.get(index).is_some_and(|uses| uses & OVERLAP != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_alone_in_its_cluster_and_data_may_be_shared() {
        let mut window = Window::new(4);
        window.mark(0, 1, Use::Single);
        window.mark(2, 2, Use::Data);
        window.mark(2, 2, Use::Data);
        assert!((0..4).all(|cluster| !window.overlaps(cluster)));
        window.mark(1, 1, Use::Data);
        window.mark(2, 2, Use::Table);
        window.mark(0, 0, Use::Single);
        let overlaps: Vec<bool> = (0..4).map(|cluster| window.overlaps(cluster)).collect();
        assert_eq!(overlaps, [true, true, true, false]);
        assert_eq!(window.count(2), 3);
    }

    #[test]
    fn only_clusters_of_the_window_are_counted() {
        let mut window = Window::new(4);
        window.note_one(3);
        assert_eq!(
            (window.is_one(3), window.is_one(2)),
            (Some(true), Some(false))
        );
        assert_eq!(window.is_one(4), None);
        window.advance();
        assert_eq!((window.is_one(3), window.is_one(7)), (None, Some(false)));
        assert_eq!(window.within(2, 5), 2);
        assert_eq!((window.within(0, 3), window.within(8, u64::MAX)), (0, 0));
        window.mark(0, u64::MAX, Use::Data);
        assert_eq!(window.start(), 4);
        assert_eq!(window.count(4), 1);
        assert_eq!(window.count(7), 1);
        assert_eq!(window.count(8), 0);
    }
}
