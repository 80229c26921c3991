//! The memory for data on its way, within the devices' reach, dealt out in pages.
//!
//! Compressed bytes lie in its upper half only. What waits for memory for inflated bytes therefore
//! gets it in the end: all that is in the lower half leaves it without waiting for anything but the
//! disks.

use core::ops::Range;

use guest_kit::dma::DmaRegion;

use crate::to_usize;

/// Bytes of a page: what is dealt out is a number of them.
pub const PAGE: usize = 32 << 10;
/// Most pages that there are.
const MOST_PAGES: usize = 128;

/// Some pages in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    first: u32,
    pages: u32,
}

impl Place {
    /// Offset of its first byte in the pool.
    #[must_use]
    pub fn offset(self) -> usize {
        to_usize(self.first) * PAGE
    }

    /// How many bytes it has.
    #[must_use]
    pub fn size(self) -> usize {
        to_usize(self.pages) * PAGE
    }

    const fn mask(self) -> u128 {
        (u128::MAX >> (128 - self.pages)) << self.first
    }
}

/// The pool.
#[derive(Debug)]
pub struct Pool {
    region: DmaRegion,
    /// A bit for each page that is free.
    free: u128,
    pages: u32,
}

impl Pool {
    /// A pool in `region`, which has a page at least.
    #[must_use]
    pub fn new(region: DmaRegion) -> Self {
        let pages = (region.len() / PAGE).clamp(1, MOST_PAGES);
        let pages = u32::try_from(pages).unwrap_or(1);
        Self {
            region,
            free: u128::MAX >> (128 - pages),
            pages,
        }
    }

    /// Takes `len` bytes anywhere, as low as possible.
    pub fn take(&mut self, len: usize) -> Option<Place> {
        self.take_from(0, len)
    }

    /// Takes `len` bytes in the upper half.
    pub fn take_upper(&mut self, len: usize) -> Option<Place> {
        self.take_from(self.pages / 2, len)
    }

    fn take_from(&mut self, from: u32, len: usize) -> Option<Place> {
        let pages = u32::try_from(len.div_ceil(PAGE).max(1)).ok()?;
        let last = self.pages.checked_sub(pages)?;
        let place = (from..=last)
            .map(|first| Place { first, pages })
            .find(|place| self.free & place.mask() == place.mask())?;
        self.free &= !place.mask();
        Some(place)
    }

    /// Gives back what was taken.
    pub fn give(&mut self, place: Place) {
        self.free |= place.mask();
    }

    /// Whether nothing is taken.
    #[must_use]
    pub const fn is_free(&self) -> bool {
        self.free == u128::MAX >> (128 - self.pages)
    }

    /// The address by which a device reaches the byte at `offset`.
    #[must_use]
    pub fn address(&self, offset: usize) -> u64 {
        self.region.address(offset)
    }

    /// The `len` bytes from `offset` up, with which no device has to do.
    pub fn bytes(&mut self, offset: usize, len: usize) -> &[u8] {
        self.region.bytes(offset, len)
    }

    /// The same, to be changed.
    pub fn bytes_mut(&mut self, offset: usize, len: usize) -> &mut [u8] {
        self.region.bytes_mut(offset, len)
    }

    /// Two parts that do not overlap, the second to be changed.
    pub fn pair(&mut self, source: Range<usize>, target: Range<usize>) -> (&[u8], &mut [u8]) {
        self.region.pair(source, target)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use guest_kit::testing::memory::leak;

    use super::*;

    #[test]
    fn places_do_not_overlap_and_can_be_taken_again() {
        let mut pool = Pool::new(leak(2 << 20));
        let places: Vec<_> = (0..8).map(|_| pool.take(200_000).unwrap()).collect();
        for (index, place) in places.iter().enumerate() {
            assert_eq!(place.size(), 7 * PAGE);
            assert_eq!(place.offset(), index * 7 * PAGE);
        }
        assert_eq!(pool.take(8 * PAGE + 1), None);
        assert!(pool.take(8 * PAGE).is_some());
        pool.give(places[3]);
        assert_eq!(pool.take(7 * PAGE), Some(places[3]));
        assert_eq!(pool.take(1), None);
    }

    #[test]
    fn the_upper_half_is_taken_for_itself_and_the_whole_pool_fits() {
        let mut pool = Pool::new(leak(1 << 20));
        let upper = pool.take_upper(1).unwrap();
        assert_eq!(upper.offset(), 512 << 10);
        assert_eq!(pool.take_upper(512 << 10), None);
        assert_eq!(pool.take(512 << 10).unwrap().offset(), 0);
        pool.give(upper);
        let mut whole = Pool::new(leak(1 << 20));
        assert!(whole.is_free());
        assert!(whole.take(1 << 20).is_some());
        assert!(!whole.is_free());
    }
}
