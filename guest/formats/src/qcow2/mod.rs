//! qcow2, versions 2 and 3 (docs/interop/qcow2.txt in QEMU's sources).
//!
//! An open image takes three cache lines of memory for table entries, whatever its size.

mod check;
mod entry;
mod extensions;
mod header;
mod map;
mod snapshot;
mod writer;

use alloc::vec::Vec;

pub use check::{Check, CheckOptions, CheckReport, Problem, ProblemKind};
pub use snapshot::{LARGEST_SNAPSHOT_TABLE, MOST_SNAPSHOTS, Snapshot};
pub use writer::{CLUSTER, MAPPED, TooLarge, Writer};

pub(crate) use header::inspect;

use crate::cache::Cache;
use crate::error::{Error, ensure};
use crate::info::{Info, LONGEST_NAME, Options};
use crate::mapping::{Codec, Mapping, join};
use crate::reason::Reason;
use crate::source::ReadAt;
use crate::span::Span;
use header::Header;

/// An open qcow2 image.
#[derive(Debug)]
pub struct Qcow2 {
    header: Header,
    /// The L1 table by which the disk is read: its own or that of a snapshot.
    l1: L1,
    virtual_size: u64,
    l1_cache: Cache,
    l2_cache: Cache,
}

/// An L1 table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct L1 {
    offset: u64,
    entries: u64,
}

impl Qcow2 {
    /// Opens the image.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with the first reason that `options` does not allow.
    pub fn open(source: &mut dyn ReadAt, options: &Options) -> Result<Self, Error> {
        let mut info = Info::new(crate::format::Format::Qcow2);
        let header = inspect(source, &mut info, options)?;
        info.require(options)?;
        Ok(Self::new(header))
    }

    pub(crate) fn new(header: Header) -> Self {
        Self {
            l1: header.l1,
            virtual_size: header.virtual_size,
            header,
            l1_cache: Cache::new(1),
            l2_cache: Cache::new(2),
        }
    }

    /// The size of the virtual disk in bytes, or of the snapshot that was selected.
    #[must_use]
    pub fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    /// The size of a cluster in bytes.
    #[must_use]
    pub fn cluster_size(&self) -> u64 {
        self.header.cluster_size()
    }

    /// How compressed clusters are compressed.
    #[must_use]
    pub fn codec(&self) -> Codec {
        self.header.codec
    }

    /// Whether the image names a backing file.
    #[must_use]
    pub fn has_backing(&self) -> bool {
        self.header.has_backing
    }

    /// Where the bytes at `offset` of the virtual disk come from. For each 2,048 entries that the
    /// answer joins it reads at most one cache line of the L1 table and one of L2 tables.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if an entry on the way leads nowhere or breaks the format,
    /// [`Error::Outside`] behind the end of the disk, and [`Error::Read`].
    pub fn map(&mut self, source: &mut dyn ReadAt, offset: u64) -> Result<Mapping, Error> {
        self.joined(source, offset).map(|(mapping, _)| mapping)
    }

    /// Does what [`map`](Self::map) does, and returns also how many table entries were looked at.
    pub(crate) fn joined(
        &mut self,
        source: &mut dyn ReadAt,
        offset: u64,
    ) -> Result<(Mapping, u64), Error> {
        join(offset, self.virtual_size, |at| self.piece(source, at))
    }

    /// How many lines of its tables were read so far.
    pub(crate) fn loads(&self) -> u64 {
        self.l1_cache.loads() + self.l2_cache.loads()
    }

    /// Shows each snapshot to `see`, in the order of the table.
    ///
    /// # Errors
    ///
    /// [`Reason::BadSnapshot`] if the table is not understood.
    pub fn snapshots(
        &self,
        source: &mut dyn ReadAt,
        see: &mut dyn FnMut(Snapshot),
    ) -> Result<(), Error> {
        snapshot::walk(source, &self.header, see)
    }

    /// Has all further reads see the disk of a snapshot: the one whose id is `selector`, or else
    /// whose name is. It has to be shorter than [`LONGEST_NAME`], since longer ones are not kept whole.
    ///
    /// # Errors
    ///
    /// [`Reason::NoSuchSnapshot`], or the reason for which its tables are refused.
    pub fn select_snapshot(
        &mut self,
        source: &mut dyn ReadAt,
        selector: &[u8],
        options: &Options,
    ) -> Result<(), Error> {
        let found = self.find_snapshot(source, selector)?;
        let missing = Reason::NoSuchSnapshot;
        let found = found.ok_or(Error::refused(missing, self.header.snapshots_at, 0))?;
        let size = found.disk_size.unwrap_or(self.header.virtual_size);
        let too_large =
            size > options.largest_disk && !options.allowed.contains(Reason::VirtualSize);
        ensure(!too_large, Reason::VirtualSize, found.at, size)?;
        let l1 = L1 {
            offset: found.l1_offset,
            entries: u64::from(found.l1_entries),
        };
        self.header.check_l1(source, l1, size, found.at)?;
        self.l1 = l1;
        self.virtual_size = size;
        Ok(())
    }

    fn find_snapshot(
        &self,
        source: &mut dyn ReadAt,
        selector: &[u8],
    ) -> Result<Option<Snapshot>, Error> {
        let (mut by_id, mut by_name) = (None, None);
        if selector.len() >= LONGEST_NAME {
            return Ok(None);
        }
        self.snapshots(source, &mut |snapshot| {
            if snapshot.id == selector && by_id.is_none() {
                by_id = Some(snapshot);
            } else if snapshot.name == selector && by_name.is_none() {
                by_name = Some(snapshot);
            }
        })?;
        Ok(by_id.or(by_name))
    }
}

/// The parts of the file that no table of clusters may point into.
type Regions = Vec<Span>;
