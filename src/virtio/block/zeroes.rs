//! Requests that make parts of the disk zero, or say that nobody needs them, without data:
//! WRITE_ZEROES and DISCARD (virtio 1.2, sections 5.2.6, 5.2.6.1 and 5.2.6.2). The parts are a list
//! in the request's data, which is copied out of guest memory and checked as a whole before
//! anything is done.

use std::io;

use virtio_bindings::virtio_blk::{VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES};
use vm_memory::{Address, Bytes, GuestMemoryMmap};

use super::config::WIRE_SECTOR;
use super::device::BlockService;
use super::disk::IoOperation;
use super::refusal::{Refusal, Wrong};
use super::request::{Geometry, Segment, Status};
use crate::storage::Storage;

/// Most parts of a request.
pub const MAX_ZERO_SEGMENTS: u32 = 256;
/// Length of a part's description: its first sector (64 bits), how many there are and flags.
const DESCRIPTION: usize = 16;
/// Of the flags: the part need not take room any more. All others are reserved.
const UNMAP: u32 = 1;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ZeroKind {
    WriteZeroes,
    Discard,
}

impl ZeroKind {
    /// The request of this `kind` for `len` bytes from `sector` up, of which something is `wrong`.
    fn refuse(self, wrong: Wrong, sector: u64, len: u64) -> Refusal {
        let kind = match self {
            Self::WriteZeroes => VIRTIO_BLK_T_WRITE_ZEROES,
            Self::Discard => VIRTIO_BLK_T_DISCARD,
        };
        Refusal {
            kind,
            wrong,
            sector,
            len,
        }
    }
}

/// A part of the disk, in bytes, checked against its size and sector size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ZeroPart {
    offset: u64,
    length: u64,
    unmap: bool,
}

/// Whether a list may have so many bytes.
pub(super) fn is_list_length(bytes: u64) -> bool {
    let part = DESCRIPTION as u64;
    bytes.is_multiple_of(part) && (1..=u64::from(MAX_ZERO_SEGMENTS)).contains(&(bytes / part))
}

/// How many parts the data in `segments`, whose length is one of a list, names.
pub(super) fn part_count(segments: &[Segment]) -> usize {
    let bytes: usize = segments.iter().map(|segment| segment.len as usize).sum();
    bytes / DESCRIPTION
}

/// The parts that the data in `segments`, whose length is one of a list, names.
///
/// # Errors
///
/// Why the request is refused.
pub(super) fn parts(
    memory: &GuestMemoryMmap,
    segments: &[Segment],
    kind: ZeroKind,
    geometry: &Geometry,
) -> Result<Vec<ZeroPart>, Refusal> {
    let unreadable = || kind.refuse(Wrong::Memory, 0, 0);
    let list = read_list(memory, segments).ok_or_else(unreadable)?;
    let (descriptions, _) = list.as_chunks::<DESCRIPTION>();
    descriptions
        .iter()
        .map(|description| part(description, kind, geometry))
        .collect()
}

fn part(
    description: &[u8; DESCRIPTION],
    kind: ZeroKind,
    geometry: &Geometry,
) -> Result<ZeroPart, Refusal> {
    let [
        s0,
        s1,
        s2,
        s3,
        s4,
        s5,
        s6,
        s7,
        n0,
        n1,
        n2,
        n3,
        f0,
        f1,
        f2,
        f3,
    ] = *description;
    let flags = u32::from_le_bytes([f0, f1, f2, f3]);
    let known = match kind {
        ZeroKind::WriteZeroes => UNMAP,
        ZeroKind::Discard => 0,
    };
    let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
    let length = u64::from(u32::from_le_bytes([n0, n1, n2, n3])) * WIRE_SECTOR;
    let refused = |wrong| kind.refuse(wrong, sector, length);
    if flags & !known != 0 {
        return Err(refused(Wrong::Flags));
    }
    let offset = geometry.offset(sector, length).map_err(refused)?;
    Ok(ZeroPart {
        offset,
        length,
        unmap: flags & UNMAP != 0,
    })
}

/// The data in `segments`; `None` if not all of it is in memory.
fn read_list(memory: &GuestMemoryMmap, segments: &[Segment]) -> Option<Vec<u8>> {
    let length = segments.iter().map(|segment| segment.len as usize).sum();
    let mut list = vec![0; length];
    let mut rest = list.as_mut_slice();
    for segment in segments {
        segment.address.checked_add(u64::from(segment.len))?;
        let (part, behind) = rest.split_at_mut(segment.len as usize);
        memory.read_slice(part, segment.address).ok()?;
        rest = behind;
    }
    Some(list)
}

impl<B: Storage + ?Sized> BlockService<B> {
    /// Makes the part zero, or forgets it, and returns how many bytes of zeros that makes.
    pub(super) fn zero(&self, kind: ZeroKind, part: ZeroPart) -> Result<u64, Status> {
        let ZeroPart {
            offset,
            length,
            unmap,
        } = part;
        let (operation, outcome, zeroed) = match kind {
            // Who could not write zeros as data has them now, and the other way round.
            ZeroKind::WriteZeroes => {
                let outcome = self.storage.write_zeroes(offset, length, unmap);
                (IoOperation::Write, outcome, length)
            }
            ZeroKind::Discard => {
                let outcome = self.storage.discard(offset, length);
                (IoOperation::Discard, outcome, 0)
            }
        };
        match self.noted(operation, (offset, length), outcome) {
            Ok(()) => Ok(zeroed),
            Err(error) if error.source.kind() == io::ErrorKind::Unsupported => {
                Err(Status::Unsupported)
            }
            Err(error) => {
                self.failures.add(error);
                Err(Status::IoErr)
            }
        }
    }
}
