//! Takes entries of the L1 and L2 tables apart ("Cluster mapping" in qcow2.txt).

use core::ops::Range;

use crate::error::{Error, ensure};
use crate::qcow2::header::Header;
use crate::reason::Reason;

/// Bits 9 to 55 of an entry: an offset in the file.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// Bit 63: the refcount is exactly one.
pub(super) const COPIED: u64 = 1 << 63;
/// Bit 62 of an L2 entry: the cluster is compressed.
const COMPRESSED: u64 = 1 << 62;
/// In which units the length of a compressed cluster is given, in bytes.
const SECTOR: u64 = 512;
/// Bit 0 of an L2 entry that is not extended: the cluster reads as zeros.
const ZERO: u64 = 1;

/// The offset of the L2 table that an L1 entry names, or nothing if it names none. `at` is the
/// offset of the entry.
pub(super) fn l2_table(header: &Header, entry: u64, at: u64) -> Result<Option<u64>, Error> {
    ensure(
        entry & !(OFFSET | COPIED) == 0,
        Reason::ReservedBits,
        at,
        entry,
    )?;
    let offset = entry & OFFSET;
    let aligned = offset.is_multiple_of(header.cluster_size());
    ensure(aligned, Reason::Unaligned, at, offset)?;
    Ok((offset != 0).then_some(offset))
}

/// What an L2 entry says of its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// The image does not have the cluster. If the entry is extended, its bitmap may say that parts
    /// of it are zero.
    Unallocated,
    /// The cluster is at this offset in the file, in bytes.
    Allocated(u64),
    /// The cluster reads as zeros. This is the offset that is kept for it, or 0.
    Zero(u64),
    /// The cluster is compressed.
    Compressed {
        /// The offset of the compressed bytes in the file, which need not be aligned.
        offset: u64,
        /// How many bytes there are up to the end of the last sector that has some of them.
        length: u64,
    },
}

/// Takes an L2 entry apart. `at` is the offset of the entry.
pub(super) fn decode(header: &Header, entry: u64, at: u64) -> Result<Entry, Error> {
    if entry & COMPRESSED != 0 {
        return compressed(header, entry, at);
    }
    let zero = if header.extended_l2 { 0 } else { ZERO };
    let known = OFFSET | COPIED | zero;
    ensure(entry & !known == 0, Reason::ReservedBits, at, entry)?;
    let offset = entry & OFFSET;
    let aligned = offset.is_multiple_of(header.cluster_size());
    ensure(aligned, Reason::Unaligned, at, offset)?;
    if entry & zero != 0 {
        // Version 2 has no such flag, and a reader of that version would see other bytes.
        ensure(header.version >= 3, Reason::ReservedBits, at, entry)?;
        return Ok(Entry::Zero(offset));
    }
    Ok(match offset {
        0 => Entry::Unallocated,
        offset => Entry::Allocated(offset),
    })
}

/// The bytes of the file that an L2 entry names, whatever else is wrong with it: at least these. Nothing
/// if it names none.
pub(super) fn named(header: &Header, entry: u64) -> Option<Range<u64>> {
    let (offset, length) = match entry & COMPRESSED {
        0 => (entry & OFFSET, header.cluster_size()),
        // The number of sectors has so many bits that there may be twice as many bytes as in a cluster.
        _ => (
            entry & ((1 << offset_bits(header)) - 1),
            2 * header.cluster_size(),
        ),
    };
    (offset != 0).then(|| offset..offset + length)
}

/// How many bits the offset of a compressed cluster has.
fn offset_bits(header: &Header) -> u32 {
    62 - (header.cluster_bits - 8)
}

/// Checks the bitmap of an extended entry that lies at `at` ("Extended L2 Entries"): bit x says
/// that subcluster x is allocated, bit 32 + x that it reads as zero.
pub(super) fn check_bitmap(entry: Entry, bitmap: u64, at: u64) -> Result<(), Error> {
    let (allocated, zero) = (bitmap & 0xffff_ffff, bitmap >> 32);
    let (holds, reason) = match entry {
        // Subclusters of a compressed cluster have no bits of their own.
        Entry::Compressed { .. } => (bitmap == 0, Reason::ReservedBits),
        Entry::Allocated(_) => (allocated & zero == 0, Reason::BadEntry),
        Entry::Unallocated | Entry::Zero(_) => (allocated == 0, Reason::BadEntry),
    };
    ensure(holds, reason, at + 8, bitmap)
}

/// Whether a compressed cluster of `length` bytes at `offset` lies in a file of `size` bytes. The file
/// may end within the last sector of the cluster, since a writer need not fill it up.
pub(super) fn is_inside(offset: u64, length: u64, size: u64) -> bool {
    let end = offset.saturating_add(length);
    offset < size && end.saturating_sub(size) < SECTOR
}

fn compressed(header: &Header, entry: u64, at: u64) -> Result<Entry, Error> {
    ensure(entry & COPIED == 0, Reason::ReservedBits, at, entry)?;
    // The low bits are the offset. The bits above, up to bit 61, are the number of further sectors.
    let bits = offset_bits(header);
    let offset = entry & ((1 << bits) - 1);
    let further = (entry & !(COMPRESSED | COPIED)) >> bits;
    let length = (further + 1) * SECTOR - offset % SECTOR;
    ensure(offset != 0, Reason::BadEntry, at, entry)?;
    Ok(Entry::Compressed { offset, length })
}
