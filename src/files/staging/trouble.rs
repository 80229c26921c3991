//! Why a file cannot be made, or its folder not be tried out.

use rustix::io::Errno;

use crate::files::error::FileError;
use crate::files::place::Place;
use crate::files::system::fstat;

/// Why a file cannot be made.
pub(super) enum Trouble {
    /// Nothing can be created.
    Create(Errno),
    /// What was created to try out the folder, with this name, cannot be removed.
    Remove(String, Errno),
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
            Self::Create(_) if fstat(&place.folder).is_ok_and(|folder| folder.st_nlink == 0) => {
                FileError::FolderGone { role, path, folder }
            }
            Self::Create(errno) => FileError::Folder {
                role,
                path,
                folder,
                source: errno.into(),
            },
            Self::Remove(name, errno) => FileError::TrialLeft {
                role,
                path,
                left: folder.join(name),
                source: errno.into(),
            },
        }
    }
}
