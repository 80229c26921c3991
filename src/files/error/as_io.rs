//! What a disk is told of an error of its file: the system's kind of error, with the whole message.

use std::io;

use super::{ChangedError, FileError};

impl From<FileError> for io::Error {
    /// Keeps the kind of the system's reason, so that a disk can still tell a full one.
    fn from(error: FileError) -> Self {
        let kind = match &error {
            FileError::Failed { source, .. } => source.kind(),
            FileError::Changed(ChangedError::Shrank { .. }) => io::ErrorKind::UnexpectedEof,
            FileError::InputWrite { .. } => io::ErrorKind::PermissionDenied,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
