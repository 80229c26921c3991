//! Declares zeros to a raw output instead of writing them (VIRTIO_BLK_T_WRITE_ZEROES, virtio 1.2,
//! section 5.2.6). A request has a list of parts of the disk.

use alloc::vec::Vec;

use guest_kit::failure::{Failure, Op};
use guest_kit::virtio::block::ZeroLimits;
use guest_kit::virtio::requests::{Kind, Request, STATUS_OK, ZERO_SEGMENT_LEN, zero_segment};

use crate::disks::OUTPUT;
use crate::pool::{PAGE, Place, Pool};
use crate::{SECTOR, to_u32, to_usize};

/// The declarations of one conversion.
#[derive(Debug)]
pub(super) struct Zeros {
    /// The limits of a request, and the memory for its list. Nothing if the output takes no such
    /// requests.
    way: Option<(ZeroLimits, Place)>,
    /// The parts that are not declared yet, in the order of the disk: the first sector, and how many
    /// sectors. Neighbours are one part, as far as a part may go.
    parts: Vec<(u64, u32)>,
    /// Whether a request is under way.
    busy: bool,
}

impl Zeros {
    /// Declarations for an output with these limits, or for one that takes none.
    pub(super) fn new(limits: Option<ZeroLimits>, pool: &mut Pool) -> Self {
        let usable = |limits: &ZeroLimits| limits.sectors >= 8 && limits.segments > 0;
        let limits = limits.filter(usable);
        Self {
            way: limits.and_then(|limits| Some((limits, pool.take(PAGE)?))),
            parts: Vec::new(),
            busy: false,
        }
    }

    /// Whether the output takes declarations.
    pub(super) const fn are_taken(&self) -> bool {
        self.way.is_some()
    }

    /// Whether no request is under way, and no part waits.
    pub(super) fn is_quiet(&self) -> bool {
        !self.busy && self.parts.is_empty()
    }

    /// Whether there is no room for another part, so that nothing should be begun that may find one.
    pub(super) fn is_full(&self) -> bool {
        self.way.is_some() && self.parts.len() >= self.most()
    }

    /// How many parts a request may name.
    fn most(&self) -> usize {
        self.way.map_or(0, |(limits, place)| {
            to_usize(limits.segments).min(place.size() / ZERO_SEGMENT_LEN)
        })
    }

    /// Notes that `length` bytes at `offset` are zero, or as many of them as there is room for, and
    /// returns how many. Only the end of the disk lies within a sector; the rest of that sector is
    /// zero, too.
    pub(super) fn add(&mut self, offset: u64, length: u64) -> u64 {
        if self.way.is_none() || self.parts.len() >= self.most() {
            return 0;
        }
        let sectors = self.insert(offset / SECTOR, length.div_ceil(SECTOR));
        length.min(sectors * SECTOR)
    }

    /// Notes that `length` bytes at `offset`, which were found in a block, are zero. There is room
    /// for them: no block is begun while the list is full, and the blocks under way are few.
    pub(super) fn found(&mut self, offset: u64, length: u64) {
        let (mut sector, mut rest) = (offset / SECTOR, length.div_ceil(SECTOR));
        while rest > 0 && self.way.is_some() {
            let noted = self.insert(sector, rest);
            sector += noted;
            rest -= noted;
        }
    }

    /// How many sectors a part may have. It ends at a grain, so that the next one begins at one.
    fn largest(&self) -> u32 {
        self.way
            .map_or(0, |(limits, _)| limits.sectors - limits.sectors % 8)
    }

    /// Puts a part of at most `sectors` sectors into the list, and returns how many it has. It
    /// becomes one part with its neighbours if that is not too large.
    fn insert(&mut self, sector: u64, sectors: u64) -> u64 {
        let largest = self.largest();
        let sectors = u32::try_from(sectors).map_or(largest, |all| all.min(largest));
        let index = self.parts.partition_point(|part| part.0 < sector);
        self.parts.insert(index, (sector, sectors));
        self.join(index);
        if let Some(before) = index.checked_sub(1) {
            self.join(before);
        }
        sectors.into()
    }

    /// Makes one part of the part with this index and the one behind it, if they touch and the
    /// whole is not too large.
    fn join(&mut self, index: usize) {
        if let [(sector, sectors), (next, more), ..] = self.parts[index..]
            && sector + u64::from(sectors) == next
            && let Some(both) = sectors.checked_add(more)
            && both <= self.largest()
        {
            self.parts[index].1 = both;
            self.parts.remove(index + 1);
        }
    }

    /// The request that declares what is noted, if no other one is under way. It is made once the
    /// list is full, or `all` zeros are known.
    pub(super) fn request(&mut self, pool: &mut Pool, all: bool) -> Option<Request> {
        let (_, place) = self.way?;
        let due = self.is_full() || all;
        if self.busy || self.parts.is_empty() || !due {
            return None;
        }
        let count = self.parts.len().min(self.most());
        let len = count * ZERO_SEGMENT_LEN;
        let bytes = pool.bytes_mut(place.offset(), len);
        let (segments, _) = bytes.as_chunks_mut::<ZERO_SEGMENT_LEN>();
        for (segment, (sector, sectors)) in segments.iter_mut().zip(self.parts.drain(..count)) {
            *segment = zero_segment(sector, sectors);
        }
        self.busy = true;
        Some(Request {
            kind: Kind::WriteZeroes,
            sector: 0,
            address: pool.address(place.offset()),
            len: to_u32(len),
        })
    }

    /// Says that the request has come back with this status byte.
    pub(super) fn take(&mut self, status: u8) -> Result<(), Failure> {
        self.busy = false;
        match status {
            STATUS_OK => Ok(()),
            status => Err(Failure::answered(Op::Write, OUTPUT, 0, status)),
        }
    }
}

#[cfg(test)]
mod tests {
    use guest_kit::testing::memory::leak;

    use super::*;

    fn zeros(sectors: u32, segments: u32) -> (Zeros, Pool) {
        let mut pool = Pool::new(leak(2 * PAGE));
        let limits = ZeroLimits { sectors, segments };
        (Zeros::new(Some(limits), &mut pool), pool)
    }

    #[test]
    fn a_part_ends_at_a_grain_and_a_full_list_takes_no_more() {
        let (mut zeros, mut pool) = zeros(20, 2);
        assert_eq!(zeros.add(0, 1 << 20), 16 * SECTOR);
        assert!(!zeros.is_full() && zeros.request(&mut pool, false).is_none());
        assert_eq!(zeros.add(1 << 20, 700), 700);
        assert!(zeros.is_full());
        assert_eq!(zeros.add(2 << 20, 4096), 0);
        let request = zeros.request(&mut pool, false).map(|request| request.len);
        assert_eq!(request, Some(2 * 16));
        let segments = [zero_segment(0, 16), zero_segment(2048, 2)].concat();
        assert_eq!(pool.bytes(0, 32), segments);
        assert!(!zeros.is_quiet() && zeros.take(STATUS_OK).is_ok());
        assert!(zeros.is_quiet());
    }

    #[test]
    fn a_list_is_not_longer_than_its_memory_whatever_the_output_takes() {
        let (mut zeros, mut pool) = zeros(8, u32::MAX);
        let taken = (0..3000).filter(|part| zeros.add(part * 8192, 4096) == 4096);
        assert_eq!(taken.count(), PAGE / ZERO_SEGMENT_LEN);
        let request = zeros.request(&mut pool, false).map(|request| request.len);
        assert_eq!(request, Some(to_u32(PAGE)));
    }

    #[test]
    fn what_was_found_is_noted_in_parts_that_the_output_takes() {
        let (mut zeros, _) = zeros(16, 1);
        zeros.found(0, 40 * SECTOR - 100);
        assert_eq!(zeros.parts, [(0, 16), (16, 16), (32, 8)]);
        zeros.found(80 * SECTOR, 8 * SECTOR);
        zeros.found(72 * SECTOR, 8 * SECTOR);
        assert_eq!(zeros.parts[3..], [(72, 16)]);
    }
}
