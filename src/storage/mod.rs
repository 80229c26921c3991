//! What lies behind a disk: the floor below both the block device, which serves requests from it,
//! and the files that a run opens.

mod cancel;
mod memory;

use std::io;

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

    /// Makes what was written durable, as far as the user asked for it. That is also all that a disk
    /// means by a stable write: storage for which nobody has asked that it be durable has nothing to do.
    ///
    /// # Errors
    ///
    /// The host's reason why it could not be done.
    fn flush(&self) -> io::Result<()>;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Storage that keeps nothing and takes no zeros without data.
    struct Plain;

    impl Storage for Plain {
        fn read_at(&self, _: u64, _: &[VolatileSlice<'_>]) -> io::Result<()> {
            Ok(())
        }

        fn write_at(&self, _: u64, _: &[VolatileSlice<'_>]) -> io::Result<()> {
            Ok(())
        }

        fn flush(&self) -> io::Result<()> {
            Err(io::Error::from_raw_os_error(libc::EIO))
        }
    }

    #[test]
    fn storage_that_does_not_say_otherwise_takes_zeros_only_as_data() {
        for refused in [Plain.write_zeroes(0, 512, true), Plain.discard(0, 512)] {
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::Unsupported);
        }
    }

    #[test]
    fn zeros_behind_the_end_of_a_disk_in_memory_are_an_error_and_change_nothing() {
        let disk = MemoryStorage::new(vec![7; 8]);
        for (offset, length) in [(8, 1), (7, 2), (0, 9), (u64::MAX, 1)] {
            assert!(disk.write_zeroes(offset, length, false).is_err());
        }
        assert_eq!(disk.contents(), [7; 8]);
    }
}
