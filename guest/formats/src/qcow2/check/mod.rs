//! Whether the refcounts of a qcow2 image are those that its tables give, in fixed memory.
//!
//! Counting all clusters at once takes memory that grows with the image. This goes over the image
//! in windows instead: each pass walks all tables, but counts only the clusters of its window, and
//! compares them with the refcounts on the disk ("Host cluster management" in qcow2.txt).

mod bitmaps;
mod walk;
mod window;

use alloc::vec::Vec;

use crate::cache::Cache;
use crate::error::{Error, ensure};
use crate::qcow2::Qcow2;
use crate::qcow2::header::Header;
use crate::reason::Reason;
use crate::source::ReadAt;
use window::Window;

/// The most problems that are kept in full; all are counted.
const MOST_PROBLEMS: usize = 64;

/// How a check goes about its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckOptions {
    /// Clusters that one pass counts, at least 1: each takes 5 bytes of memory.
    pub window: u32,
    /// Table entries and refcounts that all passes together may look at before the check gives
    /// up.
    pub most_entries: u64,
}

impl Default for CheckOptions {
    /// 640 KiB of memory; one pass for each 8 GiB of a file with clusters of 64 KiB.
    fn default() -> Self {
        Self {
            window: 128 * 1024,
            most_entries: 1 << 30,
        }
    }
}

/// What is wrong with one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// A cluster's refcount is higher than its uses: space is lost, nothing else.
    Leak,
    /// A cluster is used more often than its refcount says: a write may destroy data.
    RefcountTooLow,
    /// The flag that says "refcount is one" is wrong.
    CopiedFlag,
    /// Metadata lies where something else lies.
    Overlap,
    /// A table entry is not followed, for this reason.
    Entry(Reason),
}

impl ProblemKind {
    /// A stable name.
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

/// One thing that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What.
    pub kind: ProblemKind,
    /// The offset in the file of the cluster or of the entry.
    pub at: u64,
    /// The refcount or the entry that was found.
    pub found: u64,
    /// The refcount that the tables give, where it is about one.
    pub expected: u64,
}

/// What a check found. An image without errors and leaks is sound; with leaks alone it only wastes
/// space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Things that are wrong and may cost data: qemu-img calls them corruptions.
    pub errors: u64,
    /// Clusters that are lost.
    pub leaks: u64,
    /// Clusters of the virtual disk that are allocated, the compressed ones among them.
    pub allocated: u64,
    /// Clusters of the virtual disk that are compressed.
    pub compressed: u64,
    /// The end of the last cluster that is in use or counted, in bytes.
    pub image_end: u64,
    /// The first problems.
    pub problems: Vec<Problem>,
    /// Table entries and refcounts that were looked at.
    pub entries: u64,
}

/// A check under way.
#[derive(Debug)]
pub struct Check {
    header: Header,
    window: Window,
    most_entries: u64,
    /// Clusters of the file; the last may be partial.
    clusters: u64,
    tables: Cache,
    inner: Cache,
    refcounts: Cache,
    report: CheckReport,
}

impl Check {
    /// Begins a check of an image that was opened.
    #[must_use]
    pub fn new(image: &Qcow2, source: &dyn ReadAt, options: &CheckOptions) -> Self {
        let header = image.header.clone();
        let clusters = source.size().div_ceil(header.cluster_size());
        Self {
            window: Window::new(u64::from(options.window.max(1)).min(clusters.max(1))),
            header,
            most_entries: options.most_entries,
            clusters,
            tables: Cache::new(2),
            inner: Cache::new(2),
            refcounts: Cache::new(4),
            report: CheckReport::default(),
        }
    }

    /// Makes one pass; true if it was the last.
    ///
    /// # Errors
    ///
    /// [`Error::Read`], or [`Reason::TooMuchWork`]. What is wrong with the image is reported, and
    /// is no error.
    pub fn step(&mut self, source: &mut dyn ReadAt) -> Result<bool, Error> {
        self.walk(source)?;
        self.compare(source)?;
        self.window.advance();
        Ok(self.window.start() >= self.clusters)
    }

    /// Clusters that were compared, of how many.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        (self.window.start().min(self.clusters), self.clusters)
    }

    /// What was found; complete after the last step.
    #[must_use]
    pub fn report(&self) -> &CheckReport {
        &self.report
    }

    fn first_pass(&self) -> bool {
        self.window.start() == 0
    }

    fn compare(&mut self, source: &mut dyn ReadAt) -> Result<(), Error> {
        let (start, end) = (self.window.start(), self.window.end().min(self.clusters));
        self.work(end.saturating_sub(start))?;
        for cluster in start..end {
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

    /// The refcount of a cluster on the disk; zero where there is no block for it.
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
        // The bytes that hold the refcount, so that they are within one line.
        let bit = (cluster % per_block) << order;
        let byte = block + bit / 64 * 8;
        let bytes = self.refcounts.bytes(source, byte, 8)?;
        let within = cluster % per_block % (64 >> order);
        Ok(super::header::refcount(bytes, within, order))
    }

    /// Why a block of refcounts is not used.
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

    /// Counts entries as looked at.
    fn work(&mut self, entries: u64) -> Result<(), Error> {
        self.report.entries += entries;
        let spent = self.report.entries;
        ensure(spent <= self.most_entries, Reason::TooMuchWork, 0, spent)
    }

    /// Notes a fault of an entry; each pass meets it again, and only the first notes it.
    fn fault(&mut self, reason: Reason, at: u64, entry: u64) {
        if self.first_pass() {
            self.problem(ProblemKind::Entry(reason), at, entry, 0);
        }
    }

    fn problem(&mut self, kind: ProblemKind, at: u64, found: u64, expected: u64) {
        match kind {
            ProblemKind::Leak => self.report.leaks += 1,
            _ => self.report.errors += 1,
        }
        if self.report.problems.len() < MOST_PROBLEMS {
            self.report.problems.push(Problem {
                kind,
                at,
                found,
                expected,
            });
        }
    }
}
