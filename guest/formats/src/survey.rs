//! A walk over the whole mapping of a disk: how much of it is stored in which way, and which table
//! entries are not followed.
//!
//! The disk's size alone bounds the walk, so a caller counts its steps.
//!
//! It is the check of the formats that have no refcounts, and it tells whoever copies a disk
//! beforehand whether the copy can succeed and how long it will be.

use alloc::vec::Vec;

use crate::error::Error;
use crate::extent::Content;
use crate::image::Image;
use crate::reason::Finding;
use crate::source::ReadAt;

/// The most faults that are kept; all are counted.
pub const MOST_FAULTS: usize = 64;
/// How far the walk goes on behind a fault in formats without a cluster size.
const STRIDE: u64 = 65536;

/// A walk under way, and what it has seen. All figures are bytes of the virtual disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    at: u64,
}

impl Survey {
    /// A walk from the start of the disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of the virtual disk that were seen.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.at
    }

    /// Goes on for at most `answers` answers of the mapping; true if the end was reached.
    ///
    /// # Errors
    ///
    /// [`Error::Read`]. Faults of the image are counted, and are no error.
    pub fn step(
        &mut self,
        image: &mut Image,
        source: &mut dyn ReadAt,
        answers: usize,
    ) -> Result<bool, Error> {
        let size = image.virtual_size();
        for _ in 0..answers {
            if self.at >= size {
                return Ok(true);
            }
            match image.map(source, self.at) {
                Ok(extent) => {
                    let sum = match extent.content {
                        Content::Data { .. } => &mut self.data,
                        Content::Zero => &mut self.zero,
                        Content::Compressed(_) => &mut self.compressed,
                        Content::Backing => &mut self.backing,
                    };
                    *sum += extent.length;
                    self.at += extent.length;
                }
                Err(Error::Refused(finding)) => {
                    let unit = image.cluster_size().unwrap_or(STRIDE);
                    let length = (unit - self.at % unit).min(size - self.at);
                    self.fault(finding);
                    self.lost += length;
                    self.at += length;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(self.at >= size)
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
