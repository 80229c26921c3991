//! The files of the system that measures, as the content of a disk: programs, libraries, documents and
//! data, which compress as those of a virtual machine do.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Where a file begins, as on a file system.
const BLOCK: u64 = 4096;
/// Where they are taken from, the first ones first.
const FOLDERS: [&str; 4] = ["/usr/bin", "/usr/lib", "/usr/share", "/usr"];

/// Writes `length` bytes of the system's files to `path`, and has them on stable storage. The rest
/// is a hole if there are not so many.
///
/// # Errors
///
/// The system's reason. A file that cannot be read is left out.
pub(crate) fn collect(path: &Path, length: u64) -> io::Result<()> {
    let mut disk = File::create(path)?;
    let mut folders: Vec<PathBuf> = FOLDERS.iter().rev().map(PathBuf::from).collect();
    let mut at = 0;
    while let Some(folder) = folders.pop()
        && at < length
    {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        let mut entries: Vec<_> = entries.flatten().collect();
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && at < length {
                at += append(&mut disk, &entry.path(), at, length - at)?;
            }
        }
    }
    disk.set_len(length)?;
    disk.sync_all()
}

/// Puts at most `room` bytes of the file at `at`; returns how far it goes.
fn append(disk: &mut File, path: &Path, at: u64, room: u64) -> io::Result<u64> {
    let Ok(file) = File::open(path) else {
        return Ok(0);
    };
    disk.seek(SeekFrom::Start(at))?;
    let copied = io::copy(&mut file.take(room), &mut &*disk)?;
    disk.flush()?;
    Ok(copied.next_multiple_of(BLOCK).min(room))
}
