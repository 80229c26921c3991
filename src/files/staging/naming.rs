//! The step that gives a staged file its name (linkat(2), rename(2)), and what may have come to that
//! name meanwhile.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::links::{Links, is_one_more, link_for_a_moment, names};
use super::{Naming, Staging, link, second_name, unlink};
use crate::files::error::FileError;
use crate::files::place::Place;
use crate::files::system::{rename_to_free, renameat};
use crate::files::taken::{Leads, Taken};

impl Staging {
    /// Gives `file`, which was created with this, its name; what has that name is replaced. To ask
    /// again afterwards does nothing. Returns a warning if it is another file than the one from before,
    /// or has other permissions: then the new one allows less.
    ///
    /// # Errors
    ///
    /// The system's reason. What had the name before still has it, and nothing else is left.
    pub(in crate::files) fn put_in_place(
        &self,
        file: BorrowedFd<'_>,
    ) -> Result<Option<&'static str>, FileError> {
        self.name(file, |_| true)
            .map_err(|errno| self.failed(file, errno))
    }

    /// The same, unless another file has got the name than the one from before: then nothing is done.
    ///
    /// # Errors
    ///
    /// There is such a thing, or the system's reason.
    pub(in crate::files) fn put_in_free_place(
        &self,
        file: BorrowedFd<'_>,
    ) -> Result<Option<&'static str>, FileError> {
        let known = |taken| !matches!(taken, Taken::ByAnother { .. } | Taken::Doubtful);
        self.name(file, known)
            .map_err(|errno| self.failed(file, errno))
    }

    /// What has the name, if something has it.
    fn taken(&self) -> Taken {
        Taken::at(&self.place, self.has_list, || {
            let handle = self.place.handle.as_ref();
            handle.map_or(Leads::Unknown, |handle| self.leads_to(handle.as_fd()))
        })
    }

    fn failed(&self, file: BorrowedFd<'_>, errno: Errno) -> FileError {
        // The folder may have become one in which no name can be taken away. A file that is open can have
        // another name although this one was taken away (NFS).
        let is_there =
            matches!(unlink(&self.place, &self.temporary), Err(errno) if errno != Errno::NOENT);
        let left = is_there && has_name(file);
        let left = left.then(|| self.place.folder_path.join(&self.temporary));
        FileError::Place {
            role: self.place.role,
            path: self.place.path.clone(),
            left,
            source: errno.into(),
        }
    }

    /// Gives `file` its name. What has it is replaced if that is `replaceable`.
    fn name(
        &self,
        file: BorrowedFd<'_>,
        replaceable: impl Fn(Taken) -> bool,
    ) -> Result<Option<&'static str>, Errno> {
        match self.claim(file) {
            Err(Errno::EXIST) => {}
            claimed => return claimed.map(|()| None),
        }
        let taken = self.taken();
        if !replaceable(taken) {
            return Err(Errno::EXIST);
        }
        taken.restrict(file, self.user)?;
        if self.naming == Naming::Unnamed {
            link_once(&self.place, file, OsStr::new(&self.temporary))?;
        }
        self.rename_at_last(file)?;
        self.placed.store(true, Ordering::Release);
        Ok(taken.warning())
    }

    /// Gives `file` its name if nothing has it.
    fn claim(&self, file: BorrowedFd<'_>) -> Result<(), Errno> {
        if self.placed.load(Ordering::Acquire) {
            return Ok(());
        }
        match self.naming {
            Naming::Hidden(_) => self.rename_to_free(file)?,
            Naming::Unnamed => link_once(&self.place, file, &self.place.name)?,
        }
        self.placed.store(true, Ordering::Release);
        Ok(())
    }

    /// Gives the file its name, whatever has it. No system call does that with an unnamed file, so that
    /// each has another name by now, which is gone afterwards.
    fn rename_at_last(&self, file: BorrowedFd<'_>) -> Result<(), Errno> {
        self.settle(self.rename(), file)
    }

    /// What came of giving a file its last name. The answer alone may have failed: a file system on a
    /// network asks once more when it has got none, and is then told that there is no such file. If the
    /// answer is right, nothing is left.
    fn settle(&self, renamed: Result<(), Errno>, file: BorrowedFd<'_>) -> Result<(), Errno> {
        let Err(errno) = renamed else {
            return Ok(());
        };
        match unlink(&self.place, &self.temporary) {
            Err(Errno::NOENT) if self.leads_to(file) == Leads::Yes => Ok(()),
            _ => Err(errno),
        }
    }

    /// Whether the name is one of `file`, as far as that can be found out. No path can be looked at in
    /// the sandbox, but a file has one name more if it is linked by this one.
    fn leads_to(&self, file: BorrowedFd<'_>) -> Leads {
        let another = second_name(&self.temporary);
        let moment = link_for_a_moment(&self.place, &self.place.name, &another, file);
        match (moment.links(), self.links) {
            (Links::Counted, _) => Leads::Yes,
            (Links::Uncounted, Links::Counted) => Leads::No,
            (Links::Unknown, Links::Counted | Links::Uncounted) => Leads::Refused,
            _ => Leads::Unknown,
        }
    }

    fn rename(&self) -> Result<(), Errno> {
        let folder = &self.place.folder;
        renameat(folder, self.temporary.as_str(), folder, &self.place.name)
    }

    fn rename_to_free(&self, file: BorrowedFd<'_>) -> Result<(), Errno> {
        let folder = &self.place.folder;
        match rename_to_free(folder, self.temporary.as_str(), folder, &self.place.name) {
            // A file system that cannot do that replaces what is there. If something was there when the run
            // began, it is dealt with as if it still were.
            Err(Errno::INVAL | Errno::NOSYS) if self.place.existing.is_some() => Err(Errno::EXIST),
            Err(Errno::INVAL | Errno::NOSYS) => self.rename_at_last(file),
            Err(Errno::EXIST) => Err(Errno::EXIST),
            renamed => self.settle(renamed, file),
        }
    }

    pub(super) fn remove(&self) {
        // There is nobody left to tell, and the name says what it is.
        let _ = unlink(&self.place, &self.temporary);
    }
}

/// Whether a file that is open has a name, as far as the system knows.
fn has_name(file: BorrowedFd<'_>) -> bool {
    names(file).is_some_and(|names| names > 0)
}

/// Gives an unnamed file a name. A file system on a network may have done so when it says that it has
/// not, or that something has the name.
pub(super) fn link_once(place: &Place, file: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    let before = names(file);
    match link(place, file, name) {
        Err(_) if is_one_more(before, names(file)) => Ok(()),
        linked => linked,
    }
}
