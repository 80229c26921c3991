//! What cannot be made good when a file changes while it is read.

use std::path::PathBuf;

use super::Role;
use crate::quote::quote_path;

/// How a file changed, so that what was read of it is no copy.
#[derive(Debug, thiserror::Error)]
pub enum ChangedError {
    /// A file that is read lost bytes after it was opened.
    #[error(
        "cannot read the {role} {} at offset {offset}: it had {length} bytes when it was opened \
         and has shrunk since; copy again when nothing writes to it",
        quote_path(path)
    )]
    Shrank {
        /// Which file.
        role: Role,
        /// The file.
        path: PathBuf,
        /// The first byte that is no longer there.
        offset: u64,
        /// Its length in bytes when it was opened.
        length: u64,
    },

    /// A file got data where a hole was skipped.
    #[error(
        "cannot trust what was made of the {role} {}: it has data at offset {offset} where it had a \
         hole when the run began; run again when nothing writes to it{otherwise}",
        quote_path(path)
    )]
    HoleFilled {
        /// Which file.
        role: Role,
        /// The file.
        path: PathBuf,
        /// The first byte of it.
        offset: u64,
        /// What else could be done, as the end of the sentence.
        otherwise: &'static str,
    },
}
