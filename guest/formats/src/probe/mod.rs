//! Which formats a file may have, by its signatures.
//!
//! Whoever makes an image can give it the signatures of several formats, so that two programs see
//! two different disks in it. A tool that stops at the first signature does not notice. Here all
//! signatures are looked for, at the start, inside and at the end of the file, and a file with
//! several is refused.

mod content;
mod partitions;
mod signatures;

pub use content::FileSystem;
pub(crate) use content::file_system;
pub use partitions::PartitionTable;
pub(crate) use partitions::table as partition_table;

use crate::error::Error;
use crate::format::{Format, FormatSet};
use crate::info::Options;
use crate::reason::{Findings, Reason};
use crate::source::ReadAt;

/// What the signatures of a file say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// All formats that fit; [`Format::Raw`] only where no other does.
    pub fitting: FormatSet,
    /// The format that the file is taken for: the one that the user has claimed, or the first that
    /// fits.
    pub format: Format,
    /// The partition table at the start of the file, if the file itself is read as a disk.
    pub partitions: Option<PartitionTable>,
    /// The file system at the start of the file, if the file itself is read as a disk.
    pub file_system: Option<FileSystem>,
}

impl Probe {
    /// Looks at the file, with at most eight reads of at most 4,608 bytes each.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] if the caller could not read.
    pub fn new(source: &mut dyn ReadAt, options: &Options) -> Result<Self, Error> {
        let mut fitting = signatures::fitting(source)?;
        let partitions = partitions::table(source)?;
        let file_system = content::file_system(source)?;
        if fitting.is_empty() {
            fitting = fitting.with(Format::Raw);
        }
        let first = fitting.iter().next().unwrap_or(Format::Raw);
        Ok(Self {
            fitting,
            format: options.claimed.unwrap_or(first),
            partitions,
            file_system,
        })
    }

    /// The formats to tell a user of. A partition table in front of a container is a raw disk to
    /// whoever does not know the container, so that raw is one of them.
    pub(crate) fn told(&self) -> FormatSet {
        match self.is_ambiguous() && self.partitions.is_some() {
            true => self.fitting.with(Format::Raw),
            false => self.fitting,
        }
    }

    /// Adds what speaks against taking the file for [`Probe::format`].
    pub(crate) fn judge(&self, options: &Options, findings: &mut Findings) {
        let fits = self.fitting.iter().next().unwrap_or(Format::Raw);
        if self.is_ambiguous() {
            let formats = u64::from(self.told().len());
            findings.add(Reason::SeveralFormats, 0, formats);
        }
        match options.claimed {
            // A CD is a raw disk, so that either claim is right.
            Some(Format::Raw) if fits == Format::Iso => {}
            Some(claimed) if !self.fitting.contains(claimed) => {
                findings.add(Reason::OtherFormat, 0, 0);
            }
            Some(_) => {}
            None if fits == Format::Raw => {
                let known = self.partitions.is_some() || self.file_system.is_some();
                if !known {
                    findings.add(Reason::UnknownFormat, 0, 0);
                }
            }
            None => {}
        }
        if self.format.is_archive() {
            findings.add(Reason::NotADisk, 0, 0);
        } else if !self.format.is_read() {
            findings.add(Reason::FormatNotRead, 0, 0);
        }
    }

    /// Whether two programs may see two different disks. A fixed VHD begins with the bytes of its
    /// disk, so that partitions, or the descriptors of a CD, belong to that disk. In a file of
    /// another format they are a second disk in the same bytes.
    fn is_ambiguous(&self) -> bool {
        let transparent = Format::Vhd;
        let container = |format: &Format| !matches!(format, Format::Raw | Format::Iso);
        let containers = self.fitting.iter().filter(container).count();
        if containers > 1 {
            return true;
        }
        let Some(only) = self.fitting.iter().find(container) else {
            return false;
        };
        let disk = self.fitting.contains(Format::Iso) || self.partitions.is_some();
        disk && only != transparent
    }
}
