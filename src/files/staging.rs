//! A file that has no name, or a hidden one, until it is complete, and that then gets its name in
//! one step (open(2) O_TMPFILE, linkat(2), rename(2)). Where the file system has no unnamed files,
//! or does not let them be named, a hidden one `.vmm-RANDOM.tmp` is used and removed when it is not
//! wanted; only a killed run can leave it behind. Which way it is, is tried out before the copy.

use std::ffi::OsStr;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::error::{Action, FileError};
use super::lists::Lists;
use super::permissions;
use super::place::Place;
use super::system::{fstat, linkat, openat, statat, unlinkat};
use crate::quote::quote_path;

mod links;
mod naming;
mod trial;
mod trouble;

use links::{Links, is_one_more, names};
use naming::link_once;
use trial::{try_another_name, try_renaming};
use trouble::Trouble;
pub use trouble::WhyNamed;

/// Whether to try an unnamed file first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    /// Unnamed if the file system can do it.
    Unnamed,
    /// A hidden name from the start.
    Hidden(WhyNamed),
}

/// A file on its way to its place.
#[derive(Debug)]
pub(super) struct Staging {
    place: Place,
    naming: Naming,
    /// A name that nothing else has. A hidden file has it all the time; an unnamed one gets it for
    /// a moment when it replaces another.
    temporary: String,
    /// What the file system does with another name for a file.
    links: Links,
    placed: AtomicBool,
    /// Whether it has been given up, so that it never gets its name.
    discarded: AtomicBool,
    /// Whether a name that something had for a moment could not be taken away again.
    keeps_names: AtomicBool,
    /// Whether the name before the last one is gone, and the last one may have been given.
    may_be_placed: AtomicBool,
    /// Whose the file is when it is made.
    user: Uid,
    /// What cannot be kept of the file that is replaced.
    lost: Vec<String>,
    /// Who else may use that.
    lists: Lists,
}

/// What giving a file its name takes, for a sandbox that must allow this and nothing else.
#[derive(Clone, Copy, Debug)]
pub struct Placing<'a> {
    /// The folder in which it gets its name.
    pub folder: BorrowedFd<'a>,
    /// The file.
    pub file: BorrowedFd<'a>,
    /// The file that it replaces, if its attributes are looked at once more.
    pub replaced: Option<BorrowedFd<'a>>,
}

impl Staging {
    /// Makes the file, empty and open for reading and writing. It is private if it is to replace an
    /// existing one, until [`keep`](super::permissions::keep); otherwise the kernel gives it the
    /// permissions of any new file there (umask, default ACL).
    ///
    /// # Errors
    ///
    /// Nothing can be created in the folder.
    pub(super) fn create(place: Place, naming: Naming) -> Result<(Self, OwnedFd), FileError> {
        let temporary = temporary_name();
        let made = make(&place, naming, &temporary);
        let Made {
            file,
            naming,
            links,
        } = made.map_err(|trouble| trouble.of(&place))?;
        let user = fstat(&file).map_or(rustix::process::geteuid(), |stat| {
            Uid::from_raw(stat.st_uid)
        });
        Ok((
            Self {
                place,
                naming,
                temporary,
                links,
                placed: AtomicBool::new(false),
                discarded: AtomicBool::new(false),
                keeps_names: AtomicBool::new(false),
                may_be_placed: AtomicBool::new(false),
                user,
                lost: Vec::new(),
                lists: Lists::None,
            },
            file,
        ))
    }

    /// Gives `file`, which was created with this, what the file has that it replaces.
    ///
    /// # Errors
    ///
    /// The new file would allow more than the old one.
    pub(super) fn keep_permissions(&mut self, file: BorrowedFd<'_>) -> Result<(), FileError> {
        let Some(existing) = &self.place.existing else {
            return Ok(());
        };
        let kept = permissions::keep(file, &self.place, existing);
        (self.lost, self.lists) = kept.map_err(|source| {
            let advice = "its permissions cannot be kept; choose another path";
            self.place.failed(Action::Replace { advice }, source)
        })?;
        Ok(())
    }

    /// Gives the file up: it will never get its name, and a hidden one is removed. Does nothing once it
    /// is in place, or a second time.
    pub(super) fn discard(&self) {
        let is_hidden = matches!(self.naming, Naming::Hidden(_));
        let is_placed = self.placed.load(Ordering::Acquire);
        if !is_placed && !self.discarded.swap(true, Ordering::AcqRel) && is_hidden {
            self.remove();
        }
    }

    /// Where the file goes.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// What it takes to give `file`, which was created with this, its name.
    pub(super) fn placing<'a>(&'a self, file: BorrowedFd<'a>) -> Placing<'a> {
        Placing {
            folder: self.place.folder.as_fd(),
            file,
            replaced: self.lists.held_open(),
        }
    }

    /// Why the file has a name from the beginning, which is left if the process is killed; `None` if it
    /// has none.
    pub(super) fn why_named(&self) -> Option<WhyNamed> {
        match self.naming {
            Naming::Unnamed => None,
            Naming::Hidden(why) => Some(why),
        }
    }

    /// What the user should know before: what a killed run can leave, and what is not as it was.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(why) = self.why_named() {
            notes.push(format!(
                "{why}; if this run is killed it leaves {}",
                quote_path(&self.place.folder_path.join(&self.temporary))
            ));
        }
        let existing = self.place.existing.as_ref();
        if existing.is_some_and(|stat| stat.st_nlink > 1) {
            notes.push("it has other hard links; those keep the old content".into());
        }
        notes.extend(self.lost.iter().cloned());
        notes
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        self.discard();
    }
}

/// A file that was made, and what was found out with it.
struct Made {
    file: OwnedFd,
    naming: Naming,
    links: Links,
}

/// Makes the file, and tells which way it is named.
fn make(place: &Place, naming: Naming, temporary: &str) -> Result<Made, Trouble> {
    let mode = Mode::from_raw_mode(if place.existing.is_some() {
        0o600
    } else {
        0o666
    });
    let unnamed = match naming {
        Naming::Unnamed => create_unnamed(place, temporary, mode)?,
        Naming::Hidden(why) => Err(why),
    };
    let (file, naming, links) = match unnamed {
        Ok((file, links)) => (file, Naming::Unnamed, links),
        Err(why) => {
            let file = create_hidden(place, temporary, mode)?;
            let links = try_another_name(place, temporary, file.as_fd())?;
            try_renaming(place, temporary)?;
            (file, Naming::Hidden(why), links)
        }
    };
    Ok(Made {
        file,
        naming,
        links,
    })
}

/// Links an unnamed file by way of /proc. By its descriptor alone (`AT_EMPTY_PATH`) that would take a
/// privilege, or the rights with which the file was opened, which the sandbox gives up.
fn link(place: &Place, file: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    let follow = AtFlags::SYMLINK_FOLLOW;
    match &place.descriptors {
        Some(descriptors) => {
            let source = file.as_raw_fd().to_string();
            linkat(descriptors, &source, &place.folder, name, follow)
        }
        None => Err(Errno::NOENT),
    }
}

fn unlink(place: &Place, name: &str) -> Result<(), Errno> {
    unlinkat(&place.folder, name, AtFlags::empty())
}

/// An unnamed file, and what the file system does with names for it; or why there is none that could be
/// named later.
fn create_unnamed(
    place: &Place,
    temporary: &str,
    mode: Mode,
) -> Result<Result<(OwnedFd, Links), WhyNamed>, Trouble> {
    match open_unnamed(place, mode) {
        Ok(file) => {
            let links = try_a_name(place, file.as_fd(), temporary)?;
            Ok(links.map(|links| (file, links)))
        }
        // Each file system and kernel has its own way to say that it does not know the flag.
        Err(errno @ (Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT)) => {
            Ok(Err(WhyNamed::of(place, errno)))
        }
        Err(errno) => Err(errno.into()),
    }
}

fn open_unnamed(place: &Place, mode: Mode) -> Result<OwnedFd, Errno> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    openat(&place.folder, ".", flags, mode)
}

/// Tries out, with another file, whether an unnamed one can get a name here, and whether that is counted;
/// or why it can get none. Layered and network file systems, a missing /proc and security modules
/// all have their own reasons against it, and after the copy it would be too late.
fn try_a_name(
    place: &Place,
    file: BorrowedFd<'_>,
    temporary: &str,
) -> Result<Result<Links, WhyNamed>, Trouble> {
    if place.append_only {
        // In such a folder a name cannot be removed again, so that only half of this can be tried out.
        let path = file.as_raw_fd().to_string();
        let found = |folder: &OwnedFd| statat(folder, &path, AtFlags::empty()).is_ok();
        let found = place.descriptors.as_ref().is_some_and(found);
        return Ok(match found {
            true => Ok(Links::Unknown),
            false => Err(WhyNamed::NoProc),
        });
    }
    let file = match open_unnamed(place, Mode::RUSR | Mode::WUSR) {
        Ok(file) => file,
        Err(errno) => return Ok(Err(WhyNamed::of(place, errno))),
    };
    let before = names(file.as_fd());
    let name = OsStr::new(temporary);
    if let Err(errno) = link_once(file.as_fd(), || link(place, file.as_fd(), name)) {
        return Ok(Err(WhyNamed::of(place, errno)));
    }
    let links = match is_one_more(before, names(file.as_fd())) {
        true => Links::Counted,
        false => Links::Uncounted,
    };
    match unlink(place, temporary) {
        // Somebody else has removed it.
        Ok(()) | Err(Errno::NOENT) => Ok(Ok(links)),
        Err(errno) => Err(Trouble::Remove {
            left: temporary.to_owned(),
            second: None,
            errno,
        }),
    }
}

fn create_hidden(place: &Place, name: &str, mode: Mode) -> Result<OwnedFd, Errno> {
    if place.append_only {
        // In such a folder a hidden file could not be renamed.
        return Err(Errno::PERM);
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let created = openat(&place.folder, name, flags, mode);
    // A file system on a network may have made it all the same.
    if matches!(created, Err(errno) if errno != Errno::EXIST) {
        let _ = unlink(place, name);
    }
    created
}

/// `.vmm-RANDOM.tmp`: short and of letters that every file system has, since each counts the room
/// for a name in its own way.
fn temporary_name() -> String {
    let random = RandomState::new().build_hasher().finish();
    format!(".vmm-{random:016x}.tmp")
}

/// A name that something has for a moment besides its own.
fn second_name(temporary: &str) -> String {
    format!("{temporary}~")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_name_is_hidden_unique_and_valid_on_every_file_system() {
        let name = temporary_name();
        assert!(
            name.starts_with(".vmm-") && name.ends_with(".tmp"),
            "{name}"
        );
        assert!(name.is_ascii() && name.len() <= 32, "{name}");
        assert_ne!(temporary_name(), temporary_name());
    }
}
