//! The list of header extensions behind the header ("Header extensions" in qcow2.txt).

use alloc::vec;
use alloc::vec::Vec;

use crate::bytes::{be32, be64};
use crate::error::{Error, ensure};
use crate::format::Format;
use crate::info::{Info, LONGEST_NAME, ReferenceKind};
use crate::reason::Reason;
use crate::source::{ReadAt, array, read, to_usize};

/// The block drivers of QEMU that read a file or a device as it is. qemu-img writes their names for
/// formats, and QEMU then takes the backing file for a raw disk, whatever signature it has.
const RAW_DRIVERS: &[&[u8]] = &[b"file", b"host_device", b"host_cdrom"];

const END: u32 = 0;
const BACKING_FORMAT: u32 = 0xe279_2aca;
const DATA_FILE: u32 = 0x4441_5441;
const BITMAPS: u32 = 0x2385_2875;
const ENCRYPTION: u32 = 0x0537_be77;
/// The most extensions that are looked at, many more than are known.
const MOST: usize = 64;

/// What the extensions say that the rest of the module has to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extensions {
    /// What the extension for bitmaps has: where in the file it lies, and its bytes.
    pub bitmaps: Option<(u64, u64)>,
    /// What tells of the encryption header.
    pub encryption: Option<Encryption>,
    /// What names the format of the backing file.
    pub backing_format: Option<BackingFormat>,
}

/// The last extension that names the format of the backing file ("Backing file format name").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BackingFormat {
    /// Where in the file it begins.
    pub at: u64,
    /// The length of the name in bytes.
    pub length: u64,
    /// The format, if the name is known and it is the only one.
    pub format: Option<Format>,
}

/// The extension that tells where the encryption header lies ("Full disk encryption header pointer").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Encryption {
    /// Where in the file it is said.
    pub at: u64,
    /// The offset of the encryption header in the file, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Reads the extensions from `at` up to `end`, which is at most a cluster behind the start of the
/// file.
pub(super) fn walk(
    source: &mut dyn ReadAt,
    mut at: u64,
    end: u64,
    info: &mut Info,
) -> Result<Extensions, Error> {
    let mut found = Extensions::default();
    for _ in 0..MOST {
        if at + 8 > end {
            return Ok(found);
        }
        let head: [u8; 8] = array(source, at)?;
        let (kind, length) = (be32(&head, 0), u64::from(be32(&head, 4)));
        let data = at + 8;
        ensure(length <= end - data, Reason::BadHeader, at + 4, length)?;
        match kind {
            END => return Ok(found),
            BACKING_FORMAT => {
                let name = name(source, data, length)?;
                info.refer(ReferenceKind::BackingFormat, &name);
                // QEMU takes the last of several. Other programs may take the first, and read
                // the backing file in another way.
                let is_only = found.backing_format.is_none();
                let format = backing_format(&name).filter(|_| is_only);
                found.backing_format = Some(BackingFormat { at, length, format });
            }
            DATA_FILE => {
                info.refer(ReferenceKind::Data, &name(source, data, length)?);
                info.find(Reason::DataFile, at, length);
            }
            BITMAPS => found.bitmaps = Some((data, length)),
            ENCRYPTION if length >= 16 => {
                let bytes: [u8; 16] = array(source, data)?;
                found.encryption = Some(Encryption {
                    at: data,
                    offset: be64(&bytes, 0),
                    bytes: be64(&bytes, 8),
                });
            }
            _ => {}
        }
        at = data + length.next_multiple_of(8);
    }
    Err(Error::refused(Reason::BadHeader, at, 0))
}

/// Reads the name of `length` bytes at `at`. A name that is too long is cut.
pub(super) fn name(source: &mut dyn ReadAt, at: u64, length: u64) -> Result<Vec<u8>, Error> {
    let limit = u64::try_from(LONGEST_NAME).unwrap_or(0);
    let mut bytes = vec![0; to_usize(length.min(limit))];
    read(source, at, &mut bytes)?;
    Ok(bytes)
}

/// The format that an image calls by `name`. Most images are written by QEMU, which has names of its
/// own, and no other way to write them: what is not exactly one of them it refuses, or takes for
/// another one.
fn backing_format(name: &[u8]) -> Option<Format> {
    if RAW_DRIVERS.contains(&name) {
        return Some(Format::Raw);
    }
    Format::from_name(core::str::from_utf8(name).ok()?)
}
