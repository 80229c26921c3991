//! The metadata region, which has a table of items and then the items (section 2.6).

use crate::bytes::{guid, has, le16, le32, le64};
use crate::cache::Cache;
use crate::error::{Error, ensure};
use crate::info::{Info, LONGEST_NAME, Options, ReferenceKind};
use crate::reason::Reason;
use crate::source::{ReadAt, array, read, to_usize};
use crate::span::Span;
use crate::vhdx::MIB;
use crate::vhdx::header::guid_of;

/// The length of the table in bytes. The items lie behind it.
const TABLE: u64 = 64 << 10;
const MOST_ITEMS: u16 = 2047;
const REQUIRED: u32 = 1 << 2;
const HAS_PARENT: u32 = 1 << 1;
/// The most keys of a parent locator that are looked at.
const MOST_KEYS: u64 = 16;

const FILE_PARAMETERS: [u8; 16] = guid_of(0xcaa1_6737, 0xfa36, 0x4d43, 0xb3b6_33f0_aa44_e76b);
const DISK_SIZE: [u8; 16] = guid_of(0x2fa5_4224, 0xcd1b, 0x4876, 0xb211_5dbe_d83b_f4b8);
const DISK_ID: [u8; 16] = guid_of(0xbeca_12ab, 0xb2e6, 0x4523, 0x93ef_c309_e000_c746);
const SECTOR_SIZE: [u8; 16] = guid_of(0x8141_bf1d, 0xa96f, 0x4709, 0xba47_f233_a8fa_ab5f);
const PHYSICAL_SIZE: [u8; 16] = guid_of(0xcda3_48c7, 0x445d, 0x4471, 0x9cc9_e988_5251_c556);
const PARENT: [u8; 16] = guid_of(0xa8d3_5f2d, 0xb30b, 0x454d, 0xabf7_d3d8_4834_ab0c);

/// What the items say of the disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Metadata {
    pub(super) virtual_size: u64,
    pub(super) block_size: u64,
    /// How many payload blocks share a sector bitmap block (section 2.5).
    pub(super) chunk_ratio: u64,
}

impl Metadata {
    /// How many entries the BAT must have (section 2.5).
    pub(super) fn bat_entries(&self) -> u64 {
        let blocks = self.virtual_size.div_ceil(self.block_size);
        blocks + blocks.saturating_sub(1) / self.chunk_ratio
    }
}

pub(super) fn read_metadata(
    source: &mut dyn ReadAt,
    region: Span,
    info: &mut Info,
    options: &Options,
) -> Result<Metadata, Error> {
    let head: [u8; 32] = array(source, region.start)?;
    ensure(
        has(&head, 0, b"metadata"),
        Reason::BadHeader,
        region.start,
        0,
    )?;
    let count = le16(&head, 10);
    let at = region.start + 10;
    ensure(count <= MOST_ITEMS, Reason::BadHeader, at, u64::from(count))?;
    let (mut block, mut size, mut sector, mut locator) = (None, None, None, None);
    let (mut physical, mut id) = (None, None);
    // An item is read only if its meaning is known, and each of those comes once.
    let mut cache = Cache::new(1);
    for index in 0..u64::from(count) {
        let at = region.start + 32 + index * 32;
        let mut entry = [0; 32];
        cache.copy(source, at, &mut entry)?;
        let (offset, length) = (u64::from(le32(&entry, 16)), u64::from(le32(&entry, 20)));
        let inside = offset >= TABLE && offset + length <= region.length();
        let empty = offset == 0 && length == 0;
        ensure(inside || empty, Reason::BeyondEnd, at + 16, offset)?;
        let item = region.start + offset;
        match guid(&entry, 0) {
            FILE_PARAMETERS if length >= 8 => once(&mut block, number(source, item)?, at)?,
            DISK_SIZE if length >= 8 => once(&mut size, number(source, item)?, at)?,
            SECTOR_SIZE if length >= 4 => {
                let bytes: [u8; 4] = array(source, item)?;
                once(&mut sector, (item, u64::from(le32(&bytes, 0))), at)?;
            }
            // What these say does not matter to who reads the disk, but there is no disk without them.
            PHYSICAL_SIZE if length >= 4 => once(&mut physical, (item, length), at)?,
            DISK_ID if length >= 16 => once(&mut id, (item, length), at)?,
            PARENT => {
                once(&mut locator, (item, length), at)?;
                parent(source, item, length, info)?;
            }
            FILE_PARAMETERS | DISK_SIZE | SECTOR_SIZE | PHYSICAL_SIZE | DISK_ID => {
                return Err(Error::refused(Reason::BadHeader, at + 20, length));
            }
            _ => {
                let required = le32(&entry, 24) & REQUIRED != 0;
                ensure(!required, Reason::UnknownFeature, at, 0)?;
            }
        }
    }
    let missing = Error::refused(Reason::BadHeader, region.start, u64::from(count));
    let (block, size) = (block.ok_or(missing)?, size.ok_or(missing)?);
    let sector = sector.ok_or(missing)?;
    physical.and(id).ok_or(missing)?;
    decode(block, size, sector, info, options)
}

/// What an item says: where that lies in the file, and the number that it is.
type Said = (u64, u64);

/// The number of eight bytes at `at`.
fn number(source: &mut dyn ReadAt, at: u64) -> Result<Said, Error> {
    let bytes: [u8; 8] = array(source, at)?;
    Ok((at, le64(&bytes, 0)))
}

/// Notes what the item says whose entry lies at `at`.
fn once(slot: &mut Option<Said>, said: Said, at: u64) -> Result<(), Error> {
    ensure(slot.is_none(), Reason::BadHeader, at, said.1)?;
    *slot = Some(said);
    Ok(())
}

fn decode(
    (block_at, parameters): Said,
    (size_at, virtual_size): Said,
    (sector_at, sector_size): Said,
    info: &mut Info,
    options: &Options,
) -> Result<Metadata, Error> {
    let block_size = parameters & 0xffff_ffff;
    let good = block_size.is_power_of_two() && (MIB..=256 * MIB).contains(&block_size);
    ensure(good, Reason::ClusterSize, block_at, block_size)?;
    let good = matches!(sector_size, 512 | 4096);
    ensure(good, Reason::BadHeader, sector_at, sector_size)?;
    let whole = virtual_size.is_multiple_of(sector_size);
    ensure(whole, Reason::BadHeader, size_at, virtual_size)?;
    // No disk of this format is larger than 64 TiB, whatever the caller would accept.
    let possible = virtual_size <= Options::LARGEST_DISK;
    ensure(possible, Reason::BadHeader, size_at, virtual_size)?;
    info.set_size(virtual_size, size_at, options);
    info.cluster_size = Some(block_size);
    let flags = parameters >> 32;
    info.variant = Some(if flags & 1 != 0 { "fixed" } else { "dynamic" });
    if flags & u64::from(HAS_PARENT) != 0 {
        info.variant = Some("differencing");
        info.find(Reason::Differencing, block_at, flags);
    }
    Ok(Metadata {
        virtual_size,
        block_size,
        chunk_ratio: (sector_size << 23) / block_size,
    })
}

/// Notes the values of a parent locator as they lie in the image, in UTF-16 (section 2.6.2.6).
fn parent(source: &mut dyn ReadAt, at: u64, length: u64, info: &mut Info) -> Result<(), Error> {
    info.find(Reason::Differencing, at, length);
    if length < 20 {
        return Ok(());
    }
    let head: [u8; 20] = array(source, at)?;
    let count = u64::from(le16(&head, 18)).min(MOST_KEYS);
    for index in 0..count.min((length - 20) / 12) {
        let entry: [u8; 12] = array(source, at + 20 + index * 12)?;
        let (offset, bytes) = (u64::from(le32(&entry, 4)), u64::from(le16(&entry, 10)));
        if offset + bytes > length {
            info.find(Reason::BadReference, at + offset, bytes);
            continue;
        }
        let mut value = [0; LONGEST_NAME];
        let kept = to_usize(bytes).min(LONGEST_NAME);
        let value = value.get_mut(..kept).unwrap_or_default();
        read(source, at + offset, value)?;
        info.refer(ReferenceKind::Parent, value);
    }
    Ok(())
}
