//! Declares zeros to a raw output instead of writing them (VIRTIO_BLK_T_WRITE_ZEROES, virtio 1.2,
//! section 5.2.6). A request has a list of parts of the disk.

use alloc::vec::Vec;

use guest_kit::virtio::block::ZeroLimits;
use guest_kit::virtio::requests::{Kind, Request, STATUS_OK, ZERO_SEGMENT_LEN, zero_segment};

use crate::disks::OUTPUT;
use crate::failure::{Failure, Op};
use crate::pool::{PAGE, Place, Pool};
use crate::{SECTOR, to_u32, to_usize};

/// The declarations of one conversion.
#[derive(Debug)]
pub(super) struct Zeros {
    /// The limits of a request, and the memory for its list. Nothing if the output takes no such
    /// requests.
    way: Option<(ZeroLimits, Place)>,
    /// The parts that are not declared yet: the first sector, and how many sectors.
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
        let Some((limits, _)) = self.way else {
            return 0;
        };
        if self.parts.len() >= self.most() {
            return 0;
        }
        // A part ends at a grain, so that the next one begins at one.
        let most = limits.sectors - limits.sectors % 8;
        let sectors = u32::try_from(length.div_ceil(SECTOR)).map_or(most, |all| all.min(most));
        self.parts.push((offset / SECTOR, sectors));
        length.min(u64::from(sectors) * SECTOR)
    }

    /// The request that declares what is noted, if no other one is under way. It is made once the
    /// list is full, or `all` zeros are known.
    pub(super) fn request(&mut self, pool: &mut Pool, all: bool) -> Option<Request> {
        let (_, place) = self.way?;
        let due = self.parts.len() >= self.most() || all;
        if self.busy || self.parts.is_empty() || !due {
            return None;
        }
        let len = self.parts.len() * ZERO_SEGMENT_LEN;
        let bytes = pool.bytes_mut(place.offset(), len);
        let (segments, _) = bytes.as_chunks_mut::<ZERO_SEGMENT_LEN>();
        for (segment, (sector, sectors)) in segments.iter_mut().zip(self.parts.drain(..)) {
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
