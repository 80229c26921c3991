//! A walk over all table entries of a disk: how much of it is stored in which way, which entries are
//! not followed, and which take what another one has.
//!
//! It is the check of the formats that have no refcounts. What each entry takes of the file is
//! counted in windows of a fixed size, since the file may be of any length: each pass walks all
//! entries, and counts what they take in its window. Of a compressed grain only its marker tells how
//! long it is, so that it is read in the pass in whose window the grain lies. The disk's size alone
//! bounds the walk, so a caller counts its steps.

mod claims;

use alloc::vec::Vec;
use core::ops::Range;

use crate::error::Error;
use crate::extent::{Compressed, Content, Extent, GRAIN_MARKER};
use crate::image::Image;
use crate::reason::{Finding, Reason};
use crate::source::{ReadAt, array};
use claims::Claims;
pub(crate) use claims::Units;

/// The most faults that are kept; all are counted.
pub const MOST_FAULTS: usize = 64;
/// How far the walk goes on behind a fault in formats without a cluster size.
const STRIDE: u64 = 65536;
/// The entries that could be looked at in the time of a read that no cache saves.
const READ: u64 = 400;

/// What one entry of a table says. The piece of the disk that it is for begins at the offset that
/// was asked for, if that is where one begins.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Where the entry lies in the file.
    pub(crate) at: u64,
    /// Bytes of the disk that it is for.
    pub(crate) length: u64,
    /// Where they come from; a shorter piece is followed by zeros.
    pub(crate) extent: Extent,
    /// Bytes of the file that nobody else may have, at the most.
    pub(crate) takes: Range<u64>,
}

/// A table that has a place of its own in the file.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    /// Where the entry for it lies in the file.
    pub(crate) at: u64,
    /// Bytes of the file that nobody else may have.
    pub(crate) takes: Range<u64>,
    /// Bytes of the disk that it is for.
    pub(crate) length: u64,
}

impl Entry {
    /// The entry at `at` for a block of `length` bytes, before whose data there are `before` bytes that
    /// are the block's, too.
    pub(crate) fn block(at: u64, length: u64, before: u64, extent: Extent) -> Self {
        let takes = match extent.content {
            Content::Data { offset } => offset - before..offset + length,
            _ => 0..0,
        };
        Self {
            at,
            length,
            extent,
            takes,
        }
    }

    /// Something that takes nothing for itself.
    pub(crate) fn of(extent: Extent) -> Self {
        Self {
            at: 0,
            length: extent.length,
            extent,
            takes: 0..0,
        }
    }
}

/// A walk under way, and what it has seen. All figures but the numbers of faults and entries are
/// bytes of the virtual disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// Stored as they are.
    pub data: u64,
    /// Known to be zero.
    pub zero: u64,
    /// Stored compressed.
    pub compressed: u64,
    /// Those of the backing file.
    pub backing: u64,
    /// Behind entries that are not followed.
    pub lost: u64,
    /// How many faults were met.
    pub faults: u64,
    /// The first of them.
    pub findings: Vec<Finding>,
    /// The work that was done, in table entries.
    pub entries: u64,
    at: u64,
    first_pass: bool,
    claims: Option<Claims>,
}

impl Survey {
    /// A walk from the start of the disk. `window` is how many units of the file are counted at once,
    /// a bit of memory each; what a unit is depends on the format: sectors of VHD and VMDK, MiB of
    /// VHDX, blocks of VDI.
    #[must_use]
    pub fn new(image: &Image, source: &dyn ReadAt, window: u32) -> Self {
        let units = image.units();
        Self {
            data: 0,
            zero: 0,
            compressed: 0,
            backing: 0,
            lost: 0,
            faults: 0,
            findings: Vec::new(),
            entries: 0,
            at: 0,
            first_pass: true,
            claims: units.map(|units| Claims::new(units, source.size(), window)),
        }
    }

    /// Bytes of the virtual disk that this pass has seen.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.at
    }

    /// Goes on for `entries` of work, and what the last of them takes; true if the end was reached.
    ///
    /// # Errors
    ///
    /// [`Error::Read`]. Faults of the image are counted, and are no error.
    pub fn step(
        &mut self,
        image: &mut Image,
        source: &mut dyn ReadAt,
        entries: u64,
    ) -> Result<bool, Error> {
        let size = image.virtual_size();
        let until = self.entries.saturating_add(entries);
        while self.entries < until {
            if self.at >= size {
                if !self.claims.as_mut().is_some_and(Claims::advance) {
                    return Ok(true);
                }
                self.first_pass = false;
                self.at = 0;
                // Also for a pass that has nothing to look at.
                self.entries += READ;
                continue;
            }
            self.entries += 1;
            if let Some(table) = image.table(source, self.at)?
                && !self.take(&table.takes)
            {
                // What is in it was looked at where it was met first.
                self.overlap(table.at, table.takes.start);
                self.lose(table.length.min(size - self.at));
                continue;
            }
            match image.entry(source, self.at) {
                Ok(entry) => self.entry(source, entry, size)?,
                Err(Error::Refused(finding)) => {
                    if self.first_pass {
                        self.fault(finding);
                    }
                    let unit = image.cluster_size().unwrap_or(STRIDE);
                    self.lose((unit - self.at % unit).min(size - self.at));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Goes on behind what is not followed.
    fn lose(&mut self, length: u64) {
        if self.first_pass {
            self.lost += length;
        }
        self.at += length;
    }

    fn entry(&mut self, source: &mut dyn ReadAt, mut entry: Entry, size: u64) -> Result<(), Error> {
        let rest = size - self.at;
        if let Content::Compressed(compressed) = entry.extent.content {
            self.measure(source, &compressed, &mut entry.takes)?;
        }
        if !self.take(&entry.takes) {
            self.overlap(entry.at, entry.takes.start);
        }
        let length = entry.length.min(rest);
        if self.first_pass {
            let there = entry.extent.length.min(length);
            let sum = match entry.extent.content {
                Content::Data { .. } => &mut self.data,
                Content::Zero => &mut self.zero,
                Content::Compressed(_) => &mut self.compressed,
                Content::Backing => &mut self.backing,
            };
            *sum += there;
            self.zero += length - there;
        }
        self.at += length;
        Ok(())
    }

    /// How long a compressed grain is, where it matters in this pass; what is known before is the
    /// most that it may be.
    fn measure(
        &mut self,
        source: &mut dyn ReadAt,
        compressed: &Compressed,
        takes: &mut Range<u64>,
    ) -> Result<(), Error> {
        let Some(claims) = &mut self.claims else {
            return Ok(());
        };
        if !claims.concerns(takes) {
            return Ok(());
        }
        let is_first = claims.begins_here(takes);
        self.entries += READ;
        let head: [u8; 12] = match compressed.length >= GRAIN_MARKER {
            true => array(source, compressed.offset)?,
            false => [0; 12],
        };
        match compressed.payload_within(&head, compressed.length) {
            Ok(payload) => takes.end = compressed.offset + payload.end,
            Err(Error::Refused(finding)) => {
                takes.end = takes.start;
                if is_first {
                    self.fault(finding);
                }
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn take(&mut self, bytes: &Range<u64>) -> bool {
        match &mut self.claims {
            Some(claims) if !bytes.is_empty() => !claims.concerns(bytes) || claims.take(bytes),
            _ => true,
        }
    }

    fn overlap(&mut self, at: u64, value: u64) {
        self.fault(Finding {
            reason: Reason::Overlap,
            at,
            value,
        });
    }

    fn fault(&mut self, finding: Finding) {
        // Many units behind one entry of an upper table are one fault.
        if self.findings.last() == Some(&finding) {
            return;
        }
        self.faults += 1;
        if self.findings.len() < MOST_FAULTS {
            self.findings.push(finding);
        }
    }
}
