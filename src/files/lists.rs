//! Who may use a file that is to be replaced, as far as its mode does not say it: access control lists and
//! security labels (acl(5), xattr(7)). They are looked at when the run begins and once more in the end,
//! since nothing else tells that they were changed: who writes to the file afterwards leaves the same
//! times behind. No path can be looked at by then, so that the file is held open meanwhile.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, Stat};
use rustix::io::Errno;

use super::acl;
use super::identity::Identity;
use super::permissions::{LARGEST_VALUE, OF_THE_CONTENT};
use super::place::Place;
use super::sync::is_unsupported;
use super::system::{fgetxattr, flistxattr, fstat, openat};

/// For neither reading nor writing (open(2), "Linux reserves the special, nonstandard access mode 3"):
/// whoever takes over a thread can do nothing with it but look at attributes.
const NEITHER: OFlags = OFlags::WRONLY.union(OFlags::RDWR);

/// What is known of the access control list of a file, and of the like.
#[derive(Debug)]
pub(super) enum Lists {
    /// Its file system has none.
    None,
    /// It is this file, which has had these attributes.
    Seen(OwnedFd, Attributes),
    /// It may have one, which cannot be looked at.
    Unseen,
}

/// Attributes by their names.
type Attributes = BTreeMap<Vec<u8>, Vec<u8>>;

impl Lists {
    /// Looks at the file `existing` at `place`, whose file system has lists.
    pub(super) fn of(place: &Place, existing: &Stat) -> Self {
        let seen = hold_open(place, existing).and_then(|file| {
            let attributes = attributes(file.as_fd())?;
            Ok(Self::Seen(file, attributes))
        });
        seen.unwrap_or(Self::Unseen)
    }

    /// The descriptor of which [`are_as_before`](Self::are_as_before) asks for attributes.
    pub(super) fn held_open(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Seen(file, _) => Some(file.as_fd()),
            Self::None | Self::Unseen => None,
        }
    }

    /// Whether they are what they were, as far as that can be found out.
    pub(super) fn are_as_before(&self) -> bool {
        match self {
            Self::None => true,
            Self::Seen(file, before) => attributes(file.as_fd()).as_ref() == Ok(before),
            Self::Unseen => false,
        }
    }
}

/// Opens the file at `place`, without waiting for somebody who has a lease on it.
fn hold_open(place: &Place, existing: &Stat) -> Result<OwnedFd, Errno> {
    let flags = NEITHER | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(&place.folder, &place.name, flags, Mode::empty())?;
    match Identity::of(&fstat(&file)?) == Identity::of(existing) {
        true => Ok(file),
        false => Err(Errno::STALE),
    }
}

/// The attributes of a file that decide who may use it.
fn attributes(file: BorrowedFd<'_>) -> Result<Attributes, Errno> {
    let mut names = vec![0; LARGEST_VALUE];
    match flistxattr(file, &mut names) {
        Ok(size) => names.truncate(size),
        Err(errno) if is_unsupported(errno) => names.clear(),
        Err(errno) => return Err(errno),
    }
    let names = names.split(|byte| *byte == 0).filter(|name| decides(name));
    // Not each file system names the list.
    let names = names.chain([acl::ATTRIBUTE.as_bytes()]);
    let mut attributes = Attributes::new();
    for name in names {
        let mut value = vec![0; LARGEST_VALUE];
        match fgetxattr(file, name, &mut value) {
            Ok(size) => {
                value.truncate(size);
                attributes.insert(name.to_vec(), value);
            }
            Err(Errno::NODATA) => {}
            Err(errno) if is_unsupported(errno) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(attributes)
}

/// Whether an attribute says who may use a file: a list of some kind, or the label of a security module.
fn decides(name: &[u8]) -> bool {
    is_list(name) || (name.starts_with(b"security.") && !OF_THE_CONTENT.contains(&name))
}

/// Whether an attribute is a list of access, as `system.posix_acl_access` and `system.nfs4_acl` are.
pub(super) fn is_list(name: &[u8]) -> bool {
    name.starts_with(b"system.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_labels_decide_and_what_belongs_to_the_content_does_not() {
        for (name, decides_it) in [
            (&b"system.posix_acl_access"[..], true),
            (b"system.nfs4_acl", true),
            (b"security.selinux", true),
            (b"security.capability", false),
            (b"security.ima", false),
            (b"user.origin", false),
            (b"", false),
        ] {
            let shown = name.escape_ascii();
            assert_eq!(decides(name), decides_it, "{shown}");
        }
    }

    #[test]
    fn a_list_that_cannot_be_looked_at_may_have_been_changed() {
        assert!(!Lists::Unseen.are_as_before());
        assert!(Lists::None.are_as_before());
    }
}
