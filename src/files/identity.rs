//! Which file a path leads to, so that nothing that a run writes is something that it reads or
//! writes as well: under another name, through a link, or by another node of the same device
//! (inode(7)).

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use rustix::fs::{FileType, Stat};

use super::error::{DistinctError, FileError, Role};
use super::layers::below;
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

    /// The number of the device, if this is a block device.
    pub(super) fn block_device(&self) -> Option<u64> {
        (self.kind == FileType::BlockDevice).then_some(self.node)
    }

    /// Whether this, if it is a block device, lies on `other`, at whatever depth.
    fn lies_on(&self, other: &Self) -> bool {
        let layers = self.block_device().map(below);
        layers.is_some_and(|layers| layers.iter().any(|lower| lower.is_same(other)))
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

impl Known<'_> {
    /// Whether this file, which is written, is another one than `other`.
    pub(super) fn check_against(&self, other: &Known<'_>) -> Result<(), DistinctError> {
        let (path, other_path) = (self.path.to_owned(), other.path.to_owned());
        let (role, other_role) = (self.role, other.role);
        let (same_file, layered) = match (self.identity, other.identity) {
            // Of files that are written only devices are written in place.
            (Some(one), Some(two)) => (
                one.is_same(&two),
                one.block_device().is_some() && (one.lies_on(&two) || two.lies_on(&one)),
            ),
            _ => (false, false),
        };
        let (same_entry, same_letters) = match (self.entry, other.entry) {
            (Some((folder, name)), Some((other_folder, other_name))) if folder == other_folder => {
                (name == other_name, letters(name) == letters(other_name))
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
        if layered {
            return Err(DistinctError::SameBytes {
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

    /// Whether this file, which is written, is none that the standard streams go to. A device can
    /// take both; a file would lose one of them.
    pub(super) fn check_standard_streams(&self) -> Result<(), DistinctError> {
        let streams = [
            (fstat(io::stdout()), "standard output"),
            (fstat(io::stderr()), "standard error"),
        ];
        for (stat, stream) in streams {
            let (Ok(stat), Some(identity)) = (stat, self.identity) else {
                continue;
            };
            if identity.is_same(&Identity::of(&stat)) {
                return Err(DistinctError::StandardStream {
                    role: self.role,
                    path: self.path.into(),
                    stream,
                });
            }
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
    for (index, written) in writes.iter().enumerate() {
        written.check_standard_streams()?;
        for other in reads.iter().chain(&writes[..index]) {
            written.check_against(other)?;
        }
    }
    Ok(())
}

fn letters(name: &OsStr) -> String {
    name.to_string_lossy().to_lowercase()
}
