//! What becomes of a hidden file whose names are changed, tried out with the file itself before anything is
//! written to it (link(2), rename(2)): after the copy it would be too late.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::links::{Links, link_for_a_moment};
use super::trouble::Trouble;
use super::{second_name, unlink};
use crate::files::place::Place;
use crate::files::system::{renameat, statat};

/// Tries out, with a hidden file that is still this user's, what becomes of another name for it. That
/// is of use only if there is a file whose name is to be looked at in the end.
pub(super) fn try_another_name(
    place: &Place,
    temporary: &str,
    file: BorrowedFd<'_>,
) -> Result<Links, Trouble> {
    if place.existing.is_none() {
        return Ok(Links::Unknown);
    }
    let another = second_name(temporary);
    let moment = link_for_a_moment(place, OsStr::new(temporary), &another, file);
    match moment.left() {
        Some(errno) => {
            let is_left = unlink(place, temporary).is_err_and(|errno| errno != Errno::NOENT);
            let second = is_left.then(|| temporary.to_owned());
            Err(Trouble::Remove {
                left: another,
                second,
                errno,
            })
        }
        None => Ok(moment.links()),
    }
}

/// Tries out, with a hidden file, whether it can be renamed, as it is in the end. Policies and stores of
/// objects allow none of it, and after the copy it would be too late.
pub(super) fn try_renaming(place: &Place, temporary: &str) -> Result<(), Trouble> {
    let another = second_name(temporary);
    let rename = |from: &str, to: &str| match renameat(&place.folder, from, &place.folder, to) {
        // The answer alone may have failed.
        Err(errno) if statat(&place.folder, to, AtFlags::SYMLINK_NOFOLLOW).is_err() => Err(errno),
        _ => Ok(()),
    };
    let renamed = match rename(temporary, &another) {
        // What can be linked takes a free name all the same.
        Err(Errno::INVAL | Errno::NOSYS) if place.existing.is_none() => return Ok(()),
        renamed => renamed.and_then(|()| rename(&another, temporary)),
    };
    renamed.map_err(|errno| {
        for name in [temporary, &another] {
            let _ = unlink(place, name);
        }
        Trouble::Rename(errno)
    })
}
