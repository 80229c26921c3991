//! Whether a raw disk that was written would be taken for an image.
//!
//! A raw disk has no header of its own: its first bytes are those that whoever used the disk wrote
//! there. If they are the header of an image, a program that finds out the format by itself opens that
//! image, and the files that it names (CVE-2008-2004, CVE-2015-1851). The host looks by itself, as a
//! guest that an image has taken over could keep it to itself. Signatures are compared, and nothing
//! is followed.

use std::io;

use vm_memory::VolatileSlice;

use crate::reason::reason;
use crate::storage::Storage;

/// How much of the start is looked at, and of the end, in bytes.
const START: usize = 4096;
const TRAILER: usize = 512;

/// Formats, where their signatures lie at the start of a file, and what is there.
const AT_START: &[(&str, usize, &[u8])] = &[
    ("qcow2", 0, b"QFI\xfb\0\0\0\x02"),
    ("qcow2", 0, b"QFI\xfb\0\0\0\x03"),
    ("qcow", 0, b"QFI\xfb"),
    ("qed", 0, b"QED\0"),
    ("vmdk", 0, b"KDMV"),
    ("vmdk", 0, b"COWD"),
    ("vmdk", 0, b"\xbe\xba\xfe\xca\0\0\0\0"),
    ("vhd", 0, b"conectix"),
    ("vhdx", 0, b"vhdxfile"),
    ("vdi", 64, b"\x7f\x10\xda\xbe"),
    ("luks", 0, b"LUKS\xba\xbe"),
    ("luks", 0, b"SKUL\xba\xbe"),
    ("parallels", 0, b"WithoutFreeSpace"),
    ("parallels", 0, b"WithouFreSpacExt"),
    ("bochs", 0, b"Bochs Virtual HD Image"),
    ("cloop", 0, b"#!/bin/sh\n#V2.0 Format"),
    ("ewf", 0, b"EVF\x09\x0d\x0a\xff\0"),
    ("ewf", 0, b"EVF2\x0d\x0a\x81\0"),
];
/// The same for the last 512 bytes. Early footers of a VHD are a byte shorter.
const AT_END: &[(&str, usize, &[u8])] = &[("vhd", 0, b"conectix"), ("vhd", 1, b"conectix")];
/// The trailer of a DMG. QEMU takes one that does not end with the file, too, by up to 511 bytes.
const DMG: &[u8] = b"koly";

/// A warning, if the disk of `length` bytes in `output` has the signature of an image, or cannot be
/// looked at, which is no reason to lose it.
pub(super) fn warning(output: &dyn Storage, length: u64) -> Option<String> {
    match image_format(output, length) {
        Ok(None) => None,
        Ok(Some(format)) => Some(format!(
            "the output is a raw disk that looks like a {format} image: say that it is raw wherever it \
             is opened (qemu-img -f raw, -drive format=raw), since a program that guesses may believe \
             what was written into the disk, and open other files"
        )),
        Err(error) => Some(format!(
            "whether the output looks like an image cannot be found out: {}; say that it is raw wherever \
             it is opened",
            reason(&error)
        )),
    }
}

/// The format of an image that a program may take the disk for.
fn image_format(output: &dyn Storage, length: u64) -> io::Result<Option<&'static str>> {
    let mut start = [0; START];
    let there = usize::try_from(length).map_or(START, |length| length.min(START));
    let start = &mut start[..there];
    output.read_at(0, &[VolatileSlice::from(&mut *start)])?;
    if let Some(format) = find(AT_START, start) {
        return Ok(Some(format));
    }
    if is_descriptor(start) {
        return Ok(Some("vmdk"));
    }
    let mut end = [0; 2 * TRAILER - 1];
    let there = usize::try_from(length).map_or(end.len(), |length| length.min(end.len()));
    let Some(at) = there.checked_sub(TRAILER) else {
        return Ok(None);
    };
    let end = &mut end[..there];
    output.read_at(length - there as u64, &[VolatileSlice::from(&mut *end)])?;
    let starts = &end[..at + DMG.len()];
    let is_dmg = starts.windows(DMG.len()).any(|bytes| bytes == DMG);
    Ok(find(AT_END, &end[at..]).or(is_dmg.then_some("dmg")))
}

fn find(signatures: &[(&'static str, usize, &[u8])], bytes: &[u8]) -> Option<&'static str> {
    let has = |at: usize, magic| bytes.get(at..).is_some_and(|rest| rest.starts_with(magic));
    let mut all = signatures.iter();
    all.find(|(_, at, magic)| has(*at, *magic))
        .map(|(format, _, _)| *format)
}

/// Whether the text of a VMDK's descriptor begins here: its version, perhaps behind comments.
fn is_descriptor(bytes: &[u8]) -> bool {
    for line in bytes.split(|byte| *byte == b'\n') {
        let line = line.trim_ascii();
        if line.starts_with(b"# Disk DescriptorFile") || line.starts_with(b"version") {
            return true;
        }
        if !(line.is_empty() || line.starts_with(b"#")) {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use guest_formats::{Format, Options, inspect};

    use super::*;
    use crate::storage::MemoryStorage;

    const LENGTH: usize = 8192;

    fn found(disk: &[u8]) -> Option<&'static str> {
        image_format(&MemoryStorage::new(disk.to_vec()), disk.len() as u64).unwrap()
    }

    /// A disk with these bytes at one place.
    fn place(at: usize, magic: &[u8]) -> Vec<u8> {
        let mut disk = vec![0; LENGTH];
        disk[at..at + magic.len()].copy_from_slice(magic);
        disk
    }

    /// A disk with each signature, and the format that it is of.
    fn disguised() -> Vec<(&'static str, Vec<u8>)> {
        let mut disks = Vec::new();
        for (format, at, magic) in AT_START.iter().filter(|(format, ..)| *format != "qcow") {
            disks.push((*format, place(*at, magic)));
        }
        for (format, at, magic) in AT_END {
            disks.push((*format, place(LENGTH - TRAILER + at, magic)));
        }
        for at in [LENGTH - 2 * TRAILER + 1, LENGTH - TRAILER] {
            disks.push(("dmg", place(at, DMG)));
        }
        disks.push(("qcow", place(0, b"QFI\xfb\0\0\0\x01")));
        for text in ["# Disk DescriptorFile\n", "\n# more\n version = 1\n"] {
            disks.push(("vmdk", place(0, text.as_bytes())));
        }
        disks
    }

    #[test]
    fn a_disk_is_taken_for_what_the_guest_that_reads_images_would_take_it_for() {
        let disks = disguised();
        for (format, disk) in &disks {
            assert_eq!(found(disk), Some(*format));
            let info = inspect(&mut &disk[..], &Options::default()).unwrap();
            let fitting: Vec<_> = info.fitting.iter().map(Format::name).collect();
            assert_eq!(fitting, [*format]);
        }
        for at in [
            LENGTH - 2 * TRAILER,
            LENGTH - TRAILER + 1,
            LENGTH - DMG.len(),
        ] {
            let disk = place(at, DMG);
            assert_eq!(found(&disk), None, "a whole trailer does not fit at {at}");
        }
        // An archive is no disk to anybody, and a CD is a raw disk.
        let all = Format::ALL.iter().filter(|format| !format.is_archive());
        let images = all.filter(|format| !matches!(format, Format::Raw | Format::Iso));
        let images: BTreeSet<_> = images.map(|format| format.name()).collect();
        assert_eq!(images, disks.iter().map(|(format, _)| *format).collect());
    }

    #[test]
    fn a_disk_without_a_signature_is_nothing_else() {
        for length in [0, 1, 511, 512, 4095, LENGTH] {
            assert_eq!(found(&vec![0; length]), None);
            assert_eq!(found(&vec![b'#'; length]), None);
        }
        assert_eq!(found(b"QFI"), None);
        let storage = MemoryStorage::new(vec![0; LENGTH]);
        assert_eq!(warning(&storage, LENGTH as u64), None);
    }

    #[test]
    fn a_disk_that_cannot_be_looked_at_is_a_warning_and_not_lost() {
        let storage = MemoryStorage::new(vec![0; LENGTH]);
        let warning = warning(&storage, 2 * LENGTH as u64).unwrap();
        assert!(warning.contains("cannot be found out"), "{warning}");
    }
}
