//! The end of a message: what the user can do about the system's reason.

use std::io;
use std::path::Path;

use super::error::Role;
use crate::limits;
use crate::quote::quote_path;
use crate::reason::reason;

pub(super) fn wanted(role: Role) -> &'static str {
    match role {
        Role::Input | Role::Backing | Role::Guest => "a regular file or a block device",
        Role::Output => "the name of a file, a block device, or /dev/null",
        Role::Statistics => "the name of a file, or /dev/null",
    }
}

pub(super) fn open_hint(role: Role, error: &io::Error) -> &'static str {
    match (role, error.kind()) {
        (Role::Input | Role::Backing | Role::Guest, io::ErrorKind::NotFound)
        | (_, io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename) => "; check the path",
        (Role::Input | Role::Backing | Role::Guest, io::ErrorKind::PermissionDenied) => {
            "; you need permission to read it"
        }
        (_, io::ErrorKind::PermissionDenied) => "; you need permission to write it",
        (Role::Output, io::ErrorKind::ReadOnlyFilesystem) => {
            "; choose another, or allow it to be written (blockdev --setrw for a device)"
        }
        (Role::Output, io::ErrorKind::ResourceBusy) => {
            "; unmount it, or stop what uses it, or give --force if you know better"
        }
        _ => limit_hint(error),
    }
}

/// What to do about a limit of the process or of the host that was met, or about a key that is missing.
pub(super) fn limit_hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(errno @ (libc::EMFILE | libc::ENFILE | libc::ENOMEM)) => limits::hint(errno),
        // What is read or written lies in memory that is always mapped: there was no page for it.
        Some(libc::EFAULT) => limits::hint(libc::ENOMEM),
        Some(libc::ENOKEY) => "; unlock its folder, which is encrypted: add its key",
        _ => "",
    }
}

pub(super) fn folder_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; create the folder first",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; choose a folder that you can write to"
        }
        io::ErrorKind::NotADirectory => "; choose a folder",
        _ => space_hint(error),
    }
}

pub(super) fn space_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; make room there, or choose another file system"
        }
        io::ErrorKind::FileTooLarge => {
            "; raise the limit of file sizes (ulimit -f) if there is one, or choose a file system \
             that makes files so large"
        }
        _ => limit_hint(error),
    }
}

/// What to do about a write that has failed, to a file or a device.
pub(super) fn write_hint(error: &io::Error, is_device: bool) -> &'static str {
    match (is_device, error.raw_os_error()) {
        (true, Some(libc::ENOSPC)) => "; give a larger device",
        (true, Some(libc::EPERM)) => "; allow it to be written (blockdev --setrw)",
        // As hugetlbfs says it.
        (false, Some(libc::EINVAL)) => "; choose a folder on another file system",
        _ => space_hint(error),
    }
}

/// Why a write has failed. The system may take nothing of what is written and give no reason.
pub(super) fn why_not_written(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WriteZero => "the file system took nothing of what was written".into(),
        _ => reason(error),
    }
}

/// The names of a file that was made to try out its folder.
pub(super) fn names_of_trial(left: &Path, second: Option<&Path>) -> String {
    let second = second.map_or_else(String::new, |second| {
        format!(" (and {}, another name of it)", quote_path(second))
    });
    format!("{}{second}", quote_path(left))
}

/// Why a complete file could not get its name, where it is if it has another one, and what else is there:
/// a second name of what has its name.
pub(super) fn place_hint(advice: &str, left: Option<&Path>, second: Option<&Path>) -> String {
    let left = left.map_or_else(String::new, |left| {
        let left = quote_path(left);
        format!(
            "; all of it is in {left}, which cannot be removed now: once its folder allows that (chattr \
             -ia, if it has become append-only or immutable), give it its name (mv) or remove it"
        )
    });
    let second = second.map_or_else(String::new, |second| {
        format!(
            "; {}, a second name of the file that has its name, is to be removed as well once the folder \
             allows that",
            quote_path(second)
        )
    });
    format!("{advice}{left}{second}")
}

pub(super) const FOLDER_IS_GONE: &str = "; its folder is gone";

/// Of a file whose hidden name is gone while something has its own.
pub(super) const MAY_BE_PLACED: &str = "; it has lost its temporary name, so that it may be in \
place: look whether what is there is the new one";

pub(super) fn why_not_placed(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; its temporary name, or its folder, is gone",
        io::ErrorKind::IsADirectory => "; a directory has taken its name",
        io::ErrorKind::AlreadyExists => "; something has come to its name, and is left there",
        io::ErrorKind::PermissionDenied => {
            "; a directory has taken its name, or what has its name, or its folder, may not be changed \
             any more"
        }
        _ => space_hint(error),
    }
}

pub(super) fn forgotten_hint(forgotten: bool) -> &'static str {
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
    fn what_a_user_can_do_about_an_error_is_said() {
        let error = io::Error::from_raw_os_error;
        let [missing, denied, busy] = [libc::ENOENT, libc::EACCES, libc::EBUSY].map(error);
        for (hint, part) in [
            (open_hint(Role::Input, &missing), "check the path"),
            (open_hint(Role::Guest, &denied), "permission to read"),
            (open_hint(Role::Output, &denied), "permission to write"),
            (open_hint(Role::Output, &busy), "--force"),
            (
                open_hint(Role::Output, &error(libc::ENOTDIR)),
                "check the path",
            ),
            (
                open_hint(Role::Output, &error(libc::ENAMETOOLONG)),
                "check the path",
            ),
            (limit_hint(&error(libc::EFAULT)), limits::hint(libc::ENOMEM)),
            (space_hint(&error(libc::EFAULT)), limits::hint(libc::ENOMEM)),
            (folder_hint(&missing), "create the folder"),
            (folder_hint(&denied), "that you can write to"),
            (folder_hint(&error(libc::EROFS)), "that you can write to"),
            (folder_hint(&error(libc::ENOTDIR)), "choose a folder"),
            (folder_hint(&error(libc::ENOSPC)), "make room"),
            (space_hint(&error(libc::EDQUOT)), "make room"),
            (write_hint(&error(libc::ENOSPC), false), "make room"),
            (write_hint(&error(libc::ENOSPC), true), "larger device"),
            (write_hint(&error(libc::EPERM), true), "--setrw"),
            (
                write_hint(&error(libc::EINVAL), false),
                "another file system",
            ),
            (open_hint(Role::Input, &error(libc::ENOKEY)), "add its key"),
            (folder_hint(&error(libc::ENOKEY)), "add its key"),
            (space_hint(&error(libc::EFBIG)), "ulimit -f"),
            (why_not_placed(&missing), "is gone"),
            (why_not_placed(&error(libc::EISDIR)), "a directory"),
            (why_not_placed(&denied), "may not be changed"),
            (
                &place_hint(FOLDER_IS_GONE, None, None),
                "its folder is gone",
            ),
            (&place_hint("", Some(Path::new("a/.b")), None), "is in a/.b"),
            (
                &place_hint("", None, Some(Path::new("a/.b~"))),
                "; a/.b~, a second name of the file",
            ),
            (forgotten_hint(true), "too many scattered pieces"),
            (
                &why_not_written(&io::ErrorKind::WriteZero.into()),
                "took nothing",
            ),
            (&why_not_written(&missing), "No such file"),
            (
                &names_of_trial(Path::new("a/.b~"), Some(Path::new("a/.b"))),
                "a/.b~ (and a/.b, ",
            ),
            (wanted(Role::Input), "block device"),
            (wanted(Role::Output), "/dev/null"),
            (&place_hint("", Some(Path::new("b")), None), "chattr -ia"),
        ] {
            assert!(hint.contains(part), "{hint} does not say {part}");
        }
    }

    #[test]
    fn where_nothing_can_be_done_nothing_is_said() {
        let broken = io::Error::from_raw_os_error(libc::EIO);
        assert_eq!(open_hint(Role::Input, &broken), "");
        assert_eq!(folder_hint(&broken), "");
        assert_eq!(why_not_placed(&broken), "");
        assert_eq!(write_hint(&broken, true), "");
        assert_eq!(forgotten_hint(false), "");
    }
}
