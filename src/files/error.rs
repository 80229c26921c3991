//! What can go wrong with the files of a copy. Each message is one whole line that names the file,
//! the operation, the offset where there is one, the system's reason, and what to do about it, so
//! that a caller prints the error itself and not its chain of sources.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Which file of the copy an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The file that is copied.
    Input,
    /// The copy.
    Output,
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Input => "input",
            Self::Output => "output",
        })
    }
}

/// Why a file of the copy cannot be used, read, written or put in place.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file cannot be looked up or opened.
    #[error("cannot open the {role} {}: {}{}", path.display(), reason(source), open_hint(*role, source))]
    Open {
        /// Which of the two files.
        role: Role,
        /// The path as the user gave it.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },

    /// The path names something that cannot be copied from or to.
    #[error("cannot use {} as the {role}: it is {found}; give {}", path.display(), wanted(*role))]
    Kind {
        /// Which of the two files.
        role: Role,
        /// The path as the user gave it.
        path: PathBuf,
        /// What it is, with its article: "a directory".
        found: &'static str,
    },

    /// The input has content but no length, as files under /proc do.
    #[error(
        "cannot use {} as the input: it has content, but the system gives its length as 0; \
         copy it to a regular file first", path.display()
    )]
    NoLength {
        /// The input.
        path: PathBuf,
    },

    /// The output is the input, perhaps through a link.
    #[error(
        "the output {} is the same file as the input {}; choose another output",
        output.display(), input.display()
    )]
    SameFile {
        /// The input.
        input: PathBuf,
        /// The output.
        output: PathBuf,
    },

    /// Nothing can be created in the folder of the output.
    #[error(
        "cannot create the output {} in the folder {}: {}{}",
        path.display(), folder.display(), reason(source), folder_hint(source)
    )]
    Folder {
        /// The output.
        path: PathBuf,
        /// The folder in which it would appear.
        folder: PathBuf,
        /// The system's reason.
        source: io::Error,
    },

    /// The output exists and must not or cannot be replaced.
    #[error("cannot replace the output {}: {}; {advice}", path.display(), reason(source))]
    Replace {
        /// The output.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
        /// What the user can do.
        advice: &'static str,
    },

    /// The block device that is the output does not hold the input.
    #[error(
        "the output {} is too small: it has {size} bytes, the input {needed}; \
         give a larger device", path.display()
    )]
    TooSmall {
        /// The output.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// The input's length in bytes.
        needed: u64,
    },

    /// A read failed.
    #[error("cannot read the {role} {} at offset {offset}: {}", path.display(), reason(source))]
    Read {
        /// Which of the two files.
        role: Role,
        /// The file.
        path: PathBuf,
        /// The first byte that could not be read.
        offset: u64,
        /// The system's reason.
        source: io::Error,
    },

    /// A write failed.
    #[error(
        "cannot write the output {} at offset {offset}: {}{}",
        path.display(), reason(source), space_hint(source)
    )]
    Write {
        /// The output.
        path: PathBuf,
        /// The first byte that could not be written.
        offset: u64,
        /// The system's reason.
        source: io::Error,
    },

    /// The input lost bytes after it was opened.
    #[error(
        "cannot read the input {} at offset {offset}: it had {length} bytes when it was opened \
         and has shrunk since; copy again when nothing writes to it", path.display()
    )]
    Shrank {
        /// The input.
        path: PathBuf,
        /// The first byte that is no longer there.
        offset: u64,
        /// Its length in bytes when it was opened.
        length: u64,
    },

    /// Something tried to write the input.
    #[error("cannot write the input {} at offset {offset}: it is read-only", path.display())]
    InputWrite {
        /// The input.
        path: PathBuf,
        /// The first byte that would have been written.
        offset: u64,
    },

    /// The output was written to after it had been put in place.
    #[error(
        "cannot write the output {} at offset {offset}: it is complete and in place", path.display()
    )]
    Sealed {
        /// The output.
        path: PathBuf,
        /// The first byte that would have been written.
        offset: u64,
    },

    /// What was written could not be stored.
    #[error("cannot store the output {}: {}{}", path.display(), reason(source), space_hint(source))]
    Sync {
        /// The output, or its folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },

    /// Not every byte of the output has been written.
    #[error(
        "the output {} is incomplete: of {length} bytes the one at offset {offset} was never \
         written{}", path.display(), forgotten_hint(*forgotten)
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

    /// The complete output could not be given its name.
    #[error("cannot put the output {} in place: {}{}", path.display(), reason(source), place_hint(source))]
    Place {
        /// The output.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl From<FileError> for io::Error {
    /// Keeps the kind of the system's reason, so that a disk can still tell a full one.
    fn from(error: FileError) -> Self {
        let kind = match &error {
            FileError::Read { source, .. }
            | FileError::Write { source, .. }
            | FileError::Sync { source, .. } => source.kind(),
            FileError::Shrank { .. } => io::ErrorKind::UnexpectedEof,
            FileError::InputWrite { .. } => io::ErrorKind::PermissionDenied,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// The system's reason without the error number that the standard library adds.
fn reason(error: &io::Error) -> String {
    let mut text = error.to_string();
    if let Some(number) = text.rfind(" (os error ") {
        text.truncate(number);
    }
    text
}

fn wanted(role: Role) -> &'static str {
    match role {
        Role::Input => "a regular file or a block device",
        Role::Output => "the name of a file, a block device, or a device such as /dev/null",
    }
}

fn open_hint(role: Role, error: &io::Error) -> &'static str {
    match (role, error.kind()) {
        (Role::Input, io::ErrorKind::NotFound) => "; check the path",
        (Role::Input, io::ErrorKind::PermissionDenied) => "; you need permission to read it",
        (Role::Output, io::ErrorKind::PermissionDenied) => "; you need permission to write it",
        (Role::Output, io::ErrorKind::ResourceBusy) => "; unmount it, or stop what uses it",
        _ => "",
    }
}

fn folder_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; create the folder first",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; choose a folder that you can write to"
        }
        io::ErrorKind::NotADirectory => "; choose a folder",
        _ => space_hint(error),
    }
}

fn space_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; make room there, or choose another file system"
        }
        io::ErrorKind::FileTooLarge => "; raise the file size limit (ulimit -f)",
        _ => "",
    }
}

fn place_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; its folder is gone",
        io::ErrorKind::IsADirectory => "; a directory has taken its name",
        _ => space_hint(error),
    }
}

fn forgotten_hint(forgotten: bool) -> &'static str {
    if forgotten {
        ", or was written among too many scattered pieces to be remembered"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_with_file_operation_offset_reason_and_advice() {
        let error = FileError::Write {
            path: "copy.img".into(),
            offset: 4096,
            source: io::Error::from_raw_os_error(libc::ENOSPC),
        };
        assert_eq!(
            error.to_string(),
            "cannot write the output copy.img at offset 4096: No space left on device; \
             make room there, or choose another file system"
        );
    }

    #[test]
    fn the_kind_of_the_reason_survives_the_way_to_the_disk() {
        let error = FileError::Write {
            path: "copy.img".into(),
            offset: 0,
            source: io::Error::from_raw_os_error(libc::ENOSPC),
        };
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::StorageFull);
    }
}
