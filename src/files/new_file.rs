//! A small file that a run writes beside the copy, such as the statistics. As the copy, it is a new
//! file that takes its name when it is complete; what it replaces is never cut short. A device such
//! as /dev/null is written in place. A FIFO or a terminal is refused: nobody may be there to read.
//!
//! System calls after [`NewFile::create`]: `write`, `close`, `fstat`, `fchmod`, `fchown`, `fgetxattr`,
//! `flistxattr`, `linkat`, `renameat`, `renameat2` and `unlinkat`, relative to descriptors that are open,
//! in [`NewFile::save`]; `unlinkat` and `close` when it is dropped.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::io::write;

use super::close_errors::CloseErrors;
use super::error::{Action, FileError, Role};
use super::identity::Known;
use super::open::open_failed;
use super::staging::{Naming, Placing, Staging};
use super::target::{Target, find};
use crate::lock::lock;
use crate::storage::Cancel;

/// A file that does not have its name yet.
#[derive(Debug)]
pub struct NewFile {
    role: Role,
    path: PathBuf,
    file: OwnedFd,
    /// None for a device, which is written in place.
    staging: Option<Staging>,
    /// None once it is saved.
    late_errors: Mutex<Option<CloseErrors>>,
}

impl NewFile {
    /// Prepares the file for `role` at `path`. What is there is not touched.
    ///
    /// # Errors
    ///
    /// As for [`OutputFile::create`](super::OutputFile::create); a block device is refused as well.
    /// What else of the run it must not be is for [`check_distinct`](super::check_distinct) to say.
    pub fn create(role: Role, path: &Path) -> Result<Self, FileError> {
        Self::create_named(role, path, Naming::Unnamed)
    }

    fn create_named(role: Role, path: &Path, naming: Naming) -> Result<Self, FileError> {
        let (file, staging) = match find(role, path, &[], 0, false)? {
            Target::Device(device) => (device, None),
            Target::File(place) => {
                let (mut staging, file) = Staging::create(*place, naming)?;
                staging.keep_permissions(file.as_fd())?;
                (file, Some(staging))
            }
        };
        let late_errors = CloseErrors::of(&file);
        let late_errors = late_errors.map_err(|source| open_failed(role, path, source))?;
        Ok(Self {
            role,
            path: path.into(),
            file,
            staging,
            late_errors: Mutex::new(Some(late_errors)),
        })
    }

    /// What [`save`](Self::save) takes to give the file its name. None for a device.
    #[must_use]
    pub fn placing(&self) -> Option<Placing<'_>> {
        let staging = self.staging.as_ref()?;
        Some(staging.placing(self.file.as_fd()))
    }

    /// Lines for the user: what a killed run can leave, and what is not as it was.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let notes = self.staging.as_ref().map(Staging::notes);
        let notes = notes.unwrap_or_default();
        notes.iter().map(|note| self.line(note)).collect()
    }

    fn line(&self, note: &str) -> String {
        self.role.line(&self.path, note)
    }

    /// What else must not be this file.
    #[must_use]
    pub fn known(&self) -> Known<'_> {
        match &self.staging {
            Some(staging) => staging.place().known(),
            None => Known::in_place(self.role, &self.path, &self.file),
        }
    }

    /// Writes the whole content and gives the file its name. To be called once. Returns warnings if
    /// what is replaced was changed meanwhile, or something is left beside it.
    ///
    /// # Errors
    ///
    /// It could not be written or named, or was saved before. What had the name before has it
    /// still.
    pub fn save(&self, content: &[u8]) -> Result<Vec<String>, FileError> {
        let Some(late_errors) = lock(&self.late_errors).take() else {
            return Err(FileError::Sealed {
                role: self.role,
                path: self.path.clone(),
                offset: 0,
            });
        };
        let failed = |action, source| FileError::failed(self.role, &self.path, action, source);
        let mut done = 0;
        while done < content.len() {
            let written = Cancel::new().repeat(|| write(&self.file, &content[done..]));
            match written.and_then(some) {
                Ok(more) => done += more,
                Err(source) => {
                    let (offset, is_device) = (done as u64, self.staging.is_none());
                    return Err(failed(Action::Write { offset, is_device }, source));
                }
            }
        }
        let stored = late_errors.collect();
        stored.map_err(|source| failed(Action::Store, source))?;
        // What has come to its name meanwhile may be the copy itself, by a name that the file system
        // takes for the same.
        let Some(staging) = &self.staging else {
            return Ok(Vec::new());
        };
        let warnings = staging.put_in_free_place(self.file.as_fd())?;
        Ok(warnings.iter().map(|warning| self.line(warning)).collect())
    }
}

impl AsFd for NewFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A write that takes nothing would be repeated for ever.
fn some(written: usize) -> io::Result<usize> {
    if written == 0 {
        Err(io::ErrorKind::WriteZero.into())
    } else {
        Ok(written)
    }
}

#[cfg(test)]
mod tests;
