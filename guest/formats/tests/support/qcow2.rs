//! A writer of qcow2 images with right refcounts.
//!
//! Layout in clusters: header, refcount table, L1 table, snapshot table, snapshot L1 tables, then
//! L2 tables and data as they come, and the refcount blocks at the end.

use std::ops::Range;

use super::bytes::{be16, be32, be64, put};
use super::{Put, zstd};

pub(crate) struct Qcow2 {
    pub(crate) version: u32,
    pub(crate) bits: u32,
    pub(crate) refcount_order: u32,
    pub(crate) extended: bool,
    pub(crate) zstd: bool,
    pub(crate) backing: Option<&'static str>,
    pub(crate) incompatible: u64,
    pub(crate) snapshots: Vec<(&'static str, &'static str)>,
    pub(crate) size: u64,
    pub(crate) puts: Vec<Put>,
    pub(crate) disk: Vec<u8>,
}

/// Where things are, so that tests can spoil them.
pub(crate) struct Built {
    pub(crate) bytes: Vec<u8>,
    pub(crate) l1: usize,
    pub(crate) first_l2: usize,
    pub(crate) refcount_table: usize,
    pub(crate) first_block: usize,
    pub(crate) snapshots: usize,
}

impl Qcow2 {
    pub(crate) fn new(bits: u32, puts: &[Put]) -> Self {
        let unit = 1 << bits;
        let size = puts.len() * unit;
        Self {
            version: 3,
            bits,
            refcount_order: 4,
            extended: false,
            zstd: false,
            backing: None,
            incompatible: 0,
            snapshots: Vec::new(),
            size: size as u64,
            puts: puts.to_vec(),
            disk: super::disk_of(puts, unit, size),
        }
    }

    /// The same with a disk that ends `bytes` before its last cluster does.
    pub(crate) fn shorter(mut self, bytes: u64) -> Self {
        self.size -= bytes;
        self.disk.truncate(self.size as usize);
        self
    }

    fn entry_size(&self) -> usize {
        if self.extended { 16 } else { 8 }
    }

    pub(crate) fn build(&self) -> Built {
        let unit = 1_usize << self.bits;
        let clusters = |bytes: usize| bytes.div_ceil(unit).max(1);
        let l2_entries = unit / self.entry_size();
        let l1_entries = self.puts.len().div_ceil(l2_entries);
        // All start alike: each table in clusters of its own.
        let table_clusters = clusters(8 * 64);
        let refcount_table = unit;
        let l1 = refcount_table + table_clusters * unit;
        let l1_room = clusters(l1_entries * 8) * unit;
        let snapshots = l1 + l1_room;
        let has_snapshots = !self.snapshots.is_empty();
        let table = if has_snapshots {
            clusters(self.snapshots.len() * 128) * unit
        } else {
            0
        };
        let first_l2 = snapshots + table + self.snapshots.len() * l1_room;
        let mut bytes = vec![0; first_l2];
        let mut references = vec![1_u64; first_l2 / unit];
        let users = 1 + self.snapshots.len() as u64;

        let mut l1_table = vec![0; l1_entries];
        for (index, puts) in self.puts.chunks(l2_entries).enumerate() {
            let l2 = bytes.len().next_multiple_of(unit);
            bytes.resize(l2 + unit, 0);
            references.resize(l2 / unit, 0);
            references.push(users);
            l1_table[index] = l2 as u64 | copied(users);
            for (within, put) in puts.iter().enumerate() {
                let number = index * l2_entries + within;
                let at = l2 + within * self.entry_size();
                let used = self.cluster(*put, number, at, users, &mut bytes);
                references.resize(references.len().max(bytes.len().div_ceil(unit)), 0);
                references[used]
                    .iter_mut()
                    .for_each(|count| *count += users);
            }
        }
        bytes.resize(bytes.len().next_multiple_of(unit), 0);
        for (index, entry) in l1_table.iter().enumerate() {
            be64(&mut bytes, l1 + index * 8, *entry);
            for snapshot in 0..self.snapshots.len() {
                let at = snapshots + table + snapshot * l1_room + index * 8;
                be64(&mut bytes, at, *entry & !(1 << 63));
            }
        }
        if has_snapshots {
            self.snapshot_table(
                snapshots,
                snapshots + table,
                l1_room,
                l1_entries,
                &mut bytes,
            );
        }
        let first_block = self.refcounts(refcount_table, references, &mut bytes);
        self.header(
            refcount_table,
            table_clusters,
            l1,
            l1_entries,
            snapshots,
            &mut bytes,
        );
        Built {
            bytes,
            l1,
            first_l2,
            refcount_table,
            first_block,
            snapshots,
        }
    }

    /// Stores a cluster and its entry; the clusters of the file that it takes.
    fn cluster(
        &self,
        kind: Put,
        number: usize,
        at: usize,
        users: u64,
        bytes: &mut Vec<u8>,
    ) -> Range<usize> {
        let unit = 1_usize << self.bits;
        let start = (number * unit).min(self.disk.len());
        let end = (start + unit).min(self.disk.len());
        let mut data = self.disk[start..end].to_vec();
        data.resize(unit, 0);
        let aligned = bytes.len().next_multiple_of(unit);
        let all = 0xffff_ffff_u64;
        let mut used = 0..0;
        let (entry, bitmap) = match kind {
            Put::Hole => (0, 0),
            Put::Zero if self.extended => (0, all << 32),
            Put::Zero => (1, 0),
            Put::ZeroAllocated => {
                put(bytes, aligned, &vec![0xee; unit]);
                used = aligned / unit..aligned / unit + 1;
                let entry = aligned as u64 | copied(users);
                if self.extended {
                    (entry, all << 32)
                } else {
                    (entry | 1, 0)
                }
            }
            Put::Data => {
                put(bytes, aligned, &data);
                used = aligned / unit..aligned / unit + 1;
                (aligned as u64 | copied(users), all)
            }
            Put::Compressed => {
                // Packed behind what is there, at any byte, within sectors.
                let offset = bytes.len();
                let packed = match self.zstd {
                    true => zstd(&data),
                    false => deflate(&data),
                };
                bytes.extend(&packed);
                used = offset / unit..(offset + packed.len() - 1) / unit + 1;
                let sectors = (offset + packed.len() - 1) / 512 - offset / 512;
                let shift = 62 - (self.bits - 8);
                (1 << 62 | (sectors as u64) << shift | offset as u64, 0)
            }
        };
        be64(bytes, at, entry);
        if self.extended {
            be64(bytes, at + 8, bitmap);
        }
        used
    }

    fn refcounts(&self, table: usize, mut references: Vec<u64>, bytes: &mut Vec<u8>) -> usize {
        let unit = 1_usize << self.bits;
        let per_block = (unit * 8) >> self.refcount_order;
        let first = bytes.len();
        let mut blocks = 0;
        while blocks * per_block < references.len() {
            blocks = references.len().div_ceil(per_block);
            references.resize(first / unit + blocks, 1);
            blocks = references.len().div_ceil(per_block);
            references.resize(first / unit + blocks, 1);
        }
        bytes.resize(first + blocks * unit, 0);
        for block in 0..blocks {
            be64(bytes, table + block * 8, (first + block * unit) as u64);
        }
        for (cluster, count) in references.iter().enumerate() {
            let block = first + cluster / per_block * unit;
            let index = cluster % per_block;
            let bit = index << self.refcount_order;
            match self.refcount_order {
                0..=2 => bytes[block + bit / 8] |= (*count as u8) << (bit % 8),
                3 => bytes[block + index] = *count as u8,
                4 => be16(bytes, block + index * 2, *count as u16),
                5 => be32(bytes, block + index * 4, *count as u32),
                _ => be64(bytes, block + index * 8, *count),
            }
        }
        first
    }

    fn snapshot_table(
        &self,
        mut at: usize,
        l1: usize,
        room: usize,
        entries: usize,
        bytes: &mut Vec<u8>,
    ) {
        for (index, (id, name)) in self.snapshots.iter().enumerate() {
            be64(bytes, at, (l1 + index * room) as u64);
            be32(bytes, at + 8, entries as u32);
            be16(bytes, at + 12, id.len() as u16);
            be16(bytes, at + 14, name.len() as u16);
            be32(bytes, at + 36, 16);
            be64(bytes, at + 48, self.size);
            put(bytes, at + 56, id.as_bytes());
            put(bytes, at + 56 + id.len(), name.as_bytes());
            at = (at + 56 + id.len() + name.len()).next_multiple_of(8);
        }
    }

    fn header(
        &self,
        refcount_table: usize,
        table_clusters: usize,
        l1: usize,
        l1_entries: usize,
        snapshots: usize,
        bytes: &mut Vec<u8>,
    ) {
        put(bytes, 0, b"QFI\xfb");
        be32(bytes, 4, self.version);
        be32(bytes, 20, self.bits);
        be64(bytes, 24, self.size);
        be32(bytes, 36, l1_entries as u32);
        be64(bytes, 40, l1 as u64);
        be64(bytes, 48, refcount_table as u64);
        be32(bytes, 56, table_clusters as u32);
        be32(bytes, 60, self.snapshots.len() as u32);
        if !self.snapshots.is_empty() {
            be64(bytes, 64, snapshots as u64);
        }
        let mut length = 72;
        if self.version >= 3 {
            length = 112;
            let compression = u64::from(self.zstd) << 3;
            let extended = u64::from(self.extended) << 4;
            be64(bytes, 72, self.incompatible | compression | extended);
            be32(bytes, 96, self.refcount_order);
            be32(bytes, 100, 112);
            bytes[104] = u8::from(self.zstd);
        }
        if let Some(name) = self.backing {
            be64(bytes, 8, length as u64 + 8);
            be32(bytes, 16, name.len() as u32);
            put(bytes, length + 8, name.as_bytes());
        }
    }
}

fn copied(users: u64) -> u64 {
    u64::from(users == 1) << 63
}

/// A stream that looks back no further than 4 KiB, as QEMU writes it (`windowBits` 12): each piece of
/// that size is compressed by itself. Some readers know no others.
fn deflate(data: &[u8]) -> Vec<u8> {
    use miniz_oxide::deflate::core::{
        CompressorOxide, TDEFLFlush, compress, create_comp_flags_from_zip_params,
    };
    const WINDOW: usize = 4096;
    let pieces = data.len().div_ceil(WINDOW);
    let pack = |(index, piece): (usize, &[u8])| {
        let flush = match index + 1 == pieces {
            true => TDEFLFlush::Finish,
            false => TDEFLFlush::Sync,
        };
        // Level 6, and no header of zlib's.
        let mut compressor = CompressorOxide::new(create_comp_flags_from_zip_params(6, 0, 0));
        let mut packed = vec![0; 2 * WINDOW];
        let (_, read, written) = compress(&mut compressor, piece, &mut packed, flush);
        assert_eq!(read, piece.len());
        packed.truncate(written);
        packed
    };
    data.chunks(WINDOW).enumerate().flat_map(pack).collect()
}

/// Adds a bitmap to an image with clusters of 64 KiB. Its directory lies behind all else, and a table
/// of one entry behind that. Returns where the directory is.
pub(crate) fn add_bitmap(image: &mut Built) -> usize {
    const CLUSTER: usize = 65536;
    let bytes = &mut image.bytes;
    let directory = bytes.len();
    let table = directory + CLUSTER;
    bytes.resize(table + CLUSTER, 0);
    for at in [directory, table] {
        be16(bytes, image.first_block + at / CLUSTER * 2, 1);
    }
    be64(bytes, 88, 1);
    for (at, value) in [(112, 0x2385_2875), (116, 24), (120, 1)] {
        be32(bytes, at, value);
    }
    be64(bytes, 128, 32);
    be64(bytes, 136, directory as u64);
    be64(bytes, directory, table as u64);
    be32(bytes, directory + 8, 1);
    // A dirty tracking bitmap with a bit for 64 KiB.
    (bytes[directory + 16], bytes[directory + 17]) = (1, 16);
    be16(bytes, directory + 18, 8);
    put(bytes, directory + 24, b"a bitmap");
    directory
}
