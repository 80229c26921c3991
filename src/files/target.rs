//! Where the output goes: looks at what its path names, follows links to where a new file would
//! have to appear, and refuses what cannot work, all before anything is touched (path_resolution(7),
//! open(2)).

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    Access, AtFlags, CWD, FileType, Mode, OFlags, SeekFrom, Stat, StatxAttributes, StatxFlags,
    accessat, fstat, open, readlinkat, seek, statat, statx,
};
use rustix::io::Errno;

use super::error::{FileError, Role};
use super::input::InputFile;

/// As many links as the kernel follows in a path (MAXSYMLINKS).
const MAX_LINKS: usize = 40;

/// What an output path stands for.
#[derive(Debug)]
pub(super) enum Target {
    /// A regular file, there or not, that is made anew and put in place.
    File(Box<Place>),
    /// A device, open for reading and writing, that is written in place.
    Device(OwnedFd),
}

/// A name in an open folder.
#[derive(Debug)]
pub(super) struct Place {
    /// The output as the user gave it.
    pub(super) path: PathBuf,
    /// The folder in which it appears, all links followed.
    pub(super) folder_path: PathBuf,
    /// That folder, open for the calls that take one.
    pub(super) folder: OwnedFd,
    /// Whether the folder could be opened so that it can be synced too.
    pub(super) folder_syncs: bool,
    /// The name in the folder.
    pub(super) name: OsString,
    /// The file that is replaced.
    pub(super) existing: Option<Stat>,
}

/// Finds out what `path` stands for.
pub(super) fn find(path: &Path, input: &InputFile) -> Result<Target, FileError> {
    let existing = match statat(CWD, path, AtFlags::empty()) {
        Ok(stat) => Some(stat),
        Err(Errno::NOENT) => None,
        Err(errno) => return Err(open_failed(path, errno)),
    };
    if existing.as_ref().is_some_and(|stat| input.is(stat)) {
        return Err(FileError::SameFile {
            input: input.path().into(),
            output: path.into(),
        });
    }
    match existing
        .as_ref()
        .map(|stat| FileType::from_raw_mode(stat.st_mode))
    {
        None | Some(FileType::RegularFile) => {
            find_place(path, existing).map(|place| Target::File(Box::new(place)))
        }
        Some(FileType::BlockDevice) => open_block_device(path, input.len()).map(Target::Device),
        Some(FileType::CharacterDevice) => open_character_device(path).map(Target::Device),
        Some(FileType::Directory) => Err(wrong_kind(path, "a directory")),
        Some(FileType::Fifo) => Err(wrong_kind(path, "a FIFO")),
        Some(FileType::Socket) => Err(wrong_kind(path, "a socket")),
        Some(_) => Err(wrong_kind(path, "of an unknown kind")),
    }
}

fn find_place(path: &Path, existing: Option<Stat>) -> Result<Place, FileError> {
    let followed = follow_links(path)?;
    if followed.as_os_str().as_bytes().ends_with(b"/") {
        return Err(wrong_kind(path, "a folder's name, as it ends in a slash"));
    }
    let Some(name) = followed.file_name().map(OsStr::to_owned) else {
        return Err(wrong_kind(path, "not the name of a file"));
    };
    let folder_path = match followed.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    let (folder, folder_syncs) = open_folder(&folder_path).map_err(|errno| FileError::Folder {
        path: path.into(),
        folder: folder_path.clone(),
        source: errno.into(),
    })?;
    let place = Place {
        path: path.into(),
        folder_path,
        folder,
        folder_syncs,
        name,
        existing,
    };
    match &place.existing {
        Some(stat) => check_replaceable(&place, stat).map(|()| place),
        None => Ok(place),
    }
}

/// The path that a new file must have so that `path`, if it is a link, leads to it.
fn follow_links(path: &Path) -> Result<PathBuf, FileError> {
    let mut followed = path.to_owned();
    for _ in 0..MAX_LINKS {
        let link = match readlinkat(CWD, &followed, Vec::new()) {
            Ok(link) => link,
            // Not a link, or nothing there: this is the place.
            Err(Errno::INVAL | Errno::NOENT | Errno::NOTDIR) => return Ok(followed),
            Err(errno) => return Err(open_failed(path, errno)),
        };
        // An absolute link replaces the whole path.
        followed = followed
            .parent()
            .unwrap_or(Path::new(""))
            .join(OsStr::from_bytes(link.as_bytes()));
    }
    Err(open_failed(path, Errno::LOOP))
}

/// Opens a folder; also tells whether it can be synced, which takes permission to read it.
fn open_folder(path: &Path) -> Result<(OwnedFd, bool), Errno> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    match open(path, flags | OFlags::RDONLY, Mode::empty()) {
        Ok(folder) => Ok((folder, true)),
        Err(Errno::ACCESS) => {
            open(path, flags | OFlags::PATH, Mode::empty()).map(|folder| (folder, false))
        }
        Err(errno) => Err(errno),
    }
}

/// Refuses an existing file that a user would not expect to be replaced, or that the system would
/// not let us replace when the copy is complete.
fn check_replaceable(place: &Place, existing: &Stat) -> Result<(), FileError> {
    let refused = |errno: Errno, advice| {
        Err(FileError::Replace {
            path: place.path.clone(),
            source: errno.into(),
            advice,
        })
    };
    let here = statat(&place.folder, &place.name, AtFlags::SYMLINK_NOFOLLOW);
    if !here.is_ok_and(|here| (here.st_dev, here.st_ino) == (existing.st_dev, existing.st_ino)) {
        return refused(
            Errno::NOENT,
            "it has no name in a folder; give the path of a file",
        );
    }
    // Asked of the path: rename would not ask for it, but cp would.
    if let Err(errno) = accessat(
        &place.folder,
        &place.name,
        Access::WRITE_OK,
        AtFlags::EACCESS,
    ) {
        return refused(
            errno,
            "make it writable (chmod u+w) or choose another output",
        );
    }
    if !may_rename_over(place, existing) {
        return refused(
            Errno::PERM,
            "only its owner may replace it in that folder; choose another",
        );
    }
    if is_mount_point(place) {
        return refused(
            Errno::BUSY,
            "it is a mount point; give a path in an ordinary folder",
        );
    }
    Ok(())
}

/// In a folder with the sticky bit (as /tmp), only the owner of a file or of the folder may
/// replace it.
fn may_rename_over(place: &Place, existing: &Stat) -> bool {
    let user = rustix::process::geteuid();
    match fstat(&place.folder) {
        Ok(folder) if Mode::from_raw_mode(folder.st_mode).contains(Mode::SVTX) => {
            user.is_root() || user.as_raw() == existing.st_uid || user.as_raw() == folder.st_uid
        }
        _ => true,
    }
}

/// A file that is mounted by itself (as containers do) has a name that cannot be given to another.
fn is_mount_point(place: &Place) -> bool {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    statx(&place.folder, &place.name, flags, StatxFlags::TYPE)
        .is_ok_and(|answer| answer.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

fn open_block_device(path: &Path, needed: u64) -> Result<OwnedFd, FileError> {
    // O_EXCL: not while it is mounted or otherwise in use.
    let flags = OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC;
    let device = open(path, flags, Mode::empty()).map_err(|errno| open_failed(path, errno))?;
    let size = seek(&device, SeekFrom::End(0)).map_err(|errno| open_failed(path, errno))?;
    if size < needed {
        return Err(FileError::TooSmall {
            path: path.into(),
            size,
            needed,
        });
    }
    Ok(device)
}

fn open_character_device(path: &Path) -> Result<OwnedFd, FileError> {
    // O_NONBLOCK: to open a serial line would wait for a carrier.
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let device = open(path, flags, Mode::empty()).map_err(|errno| open_failed(path, errno))?;
    let device = File::from(device);
    if device.is_terminal() {
        return Err(wrong_kind(path, "a terminal"));
    }
    match seek(&device, SeekFrom::Current(0)) {
        Ok(_) => Ok(device.into()),
        Err(_) => Err(wrong_kind(path, "a device without offsets")),
    }
}

fn open_failed(path: &Path, errno: Errno) -> FileError {
    FileError::Open {
        role: Role::Output,
        path: path.into(),
        source: io::Error::from(errno),
    }
}

fn wrong_kind(path: &Path, found: &'static str) -> FileError {
    FileError::Kind {
        role: Role::Output,
        path: path.into(),
        found,
    }
}
