//! The place of a file that is made anew: the folder and the name where it is to appear, after all
//! links have been followed (path_resolution(7)). Whether the system will let it appear there
//! (rename(2), chattr(1)) is found out here, before anything is copied.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, Stat, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::error::{Action, FileError, Role};
use super::identity::{Identity, Known};
use super::kernel_made::is_kernel_made;
use super::namespace::is_one_user;
use super::open::open_failed;
use super::swap::Swaps;
use super::system::{accessat, fstat, open, openat, readlinkat, statat, statx};
use super::target::wrong_kind;

/// As many links as the kernel follows in a path (MAXSYMLINKS).
const MAX_LINKS: usize = 40;

/// A name in an open folder.
#[derive(Debug)]
pub(super) struct Place {
    /// What the file is for.
    pub(super) role: Role,
    /// The path as the user gave it.
    pub(super) path: PathBuf,
    /// The folder in which it appears, all links followed.
    pub(super) folder_path: PathBuf,
    /// That folder, open for the calls that take one.
    pub(super) folder: OwnedFd,
    /// Whether the folder could be opened so that it can be synced too.
    pub(super) folder_syncs: bool,
    /// Whether names can be added to the folder but not taken away (chattr(1), `+a`).
    pub(super) append_only: bool,
    /// The name in the folder.
    pub(super) name: OsString,
    /// The file that is replaced.
    pub(super) existing: Option<Stat>,
    /// That file, open only to be looked at again.
    pub(super) handle: Option<OwnedFd>,
    /// The folder of the process's descriptors (proc(5)), from which an unnamed file gets its name also
    /// where /proc is gone by then.
    pub(super) descriptors: Option<OwnedFd>,
}

impl Place {
    /// The error of something that the system has not done with the file.
    pub(super) fn failed(&self, action: Action, source: impl Into<io::Error>) -> FileError {
        FileError::failed(self.role, &self.path, action, source)
    }

    /// What else must not be this file.
    pub(super) fn known(&self) -> Known<'_> {
        let folder = fstat(&self.folder).ok();
        Known {
            role: self.role,
            path: &self.path,
            identity: self.existing.as_ref().map(Identity::of),
            entry: folder.map(|folder| (Identity::of(&folder), self.name.as_os_str())),
        }
    }
}

/// Finds the place of a file that is made anew at `path`, where `existing` is now.
pub(super) fn find_place(
    role: Role,
    path: &Path,
    existing: Option<Stat>,
) -> Result<Place, FileError> {
    let followed = follow_links(role, path)?;
    let name = followed.as_os_str().as_bytes();
    if name.ends_with(b"/") {
        return Err(wrong_kind(
            role,
            path,
            "a folder's name, as it ends in a slash",
        ));
    }
    // The standard library takes `new` for the file name of `new/.`, which names a folder.
    if name == b"." || name.ends_with(b"/.") {
        return Err(wrong_kind(
            role,
            path,
            "a folder's name, as it ends in a dot",
        ));
    }
    let Some(name) = followed.file_name().map(OsStr::to_owned) else {
        return Err(wrong_kind(role, path, "not the name of a file"));
    };
    let folder_path = match followed.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    let (folder, folder_syncs) = open_folder(&folder_path).map_err(|errno| {
        let folder = folder_path.clone();
        FileError::failed(role, path, Action::Create { folder }, errno)
    })?;
    if is_kernel_made(&folder) {
        return Err(wrong_kind(
            role,
            path,
            "in a folder whose files the kernel makes",
        ));
    }
    let append_only = has_attribute(&folder, OsStr::new(""), StatxAttributes::APPEND);
    let mut place = Place {
        role,
        path: path.into(),
        folder_path,
        folder,
        folder_syncs,
        append_only,
        name,
        existing,
        handle: None,
        descriptors: open(
            "/proc/self/fd",
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .ok(),
    };
    if let Some(stat) = place.existing {
        place.handle = Some(check_replaceable(&place, &stat)?);
    }
    Ok(place)
}

/// The path that a new file must have so that `path`, if it is a link, leads to it.
fn follow_links(role: Role, path: &Path) -> Result<PathBuf, FileError> {
    let mut followed = path.to_owned();
    // Once more than there may be links, to see what the last one leads to.
    for _ in 0..=MAX_LINKS {
        let link = match readlinkat(CWD, &followed) {
            Ok(link) => link,
            // It is no link, or there is nothing: this is the place.
            Err(Errno::INVAL | Errno::NOENT | Errno::NOTDIR) => return Ok(followed),
            Err(errno) => return Err(open_failed(role, path, errno)),
        };
        // An absolute link replaces the whole path.
        followed = followed
            .parent()
            .unwrap_or(Path::new(""))
            .join(OsStr::from_bytes(&link));
    }
    Err(open_failed(role, path, Errno::LOOP))
}

/// Opens a folder; also tells whether it can be synced, which takes permission to read it.
fn open_folder(path: &Path) -> Result<(OwnedFd, bool), Errno> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    match open(path, flags | OFlags::RDONLY, Mode::empty()) {
        Ok(folder) => Ok((folder, true)),
        Err(Errno::ACCESS) => {
            open(path, flags | OFlags::PATH, Mode::empty()).map(|folder| (folder, false))
        }
        Err(errno) => Err(errno),
    }
}

/// Refuses an existing file that a user would not expect to be replaced, or that the system would
/// not let us replace when the copy is complete.
fn check_replaceable(place: &Place, existing: &Stat) -> Result<OwnedFd, FileError> {
    let refused = |errno: Errno, advice| Err(place.failed(Action::Replace { advice }, errno));
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(&place.folder, &place.name, flags, Mode::empty());
    let looked = opened.and_then(|handle| Ok((fstat(&handle)?, handle)));
    let handle = match looked {
        Ok((here, handle)) if Identity::of(&here) == Identity::of(existing) => handle,
        Ok(_) | Err(Errno::NOENT) if leads_elsewhere(&place.path, existing) => {
            let (role, path) = (place.role, place.path.clone());
            return Err(FileError::Replaced { role, path });
        }
        Ok(_) | Err(Errno::NOENT) => {
            return refused(
                Errno::NOENT,
                "it has no name in a folder; give the path of a file",
            );
        }
        Err(errno) => return refused(errno, "choose another path"),
    };
    let attribute = |name, attribute| has_attribute(&place.folder, name, attribute);
    if attribute(&place.name, StatxAttributes::IMMUTABLE)
        || attribute(&place.name, StatxAttributes::APPEND)
    {
        return refused(
            Errno::PERM,
            "it is immutable or append-only; undo that (chattr -ia) or choose another path",
        );
    }
    if place.append_only || attribute(OsStr::new(""), StatxAttributes::IMMUTABLE) {
        return refused(
            Errno::PERM,
            "its folder is immutable or append-only; undo that (chattr -ia) or choose another path",
        );
    }
    // Who may not write the file may not replace it: rename(2) does not ask for that, but cp does.
    if let Err(errno) = accessat(
        &place.folder,
        &place.name,
        Access::WRITE_OK,
        AtFlags::EACCESS,
    ) {
        let advice = match errno {
            Errno::ROFS => "choose another file system",
            Errno::ACCESS | Errno::PERM => "make it writable (chmod u+w) or choose another path",
            _ => "choose another path",
        };
        return refused(errno, advice);
    }
    if !may_rename_over(place, existing) {
        return refused(
            Errno::PERM,
            "only its owner may replace it in that folder; choose another",
        );
    }
    if Swaps::now().have_file(existing) {
        return refused(
            Errno::BUSY,
            "it is swap space in use; end that (swapoff) or choose another path",
        );
    }
    if is_mount_point(place) {
        return refused(
            Errno::BUSY,
            "it is a mount point; give a path in an ordinary folder",
        );
    }
    Ok(handle)
}

/// Whether `path` no longer leads to the file `existing`. A path that does, although that file does not
/// have the name in it, is the kernel's for an open file (/proc/self/fd), whose name has been removed.
fn leads_elsewhere(path: &Path, existing: &Stat) -> bool {
    let now = statat(CWD, path, AtFlags::empty());
    now.ok().as_ref().map(Identity::of) != Some(Identity::of(existing))
}

/// Whether the file may be replaced: in a folder with the sticky bit, as /tmp has it, only by the
/// owner of the file or of the folder, or by somebody who may act as any owner.
fn may_rename_over(place: &Place, existing: &Stat) -> bool {
    let user = rustix::process::geteuid().as_raw();
    match fstat(&place.folder) {
        Ok(folder) if Mode::from_raw_mode(folder.st_mode).contains(Mode::SVTX) => {
            user == existing.st_uid || user == folder.st_uid || may_act_as(existing.st_uid)
        }
        _ => true,
    }
}

/// Whether this process may do what only `owner` may do (CAP_FOWNER, capabilities(7)). In a user
/// namespace it may do so for the users that are known there. If it cannot be found out the answer is
/// yes, and the rename will fail if that was wrong.
fn may_act_as(owner: u32) -> bool {
    const CAP_FOWNER: u64 = 1 << 3;
    // The name of the program, which is in it too, need not be UTF-8.
    let status = fs::read("/proc/self/status").unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    if effective.is_some_and(|mask| mask & CAP_FOWNER == 0) {
        return false;
    }
    is_one_user(owner) != Some(false)
}

/// A file that is mounted by itself (as containers do) has a name that cannot be given to another.
fn is_mount_point(place: &Place) -> bool {
    has_attribute(&place.folder, &place.name, StatxAttributes::MOUNT_ROOT)
}

/// Whether the file `name` in `folder`, or the folder itself if the name is empty, has the
/// attribute, as far as the file system tells.
fn has_attribute(folder: &OwnedFd, name: &OsStr, attribute: StatxAttributes) -> bool {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    statx(folder, name, flags, StatxFlags::TYPE)
        .is_ok_and(|answer| answer.stx_attributes.contains(attribute))
}
