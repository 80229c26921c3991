//! Paths as values of options.

use std::path::PathBuf;

use super::escape;

/// Reads the path of a file or block device that becomes a disk.
pub(super) fn disk(text: &str) -> Result<PathBuf, String> {
    if text == "-" {
        return Err(
            "give a file; vmm needs to know the length and to read and write at any offset (a \
             file of that name is ./-)"
                .to_owned(),
        );
    }
    not_empty(text)
}

/// Reads the path of any other file.
pub(super) fn file(text: &str) -> Result<PathBuf, String> {
    if text == "-" {
        return Err("give a file (one of that name is ./-)".to_owned());
    }
    not_empty(text)
}

/// Whether the path, as it was read, names anything.
pub(super) fn exists(text: &str) -> bool {
    PathBuf::from(escape::decode(text))
        .symlink_metadata()
        .is_ok()
}

fn not_empty(text: &str) -> Result<PathBuf, String> {
    match text {
        "" => Err("give the path of a file".to_owned()),
        _ => Ok(PathBuf::from(escape::decode(text))),
    }
}
