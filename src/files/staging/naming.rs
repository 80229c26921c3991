//! The step that gives a staged file its name (linkat(2), rename(2)), and what may have come to that
//! name meanwhile.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::links::{Links, Moment, is_one_more, link_for_a_moment, names};
use super::trouble::is_gone;
use super::{Naming, Staging, link, second_name, unlink};
use crate::files::error::{Action, FileError};
use crate::files::hints::{FOLDER_IS_GONE, MAY_BE_PLACED, why_not_placed};
use crate::files::system::{linkat, rename_to_free, renameat};
use crate::files::taken::{Leads, Taken};
use crate::quote::quote_path;

impl Staging {
    /// Gives `file`, which was created with this, its name; what has that name is replaced. To ask
    /// again afterwards does nothing. Returns warnings if what has it is another file than the one from
    /// before, or has other permissions (then the new one allows less), and if something else is left.
    ///
    /// # Errors
    ///
    /// It has been given up, or the system's reason. What had the name before still has it, and what else
    /// is left is named.
    pub(in crate::files) fn put_in_place(
        &self,
        file: BorrowedFd<'_>,
    ) -> Result<Vec<String>, FileError> {
        self.name(file, |_| true)
    }

    /// The same, unless another file has got the name than the one from before: then nothing is done.
    ///
    /// # Errors
    ///
    /// There is such a thing, it has been given up, or the system's reason.
    pub(in crate::files) fn put_in_free_place(
        &self,
        file: BorrowedFd<'_>,
    ) -> Result<Vec<String>, FileError> {
        let known = |taken| !matches!(taken, Taken::ByAnother { .. } | Taken::Doubtful);
        self.name(file, known)
    }

    /// What has the name, if something has it.
    fn taken(&self) -> Taken {
        Taken::at(
            &self.place,
            || self.lists.are_as_before(),
            || {
                let handle = self.place.handle.as_ref();
                handle.map_or(Leads::Unknown, |handle| self.leads_to(handle.as_fd()))
            },
        )
    }

    fn failed(&self, file: BorrowedFd<'_>, errno: Errno) -> FileError {
        // The folder may have become one in which no name can be taken away. A file that is open can have
        // another name although this one was taken away (NFS).
        let left = self.left(&self.temporary).filter(|_| has_name(file));
        let source = errno.into();
        let advice = if is_gone(&self.place.folder) {
            FOLDER_IS_GONE
        } else if self.may_be_placed.load(Ordering::Acquire) {
            MAY_BE_PLACED
        } else {
            why_not_placed(&source)
        };
        let second = self.left_behind(&second_name(&self.temporary));
        let action = Action::Place {
            advice,
            left,
            second,
        };
        self.place.failed(action, source)
    }

    /// Gives `file` its name. What has it is replaced if that is `replaceable`.
    fn name(
        &self,
        file: BorrowedFd<'_>,
        replaceable: impl Fn(Taken) -> bool,
    ) -> Result<Vec<String>, FileError> {
        if self.placed.load(Ordering::Acquire) {
            return Ok(Vec::new());
        }
        if self.discarded.load(Ordering::Acquire) {
            return Err(FileError::Sealed {
                role: self.place.role,
                path: self.place.path.clone(),
                offset: 0,
            });
        }
        let claimed = match self.claim(file) {
            Err(Errno::EXIST) => self.replace(file, replaceable),
            claimed => claimed.map(|()| None),
        };
        let warning = claimed.map_err(|errno| self.failed(file, errno))?;
        self.placed.store(true, Ordering::Release);
        Ok(warning.into_iter().chain(self.warn_of_names()).collect())
    }

    /// Gives `file` its name if nothing has it.
    fn claim(&self, file: BorrowedFd<'_>) -> Result<(), Errno> {
        match self.naming {
            Naming::Hidden(_) => self.rename_to_free(file),
            Naming::Unnamed => link_once(file, || link(&self.place, file, &self.place.name)),
        }
    }

    /// Gives `file` its name, which something has, if that is `replaceable`; returns a warning.
    fn replace(
        &self,
        file: BorrowedFd<'_>,
        replaceable: impl Fn(Taken) -> bool,
    ) -> Result<Option<String>, Errno> {
        let taken = self.taken();
        if !replaceable(taken) {
            return Err(Errno::EXIST);
        }
        let excess = taken.restrict(file, self.user)?;
        if self.naming == Naming::Unnamed {
            link_once(file, || {
                link(&self.place, file, OsStr::new(&self.temporary))
            })?;
        }
        self.rename_at_last(file)?;
        Ok(taken.warning(excess))
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
        if unlink(&self.place, &self.temporary) != Err(Errno::NOENT) {
            return Err(errno);
        }
        match self.leads_to(file) {
            Leads::Yes => return Ok(()),
            Leads::No => {}
            // Where no names are counted nobody knows which file has the name, if one has it.
            Leads::Refused | Leads::Unknown => {
                let has_it = !self.link_the_name(file).finds_nothing();
                self.may_be_placed.store(has_it, Ordering::Release);
            }
        }
        Err(errno)
    }

    /// Whether the name is one of `file`, as far as that can be found out. No path can be looked at in
    /// the sandbox, but a file has one name more if it is linked by this one.
    fn leads_to(&self, file: BorrowedFd<'_>) -> Leads {
        match (self.link_the_name(file).links(), self.links) {
            (Links::Counted, _) => Leads::Yes,
            (Links::Uncounted, Links::Counted) => Leads::No,
            (Links::Unknown, Links::Counted | Links::Uncounted) => Leads::Refused,
            _ => Leads::Unknown,
        }
    }

    /// Gives what has the name a second one for a moment, and looks at the names of `file`.
    fn link_the_name(&self, file: BorrowedFd<'_>) -> Moment {
        let another = second_name(&self.temporary);
        let moment = link_for_a_moment(&self.place, &self.place.name, &another, file);
        if moment.left().is_some() {
            self.keeps_names.store(true, Ordering::Release);
        }
        moment
    }

    fn rename(&self) -> Result<(), Errno> {
        let folder = &self.place.folder;
        renameat(folder, self.temporary.as_str(), folder, &self.place.name)
    }

    fn rename_to_free(&self, file: BorrowedFd<'_>) -> Result<(), Errno> {
        let folder = &self.place.folder;
        match rename_to_free(folder, self.temporary.as_str(), folder, &self.place.name) {
            // NFS, 9p, Ceph and many of FUSE know no such renaming.
            Err(Errno::INVAL | Errno::NOSYS) => self.link_to_free(file),
            Err(Errno::EXIST) => Err(Errno::EXIST),
            renamed => self.settle(renamed, file),
        }
    }

    /// The same in two steps: as a second name, which is never given in place of another, and then as the
    /// only one. What gives no second names tells at least whether there is something that could get one,
    /// and then a file that comes to the name between this and the renaming is the only one that is lost.
    fn link_to_free(&self, file: BorrowedFd<'_>) -> Result<(), Errno> {
        let folder = &self.place.folder;
        let hidden = self.temporary.as_str();
        let link = || linkat(folder, hidden, folder, &self.place.name, AtFlags::empty());
        match link_once(file, link) {
            Ok(()) => {
                let removed = unlink(&self.place, hidden);
                let is_left = matches!(removed, Err(errno) if errno != Errno::NOENT);
                self.keeps_names.fetch_or(is_left, Ordering::AcqRel);
                Ok(())
            }
            Err(Errno::EXIST) => Err(Errno::EXIST),
            Err(_) if self.link_the_name(file).finds_nothing() => self.rename_at_last(file),
            Err(_) => Err(Errno::EXIST),
        }
    }

    /// Takes a name of this run away if it is there; returns its path if that cannot be done.
    fn left(&self, name: &str) -> Option<PathBuf> {
        match unlink(&self.place, name) {
            Ok(()) | Err(Errno::NOENT) => None,
            Err(_) => Some(self.place.folder_path.join(name)),
        }
    }

    /// The same of a name that is there only if it could not be taken away before.
    fn left_behind(&self, name: &str) -> Option<PathBuf> {
        let keeps_names = self.keeps_names.load(Ordering::Acquire);
        keeps_names.then(|| self.left(name)).flatten()
    }

    /// Names that are left beside a file that is in place.
    fn warn_of_names(&self) -> impl Iterator<Item = String> {
        let names = [self.temporary.clone(), second_name(&self.temporary)];
        let left = names.into_iter().filter_map(|name| self.left_behind(&name));
        left.map(|path| {
            format!(
                "it is in place, but {}, a second name of it or of the old file, cannot be removed now; \
                 do that once its folder allows it",
                quote_path(&path)
            )
        })
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

/// Gives a file one name more by `link`. A file system on a network may have done so when it says that it
/// has not, or that something has the name.
pub(super) fn link_once(
    file: BorrowedFd<'_>,
    link: impl FnOnce() -> Result<(), Errno>,
) -> Result<(), Errno> {
    let before = names(file);
    match link() {
        Err(_) if is_one_more(before, names(file)) => Ok(()),
        linked => linked,
    }
}
