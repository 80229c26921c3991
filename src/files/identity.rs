//! Which file a path leads to, so that nothing that a run writes is something that it reads or
//! writes as well: under another name, through a link, or by another node of the same device
//! (inode(7)).

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{FileType, Stat};

use super::error::{DistinctError, FileError, Role};
use super::layers::Layers;
use super::streams::check_streams;
use super::system::fstat;

/// A file, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) kind: FileType,
    /// The device behind a device node.
    pub(super) node: u64,
}

impl Identity {
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            kind: FileType::from_raw_mode(stat.st_mode),
            node: stat.st_rdev,
        }
    }

    /// The block device with this number, by whatever name.
    pub(super) fn of_block_device(node: u64) -> Self {
        Self {
            device: 0,
            inode: 0,
            kind: FileType::BlockDevice,
            node,
        }
    }

    fn is_block_device(&self) -> bool {
        self.kind == FileType::BlockDevice
    }

    /// Whether writing this takes bytes from `other`. A device is written in place, and a file is
    /// replaced by a new one, which only a device that lies on it can notice.
    pub(super) fn takes(self, other: Self) -> bool {
        match (self.is_block_device(), other.is_block_device()) {
            (true, _) => Layers::of(self).meet(&Layers::of(other)),
            (false, true) => Layers::of(other).lie_on(&self),
            (false, false) => false,
        }
    }

    /// The number of the device, if this is a block device.
    pub(super) fn block_device(&self) -> Option<u64> {
        self.is_block_device().then_some(self.node)
    }

    /// Whether bytes written to the one are read from the other. Two uses of a device such as
    /// /dev/null do not meet.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (self.kind, other.kind) {
            (FileType::CharacterDevice, _) => false,
            // One device may have several nodes.
            (FileType::BlockDevice, FileType::BlockDevice) => self.node == other.node,
            _ => (self.device, self.inode) == (other.device, other.inode),
        }
    }
}

/// A file of the run as far as others must not be the same.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    pub(super) role: Role,
    pub(super) path: &'a Path,
    /// What is there now, if anything is.
    pub(super) identity: Option<Identity>,
    /// The folder and the name that something new will have there.
    pub(super) entry: Option<(Identity, &'a OsStr)>,
}

impl<'a> Known<'a> {
    /// A file that is open as `file` and written in place.
    pub(super) fn in_place(role: Role, path: &'a Path, file: impl AsFd) -> Self {
        Self {
            role,
            path,
            identity: fstat(file).ok().as_ref().map(Identity::of),
            entry: None,
        }
    }
}

impl Known<'_> {
    /// Whether this file, which is written, is another one than all `others`, and shares no bytes
    /// with them.
    pub(super) fn check_against<'a>(
        &self,
        others: impl IntoIterator<Item = &'a Known<'a>>,
    ) -> Result<(), DistinctError> {
        for other in others {
            self.check_name(other)?;
            self.check_bytes(other)?;
        }
        Ok(())
    }

    /// Whether what is written to this file is nothing that `other` has.
    fn check_bytes(&self, other: &Known<'_>) -> Result<(), DistinctError> {
        // What is new lies in its folder.
        let place = other.entry.map(|(folder, _)| folder);
        let takes = |identity: Identity| self.identity.is_some_and(|own| own.takes(identity));
        match other.identity.or(place).is_some_and(takes) {
            true => Err(DistinctError::SameBytes {
                role: self.role,
                path: self.path.to_owned(),
                other_role: other.role,
                other: other.path.to_owned(),
            }),
            false => Ok(()),
        }
    }

    /// Whether this file is another one than `other`, whatever it is called.
    fn check_name(&self, other: &Known<'_>) -> Result<(), DistinctError> {
        let (path, other_path) = (self.path.to_owned(), other.path.to_owned());
        let (role, other_role) = (self.role, other.role);
        let same_file = match (&self.identity, &other.identity) {
            (Some(one), Some(two)) => one.is_same(two),
            _ => false,
        };
        let (same_entry, same_letters) = match (self.entry, other.entry) {
            (Some((folder, name)), Some((other_folder, other_name))) if folder == other_folder => {
                (name == other_name, may_be_one(name, other_name))
            }
            _ => (false, false),
        };
        if same_file || same_entry {
            return Err(DistinctError::SameFile {
                role,
                path,
                other_role,
                other: other_path,
            });
        }
        // Of two names that exist it is known that they are two files.
        if same_letters && (self.identity.is_none() || other.identity.is_none()) {
            return Err(DistinctError::SameName {
                role,
                path,
                other_role,
                other: other_path,
            });
        }
        Ok(())
    }
}

/// Refuses a run in which something that is written is something else that is read or written.
/// `reads` and `writes` are all files of the run.
///
/// # Errors
///
/// [`FileError::Distinct`].
pub fn check_distinct(reads: &[Known<'_>], writes: &[Known<'_>]) -> Result<(), FileError> {
    check_streams(reads, writes)?;
    for (index, written) in writes.iter().enumerate() {
        written.check_against(reads.iter().chain(&writes[..index]))?;
        // The other way round.
        for other in &writes[..index] {
            other.check_bytes(written)?;
        }
    }
    Ok(())
}

/// Whether some file system takes the two names for one. Those that fold names to their letters do so
/// with names in UTF-8; of other bytes they know no more than those of ASCII.
fn may_be_one(name: &OsStr, other: &OsStr) -> bool {
    match (name.to_str(), other.to_str()) {
        (Some(name), Some(other)) => name.to_lowercase() == other.to_lowercase(),
        _ => name.eq_ignore_ascii_case(other),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn names_are_one_that_differ_in_the_case_of_letters_and_in_nothing_else() {
        let bytes = OsStr::from_bytes;
        for (name, other, expected) in [
            (b"Report".as_slice(), b"rePORT".as_slice(), true),
            ("\u{c9}t\u{e9}".as_bytes(), "\u{e9}T\u{c9}".as_bytes(), true),
            (b"caf\xe9", b"CAF\xe9", true),
            (b"caf\xe9", b"caf\xe8", false),
            (b"caf\xe9", "caf\u{fffd}".as_bytes(), false),
            (b"a", b"b", false),
        ] {
            assert_eq!(may_be_one(bytes(name), bytes(other)), expected);
        }
    }
}
