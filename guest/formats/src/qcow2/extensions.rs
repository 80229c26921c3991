//! The list of header extensions behind the header ("Header extensions" in qcow2.txt).

use crate::bytes::be32;
use crate::bytes::be64;
use crate::error::{Error, ensure};
use crate::info::{Info, LONGEST_NAME, ReferenceKind};
use crate::reason::Reason;
use crate::source::{ReadAt, array, len64, read, to_usize};

const END: u32 = 0;
const BACKING_FORMAT: u32 = 0xe279_2aca;
const DATA_FILE: u32 = 0x4441_5441;
const BITMAPS: u32 = 0x2385_2875;
const ENCRYPTION: u32 = 0x0537_be77;
/// The most extensions that are looked at, many more than are known.
const MOST: usize = 64;

/// What the extensions say that a check of refcounts has to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extensions {
    /// What the extension for bitmaps has: where in the file it lies, and its bytes.
    pub bitmaps: Option<(u64, u64)>,
    /// What tells of the encryption header.
    pub encryption: Option<Encryption>,
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
            BACKING_FORMAT => name(source, data, length, ReferenceKind::BackingFormat, info)?,
            DATA_FILE => {
                name(source, data, length, ReferenceKind::Data, info)?;
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

/// Notes the name of `length` bytes at `at`. A name that is too long is cut.
pub(super) fn name(
    source: &mut dyn ReadAt,
    at: u64,
    length: u64,
    kind: ReferenceKind,
    info: &mut Info,
) -> Result<(), Error> {
    let mut bytes = [0; LONGEST_NAME];
    let kept = to_usize(length.min(len64(&bytes)));
    let bytes = bytes.get_mut(..kept).unwrap_or_default();
    read(source, at, bytes)?;
    info.refer(kind, bytes);
    Ok(())
}
