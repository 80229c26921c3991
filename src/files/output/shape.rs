//! The shape of the output: how long it is to be, and which parts of it are zeros that were never
//! written.

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;

use rustix::fs::{FileType, FsWord, SeekFrom};
use rustix::io::{Errno, write};

use super::{OutputFile, lock};
use crate::files::descriptor::Descriptor;
use crate::files::device;
use crate::files::error::{Action, FileError};
use crate::files::sync::is_unsupported;
use crate::files::system::{fstat, fstatfs, ftruncate, seek};
use crate::files::zeroing::{free, make_zero};

impl OutputFile {
    /// How long the output is to be, in bytes: as long as the input, or what was
    /// [declared](Self::declare_length) of one that is open-ended.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length.load(Ordering::SeqCst)
    }

    /// Refuses a length that the user, or the device, does not allow.
    pub(super) fn check_length(&self, length: u64) -> Result<(), FileError> {
        match self.room {
            Some(size) if length > size => Err(FileError::TooSmall {
                path: self.path.clone(),
                size,
                needed: length,
            }),
            _ => check_length(&self.path, length, self.most),
        }
    }

    /// Makes a new file `length` bytes long that is not so long yet, if its file system takes that for a
    /// hole. XFS takes room behind the end of a file that grows, and keeps what has become a part of the
    /// file, so that a file that grows over its holes has room in them. So this is best done before
    /// anything is written. A file system that makes no file longer by itself is left to do so by writes.
    ///
    /// # Errors
    ///
    /// Such a length is not possible there.
    pub fn expect_length(&self, length: u64) -> Result<(), FileError> {
        if self.staging.is_none() || self.fills_holes || length > self.most {
            return Ok(());
        }
        match self.resize(length, |size| size < length) {
            Err(errno) if !grows_by_writes(errno) => {
                Err(self.failed(Action::Resize { length }, errno))
            }
            _ => Ok(()),
        }
    }

    /// Gives a new file its length: zeros at its end were never written. A device must still have it:
    /// to make zeros behind its end is no error (blkdev_fallocate() in Linux).
    pub(super) fn cut_to_length(&self) -> Result<(), FileError> {
        let length = self.length();
        match (&self.staging, self.room) {
            (Some(_), _) => match self.resize(length, |size| size != length) {
                Err(errno) if grows_by_writes(errno) => self
                    .write_to_length(length, errno)
                    .map_err(|source| self.failed(Action::Resize { length }, source)),
                resized => resized.map_err(|errno| self.failed(Action::Resize { length }, errno)),
            },
            (None, Some(_)) => self.check_size(length),
            (None, None) => Ok(()),
        }
    }

    /// Refuses a device that has become too small.
    fn check_size(&self, length: u64) -> Result<(), FileError> {
        let path = self.path.clone();
        match device::size_now(&self.file) {
            Ok(size) if size < length => Err(FileError::TooSmall {
                path,
                size,
                needed: length,
            }),
            Ok(_) => Ok(()),
            Err(errno) => Err(self.failed(Action::Resize { length }, errno)),
        }
    }

    /// Makes the file `length` bytes long if that is `wanted` of one with the size that it has.
    fn resize(&self, length: u64, wanted: impl Fn(u64) -> bool) -> Result<(), Errno> {
        match wanted(self.size()?) {
            true => ftruncate(&self.file, length),
            false => Ok(()),
        }
    }

    /// Writes the last byte of a file that is too short, which is a zero then, or fails with `why`. The
    /// sandbox lets this thread write at no place but the descriptor's own.
    fn write_to_length(&self, length: u64, why: Errno) -> io::Result<()> {
        if self.size()? >= length {
            return Err(why.into());
        }
        seek(&self.file, SeekFrom::Start(length - 1))?;
        let written = self.file.cancel().repeat(|| write(&self.file, &[0]))?;
        (written == 1).then_some(()).ok_or_else(|| why.into())
    }

    /// How long the file is, in bytes.
    fn size(&self) -> Result<u64, Errno> {
        Ok(fstat(&self.file)?.st_size.try_into().unwrap_or(0))
    }

    /// Makes a part of the output zero, as [`Storage::write_zeroes`](crate::storage::Storage::write_zeroes)
    /// says.
    pub(super) fn zero_part(&self, offset: u64, length: u64, unmap: bool) -> io::Result<()> {
        let _writing = self.begin_write(offset)?;
        let end = offset.saturating_add(length).min(self.length());
        if offset >= end {
            return Ok(());
        }
        // What a new file has never been given reads as zeros by itself. A write that failed may have
        // stored more than it has told.
        let untouched =
            || !self.torn.load(Ordering::SeqCst) && !lock(&self.coverage).overlaps(offset, end);
        let zeroed = if unmap && self.staging.is_some() && untouched() {
            Ok(())
        } else {
            make_zero(&self.file, offset, end, unmap)
        };
        let done = match &zeroed {
            Ok(()) => end,
            Err(partial) => offset + partial.done,
        };
        self.record(offset, done);
        zeroed.map_err(|partial| self.write_failed(done, partial.source))
    }

    /// Gives the room of a part back, as [`Storage::discard`](crate::storage::Storage::discard) says.
    pub(super) fn free_part(&self, offset: u64, length: u64) -> io::Result<()> {
        let _writing = self.begin_write(offset)?;
        let end = offset.saturating_add(length).min(self.length());
        if offset >= end {
            return Ok(());
        }
        // What is there then is nothing that the guest has written, whether room is given back or not.
        self.forget(offset, end);
        free(&self.file, offset, end)
            .map_err(|source| self.failed(Action::Discard { offset }, source).into())
    }
}

/// Whether a file system says with this that it makes no file longer but by writes: "does not support
/// extending a file beyond its current size" (truncate(2), EPERM), or each in its own way.
fn grows_by_writes(errno: Errno) -> bool {
    errno == Errno::PERM || is_unsupported(errno)
}

/// The file systems without holes that Linux can write, by the number that statfs(2) gives: MS-DOS,
/// exFAT, HFS, HFS+, AFFS, ADFS and HPFS. They write zeros wherever a file has grown.
const FILLING: [FsWord; 7] = [
    0x4d44,
    0x2011_bab0,
    0x4244,
    0x482b,
    0xadff,
    0xadf5,
    0xf995_e849,
];

/// Whether a file that grows costs as much as one that is written.
pub(super) fn fills_holes(file: &Descriptor) -> bool {
    fstatfs(file).is_ok_and(|answer| FILLING.contains(&answer.f_type))
}

/// Refuses a length that the user does not allow.
pub(super) fn check_length(path: &Path, length: u64, most: u64) -> Result<(), FileError> {
    if length <= most {
        return Ok(());
    }
    Err(FileError::TooLong {
        path: path.into(),
        length,
        most,
    })
}

/// The size of a block device, which cannot grow.
pub(super) fn room(file: &Descriptor) -> Option<u64> {
    let stat = fstat(file).ok()?;
    let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice;
    is_device.then(|| device::size(file).ok()).flatten()
}
