//! The header of a sparse extent ("Hosted Sparse Extents" in the specification), or its copy in the
//! footer of a stream-optimised one ("Stream-Optimized Compressed Sparse Extents").

use crate::bytes::{has, le16, le32, le64, u8_at};
use crate::error::{Error, ensure};
use crate::info::{Info, Options};
use crate::reason::Reason;
use crate::source::{ReadAt, array};
use crate::span::Span;
use crate::vmdk::SECTOR;

/// The value in place of the grain directory's offset that says that the footer has it.
const AT_END: u64 = u64::MAX;
/// The flags of the header: the line end bytes are to be checked; there is a second grain directory; an
/// entry of a grain table may say that its grain is zero; grains are compressed; markers lie before
/// grains and tables.
const NEWLINES: u32 = 1;
const SECOND_DIRECTORY: u32 = 1 << 1;
const ZERO_GRAINS: u32 = 1 << 2;
const COMPRESSED: u32 = 1 << 16;
const MARKERS: u32 = 1 << 17;
const DEFLATE: u16 = 1;
/// The largest grain that is accepted, in sectors: 2 MiB. Writers use 64 KiB.
const LARGEST_GRAIN: u64 = 4096;
/// How many entries a grain table may have. VMware writes tables of 512.
const TABLE_ENTRIES: core::ops::RangeInclusive<u64> = 1..=512;
/// The type of the marker before a footer.
const FOOTER_MARKER: u32 = 3;

#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) virtual_size: u64,
    pub(super) grain_size: u64,
    pub(super) table_entries: u64,
    /// Where the grain directory is in the file.
    pub(super) directory: Span,
    /// Where the second grain directory is, if there is one. Who only reads needs none, but nothing else
    /// may lie there.
    pub(super) second_directory: Option<Span>,
    /// Where everything has to end if there is a footer: before that and its marker.
    pub(super) end: u64,
    /// Where the descriptor is, if there is one.
    pub(super) descriptor: Option<Span>,
    pub(super) zero_grains: bool,
    pub(super) compressed: bool,
}

pub(super) fn read(
    source: &mut dyn ReadAt,
    info: &mut Info,
    options: &Options,
) -> Result<Header, Error> {
    let size = source.size();
    ensure(size >= SECTOR, Reason::Truncated, size, size)?;
    let mut bytes: [u8; 512] = array(source, 0)?;
    let mut at = 0;
    if le64(&bytes, 56) == AT_END {
        at = footer(source)?;
        let copy: [u8; 512] = array(source, at)?;
        // All fields but the directory's offset must be the same in both.
        let differs = |range: core::ops::Range<usize>| bytes.get(range.clone()) != copy.get(range);
        let other = differs(0..48) || differs(64..72) || differs(77..79);
        ensure(!other, Reason::CopiesDiffer, at, 0)?;
        let found = le64(&copy, 56) != AT_END;
        ensure(found, Reason::BadHeader, at + 56, AT_END)?;
        bytes = copy;
    }
    decode(source, &bytes, at, info, options)
}

/// The offset of the footer in the file. Before it lies its marker, and behind it the marker that
/// ends the file.
fn footer(source: &mut dyn ReadAt) -> Result<u64, Error> {
    let size = source.size();
    ensure(size >= 4 * SECTOR, Reason::Truncated, size, size)?;
    let last = size / SECTOR * SECTOR;
    let at = last - 2 * SECTOR;
    let marker: [u8; 16] = array(source, at - SECTOR)?;
    let good = le64(&marker, 0) == 1 && le32(&marker, 8) == 0;
    let good = good && le32(&marker, 12) == FOOTER_MARKER;
    // Only the footer has the whole header, so that there is nothing to go on with.
    ensure(good, Reason::Truncated, at - SECTOR, le64(&marker, 0))?;
    let end: [u8; 16] = array(source, at + SECTOR)?;
    let good = end.iter().all(|byte| *byte == 0);
    ensure(good, Reason::BadMarker, at + SECTOR, le64(&end, 0))?;
    Ok(at)
}

fn decode(
    source: &dyn ReadAt,
    bytes: &[u8; 512],
    at: u64,
    info: &mut Info,
    options: &Options,
) -> Result<Header, Error> {
    ensure(has(bytes, 0, b"KDMV"), Reason::BadHeader, at, 0)?;
    let (version, flags) = (le32(bytes, 4), le32(bytes, 8));
    let known = (1..=3).contains(&version);
    ensure(
        known,
        Reason::UnsupportedVersion,
        at + 4,
        u64::from(version),
    )?;
    info.version = Some(version);
    if flags & NEWLINES != 0 {
        // These bytes are changed if the file was transferred as if it were text.
        let whole = has(bytes, 73, b"\n \r\n");
        ensure(
            whole,
            Reason::BadHeader,
            at + 73,
            u64::from(le32(bytes, 73)),
        )?;
    }
    let virtual_size = le64(bytes, 12).checked_mul(SECTOR);
    let too_large = Error::refused(Reason::BadHeader, at + 12, le64(bytes, 12));
    let virtual_size = virtual_size.ok_or(too_large)?;
    info.set_size(virtual_size, at + 12, options);
    let grain = le64(bytes, 20);
    let good = grain.is_power_of_two() && grain <= LARGEST_GRAIN;
    ensure(good, Reason::ClusterSize, at + 20, grain)?;
    info.cluster_size = Some(grain * SECTOR);
    if u8_at(bytes, 72) != 0 {
        info.find(Reason::DirtyBit, at + 72, 1);
    }
    let compressed = flags & COMPRESSED != 0;
    let method = le16(bytes, 77);
    if compressed {
        let known = method == DEFLATE && flags & MARKERS != 0;
        let found = u64::from(method);
        ensure(known, Reason::UnsupportedCompression, at + 77, found)?;
        info.compression = Some("zlib");
    } else {
        // QEMU goes by this field and VMware by the flag, so that each would see another disk.
        ensure(method == 0, Reason::BadHeader, at + 77, u64::from(method))?;
    }
    let mut header = Header {
        virtual_size,
        grain_size: grain * SECTOR,
        table_entries: u64::from(le32(bytes, 44)),
        directory: Span { start: 0, end: 0 },
        second_directory: None,
        end: at.checked_sub(SECTOR).unwrap_or(u64::MAX),
        descriptor: None,
        zero_grains: flags & ZERO_GRAINS != 0,
        compressed,
    };
    header.places(source, bytes, flags, at)?;
    Ok(header)
}

impl Header {
    fn places(
        &mut self,
        source: &dyn ReadAt,
        bytes: &[u8],
        flags: u32,
        at: u64,
    ) -> Result<(), Error> {
        let entries = self.table_entries;
        let good = TABLE_ENTRIES.contains(&entries);
        ensure(good, Reason::TableSize, at + 44, entries)?;
        let sectors = |field: usize| le64(bytes, field).saturating_mul(SECTOR);
        let tables = self.virtual_size.div_ceil(entries * self.grain_size);
        let length = tables * 4;
        self.directory = self.part(source, sectors(56), length, at + 56)?;
        let second = sectors(48);
        if flags & SECOND_DIRECTORY != 0 && second != 0 {
            self.second_directory = Some(self.part(source, second, length, at + 48)?);
        }
        let (start, length) = (sectors(28), sectors(36));
        if start != 0 && length != 0 {
            self.descriptor = Some(self.part(source, start, length, at + 28)?);
        }
        // So many bytes at the start are not for grains, and writers make the file so long at least.
        let metadata = sectors(64);
        ensure(
            metadata <= source.size(),
            Reason::BeyondEnd,
            at + 64,
            metadata,
        )
    }

    /// The `length` bytes at `start`, of which the field at `at` tells. Fails if they do not lie in the
    /// file, or overlap what was found before.
    fn part(&self, source: &dyn ReadAt, start: u64, length: u64, at: u64) -> Result<Span, Error> {
        if length == 0 {
            // The directory of a disk without bytes.
            return Ok(Span { start, end: start });
        }
        let end = start.checked_add(length);
        let end = end.filter(|end| *end <= source.size());
        let end = end.ok_or(Error::refused(Reason::BeyondEnd, at, start))?;
        self.check_apart(start, end, at)?;
        Ok(Span { start, end })
    }

    /// How many bytes of the disk a grain table is for.
    pub(super) fn per_table(&self) -> u64 {
        self.table_entries * self.grain_size
    }

    /// Fails if the bytes from `start` to `end` overlap the header, the footer, the descriptor or a
    /// grain directory.
    pub(super) fn check_apart(&self, start: u64, end: u64, at: u64) -> Result<(), Error> {
        let parts = [Some(self.directory), self.second_directory, self.descriptor];
        let meets = parts
            .iter()
            .flatten()
            .any(|part| part.meets(Span { start, end }));
        let apart = start >= SECTOR && end <= self.end && !meets;
        ensure(apart, Reason::Overlap, at, start)
    }
}
