//! Where something that is written goes: looks at what its path names and refuses what cannot
//! work, all before anything is touched. A file has a `place`; a device is opened (open(2)).

use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use super::device;
use super::error::{FileError, Role};
use super::identity::{Identity, Known};
use super::open::{kind_name, open_failed};
use super::place::{Place, find_place};
use super::system::{open, seek, statat};

/// What the path of something that is written stands for.
#[derive(Debug)]
pub(super) enum Target {
    /// A regular file, there or not, that is made anew and put in place.
    File(Box<Place>),
    /// A device, open for reading and writing, that is written in place.
    Device(OwnedFd),
}

/// Finds out what `path` stands for, which must be none of `others`. A block device must have room
/// for `needed` bytes, and must not be in use unless that is forced.
pub(super) fn find(
    role: Role,
    path: &Path,
    others: &[Known<'_>],
    needed: u64,
    force: bool,
) -> Result<Target, FileError> {
    let existing = match statat(CWD, path, AtFlags::empty()) {
        Ok(stat) => Some(stat),
        Err(Errno::NOENT) => None,
        Err(errno) => return Err(open_failed(role, path, errno)),
    };
    let found = Known {
        role,
        path,
        identity: existing.as_ref().map(Identity::of),
        entry: None,
    };
    for other in others {
        found.check_against(other)?;
    }
    let kind = existing
        .as_ref()
        .map(|stat| FileType::from_raw_mode(stat.st_mode));
    match kind {
        None | Some(FileType::RegularFile) => {
            find_place(role, path, existing).map(|place| Target::File(Box::new(place)))
        }
        Some(FileType::BlockDevice) if role == Role::Output => {
            open_block_device(role, path, needed, force).map(Target::Device)
        }
        Some(FileType::CharacterDevice) => open_character_device(role, path).map(Target::Device),
        Some(other) => Err(wrong_kind(role, path, kind_name(other))),
    }
}

fn open_block_device(
    role: Role,
    path: &Path,
    needed: u64,
    force: bool,
) -> Result<OwnedFd, FileError> {
    // O_EXCL refuses a device that is mounted or in use otherwise.
    let exclusive = if force { OFlags::empty() } else { OFlags::EXCL };
    let flags = OFlags::RDWR | exclusive | OFlags::CLOEXEC;
    let device =
        open(path, flags, Mode::empty()).map_err(|errno| open_failed(role, path, errno))?;
    let size = device::size(&device).map_err(|source| FileError::Open {
        role,
        path: path.into(),
        source,
    })?;
    if size < needed {
        return Err(FileError::TooSmall {
            path: path.into(),
            size,
            needed,
        });
    }
    Ok(device)
}

fn open_character_device(role: Role, path: &Path) -> Result<OwnedFd, FileError> {
    // O_NONBLOCK, since opening a serial line waits for a carrier without it.
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let device =
        open(path, flags, Mode::empty()).map_err(|errno| open_failed(role, path, errno))?;
    let device = File::from(device);
    if device.is_terminal() {
        return Err(wrong_kind(role, path, "a terminal"));
    }
    match seek(&device, SeekFrom::Current(0)) {
        Ok(_) => Ok(device.into()),
        Err(_) => Err(wrong_kind(role, path, "a device without offsets")),
    }
}

pub(super) fn wrong_kind(role: Role, path: &Path, found: &'static str) -> FileError {
    FileError::Kind {
        role,
        path: path.into(),
        found,
    }
}
