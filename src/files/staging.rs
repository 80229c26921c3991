//! A file that has no name, or a hidden one, until it is complete, and that then gets its name in
//! one step (open(2) O_TMPFILE, linkat(2), rename(2)). Where the file system has no unnamed files,
//! a hidden one `.NAME.vmm-RANDOM.tmp` is used and removed when it is not wanted; only a killed
//! run can leave it behind.

use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, Stat, Uid, fchmod, fchown, linkat, openat, renameat, unlinkat,
};
use rustix::io::Errno;

use super::target::Place;

/// The longest name that a file can have, in bytes (NAME_MAX).
const MAX_NAME: usize = 255;

/// Whether to try an unnamed file first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    /// Unnamed if the file system can do it.
    Unnamed,
    /// A hidden name from the start.
    Hidden,
}

/// A file on its way to its place.
#[derive(Debug)]
pub(super) struct Staging {
    place: Place,
    naming: Naming,
    /// A name that nothing else has: of the hidden file, or for the moment of the replacement.
    temporary: OsString,
    placed: AtomicBool,
}

impl Staging {
    /// Makes the file, empty and open for reading and writing. It is private if it is to replace
    /// an existing one, until [`adopt_permissions`]; otherwise the kernel gives it the permissions
    /// of any new file there (umask, default ACL).
    pub(super) fn create(place: Place, naming: Naming) -> io::Result<(Self, OwnedFd)> {
        let temporary = temporary_name(&place.name);
        let mode = Mode::from_raw_mode(if place.existing.is_some() {
            0o600
        } else {
            0o666
        });
        let (naming, file) = match naming {
            Naming::Unnamed => match create_unnamed(&place, mode)? {
                Some(file) => (Naming::Unnamed, file),
                None => (Naming::Hidden, create_hidden(&place, &temporary, mode)?),
            },
            Naming::Hidden => (Naming::Hidden, create_hidden(&place, &temporary, mode)?),
        };
        Ok((
            Self {
                place,
                naming,
                temporary,
                placed: AtomicBool::new(false),
            },
            file,
        ))
    }

    /// Gives `file`, which was created with this, its name; an existing file is replaced. To ask
    /// again afterwards does nothing.
    ///
    /// # Errors
    ///
    /// The system's reason. What had the name before still has it, and nothing else is left.
    pub(super) fn put_in_place(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        if self.placed.load(Ordering::Acquire) {
            return Ok(());
        }
        match self.naming {
            Naming::Hidden => self.rename()?,
            Naming::Unnamed => match self.link(file, &self.place.name) {
                Err(Errno::EXIST) => self.replace(file)?,
                linked => linked?,
            },
        }
        self.placed.store(true, Ordering::Release);
        Ok(())
    }

    /// Where the file goes.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// The name that a killed run leaves behind, if it can leave one.
    pub(super) fn hidden_name(&self) -> Option<&OsStr> {
        (self.naming == Naming::Hidden).then_some(self.temporary.as_os_str())
    }

    /// No system call gives an unnamed file a name that is taken, so it gets another one first.
    fn replace(&self, file: BorrowedFd<'_>) -> Result<(), Errno> {
        self.link(file, &self.temporary)?;
        self.rename().inspect_err(|_| self.remove())
    }

    fn link(&self, file: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
        let folder = &self.place.folder;
        let linked = linkat(
            CWD,
            descriptor_path(file),
            folder,
            name,
            AtFlags::SYMLINK_FOLLOW,
        );
        match linked {
            // Perhaps only /proc is not there. Without it this takes a privilege, or Linux 6.10.
            Err(Errno::NOENT | Errno::ACCESS) => {
                linkat(file, "", folder, name, AtFlags::EMPTY_PATH).or(linked)
            }
            linked => linked,
        }
    }

    fn rename(&self) -> Result<(), Errno> {
        let folder = &self.place.folder;
        renameat(folder, &self.temporary, folder, &self.place.name)
    }

    fn remove(&self) {
        // There is nobody left to tell, and the name says what it is.
        let _ = unlinkat(&self.place.folder, &self.temporary, AtFlags::empty());
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.naming == Naming::Hidden && !self.placed.load(Ordering::Acquire) {
            self.remove();
        }
    }
}

/// Gives a file the owner, group and permissions of the one that it replaces, as far as the system
/// allows it. Set-id bits are not kept: to write a file clears them.
pub(super) fn adopt_permissions(file: BorrowedFd<'_>, existing: &Stat) -> io::Result<()> {
    // One at a time: a user may often change the group, but never the owner.
    let _ = fchown(file, Some(Uid::from_raw(existing.st_uid)), None);
    let group_kept = fchown(file, None, Some(Gid::from_raw(existing.st_gid))).is_ok();
    let mut mode = existing.st_mode & 0o777;
    if !group_kept {
        // What the old group was allowed is not for the new one: it gets what others get.
        mode = (mode & 0o707) | ((mode & 0o007) << 3);
    }
    Ok(fchmod(file, Mode::from_raw_mode(mode))?)
}

/// An unnamed file, or nothing if the file system has none or it could not be named later.
fn create_unnamed(place: &Place, mode: Mode) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match openat(&place.folder, ".", flags, mode) {
        Ok(file) if can_be_named(&file) => Ok(Some(file)),
        // Each file system and kernel has its own way to say that it does not know the flag.
        Ok(_) | Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether there is a /proc through which an unprivileged process can give the file a name.
fn can_be_named(file: &OwnedFd) -> bool {
    Path::new(&descriptor_path(file.as_fd())).exists()
}

fn create_hidden(place: &Place, name: &OsStr, mode: Mode) -> io::Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(openat(&place.folder, name, flags, mode)?)
}

fn descriptor_path(file: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// `.NAME.vmm-RANDOM.tmp`, with as much of the name as there is room for.
fn temporary_name(name: &OsStr) -> OsString {
    let random = RandomState::new().build_hasher().finish();
    let suffix = format!(".vmm-{random:016x}.tmp");
    let room = MAX_NAME - suffix.len() - 1;
    let name = &name.as_bytes()[..name.len().min(room)];
    OsString::from_vec([b".", name, suffix.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_name_is_recognisable_hidden_and_never_too_long() {
        let name = temporary_name(OsStr::new("disk.img"));
        let name = name.to_string_lossy();
        assert!(
            name.starts_with(".disk.img.vmm-") && name.ends_with(".tmp"),
            "{name}"
        );
        assert_eq!(temporary_name(OsStr::new(&"x".repeat(255))).len(), MAX_NAME);
        assert_ne!(
            temporary_name(OsStr::new("a")),
            temporary_name(OsStr::new("a"))
        );
    }
}
