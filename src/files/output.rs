//! The copy. A regular file appears under its name only when it is complete, in one step, with the
//! permissions that a user expects; until then, and after any failure, what had the name before
//! still has it. Devices are written in place.
//!
//! Nothing is stored beyond the input's length: what the disk's last sector has more than that is
//! dropped and reads as zeros.
//!
//! System calls after [`OutputFile::create`]: `preadv`, `pwritev` and `fallocate` for the disk, and
//! `fdatasync` for its flush if durability was asked for; `close`, `fsync`, `fstat`, `lseek`, `ftruncate`,
//! `write`, `fchmod`, `fchown`, `fgetxattr`, `flistxattr`, `linkat`, `renameat`, `renameat2` and `unlinkat`, all
//! relative to descriptors that are open, in [`OutputFile::commit`]; `unlinkat` and `close` when it is
//! dropped. The program must ignore SIGXFSZ: otherwise a limit of the file size kills the process instead
//! of failing the write.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::OFlags;

use super::close_errors::CloseErrors;
use super::coverage::Coverage;
use super::descriptor::Descriptor;
use super::device;
use super::error::{Action, FileError, Role};
use super::identity::Known;
use super::input::InputFile;
use super::open::open_failed;
use super::staging::{Naming, Placing, Staging};
use super::sync::{Synced, sync_all};
use super::target::{Target, find};
use crate::lock::lock;
use crate::reason::reason;

mod disk;
mod seal;
mod shape;

use seal::Seal;
use shape::{check_length, fills_holes, room};

/// How the output is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct OutputOptions {
    /// Past the page cache, where the file system allows it.
    pub direct: bool,
    /// Durably: the disk's flush and [`OutputFile::commit`] wait for stable storage.
    pub fsync: bool,
    /// Even on a block device that is mounted or in use.
    pub force: bool,
    /// To be read back when it is written, for the sake of this option.
    pub read_back: Option<&'static str>,
    /// With this many bytes at the most.
    pub max_length: Option<u64>,
    /// Not as long as the input, but as long as [`OutputFile::declare_length`] says in the end.
    pub open_ended: bool,
}

/// The output of a copy, open for writing.
#[derive(Debug)]
pub struct OutputFile {
    path: PathBuf,
    file: Descriptor,
    /// None for a device, which is written in place.
    staging: Option<Staging>,
    /// How long it is to be, in bytes.
    length: AtomicU64,
    /// How long it may be.
    most: u64,
    /// The size of a block device.
    room: Option<u64>,
    /// Whether a file that grows costs as much as one that is written.
    fills_holes: bool,
    fsync: bool,
    coverage: Mutex<Coverage>,
    covered: AtomicU64,
    /// Whether a write has failed, so that the coverage need not have all that was stored.
    torn: AtomicBool,
    /// Set when the output is to be judged: from then on it cannot be written.
    seal: Seal,
    late_errors: Mutex<Option<CloseErrors>>,
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
        let most = options.max_length.unwrap_or(u64::MAX);
        let length = match options.open_ended {
            true => 0,
            false => input.len(),
        };
        check_length(path, length, most)?;
        let direct = |file| {
            let cancel = input.cancel().clone();
            Descriptor::new(file, options.direct, OFlags::RDWR, cancel)
        };
        let target = find(Role::Output, path, &[input.known()], length, options.force)?;
        let (file, staging) = match target {
            Target::Device(device) => {
                if let Some(wanted_by) = options.read_back
                    && device::size(&device).is_err()
                {
                    let path = path.into();
                    return Err(FileError::NotKept { path, wanted_by });
                }
                (direct(device), None)
            }
            Target::File(place) => {
                let (mut staging, file) = Staging::create(*place, naming)?;
                // Opened for direct transfers before its permissions may forbid to open it.
                let file = direct(file);
                staging.keep_permissions(file.as_fd())?;
                (file, Some(staging))
            }
        };
        let late_errors = CloseErrors::of(&file);
        let late_errors = late_errors.map_err(|source| open_failed(Role::Output, path, source))?;
        let room = room(&file);
        let most = room.map_or(most, |size| most.min(size));
        let output = Self {
            path: path.into(),
            staging,
            length: AtomicU64::new(match options.open_ended {
                true => most,
                false => length,
            }),
            most,
            room,
            fills_holes: fills_holes(&file),
            file,
            fsync: options.fsync,
            coverage: Mutex::new(Coverage::new()),
            covered: AtomicU64::new(0),
            torn: AtomicBool::new(false),
            seal: Seal::default(),
            late_errors: Mutex::new(Some(late_errors)),
        };
        if !options.open_ended {
            output.expect_length(length)?;
        }
        Ok(output)
    }

    /// The path as the user gave it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The smallest that it transfers past the page cache, in bytes, if it is a block device. To be
    /// asked before the copy begins.
    #[must_use]
    pub fn block_size(&self) -> Option<u32> {
        device::block_size(&self.file)
    }

    /// Says how long an output is that was open-ended: what a new file has beyond that is cut off
    /// when it is put in place.
    ///
    /// # Errors
    ///
    /// The device, or the user, does not allow so many.
    pub fn declare_length(&self, length: u64) -> Result<(), FileError> {
        self.check_length(length)?;
        self.length.store(length, Ordering::SeqCst);
        Ok(())
    }

    /// How many different bytes of the output have been written or declared zero, without what fills up
    /// the last sector. It falls when the length is declared and when a part is discarded, and costs no more
    /// than two loads.
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.covered.load(Ordering::Relaxed).min(self.length())
    }

    /// What [`commit`](Self::commit) takes to give the file its name. None for a device.
    #[must_use]
    pub fn placing(&self) -> Option<Placing<'_>> {
        let staging = self.staging.as_ref()?;
        Some(staging.placing(self.file.as_fd()))
    }

    /// Lines for the user: what was asked for and is not so, and what a killed run can leave.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> = self.file.note().into_iter().collect();
        if let Some(staging) = &self.staging {
            notes.extend(staging.notes());
            if self.fsync && !staging.place().folder_syncs {
                notes.push("its folder cannot be read, so its name cannot be made durable".into());
            }
        }
        notes.iter().map(|note| self.line(note)).collect()
    }

    /// What else must not be this file.
    #[must_use]
    pub fn known(&self) -> Known<'_> {
        match &self.staging {
            Some(staging) => staging.place().known(),
            None => Known::in_place(Role::Output, &self.path, &self.file),
        }
    }

    /// Lets nothing be written from now on, so that what is found to be good stays so.
    ///
    /// # Errors
    ///
    /// A write is still under way.
    pub fn seal(&self) -> Result<(), FileError> {
        match self.seal.set() {
            true => Ok(()),
            false => {
                let why = "a write to it has not come back; check its file system (dmesg)";
                Err(self.failed(Action::Store, io::Error::other(why)))
            }
        }
    }

    /// Checks that the copy is complete and puts it in place, [sealed](Self::seal). After a failure the
    /// copy is given up: there is nothing to try again.
    ///
    /// Returns warnings for the user: what is not as it was asked for, although the copy is
    /// complete and has its name.
    ///
    /// # Errors
    ///
    /// A byte was never written or is being written, what was written could not be stored, or the name
    /// could not be given. What had the name before still has it.
    pub fn commit(&self) -> Result<Vec<String>, FileError> {
        self.seal()?;
        self.check_complete()?;
        self.cut_to_length()?;
        let synced = self.settle()?;
        let mut warnings = Vec::new();
        if let Some(staging) = &self.staging {
            if synced == Synced::Unsupported {
                warnings.push(self.line("its file system cannot make it durable"));
            }
            let more = staging.put_in_place(self.file.as_fd())?;
            warnings.extend(more.iter().map(|warning| self.line(warning)));
        }
        Ok(warnings)
    }

    /// Gives the copy up: nothing of it is left, even while a thread that hangs in a write keeps
    /// this object alive. What had the name before still has it.
    pub fn discard(&self) {
        self.seal.set();
        if let Some(staging) = &self.staging {
            staging.discard();
        }
    }

    /// Makes the output's name durable, if that was asked for; returns a warning if it is not. To be
    /// called when the output is in place, so that nothing can make it a failure any more.
    pub fn sync_name(&self) -> Option<String> {
        let place = self.staging.as_ref()?.place();
        if !self.fsync || !place.folder_syncs {
            return None;
        }
        match sync_all(&place.folder, self.file.cancel()) {
            Ok(Synced::Yes) => None,
            Ok(Synced::Unsupported) => {
                Some(self.line("it is in place, but its file system cannot make its name durable"))
            }
            Err(error) => Some(self.line(&format!(
                "it is in place, but its name could not be made durable: {}",
                reason(&error)
            ))),
        }
    }

    fn line(&self, note: &str) -> String {
        Role::Output.line(&self.path, note)
    }

    /// The error of something that the system has not done with the output.
    fn failed(&self, action: Action, source: impl Into<io::Error>) -> FileError {
        FileError::failed(Role::Output, &self.path, action, source)
    }

    fn check_complete(&self) -> Result<(), FileError> {
        let coverage = lock(&self.coverage);
        let length = self.length();
        match coverage.first_missing(length) {
            None => Ok(()),
            Some(offset) => Err(FileError::Incomplete {
                path: self.path.clone(),
                offset,
                length,
                forgotten: coverage.forgotten(),
            }),
        }
    }

    /// Waits for what the file system still owes: its errors, and durability if asked for.
    fn settle(&self) -> Result<Synced, FileError> {
        let failed = |source| self.failed(Action::Store, source);
        if let Some(late_errors) = lock(&self.late_errors).take() {
            late_errors.collect().map_err(failed)?;
        }
        if self.fsync {
            sync_all(&self.file, self.file.cancel()).map_err(failed)
        } else {
            Ok(Synced::Yes)
        }
    }
}

impl AsFd for OutputFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests;
