//! The block device's request queue (virtio 1.2, section 5.2.6): a fixed number of slots, each
//! with a header, a status byte and three descriptors of its own, laid out once and used again.
//!
//! A request that looks like its slot's last one costs a header's sector, a status byte and an
//! entry in the avail ring; that is the common case of a copy.

use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use thiserror::Error;

use super::ring::{DESC_NEXT, DESC_WRITE, MAX_SIZE, Ring, RingError};
use crate::dma::DmaRegion;

/// Descriptors of a slot: header, data, status.
pub const SLOT_DESCRIPTORS: u16 = 3;
/// Most slots that any queue has.
pub const MAX_REQUEST_SLOTS: usize = (MAX_SIZE / SLOT_DESCRIPTORS) as usize;
/// Status of a request that succeeded (section 5.2.6).
pub const STATUS_OK: u8 = 0;

/// What each part of the disk takes in the data of [`Kind::WriteZeroes`], in bytes.
pub const ZERO_SEGMENT_LEN: usize = 16;
/// Its flag that the part need not take room any more.
const ZERO_UNMAP: u32 = 1;

/// The bytes that name a part of the disk, in sectors of 512 bytes, in the data of
/// [`Kind::WriteZeroes`]; with leave to free the room that it takes.
#[must_use]
pub fn zero_segment(sector: u64, sectors: u32) -> [u8; ZERO_SEGMENT_LEN] {
    let mut segment = [0; ZERO_SEGMENT_LEN];
    segment[..8].copy_from_slice(&sector.to_le_bytes());
    segment[8..12].copy_from_slice(&sectors.to_le_bytes());
    segment[12..].copy_from_slice(&ZERO_UNMAP.to_le_bytes());
    segment
}

/// Size of a request header, and offset of its sector.
const HEADER_LEN: usize = 16;
const HEADER_SECTOR: usize = 8;
const HEADER_LEN_U32: u32 = 16;
const STATUS_LEN: u32 = 1;
/// What a status byte holds before the device writes it: no status that the specification knows.
const STATUS_UNWRITTEN: u8 = 0xff;

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Device to memory.
    Read,
    /// Memory to device.
    Write,
    /// Make what was written durable; has no data.
    Flush,
    /// Make parts of the disk read as zeros, which need not take room any more. The data is a list
    /// of [`ZERO_SEGMENT_LEN`] bytes a part; the request itself has no place.
    WriteZeroes,
}

impl Kind {
    /// The header's type field: VIRTIO_BLK_T_IN, _OUT, _FLUSH and _WRITE_ZEROES.
    const fn code(self) -> u32 {
        match self {
            Self::Read => 0,
            Self::Write => 1,
            Self::Flush => 4,
            Self::WriteZeroes => 13,
        }
    }

    /// How many bytes the device writes to memory for a request with `len` bytes of data that
    /// succeeds.
    const fn writable(self, len: u32) -> u32 {
        match self {
            Self::Read => len.saturating_add(STATUS_LEN),
            Self::Write | Self::Flush | Self::WriteZeroes => STATUS_LEN,
        }
    }
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What to do.
    pub kind: Kind,
    /// Where on the disk, in units of 512 bytes.
    pub sector: u64,
    /// Address of the data.
    pub address: u64,
    /// Length of the data in bytes.
    pub len: u32,
}

impl Request {
    /// A flush, which has neither a place nor data.
    pub const FLUSH: Self = Self {
        kind: Kind::Flush,
        sector: 0,
        address: 0,
        len: 0,
    };
}

/// A request that has come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The slot that it was submitted in, free again.
    pub slot: u16,
    /// Its status byte; [`STATUS_OK`] is success.
    pub status: u8,
}

/// What a device did that no conforming one does.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RequestError {
    /// A fault of the ring itself.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// A chain came back that is not with the device.
    #[error("the device used the chain at descriptor {0}, which was not offered")]
    NotOffered(u16),
    /// The status byte is as it was.
    #[error("the device used a request without writing its status")]
    NoStatus,
    /// Too much or too little was written.
    #[error("the device says that it wrote {0} bytes for a request that has room for {1}")]
    Written(u32, u32),
}

/// What a slot's descriptors describe, and whether they are with the device. There are many of
/// them, so that it is small.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    kind: Option<Kind>,
    busy: bool,
    len: u32,
    address: u64,
}

/// The queue and its slots.
#[derive(Debug)]
pub struct RequestQueue {
    ring: Ring,
    /// The headers, one a slot, and behind them the status bytes.
    memory: DmaRegion,
    slots: Vec<Slot>,
}

impl RequestQueue {
    /// A queue of `size` descriptors in `memory`, aligned to 16 bytes; see [`Ring::new`].
    ///
    /// # Errors
    ///
    /// [`RingError::Size`] if ring, headers and status bytes do not fit.
    pub fn new(memory: DmaRegion, size: u16, event_idx: bool) -> Result<Self, RequestError> {
        let count = usize::from(size / SLOT_DESCRIPTORS);
        let space = Ring::footprint(size) + count * (HEADER_LEN + 1);
        if count == 0 || size > MAX_SIZE || space > memory.len() {
            return Err(RingError::Size(size, memory.len()).into());
        }
        let (rings, memory) = memory.split_at(Ring::footprint(size));
        let mut queue = Self {
            ring: Ring::new(rings, size, event_idx)?,
            memory,
            slots: vec![Slot::default(); count],
        };
        for slot in 0..size / SLOT_DESCRIPTORS {
            queue.lay_out(slot);
        }
        Ok(queue)
    }

    /// How many requests can be under way at once.
    #[must_use]
    pub fn slots(&self) -> u16 {
        self.ring.size() / SLOT_DESCRIPTORS
    }

    /// The virtqueue underneath.
    #[must_use]
    pub const fn ring(&self) -> &Ring {
        &self.ring
    }

    /// The virtqueue underneath, to publish what was submitted and to ask for notifications.
    pub const fn ring_mut(&mut self) -> &mut Ring {
        &mut self.ring
    }

    /// Puts `request` into a free slot and offers it; [`Ring::publish`] shows it to the device.
    ///
    /// # Panics
    ///
    /// If there is no such slot or it is not free: the caller's mistake.
    pub fn submit(&mut self, slot: u16, request: Request) {
        let state = &mut self.slots[usize::from(slot)];
        assert!(!state.busy, "slot {slot} is in use");
        let last = *state;
        *state = Slot {
            kind: Some(request.kind),
            busy: true,
            len: request.len,
            address: request.address,
        };
        self.prepare(slot, last, request);
        let header = usize::from(slot) * HEADER_LEN;
        let sector = self.memory.u64_at(header + HEADER_SECTOR);
        sector.store(request.sector.to_le(), Ordering::Relaxed);
        let status = self.memory.u8_at(self.status_offset(slot));
        status.store(STATUS_UNWRITTEN, Ordering::Relaxed);
        self.ring.push(slot * SLOT_DESCRIPTORS);
    }

    /// Takes the next request that has come back.
    ///
    /// # Errors
    ///
    /// [`RequestError`] if the device did what no conforming one does.
    pub fn complete(&mut self) -> Result<Option<Completion>, RequestError> {
        let Some(used) = self.ring.pop()? else {
            return Ok(None);
        };
        let slot = used.head / SLOT_DESCRIPTORS;
        let not_offered = RequestError::NotOffered(used.head);
        let state = self.slots.get_mut(usize::from(slot));
        let (Some(state), true) = (state, used.head.is_multiple_of(SLOT_DESCRIPTORS)) else {
            return Err(not_offered);
        };
        let (Some(kind), true) = (state.kind, state.busy) else {
            return Err(not_offered);
        };
        state.busy = false;
        let len = state.len;
        let status = self.memory.u8_at(self.status_offset(slot));
        let status = status.load(Ordering::Relaxed);
        check(kind, len, used.written, status)?;
        Ok(Some(Completion { slot, status }))
    }

    /// Descriptors and links that stay as they are.
    fn lay_out(&mut self, slot: u16) {
        let head = slot * SLOT_DESCRIPTORS;
        let header = self.memory.address(usize::from(slot) * HEADER_LEN);
        let status = self.memory.address(self.status_offset(slot));
        self.ring.set_buffer(head, header, HEADER_LEN_U32);
        self.ring.set_buffer(head + 2, status, STATUS_LEN);
        self.ring.set_link(head + 2, DESC_WRITE, 0);
    }

    /// Changes what differs from the slot's `last` request, which is most often nothing.
    fn prepare(&mut self, slot: u16, last: Slot, request: Request) {
        let head = slot * SLOT_DESCRIPTORS;
        if last.kind != Some(request.kind) {
            let header = usize::from(slot) * HEADER_LEN;
            // The reserved field behind the type is zero, so both are written at once.
            let code = u64::from(request.kind.code());
            self.memory.u64_at(header).store(code, Ordering::Relaxed);
            let (next, flags) = match request.kind {
                Kind::Read => (head + 1, DESC_NEXT | DESC_WRITE),
                Kind::Write | Kind::WriteZeroes => (head + 1, DESC_NEXT),
                Kind::Flush => (head + 2, DESC_NEXT),
            };
            self.ring.set_link(head, DESC_NEXT, next);
            self.ring.set_link(head + 1, flags, head + 2);
        }
        if last.kind.is_none() || (last.address, last.len) != (request.address, request.len) {
            self.ring.set_buffer(head + 1, request.address, request.len);
        }
    }

    fn status_offset(&self, slot: u16) -> usize {
        usize::from(self.slots()) * HEADER_LEN + usize::from(slot)
    }
}

/// Whether what the device says of a request can be true. A request that failed may have written
/// any part of its buffer.
fn check(kind: Kind, len: u32, written: u32, status: u8) -> Result<(), RequestError> {
    let room = kind.writable(len);
    if status == STATUS_UNWRITTEN {
        return Err(RequestError::NoStatus);
    }
    let incomplete = status == STATUS_OK && kind == Kind::Read && written != room;
    if written > room || incomplete {
        return Err(RequestError::Written(written, room));
    }
    Ok(())
}

#[cfg(test)]
#[path = "requests_tests.rs"]
mod tests;
