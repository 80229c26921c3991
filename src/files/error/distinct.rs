//! What a run refuses because one file would be used twice: what is written would destroy what is
//! read, or would be destroyed by something else that is written.

use std::path::PathBuf;

use super::Role;
use crate::files::OwnStreams;
use crate::quote::quote_path;

/// Why a file that is written is not a file of its own.
#[derive(Debug, thiserror::Error)]
pub enum DistinctError {
    /// A file that is written is one that is read or written as something else, perhaps through a
    /// link.
    #[error(
        "the {role} {} is the same file as the {other_role} {}; choose another {role}",
        quote_path(path),
        quote_path(other)
    )]
    SameFile {
        /// What is written.
        role: Role,
        /// Its path.
        path: PathBuf,
        /// As what else the file is used.
        other_role: Role,
        /// Its path as that.
        other: PathBuf,
    },

    /// What is written has bytes in common with something else that is read or written: a disk and one
    /// of its partitions, a loop device and its file, two loop devices over one file.
    #[error(
        "the {role} {} and the {other_role} {} share their bytes, as they meet in one disk or file; \
         choose another {role}",
        quote_path(path),
        quote_path(other)
    )]
    SameBytes {
        /// What is written.
        role: Role,
        /// Its path.
        path: PathBuf,
        /// As what else its bytes are used.
        other_role: Role,
        /// The path of that.
        other: PathBuf,
    },

    /// Two files that are to be made have names that some file systems take for one.
    #[error(
        "the {role} {} and the {other_role} {} would be one file where upper and lower case are \
         not told apart; choose another {role}",
        quote_path(path),
        quote_path(other)
    )]
    SameName {
        /// What is written.
        role: Role,
        /// Its path.
        path: PathBuf,
        /// The other file.
        other_role: Role,
        /// Its path.
        other: PathBuf,
    },

    /// A file that is written is where the standard output or standard error goes.
    #[error(
        "the {role} {} is the file that the {streams} to; {}",
        quote_path(path),
        way_out(*role, *streams)
    )]
    StandardStream {
        /// What is written.
        role: Role,
        /// Its path.
        path: PathBuf,
        /// Which streams go to files of the run, this or another one.
        streams: OwnStreams,
    },

    /// The standard output or standard error goes to something that has bytes in common with a file of
    /// the run.
    #[error(
        "the {role} {} shares its bytes with what the {streams} to; {}",
        quote_path(path),
        way_out(*role, *streams)
    )]
    BytesOfStream {
        /// What is read or written.
        role: Role,
        /// Its path.
        path: PathBuf,
        /// Which streams go to files of the run, this or another one.
        streams: OwnStreams,
    },
}

/// What to do where a stream goes to a file of the run: whoever reads a file wants that one.
fn way_out(role: Role, streams: OwnStreams) -> String {
    match (role, streams) {
        (Role::Output | Role::Statistics, _) => format!("choose another {role}"),
        (_, OwnStreams::Output) => "send standard output elsewhere".to_owned(),
        (_, OwnStreams::Error) => "send standard error elsewhere".to_owned(),
        (_, OwnStreams::Both) => "send both elsewhere".to_owned(),
    }
}

impl DistinctError {
    /// The standard streams that nothing may be written to.
    #[must_use]
    pub const fn own_streams(&self) -> Option<OwnStreams> {
        match self {
            Self::StandardStream { streams, .. } | Self::BytesOfStream { streams, .. } => {
                Some(*streams)
            }
            _ => None,
        }
    }
}
