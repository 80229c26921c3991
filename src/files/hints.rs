//! The end of a message: what the user can do about the system's reason.

use std::io;

use super::error::Role;

pub(super) fn wanted(role: Role) -> &'static str {
    match role {
        Role::Input | Role::Guest => "a regular file or a block device",
        Role::Output => "the name of a file, a block device, or /dev/null",
        Role::Statistics => "the name of a file, or /dev/null",
    }
}

pub(super) fn open_hint(role: Role, error: &io::Error) -> &'static str {
    match (role, error.kind()) {
        (Role::Input | Role::Guest, io::ErrorKind::NotFound) => "; check the path",
        (Role::Input | Role::Guest, io::ErrorKind::PermissionDenied) => {
            "; you need permission to read it"
        }
        (_, io::ErrorKind::PermissionDenied) => "; you need permission to write it",
        (Role::Output, io::ErrorKind::ReadOnlyFilesystem) => {
            "; choose another, or allow it to be written (blockdev --setrw for a device)"
        }
        (Role::Output, io::ErrorKind::ResourceBusy) => {
            "; unmount it, or stop what uses it, or give --force if you know better"
        }
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
        _ => "",
    }
}

pub(super) fn place_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; its folder is gone",
        io::ErrorKind::IsADirectory => "; a directory has taken its name",
        io::ErrorKind::AlreadyExists => "; something has come to its name, and is left there",
        io::ErrorKind::PermissionDenied => {
            "; a directory has taken its name, or its folder may not be written any more"
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
