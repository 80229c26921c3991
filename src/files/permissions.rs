//! Gives a new file what the one had that it replaces: owner, group, mode, access control list and
//! extended attributes (chown(2), acl(5), xattr(7)). What cannot be kept is told before the copy,
//! and at no moment may anybody do more with the new file than with the old.
//!
//! Not kept on purpose: the sticky bit, set-id bits, file capabilities and signatures, all of which say something
//! of the old content.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use rustix::fs::{Gid, Mode, Stat, Uid, XattrFlags};
use rustix::io::Errno;

use super::acl::{self, Acl};
use super::lists::{Lists, is_list};
use super::namespace::{is_one_group, is_one_user};
use super::open::descriptor_path;
use super::place::Place;
use super::sync::is_unsupported;
use super::system::{
    fchmod, fchown, fgetxattr, fremovexattr, fsetxattr, fstat, lgetxattr, llistxattr,
};
use crate::quote::escape_bytes;
use crate::reason::reason;

/// The most that the kernel returns for one value, or for the list of names, in bytes.
pub(super) const LARGEST_VALUE: usize = 64 * 1024;

/// Attributes that belong to a content and not to a file.
pub(super) const OF_THE_CONTENT: [&[u8]; 3] =
    [b"security.capability", b"security.ima", b"security.evm"];

/// Gives `file`, which is new, empty and private, what `existing` has, which is at `place`;
/// returns what the user should know, and who else may use that one.
///
/// # Errors
///
/// The new file would allow more than the old one.
pub(super) fn keep(
    file: BorrowedFd<'_>,
    place: &Place,
    existing: &Stat,
) -> io::Result<(Vec<String>, Lists)> {
    let mut notes = Vec::new();
    // A folder's default list has given the file one, which the mode would bring to life.
    remove_acl(file)?;
    let old = OldFile::at(place);
    // Before they are copied, so that what changes meanwhile is found out in the end.
    let lists = match old.may_have_lists() {
        true => Lists::of(place, existing),
        false => Lists::None,
    };
    // First, since it takes permission to write the file.
    old.copy_attributes(file, &mut notes);
    let mut acl = old.acl();
    let mode = existing.st_mode & 0o777;
    if existing.st_mode & 0o6000 != 0 {
        notes.push("its set-user-ID and set-group-ID bits are not kept".into());
    }
    if existing.st_mode & 0o1000 != 0 {
        notes.push("its sticky bit is not kept".into());
    }
    // Private also for the old owner, until all is as it was.
    fchmod_to(file, mode & 0o600)?;
    let group_kept = change_owner(file, existing, &mut notes)?;
    if !group_kept && let OldAcl::Known(list) = &mut acl {
        list.change_group();
    }
    let mode = match acl {
        OldAcl::None if group_kept => mode,
        OldAcl::None => without_group(mode),
        OldAcl::Known(list) => {
            match fsetxattr(file, acl::ATTRIBUTE, list.value(), XattrFlags::empty()) {
                // This has set the mode as well.
                Ok(()) => return Ok((notes, lists)),
                Err(errno) => {
                    notes.push(format!(
                        "its access control list cannot be kept ({}); whom it names gets no access",
                        reason(errno)
                    ));
                    list.strictest_mode()
                }
            }
        }
        OldAcl::Unknown(reason) => {
            notes.push(format!(
                "its access control list cannot be kept ({reason}); only the owner gets access"
            ));
            mode & 0o700
        }
    };
    fchmod_to(file, mode)?;
    let now = fstat(file)?.st_mode & 0o777;
    if now != mode {
        let access = match now & !mode {
            0 => "with less access",
            _ => "which its file system gives to files",
        };
        notes.push(format!(
            "its mode {mode:03o} cannot be kept; it will be {now:03o}, {access}"
        ));
    }
    Ok((notes, lists))
}

/// The access control list of the old file.
enum OldAcl {
    None,
    Known(Acl),
    /// There may be one, for this reason not known.
    Unknown(String),
}

fn remove_acl(file: BorrowedFd<'_>) -> io::Result<()> {
    match fremovexattr(file, acl::ATTRIBUTE) {
        Ok(()) | Err(Errno::NODATA) => Ok(()),
        Err(errno) if is_unsupported(errno) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Gives the file to the old owner and group, as far as this user may and they are known; tells whether
/// the group is the old one.
fn change_owner(
    file: BorrowedFd<'_>,
    existing: &Stat,
    notes: &mut Vec<String>,
) -> io::Result<bool> {
    // One at a time: a user may often change the group, but never the owner. The group first,
    // since who has given the file away may not change it any more.
    let own = Uid::from_raw(fstat(file)?.st_uid);
    // A number that may stand for anybody would give it to whoever really has that number.
    let has_group = is_one_group(existing.st_gid) == Some(true);
    let has_owner = is_one_user(existing.st_uid) == Some(true);
    if has_group {
        let _ = fchown(file, None, Some(Gid::from_raw(existing.st_gid)));
    }
    if has_owner {
        let _ = fchown(file, Some(Uid::from_raw(existing.st_uid)), None);
    }
    let mut now = fstat(file)?;
    // Who may give files away but not change those of others (CAP_CHOWN without CAP_FOWNER) could give
    // it neither its mode nor, in the end, its name.
    if now.st_uid != own.as_raw() && fchmod(file, Mode::from_raw_mode(now.st_mode & 0o777)).is_err()
    {
        fchown(file, Some(own), None)?;
        now = fstat(file)?;
    }
    if now.st_uid != existing.st_uid {
        notes.push(format!(
            "its owner, user {}{}, cannot be kept; it will belong to user {}",
            existing.st_uid,
            doubt(has_owner),
            now.st_uid
        ));
    }
    let is_kept = has_group && now.st_gid == existing.st_gid;
    if !is_kept {
        notes.push(format!(
            "its group {}{} cannot be kept; it will have group {}, without more access for either",
            existing.st_gid,
            doubt(has_group),
            now.st_gid
        ));
    }
    Ok(is_kept)
}

/// What is said of a number that may not be that of one user or group.
const fn doubt(is_one: bool) -> &'static str {
    if is_one {
        ""
    } else {
        " (which stands here for all that are not known)"
    }
}

/// A mode for another group: its members were among the others, and those of the old one are now.
fn without_group(mode: u32) -> u32 {
    let both = (mode >> 3) & mode & 0o7;
    mode & 0o700 | both << 3 | both
}

/// Sets the mode; where the system has modes of its own, less access will do as well.
pub(super) fn fchmod_to(file: BorrowedFd<'_>, mode: u32) -> Result<(), Errno> {
    let Err(errno) = fchmod(file, Mode::from_raw_mode(mode)) else {
        return Ok(());
    };
    match fstat(file)?.st_mode & 0o777 & !mode {
        0 => Ok(()),
        _ => Err(errno),
    }
}

/// The file that is replaced, by a path, since its attributes cannot be had by a descriptor
/// without permission to read the file.
struct OldFile {
    path: PathBuf,
}

impl OldFile {
    fn at(place: &Place) -> Self {
        // The open folder is used and not its path, so that it is the right one even if it is
        // renamed.
        let folder = PathBuf::from(descriptor_path(&place.folder));
        let folder = if folder.exists() {
            folder
        } else {
            place.folder_path.clone()
        };
        Self {
            path: folder.join(&place.name),
        }
    }

    fn acl(&self) -> OldAcl {
        match self.attribute(acl::ATTRIBUTE.as_bytes()) {
            Ok(value) => Acl::parse(value).map_or_else(
                || OldAcl::Unknown("of an unknown form".into()),
                OldAcl::Known,
            ),
            Err(Errno::NODATA) => OldAcl::None,
            Err(errno) if is_unsupported(errno) => OldAcl::None,
            Err(errno) => OldAcl::Unknown(reason(errno)),
        }
    }

    /// Whether its file system has access control lists, of this kind or of another. Where it has none the
    /// file is not held open, since some, such as SMB, replace no file that is open.
    fn may_have_lists(&self) -> bool {
        match self.attribute(acl::ATTRIBUTE.as_bytes()) {
            Err(errno) if is_unsupported(errno) => self
                .names()
                .is_ok_and(|names| names.split(|byte| *byte == 0).any(is_list)),
            _ => true,
        }
    }

    /// The names of its attributes, each with a zero behind it.
    fn names(&self) -> Result<Vec<u8>, Errno> {
        let mut names = vec![0; LARGEST_VALUE];
        let size = llistxattr(&self.path, &mut names[..])?;
        names.truncate(size);
        Ok(names)
    }

    fn attribute(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let mut value = vec![0; LARGEST_VALUE];
        let size = lgetxattr(&self.path, name, &mut value[..])?;
        value.truncate(size);
        Ok(value)
    }

    /// Copies all attributes but those that are dealt with apart.
    fn copy_attributes(&self, file: BorrowedFd<'_>, notes: &mut Vec<String>) {
        let names = match self.names() {
            Ok(names) => names,
            Err(errno) if is_unsupported(errno) => return,
            Err(errno) => {
                notes.push(format!(
                    "its extended attributes cannot be kept: {}",
                    reason(errno)
                ));
                return;
            }
        };
        for name in names
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
        {
            if name == acl::ATTRIBUTE.as_bytes() {
                continue;
            }
            if OF_THE_CONTENT.contains(&name) {
                notes.push(format!(
                    "its attribute {} belongs to its old content and is not kept",
                    escape_bytes(name)
                ));
            } else if let Err(errno) = self.copy_attribute(file, name) {
                notes.push(format!(
                    "its extended attribute {} cannot be kept: {}",
                    escape_bytes(name),
                    reason(errno)
                ));
            }
        }
    }

    fn copy_attribute(&self, file: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
        let value = self.attribute(name)?;
        let mut new = vec![0; value.len() + 1];
        // A security label is often there from the start, and not for a user to set.
        match fgetxattr(file.as_fd(), name, &mut new[..]) {
            Ok(size) if new[..size] == value[..] => Ok(()),
            _ => fsetxattr(file, name, &value, XattrFlags::empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_for_another_group_gives_neither_group_more() {
        for (mode, expected) in [
            (0o640, 0o600),
            (0o664, 0o644),
            (0o604, 0o600),
            (0o777, 0o777),
            (0o646, 0o644),
        ] {
            assert_eq!(without_group(mode), expected, "{mode:o}");
        }
    }
}
