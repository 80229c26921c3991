//! VHDX (\[MS-VHDX\]: Virtual Hard Disk v2 File Format).
//!
//! If the log was not replayed, it is replayed in memory, for the tables alone: where it holds
//! changes is kept as at most [`MOST_PATCHES`] places in the log, of 40 bytes each. An open VHDX
//! takes also one cache line of the BAT, and 96 KiB while the log is read.

mod header;
mod log;
mod metadata;
mod patches;

pub use log::{LONGEST_LOG, MOST_CHANGES};
pub use patches::MOST_PATCHES;

use crate::cache::{Cache, LONG_LINE};
use crate::error::{Error, ensure};
use crate::info::{Info, Options};
use crate::mapping::{Content, Mapping, join};
use crate::reason::Reason;
use crate::source::{ReadAt, len64, read, to_usize};
use crate::span::Span;
use crate::survey::{Entry, Units};
use header::Regions;
use metadata::Metadata;
use patches::Log;

/// An open VHDX.
#[derive(Debug)]
pub struct Vhdx {
    metadata: Metadata,
    regions: Regions,
    log: Log,
    cache: Cache,
}

/// Regions and blocks begin and end at a multiple of this, in bytes.
const MIB: u64 = 1 << 20;
/// The checksum that all structures of the format have (CRC-32C).
static CRC_32C: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);

/// The checksum of `length` bytes at `at`, with the four bytes at `field` of them taken as zero.
fn checksum(source: &mut dyn ReadAt, at: u64, length: u64, field: u64) -> Result<u32, Error> {
    let mut digest = CRC_32C.digest();
    let mut bytes = [0; 4096];
    for done in (0..length).step_by(bytes.len()) {
        let there = (length - done).min(len64(&bytes));
        let there = to_usize(there);
        let piece = bytes.get_mut(..there).unwrap_or_default();
        read(source, at + done, piece)?;
        if done == 0 {
            let field = to_usize(field);
            piece.get_mut(field..field + 4).unwrap_or_default().fill(0);
        }
        digest.update(piece);
    }
    Ok(digest.finalize())
}

/// Reads the headers into `info`. Fails where nothing further can be read.
pub(crate) fn inspect(
    source: &mut dyn ReadAt,
    info: &mut Info,
    options: &Options,
) -> Result<Vhdx, Error> {
    let header = header::read_header(source)?;
    info.version = Some(1);
    let log = log::replay(source, &header)?;
    info.log_replayed = !log.is_empty();
    let regions = header::read_regions(source, &header, &log, info)?;
    let mut patched = log.over(source);
    let metadata = metadata::read_metadata(&mut patched, regions.metadata, info, options)?;
    let needed = metadata.bat_entries() * 8;
    let at = regions.bat.start;
    let length = regions.bat.length();
    ensure(length >= needed, Reason::TableSize, at, length)?;
    Ok(Vhdx {
        metadata,
        regions,
        log,
        cache: Cache::new(1),
    })
}

impl Vhdx {
    /// The size of the virtual disk in bytes.
    #[must_use]
    pub fn virtual_size(&self) -> u64 {
        self.metadata.virtual_size
    }

    /// The size of a block in bytes.
    #[must_use]
    pub fn block_size(&self) -> u64 {
        self.metadata.block_size
    }

    /// Where the bytes at `offset` of the virtual disk come from, and how many table entries were
    /// looked at.
    pub(crate) fn joined(
        &mut self,
        source: &mut dyn ReadAt,
        offset: u64,
    ) -> Result<(Mapping, u64), Error> {
        join(offset, self.metadata.virtual_size, |at| {
            self.piece(source, at)
        })
    }

    /// Has tables be read in long pieces from now on.
    pub(crate) fn read_in_order(&mut self) {
        self.cache.set_length(LONG_LINE);
    }

    /// How many lines of its tables were read so far.
    pub(crate) fn loads(&self) -> u64 {
        self.cache.loads()
    }

    pub(crate) fn units(&self) -> Units {
        Units { base: 0, unit: MIB }
    }

    /// What the entry for the block at `offset` says.
    pub(crate) fn entry(&mut self, source: &mut dyn ReadAt, offset: u64) -> Result<Entry, Error> {
        let mapping = self.piece(source, offset)?;
        let at = self.entry_at(offset);
        Ok(Entry::block(at, self.metadata.block_size, 0, mapping))
    }

    /// Where the entry for the block that has the byte `offset` lies. Behind the entries of each
    /// chunk of payload blocks there is one more, for their sector bitmap.
    fn entry_at(&self, offset: u64) -> u64 {
        let block = offset / self.metadata.block_size;
        let index = block + block / self.metadata.chunk_ratio;
        self.regions.bat.start + index * 8
    }

    /// The piece at `offset`, to the end of its block (section 2.5.1.1).
    fn piece(&mut self, source: &mut dyn ReadAt, offset: u64) -> Result<Mapping, Error> {
        let size = self.metadata.block_size;
        let at = self.entry_at(offset);
        let entry = self.cache.le64(&mut self.log.over(source), at)?;
        let skip = offset % size;
        let length = size - skip;
        let reserved = entry & 0xf_fff8;
        ensure(reserved == 0, Reason::ReservedBits, at, entry)?;
        match entry & 7 {
            // Not present, undefined, zero, unmapped.
            0..=3 => return Ok(Mapping::new(length, Content::Zero)),
            6 => {}
            _ => return Err(Error::refused(Reason::BadEntry, at, entry)),
        }
        let data = Span {
            start: entry & !(MIB - 1),
            end: (entry & !(MIB - 1)).saturating_add(size),
        };
        self.regions.check_apart(data, at)?;
        let end = data.start.saturating_add(size);
        let changed = self.log.touches(data.start, end);
        ensure(!changed, Reason::LogTouchesData, at, data.start)?;
        Mapping::whole(
            at,
            data.start,
            size,
            offset,
            self.metadata.virtual_size,
            source.size(),
        )
    }
}
