//! The dynamic disk header, and where the BAT says that blocks are ("Dynamic Disk Header Format"
//! and "Block Allocation Table and Data Blocks" in the specification).

use crate::bytes::{be16, be32, be64, has};
use crate::cache::Cache;
use crate::error::{Error, ensure};
use crate::info::{Info, LONGEST_NAME, ReferenceKind};
use crate::mapping::{Content, Mapping};
use crate::reason::Reason;
use crate::source::{ReadAt, array, read, to_usize};
use crate::span::Span;
use crate::survey::Entry;
use crate::vhd::SECTOR;
use crate::vhd::footer::{Footer, Kind, checksum};

/// The offset of the checksum in the header, in bytes.
const CHECKSUM: usize = 36;
/// The BAT's entry for a block that was never written.
const UNUSED: u32 = 0xffff_ffff;
/// The sizes of a block that are accepted, in bytes. Writers use 2 MiB.
const BLOCK_SIZES: core::ops::RangeInclusive<u64> = 4096..=256 << 20;

#[derive(Clone, Copy, Debug)]
pub(super) struct Dynamic {
    virtual_size: u64,
    table: Span,
    pub(super) block_size: u64,
    /// The length of the sector bitmap before each block, in bytes.
    bitmap: u64,
    /// Whether a sector that the bitmap lacks was never written. In a differencing disk it may be the
    /// parent's.
    is_alone: bool,
    /// Where the dynamic disk header is in the file. No block may lie there.
    header: Span,
    /// Where everything has to end: the offset of the footer at the end of the file, in bytes.
    end: u64,
}

/// Reads the header into `info`. `end` is where the footer at the end of the file begins.
pub(super) fn inspect(
    source: &mut dyn ReadAt,
    footer: &Footer,
    end: u64,
    info: &mut Info,
) -> Result<Dynamic, Error> {
    let at = footer.data_offset;
    ensure(at.is_multiple_of(SECTOR), Reason::Unaligned, 16, at)?;
    ensure(at >= SECTOR, Reason::Overlap, 16, at)?;
    let bytes: [u8; 1024] = array(source, at)?;
    ensure(has(&bytes, 0, b"cxsparse"), Reason::BadHeader, at, 0)?;
    let stored = be32(&bytes, CHECKSUM);
    let fits = stored == checksum(&bytes, CHECKSUM);
    ensure(fits, Reason::BadChecksum, at + 36, u64::from(stored))?;
    let version = be32(&bytes, 24);
    let known = version >> 16 == 1;
    ensure(
        known,
        Reason::UnsupportedVersion,
        at + 24,
        u64::from(version),
    )?;
    let block_size = u64::from(be32(&bytes, 32));
    let good = block_size.is_power_of_two() && BLOCK_SIZES.contains(&block_size);
    ensure(good, Reason::ClusterSize, at + 32, block_size)?;
    info.cluster_size = Some(block_size);
    info.variant = Some("dynamic");
    if footer.kind == Kind::Differencing {
        info.variant = Some("differencing");
        info.find(Reason::Differencing, at + 40, 0);
        parents(source, &bytes, info)?;
    }
    let entries = u64::from(be32(&bytes, 28));
    let needed = footer.virtual_size().div_ceil(block_size);
    ensure(entries >= needed, Reason::TableSize, at + 28, entries)?;
    let table = be64(&bytes, 16);
    ensure(
        table.is_multiple_of(SECTOR),
        Reason::Unaligned,
        at + 16,
        table,
    )?;
    let table_end = table.checked_add(entries * 4);
    let table_end = table_end.filter(|end| *end <= source.size());
    let beyond = Error::refused(Reason::BeyondEnd, at + 16, table);
    let table_end = table_end.ok_or(beyond)?;
    let header = Span {
        start: at,
        end: at + 1024,
    };
    let apart = table >= header.end || (table >= SECTOR && table_end <= at);
    let apart = apart && header.end <= end && table_end <= end;
    ensure(apart, Reason::Overlap, at + 16, table)?;
    Ok(Dynamic {
        virtual_size: footer.virtual_size(),
        table: Span {
            start: table,
            end: table_end,
        },
        block_size,
        bitmap: (block_size / SECTOR / 8).next_multiple_of(SECTOR),
        is_alone: footer.kind == Kind::Dynamic,
        header,
        end,
    })
}

/// Notes the names of the parent: the one in the header, and those that its locators point to.
fn parents(source: &mut dyn ReadAt, bytes: &[u8], info: &mut Info) -> Result<(), Error> {
    let name = bytes.get(64..576).unwrap_or_default();
    let pairs = name.chunks_exact(2);
    let length = pairs.take_while(|pair| be16(pair, 0) != 0).count() * 2;
    if length > 0 {
        let name = name.get(..length).unwrap_or_default();
        info.refer(ReferenceKind::Parent, name);
    }
    for locator in 0..8 {
        let at = 576 + locator * 24;
        let (length, offset) = (u64::from(be32(bytes, at + 8)), be64(bytes, at + 16));
        if be32(bytes, at) == 0 || length == 0 {
            continue;
        }
        let mut name = [0; LONGEST_NAME];
        let kept = to_usize(length).min(LONGEST_NAME);
        let name = name.get_mut(..kept).unwrap_or_default();
        match read(source, offset, name) {
            Ok(()) => info.refer(ReferenceKind::Parent, name),
            Err(Error::Refused(_)) => info.find(Reason::BadReference, offset, length),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Dynamic {
    /// How many bytes of a disk the table has entries for.
    pub(super) fn covered(self) -> u64 {
        self.table.length() / 4 * self.block_size
    }

    /// What the entry for the block at `offset` says. The bitmap before the block belongs to it.
    pub(super) fn entry(
        &self,
        source: &mut dyn ReadAt,
        cache: &mut Cache,
        offset: u64,
    ) -> Result<Entry, Error> {
        let mapping = self.block(source, cache, offset)?;
        let at = self.entry_at(offset);
        Ok(Entry::block(at, self.block_size, self.bitmap, mapping))
    }

    /// The offset in the file of the entry for the block that has the byte `offset` of the disk.
    fn entry_at(&self, offset: u64) -> u64 {
        self.table.start + offset / self.block_size * 4
    }

    /// The piece at `offset`, as far as the bitmap of its block says the same of all its sectors.
    pub(super) fn piece(
        &self,
        source: &mut dyn ReadAt,
        cache: &mut Cache,
        sectors: &mut Cache,
        offset: u64,
    ) -> Result<Mapping, Error> {
        let mapping = self.block(source, cache, offset)?;
        let Content::Data { offset: data } = mapping.content else {
            return Ok(mapping);
        };
        if !self.is_alone {
            return Ok(mapping);
        }
        let skip = offset % self.block_size;
        let first = skip / SECTOR;
        let at = data - skip - self.bitmap + first / 8;
        let bits = sectors.bytes(source, at, 1)?;
        let written = |sector: u64| {
            let byte = bits.get(to_usize(sector / 8 - first / 8))?;
            Some(byte & 0x80 >> (sector % 8) != 0)
        };
        let is_written = written(first) == Some(true);
        let last = (first..self.block_size / SECTOR)
            .take_while(|sector| written(*sector) == Some(is_written))
            .last();
        let end = (last.unwrap_or(first) + 1) * SECTOR;
        let length = mapping.length.min(end - skip);
        let content = match is_written {
            true => mapping.content,
            false => Content::Unwritten { offset: data },
        };
        Ok(Mapping::new(length, content))
    }

    /// The bytes at `offset`, to the end of their block, as they lie in the file.
    fn block(
        &self,
        source: &mut dyn ReadAt,
        cache: &mut Cache,
        offset: u64,
    ) -> Result<Mapping, Error> {
        let at = self.entry_at(offset);
        let skip = offset % self.block_size;
        let length = self.block_size - skip;
        let sector = cache.be32(source, at)?;
        if sector == UNUSED {
            return Ok(Mapping::new(length, Content::Zero));
        }
        let block = u64::from(sector) * SECTOR;
        let data = block + self.bitmap;
        let end = data + self.block_size;
        // Of the disk's last block, too, writers store all of it.
        ensure(end <= source.size(), Reason::BeyondEnd, at, block)?;
        let whole = Span { start: block, end };
        let meets = whole.meets(self.header) || whole.meets(self.table);
        let apart = block >= SECTOR && !meets && end <= self.end;
        ensure(apart, Reason::Overlap, at, block)?;
        Mapping::whole(
            at,
            data,
            self.block_size,
            offset,
            self.virtual_size,
            self.end,
        )
    }
}
