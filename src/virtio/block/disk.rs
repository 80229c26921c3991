//! Where data moves between a disk's storage and guest memory, without a copy in between.

use std::fmt;
use std::io;

use thiserror::Error;
use virtio_bindings::virtio_blk::{VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT};
use vm_memory::{Bytes, GuestMemoryBackend, GuestMemoryError, GuestMemoryMmap, VolatileSlice};

use super::device::BlockService;
use super::request::{Extent, Operation, Segment};
use crate::reason::reason;
use crate::storage::Storage;

/// What the device was doing when its storage failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoOperation {
    /// Reading from the storage.
    Read,
    /// Writing to the storage.
    Write,
    /// Telling the storage what nobody needs any more.
    Discard,
    /// Making what was written durable.
    Flush,
}

impl fmt::Display for IoOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Discard => "discard",
            Self::Flush => "flush",
        })
    }
}

/// An error of the host that the guest has seen as IOERR.
#[derive(Debug, Error)]
#[error(
    "cannot {operation} {len} bytes at offset {offset}: {}",
    reason(source)
)]
pub struct BlockIoError {
    /// What was being done.
    pub operation: IoOperation,
    /// Where on the disk, in bytes; 0 for a flush.
    pub offset: u64,
    /// How many bytes; 0 for a flush.
    pub len: u64,
    /// The host's reason.
    pub source: io::Error,
}

/// Which way data moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Read,
    Write,
}

impl Direction {
    /// The type of the requests that move data this way.
    pub(super) fn request(self) -> u32 {
        match self {
            Self::Read => VIRTIO_BLK_T_IN,
            Self::Write => VIRTIO_BLK_T_OUT,
        }
    }
}

/// Why data did not move.
#[derive(Debug, Error)]
pub(super) enum TransferError {
    #[error("the data is not within guest memory: {0}")]
    Memory(#[from] GuestMemoryError),
    #[error(transparent)]
    Io(#[from] BlockIoError),
}

impl<B: Storage + ?Sized> BlockService<B> {
    /// Reads or writes `extent`; `slices` is room for the resolved segments.
    pub(super) fn transfer<'m>(
        &self,
        memory: &'m GuestMemoryMmap,
        direction: Direction,
        extent: Extent,
        segments: &[Segment],
        slices: &mut Vec<VolatileSlice<'m>>,
    ) -> Result<(), TransferError> {
        resolve(memory, segments, slices)?;
        let Extent { offset, len } = extent;
        let (operation, moved) = match direction {
            Direction::Read => (IoOperation::Read, self.storage.read_at(offset, slices)),
            Direction::Write => (IoOperation::Write, self.storage.write_at(offset, slices)),
        };
        self.noted(operation, (offset, len.into()), moved)?;
        Ok(())
    }

    /// Makes what was written stable, as far as the storage does that at all.
    pub(super) fn flush(&self) -> Result<(), BlockIoError> {
        self.noted(IoOperation::Flush, (0, 0), self.storage.flush())
    }

    /// What came of `operation` on so many bytes from an offset up. It makes good what has failed
    /// there before; an error is for the caller to add, who may have another try at it.
    pub(super) fn noted(
        &self,
        operation: IoOperation,
        (offset, len): (u64, u64),
        outcome: io::Result<()>,
    ) -> Result<(), BlockIoError> {
        match outcome {
            Ok(()) => {
                self.failures.make_good(operation, offset, len);
                Ok(())
            }
            Err(source) => Err(BlockIoError {
                operation,
                offset,
                len,
                source,
            }),
        }
    }

    /// Writes as much of the id as there is room for and returns how much that is.
    pub(super) fn write_id(
        &self,
        memory: &GuestMemoryMmap,
        segments: &[Segment],
    ) -> Result<u32, GuestMemoryError> {
        let mut rest = self.id.as_slice();
        let mut written = 0;
        for segment in segments {
            let (part, behind) = rest.split_at(rest.len().min(segment.len as usize));
            memory.write_slice(part, segment.address)?;
            written += u32::try_from(part.len()).unwrap_or_default();
            rest = behind;
        }
        Ok(written)
    }
}

/// Which way an operation moves data, and to or from which part of the disk. `None` for one that
/// moves none.
pub(super) fn transfer_of(operation: Operation) -> Option<(Direction, Extent)> {
    match operation {
        Operation::Read(extent) => Some((Direction::Read, extent)),
        Operation::Write(extent) => Some((Direction::Write, extent)),
        Operation::Zeroes(_) | Operation::Flush | Operation::GetId | Operation::Refuse(_) => None,
    }
}

/// Finds `segments` in memory; neighbours in the guest become one slice.
fn resolve<'m>(
    memory: &'m GuestMemoryMmap,
    segments: &[Segment],
    slices: &mut Vec<VolatileSlice<'m>>,
) -> Result<(), GuestMemoryError> {
    slices.clear();
    let mut segments = segments.iter().copied().peekable();
    while let Some(Segment { address, len }) = segments.next() {
        let mut len = u64::from(len);
        while let Some(next) =
            segments.next_if(|next| address.0.checked_add(len) == Some(next.address.0))
        {
            len += u64::from(next.len);
        }
        let len = usize::try_from(len).map_err(|_| GuestMemoryError::GuestAddressOverflow)?;
        for slice in memory.get_slices(address, len) {
            slices.push(slice?);
        }
    }
    Ok(())
}
