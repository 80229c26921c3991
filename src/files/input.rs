//! The file that is copied. It is opened once and read up to the length that it had then; its last
//! sector is filled with zeros. A file that loses bytes during the copy is an error, one that
//! gains some a warning: neither is silently copied wrong.
//!
//! System calls after [`InputFile::open`]: `preadv` for the disk, `fstat` for
//! [`InputFile::check_unchanged`].

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, SeekFrom, Stat, fcntl_setfl, fstat, open, seek, statat,
};
use vm_memory::VolatileSlice;

use super::descriptor::Descriptor;
use super::error::{FileError, Role};
use super::vectored::Partial;
use super::zeros;
use crate::storage::Storage;

/// The input of a copy, open for reading.
#[derive(Debug)]
pub struct InputFile {
    path: PathBuf,
    file: Descriptor,
    stat: Stat,
    length: u64,
}

impl InputFile {
    /// Opens the regular file or block device at `path`; with `direct`, past the page cache where
    /// the file system allows it.
    ///
    /// # Errors
    ///
    /// The file is missing, unreadable, or neither a regular file nor a block device.
    pub fn open(path: &Path, direct: bool) -> Result<Self, FileError> {
        let failed = |errno: rustix::io::Errno| FileError::Open {
            role: Role::Input,
            path: path.into(),
            source: errno.into(),
        };
        // Looked at before it is opened: to open a FIFO or a device can have effects of its own.
        check_kind(path, &statat(CWD, path, AtFlags::empty()).map_err(failed)?)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
        // O_NONBLOCK, in case it has become a FIFO since: to open one would wait for a writer.
        let fd = open(path, flags | OFlags::NONBLOCK, Mode::empty()).map_err(failed)?;
        let stat = fstat(&fd).map_err(failed)?;
        check_kind(path, &stat)?;
        fcntl_setfl(&fd, OFlags::empty()).map_err(failed)?;
        let length = length(path, &fd, &stat)?;
        let file = Descriptor::new(fd, direct, OFlags::RDONLY);
        Ok(Self {
            path: path.into(),
            file,
            stat,
            length,
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

    /// Whether there is nothing to copy.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Lines for the user: what was asked for and is not so.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let note = self.file.note();
        note.map(|note| format!("input {}: {note}", self.path.display()))
            .into_iter()
            .collect()
    }

    /// Looks whether the file is still what it was when it was opened; returns a warning for the
    /// user if it is not. To be called when the copy is complete.
    #[must_use]
    pub fn check_unchanged(&self) -> Option<String> {
        let path = self.path.display();
        let now = match fstat(&self.file) {
            Ok(now) => now,
            Err(errno) => return Some(format!("cannot look at the input {path} again: {errno}")),
        };
        if FileType::from_raw_mode(now.st_mode) != FileType::RegularFile {
            return None;
        }
        let (before, after) = (self.length, u64::try_from(now.st_size).unwrap_or(0));
        if after > before {
            return Some(format!(
                "the input {path} has grown from {before} to {after} bytes during the copy; \
                 the copy ends at {before}"
            ));
        }
        if after < before {
            return Some(format!(
                "the input {path} has shrunk from {before} to {after} bytes after it was copied"
            ));
        }
        let modified = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec);
        (modified(&self.stat) != modified(&now)).then(|| {
            format!("the input {path} was written to during the copy; the copy may mix old and new")
        })
    }

    /// Whether `other` is this very file, under whatever name.
    pub(super) fn is(&self, other: &Stat) -> bool {
        let same_file = (self.stat.st_dev, self.stat.st_ino) == (other.st_dev, other.st_ino);
        // One device may have several nodes.
        let is_device =
            |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice;
        let same_device =
            is_device(&self.stat) && is_device(other) && self.stat.st_rdev == other.st_rdev;
        same_file || same_device
    }

    fn read_failed(&self, offset: u64, partial: Partial) -> io::Error {
        let (path, offset) = (self.path.clone(), offset.saturating_add(partial.done));
        if partial.source.kind() == io::ErrorKind::UnexpectedEof {
            FileError::Shrank {
                path,
                offset,
                length: self.length,
            }
            .into()
        } else {
            FileError::Read {
                role: Role::Input,
                path,
                offset,
                source: partial.source,
            }
            .into()
        }
    }
}

impl Storage for InputFile {
    fn read_at(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        let stored = zeros::clip(offset, buffers, self.length);
        self.file
            .read(offset, buffers, stored)
            .map_err(|partial| self.read_failed(offset, partial))?;
        zeros::fill(buffers, stored);
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

fn check_kind(path: &Path, stat: &Stat) -> Result<(), FileError> {
    let found = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile | FileType::BlockDevice => return Ok(()),
        FileType::Directory => "a directory",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice => "a character device",
        _ => "of an unknown kind",
    };
    Err(FileError::Kind {
        role: Role::Input,
        path: path.into(),
        found,
    })
}

/// The length of an open regular file or block device in bytes.
fn length(path: &Path, fd: &OwnedFd, stat: &Stat) -> Result<u64, FileError> {
    let failed = |errno: rustix::io::Errno| FileError::Read {
        role: Role::Input,
        path: path.into(),
        offset: 0,
        source: errno.into(),
    };
    if FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice {
        return seek(fd.as_fd(), SeekFrom::End(0)).map_err(failed);
    }
    let length = u64::try_from(stat.st_size).unwrap_or(0);
    let mut first = [0_u8; 1];
    if length == 0 && rustix::io::pread(fd, &mut first, 0).map_err(failed)? > 0 {
        return Err(FileError::NoLength { path: path.into() });
    }
    Ok(length)
}

#[cfg(test)]
mod tests;
