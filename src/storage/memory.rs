//! A disk in the host's memory, for tests, fuzzing and experiments without files. It follows the
//! contract of [`Storage`] to the letter and does no more.

use std::io;
use std::sync::Mutex;

use vm_memory::VolatileSlice;

use super::Storage;
use crate::lock::lock;

/// Storage that ends with the process.
#[derive(Debug)]
pub struct MemoryStorage {
    bytes: Mutex<Vec<u8>>,
}

impl MemoryStorage {
    /// A disk that holds `bytes`; their number is its size.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes: Mutex::new(bytes),
        }
    }

    /// A copy of what the disk holds.
    #[must_use]
    pub fn contents(&self) -> Vec<u8> {
        lock(&self.bytes).clone()
    }

    /// Calls `copy` with each buffer and the part of the disk that belongs to it.
    fn each(
        &self,
        offset: u64,
        buffers: &[VolatileSlice<'_>],
        copy: impl Fn(&VolatileSlice<'_>, &mut [u8]),
    ) -> io::Result<()> {
        let mut bytes = lock(&self.bytes);
        let mut rest = usize::try_from(offset)
            .ok()
            .and_then(|offset| bytes.get_mut(offset..))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        for buffer in buffers {
            let (part, behind) = rest
                .split_at_mut_checked(buffer.len())
                .ok_or(io::ErrorKind::UnexpectedEof)?;
            copy(buffer, part);
            rest = behind;
        }
        Ok(())
    }
}

impl Storage for MemoryStorage {
    fn read_at(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        self.each(offset, buffers, |buffer, part| buffer.copy_from(part))
    }

    fn write_at(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        self.each(offset, buffers, |buffer, part| {
            buffer.copy_to(part);
        })
    }

    fn write_zeroes(&self, offset: u64, length: u64, _unmap: bool) -> io::Result<()> {
        let mut bytes = lock(&self.bytes);
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let part = bytes
            .get_mut(offset..)
            .and_then(|rest| rest.get_mut(..length))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        part.fill(0);
        Ok(())
    }

    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.write_zeroes(offset, length, true)
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}
