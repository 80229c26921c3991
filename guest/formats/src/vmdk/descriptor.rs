//! The descriptor: lines of text that say of which extents the disk consists, and in which files
//! they are ("The Descriptor File" in the specification).
//!
//! Names of files are only noted. If the descriptor is embedded in a sparse extent and tells of one
//! extent, it means the file in which it lies, by the name that the file once had. All other names
//! are of other files.

use alloc::vec;
use alloc::vec::Vec;

use crate::error::{Error, ensure};
use crate::info::{Info, ReferenceKind};
use crate::reason::Reason;
use crate::source::{ReadAt, len64, read, to_usize};
use crate::vmdk::SECTOR;

/// The longest descriptor that is read, in bytes. VMware writes less than 2 KiB.
pub const LONGEST_DESCRIPTOR: u64 = 65536;
/// The content id that stands for "there is no parent".
const NO_PARENT: u32 = u32::MAX;
/// Where QEMU searches for a parent and for content ids, whatever the header says of the descriptor: in
/// so many bytes behind the header.
const SEARCHED: u64 = 20 * SECTOR;

/// What a descriptor says.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Described {
    pub(super) has_parent: bool,
    /// The content id of the disk, which changes when it is written, and the one that its parent had
    /// when the disk was made.
    pub(super) content_id: Option<u32>,
    pub(super) parent_content_id: Option<u32>,
    /// Where that is said in the file, and what the parent is called. Every descriptor says something of
    /// a parent, be it that there is none.
    pub(super) content_id_at: Option<u64>,
    pub(super) parent_content_id_at: Option<u64>,
    pub(super) parent_name_at: Option<u64>,
    /// The size of all extents in bytes.
    pub(super) size: u64,
    /// Whether the one extent is the file in which the descriptor lies.
    pub(super) is_own: bool,
}

/// The text in the `length` bytes at `at`, which ends at its first zero byte.
pub(super) fn read_text(source: &mut dyn ReadAt, at: u64, length: u64) -> Result<Vec<u8>, Error> {
    let mut text = vec![0; to_usize(length.min(LONGEST_DESCRIPTOR))];
    read(source, at, &mut text)?;
    let end = text.iter().position(|byte| *byte == 0);
    let whole = end.is_some() || length <= LONGEST_DESCRIPTOR;
    ensure(whole, Reason::BadDescriptor, at, length)?;
    text.truncate(end.unwrap_or(text.len()));
    Ok(text)
}

/// Notes in `info` if a program that searches for what the lines say of a parent finds it elsewhere.
/// QEMU reads no lines: it takes what it finds first, be it in a comment, in another value or outside
/// of the descriptor, and opens the parent that is named there.
pub(super) fn search(
    source: &mut dyn ReadAt,
    disk: &Described,
    info: &mut Info,
) -> Result<(), Error> {
    let length = SEARCHED.min(source.size().saturating_sub(SECTOR));
    let text = read_text(source, SECTOR, length)?;
    let known = [
        disk.parent_name_at,
        disk.parent_content_id_at,
        disk.content_id_at,
        // The other content id ends like this one.
        disk.parent_content_id_at.map(|at| at + 6),
    ];
    for sought in [&b"parentFileNameHint"[..], b"parentCID=", b"CID="] {
        let mut places = (SECTOR..).zip(text.windows(sought.len()));
        let found = places.find(|(_, bytes)| *bytes == sought);
        if let Some((at, _)) = found
            && !known.contains(&Some(at))
        {
            info.find(Reason::BadDescriptor, at, 0);
        }
    }
    Ok(())
}

/// Reads the lines, of which the first lies at `at` in the file, into `info`.
pub(super) fn parse(
    text: &[u8],
    at: u64,
    embedded: bool,
    info: &mut Info,
) -> Result<Described, Error> {
    let mut disk = Described::default();
    let mut extents = 0_u32;
    let mut whole = embedded;
    // Where the first extent, and what tells of the parent, lies.
    let (mut first, mut parent) = (None, None);
    let mut next = at;
    for line in text.split(|byte| *byte == b'\n') {
        let at = next;
        next += len64(line) + 1;
        let begins = at + len64(line) - len64(line.trim_ascii_start());
        let line = line.trim_ascii();
        if let Some(extent) = extent(line) {
            first = first.or(Some(at));
            extents += 1;
            disk.size = disk
                .size
                .saturating_add(extent.sectors.saturating_mul(SECTOR));
            whole &= extent.kind == b"SPARSE" && !has_folder(extent.name);
            info.refer(ReferenceKind::Extent, extent.name);
            continue;
        }
        let Some((key, value)) = assignment(line) else {
            continue;
        };
        if key.eq_ignore_ascii_case(b"createType") {
            info.variant = Some(known_type(value));
        } else if key.eq_ignore_ascii_case(b"parentCID") {
            once(&mut disk.parent_content_id_at, begins, info);
            disk.parent_content_id = content_id(value);
            if disk.parent_content_id != Some(NO_PARENT) {
                parent = parent.or(Some(at));
            }
        } else if key.eq_ignore_ascii_case(b"CID") {
            once(&mut disk.content_id_at, begins, info);
            disk.content_id = content_id(value);
        } else if key.eq_ignore_ascii_case(b"parentFileNameHint") {
            disk.parent_name_at = disk.parent_name_at.or(Some(begins));
            if line.eq_ignore_ascii_case(b"parentFileNameHint=\"\"") {
                // There is none. It is written exactly like this, as QEMU looks for the quotes there.
                continue;
            }
            parent = parent.or(Some(at));
            info.refer_to_backing(ReferenceKind::Parent, value, at);
        }
    }
    disk.has_parent = parent.is_some();
    if let Some(at) = parent {
        info.find(Reason::BackingFile, at, 0);
    }
    disk.is_own = whole && extents == 1;
    if disk.is_own {
        let other = |kind| kind != ReferenceKind::Extent;
        info.references.retain(|reference| other(reference.kind));
    } else if let Some(at) = first {
        info.find(Reason::ExternalExtent, at, u64::from(extents));
    } else if !embedded {
        return Err(Error::refused(Reason::BadDescriptor, at, 0));
    }
    Ok(disk)
}

/// Notes in `place` where something is said. Programs take the first of several lines, or the last.
fn once(place: &mut Option<u64>, at: u64, info: &mut Info) {
    match place {
        Some(_) => info.find(Reason::BadDescriptor, at, 0),
        None => *place = Some(at),
    }
}

struct ExtentLine<'a> {
    sectors: u64,
    kind: &'a [u8],
    name: &'a [u8],
}

/// Reads the line of an extent, such as `RW 4192256 SPARSE "name" 0`: access, sectors, kind, and
/// the name in quotes if the kind has one.
fn extent(line: &[u8]) -> Option<ExtentLine<'_>> {
    let mut rest = line;
    let mut word = || {
        let start = rest.trim_ascii_start();
        let end = start.iter().position(u8::is_ascii_whitespace);
        let (word, behind) = start.split_at_checked(end.unwrap_or(start.len()))?;
        rest = behind;
        Some(word)
    };
    let access = word()?;
    let known = [&b"RW"[..], b"RDONLY", b"NOACCESS"];
    if !known.iter().any(|word| access.eq_ignore_ascii_case(word)) {
        return None;
    }
    let sectors = word().and_then(|word| core::str::from_utf8(word).ok());
    let sectors = sectors.and_then(|word| word.parse().ok()).unwrap_or(0);
    let kind = word().unwrap_or_default();
    let rest = rest.trim_ascii_start();
    let name = rest.splitn(3, |byte| *byte == b'"').nth(1);
    Some(ExtentLine {
        sectors,
        kind,
        name: name.unwrap_or(rest),
    })
}

/// Reads a line such as `key = "value"`, with or without quotes and spaces.
fn assignment(line: &[u8]) -> Option<(&[u8], &[u8])> {
    if line.first() == Some(&b'#') {
        return None;
    }
    let equals = line.iter().position(|byte| *byte == b'=')?;
    let key = line.get(..equals)?.trim_ascii();
    let value = line.get(equals + 1..)?.trim_ascii();
    let value = value.strip_prefix(b"\"").unwrap_or(value);
    Some((key, value.strip_suffix(b"\"").unwrap_or(value)))
}

/// Reads a content id, which is a hexadecimal number.
fn content_id(value: &[u8]) -> Option<u32> {
    u32::from_str_radix(core::str::from_utf8(value).ok()?, 16).ok()
}

fn has_folder(name: &[u8]) -> bool {
    name.iter().any(|byte| matches!(byte, b'/' | b'\\'))
}

/// The name of the image's type, from the list of those that are known: text out of an image is not
/// passed on.
fn known_type(value: &[u8]) -> &'static str {
    const TYPES: &[&str] = &[
        "monolithicSparse",
        "monolithicFlat",
        "streamOptimized",
        "twoGbMaxExtentSparse",
        "twoGbMaxExtentFlat",
        "vmfs",
        "vmfsSparse",
        "vmfsThin",
        "seSparse",
        "fullDevice",
        "partitionedDevice",
        "vmfsRaw",
        "vmfsRawDeviceMap",
        "vmfsPassthroughRawDeviceMap",
        "custom",
    ];
    let same = |name: &&&str| value.eq_ignore_ascii_case(name.as_bytes());
    TYPES.iter().find(same).copied().unwrap_or("unknown")
}
