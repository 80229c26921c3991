//! What the system was asked to do with a file: how a message names it, and what a user can do when it
//! has failed.

use std::io;
use std::path::{Path, PathBuf};

use super::Role;
use crate::files::hints::{
    folder_hint, limit_hint, open_hint, place_hint, space_hint, why_not_written, write_hint,
};
use crate::quote::quote_path;
use crate::reason::reason;

/// Something that the system is asked to do with a file.
#[derive(Debug)]
pub enum Action {
    /// Look it up, or open it.
    Open,
    /// Create a file where it is to appear.
    Create {
        /// The folder in which it would appear.
        folder: PathBuf,
    },
    /// Make room for another file that gets its name.
    Replace {
        /// What the user can do.
        advice: &'static str,
    },
    /// Read it.
    Read {
        /// The first byte that could not be read.
        offset: u64,
    },
    /// Look at it once more, when the run is about to end.
    LookAgain,
    /// Write it.
    Write {
        /// The first byte that could not be written.
        offset: u64,
        /// Whether it is written in place.
        is_device: bool,
    },
    /// Give the room of a part of it back.
    Discard {
        /// Where the part begins, in bytes.
        offset: u64,
    },
    /// Cut it to its length.
    Resize {
        /// How long it is to be, in bytes.
        length: u64,
    },
    /// Store what was written.
    Store,
    /// Give it its name when it is complete.
    Place {
        /// What may have come between, and what the user can do.
        advice: &'static str,
        /// A name that it has instead, and that cannot be taken from it.
        left: Option<PathBuf>,
        /// A second name of what has its name, which cannot be taken from that.
        second: Option<PathBuf>,
    },
}

impl Action {
    /// The action and the file, as they stand behind "cannot".
    pub(super) fn with(&self, role: Role, path: &Path) -> String {
        let file = format!("the {role} {}", quote_path(path));
        match self {
            Self::Open => format!("open {file}"),
            Self::Create { folder } => {
                format!("create {file} in the folder {}", quote_path(folder))
            }
            Self::Replace { .. } => format!("replace {file}"),
            Self::Read { offset } => format!("read {file} at offset {offset}"),
            Self::LookAgain => format!("look at {file} again"),
            Self::Write { offset, .. } => format!("write {file} at offset {offset}"),
            Self::Discard { offset } => format!("discard a part of {file} at offset {offset}"),
            Self::Resize { length } => format!("make {file} {length} bytes long"),
            Self::Store => format!("store {file}"),
            Self::Place { .. } => format!("put {file} in place"),
        }
    }

    /// Why it was not done.
    pub(super) fn why(&self, source: &io::Error) -> String {
        match self {
            Self::Write { .. } => why_not_written(source),
            _ => reason(source),
        }
    }

    /// What the user can do about that: nothing, or behind a semicolon.
    pub(super) fn hint(&self, role: Role, source: &io::Error) -> String {
        match self {
            Self::Open => open_hint(role, source).into(),
            Self::Create { .. } => folder_hint(source).into(),
            Self::Replace { advice } => format!("; {advice}"),
            Self::Read { .. } => limit_hint(source).into(),
            Self::LookAgain | Self::Discard { .. } => String::new(),
            Self::Write { is_device, .. } => write_hint(source, *is_device).into(),
            Self::Resize { .. } | Self::Store => space_hint(source).into(),
            Self::Place {
                advice,
                left,
                second,
            } => place_hint(advice, left.as_deref(), second.as_deref()),
        }
    }
}
