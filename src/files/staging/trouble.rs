//! What can be against a new file: why it cannot be made, or not without a name.

use std::os::fd::AsFd;

use rustix::io::Errno;

use crate::files::error::{Action, FileError, TrialError};
use crate::files::place::Place;
use crate::files::system::fstat;

/// Why a new file has a name from the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WhyNamed {
    /// Its file system knows no unnamed files, or lets them have no name later.
    #[error("the file system does not let unnamed files be named")]
    FileSystem,
    /// An unnamed file is named by way of /proc/self/fd.
    #[error("without /proc no unnamed file can be named")]
    NoProc,
    /// One more file, or its name, found no room.
    #[error("there is no room to try out whether unnamed files can be named")]
    NoRoom,
}

impl WhyNamed {
    /// Why an unnamed file cannot be made at `place`, or named, of which `errno` is told.
    pub(super) fn of(place: &Place, errno: Errno) -> Self {
        match errno {
            Errno::NOSPC | Errno::DQUOT => Self::NoRoom,
            _ if place.descriptors.is_none() => Self::NoProc,
            _ => Self::FileSystem,
        }
    }
}

/// Why a file cannot be made.
pub(super) enum Trouble {
    /// Nothing can be created.
    Create(Errno),
    /// What was created cannot be renamed.
    Rename(Errno),
    /// What was created to try out the folder cannot be removed.
    Remove {
        /// Its name.
        left: String,
        /// Another name of it that cannot be taken away, if there is one.
        second: Option<String>,
        errno: Errno,
    },
}

impl From<Errno> for Trouble {
    fn from(errno: Errno) -> Self {
        Self::Create(errno)
    }
}

impl Trouble {
    /// What the user is told of it, for a file that was to be made at `place`.
    pub(super) fn of(self, place: &Place) -> FileError {
        let (role, path, folder) = (place.role, place.path.clone(), place.folder_path.clone());
        match self {
            // Each file system has its own error number for this.
            Self::Create(_) if is_gone(&place.folder) => {
                FileError::FolderGone { role, path, folder }
            }
            Self::Create(errno) => place.failed(Action::Create { folder }, errno),
            Self::Remove {
                left,
                second,
                errno,
            } => FileError::Trial(TrialError::Left {
                role,
                path,
                left: folder.join(left),
                second: second.map(|second| folder.join(second)),
                source: errno.into(),
            }),
            Self::Rename(errno) => FileError::Trial(TrialError::NoRenaming {
                role,
                path,
                folder,
                source: errno.into(),
            }),
        }
    }
}

/// Whether a folder that is open has been removed.
pub(super) fn is_gone(folder: impl AsFd) -> bool {
    fstat(folder).is_ok_and(|folder| folder.st_nlink == 0)
}
