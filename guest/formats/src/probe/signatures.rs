//! The signatures of formats and where they lie.
//!
//! They are those of the specifications that the modules of the formats name. For formats that are
//! only recognised they are those that QEMU's block layer and libmagic look for.

use crate::bytes::{be32, has};
use crate::error::Error;
use crate::format::{Format, FormatSet};
use crate::source::{ReadAt, len64, prefix, read, to_usize};

/// Signatures at a fixed place: the format, the offset from the start of the file in bytes, and
/// what is there.
const AT_START: &[(Format, usize, &[u8])] = &[
    (Format::Qed, 0, b"QED\0"),
    (Format::Vmdk, 0, b"KDMV"),
    // The sparse format of ESX servers, and the format that came after it.
    (Format::Vmdk, 0, b"COWD"),
    (Format::Vmdk, 0, b"\xbe\xba\xfe\xca\0\0\0\0"),
    (Format::Vhd, 0, b"conectix"),
    (Format::Vhdx, 0, b"vhdxfile"),
    (Format::Vdi, 64, b"\x7f\x10\xda\xbe"),
    (Format::Luks, 0, b"LUKS\xba\xbe"),
    (Format::Luks, 0, b"SKUL\xba\xbe"),
    (Format::Parallels, 0, b"WithoutFreeSpace"),
    (Format::Parallels, 0, b"WithouFreSpacExt"),
    (Format::Bochs, 0, b"Bochs Virtual HD Image"),
    (Format::Cloop, 0, b"#!/bin/sh\n#V2.0 Format"),
    (Format::Ewf, 0, b"EVF\x09\x0d\x0a\xff\0"),
    (Format::Ewf, 0, b"EVF2\x0d\x0a\x81\0"),
    (Format::Gzip, 0, b"\x1f\x8b\x08"),
    (Format::Xz, 0, b"\xfd7zXZ\0"),
    (Format::Zstd, 0, b"\x28\xb5\x2f\xfd"),
    (Format::Bzip2, 0, b"BZh"),
    (Format::Tar, 257, b"ustar"),
    (Format::Zip, 0, b"PK\x03\x04"),
    (Format::SevenZip, 0, b"7z\xbc\xaf\x27\x1c"),
];

/// Where the volume descriptors of a CD begin, in bytes (ECMA-119, section 6.7.1).
const ISO_DESCRIPTORS: u64 = 32768;
/// The length of the trailers of VHD and DMG in bytes.
const TRAILER: usize = 512;

pub(super) fn fitting(source: &mut dyn ReadAt) -> Result<FormatSet, Error> {
    let mut fitting = FormatSet::default();
    let start: [u8; 4096] = prefix(source)?;
    for (format, at, magic) in AT_START {
        if has(&start, *at, magic) {
            fitting = fitting.with(*format);
        }
    }
    if has(&start, 0, b"QFI\xfb") {
        let old = be32(&start, 4) == 1;
        fitting = fitting.with(if old { Format::Qcow } else { Format::Qcow2 });
    }
    let there = to_usize(source.size()).min(start.len());
    if is_vmdk_descriptor(start.get(..there).unwrap_or_default()) {
        fitting = fitting.with(Format::Vmdk);
    }
    if is_iso(source)? {
        fitting = fitting.with(Format::Iso);
    }
    at_end(source, fitting)
}

fn is_iso(source: &mut dyn ReadAt) -> Result<bool, Error> {
    let mut descriptor = [0; 8];
    if source.size() < ISO_DESCRIPTORS + 2048 {
        return Ok(false);
    }
    read(source, ISO_DESCRIPTORS, &mut descriptor)?;
    // ECMA-119, section 8.1; ECMA-167, part 2, section 9.1 (the volume recognition sequence).
    let iso = has(&descriptor, 1, b"CD001");
    Ok(iso || has(&descriptor, 1, b"BEA01") || has(&descriptor, 1, b"NSR0"))
}

fn at_end(source: &mut dyn ReadAt, mut fitting: FormatSet) -> Result<FormatSet, Error> {
    let size = source.size();
    // What QEMU looks through for the trailer of a DMG, which may begin up to 511 bytes too early.
    let mut bytes = [0; 2 * TRAILER - 1];
    let there = to_usize(size).min(bytes.len());
    let Some(at) = there.checked_sub(TRAILER) else {
        return Ok(fitting);
    };
    let end = bytes.get_mut(..there).unwrap_or_default();
    read(source, size - len64(end), end)?;
    // Early versions of Virtual PC wrote footers of 511 bytes.
    if has(end, at, b"conectix") || has(end, at + 1, b"conectix") {
        fitting = fitting.with(Format::Vhd);
    }
    // All of the trailer has to be there, but it need not end with the file.
    let starts = end.get(..at + 4).unwrap_or_default();
    if starts.windows(4).any(|bytes| bytes == b"koly") {
        fitting = fitting.with(Format::Dmg);
    }
    Ok(fitting)
}

/// Whether a file is a VMDK's descriptor alone. Other readers skip comments and empty lines before
/// the version, and so they are skipped here too.
pub(crate) fn is_vmdk_descriptor(text: &[u8]) -> bool {
    for line in text.split(|byte| *byte == b'\n') {
        let line = line.trim_ascii();
        if has(line, 0, b"# Disk DescriptorFile") || is_version(line) {
            return true;
        }
        if !(line.is_empty() || line.first() == Some(&b'#')) {
            return false;
        }
    }
    false
}

fn is_version(line: &[u8]) -> bool {
    let Some(rest) = line.strip_prefix(b"version") else {
        return false;
    };
    let Some(number) = rest.trim_ascii_start().strip_prefix(b"=") else {
        return false;
    };
    let number = number.trim_ascii();
    !number.is_empty() && number.iter().all(u8::is_ascii_digit)
}
