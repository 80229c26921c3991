//! The parts of a block device that its requests need: memory, backend, interrupt and counters.
//! Data moves between the backend and guest memory here, without a copy in between.

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};

use thiserror::Error;
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryMmap, VolatileSlice,
};

use super::BlockStats;
use super::config::ID_BYTES;
use super::request::{Extent, Geometry, Operation, Segment, Status};
use crate::storage::Storage;
use crate::virtio::Interrupt;

/// What the device was doing when its backend failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoOperation {
    /// Reading from the backend.
    Read,
    /// Writing to the backend.
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
#[error("cannot {operation} {len} bytes at offset {offset}: {source}")]
pub struct BlockIoError {
    /// What was being done.
    pub operation: IoOperation,
    /// Where on the disk, in bytes; 0 for a flush.
    pub offset: u64,
    /// How many bytes; 0 for a flush.
    pub len: u32,
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

pub(super) struct Disk<B> {
    pub(super) backend: B,
    pub(super) memory: GuestMemoryMmap,
    pub(super) geometry: Geometry,
    pub(super) id: [u8; ID_BYTES],
    pub(super) interrupt: Interrupt,
    pub(super) stats: Arc<BlockStats>,
    /// The first error alone: a guest can cause as many as it likes.
    pub(super) io_error: OnceLock<BlockIoError>,
}

impl<B: Storage> Disk<B> {
    /// Reads or writes `extent` as `operation` says; `slices` is room for the resolved segments.
    pub(super) fn transfer<'m>(
        &'m self,
        operation: IoOperation,
        extent: Extent,
        segments: &[Segment],
        slices: &mut Vec<VolatileSlice<'m>>,
    ) -> Result<(), TransferError> {
        resolve(&self.memory, segments, slices)?;
        match operation {
            IoOperation::Read => self.backend.read_at(extent.offset, slices)?,
            IoOperation::Write => self.backend.write_at(extent.offset, slices)?,
            IoOperation::Flush => self.backend.flush()?,
        }
        Ok(())
    }

    /// Writes as much of the id as there is room for and returns how much that is.
    pub(super) fn write_id(&self, segments: &[Segment]) -> Result<u32, GuestMemoryError> {
        let mut rest = self.id.as_slice();
        let mut written = 0;
        for segment in segments {
            let (part, behind) = rest.split_at(rest.len().min(segment.len as usize));
            self.memory.write_slice(part, segment.address)?;
            written += u32::try_from(part.len()).unwrap_or_default();
            rest = behind;
        }
        Ok(written)
    }

    pub(super) fn write_status(
        &self,
        status: Status,
        address: GuestAddress,
    ) -> Result<(), GuestMemoryError> {
        self.memory.write_obj(status as u8, address)
    }

    /// Keeps the first error of the host for whoever reports it.
    pub(super) fn record(&self, operation: IoOperation, extent: Extent, source: io::Error) {
        let _ = self.io_error.set(BlockIoError {
            operation,
            offset: extent.offset,
            len: extent.len,
            source,
        });
    }
}

/// How an operation names itself to the backend, and where it goes; `None` if it does not go there.
pub(super) fn transfer_of(operation: Operation) -> Option<(IoOperation, Extent)> {
    match operation {
        Operation::Read(extent) => Some((IoOperation::Read, extent)),
        Operation::Write(extent) => Some((IoOperation::Write, extent)),
        Operation::Flush | Operation::GetId | Operation::Refuse(_) => None,
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
