//! What can go wrong with the files of a run. Each message is one whole line that names the file,
//! the operation, the offset where there is one, the system's reason, and what to do about it, so
//! that a caller prints the error itself and not its chain of sources.

use std::io;
use std::path::PathBuf;

use super::hints::{
    folder_hint, forgotten_hint, limit_hint, names_of_trial, open_hint, place_hint, space_hint,
    wanted, why_not_written,
};
use crate::quote::quote_path;
use crate::reason::reason;

mod as_io;
mod changed;
mod distinct;
mod role;

pub use changed::ChangedError;
pub use distinct::DistinctError;
pub use role::Role;

/// Why a file of the run cannot be used, read, written or put in place.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file cannot be looked up or opened.
    #[error("cannot open the {role} {}: {}{}", quote_path(path), reason(source), open_hint(*role, source))]
    Open {
        /// Which file.
        role: Role,
        /// The path as the user gave it.
        path: PathBuf,
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

    /// Nothing can be created in the folder of a file that is written.
    #[error(
        "cannot create the {role} {} in the folder {}: {}{}",
        quote_path(path),
        quote_path(folder),
        reason(source),
        folder_hint(source)
    )]
    Folder {
        /// Which file.
        role: Role,
        /// The file.
        path: PathBuf,
        /// The folder in which it would appear.
        folder: PathBuf,
        /// The system's reason.
        source: io::Error,
    },

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

    /// In the folder of a file that is written names can be made and not taken away.
    #[error(
        "cannot create the {role} {}: the empty file {}, which was made to try out its folder, \
         cannot be removed: {}; choose another folder, and remove it once this one allows that",
        quote_path(path),
        names_of_trial(left, second.as_deref()),
        reason(source)
    )]
    TrialLeft {
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

    /// The file exists and must not or cannot be replaced.
    #[error(
        "cannot replace the {role} {}: {}; {advice}",
        quote_path(path),
        reason(source)
    )]
    Replace {
        /// Which file.
        role: Role,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
        /// What the user can do.
        advice: &'static str,
    },

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

    /// A read failed.
    #[error(
        "cannot read the {role} {} at offset {offset}: {}{}",
        quote_path(path),
        reason(source),
        limit_hint(source)
    )]
    Read {
        /// Which file.
        role: Role,
        /// The file.
        path: PathBuf,
        /// The first byte that could not be read.
        offset: u64,
        /// The system's reason.
        source: io::Error,
    },

    /// The file cannot be looked at again, when the run is about to end.
    #[error(
        "cannot look at the {role} {} again: {}",
        quote_path(path),
        reason(source)
    )]
    LookAgain {
        /// Which file.
        role: Role,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },

    /// A write failed.
    #[error(
        "cannot write the {role} {} at offset {offset}: {}{}",
        quote_path(path),
        why_not_written(source),
        space_hint(source)
    )]
    Write {
        /// Which file.
        role: Role,
        /// The file.
        path: PathBuf,
        /// The first byte that could not be written.
        offset: u64,
        /// The system's reason.
        source: io::Error,
    },

    /// The room of a part of the output could not be given back.
    #[error(
        "cannot discard a part of the output {} at offset {offset}: {}",
        quote_path(path),
        reason(source)
    )]
    Discard {
        /// The output.
        path: PathBuf,
        /// Where the part begins, in bytes.
        offset: u64,
        /// The system's reason.
        source: io::Error,
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

    /// The output could not be cut to its length.
    #[error(
        "cannot make the output {} {length} bytes long: {}{}",
        quote_path(path),
        reason(source),
        space_hint(source)
    )]
    Length {
        /// The output.
        path: PathBuf,
        /// How long it is to be, in bytes.
        length: u64,
        /// The system's reason.
        source: io::Error,
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

    /// What was written could not be stored.
    #[error(
        "cannot store the {role} {}: {}{}",
        quote_path(path),
        reason(source),
        space_hint(source)
    )]
    Sync {
        /// Which file.
        role: Role,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
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

    /// The complete file could not be given its name.
    #[error(
        "cannot put the {role} {} in place: {}{}",
        quote_path(path),
        reason(source),
        place_hint(source, left.as_deref(), second.as_deref())
    )]
    Place {
        /// Which file.
        role: Role,
        /// The file.
        path: PathBuf,
        /// A name that it has instead, and that cannot be taken from it.
        left: Option<PathBuf>,
        /// A second name of what has its name, which cannot be taken from that.
        second: Option<PathBuf>,
        /// The system's reason.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests;
