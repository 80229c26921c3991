//! The footer ("Hard Disk Footer Format" in the specification): the last 512 bytes of the file. A
//! disk that is not fixed has a copy of it at the start.

use crate::bytes::{be16, be32, be64, has, u8_at};
use crate::error::{Error, ensure};
use crate::info::Info;
use crate::reason::Reason;
use crate::source::{ReadAt, prefix, read, to_usize};

/// The length of a footer in bytes. Early versions of Virtual PC left out the last byte, which is
/// zero.
const LENGTH: u64 = 512;
const COOKIE: &[u8] = b"conectix";
/// The offset of the checksum in the footer, in bytes.
const CHECKSUM: usize = 64;
/// The programs whose disks have the size that their cylinders, heads and sectors give: Virtual PC,
/// and QEMU when it writes as Virtual PC does. The disks of all other programs, such as Hyper-V,
/// have the size that the field "current size" gives. QEMU decides like this since version 10.
const BY_GEOMETRY: &[&[u8; 4]] = &[b"vpc ", b"qemu"];
/// The largest geometry, in sectors: 65535 cylinders, 16 heads, 255 sectors a track. Disks that are
/// larger have it as well, so that it says nothing of their size.
const LARGEST_GEOMETRY: u64 = 65535 * 16 * 255;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Fixed,
    Dynamic,
    Differencing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) kind: Kind,
    /// The offset of the dynamic disk header in the file, in bytes.
    pub(super) data_offset: u64,
    /// The field "current size", in bytes.
    current_size: u64,
    /// Cylinders times heads times sectors a track: the disk's size in sectors.
    geometry: u64,
    by_geometry: bool,
}

impl Footer {
    /// Bytes of the virtual disk.
    pub(super) fn virtual_size(&self) -> u64 {
        if self.by_geometry && self.geometry != LARGEST_GEOMETRY {
            self.geometry * LENGTH
        } else {
            // Other readers count in whole sectors.
            self.current_size / LENGTH * LENGTH
        }
    }
}

/// The ones' complement of the sum of all bytes, without the four bytes of the checksum at `at`.
pub(super) fn checksum(bytes: &[u8], at: usize) -> u32 {
    let summed = |(index, _): &(usize, &u8)| !(at..at + 4).contains(index);
    let bytes = bytes.iter().enumerate().filter(summed);
    !bytes.fold(0, |sum: u32, (_, byte)| sum.wrapping_add(u32::from(*byte)))
}

/// The footer, and where the rest of the file ends: at the footer, or with the file if the footer at
/// its end is missing.
pub(super) fn find(source: &mut dyn ReadAt, info: &mut Info) -> Result<(Footer, u64), Error> {
    let size = source.size();
    ensure(size >= LENGTH - 1, Reason::Truncated, size, size)?;
    let start: [u8; 512] = prefix(source)?;
    let copy = match has(&start, 0, COOKIE) {
        true => Some(decode(&start, 0)?),
        false => None,
    };
    let end = at_end(source)?;
    match (copy, end) {
        (copy, Some((footer, at))) if footer.kind == Kind::Fixed => {
            // Programs that look at the start first see the disk of that VHD, which lies in this one.
            if copy.is_some() {
                info.find(Reason::SeveralFormats, 0, 2);
            }
            Ok((footer, at))
        }
        (Some(copy), Some((footer, at))) => {
            // All fields that are used must be the same. Others, such as the time stamp, may
            // differ.
            ensure(copy == footer, Reason::CopiesDiffer, at, 0)?;
            Ok((footer, at))
        }
        (None, Some((_, at))) => Err(Error::refused(Reason::CopiesDiffer, 0, at)),
        (Some(copy), None) => {
            // A fixed disk begins with its first sector, and no copy of a footer belongs there.
            ensure(copy.kind != Kind::Fixed, Reason::BadHeader, 60, 2)?;
            info.find(Reason::NoFooter, size - LENGTH, 0);
            Ok((copy, size))
        }
        (None, None) => Err(Error::refused(Reason::BadHeader, 0, 0)),
    }
}

fn at_end(source: &mut dyn ReadAt) -> Result<Option<(Footer, u64)>, Error> {
    let size = source.size();
    for length in [LENGTH, LENGTH - 1] {
        let Some(at) = size.checked_sub(length) else {
            continue;
        };
        let mut bytes = [0; 512];
        read(
            source,
            at,
            bytes.get_mut(..to_usize(length)).unwrap_or_default(),
        )?;
        if has(&bytes, 0, COOKIE) {
            return Ok(Some((decode(&bytes, at)?, at)));
        }
    }
    Ok(None)
}

fn decode(bytes: &[u8; 512], at: u64) -> Result<Footer, Error> {
    let stored = be32(bytes, CHECKSUM);
    let fits = stored == checksum(bytes, CHECKSUM);
    ensure(fits, Reason::BadChecksum, at + 64, u64::from(stored))?;
    let version = be32(bytes, 12);
    let known = version >> 16 == 1;
    ensure(
        known,
        Reason::UnsupportedVersion,
        at + 12,
        u64::from(version),
    )?;
    let kind = match be32(bytes, 60) {
        2 => Kind::Fixed,
        3 => Kind::Dynamic,
        4 => Kind::Differencing,
        other => return Err(Error::refused(Reason::BadHeader, at + 60, u64::from(other))),
    };
    let creator = bytes.get(28..32).unwrap_or_default();
    let sides = u64::from(u8_at(bytes, 58)) * u64::from(u8_at(bytes, 59));
    Ok(Footer {
        kind,
        data_offset: be64(bytes, 16),
        current_size: be64(bytes, 48),
        geometry: u64::from(be16(bytes, 56)) * sides,
        by_geometry: BY_GEOMETRY.iter().any(|known| creator == *known),
    })
}
