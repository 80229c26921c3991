//! The file that is copied. It is opened once and read up to the length that it had then; its last
//! sector is filled with zeros. A file that loses bytes during the copy is an error, one that
//! gains some a warning: neither is silently copied wrong.
//!
//! System calls after [`InputFile::open`]: `preadv` for the disk, `fstat`, `lseek` and `pread` for
//! [`InputFile::check_unchanged`], `ioctl`, `fstatfs`, `fsync` and `lseek` for [`InputFile::holes`], and
//! `fstat`, `lseek`, `fsync` and `pread` for [`InputFile::check_holes`].

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use guest_protocol::DataList;
use rustix::fs::{FileType, OFlags, Stat};
use rustix::io::Errno;
use vm_memory::VolatileSlice;

use super::delayed::may_miss_delayed;
use super::descriptor::Descriptor;
use super::device;
use super::error::{Action, ChangedError, FileError, Role};
use super::extents::{Holes, ListBounds, LookError, data_in_holes, find_holes, has_hole};
use super::identity::{Identity, Known};
use super::open::open_to_read;
use super::sync::{Synced, sync_all};
use super::system::{fstat, pread};
use super::vectored::Partial;
use super::zeros;
use crate::quote::quote_path;
use crate::storage::{Cancel, Storage};

/// The input of a copy, open for reading.
#[derive(Debug)]
pub struct InputFile {
    /// What it is to the run.
    role: Role,
    path: PathBuf,
    file: Descriptor,
    stat: Stat,
    length: u64,
    /// Bytes behind the end that reads have filled with zeros.
    filled: AtomicU64,
    /// Whether it is written back before it is asked for data where holes were.
    written_back: AtomicBool,
}

impl InputFile {
    /// Opens the regular file or block device at `path`; with `direct`, past the page cache where
    /// the file system allows it.
    ///
    /// # Errors
    ///
    /// The file is missing, unreadable, or neither a regular file nor a block device; or the system
    /// makes up its length.
    pub fn open(path: &Path, direct: bool) -> Result<Self, FileError> {
        Self::open_as(Role::Input, path, direct, Cancel::new())
    }

    /// As [`open`](Self::open), for a file that has what this one lacks. Both are given up together.
    ///
    /// # Errors
    ///
    /// As for `open`.
    pub fn open_backing(&self, path: &Path, direct: bool) -> Result<Self, FileError> {
        Self::open_as(Role::Backing, path, direct, self.cancel().clone())
    }

    fn open_as(role: Role, path: &Path, direct: bool, cancel: Cancel) -> Result<Self, FileError> {
        let opened = open_to_read(role, path)?;
        let file = Descriptor::new(opened.fd, direct, OFlags::RDONLY, cancel);
        Ok(Self {
            role,
            path: path.into(),
            file,
            stat: opened.stat,
            length: opened.length,
            filled: AtomicU64::new(0),
            written_back: AtomicBool::new(false),
        })
    }

    /// The path as the user gave it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The length in bytes that the file had when it was opened.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.length
    }

    /// The bytes that the file occupied when it was opened, as the file system counts them; 0 for a
    /// block device.
    #[must_use]
    pub fn allocated(&self) -> u64 {
        // The unit of st_blocks is 512 bytes on Linux, whatever the block size is (stat(2)).
        u64::try_from(self.stat.st_blocks)
            .unwrap_or(0)
            .saturating_mul(512)
    }

    /// How many bytes reads have got so far that lie behind the end, in the last sector.
    #[must_use]
    pub fn filled(&self) -> u64 {
        self.filled.load(Ordering::Relaxed)
    }

    /// Whether there is nothing to copy.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Lines for the user: what was asked for and is not so.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let note = self.file.note();
        note.map(|note| format!("{} {}: {note}", self.role, quote_path(&self.path)))
            .into_iter()
            .collect()
    }

    /// Looks whether the file is still what it was when it was opened; returns a warning for the
    /// user if it is not. To be called when the copy is complete.
    #[must_use]
    pub fn check_unchanged(&self) -> Option<String> {
        let (role, path) = (self.role, quote_path(&self.path));
        let (now, after) = match self.look_again() {
            Ok(found) => found,
            Err(error) => return Some(error.to_string()),
        };
        let before = self.length;
        if after > before {
            return Some(format!(
                "the {role} {path} has grown from {before} to {after} bytes during the copy; \
                 the copy ends at {before}"
            ));
        }
        if after < before {
            return Some(format!(
                "the {role} {path} has shrunk from {before} to {after} bytes after it was copied"
            ));
        }
        // That of a device is its node's, which says nothing of what the device holds.
        if FileType::from_raw_mode(now.st_mode) != FileType::RegularFile {
            return None;
        }
        // A file system on a network may not know yet how long it is, or tell it wrong.
        if matches!(pread(&self.file, &mut [0], before), Ok(1)) {
            return Some(format!(
                "the {role} {path} has more than the {before} bytes that its file system says; the copy \
                 ends at {before}"
            ));
        }
        let modified = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec);
        (modified(&self.stat) != modified(&now)).then(|| {
            format!(
                "the {role} {path} was written to during the copy; the copy may mix old and new"
            )
        })
    }

    /// What the system says of the file now, and how many bytes it has.
    fn look_again(&self) -> Result<(Stat, u64), FileError> {
        let failed = |errno: Errno| self.failed(Action::LookAgain, errno);
        let now = fstat(&self.file).map_err(failed)?;
        let length = match FileType::from_raw_mode(now.st_mode) {
            FileType::RegularFile => u64::try_from(now.st_size).unwrap_or(0),
            _ => device::size_now(&self.file).map_err(failed)?,
        };
        Ok((now, length))
    }

    /// The smallest that it transfers past the page cache, in bytes, if it is a block device. To be
    /// asked before the copy begins.
    #[must_use]
    pub fn block_size(&self) -> Option<u32> {
        device::block_size(&self.file)
    }

    /// Where it may have data, in a list within `bounds`. To be asked before the copy begins.
    #[must_use]
    pub fn holes(&self, bounds: ListBounds) -> Holes {
        match FileType::from_raw_mode(self.stat.st_mode) {
            FileType::RegularFile => self.holes_in_file(bounds),
            // A block device does not tell.
            _ => Holes {
                list: DataList::everything(),
                coarse: false,
            },
        }
    }

    fn holes_in_file(&self, bounds: ListBounds) -> Holes {
        let file = self.file.as_fd();
        if may_miss_delayed(file, &self.stat) && has_hole(file, self.length) {
            let Ok(Synced::Yes) = self.write_back() else {
                // What is told of as a hole may be data.
                return Holes {
                    list: DataList::everything(),
                    coarse: true,
                };
            };
            self.written_back.store(true, Ordering::Relaxed);
        }
        find_holes(file, self.length, bounds)
    }

    /// The run that the reads belong to. Once it is cancelled, a read that is interrupted ends with an
    /// error of kind [`Interrupted`](io::ErrorKind::Interrupted).
    #[must_use]
    pub fn cancel(&self) -> &Cancel {
        self.file.cancel()
    }

    /// Gives all data that was written to the file its place, so that no hole is told of there.
    fn write_back(&self) -> io::Result<Synced> {
        sync_all(&self.file, self.cancel())
    }

    /// Looks whether what was taken for a hole still is one, as `list` says. To be called when the
    /// copy is complete. `otherwise` is what the user can do else, as the end of a sentence. There may
    /// be many holes, on a file system that answers slowly: `each` is called before each step.
    ///
    /// # Errors
    ///
    /// There is data in one, or one is no longer part of the file: the copy has zeros in its place. Or
    /// `each` has ended the look.
    pub fn check_holes<E: From<FileError>>(
        &self,
        list: &DataList<'_>,
        otherwise: &'static str,
        each: impl FnMut() -> Result<(), E>,
    ) -> Result<(), E> {
        if self.written_back.load(Ordering::Relaxed) {
            // What has been written since can be missed as what was written before.
            self.write_back()
                .map_err(|source| self.failed(Action::Store, source))?;
        }
        let looked = data_in_holes(self.file.as_fd(), self.length, list, each);
        let data = looked.map_err(|error| match error {
            LookError::System { offset, source } => {
                self.failed(Action::Read { offset }, source).into()
            }
            LookError::Ended(why) => why,
        })?;
        if let Some(offset) = data {
            let error = ChangedError::HoleFilled {
                role: self.role,
                path: self.path.clone(),
                offset,
                otherwise,
            };
            return Err(FileError::from(error).into());
        }
        let (_, length) = self.look_again()?;
        if list.holes(self.length).any(|hole| hole.end > length) {
            return Err(FileError::from(self.shrank(length)).into());
        }
        Ok(())
    }

    /// What must not be written.
    #[must_use]
    pub fn known(&self) -> Known<'_> {
        Known {
            role: self.role,
            path: &self.path,
            identity: Some(Identity::of(&self.stat)),
            entry: None,
        }
    }

    fn read_failed(&self, offset: u64, partial: Partial) -> io::Error {
        let offset = offset.saturating_add(partial.done);
        let error = match partial.source.kind() {
            io::ErrorKind::UnexpectedEof => self.shrank(offset).into(),
            _ => self.failed(Action::Read { offset }, partial.source),
        };
        error.into()
    }

    /// The error of something that the system has not done with this file.
    fn failed(&self, action: Action, source: impl Into<io::Error>) -> FileError {
        FileError::failed(self.role, &self.path, action, source)
    }

    /// The error of a file of which the byte at `offset` is no longer there.
    fn shrank(&self, offset: u64) -> ChangedError {
        ChangedError::Shrank {
            role: self.role,
            path: self.path.clone(),
            offset,
            length: self.length,
        }
    }
}

impl Storage for InputFile {
    fn read_at(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        let stored = zeros::clip(offset, buffers, self.length);
        self.file
            .read(offset, buffers, stored)
            .map_err(|partial| self.read_failed(offset, partial))?;
        let filled = zeros::fill(buffers, stored);
        if filled > 0 {
            self.filled.fetch_add(filled, Ordering::Relaxed);
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, _buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        Err(FileError::InputWrite {
            path: self.path.clone(),
            offset,
        }
        .into())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
