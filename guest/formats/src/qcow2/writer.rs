//! Says how to write a qcow2 image: where each part goes, and what the tables hold ("Header", "Host
//! cluster management" and "Cluster mapping" in qcow2.txt). The caller writes the data and the
//! tables.
//!
//! The file is, in this order: the header, the refcount table, the L1 table, the clusters of the
//! disk in its order with each L2 table behind the clusters that it maps, and the refcount blocks.
//! Every cluster up to the end of the file is used exactly once, so that each refcount is one and
//! none has to be kept in memory. The header is written last, so that the file is no image before
//! it is complete, if its first cluster was zero before.
//!
//! A writer keeps at most three L2 tables and a cluster of the L1 table in memory, whatever the
//! size of the disk.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use crate::qcow2::entry::COPIED;
use crate::source::to_usize;

/// The size of a cluster in bytes.
pub const CLUSTER: u64 = 1 << CLUSTER_BITS;

/// How many bytes of the disk an L2 table maps.
pub const MAPPED: u64 = ENTRIES * CLUSTER;

const CLUSTER_BITS: u32 = 16;
/// How many entries a cluster of the L1 table, of the refcount table or of an L2 table has.
const ENTRIES: u64 = CLUSTER / 8;
/// A refcount has `1 << REFCOUNT_ORDER` bits. `REFCOUNTS` is how many a refcount block has.
const REFCOUNT_ORDER: u32 = 4;
const REFCOUNTS: u64 = (CLUSTER * 8) >> REFCOUNT_ORDER;
/// The longest L1 table and refcount table that QEMU reads, in clusters.
const MOST_L1: u64 = (32 << 20) / CLUSTER;
const MOST_REFCOUNT_TABLE: u64 = (8 << 20) / CLUSTER;
/// The size of a sector in bytes. Disks are whole sectors, since QEMU does not see what is behind
/// the last one.
const SECTOR: u64 = 512;
/// The length of the header in bytes, with the field for the compression type and its padding.
const HEADER_LENGTH: u32 = 112;

/// The disk is larger than any that QEMU reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a qcow2 image with clusters of 64 KiB cannot have a disk of {size} bytes")]
pub struct TooLarge {
    /// Its size in bytes.
    pub size: u64,
}

/// An image that is being written.
///
/// The caller [places](Self::place) the clusters of the disk that are not zero, in their order.
/// Each time, and after [`finish`](Self::finish), it [takes](Self::take_table) the tables that are
/// complete and writes them.
#[derive(Debug)]
pub struct Writer {
    layout: Layout,
    /// The number of the first cluster of the file that is free.
    next: u64,
    /// The L2 table of the last cluster that was placed: its number, and its bytes.
    l2: Option<(u64, Vec<u8>)>,
    /// The complete L2 tables that have not been taken: their numbers, their offsets in the file in
    /// bytes, and their bytes.
    full: VecDeque<(u64, u64, Vec<u8>)>,
    /// The cluster of the L1 table that is being filled, and how many clusters of it were taken
    /// before.
    l1: Vec<u8>,
    l1_taken: u64,
    stage: Stage,
}

/// Which tables are taken next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// L2 tables, while clusters are placed.
    Data,
    /// The rest of the L1 table.
    L1,
    /// The refcount block with this number, out of so many.
    Refcounts {
        index: u64,
        blocks: u64,
    },
    /// The cluster of the refcount table with this number.
    RefcountTable {
        index: u64,
        blocks: u64,
    },
    Header,
    Done,
}

/// What follows from the size of the disk. All fields but the size count clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    /// The size of the disk in bytes.
    size: u64,
    /// How many L2 tables a disk without zeros has.
    tables: u64,
    refcount_table: u64,
    l1: u64,
}

impl Layout {
    fn new(size: u64) -> Option<Self> {
        let size = size.checked_next_multiple_of(SECTOR)?;
        let clusters = size.div_ceil(CLUSTER);
        let tables = clusters.div_ceil(ENTRIES);
        let l1 = tables.div_ceil(ENTRIES);
        let mut refcount_table = 1;
        // The table has room for all blocks of a full disk, its own and theirs included.
        loop {
            let before = 1 + refcount_table + l1 + clusters + tables;
            let needed = blocks_behind(before).div_ceil(ENTRIES);
            if needed <= refcount_table {
                break;
            }
            refcount_table = needed;
        }
        let possible = l1 <= MOST_L1 && refcount_table <= MOST_REFCOUNT_TABLE;
        possible.then_some(Self {
            size,
            tables,
            refcount_table,
            l1,
        })
    }

    const fn l1_at(&self) -> u64 {
        1 + self.refcount_table
    }

    const fn data_at(&self) -> u64 {
        self.l1_at() + self.l1
    }
}

/// How many refcount blocks a file needs that has this many other clusters. The blocks themselves
/// have refcounts, too.
fn blocks_behind(clusters: u64) -> u64 {
    // One refcount of each block is its own, the others are for other clusters.
    clusters.div_ceil(REFCOUNTS - 1)
}

impl Writer {
    /// Begins an image of a disk of `size` bytes, which is filled up to whole sectors of 512 bytes.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] if the disk has more than 320 GiB less than 2 PiB: the refcounts of a full one would
    /// take more than QEMU reads.
    pub fn new(size: u64) -> Result<Self, TooLarge> {
        let layout = Layout::new(size).ok_or(TooLarge { size })?;
        Ok(Self {
            layout,
            next: layout.data_at(),
            l2: None,
            full: VecDeque::new(),
            l1: empty(),
            l1_taken: 0,
            stage: Stage::Data,
        })
    }

    /// Places the `count` clusters of the disk from number `first` on, one behind the other, and
    /// returns their offset in the file in bytes. They must lie behind all that were placed before
    /// on the disk. What is passed over reads as zeros.
    ///
    /// A caller that has clusters on both sides of a multiple of [`MAPPED`] places them in two calls. Then
    /// the table of the first ones lies between them, and the file is the same in whatever pieces the
    /// caller has its disk.
    ///
    /// All tables that are complete must be taken before. So no more of them wait than these
    /// clusters complete.
    pub fn place(&mut self, first: u64, count: u64) -> u64 {
        self.complete_before(first / ENTRIES);
        let start = self.allot(count);
        for number in 0..count {
            let (index, within) = ((first + number) / ENTRIES, (first + number) % ENTRIES);
            self.complete_before(index);
            let (_, table) = self.l2.get_or_insert_with(|| (index, empty()));
            put(table, within, COPIED | (start + number * CLUSTER));
        }
        start
    }

    /// Gives the L2 table that is being filled its place, if it is one before the table `index`.
    fn complete_before(&mut self, index: u64) {
        if let Some((number, table)) = self.l2.take_if(|(number, _)| *number < index) {
            let at = self.allot(1);
            self.full.push_back((number, at, table));
        }
    }

    /// Says that all clusters are placed, so that the rest of the tables can be taken.
    pub fn finish(&mut self) {
        self.complete_before(u64::MAX);
        if self.stage == Stage::Data {
            self.stage = self.behind_data();
        }
    }

    /// What comes behind the clusters and the part of the L1 table that was taken: a disk without bytes
    /// has no such table.
    fn behind_data(&self) -> Stage {
        match self.l1_taken < self.layout.l1 {
            true => Stage::L1,
            false => Stage::Refcounts {
                index: 0,
                blocks: blocks_behind(self.next),
            },
        }
    }

    /// Whether a table waits to be taken.
    #[must_use]
    pub fn has_table(&self) -> bool {
        !self.full.is_empty() || !matches!(self.stage, Stage::Data | Stage::Done)
    }

    /// Whether all tables are taken.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// Whether the header, which makes an image of the file, is all that is left to take.
    #[must_use]
    pub const fn has_only_header(&self) -> bool {
        matches!(self.stage, Stage::Header)
    }

    /// Fills `buffer`, which has the size of a cluster, with the next table that is complete, and
    /// returns where in the file it goes, in bytes.
    pub fn take_table(&mut self, buffer: &mut [u8]) -> Option<u64> {
        if let Some((index, at, table)) = self.full.pop_front() {
            if index / ENTRIES > self.l1_taken {
                self.full.push_front((index, at, table));
                return Some(self.take_l1(buffer));
            }
            put(&mut self.l1, index % ENTRIES, COPIED | at);
            buffer.copy_from_slice(&table);
            return Some(at);
        }
        let at = match self.stage {
            Stage::L1 => {
                let at = self.take_l1(buffer);
                self.stage = self.behind_data();
                at
            }
            Stage::Refcounts { index, blocks } => {
                let all = self.next - index + blocks;
                fill_refcounts(buffer, all - index * REFCOUNTS);
                self.stage = match index + 1 {
                    index if index < blocks => Stage::Refcounts { index, blocks },
                    _ => Stage::RefcountTable { index: 0, blocks },
                };
                self.allot(1)
            }
            Stage::RefcountTable { index, blocks } => {
                buffer.fill(0);
                let first = index * ENTRIES;
                for number in first..blocks.min(first + ENTRIES) {
                    let block = self.next - blocks + number;
                    put(buffer, number - first, block * CLUSTER);
                }
                self.stage = match index + 1 {
                    index if index < self.layout.refcount_table => {
                        Stage::RefcountTable { index, blocks }
                    }
                    _ => Stage::Header,
                };
                (1 + index) * CLUSTER
            }
            Stage::Header => {
                self.stage = Stage::Done;
                self.fill_header(buffer);
                0
            }
            Stage::Data | Stage::Done => return None,
        };
        Some(at)
    }

    /// The length of the file so far in bytes. It is the whole length once the last table is taken.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.next * CLUSTER
    }

    fn allot(&mut self, clusters: u64) -> u64 {
        let start = self.next * CLUSTER;
        self.next += clusters;
        start
    }

    fn take_l1(&mut self, buffer: &mut [u8]) -> u64 {
        buffer.copy_from_slice(&self.l1);
        self.l1.fill(0);
        let at = (self.layout.l1_at() + self.l1_taken) * CLUSTER;
        self.l1_taken += 1;
        at
    }

    fn fill_header(&self, buffer: &mut [u8]) {
        let layout = &self.layout;
        let entries = u32::try_from(layout.tables).unwrap_or(u32::MAX);
        let refcount_table = u32::try_from(layout.refcount_table).unwrap_or(u32::MAX);
        buffer.fill(0);
        // These stay zero: backing file, encryption, snapshots, features, compression type (zlib)
        // and, behind the header, the mark that ends the extensions.
        buffer[0..4].copy_from_slice(b"QFI\xfb");
        buffer[4..8].copy_from_slice(&3_u32.to_be_bytes());
        buffer[20..24].copy_from_slice(&CLUSTER_BITS.to_be_bytes());
        buffer[24..32].copy_from_slice(&layout.size.to_be_bytes());
        buffer[36..40].copy_from_slice(&entries.to_be_bytes());
        buffer[40..48].copy_from_slice(&(layout.l1_at() * CLUSTER).to_be_bytes());
        buffer[48..56].copy_from_slice(&CLUSTER.to_be_bytes());
        buffer[56..60].copy_from_slice(&refcount_table.to_be_bytes());
        buffer[96..100].copy_from_slice(&REFCOUNT_ORDER.to_be_bytes());
        buffer[100..104].copy_from_slice(&HEADER_LENGTH.to_be_bytes());
    }
}

/// A table of one cluster without entries.
fn empty() -> Vec<u8> {
    vec![0; to_usize(CLUSTER)]
}

/// Sets the entry number `index` of a table.
fn put(table: &mut [u8], index: u64, entry: u64) {
    let (entries, _) = table.as_chunks_mut::<8>();
    if let Some(place) = entries.get_mut(to_usize(index)) {
        *place = entry.to_be_bytes();
    }
}

/// Makes `block` a refcount block whose first `wanted` refcounts are one, or all if it has fewer.
fn fill_refcounts(block: &mut [u8], wanted: u64) {
    let (counts, _) = block.as_chunks_mut::<2>();
    for (index, count) in counts.iter_mut().enumerate() {
        let used = index < to_usize(wanted);
        *count = u16::from(used).to_be_bytes();
    }
}
