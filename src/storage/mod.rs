//! What lies behind a disk: the floor below both the block device, which serves requests from it,
//! and the files that a run opens.

mod cancel;
mod memory;

use std::io;
use std::sync::Arc;

use vm_memory::VolatileSlice;

pub use cancel::Cancel;
pub use memory::MemoryStorage;

/// Storage that a block device reads and writes.
///
/// Offsets and lengths are in bytes and always multiples of the device's sector size; the device
/// has checked that they lie within the capacity. It answers for the whole transfer: a
/// short read or write is its own to continue.
pub trait Storage: Send + Sync {
    /// Fills `buffers`, one after the other, with the bytes from `offset` up.
    ///
    /// # Errors
    ///
    /// The host's reason why not all of it could be read.
    fn read_at(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()>;

    /// Stores the bytes of `buffers`, one after the other, from `offset` up.
    ///
    /// # Errors
    ///
    /// The host's reason why not all of it could be written.
    fn write_at(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()>;

    /// Makes the `length` bytes from `offset` up read as zeros. With `unmap` they need not take room
    /// any more; without, they keep what they have or get it, so that a later write finds it.
    ///
    /// # Errors
    ///
    /// The host's reason why not all of it could be done; of kind
    /// [`Unsupported`](io::ErrorKind::Unsupported) if this storage takes zeros only as data.
    fn write_zeroes(&self, _offset: u64, _length: u64, _unmap: bool) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Takes note that nobody needs what is stored in the `length` bytes from `offset` up. What they
    /// read as is not said.
    ///
    /// # Errors
    ///
    /// As for [`write_zeroes`](Self::write_zeroes).
    fn discard(&self, _offset: u64, _length: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Makes what was written durable, as far as the user asked for it.
    ///
    /// # Errors
    ///
    /// The host's reason why it could not be done.
    fn flush(&self) -> io::Result<()>;
}

/// Storage that someone else looks at as well.
impl<B: Storage> Storage for Arc<B> {
    fn read_at(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        self.as_ref().read_at(offset, buffers)
    }

    fn write_at(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        self.as_ref().write_at(offset, buffers)
    }

    fn write_zeroes(&self, offset: u64, length: u64, unmap: bool) -> io::Result<()> {
        self.as_ref().write_zeroes(offset, length, unmap)
    }

    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.as_ref().discard(offset, length)
    }

    fn flush(&self) -> io::Result<()> {
        self.as_ref().flush()
    }
}
