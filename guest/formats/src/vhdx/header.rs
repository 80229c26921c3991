//! The two headers and the two region tables (sections 2.2.2 and 2.2.3).

use crate::bytes::{guid, has, le16, le32, le64};
use crate::cache::Cache;
use crate::error::{Error, ensure};
use crate::info::Info;
use crate::reason::{Finding, Reason};
use crate::source::{ReadAt, array};
use crate::span::Span;
use crate::vhdx::patches::Log;
use crate::vhdx::{MIB, checksum};

const HEADERS: [u64; 2] = [64 << 10, 128 << 10];
const HEADER: u64 = 4096;
const REGION_TABLES: [u64; 2] = [192 << 10, 256 << 10];
const REGION_TABLE: u64 = 64 << 10;
const MOST_REGIONS: u32 = 2047;
/// The offset of the checksum in a header and in a region table, in bytes.
const CHECKSUM: u64 = 4;

const BAT: [u8; 16] = guid_of(0x2dc2_7766, 0xf623, 0x4200, 0x9d64_115e_9bfd_4a08);
const METADATA: [u8; 16] = guid_of(0x8b7c_a206, 0x4790, 0x4b9a, 0xb8fe_575f_050f_886e);

/// The bytes of a GUID in the file: its first three fields are little-endian, the last eight bytes
/// are in the order in which they are written.
#[allow(
    clippy::cast_possible_truncation,
    reason = "the bytes of an integer are taken one by one"
)]
pub(super) const fn guid_of(a: u32, b: u16, c: u16, d: u64) -> [u8; 16] {
    let (a, b, c, d) = (
        a.to_le_bytes(),
        b.to_le_bytes(),
        c.to_le_bytes(),
        d.to_be_bytes(),
    );
    [
        a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6],
        d[7],
    ]
}

/// What the rest of the module needs of the header that is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    sequence: u64,
    pub(super) log_guid: [u8; 16],
    pub(super) log: Span,
}

/// The region that a table entry at `at` tells of. It must be whole mebibytes, behind the headers.
fn region(start: u64, length: u64, at: u64) -> Result<Span, Error> {
    let aligned = start.is_multiple_of(MIB) && length.is_multiple_of(MIB);
    ensure(aligned, Reason::Unaligned, at, start)?;
    ensure(start >= MIB && length > 0, Reason::Overlap, at, start)?;
    let end = start.checked_add(length);
    let end = end.ok_or(Error::refused(Reason::BeyondEnd, at, start))?;
    Ok(Span { start, end })
}

/// Where the BAT, the metadata and the log are in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Regions {
    log: Span,
    pub(super) bat: Span,
    pub(super) metadata: Span,
}

impl Regions {
    /// Fails if a block overlaps one of them. `at` is the offset of the block's entry.
    pub(super) fn check_apart(&self, data: Span, at: u64) -> Result<(), Error> {
        let tables = [self.log, self.bat, self.metadata];
        let overlaps = data.start < MIB || tables.iter().any(|table| table.meets(data));
        ensure(!overlaps, Reason::Overlap, at, data.start)
    }
}

/// The header that is valid and has the higher sequence number (section 2.2.2). The other one need
/// not be valid: a writer that was stopped leaves it half written. One whose checksum is right was
/// written as a whole, so that its fields have to be right, too.
pub(super) fn read_header(source: &mut dyn ReadAt) -> Result<Header, Error> {
    let size = source.size();
    ensure(size >= MIB, Reason::Truncated, size, size)?;
    let mut newest: Option<Header> = None;
    let mut fault = Error::refused(Reason::BadHeader, HEADERS[0], 0);
    for at in HEADERS {
        match decode_header(source, at) {
            Ok(header) if newest.is_none_or(|other| header.sequence > other.sequence) => {
                newest = Some(header);
            }
            Ok(header) => {
                let same = |other: Header| other == header || other.sequence != header.sequence;
                let good = newest.is_none_or(same);
                ensure(good, Reason::CopiesDiffer, at + 8, header.sequence)?;
            }
            Err(error) => match error.reason() {
                Some(Reason::BadHeader | Reason::BadChecksum) => fault = error,
                _ => return Err(error),
            },
        }
    }
    newest.ok_or(fault)
}

fn decode_header(source: &mut dyn ReadAt, at: u64) -> Result<Header, Error> {
    let bytes: [u8; 80] = array(source, at)?;
    ensure(has(&bytes, 0, b"head"), Reason::BadHeader, at, 0)?;
    let stored = le32(&bytes, 4);
    let computed = checksum(source, at, HEADER, CHECKSUM)?;
    ensure(
        computed == stored,
        Reason::BadChecksum,
        at + 4,
        u64::from(stored),
    )?;
    let (log_version, version) = (le16(&bytes, 64), le16(&bytes, 66));
    ensure(
        version == 1,
        Reason::UnsupportedVersion,
        at + 66,
        u64::from(version),
    )?;
    let log_guid = guid(&bytes, 48);
    let log_is_used = log_guid != [0; 16];
    let good = log_version == 0 || !log_is_used;
    ensure(
        good,
        Reason::UnsupportedVersion,
        at + 64,
        u64::from(log_version),
    )?;
    let (length, start) = (u64::from(le32(&bytes, 68)), le64(&bytes, 72));
    Ok(Header {
        sequence: le64(&bytes, 8),
        log_guid,
        log: region(start, length, at + 72)?,
    })
}

/// The regions that both tables tell of (section 2.2.3). No writer changes one of them alone, so that
/// it is a fault if one is destroyed, and the other one is read all the same.
pub(super) fn read_regions(
    source: &mut dyn ReadAt,
    header: &Header,
    log: &Log,
    info: &mut Info,
) -> Result<Regions, Error> {
    let [first, second] = REGION_TABLES.map(|table| decode_regions(source, table, header, log));
    let destroyed = |finding: &Finding| finding.reason == Reason::BadChecksum;
    match (first, second) {
        (Ok(regions), Err(Error::Refused(finding)))
        | (Err(Error::Refused(finding)), Ok(regions))
            if destroyed(&finding) =>
        {
            info.find(finding.reason, finding.at, finding.value);
            Ok(regions)
        }
        (Ok(first), Ok(second)) => {
            // Some programs read the first table, and others may read the second one.
            let at = REGION_TABLES[1];
            ensure(first == second, Reason::CopiesDiffer, at, second.bat.start)?;
            Ok(first)
        }
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

fn decode_regions(
    source: &mut dyn ReadAt,
    table: u64,
    header: &Header,
    log: &Log,
) -> Result<Regions, Error> {
    let bytes: [u8; 16] = array(source, table)?;
    let stored = le32(&bytes, 4);
    let good =
        has(&bytes, 0, b"regi") && checksum(source, table, REGION_TABLE, CHECKSUM)? == stored;
    ensure(good, Reason::BadChecksum, table + 4, u64::from(stored))?;
    let count = le32(&bytes, 8);
    ensure(
        count <= MOST_REGIONS,
        Reason::BadHeader,
        table + 8,
        u64::from(count),
    )?;
    let size = log.over(source).size();
    let (mut bat, mut metadata) = (None, None);
    let mut cache = Cache::new(1);
    for index in 0..u64::from(count) {
        let at = table + 16 + index * 32;
        let mut entry = [0; 32];
        cache.copy(source, at, &mut entry)?;
        let slot = match guid(&entry, 0) {
            BAT => &mut bat,
            METADATA => &mut metadata,
            _ => {
                let required = le32(&entry, 28) & 1 != 0;
                ensure(!required, Reason::UnknownFeature, at, 0)?;
                continue;
            }
        };
        ensure(slot.is_none(), Reason::BadHeader, at, 0)?;
        let region = region(le64(&entry, 16), u64::from(le32(&entry, 24)), at + 16)?;
        ensure(region.end <= size, Reason::BeyondEnd, at + 16, region.start)?;
        *slot = Some(region);
    }
    let missing = Error::refused(Reason::BadHeader, table, u64::from(count));
    let regions = Regions {
        log: header.log,
        bat: bat.ok_or(missing)?,
        metadata: metadata.ok_or(missing)?,
    };
    let apart = !regions.bat.meets(regions.metadata)
        && !regions.bat.meets(regions.log)
        && !regions.metadata.meets(regions.log);
    ensure(apart, Reason::Overlap, table, regions.bat.start)?;
    Ok(regions)
}
