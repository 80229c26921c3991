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
    /// That file, and something else was changed: its access control list, or something that is not seen
    /// here, such as its name.
    Touched,
    /// That file, which belongs to somebody else.
    GivenAway,
    /// A file of which nothing is known.
    ByAnother {
        /// Whether another one was there when the run began.
        had: bool,
    },
    /// Perhaps such a file, and perhaps the one that was there.
    Doubtful,
}

/// Whether a name is still one of the file that had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leads {
    Yes,
    No,
    /// The file that has it can be given no other name, although the file system does that: it belongs to
    /// another user (proc_sys_fs(5), `protected_hardlinks`).
    Refused,
    /// The file system gives files no other names, or counts none.
    Unknown,
}

impl Taken {
    /// Looks at what has the name at `place`. `same_lists` finds out whether the access control list is
    /// what it was of the file that had it when the run began, and `leads` whether the name is still one
    /// of that file's; each is asked only if that is in doubt.
    pub(super) fn at(
        place: &Place,
        same_lists: impl FnOnce() -> bool,
        leads: impl FnOnce() -> Leads,
    ) -> Self {
        let (Some(before), Some(handle)) = (&place.existing, &place.handle) else {
            return Self::ByAnother { had: false };
        };
        Self::judge(before, fstat(handle), same_lists, leads)
    }

    /// What has the name whose file had the properties `before` when the run began, and has those of
    /// `now`.
    fn judge(
        before: &Stat,
        now: Result<Stat, Errno>,
        same_lists: impl FnOnce() -> bool,
        leads: impl FnOnce() -> Leads,
    ) -> Self {
        // A file system on a network forgets a file that somebody else has removed or replaced.
        let Ok(now) = now else {
            return Self::ByAnother { had: true };
        };
        let has_lost_a_name = now.st_nlink < before.st_nlink;
        let is_untouched = changed(&now) == changed(before);
        let found = match Self::compare(before, &now, same_lists) {
            // To take a name away changes the file, and what else has changed it is not seen any more.
            Self::AsBefore if has_lost_a_name => Self::Touched,
            found => found,
        };
        let leads = match found {
            Self::AsBefore if is_untouched => Leads::Yes,
            _ => leads(),
        };
        match (leads, found) {
            (Leads::Yes, _) => found,
            (Leads::No, _) => Self::ByAnother { had: true },
            (Leads::Refused, _) => Self::Doubtful,
            // To give a file another name changes it too, in a way that is not seen here.
            (Leads::Unknown, Self::Touched) => Self::Doubtful,
            (Leads::Unknown, _) if has_lost_a_name => Self::Doubtful,
            // It may have been written to when it had another name already, and nothing tells that.
            (Leads::Unknown, _) => found,
        }
    }

    /// What has become of the file with these properties, if it still has the name.
    fn compare(before: &Stat, now: &Stat, same_lists: impl FnOnce() -> bool) -> Self {
        // Who writes changes both times.
        let written = changed(now) == (now.st_mtime, i128::from(now.st_mtime_nsec));
        if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid) {
            Self::GivenAway
        } else if now.st_mode != before.st_mode {
            // With another list the bits of the group and of others may mean something else.
            let allows = now.st_mode & if same_lists() { !0 } else { OWNER };
            Self::Changed { allows }
        } else if changed(now) == changed(before) || (written && same_lists()) {
            Self::AsBefore
        } else {
            Self::Touched
        }
    }

    /// Takes from `file`, which is to replace it and was made by `user`, what it does not allow. Returns
    /// its mode if that allows more all the same: some file systems take a mode, and keep the one that
    /// they give to all files.
    pub(super) fn restrict(self, file: BorrowedFd<'_>, user: Uid) -> Result<Option<u32>, Errno> {
        let kept = match self {
            Self::AsBefore => return Ok(None),
            Self::Changed { allows } => allows,
            Self::Touched | Self::GivenAway | Self::ByAnother { .. } | Self::Doubtful => OWNER,
        };
        let mut now = fstat(file)?;
        // The owner from before may have lost the right to it.
        let belongs_to_user = matches!(
            self,
            Self::GivenAway | Self::ByAnother { .. } | Self::Doubtful
        );
        if belongs_to_user && now.st_uid != user.as_raw() {
            fchown(file, Some(user), None)?;
            now = fstat(file)?;
        }
        fchmod_to(file, now.st_mode & 0o777 & kept)?;
        let mode = fstat(file)?.st_mode & 0o777;
        Ok((mode & !kept != 0).then_some(mode))
    }

    /// What the user should know of it, and of a new file whose mode allows more all the same.
    pub(super) fn warning(self, excess: Option<u32>) -> Option<String> {
        let (what, allowed) = self.words()?;
        Some(match excess {
            None => format!("{what}; {allowed}"),
            Some(mode) => format!(
                "{what}; the new one was to allow less, but its file system leaves its mode at {mode:03o}"
            ),
        })
    }

    /// What has happened, and what the new file allows because of it.
    fn words(self) -> Option<(&'static str, &'static str)> {
        Some(match self {
            Self::AsBefore => return None,
            Self::Changed { .. } => (
                "the permissions of the old file were changed during the run",
                "the new one allows only what the old one allowed before and after that",
            ),
            Self::Touched => (
                "the old file was changed during the run, perhaps in what it allows",
                "only the owner may use the new one",
            ),
            Self::GivenAway => (
                "the owner or group of the old file was changed during the run",
                "the new one belongs to the user who ran vmm, and only to that user",
            ),
            Self::ByAnother { had: false } => (
                "a file that had come to its name during the run was replaced",
                "only the user who ran vmm may use the new one",
            ),
            Self::ByAnother { had: true } => (
                "the old file had been exchanged for another one during the run, which was replaced",
                "only the user who ran vmm may use the new one",
            ),
            Self::Doubtful => (
                "the old file was changed during the run, or perhaps exchanged for another one",
                "only the user who ran vmm may use the new one",
            ),
        })
    }
}

/// When something of the file was last changed, in seconds and nanoseconds. These are of another type
/// where rustix calls the C library, as it does under Miri; this one takes both.
fn changed(file: &Stat) -> (i64, i128) {
    (file.st_ctime, i128::from(file.st_ctime_nsec))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_old_file_that_cannot_be_looked_at_any_more_has_been_exchanged() {
        let file = tempfile::tempfile().unwrap();
        let before = fstat(&file).unwrap();
        for errno in [Errno::STALE, Errno::IO, Errno::NOTCONN] {
            let found = Taken::judge(&before, Err(errno), || true, || Leads::Unknown);
            assert_eq!(found, Taken::ByAnother { had: true });
        }
    }

    #[test]
    fn a_file_that_was_written_to_has_its_name_unless_it_seems_to_have_lost_it() {
        let file = tempfile::tempfile().unwrap();
        let before = fstat(&file).unwrap();
        let mut now = before;
        (now.st_ctime, now.st_mtime) = (before.st_ctime + 1, before.st_ctime + 1);
        now.st_mtime_nsec = now.st_ctime_nsec;
        for (leads, found) in [
            (Leads::Yes, Taken::AsBefore),
            (Leads::Unknown, Taken::AsBefore),
            (Leads::No, Taken::ByAnother { had: true }),
            (Leads::Refused, Taken::Doubtful),
        ] {
            assert_eq!(Taken::judge(&before, Ok(now), || true, || leads), found);
        }
        let not_asked = || unreachable!("nothing was changed");
        let found = Taken::judge(&before, Ok(before), || true, not_asked);
        assert_eq!(found, Taken::AsBefore);
    }
}
