//! The table of internal snapshots ("Snapshots" in qcow2.txt). Its entries have different lengths,
//! so that they can only be read one after the other.

use alloc::vec;
use alloc::vec::Vec;

use crate::bytes::{be16, be32, be64};
use crate::cache::Cache;
use crate::error::{Error, ensure};
use crate::info::LONGEST_NAME;
use crate::qcow2::header::Header;
use crate::reason::Reason;
use crate::source::{ReadAt, to_usize};

/// The most snapshots that an image may have. QEMU has the same limit.
pub const MOST_SNAPSHOTS: u32 = 65536;
/// The most extra data that an entry may have, in bytes. QEMU has the same limit.
const MOST_EXTRA: u64 = 1024;
/// The longest table that is read, in bytes. QEMU has the same limit.
pub const LARGEST_SNAPSHOT_TABLE: u64 = 64 << 20;
/// How many bytes of the table are read at once.
const PIECE: u64 = 32 << 10;
/// How many bytes an entry has before its extra data.
pub(super) const FIXED: u64 = 40;

/// A snapshot inside an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id, as it lies in the image: usually a decimal number. Of an id or a name at most
    /// [`LONGEST_NAME`] bytes are kept; QEMU writes at most 255.
    pub id: Vec<u8>,
    /// Its name, as it lies in the image.
    pub name: Vec<u8>,
    /// When it was taken, in seconds since 1970-01-01 00:00 UTC.
    pub seconds: u32,
    /// The size of the virtual machine's state that is stored with it, in bytes.
    pub vm_state_size: u64,
    /// The size of the disk at that time in bytes, if the image says it.
    pub disk_size: Option<u64>,
    pub(super) l1_offset: u64,
    pub(super) l1_entries: u32,
    /// Where the entry lies in the file.
    pub(super) at: u64,
    /// The offset of the first byte behind it.
    pub(super) end: u64,
}

pub(super) fn walk(
    source: &mut dyn ReadAt,
    header: &Header,
    see: &mut dyn FnMut(Snapshot),
) -> Result<(), Error> {
    let mut at = header.snapshots_at;
    let mut cache = Cache::with_lines(1, PIECE);
    for _ in 0..header.snapshots {
        let snapshot = entry(&mut cache, source, header, at)?;
        at = snapshot.end.next_multiple_of(8);
        see(snapshot);
    }
    Ok(())
}

/// The entry at `at`.
pub(super) fn entry(
    cache: &mut Cache,
    source: &mut dyn ReadAt,
    header: &Header,
    at: u64,
) -> Result<Snapshot, Error> {
    let before = at - header.snapshots_at;
    let fits = before < LARGEST_SNAPSHOT_TABLE;
    ensure(fits, Reason::BadSnapshot, at, before)?;
    let mut fixed = [0; 40];
    cache.copy(source, at, &mut fixed)?;
    let (id, name) = (u64::from(be16(&fixed, 12)), u64::from(be16(&fixed, 14)));
    let extra = u64::from(be32(&fixed, 36));
    ensure(extra <= MOST_EXTRA, Reason::BadSnapshot, at, extra)?;
    let mut known = [0; 16];
    let there = to_usize(extra.min(16));
    let room = known.get_mut(..there).unwrap_or_default();
    cache.copy(source, at + FIXED, room)?;
    let id_at = at + FIXED + extra;
    // Of a long name only the start is read, and the last entry has none behind it that would be missed.
    let end = id_at + id + name;
    ensure(end <= source.size(), Reason::BeyondEnd, at, end)?;
    let length = end - header.snapshots_at;
    ensure(
        length <= LARGEST_SNAPSHOT_TABLE,
        Reason::BadSnapshot,
        at,
        length,
    )?;
    Ok(Snapshot {
        id: bytes(cache, source, id_at, id)?,
        name: bytes(cache, source, id_at + id, name)?,
        seconds: be32(&fixed, 16),
        vm_state_size: match extra >= 8 {
            true => be64(&known, 0),
            false => u64::from(be32(&fixed, 32)),
        },
        disk_size: (extra >= 16).then(|| be64(&known, 8)),
        l1_offset: be64(&fixed, 0),
        l1_entries: be32(&fixed, 8),
        at,
        end,
    })
}

/// An id or a name of `length` bytes, cut if it is too long.
fn bytes(
    cache: &mut Cache,
    source: &mut dyn ReadAt,
    at: u64,
    length: u64,
) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; to_usize(length).min(LONGEST_NAME)];
    cache.copy(source, at, &mut bytes)?;
    Ok(bytes)
}
