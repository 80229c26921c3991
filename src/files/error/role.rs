//! Which file an error, or a rule, is about.

use std::fmt;
use std::path::Path;

use crate::quote::quote_path;

/// Which file of the run an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The file that is copied.
    Input,
    /// A file that has what the input lacks.
    Backing,
    /// The copy.
    Output,
    /// The image of the guest.
    Guest,
    /// What the statistics are written to.
    Statistics,
}

impl Role {
    /// A line for the user about the file at `path`.
    pub(in crate::files) fn line(self, path: &Path, note: &str) -> String {
        format!("{self} {}: {note}", quote_path(path))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Input => "input",
            Self::Backing => "backing file",
            Self::Output => "output",
            Self::Guest => "guest",
            Self::Statistics => "statistics file",
        })
    }
}
