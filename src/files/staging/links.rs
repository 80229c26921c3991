//! What a file system does with another name for a file (link(2)), and whether it counts them (stat(2),
//! `st_nlink`). The sandbox allows to look at no path, so that this is how it is found out which file has
//! a name.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::unlink;
use crate::files::place::Place;
use crate::files::system::{fstat, linkat};

/// What became of another name for a file of this run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Links {
    /// It was given, and the file had one name more.
    Counted,
    /// It was given, and the file had as many names as before: SFTP, for example, counts none.
    Uncounted,
    /// It was not given, or not tried, or the names could not be counted.
    Unknown,
}

/// A name that something had for a moment.
pub(super) struct Moment {
    /// What came of giving it.
    linked: Result<(), Errno>,
    /// Whether a file had one name more, if its names could be counted.
    counted: Option<bool>,
    /// What came of taking it away.
    removed: Result<(), Errno>,
}

impl Moment {
    /// What this shows of the file system, if the name was given to a file that can have it.
    pub(super) fn links(&self) -> Links {
        match (self.was_given(), self.counted) {
            (true, Some(true)) => Links::Counted,
            (true, Some(false)) => Links::Uncounted,
            _ => Links::Unknown,
        }
    }

    /// A file system on a network may have given it when it says that something has the name.
    fn was_given(&self) -> bool {
        self.linked.is_ok() || self.removed.is_ok()
    }

    /// Whether there was nothing that could have been given another name.
    pub(super) fn finds_nothing(&self) -> bool {
        self.linked == Err(Errno::NOENT) && !self.was_given()
    }

    /// Why it is still there, if it is.
    pub(super) fn left(&self) -> Option<Errno> {
        let why = self.removed.err()?;
        (self.was_given() && why != Errno::NOENT).then_some(why)
    }
}

/// Gives what has the name `name` another one for a moment, which nothing else has, and looks at the
/// names of `file`.
pub(super) fn link_for_a_moment(
    place: &Place,
    name: &OsStr,
    another: &str,
    file: BorrowedFd<'_>,
) -> Moment {
    let before = names(file);
    let linked = linkat(
        &place.folder,
        name,
        &place.folder,
        another,
        AtFlags::empty(),
    );
    let counted = before.and_then(|before| Some(before.checked_add(1) == Some(names(file)?)));
    let removed = unlink(place, another);
    Moment {
        linked,
        counted,
        removed,
    }
}

/// How many names a file has that is open.
pub(super) fn names(file: BorrowedFd<'_>) -> Option<u64> {
    Some(fstat(file).ok()?.st_nlink)
}

/// Whether a file has one name more than before.
pub(super) fn is_one_more(before: Option<u64>, now: Option<u64>) -> bool {
    before.is_some_and(|before| before.checked_add(1) == now)
}
