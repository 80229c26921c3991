//! Where something that is written goes: looks at what its path names and refuses what cannot
//! work, all before anything is touched. A file has a `place`; a device is opened (open(2)).

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, major, minor};
use rustix::io::Errno;

use super::device;
use super::error::{FileError, Role};
use super::identity::{Identity, Known};
use super::in_use::is_in_use;
use super::open::{kind_name, open_failed};
use super::place::{Place, find_place};
use super::system::{fstat, open, statat};

/// Numbers of devices (Linux, Documentation/admin-guide/devices.txt): the major one of memory, and of
/// its minor ones those that throw away what is written.
const MEMORY: u32 = 1;
const NULL: u32 = 3;
const ZERO: u32 = 5;
const FULL: u32 = 7;
/// The major ones of terminals and serial lines, of consoles, and of pseudo-terminals.
const TTY: u32 = 4;
const CONSOLE: u32 = 5;
const FIRST_PTY: u32 = 128;
const LAST_PTY: u32 = 143;

/// What the path of something that is written stands for.
#[derive(Debug)]
pub(super) enum Target {
    /// A regular file, there or not, that is made anew and put in place.
    File(Box<Place>),
    /// A device, open for reading and writing, that is written in place.
    Device(OwnedFd),
}

/// How often a path is looked up while something else is put in its place each time.
const MOST_LOOKUPS: usize = 10;

/// Finds out what `path` stands for, which must be none of `others`. A block device must have room
/// for `needed` bytes, and must not be in use unless that is forced.
pub(super) fn find(
    role: Role,
    path: &Path,
    others: &[Known<'_>],
    needed: u64,
    force: bool,
) -> Result<Target, FileError> {
    let find = || find_now(role, path, others, needed, force);
    for _ in 1..MOST_LOOKUPS {
        match find() {
            // It is what has its place now that matters.
            Err(FileError::Replaced { .. }) => {}
            found => return found,
        }
    }
    find()
}

fn find_now(
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
    found.check_against(others)?;
    let kind = existing
        .as_ref()
        .map(|stat| FileType::from_raw_mode(stat.st_mode));
    match kind {
        None | Some(FileType::RegularFile) => {
            find_place(role, path, existing).map(|place| Target::File(Box::new(place)))
        }
        Some(FileType::BlockDevice) if role == Role::Output => {
            open_block_device(&found, needed, force).map(Target::Device)
        }
        Some(FileType::CharacterDevice) => {
            let node = existing.map_or(0, |stat| stat.st_rdev);
            open_character_device(&found, node).map(Target::Device)
        }
        Some(other) => Err(wrong_kind(role, path, kind_name(other))),
    }
}

fn open_block_device(found: &Known<'_>, needed: u64, force: bool) -> Result<OwnedFd, FileError> {
    let (role, path) = (found.role, found.path);
    // O_EXCL refuses a device that is mounted or in use otherwise.
    let exclusive = if force { OFlags::empty() } else { OFlags::EXCL };
    let failed = |errno| open_failed(role, path, errno);
    let device = open_device(found, exclusive)?;
    if device::is_read_only(&device) {
        return Err(failed(Errno::ROFS));
    }
    if !force && is_in_use(fstat(&device).map_err(failed)?.st_rdev) {
        return Err(failed(Errno::BUSY));
    }
    let size = device::size(&device).map_err(|source| open_failed(role, path, source))?;
    if size < needed {
        return Err(FileError::TooSmall {
            path: path.into(),
            size,
            needed,
        });
    }
    Ok(device)
}

/// Opens one of the devices that throw away what is written to them. Others are not even opened, which
/// may have effects of its own, and do not store anything at an offset, or store it where it does harm.
fn open_character_device(found: &Known<'_>, node: u64) -> Result<OwnedFd, FileError> {
    let (role, path) = (found.role, found.path);
    match (major(node), minor(node)) {
        (MEMORY, NULL | ZERO | FULL) => {}
        (TTY | CONSOLE | FIRST_PTY..=LAST_PTY, _) => {
            return Err(wrong_kind(role, path, "a terminal"));
        }
        _ => {
            return Err(wrong_kind(role, path, kind_name(FileType::CharacterDevice)));
        }
    }
    open_device(found, OFlags::empty())
}

/// Opens the device that was found. What has its name by then may be something else, such as a file,
/// which must not be written in place.
fn open_device(found: &Known<'_>, flags: OFlags) -> Result<OwnedFd, FileError> {
    let (role, path) = (found.role, found.path);
    let failed = |errno| open_failed(role, path, errno);
    let flags = flags | OFlags::RDWR | OFlags::CLOEXEC;
    let device = open(path, flags, Mode::empty()).map_err(failed)?;
    let opened = Identity::of(&fstat(&device).map_err(failed)?);
    if found.identity != Some(opened) {
        let path = path.into();
        return Err(FileError::Replaced { role, path });
    }
    Ok(device)
}

pub(super) fn wrong_kind(role: Role, path: &Path, found: &'static str) -> FileError {
    FileError::Kind {
        role,
        path: path.into(),
        found,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_file_that_is_replaced_again_and_again_has_a_place_at_every_moment() {
        let folder = tempfile::tempdir().unwrap();
        let [path, new] = ["file", "new"].map(|name| folder.path().join(name));
        fs::write(&path, "first").unwrap();
        let replaced = AtomicUsize::new(0);
        let failed = thread::scope(|scope| {
            scope.spawn(|| {
                while replaced.load(Ordering::Relaxed) < 300 {
                    fs::write(&new, "another").unwrap();
                    fs::rename(&new, &path).unwrap();
                    replaced.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_micros(100));
                }
            });
            let mut failed = None;
            while replaced.load(Ordering::Relaxed) < 300 {
                failed = failed.or(find(Role::Output, &path, &[], 0, false).err());
            }
            failed
        });
        assert!(failed.is_none(), "{failed:?}");
    }

    #[test]
    fn a_file_that_has_lost_its_name_has_no_place() {
        let file = tempfile::tempfile().unwrap();
        let path = crate::files::open::descriptor_path(&file);
        let failed = find(Role::Output, Path::new(&path), &[], 0, false).unwrap_err();
        let failed = failed.to_string();
        assert!(failed.contains("it has no name in a folder"), "{failed}");
    }
}
