//! The copy. A regular file appears under its name only when it is complete, in one step, with the
//! permissions that a user expects; until then, and after any failure, what had the name before
//! still has it. Devices are written in place.
//!
//! Nothing is stored beyond the input's length: what the disk's last sector has more than that is
//! dropped and reads as zeros.
//!
//! System calls after [`OutputFile::create`]: `preadv` and `pwritev` for the disk, `fdatasync` for
//! its flush if durability was asked for; `close`, `fsync`, `linkat`, `renameat` and `unlinkat`,
//! all relative to descriptors that are open, in [`OutputFile::commit`]; `unlinkat` and `close`
//! when it is dropped. The process must ignore SIGXFSZ, or a file size limit kills it instead of
//! failing the write: that is the program's to do.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{OFlags, fdatasync, fsync};
use rustix::io::Errno;
use vm_memory::VolatileSlice;

use super::coverage::Coverage;
use super::descriptor::Descriptor;
use super::error::{FileError, Role};
use super::input::InputFile;
use super::late::LateErrors;
use super::staging::{Naming, Staging, adopt_permissions};
use super::target::{Place, Target, find};
use super::zeros;
use crate::storage::Storage;

/// How the output is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct OutputOptions {
    /// Past the page cache, where the file system allows it.
    pub direct: bool,
    /// Durably: the disk's flush and [`OutputFile::commit`] wait for stable storage.
    pub fsync: bool,
}

/// The output of a copy, open for writing.
#[derive(Debug)]
pub struct OutputFile {
    path: PathBuf,
    file: Descriptor,
    /// None for a device, which is written in place.
    staging: Option<Staging>,
    /// The input's length in bytes.
    length: u64,
    fsync: bool,
    coverage: Mutex<Coverage>,
    covered: AtomicU64,
    /// Set when the output is to be put in place: from then on it cannot be written.
    sealed: AtomicBool,
    late_errors: Mutex<Option<LateErrors>>,
}

impl OutputFile {
    /// Prepares the output at `path` for a copy of `input`. What is there is not touched; only a
    /// device is opened for writing.
    ///
    /// # Errors
    ///
    /// The path is the input itself, a directory, FIFO, socket or terminal; its folder is missing
    /// or cannot be written; an existing file may not be replaced; a block device is too small.
    pub fn create(
        path: &Path,
        input: &InputFile,
        options: OutputOptions,
    ) -> Result<Self, FileError> {
        Self::create_named(path, input, options, Naming::Unnamed)
    }

    fn create_named(
        path: &Path,
        input: &InputFile,
        options: OutputOptions,
        naming: Naming,
    ) -> Result<Self, FileError> {
        let (file, staging) = match find(path, input)? {
            Target::Device(device) => (Descriptor::new(device, options.direct, OFlags::RDWR), None),
            Target::File(place) => {
                let (file, staging) = stage(*place, options.direct, naming)?;
                (file, Some(staging))
            }
        };
        let late_errors = LateErrors::of(&file).map_err(|source| FileError::Open {
            role: Role::Output,
            path: path.into(),
            source,
        })?;
        Ok(Self {
            path: path.into(),
            file,
            staging,
            length: input.len(),
            fsync: options.fsync,
            coverage: Mutex::new(Coverage::new()),
            covered: AtomicU64::new(0),
            sealed: AtomicBool::new(false),
            late_errors: Mutex::new(Some(late_errors)),
        })
    }

    /// The path as the user gave it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many different bytes of the output have been written. It never falls, and costs no more
    /// than a load.
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.covered.load(Ordering::Relaxed)
    }

    /// The folder in which [`commit`](Self::commit) gives the output its name, for a sandbox that
    /// must allow this and nothing else. None for a device.
    #[must_use]
    pub fn folder(&self) -> Option<BorrowedFd<'_>> {
        self.staging
            .as_ref()
            .map(|staging| staging.place().folder.as_fd())
    }

    /// Lines for the user: what was asked for and is not so, and what a killed run can leave.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> = self.file.note().into_iter().collect();
        if let Some(staging) = &self.staging {
            let place = staging.place();
            if let Some(name) = staging.hidden_name() {
                notes.push(format!(
                    "the file system has no unnamed files; if this run is killed it leaves {}",
                    place.folder_path.join(name).display()
                ));
            }
            if self.fsync && !place.folder_syncs {
                notes.push("its folder cannot be read, so its name cannot be made durable".into());
            }
            if place
                .existing
                .as_ref()
                .is_some_and(|stat| stat.st_nlink > 1)
            {
                notes.push("it has other hard links; those keep the old content".into());
            }
        }
        let line = |note| format!("output {}: {note}", self.path.display());
        notes.into_iter().map(line).collect()
    }

    /// Checks that the copy is complete and puts it in place. No write may be under way; later
    /// ones are refused. After a failure the copy is given up: there is nothing to try again.
    ///
    /// # Errors
    ///
    /// A byte was never written, what was written could not be stored, or the name could not be
    /// given. What had the name before still has it, unless the error is
    /// [`FileError::Sync`] on the folder: then the copy has its name, but perhaps not durably.
    pub fn commit(&self) -> Result<(), FileError> {
        self.sealed.store(true, Ordering::SeqCst);
        self.check_complete()?;
        self.settle()?;
        let Some(staging) = &self.staging else {
            return Ok(());
        };
        let placed = staging.put_in_place(self.file.as_fd());
        placed.map_err(|source| FileError::Place {
            path: self.path.clone(),
            source,
        })?;
        let place = staging.place();
        if self.fsync && place.folder_syncs {
            let path = place.folder_path.clone();
            fsync(&place.folder).map_err(|errno| FileError::Sync {
                path,
                source: errno.into(),
            })?;
        }
        Ok(())
    }

    fn check_complete(&self) -> Result<(), FileError> {
        let coverage = lock(&self.coverage);
        match coverage.first_missing(self.length) {
            None => Ok(()),
            Some(offset) => Err(FileError::Incomplete {
                path: self.path.clone(),
                offset,
                length: self.length,
                forgotten: coverage.forgotten(),
            }),
        }
    }

    /// Waits for what the file system still owes: its errors, and durability if asked for.
    fn settle(&self) -> Result<(), FileError> {
        let failed = |source| FileError::Sync {
            path: self.path.clone(),
            source,
        };
        if let Some(late_errors) = lock(&self.late_errors).take() {
            late_errors.collect().map_err(failed)?;
        }
        if self.fsync {
            ignore_unsyncable(fsync(&self.file)).map_err(failed)
        } else {
            Ok(())
        }
    }

    fn record(&self, start: u64, end: u64) {
        let mut coverage = lock(&self.coverage);
        coverage.add(start, end);
        self.covered.store(coverage.covered(), Ordering::Relaxed);
    }
}

impl Storage for OutputFile {
    fn read_at(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        let stored = zeros::clip(offset, buffers, self.length);
        let read = match self.file.read(offset, buffers, stored) {
            Ok(()) => stored,
            // Not written yet: the file ends before the disk does.
            Err(partial) if partial.source.kind() == io::ErrorKind::UnexpectedEof => partial.done,
            Err(partial) => {
                let (path, offset) = (self.path.clone(), offset.saturating_add(partial.done));
                let source = partial.source;
                return Err(FileError::Read {
                    role: Role::Output,
                    path,
                    offset,
                    source,
                }
                .into());
            }
        };
        zeros::fill(buffers, read);
        Ok(())
    }

    fn write_at(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        if self.sealed.load(Ordering::SeqCst) {
            return Err(FileError::Sealed {
                path: self.path.clone(),
                offset,
            }
            .into());
        }
        let stored = zeros::clip(offset, buffers, self.length);
        let written = self.file.write(offset, buffers, stored);
        let done = written
            .as_ref()
            .map_or_else(|partial| partial.done, |()| stored);
        let end = offset.saturating_add(done);
        self.record(offset, end);
        written.map_err(|partial| {
            FileError::Write {
                path: self.path.clone(),
                offset: end,
                source: partial.source,
            }
            .into()
        })
    }

    fn flush(&self) -> io::Result<()> {
        if !self.fsync {
            return Ok(());
        }
        ignore_unsyncable(fdatasync(&self.file)).map_err(|source| {
            FileError::Sync {
                path: self.path.clone(),
                source,
            }
            .into()
        })
    }
}

/// Makes the file that will become the output.
fn stage(place: Place, direct: bool, naming: Naming) -> Result<(Descriptor, Staging), FileError> {
    let (path, folder) = (place.path.clone(), place.folder_path.clone());
    let existing = place.existing;
    let (staging, file) = Staging::create(place, naming).map_err(|source| FileError::Folder {
        path: path.clone(),
        folder,
        source,
    })?;
    // Opened for direct transfers before its permissions may forbid to open it.
    let file = Descriptor::new(file, direct, OFlags::RDWR);
    if let Some(existing) = existing {
        let advice = "its permissions cannot be kept; choose another output";
        adopt_permissions(file.as_fd(), &existing).map_err(|source| FileError::Replace {
            path,
            source,
            advice,
        })?;
    }
    Ok((file, staging))
}

/// A device such as /dev/null has nothing to sync and says so with EINVAL.
fn ignore_unsyncable(synced: Result<(), Errno>) -> io::Result<()> {
    match synced {
        Err(Errno::INVAL) => Ok(()),
        synced => Ok(synced?),
    }
}

/// No state is left half changed by a panic, so that a poisoned lock is as good as another.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
