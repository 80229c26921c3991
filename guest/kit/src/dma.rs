//! Memory that a device reads and writes while the program runs (virtio 1.2, section 2.7).
//!
//! Fields are reached as atomics: another processor may change them at any time, and the ordering
//! that the rings need is said where they are used. All bounds are checked here, once.

use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

/// A piece of memory within a device's reach, owned by whoever holds this value.
///
/// The machine maps every page to itself, so an address is the same for both sides.
#[derive(Debug)]
pub struct DmaRegion {
    base: NonNull<u8>,
    len: usize,
}

/// One accessor a field width: `offset` is in bytes and a multiple of the field's size.
macro_rules! field {
    ($name:ident, $atomic:ident, $int:ty) => {
        #[doc = concat!("The `", stringify!($int), "` at `offset`, a multiple of its size.")]
        ///
        /// # Panics
        ///
        /// If it does not lie within the region, aligned: offsets are the program's own, never a
        /// device's.
        #[must_use]
        pub fn $name(&self, offset: usize) -> &$atomic {
            let pointer = self.pointer(offset, size_of::<$int>()).cast::<$int>();
            assert!(pointer.is_aligned(), "misaligned field at offset {offset}");
            // SAFETY: the field lies within the region and is aligned (both checked above); the
            // region is valid for as long as this value exists, and its memory is only ever
            // reached through atomics here and by devices (the contract of `new`).
            unsafe { $atomic::from_ptr(pointer) }
        }
    };
}

impl DmaRegion {
    /// The `len` bytes from `base` up.
    ///
    /// # Safety
    ///
    /// The memory must be valid for reads and writes for as long as this value and what is split
    /// off it exist, and nothing in the program but these may reach it.
    #[must_use]
    pub const unsafe fn new(base: NonNull<u8>, len: usize) -> Self {
        Self { base, len }
    }

    /// Size in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no memory in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The address by which a device reaches the byte at `offset`.
    #[must_use]
    pub fn address(&self, offset: usize) -> u64 {
        (self.base.as_ptr().expose_provenance() + offset) as u64
    }

    /// Two regions: the first `mid` bytes and the rest.
    ///
    /// # Panics
    ///
    /// If the region is shorter than `mid` bytes.
    #[must_use]
    pub fn split_at(self, mid: usize) -> (Self, Self) {
        let rest = NonNull::new(self.pointer(mid, 0)).unwrap_or(self.base);
        let (base, len) = (self.base, self.len);
        (
            Self { base, len: mid },
            Self {
                base: rest,
                len: len - mid,
            },
        )
    }

    field!(u8_at, AtomicU8, u8);
    field!(u16_at, AtomicU16, u16);
    field!(u32_at, AtomicU32, u32);
    field!(u64_at, AtomicU64, u64);

    /// Sets `len` bytes from `offset` up to zero. No device may be using them.
    ///
    /// # Panics
    ///
    /// If they do not lie within the region.
    pub fn zero(&mut self, offset: usize, len: usize) {
        let pointer = self.pointer(offset, len);
        // SAFETY: the bytes lie within the region (checked by `pointer`), which is valid for
        // writes, and `&mut self` means that no field of it is borrowed.
        unsafe { pointer.write_bytes(0, len) };
    }

    /// Copies `bytes` to the memory from `offset` up. No device may be using it.
    ///
    /// # Panics
    ///
    /// If they do not fit the region there.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        let pointer = self.pointer(offset, bytes.len());
        // SAFETY: as in `zero`; `bytes` is no part of the region, to which no reference exists.
        unsafe { pointer.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    /// The `len` bytes from `offset` up. No device may be using them.
    ///
    /// # Panics
    ///
    /// If they do not lie within the region.
    #[must_use]
    pub fn bytes(&mut self, offset: usize, len: usize) -> &[u8] {
        let pointer = self.pointer(offset, len);
        // SAFETY: the bytes lie within the region (checked by `pointer`), which is valid for
        // reads and initialised, and `&mut self` means that nothing in the program changes them
        // for as long as they are borrowed.
        unsafe { core::slice::from_raw_parts(pointer, len) }
    }

    /// The `len` bytes from `offset` up, to be changed. No device may be using them.
    ///
    /// # Panics
    ///
    /// If they do not lie within the region.
    #[must_use]
    pub fn bytes_mut(&mut self, offset: usize, len: usize) -> &mut [u8] {
        let pointer = self.pointer(offset, len);
        // SAFETY: as in `bytes`, and the region is valid for writes.
        unsafe { core::slice::from_raw_parts_mut(pointer, len) }
    }

    /// The bytes of `source`, and those of `target` to be changed. No device may be using either.
    ///
    /// # Panics
    ///
    /// If one does not lie within the region, or if they overlap.
    #[must_use]
    pub fn pair(&mut self, source: Range<usize>, target: Range<usize>) -> (&[u8], &mut [u8]) {
        let apart = source.end <= target.start || target.end <= source.start;
        assert!(apart, "{source:?} and {target:?} overlap");
        let from = self.pointer(source.start, source.len());
        let to = self.pointer(target.start, target.len());
        // SAFETY: as in `bytes`.
        let from = unsafe { core::slice::from_raw_parts(from, source.len()) };
        // SAFETY: as in `bytes_mut`; the two do not overlap.
        let to = unsafe { core::slice::from_raw_parts_mut(to, target.len()) };
        (from, to)
    }

    fn pointer(&self, offset: usize, len: usize) -> *mut u8 {
        let fits = offset.checked_add(len).is_some_and(|end| end <= self.len);
        assert!(fits, "{len} bytes at {offset} of {}", self.len);
        self.base.as_ptr().wrapping_add(offset)
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::Ordering;

    use crate::testing::memory::leak;

    #[test]
    fn parts_of_a_split_region_do_not_overlap_and_keep_their_addresses() {
        let region = leak(64);
        let base = region.address(0);
        let (low, high) = region.split_at(16);
        assert_eq!((low.len(), high.len()), (16, 48));
        assert_eq!((low.address(0), high.address(0)), (base, base + 16));
        low.u64_at(8).store(u64::MAX, Ordering::Relaxed);
        assert_eq!(high.u64_at(0).load(Ordering::Relaxed), 0);
        let (none, all) = high.split_at(0);
        assert!(none.is_empty() && !all.is_empty());
    }

    #[test]
    #[should_panic(expected = "8 bytes at 60 of 64")]
    fn a_field_across_the_end_is_refused() {
        let _ = leak(64).u64_at(60);
    }

    #[test]
    fn bytes_are_written_where_they_belong_and_nowhere_else() {
        let mut region = leak(16);
        region.write(7, &[1, 2]);
        assert_eq!(region.u64_at(0).load(Ordering::Relaxed), 1 << 56);
        assert_eq!(region.u64_at(8).load(Ordering::Relaxed), 2);
    }

    #[test]
    fn bytes_are_those_that_were_written() {
        let mut region = leak(16);
        region.write(3, &[1, 2, 3]);
        assert_eq!(region.bytes(2, 5), [0, 1, 2, 3, 0]);
        assert!(region.bytes(16, 0).is_empty());
    }

    #[test]
    fn a_pair_of_parts_can_be_read_and_written_at_once() {
        let mut region = leak(64);
        region.write(0, &[1, 2, 3, 4]);
        let (from, to) = region.pair(0..4, 32..36);
        to.copy_from_slice(from);
        region.bytes_mut(34, 1)[0] = 9;
        assert_eq!(region.bytes(31, 6), [0, 1, 2, 9, 4, 0]);
    }

    #[test]
    #[should_panic(expected = "overlap")]
    fn a_pair_that_overlaps_is_refused() {
        let _ = leak(64).pair(0..33, 32..64);
    }

    #[test]
    #[should_panic(expected = "2 bytes at 63 of 64")]
    fn bytes_across_the_end_are_refused() {
        leak(64).write(63, &[0; 2]);
    }

    #[test]
    fn zero_clears_exactly_what_it_was_asked_to() {
        let mut region = leak(16);
        region.u64_at(0).store(u64::MAX, Ordering::Relaxed);
        region.u64_at(8).store(u64::MAX, Ordering::Relaxed);
        region.zero(4, 8);
        assert_eq!(region.u64_at(0).load(Ordering::Relaxed), 0xffff_ffff);
        assert_eq!(
            region.u64_at(8).load(Ordering::Relaxed),
            0xffff_ffff_0000_0000
        );
    }
}
