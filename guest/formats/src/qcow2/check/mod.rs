//! Compares the refcounts of a qcow2 image with how often its tables use each cluster, in a fixed
//! amount of memory ("Host cluster management" in qcow2.txt).
//!
//! To count all clusters at once would take memory that grows with the image. Instead there are
//! several passes. Each goes through the tables, and counts only the clusters of its window, a part
//! of the file. The first one notes which L2 tables the others can leave out.

mod bitmaps;
mod contents;
mod reach;
mod refcount;
mod walk;
mod window;

use alloc::vec::Vec;

use crate::cache::{Cache, LINE, LOAD, LONG_LINE};
use crate::error::{Error, ensure};
use crate::mapping::Contents;
use crate::qcow2::Qcow2;
use crate::qcow2::header::Header;
use crate::reason::Reason;
use crate::source::ReadAt;
use crate::survey::MOST_FAULTS;
use reach::Reach;
use window::Window;

/// How much memory and time a check may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckOptions {
    /// How many clusters one pass counts, at least 1. Each takes 5 bytes and a bit of memory.
    pub window: u32,
    /// How many table entries and refcounts all passes together may look at. To read a piece of
    /// them counts as 2,000. A check that would take more gives up.
    pub most_entries: u64,
}

impl Default for CheckOptions {
    /// A window that takes 640 KiB of memory: one pass for each 8 GiB of a file with clusters of 64
    /// KiB.
    fn default() -> Self {
        Self {
            window: 128 * 1024,
            most_entries: 1 << 30,
        }
    }
}

/// What can be wrong with a cluster or a table entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// The refcount of a cluster is higher than how often it is used. Space is lost, and nothing
    /// else.
    Leak,
    /// A cluster is used more often than its refcount says. A write may destroy data.
    RefcountTooLow,
    /// The flag that says "refcount is one" is wrong.
    CopiedFlag,
    /// Metadata and something else lie in the same cluster.
    Overlap,
    /// A table entry leads nowhere or breaks the format, for this reason.
    Entry(Reason),
}

impl ProblemKind {
    /// The name for programs, which does not change.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Leak => "leak",
            Self::RefcountTooLow => "refcount-too-low",
            Self::CopiedFlag => "copied-flag",
            Self::Overlap => "overlap",
            Self::Entry(reason) => reason.name(),
        }
    }
}

/// A problem at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub kind: ProblemKind,
    /// The offset of the cluster or of the entry in the file, in bytes.
    pub at: u64,
    /// The refcount or the entry that was found.
    pub found: u64,
    /// How often the tables use the cluster, if the problem is a refcount.
    pub expected: u64,
}

/// What a check has found. An image without errors and leaks is sound. One with leaks alone only
/// wastes space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// How many problems may cost data. qemu-img calls them corruptions.
    pub errors: u64,
    /// How many clusters are lost.
    pub leaks: u64,
    /// How many clusters of the virtual disk are allocated, compressed ones included.
    pub allocated: u64,
    /// Where the last cluster ends that is used or has a refcount, as an offset in the file in
    /// bytes.
    pub image_end: u64,
    /// What the disk consists of.
    pub contents: Contents,
    /// The first problems that were found.
    pub problems: Vec<Problem>,
    /// The work that was done, counted in table entries and refcounts.
    pub entries: u64,
}

/// A check under way.
#[derive(Debug)]
pub struct Check {
    header: Header,
    window: Window,
    most_entries: u64,
    /// How many bytes the file has.
    size: u64,
    /// How many clusters the file has. The last one may be cut off.
    clusters: u64,
    tables: Cache,
    inner: Cache,
    refcounts: Cache,
    /// Which L2 tables a pass may leave out.
    reach: Reach,
    /// The entries of the piece of an L2 table that is gone through.
    line: Vec<u64>,
    /// The work that was done, without that of reading.
    entries: u64,
    report: CheckReport,
}

impl Check {
    /// Begins a check of an image that was opened.
    #[must_use]
    pub fn new(image: &Qcow2, source: &dyn ReadAt, options: &CheckOptions) -> Self {
        let header = image.header.clone();
        let cluster_size = header.cluster_size();
        let clusters = source.size().div_ceil(cluster_size);
        Self {
            window: Window::new(u64::from(options.window.max(1)).min(clusters.max(1))),
            header,
            most_entries: options.most_entries,
            size: source.size(),
            clusters,
            tables: Cache::new(4),
            // Behind a table that is short lies something else.
            inner: Cache::with_lines(1, cluster_size.clamp(LINE, LONG_LINE)),
            refcounts: Cache::new(4),
            reach: Reach::new(),
            line: Vec::new(),
            entries: 0,
            report: CheckReport::default(),
        }
    }

    /// Makes one pass. Returns true if it was the last.
    ///
    /// # Errors
    ///
    /// [`Error::Read`], or [`Reason::TooMuchWork`] if the check gives up. What is wrong with the
    /// image is no error, and is in the report.
    pub fn step(&mut self, source: &mut dyn ReadAt) -> Result<bool, Error> {
        self.stored(source)?;
        self.reach.restart();
        self.walk(source)?;
        self.compare(source)?;
        self.window.advance();
        Ok(self.window.start() >= self.clusters)
    }

    /// What was found so far. It is complete after the last step.
    #[must_use]
    pub fn report(&self) -> &CheckReport {
        &self.report
    }

    fn first_pass(&self) -> bool {
        self.window.start() == 0
    }

    /// Notes which clusters of the window have a refcount of one, so that the flags of entries, which
    /// name clusters in any order, are compared without looking for the refcount of each.
    fn stored(&mut self, source: &mut dyn ReadAt) -> Result<(), Error> {
        let (start, end) = (self.window.start(), self.window.end().min(self.clusters));
        for cluster in start..end {
            self.work(1)?;
            if self.refcount(source, cluster)? == 1 {
                self.window.note_one(cluster);
            }
        }
        Ok(())
    }

    fn compare(&mut self, source: &mut dyn ReadAt) -> Result<(), Error> {
        let (start, end) = (self.window.start(), self.window.end().min(self.clusters));
        for cluster in start..end {
            self.work(1)?;
            let counted = u64::from(self.window.count(cluster));
            let stored = self.refcount(source, cluster)?;
            let at = cluster << self.header.cluster_bits;
            if counted > 0 || stored > 0 {
                self.report.image_end = at + self.header.cluster_size();
            }
            if self.window.overlaps(cluster) {
                self.problem(ProblemKind::Overlap, at, stored, counted);
            }
            if stored < counted {
                self.problem(ProblemKind::RefcountTooLow, at, stored, counted);
            } else if stored > counted {
                self.problem(ProblemKind::Leak, at, stored, counted);
            }
        }
        Ok(())
    }

    /// The refcount that the image has for a cluster. It is 0 if there is no refcount block for it.
    fn refcount(&mut self, source: &mut dyn ReadAt, cluster: u64) -> Result<u64, Error> {
        let order = self.header.refcount_order;
        let per_block = (self.header.cluster_size() * 8) >> order;
        let index = cluster / per_block;
        let table = self.header.refcount_table_clusters << self.header.cluster_bits;
        if index * 8 >= table {
            return Ok(0);
        }
        let at = self.header.refcount_table + index * 8;
        let block = self.refcounts.be64(source, at)?;
        if self.block_fault(source, block).is_some() || block == 0 {
            return Ok(0);
        }
        // The eight bytes that have the refcount. They lie within one cache line.
        let bit = (cluster % per_block) << order;
        let byte = block + bit / 64 * 8;
        let bytes = self.refcounts.bytes(source, byte, 8)?;
        let within = cluster % per_block % (64 >> order);
        Ok(refcount::read(bytes, within, order))
    }

    /// Why a refcount block cannot be used, if so.
    fn block_fault(&self, source: &dyn ReadAt, block: u64) -> Option<Reason> {
        let size = self.header.cluster_size();
        if block & 0x1ff != 0 {
            Some(Reason::ReservedBits)
        } else if !block.is_multiple_of(size) {
            Some(Reason::Unaligned)
        } else if block
            .checked_add(size)
            .is_none_or(|end| end > source.size())
        {
            Some(Reason::BeyondEnd)
        } else {
            None
        }
    }

    /// Counts `entries` more as looked at. Fails if that is too much.
    fn work(&mut self, entries: u64) -> Result<(), Error> {
        self.entries += entries;
        let loads = self.tables.loads() + self.inner.loads() + self.refcounts.loads();
        let spent = self.entries + LOAD * loads;
        self.report.entries = spent;
        ensure(spent <= self.most_entries, Reason::TooMuchWork, 0, spent)
    }

    /// Notes a fault of an entry. Each pass meets it again, and only the first one notes it.
    fn fault(&mut self, reason: Reason, at: u64, entry: u64) {
        if self.first_pass() {
            self.problem(ProblemKind::Entry(reason), at, entry, 0);
        }
    }

    /// Notes a fault unless `holds`.
    fn expect(&mut self, holds: bool, reason: Reason, at: u64, found: u64) {
        if !holds {
            self.fault(reason, at, found);
        }
    }

    /// Whether another problem would be kept.
    fn has_room(&self) -> bool {
        self.report.problems.len() < MOST_FAULTS
    }

    fn problem(&mut self, kind: ProblemKind, at: u64, found: u64, expected: u64) {
        match kind {
            ProblemKind::Leak => self.report.leaks += 1,
            _ => self.report.errors += 1,
        }
        if self.has_room() {
            self.report.problems.push(Problem {
                kind,
                at,
                found,
                expected,
            });
        }
    }
}
