//! VDI, dynamic and static. There is no specification; `VDICore.h` of VirtualBox's sources and
//! `block/vdi.c` of QEMU's describe the format.
//!
//! Behind the header lies a map with an entry for each block of the disk. An open VDI takes one
//! cache line of memory.

use crate::bytes::{has, le32, le64};
use crate::cache::{Cache, LONG_LINE};
use crate::error::{Error, ensure};
use crate::info::{Info, Options, ReferenceKind};
use crate::mapping::{Content, Mapping, join};
use crate::reason::{Finding, Reason};
use crate::source::{ReadAt, prefix};
use crate::survey::{Entry, Units};

/// How many bytes of the header are read.
const HEADER: u64 = 512;
/// The smallest entry that names no block. This one means "discarded", and the next one, the
/// largest there is, "never written".
const UNALLOCATED: u32 = 0xffff_fffe;
const SECTOR: u64 = 512;
/// The sizes of a block that are accepted, in bytes. Writers use 1 MiB.
const BLOCK_SIZES: core::ops::RangeInclusive<u64> = 4096..=256 << 20;

/// An open VDI.
#[derive(Debug)]
pub struct Vdi {
    virtual_size: u64,
    map: u64,
    /// The offset of block 0 in the file, in bytes.
    data: u64,
    block_size: u64,
    /// How many blocks the file has.
    allocated: u32,
    /// How many entries the map has, at least those for the disk.
    blocks: u32,
    cache: Cache,
}

/// Reads the header into `info`. Fails where nothing further can be read.
pub(crate) fn inspect(
    source: &mut dyn ReadAt,
    info: &mut Info,
    options: &Options,
) -> Result<Vdi, Error> {
    let size = source.size();
    ensure(size >= HEADER, Reason::Truncated, size, size)?;
    let bytes: [u8; 512] = prefix(source)?;
    ensure(
        has(&bytes, 64, b"\x7f\x10\xda\xbe"),
        Reason::BadHeader,
        64,
        0,
    )?;
    let version = le32(&bytes, 68);
    ensure(
        version >> 16 == 1,
        Reason::UnsupportedVersion,
        68,
        u64::from(version),
    )?;
    info.version = Some(1);
    kind(&bytes, info)?;
    // As QEMU does, fill up the last sector.
    let virtual_size = le64(&bytes, 368).checked_next_multiple_of(SECTOR);
    let virtual_size = virtual_size.unwrap_or(u64::MAX);
    info.set_size(virtual_size, 368, options);
    let sector = u64::from(le32(&bytes, 360));
    ensure(sector == SECTOR, Reason::BadHeader, 360, sector)?;
    let block_size = u64::from(le32(&bytes, 376));
    let good = block_size.is_power_of_two() && BLOCK_SIZES.contains(&block_size);
    ensure(good, Reason::ClusterSize, 376, block_size)?;
    info.cluster_size = Some(block_size);
    let (map, data) = (u64::from(le32(&bytes, 340)), u64::from(le32(&bytes, 344)));
    // VirtualBox passes over so many bytes before each block, and QEMU does not, so that each would see
    // another disk. Writers have none.
    let extra = u64::from(le32(&bytes, 380));
    ensure(extra == 0, Reason::BadHeader, 380, extra)?;
    for (at, offset) in [(340, map), (344, data)] {
        ensure(offset.is_multiple_of(SECTOR), Reason::Unaligned, at, offset)?;
    }
    let (blocks, allocated) = (le32(&bytes, 384), le32(&bytes, 388));
    let needed = virtual_size.div_ceil(block_size);
    ensure(
        u64::from(blocks) >= needed,
        Reason::TableSize,
        384,
        u64::from(blocks),
    )?;
    let map_end = map + u64::from(blocks) * 4;
    ensure(map >= HEADER, Reason::Overlap, 340, map)?;
    ensure(map_end <= size, Reason::BeyondEnd, 340, map)?;
    ensure(data >= map_end, Reason::Overlap, 344, data)?;
    ensure(
        allocated <= blocks,
        Reason::BadHeader,
        388,
        u64::from(allocated),
    )?;
    Ok(Vdi {
        virtual_size,
        map,
        data,
        block_size,
        allocated,
        blocks,
        cache: Cache::new(1),
    })
}

fn kind(bytes: &[u8], info: &mut Info) -> Result<(), Error> {
    info.variant = Some(match le32(bytes, 76) {
        1 => "dynamic",
        2 => "static",
        3 => "undo",
        4 => "differencing",
        other => return Err(Error::refused(Reason::BadHeader, 76, u64::from(other))),
    });
    // There are two such UUIDs: of the image that this one was made from, and of the one below it.
    // One that is not zero names a parent.
    let uuid = |at: usize| bytes.get(at..at + 16).unwrap_or_default();
    let parents = [424, 440].map(uuid);
    let named = |uuid: &&[u8]| uuid.iter().any(|byte| *byte != 0);
    if le32(bytes, 76) > 2 || parents.iter().any(named) {
        info.find(Reason::Differencing, 76, u64::from(le32(bytes, 76)));
    }
    for uuid in parents.iter().filter(|uuid| named(uuid)) {
        info.refer(ReferenceKind::Parent, uuid);
    }
    Ok(())
}

impl Vdi {
    /// The size of the virtual disk in bytes.
    #[must_use]
    pub fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    /// The size of a block in bytes.
    #[must_use]
    pub fn block_size(&self) -> u64 {
        self.block_size
    }

    /// Where the bytes at `offset` of the virtual disk come from, and how many table entries were
    /// looked at.
    pub(crate) fn joined(
        &mut self,
        source: &mut dyn ReadAt,
        offset: u64,
    ) -> Result<(Mapping, u64), Error> {
        join(offset, self.virtual_size, |at| self.piece(source, at))
    }

    /// Has tables be read in long pieces from now on.
    pub(crate) fn read_in_order(&mut self) {
        self.cache.set_length(LONG_LINE);
    }

    /// How many lines of its tables were read so far.
    pub(crate) fn loads(&self) -> u64 {
        self.cache.loads()
    }

    /// How many bytes of a disk the map has entries for.
    pub(crate) fn covered(&self) -> u64 {
        u64::from(self.blocks) * self.block_size
    }

    pub(crate) fn units(&self) -> Units {
        Units {
            base: self.data,
            unit: self.block_size,
        }
    }

    /// What the entry for the block at `offset` says.
    pub(crate) fn entry(&mut self, source: &mut dyn ReadAt, offset: u64) -> Result<Entry, Error> {
        let mapping = self.piece(source, offset)?;
        let at = self.entry_at(offset);
        Ok(Entry::block(at, self.block_size, 0, mapping))
    }

    /// What is wrong with the header's number of blocks, if the map names `named` of them.
    pub(crate) fn miscount(&self, named: u64) -> Option<Finding> {
        let allocated = u64::from(self.allocated);
        (named != allocated).then_some(Finding {
            reason: Reason::BadHeader,
            at: 388,
            value: allocated,
        })
    }

    /// The offset in the file of the entry for the block that has the byte `offset` of the disk.
    fn entry_at(&self, offset: u64) -> u64 {
        self.map + offset / self.block_size * 4
    }

    fn piece(&mut self, source: &mut dyn ReadAt, offset: u64) -> Result<Mapping, Error> {
        let at = self.entry_at(offset);
        let skip = offset % self.block_size;
        let length = self.block_size - skip;
        let block = self.cache.le32(source, at)?;
        if block >= UNALLOCATED {
            return Ok(Mapping::new(length, Content::Zero));
        }
        ensure(
            block < self.allocated,
            Reason::BadEntry,
            at,
            u64::from(block),
        )?;
        // An offset that is too large for the type is behind the end of the file as well.
        let before = u64::from(block).saturating_mul(self.block_size);
        let start = before.saturating_add(self.data);
        Mapping::whole(
            at,
            start,
            self.block_size,
            offset,
            self.virtual_size,
            source.size(),
        )
    }
}
