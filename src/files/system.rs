//! The system calls on files that take a name or look at a file, each repeated when a signal
//! interrupts it ([`repeat`](crate::repeat)): network file systems and FUSE can be interrupted in all of
//! them. What else this module's neighbours want of rustix they take from it directly; transfers and
//! syncing are repeated by their [`Cancel`](crate::storage::Cancel).

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    Access, AtFlags, Gid, IFlags, Mode, OFlags, RenameFlags, SeekFrom, Stat, StatFs, Statx,
    StatxFlags, Uid, XattrFlags,
};
use rustix::io::{Errno, Result};
use rustix::path::Arg;

use crate::repeat::interrupted;

/// open(2).
pub(super) fn open(path: impl Arg + Copy, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    interrupted(|| rustix::fs::open(path, flags, mode))
}

/// openat(2).
pub(super) fn openat(
    folder: impl AsFd,
    path: impl Arg + Copy,
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd> {
    interrupted(|| rustix::fs::openat(&folder, path, flags, mode))
}

/// fstat(2).
pub(super) fn fstat(file: impl AsFd) -> Result<Stat> {
    interrupted(|| rustix::fs::fstat(&file))
}

/// fstatfs(2).
pub(super) fn fstatfs(file: impl AsFd) -> Result<StatFs> {
    interrupted(|| rustix::fs::fstatfs(&file))
}

/// fstatat(2).
pub(super) fn statat(folder: impl AsFd, path: impl Arg + Copy, flags: AtFlags) -> Result<Stat> {
    interrupted(|| rustix::fs::statat(&folder, path, flags))
}

/// statx(2).
pub(super) fn statx(
    folder: impl AsFd,
    path: impl Arg + Copy,
    flags: AtFlags,
    wanted: StatxFlags,
) -> Result<Statx> {
    interrupted(|| rustix::fs::statx(&folder, path, flags, wanted))
}

/// faccessat2(2), or faccessat(2) where a container's filter says EPERM to all calls that it does not
/// know. That one asks for the real user, who is hardly ever another one than the effective.
pub(super) fn accessat(
    folder: impl AsFd,
    path: impl Arg + Copy,
    access: Access,
    flags: AtFlags,
) -> Result<()> {
    let ask = |flags| interrupted(|| rustix::fs::accessat(&folder, path, access, flags));
    match ask(flags) {
        Err(Errno::PERM) if flags == AtFlags::EACCESS => ask(AtFlags::empty()),
        answer => answer,
    }
}

/// readlinkat(2); the link's bytes.
pub(super) fn readlinkat(folder: impl AsFd, path: impl Arg + Copy) -> Result<Vec<u8>> {
    let link = interrupted(|| rustix::fs::readlinkat(&folder, path, Vec::new()))?;
    Ok(link.into_bytes())
}

/// linkat(2).
pub(super) fn linkat(
    old_folder: impl AsFd,
    old: impl Arg + Copy,
    new_folder: impl AsFd,
    new: impl Arg + Copy,
    flags: AtFlags,
) -> Result<()> {
    interrupted(|| rustix::fs::linkat(&old_folder, old, &new_folder, new, flags))
}

/// renameat(2).
pub(super) fn renameat(
    old_folder: impl AsFd,
    old: impl Arg + Copy,
    new_folder: impl AsFd,
    new: impl Arg + Copy,
) -> Result<()> {
    interrupted(|| rustix::fs::renameat(&old_folder, old, &new_folder, new))
}

/// renameat2(2), unless something has the new name.
pub(super) fn rename_to_free(
    old_folder: impl AsFd,
    old: impl Arg + Copy,
    new_folder: impl AsFd,
    new: impl Arg + Copy,
) -> Result<()> {
    let flags = RenameFlags::NOREPLACE;
    interrupted(|| rustix::fs::renameat_with(&old_folder, old, &new_folder, new, flags))
}

/// unlinkat(2).
pub(super) fn unlinkat(folder: impl AsFd, path: impl Arg + Copy, flags: AtFlags) -> Result<()> {
    interrupted(|| rustix::fs::unlinkat(&folder, path, flags))
}

/// fchmod(2).
pub(super) fn fchmod(file: impl AsFd, mode: Mode) -> Result<()> {
    interrupted(|| rustix::fs::fchmod(&file, mode))
}

/// fchown(2).
pub(super) fn fchown(file: impl AsFd, owner: Option<Uid>, group: Option<Gid>) -> Result<()> {
    interrupted(|| rustix::fs::fchown(&file, owner, group))
}

/// fgetxattr(2); how many bytes of `value` are it.
pub(super) fn fgetxattr(file: impl AsFd, name: impl Arg + Copy, value: &mut [u8]) -> Result<usize> {
    interrupted(|| rustix::fs::fgetxattr(&file, name, &mut *value))
}

/// flistxattr(2); how many bytes of `names` are them.
pub(super) fn flistxattr(file: impl AsFd, names: &mut [u8]) -> Result<usize> {
    interrupted(|| rustix::fs::flistxattr(&file, &mut *names))
}

/// lgetxattr(2); how many bytes of `value` are it.
pub(super) fn lgetxattr(
    path: impl Arg + Copy,
    name: impl Arg + Copy,
    value: &mut [u8],
) -> Result<usize> {
    interrupted(|| rustix::fs::lgetxattr(path, name, &mut *value))
}

/// llistxattr(2); how many bytes of `names` are them.
pub(super) fn llistxattr(path: impl Arg + Copy, names: &mut [u8]) -> Result<usize> {
    interrupted(|| rustix::fs::llistxattr(path, &mut *names))
}

/// fsetxattr(2).
pub(super) fn fsetxattr(
    file: impl AsFd,
    name: impl Arg + Copy,
    value: &[u8],
    flags: XattrFlags,
) -> Result<()> {
    interrupted(|| rustix::fs::fsetxattr(&file, name, value, flags))
}

/// fremovexattr(2).
pub(super) fn fremovexattr(file: impl AsFd, name: impl Arg + Copy) -> Result<()> {
    interrupted(|| rustix::fs::fremovexattr(&file, name))
}

/// lseek(2), which asks some file systems where data is.
pub(super) fn seek(file: impl AsFd, to: SeekFrom) -> Result<u64> {
    interrupted(|| rustix::fs::seek(&file, to))
}

/// FS_IOC_GETFLAGS (ioctl_iflags(2)).
pub(super) fn ioctl_getflags(file: impl AsFd) -> Result<IFlags> {
    interrupted(|| rustix::fs::ioctl_getflags(&file))
}

/// ftruncate(2).
pub(super) fn ftruncate(file: impl AsFd, length: u64) -> Result<()> {
    interrupted(|| rustix::fs::ftruncate(&file, length))
}

/// pread(2).
pub(super) fn pread(file: impl AsFd, bytes: &mut [u8], offset: u64) -> Result<usize> {
    interrupted(|| rustix::io::pread(&file, &mut *bytes, offset))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;
    use std::path::Path;

    /// A call that goes past this module is not repeated.
    #[test]
    fn the_calls_that_can_be_interrupted_are_made_here_and_nowhere_else_among_the_files() {
        let here = include_str!("system.rs");
        let names: Vec<_> = here
            .lines()
            .filter_map(|line| line.strip_prefix("pub(super) fn "))
            .filter_map(|rest| rest.split('(').next())
            .collect();
        assert!(names.len() > 15, "{names:?}");
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/files");
        let mut looked_at = 0;
        for folder in [folder.join("output"), folder] {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_none_or(|end| end != "rs") || path.ends_with("system.rs") {
                    continue;
                }
                let text = fs::read_to_string(&path).unwrap();
                let (code, _tests) = text.split_once("#[cfg(test)]").unwrap_or((&text, ""));
                let imports = code.split("\nuse rustix::").skip(1);
                for import in imports.filter_map(|rest| rest.split(';').next()) {
                    for word in import.split(|letter: char| !letter.is_alphanumeric()) {
                        assert!(!names.contains(&word), "{}: {word}", path.display());
                    }
                }
                looked_at += 1;
            }
        }
        assert!(looked_at > 15, "{looked_at}");
    }
}
