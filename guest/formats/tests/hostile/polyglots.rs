//! Files that are several formats, or not the one that is claimed.

use guest_formats::{Format, FormatSet, Options, PartitionTable, Reason, Verdict};

use super::{judge, spoilt};
use crate::support::Put::{Data, Hole};
use crate::support::bytes::{be32, be64, le16, le32, le64, put};
use crate::support::qcow2::Qcow2;
use crate::support::vhd::Vhd;
use crate::support::vhdx::Vhdx;
use crate::support::vmdk::{Vmdk, descriptor};
use crate::support::{info, pattern, raw, vdi};

fn qcow2() -> Vec<u8> {
    Qcow2::new(16, &[Data, Data]).build().bytes
}

fn mbr(bytes: &mut Vec<u8>) {
    put(bytes, 446, &[0; 64]);
    put(bytes, 446, &[0x80, 0, 2, 0, 0x83, 0, 0, 0]);
    le32(bytes, 454, 2048);
    le32(bytes, 458, 100_000);
    put(bytes, 510, b"\x55\xaa");
}

fn iso(bytes: &mut Vec<u8>) {
    put(bytes, 32768, b"\x01CD001\x01");
    if bytes.len() < 40_000 {
        bytes.resize(40_960, 0);
    }
}

#[test]
fn more_than_one_format_that_fits_is_refused() {
    let trailer = |magic: &'static [u8]| {
        move |b: &mut Vec<u8>| {
            let at = b.len();
            put(b, at, magic);
            b.resize(at + 512, 0);
        }
    };
    let footer = Vhd::new(true, &[Data], 512, 512).footer();
    let vmdk = Vmdk::new(false, &[Data], 65536, 65536).build();
    let vhdx = Vhdx::new(&[Data], 1 << 20, 1 << 20).build();
    let disk = vdi::build(false, &[Data], 65536, 65536);
    let mut inner = Vhd::new(true, &[Data], 1 << 20, 1 << 20);
    inner.disk[..4096].copy_from_slice(&qcow2()[..4096]);
    let cases: [(&str, Vec<u8>); 15] = [
        (
            "qcow2 and fixed VHD",
            spoilt(&qcow2(), |b| b.extend(&footer)),
        ),
        ("qcow2 and DMG", spoilt(&qcow2(), trailer(b"koly"))),
        ("qcow2 and CD", spoilt(&qcow2(), iso)),
        ("qcow2 and MBR", spoilt(&qcow2(), mbr)),
        (
            "qcow2 and GPT",
            spoilt(&qcow2(), |b| put(b, 512, b"EFI PART")),
        ),
        (
            "qcow2 and GPT of large sectors",
            spoilt(&qcow2(), |b| put(b, 4096, b"EFI PART")),
        ),
        ("qcow2 and tar", spoilt(&qcow2(), |b| put(b, 257, b"ustar"))),
        (
            "qcow2 and VDI",
            spoilt(&qcow2(), |b| put(b, 64, b"\x7f\x10\xda\xbe")),
        ),
        ("VMDK and DMG", spoilt(&vmdk, trailer(b"koly"))),
        (
            "VMDK and DMG that does not end the file",
            spoilt(&vmdk, |b| {
                trailer(b"koly")(b);
                b.resize(b.len() + 511, 0);
            }),
        ),
        ("VMDK and CD", spoilt(&vmdk, iso)),
        ("VHDX and CD", spoilt(&vhdx, iso)),
        (
            "VDI and qcow2",
            spoilt(&disk, |b| put(b, 0, b"QFI\xfb\0\0\0\x03")),
        ),
        ("a fixed VHD that begins as qcow2", inner.build()),
        (
            "LUKS and MBR",
            spoilt(&pattern(1, 4096), |b| {
                put(b, 0, b"LUKS\xba\xbe\0\x01");
                mbr(b);
            }),
        ),
    ];
    for (name, bytes) in cases {
        judge(
            name,
            &bytes,
            &Options::default(),
            Some(Reason::SeveralFormats),
        );
        // Whoever claims one of them is not safe from the others.
        let claimed = Options {
            claimed: Some(info(&bytes).format),
            ..Options::default()
        };
        judge(name, &bytes, &claimed, Some(Reason::SeveralFormats));
        // The user is told which they are, and that a partition table makes a raw disk of the file.
        let told = info(&bytes);
        assert!(told.fitting.len() > 1, "{name}: {:?}", told.fitting);
        let raw = name.contains("MBR") || name.contains("GPT");
        assert_eq!(told.fitting.contains(Format::Raw), raw, "{name}");
        let mut findings = told.findings.iter();
        let several = findings.find(|found| found.reason == Reason::SeveralFormats);
        assert_eq!(
            several.unwrap().value,
            u64::from(told.fitting.len()),
            "{name}"
        );
    }
}

#[test]
fn the_trailer_of_a_dmg_is_there_as_a_whole() {
    for (behind, format) in [
        (0, Format::Raw),
        (507, Format::Raw),
        (508, Format::Dmg),
        (508 + 511, Format::Dmg),
        (508 + 512, Format::Raw),
    ] {
        let mut bytes = pattern(1, 4096);
        bytes.extend(b"koly");
        bytes.resize(bytes.len() + behind, 0);
        assert_eq!(info(&bytes).format, format, "{behind}");
    }
}

#[test]
fn a_format_other_than_the_claimed_one_is_refused() {
    judge("qcow2 as raw", &qcow2(), &raw(), Some(Reason::OtherFormat));
    let claimed = Options {
        claimed: Some(Format::Qcow2),
        ..Options::default()
    };
    let disk = spoilt(&pattern(1, 65536), mbr);
    judge("raw as qcow2", &disk, &claimed, Some(Reason::OtherFormat));
    let vhd = Vhd::new(true, &[Data], 65536, 65536).build();
    judge(
        "a fixed VHD as raw",
        &vhd,
        &raw(),
        Some(Reason::OtherFormat),
    );
    // A tool that skips comments sees a descriptor here.
    let text = format!(
        "# a comment\n\n  \n{}",
        "version=1\nRW 1 FLAT \"/dev/sda\" 0\n"
    );
    judge(
        "a descriptor as raw",
        text.as_bytes(),
        &raw(),
        Some(Reason::OtherFormat),
    );
}

#[test]
fn a_raw_disk_has_partitions_or_is_called_raw() {
    let none = pattern(1, 65536);
    judge(
        "noise",
        &none,
        &Options::default(),
        Some(Reason::UnknownFormat),
    );
    judge("noise as raw", &none, &raw(), None);
    judge(
        "nothing",
        b"",
        &Options::default(),
        Some(Reason::UnknownFormat),
    );
    let disk = spoilt(&none, mbr);
    judge("a disk with partitions", &disk, &Options::default(), None);
    assert_eq!(info(&disk).partitions, Some(PartitionTable::Mbr));
    let hybrid = spoilt(&disk, iso);
    judge(
        "a CD that boots from a disk",
        &hybrid,
        &Options::default(),
        None,
    );
    judge("a CD as raw", &hybrid, &raw(), None);
    assert_eq!(info(&hybrid).format, Format::Iso);
    // The mark of a boot sector alone is no table of partitions.
    let boot = spoilt(&vec![0; 65536], |b| put(b, 510, b"\x55\xaa"));
    judge(
        "a boot sector",
        &boot,
        &Options::default(),
        Some(Reason::UnknownFormat),
    );
    let ext = spoilt(&vec![0; 65536], |b| put(b, 1080, b"\x53\xef"));
    judge("a file system", &ext, &Options::default(), None);
    // The partitions of the disk in a fixed VHD are no second format.
    let mut vhd = Vhd::new(true, &[Hole], 1 << 20, 1 << 20);
    mbr(&mut vhd.disk);
    judge("a fixed VHD", &vhd.build(), &Options::default(), None);
    assert_eq!(info(&vhd.build()).partitions, Some(PartitionTable::Mbr));
}

#[test]
fn formats_that_are_only_recognised_say_what_they_can() {
    let magic: [(&[u8], Format); 15] = [
        (b"QED\0", Format::Qed),
        (b"QFI\xfb\0\0\0\x01", Format::Qcow),
        (b"COWD", Format::Vmdk),
        (b"\xbe\xba\xfe\xca\0\0\0\0", Format::Vmdk),
        (b"LUKS\xba\xbe\0\x01", Format::Luks),
        (b"LUKS\xba\xbe\0\x02", Format::Luks),
        (b"WithoutFreeSpace", Format::Parallels),
        (b"WithouFreSpacExt", Format::Parallels),
        (b"Bochs Virtual HD Image", Format::Bochs),
        (b"#!/bin/sh\n#V2.0 Format", Format::Cloop),
        (b"EVF\x09\x0d\x0a\xff\0", Format::Ewf),
        (b"\x1f\x8b\x08", Format::Gzip),
        (b"\xfd7zXZ\0", Format::Xz),
        (b"\x28\xb5\x2f\xfd", Format::Zstd),
        (b"PK\x03\x04", Format::Zip),
    ];
    for (magic, format) in magic {
        let bytes = spoilt(&vec![0; 8192], |b| put(b, 0, magic));
        let report = info(&bytes);
        assert_eq!(report.format, format);
        assert_eq!(report.fitting, FormatSet::default().with(format));
        let reason = match format.is_archive() {
            true => Reason::NotADisk,
            false => Reason::FormatNotRead,
        };
        judge(format.name(), &bytes, &Options::default(), Some(reason));
        assert_eq!(report.verdict(), Verdict::Refused);
    }
    let mut qed = vec![0; 4096];
    put(&mut qed, 0, b"QED\0");
    le32(&mut qed, 4, 65536);
    le64(&mut qed, 16, 1);
    le64(&mut qed, 48, 1 << 30);
    le32(&mut qed, 56, 64);
    le32(&mut qed, 60, 7);
    put(&mut qed, 64, b"../base");
    let report = info(&qed);
    assert_eq!(report.virtual_size, Some(1 << 30));
    assert_eq!(report.references[0].name, b"../base");
    le32(&mut qed, 56, u32::MAX);
    judge("QED", &qed, &Options::default(), Some(Reason::BadReference));
    let mut qcow = vec![0; 4096];
    put(&mut qcow, 0, b"QFI\xfb\0\0\0\x01");
    be64(&mut qcow, 8, u64::MAX);
    be32(&mut qcow, 16, u32::MAX);
    qcow[32] = 255;
    judge(
        "qcow",
        &qcow,
        &Options::default(),
        Some(Reason::BadReference),
    );
    let mut tar = vec![0; 2048];
    put(&mut tar, 257, b"ustar");
    le16(&mut tar, 300, 0);
    judge("tar", &tar, &Options::default(), Some(Reason::NotADisk));
}

#[test]
fn extents_in_other_files_are_named_and_never_followed() {
    for (kind, line, reason) in [
        (
            "monolithicFlat",
            "RW 8 FLAT \"/etc/shadow\" 0",
            Reason::ExternalExtent,
        ),
        (
            "monolithicSparse",
            "RW 8 SPARSE \"disk.vmdk\"",
            Reason::ExternalExtent,
        ),
        (
            "vmfs",
            "RDONLY 8 VMFS \"disk-flat.vmdk\"",
            Reason::ExternalExtent,
        ),
        ("monolithicFlat", "", Reason::BadDescriptor),
    ] {
        let text = descriptor(kind, line);
        judge(line, text.as_bytes(), &Options::default(), Some(reason));
    }
    let text = descriptor("monolithicFlat", "RW 8 FLAT \"/etc/shadow\" 0");
    let report = info(text.as_bytes());
    assert_eq!(report.format, Format::Vmdk);
    assert_eq!(report.virtual_size, Some(4096));
    assert_eq!(report.references[0].name, b"/etc/shadow");
    let many = descriptor("twoGbMaxExtentFlat", &"RW 8 FLAT \"x\" 0\n".repeat(4000));
    judge(
        "4,000 extents",
        many.as_bytes(),
        &Options::default(),
        Some(Reason::ExternalExtent),
    );
    let long = descriptor(
        "monolithicFlat",
        &format!("RW 8 FLAT \"{}\"", "x".repeat(70_000)),
    );
    judge(
        "a long name",
        long.as_bytes(),
        &Options::default(),
        Some(Reason::BadDescriptor),
    );
}

#[test]
fn an_embedded_descriptor_may_name_its_own_file_alone() {
    for extents in [
        "RW 128 SPARSE \"/dev/sda\"",
        "RW 128 SPARSE \"..\\disk.vmdk\"",
        "RW 128 FLAT \"disk.vmdk\" 0",
        "RW 64 SPARSE \"a\"\nRW 64 SPARSE \"b\"",
        "rw 128 flat \"disk.vmdk\" 0",
    ] {
        let mut image = Vmdk::new(false, &[Data], 65536, 65536);
        image.descriptor = descriptor("monolithicSparse", extents);
        judge(
            extents,
            &image.build(),
            &Options::default(),
            Some(Reason::ExternalExtent),
        );
    }
    let mut image = Vmdk::new(false, &[Data, Hole], 65536, 131_072);
    image.descriptor = image
        .descriptor
        .replace("parentCID=ffffffff", "parentCID=12345678");
    judge(
        "a parent",
        &image.build(),
        &Options::default(),
        Some(Reason::BackingFile),
    );
    image.descriptor = image.descriptor.replace("12345678", "ffffffff");
    image
        .descriptor
        .push_str("parentFileNameHint=\"/etc/shadow\"\n");
    judge(
        "a parent's name",
        &image.build(),
        &Options::default(),
        Some(Reason::BackingFile),
    );
    assert_eq!(info(&image.build()).references[0].name, b"/etc/shadow");
}
