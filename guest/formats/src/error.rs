//! Why a parser cannot go on.

use thiserror::Error;

use crate::reason::{Finding, Reason};

/// Why an image cannot be used, or cannot be read at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// The caller could not read what was asked for.
    #[error("cannot read the image at byte {offset}")]
    Read {
        /// Where the bytes are, in the image file.
        offset: u64,
    },
    /// The image says something that this crate does not accept.
    #[error("{0}")]
    Refused(Finding),
    /// The caller asked for a byte behind the end of the virtual disk.
    #[error("byte {offset} is behind the end of the virtual disk; ask for less")]
    Outside {
        /// The offset that was asked for.
        offset: u64,
    },
}

impl Error {
    pub(crate) fn refused(reason: Reason, at: u64, value: u64) -> Self {
        Self::Refused(Finding { reason, at, value })
    }

    /// The reason, if it is the image that is at fault.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Refused(finding) => Some(finding.reason),
            Self::Read { .. } | Self::Outside { .. } => None,
        }
    }
}

/// Refuses with `reason` unless `holds`: `at` is the offset in the image file of what was found
/// wrong, and `value` what was found there.
pub(crate) fn ensure(holds: bool, reason: Reason, at: u64, value: u64) -> Result<(), Error> {
    if holds {
        Ok(())
    } else {
        Err(Error::refused(reason, at, value))
    }
}
