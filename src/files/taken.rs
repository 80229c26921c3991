//! What has the name that a new file is to get, compared with what had it when the run began. The new
//! file was given the owner and the permissions of that one then, and must not allow more than the one
//! that it replaces in the end.

use std::os::fd::BorrowedFd;

use rustix::fs::{Stat, Uid};
use rustix::io::Errno;

use super::permissions::fchmod_to;
use super::place::Place;
use super::system::{fchown, fstat};

/// The mode bits of the owner alone.
const OWNER: u32 = 0o700;

/// What has the name now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// The file that was there, as it was.
    AsBefore,
    /// That file, with another mode: nobody may do more than this allows.
    Changed {
        /// A mode, as in stat(2).
        allows: u32,
    },
    /// That file, and something was changed that is not seen here: its access control list, or its
    /// name.
    Touched,
    /// That file, which belongs to somebody else.
    GivenAway,
    /// A file of which nothing is known.
    ByAnother {
        /// Whether another one was there when the run began.
        had: bool,
    },
}

impl Taken {
    /// Looks at what has the name at `place`. `has_list` says whether the file that had it when the run
    /// began has an access control list. `leads` finds out whether the name is still one of that file's,
    /// if that can be found out; it is asked only if that is in doubt.
    pub(super) fn at(place: &Place, has_list: bool, leads: impl FnOnce() -> Option<bool>) -> Self {
        let (Some(before), Some(handle)) = (&place.existing, &place.handle) else {
            return Self::ByAnother { had: false };
        };
        let Ok(now) = fstat(handle) else {
            return Self::AsBefore;
        };
        let has_lost_a_name = now.st_nlink < before.st_nlink;
        let found = match Self::compare(before, &now, has_list) {
            // To take a name away changes the file, and what else has changed it is not seen any more.
            Self::AsBefore if has_lost_a_name => Self::Touched,
            found => found,
        };
        let is_another = match found {
            Self::AsBefore => false,
            // To give a file another name changes it too, in a way that is not seen here.
            Self::Touched => leads() != Some(true),
            _ if has_lost_a_name => leads() != Some(true),
            _ => leads() == Some(false),
        };
        if is_another {
            Self::ByAnother { had: true }
        } else {
            found
        }
    }

    /// What has become of the file with these properties, if it still has the name.
    fn compare(before: &Stat, now: &Stat, has_list: bool) -> Self {
        let changed = (now.st_ctime, now.st_ctime_nsec);
        // Who writes changes both times.
        let written = changed == (now.st_mtime, now.st_mtime_nsec);
        if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid) {
            Self::GivenAway
        } else if now.st_mode != before.st_mode {
            let allows = if has_list { OWNER } else { now.st_mode };
            Self::Changed { allows }
        } else if changed == (before.st_ctime, before.st_ctime_nsec) || (written && !has_list) {
            Self::AsBefore
        } else {
            Self::Touched
        }
    }

    /// Takes from `file`, which is to replace it and was made by `user`, what it does not allow.
    pub(super) fn restrict(self, file: BorrowedFd<'_>, user: Uid) -> Result<(), Errno> {
        let kept = match self {
            Self::AsBefore => return Ok(()),
            Self::Changed { allows } => allows,
            Self::Touched | Self::GivenAway | Self::ByAnother { .. } => OWNER,
        };
        let mut now = fstat(file)?;
        // The owner from before may have lost the right to it.
        let belongs_to_user = matches!(self, Self::GivenAway | Self::ByAnother { .. });
        if belongs_to_user && now.st_uid != user.as_raw() {
            fchown(file, Some(user), None)?;
            now = fstat(file)?;
        }
        fchmod_to(file, now.st_mode & 0o777 & kept)
    }

    /// What the user should know of it.
    pub(super) fn warning(self) -> Option<&'static str> {
        match self {
            Self::AsBefore => None,
            Self::Changed { .. } => Some(
                "the permissions of the old file were changed during the run; the new one allows \
                 only what the old one allowed before and after that",
            ),
            Self::Touched => Some(
                "the old file was changed during the run, perhaps in what it allows; only the owner \
                 may use the new one",
            ),
            Self::GivenAway => Some(
                "the owner or group of the old file was changed during the run; the new one belongs \
                 to the user who ran vmm, and only to that user",
            ),
            Self::ByAnother { had: false } => Some(
                "a file that had come to its name during the run was replaced; only the user who ran \
                 vmm may use the new one",
            ),
            Self::ByAnother { had: true } => Some(
                "the old file had been exchanged for another one during the run, which was \
                 replaced; only the user who ran vmm may use the new one",
            ),
        }
    }
}
