//! Where data moves between a disk's storage and guest memory, without a copy in between.

use std::fmt;
use std::io;

use thiserror::Error;
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
    /// Making what was written durable.
    Flush,
}

impl fmt::Display for IoOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
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

/// Why data did not move.
#[derive(Debug, Error)]
pub(super) enum TransferError {
    #[error("the data is not within guest memory: {0}")]
    Memory(#[from] GuestMemoryError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl<B: Storage> BlockService<B> {
    /// Reads or writes `extent` as `operation` says; `slices` is room for the resolved segments.
    pub(super) fn transfer<'m>(
        &self,
        memory: &'m GuestMemoryMmap,
        operation: IoOperation,
        extent: Extent,
        segments: &[Segment],
        slices: &mut Vec<VolatileSlice<'m>>,
    ) -> Result<(), TransferError> {
        resolve(memory, segments, slices)?;
        match operation {
            IoOperation::Read => self.storage.read_at(extent.offset, slices)?,
            IoOperation::Write => self.storage.write_at(extent.offset, slices)?,
            IoOperation::Flush => self.storage.flush()?,
        }
        Ok(())
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

/// How an operation that goes to the storage is named there, and which part of the disk it is
/// about. `None` for one that does not go there.
pub(super) fn transfer_of(operation: Operation) -> Option<(IoOperation, Extent)> {
    match operation {
        Operation::Read(extent) => Some((IoOperation::Read, extent)),
        Operation::Write(extent) => Some((IoOperation::Write, extent)),
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
