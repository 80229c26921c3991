//! What a folder cannot do for a file that is to be written there, as an empty one has shown.

use std::io;
use std::path::PathBuf;

use super::Role;
use crate::files::hints::names_of_trial;
use crate::quote::quote_path;
use crate::reason::reason;

/// Why no file that is tried out can have its name in a folder.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// Names can be made and not taken away.
    #[error(
        "cannot create the {role} {}: the empty file {}, which was made to try out its folder, \
         cannot be removed: {}; choose another folder, and remove it once this one allows that",
        quote_path(path),
        names_of_trial(left, second.as_deref()),
        reason(source)
    )]
    Left {
        /// Which file.
        role: Role,
        /// The file.
        path: PathBuf,
        /// What is left.
        left: PathBuf,
        /// Another name of it that is left, too.
        second: Option<PathBuf>,
        /// The system's reason.
        source: io::Error,
    },

    /// No file can be renamed, so that a complete one could not get its name.
    #[error(
        "cannot create the {role} {} in the folder {}: an empty file that was made there to try it out \
         cannot be renamed: {}; choose a folder on another file system",
        quote_path(path),
        quote_path(folder),
        reason(source)
    )]
    NoRenaming {
        /// Which file.
        role: Role,
        /// The file.
        path: PathBuf,
        /// The folder in which it would appear.
        folder: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}
