//! The folder that a measurement works in: input files of random bytes, and the check that an
//! output is a copy of its input. The folder goes when its owner goes.

use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::Advice;
use tempfile::TempDir;

/// What is read and compared at a time, in bytes. Small, because a child's peak memory is counted
/// from that of the process that starts it.
const CHUNK: usize = 64 * 1024;

/// What the file that gets memory ready is written with at a time, in bytes.
const PIECE: usize = 1024 * 1024;

/// A folder of its own within the one that the user named.
#[derive(Debug)]
pub(crate) struct Workspace {
    folder: TempDir,
}

impl Workspace {
    /// Makes a folder in `parent`, which is made too if it is not there.
    ///
    /// # Errors
    ///
    /// The system's reason.
    pub(crate) fn new(parent: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(parent)?;
        let folder = tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in(parent)?;
        Ok(Self { folder })
    }

    /// The path of the file `name`, whether it is there or not.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// An input of `bytes` random bytes, made at the first call, in the page cache and written back
    /// ([`settle`]).
    ///
    /// # Errors
    ///
    /// The system's reason.
    pub(crate) fn input(&self, bytes: u64) -> io::Result<PathBuf> {
        let path = self.path(&format!("input-{bytes}"));
        if !path.exists() {
            let mut random = File::open("/dev/urandom")?.take(bytes);
            let mut file = File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&path)?;
            let copied = io::copy(&mut random, &mut file)?;
            if copied != bytes {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            settle(&file)?;
        }
        Ok(path)
    }

    /// Lets no run pay for what was done before it: writes back what other runs have left, and has the
    /// memory for an output of `bytes` bytes ready. The host of a virtual machine may take free memory
    /// back, and to get it again takes many times as long as to use it.
    ///
    /// # Errors
    ///
    /// The system's reason.
    pub(crate) fn prepare(&self, bytes: u64) -> io::Result<()> {
        rustix::fs::sync();
        let path = self.path("scratch");
        let mut file = File::create(&path)?;
        // A file, since memory of this process would count as the peak of those that it starts. It is
        // written in large pieces: small ones leave small pages behind, and a program that writes
        // more at a time gets larger ones, which the host may have taken.
        let chunk = [0; CHUNK];
        let piece = [IoSlice::new(&chunk); PIECE / CHUNK];
        let mut left = bytes;
        while left >= PIECE as u64 {
            left -= file.write_vectored(&piece)? as u64;
        }
        io::copy(&mut io::repeat(0).take(left), &mut file)?;
        drop(file);
        remove(&path)
    }
}

/// Has all of a new file in the page cache as reading puts it there, and written back. Pages that were
/// put there by writing can take several times as long to read.
///
/// # Errors
///
/// The system's reason.
pub(crate) fn settle(file: &File) -> io::Result<()> {
    file.sync_all()?;
    rustix::fs::fadvise(file, 0, None, Advice::DontNeed)?;
    let length = file.metadata()?.len();
    let mut chunk = vec![0; CHUNK];
    let mut at = 0;
    while at < length {
        match file.read_at(&mut chunk, at)? {
            0 => break,
            read => at += read as u64,
        }
    }
    Ok(())
}

/// Removes `path` if it is there.
///
/// # Errors
///
/// The system's reason, except that there is no such file.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether two files hold the same bytes.
///
/// # Errors
///
/// The system's reason.
pub(crate) fn same(left: &Path, right: &Path) -> io::Result<bool> {
    let (mut left, mut right) = (File::open(left)?, File::open(right)?);
    let length = left.metadata()?.len();
    if length != right.metadata()?.len() {
        return Ok(false);
    }
    let (mut first, mut second) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        let read = left.read(&mut first)?;
        if read == 0 {
            return Ok(true);
        }
        right.read_exact(&mut second[..read])?;
        if first[..read] != second[..read] {
            return Ok(false);
        }
    }
}
