//! Goes through all table entries of a disk. It finds out how much of the disk is stored in which
//! way, which entries lead nowhere, and which two entries take the same part of the file.
//!
//! It is the check of the formats that have no refcounts. The file may be of any length and the
//! memory is fixed, so that there are several passes. Each goes through the entries, and notes what
//! they take of one window of the file. Parts of the disk that take nothing of it are left out. How
//! long a compressed grain is only its marker tells, which is read in the pass in whose window the
//! grain lies. How many steps this takes is bounded by the size of the disk alone, so that a caller
//! limits them.

mod claims;
mod entry;
mod groups;
mod refused;

use alloc::vec::Vec;
use core::ops::Range;

use crate::cache::{Cache, LOAD};
use crate::error::Error;
use crate::image::Image;
use crate::mapping::{Compressed, Content, Contents, GRAIN_MARKER};
use crate::reason::{Finding, Reason};
use crate::source::ReadAt;
use claims::Claims;
pub(crate) use claims::Units;
pub(crate) use entry::{Entry, Table};
use groups::Groups;
use refused::Refused;

/// The most faults that a survey or a check keeps. All of them are counted.
pub const MOST_FAULTS: usize = 64;
/// How many bytes of the disk are passed over behind a fault, in a format without a cluster size.
const STRIDE: u64 = 65536;

/// A survey of an image, and what it has found so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// What the disk consists of, as the first pass has found it. A table that is found to be taken in a
    /// later pass has been counted by its entries, and is not lost.
    pub contents: Contents,
    /// How many faults were found.
    pub faults: u64,
    /// The first faults.
    pub findings: Vec<Finding>,
    /// The last fault, which need not be one of those that are kept.
    last: Option<Finding>,
    /// The work that was done, counted in table entries.
    pub entries: u64,
    /// How many entries name a block of the file.
    blocks: u64,
    /// How many bytes the disk has.
    size: u64,
    /// How many bytes there are table entries for: some tables have more than the disk needs.
    end: u64,
    at: u64,
    first_pass: bool,
    claims: Option<Claims>,
    groups: Groups,
    refused: Refused,
    /// The part of the file in which the marker of a compressed grain was read last.
    markers: Cache,
    /// How many lines of tables and markers have been counted as work.
    loads: u64,
}

impl Survey {
    /// Begins at the start of the disk. `window` is how many units of the file a pass counts, each
    /// of which takes a bit of memory. A unit is a sector of a VHD or VMDK, a mebibyte of a VHDX, a
    /// block of a VDI.
    #[must_use]
    pub fn new(image: &Image, source: &dyn ReadAt, window: u32) -> Self {
        let units = image.units();
        let end = image.covered();
        Self {
            contents: Contents::default(),
            faults: 0,
            findings: Vec::new(),
            last: None,
            entries: 0,
            blocks: 0,
            size: image.virtual_size(),
            end,
            at: 0,
            first_pass: true,
            claims: units.map(|units| Claims::new(units, source.size(), window)),
            groups: Groups::new(end, image.cluster_size().unwrap_or(STRIDE)),
            refused: Refused::default(),
            markers: Cache::new(1),
            loads: image.loads(),
        }
    }

    /// How many bytes of the virtual disk this pass has gone through.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.at.min(self.size)
    }

    /// Goes on for work that counts as `entries` table entries; the last one may take more. Returns
    /// true if the survey is complete. To read a piece of a table, or a marker, counts as 2,000 entries.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] if the caller could not read. Faults of the image are counted, and are no
    /// error.
    pub fn step(
        &mut self,
        image: &mut Image,
        source: &mut dyn ReadAt,
        entries: u64,
    ) -> Result<bool, Error> {
        image.read_in_order();
        let until = self.entries.saturating_add(entries);
        while self.entries < until {
            if self.at >= self.end {
                if self.next_pass() {
                    continue;
                }
                // A fault that was found before may be why the numbers differ.
                if let Some(finding) = image.miscount(self.blocks)
                    && self.faults == 0
                {
                    self.fault(finding);
                }
                return Ok(true);
            }
            self.entries += 1;
            if let (false, Some(claims)) = (self.first_pass, &mut self.claims) {
                let (takes, next) = self.groups.part(self.at);
                if claims.pass_over(&takes) {
                    self.at = next;
                    continue;
                }
            }
            let loads = image.loads() + self.markers.loads();
            self.entries += LOAD * (loads - self.loads);
            self.loads = loads;
            if self.passes_table(image, source)? {
                continue;
            }
            match image.entry(source, self.at) {
                Ok(entry) => self.entry(image, source, entry)?,
                Err(Error::Refused(finding)) => {
                    if self.first_pass {
                        self.fault(finding);
                    }
                    self.lose(self.rest_of_unit(image));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Begins at the start of the disk again, with the next window. Returns false if nothing lies behind
    /// the last one.
    fn next_pass(&mut self) -> bool {
        let more = self.claims.as_mut().is_some_and(Claims::advance);
        if more {
            self.first_pass = false;
            self.at = 0;
            // A pass counts as work even if it finds nothing to look at.
            self.entries += LOAD;
        }
        more
    }

    /// Takes the tables that begin here. Returns true if what the first one is for was passed over,
    /// since the table was refused, now or in an earlier pass.
    fn passes_table(&mut self, image: &mut Image, source: &mut dyn ReadAt) -> Result<bool, Error> {
        match image.second_table(source, self.at) {
            Ok(Some(table)) if !self.take_table(&table.takes) => {
                self.overlap(table.at, table.takes.start);
            }
            Err(Error::Refused(finding)) if self.first_pass => self.fault(finding),
            Ok(_) | Err(Error::Refused(_)) => {}
            Err(error) => return Err(error),
        }
        if self.refused.has(self.at) {
            self.lose(self.rest_of_unit(image));
            return Ok(true);
        }
        let Some(table) = image.table(source, self.at)? else {
            return Ok(false);
        };
        let refused = !self.take_table(&table.takes);
        if refused {
            // Its entries were looked at when the table was met for the first time.
            self.overlap(table.at, table.takes.start);
            let end = self.at.saturating_add(table.length);
            self.refused.add(self.at..end);
            self.lose(table.length);
        }
        Ok(refused)
    }

    /// How many bytes it is to the next cluster.
    fn rest_of_unit(&self, image: &Image) -> u64 {
        let unit = image.cluster_size().unwrap_or(STRIDE);
        unit - self.at % unit
    }

    /// Goes on behind an entry that is for `length` bytes. Returns how many of them the disk has.
    fn pass(&mut self, length: u64) -> u64 {
        let there = length.min(self.size.saturating_sub(self.at));
        self.at = self.at.saturating_add(length);
        there
    }

    /// Passes over `length` bytes whose entry leads nowhere.
    fn lose(&mut self, length: u64) {
        let length = self.pass(length);
        if self.first_pass {
            self.contents.lost += length;
        }
    }

    fn entry(
        &mut self,
        image: &mut Image,
        source: &mut dyn ReadAt,
        mut entry: Entry,
    ) -> Result<(), Error> {
        self.note(&entry.takes, false);
        if let Content::Compressed(compressed) = entry.mapping.content {
            self.measure(source, &compressed, &mut entry.takes)?;
        }
        if !self.take(&entry.takes) {
            self.overlap(entry.at, entry.takes.start);
        } else if self.begins_here(&entry.takes)
            && let Some(finding) = image.contradiction(source, self.at, entry.mapping.length)?
        {
            self.fault(finding);
        }
        let length = self.pass(entry.length);
        if self.first_pass {
            let there = entry.mapping.length.min(length);
            let contents = &mut self.contents;
            let sum = match entry.mapping.content {
                Content::Data { .. } => {
                    self.blocks += 1;
                    &mut contents.data
                }
                Content::Zero | Content::Unwritten { .. } => &mut contents.zero,
                Content::Compressed(_) => &mut contents.compressed,
                Content::Backing => &mut contents.backing,
            };
            *sum += there;
            contents.zero += length - there;
        }
        Ok(())
    }

    /// Finds out what a compressed grain takes of the file, if it may lie in this pass's window.
    /// Its entry tells only how much that is at the most.
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
        let mut head = [0; 12];
        if compressed.length >= GRAIN_MARKER {
            self.markers.copy(source, compressed.offset, &mut head)?;
        }
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

    /// Notes what is taken for the part of the disk that is looked at.
    fn note(&mut self, bytes: &Range<u64>, is_table: bool) {
        if self.first_pass {
            self.groups.note(self.at, bytes, is_table);
        }
    }

    fn take_table(&mut self, bytes: &Range<u64>) -> bool {
        self.note(bytes, true);
        self.take(bytes)
    }

    fn take(&mut self, bytes: &Range<u64>) -> bool {
        match &mut self.claims {
            Some(claims) if !bytes.is_empty() => !claims.concerns(bytes) || claims.take(bytes),
            _ => true,
        }
    }

    /// Whether this pass is the one in whose window these bytes begin. Nothing else begins there then,
    /// once they are taken, so that what is done for them is done once for each byte of the file.
    fn begins_here(&self, bytes: &Range<u64>) -> bool {
        let here = |claims: &Claims| claims.begins_here(bytes);
        !bytes.is_empty() && self.claims.as_ref().is_some_and(here)
    }

    fn overlap(&mut self, at: u64, value: u64) {
        self.fault(Finding {
            reason: Reason::Overlap,
            at,
            value,
        });
    }

    fn fault(&mut self, finding: Finding) {
        // An entry of an upper table stands for many pieces of the disk, and its fault is one.
        if self.last.replace(finding) == Some(finding) {
            return;
        }
        self.faults += 1;
        if self.findings.len() < MOST_FAULTS {
            self.findings.push(finding);
        }
    }
}
