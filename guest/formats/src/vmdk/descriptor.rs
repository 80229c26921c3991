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

/// What a descriptor says.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Described {
    pub(super) has_parent: bool,
    /// The content id of the disk, which changes when it is written, and the one that its parent had
    /// when the disk was made.
    pub(super) content_id: Option<u32>,
    pub(super) parent_content_id: Option<u32>,
    /// Whether it says anything of a parent, be it that there is none. Every descriptor does.
    pub(super) tells_of_parent: bool,
    /// The size of all extents in bytes.
    pub(super) size: u64,
    /// Whether the one extent is the file in which the descriptor lies.
    pub(super) is_own: bool,
}

/// The text of `length` bytes at `at`, up to its first zero byte.
pub(super) fn read_text(source: &mut dyn ReadAt, at: u64, length: u64) -> Result<Vec<u8>, Error> {
    let fits = length <= LONGEST_DESCRIPTOR;
    ensure(fits, Reason::BadDescriptor, at, length)?;
    let mut text = vec![0; to_usize(length)];
    read(source, at, &mut text)?;
    let end = text.iter().position(|byte| *byte == 0);
    text.truncate(end.unwrap_or(text.len()));
    Ok(text)
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
            disk.tells_of_parent = true;
            disk.parent_content_id = content_id(value);
            if disk.parent_content_id != Some(NO_PARENT) {
                parent = parent.or(Some(at));
            }
        } else if key.eq_ignore_ascii_case(b"CID") {
            disk.content_id = content_id(value);
        } else if key.eq_ignore_ascii_case(b"parentFileNameHint") {
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

struct ExtentLine<'a> {
    sectors: u64,
    kind: &'a [u8],
    name: &'a [u8],
}

/// Reads the line of an extent, such as `RW 4192256 SPARSE "name" 0`: access, sectors, kind, and
/// the name in quotes if the kind has one.
fn extent(line: &[u8]) -> Option<ExtentLine<'_>> {
    let mut words = line.splitn(4, |byte| byte.is_ascii_whitespace());
    let access = words.next()?;
    let known = [&b"RW"[..], b"RDONLY", b"NOACCESS"];
    if !known.iter().any(|word| access.eq_ignore_ascii_case(word)) {
        return None;
    }
    let sectors = words
        .next()
        .and_then(|word| core::str::from_utf8(word).ok());
    let sectors = sectors.and_then(|word| word.parse().ok()).unwrap_or(0);
    let kind = words.next().unwrap_or_default();
    let rest = words.next().unwrap_or_default();
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
