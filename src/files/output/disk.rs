//! The output as what a disk stores: reads, writes and the flush, while the copy is under way.

use std::io;
use std::sync::atomic::Ordering;

use vm_memory::VolatileSlice;

use super::seal::Writing;
use super::{OutputFile, lock};
use crate::files::error::{Action, FileError, Role};
use crate::files::sync::{Synced, sync_data};
use crate::files::zeros;
use crate::storage::Storage;

impl Storage for OutputFile {
    fn read_at(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        let stored = zeros::clip(offset, buffers, self.length());
        let read = match self.file.read(offset, buffers, stored) {
            Ok(()) => stored,
            // Not written yet: the file ends before the disk does.
            Err(partial) if partial.source.kind() == io::ErrorKind::UnexpectedEof => partial.done,
            Err(partial) => {
                let offset = offset.saturating_add(partial.done);
                return Err(self.failed(Action::Read { offset }, partial.source).into());
            }
        };
        zeros::fill(buffers, read);
        Ok(())
    }

    fn write_at(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        let _writing = self.begin_write(offset)?;
        let stored = zeros::clip(offset, buffers, self.length());
        let written = self.file.write(offset, buffers, stored);
        let done = written
            .as_ref()
            .map_or_else(|partial| partial.done, |()| stored);
        let end = offset.saturating_add(done);
        self.record(offset, end);
        written.map_err(|partial| {
            self.torn.store(true, Ordering::SeqCst);
            self.write_failed(end, partial.source)
        })
    }

    fn write_zeroes(&self, offset: u64, length: u64, unmap: bool) -> io::Result<()> {
        self.zero_part(offset, length, unmap)
    }

    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.free_part(offset, length)
    }

    fn flush(&self) -> io::Result<()> {
        if !self.fsync {
            return Ok(());
        }
        match sync_data(&self.file, self.file.cancel()) {
            // What the file system does not offer is told when the copy is in place.
            Ok(Synced::Yes | Synced::Unsupported) => Ok(()),
            Err(source) => Err(self.failed(Action::Store, source).into()),
        }
    }
}

impl OutputFile {
    /// Begins a write at `offset`, unless the output is sealed.
    pub(super) fn begin_write(&self, offset: u64) -> Result<Writing<'_>, FileError> {
        self.seal.begin_write().ok_or_else(|| FileError::Sealed {
            role: Role::Output,
            path: self.path.clone(),
            offset,
        })
    }

    /// The error of a write that failed at `offset`.
    pub(super) fn write_failed(&self, offset: u64, source: io::Error) -> io::Error {
        let is_device = self.staging.is_none();
        self.failed(Action::Write { offset, is_device }, source)
            .into()
    }

    /// Remembers that a part has been written or made zero.
    pub(super) fn record(&self, start: u64, end: u64) {
        let mut coverage = lock(&self.coverage);
        coverage.add(start, end);
        self.covered.store(coverage.covered(), Ordering::Relaxed);
    }

    /// Remembers that a part is not to be kept.
    pub(super) fn forget(&self, start: u64, end: u64) {
        let mut coverage = lock(&self.coverage);
        coverage.remove(start, end);
        self.covered.store(coverage.covered(), Ordering::Relaxed);
    }
}
