//! Opens what is read: looked at first, since to open a FIFO waits for a writer and to open a
//! device can have effects of its own; then opened like any reader does it, so that another
//! process's lease on the file is waited for (open(2) O_PATH, fcntl(2) "Leases").

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::PollFlags;
use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fcntl_setfl};
use rustix::io::Errno;

use super::device;
use super::error::{Action, FileError, Role};
use super::identity::{Identity, Known};
use super::system::{fstat, open, openat, pread};
use crate::ready::is_ready;

const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NOCTTY);

/// A file that is open for reading.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) fd: OwnedFd,
    pub(super) stat: Stat,
    /// In bytes.
    pub(super) length: u64,
}

/// Opens the regular file or block device at `path`.
pub(super) fn open_to_read(role: Role, path: &Path) -> Result<Opened, FileError> {
    let failed = |errno| open_failed(role, path, errno);
    let handle = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    let found = fstat(&handle).map_err(failed)?;
    check_kind(role, path, &found)?;
    let fd = match openat(CWD, &descriptor_path(&handle), READ, Mode::empty()) {
        // Without /proc the path has to serve.
        Err(Errno::NOENT) => open_path(path).map_err(failed)?,
        opened => opened.map_err(failed)?,
    };
    let stat = fstat(&fd).map_err(failed)?;
    if Identity::of(&stat) != Identity::of(&found) {
        let path = path.into();
        return Err(FileError::Replaced { role, path });
    }
    let length = length(role, path, &fd, &stat)?;
    Ok(Opened { fd, stat, length })
}

/// Opens a path that was a regular file or a block device a moment ago.
fn open_path(path: &Path) -> Result<OwnedFd, Errno> {
    // O_NONBLOCK, in case it has become a FIFO since.
    match open(path, READ | OFlags::NONBLOCK, Mode::empty()) {
        Ok(fd) => {
            fcntl_setfl(&fd, OFlags::empty())?;
            Ok(fd)
        }
        // Only a lease causes this error. Its holder has been asked to give it up.
        Err(Errno::AGAIN) => open(path, READ, Mode::empty()),
        Err(errno) => Err(errno),
    }
}

/// The path by which the kernel opens the very file of a descriptor again.
pub(super) fn descriptor_path(file: impl AsFd) -> String {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd())
}

pub(super) fn open_failed(role: Role, path: &Path, source: impl Into<io::Error>) -> FileError {
    FileError::failed(role, path, Action::Open, source)
}

fn check_kind(role: Role, path: &Path, stat: &Stat) -> Result<(), FileError> {
    let found = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile | FileType::BlockDevice => return Ok(()),
        other => kind_name(other),
    };
    Err(FileError::Kind {
        role,
        path: path.into(),
        found,
    })
}

/// What a file of this kind is called, with its article.
pub(super) fn kind_name(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "a regular file",
        FileType::BlockDevice => "a block device",
        FileType::Directory => "a directory",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice => "a character device",
        _ => "of an unknown kind",
    }
}

/// The length of an open regular file or block device in bytes. Some systems make up the length of
/// a file whose content they make when it is read: 0 (/proc), or a page (/sys).
fn length(role: Role, path: &Path, fd: &OwnedFd, stat: &Stat) -> Result<u64, FileError> {
    let failed = |offset, errno| FileError::failed(role, path, Action::Read { offset }, errno);
    if FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice {
        return device::size(fd).map_err(|source| open_failed(role, path, source));
    }
    let length = u64::try_from(stat.st_size).unwrap_or(0);
    let mut byte = [0_u8; 1];
    if length == 0 {
        // A log of the kernel's is a regular file that a read waits for.
        let waits = is_ready(fd, PollFlags::IN) == Ok(false);
        if waits || pread(fd, &mut byte, 0).map_err(|errno| failed(0, errno))? > 0 {
            let path = path.into();
            return Err(FileError::NoLength { role, path });
        }
    } else if stat.st_blocks == 0 {
        // It takes no room: it is all hole, or very small, or has no content of its own. To look
        // costs nothing in the first two cases.
        let last = length - 1;
        if pread(fd, &mut byte, last).map_err(|errno| failed(last, errno))? == 0 {
            let path = path.into();
            return Err(FileError::MadeUpLength { role, path, length });
        }
    }
    Ok(length)
}

/// A guest's image, open for reading.
#[derive(Debug)]
pub struct ImageFile {
    path: PathBuf,
    file: File,
    stat: Stat,
}

/// Opens a guest's image: a regular file or a block device, as for the input.
///
/// # Errors
///
/// It is missing, unreadable, or something else, such as a FIFO, that would have to be waited for.
pub fn open_image(path: &Path) -> Result<ImageFile, FileError> {
    let opened = open_to_read(Role::Guest, path)?;
    Ok(ImageFile {
        path: path.into(),
        file: opened.fd.into(),
        stat: opened.stat,
    })
}

impl ImageFile {
    /// The path as the user gave it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file, to read from its start.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// What must not be written.
    #[must_use]
    pub fn known(&self) -> Known<'_> {
        Known {
            role: Role::Guest,
            path: &self.path,
            identity: Some(Identity::of(&self.stat)),
            entry: None,
        }
    }
}
