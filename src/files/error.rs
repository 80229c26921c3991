//! What can go wrong with the files of a run. Each message is one whole line that names the file,
//! the operation, the offset where there is one, the system's reason, and what to do about it, so
//! that a caller prints the error itself and not its chain of sources.

use std::io;
use std::path::{Path, PathBuf};

use super::hints::{forgotten_hint, wanted};
use crate::quote::quote_path;

mod action;
mod as_io;
mod changed;
mod distinct;
mod role;
mod trial;

pub use action::Action;
pub use changed::ChangedError;
pub use distinct::DistinctError;
pub use role::Role;
pub use trial::TrialError;

/// Why a file of the run cannot be used, read, written or put in place.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system has not done something with a file.
    #[error(
        "cannot {}: {}{}",
        action.with(*role, path),
        action.why(source),
        action.hint(*role, source)
    )]
    Failed {
        /// Which file.
        role: Role,
        /// The path as the user gave it.
        path: PathBuf,
        /// What was to be done.
        action: Action,
        /// The system's reason.
        source: io::Error,
    },

    /// The path names something that cannot be copied from or to.
    #[error("cannot use {} as the {role}: it is {found}; give {}", quote_path(path), wanted(*role))]
    Kind {
        /// Which file.
        role: Role,
        /// The path as the user gave it.
        path: PathBuf,
        /// What it is, with its article: "a directory".
        found: &'static str,
    },

    /// The input has content but no length, as files under /proc do.
    #[error(
        "cannot use {} as the {role}: it has content, but the system gives its length as 0; \
         copy it to a regular file first",
        quote_path(path)
    )]
    NoLength {
        /// Which file.
        role: Role,
        /// The file.
        path: PathBuf,
    },

    /// The file ends before its length, as files under /sys do.
    #[error(
        "cannot use {} as the {role}: it ends before the {length} bytes that the system makes up \
         as its length; copy it to a regular file first",
        quote_path(path)
    )]
    MadeUpLength {
        /// Which file.
        role: Role,
        /// The file.
        path: PathBuf,
        /// What the system gives as its length, in bytes.
        length: u64,
    },

    /// The file is another one than it was a moment before.
    #[error(
        "cannot open the {role} {}: something replaces it at this moment; try again",
        quote_path(path)
    )]
    Replaced {
        /// Which file.
        role: Role,
        /// The file.
        path: PathBuf,
    },

    /// A file that is written is not a file of its own.
    #[error(transparent)]
    Distinct(#[from] DistinctError),

    /// The folder of a file that is written has been removed, and somebody still has it open.
    #[error(
        "cannot create the {role} {} in the folder {}: it has been removed; choose another",
        quote_path(path),
        quote_path(folder)
    )]
    FolderGone {
        /// Which file.
        role: Role,
        /// The file.
        path: PathBuf,
        /// The folder in which it would appear.
        folder: PathBuf,
    },

    /// The folder of a file that is written has been tried out, and does not serve.
    #[error(transparent)]
    Trial(#[from] TrialError),

    /// The block device that is the output does not hold what is to be written.
    #[error(
        "the output {} is too small: it has {size} bytes, and {needed} are to be written; \
         give a larger device",
        quote_path(path)
    )]
    TooSmall {
        /// The output.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// How many are to be written.
        needed: u64,
    },

    /// The output is to be read back, and it is a device that throws away what is written to it.
    #[error(
        "cannot read the output {} back, as {} wants it: it does not keep what is written to it; give \
         another output",
        quote_path(path),
        wanted_by
    )]
    NotKept {
        /// The output.
        path: PathBuf,
        /// The option that wants it read back.
        wanted_by: &'static str,
    },

    /// A file changed while it was read.
    #[error(transparent)]
    Changed(#[from] ChangedError),

    /// The output would be longer than the user allows.
    #[error(
        "cannot make the output {}: it would have {length} bytes, more than the {most} that \
         --max-output-size allows; allow more with it",
        quote_path(path)
    )]
    TooLong {
        /// The output.
        path: PathBuf,
        /// How long it would be, in bytes.
        length: u64,
        /// How long it may be, in bytes.
        most: u64,
    },

    /// Something tried to write the input.
    #[error(
        "cannot write the input {} at offset {offset}: it is read-only",
        quote_path(path)
    )]
    InputWrite {
        /// The input.
        path: PathBuf,
        /// The first byte that would have been written.
        offset: u64,
    },

    /// A file was written to after the run had finished it or given it up, in place or not.
    #[error(
        "cannot write the {role} {} at offset {offset}: it has been finished or given up",
        quote_path(path)
    )]
    Sealed {
        /// Which file.
        role: Role,
        /// The file.
        path: PathBuf,
        /// The first byte that would have been written.
        offset: u64,
    },

    /// Not every byte of the output has been written.
    #[error(
        "the output {} is incomplete: of {length} bytes the one at offset {offset} was never \
         written{}", quote_path(path), forgotten_hint(*forgotten)
    )]
    Incomplete {
        /// The output.
        path: PathBuf,
        /// The first byte that is missing.
        offset: u64,
        /// The input's length in bytes.
        length: u64,
        /// Whether writes were too scattered for all of them to be remembered.
        forgotten: bool,
    },
}

impl FileError {
    /// The error of `action`, which the system has not done with a file.
    pub(super) fn failed(
        role: Role,
        path: &Path,
        action: Action,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Failed {
            role,
            path: path.into(),
            action,
            source: source.into(),
        }
    }

    /// What the system has not done, if that is what went wrong.
    #[cfg(test)]
    pub(super) fn action(&self) -> Option<&Action> {
        match self {
            Self::Failed { action, .. } => Some(action),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
