//! Attacks on tools that read images, as they became public, where no other table of lies has them.

use guest_formats::{Format, Options, Reason, Verdict, inspect};

use super::qcow2::{L1, L2, good};
use super::{judge, judge_check, spoilt};
use crate::support::Put::{Data, Hole};
use crate::support::bytes::{be32, be64, le16, le32, le64, put};
use crate::support::qcow2::Qcow2;
use crate::support::vhd::Vhd;
use crate::support::vhdx::{Vhdx, seal as seal_at};
use crate::support::vmdk::Vmdk;
use crate::support::{Counting, allowing, info, open_with, pattern, raw, vdi};

/// What has been written into images as the name of another file: paths, and what programs take for
/// a protocol, for options or for a device.
const NAMES: [&str; 9] = [
    "/etc/shadow",
    "../../../../etc/shadow",
    "/dev/sda",
    "json:{\"driver\":\"file\",\"filename\":\"/etc/shadow\"}",
    "nbd://127.0.0.1:10809/disk",
    "ssh://root@127.0.0.1/etc/shadow",
    "fat:rw:/etc",
    "disk.qcow2,if=none,file=/etc/shadow",
    "/proc/self/fd/3",
];

/// CVE-2011-3147, CVE-2015-5163, CVE-2022-47951, CVE-2024-4467, CVE-2024-32498, CVE-2024-40767 and
/// CVE-2026-27211.
#[test]
fn whatever_names_another_file_is_refused_and_the_name_is_told_as_it_is() {
    for name in NAMES {
        let mut image = Qcow2::new(16, &[Data, Hole]);
        image.backing = Some(name);
        let backing = image.build().bytes;
        let data = spoilt(&good().bytes, |b| {
            be64(b, 72, 4);
            be32(b, 112, 0x4441_5441);
            be32(b, 116, name.len() as u32);
            put(b, 120, &[0; 64]);
            put(b, 120, name.as_bytes());
        });
        let mut image = Vmdk::new(false, &[Data, Hole], 65536, 131_072);
        let hint = format!("parentFileNameHint=\"{name}\"\n");
        image.descriptor = image
            .descriptor
            .replace("parentCID=ffffffff", "parentCID=1");
        image.descriptor.push_str(&hint);
        let parent = image.build();
        let extent =
            crate::support::vmdk::descriptor("monolithicFlat", &format!("RW 8 FLAT \"{name}\" 0"));
        for (what, bytes, reason) in [
            ("a backing file", backing, Reason::BackingFile),
            ("a data file", data, Reason::DataFile),
            ("a parent", parent, Reason::BackingFile),
            ("an extent", extent.into_bytes(), Reason::ExternalExtent),
        ] {
            judge(
                &format!("{what}: {name}"),
                &bytes,
                &Options::default(),
                Some(reason),
            );
            let found = info(&bytes).references;
            let told = found.iter().any(|found| found.name == name.as_bytes());
            // A quote ends a name in a descriptor.
            let is_text = matches!(what, "a parent" | "an extent");
            assert!(told || is_text && name.contains('"'), "{what}: {found:?}");
        }
    }
}

/// An image over `name`, whose extensions call the format of that file by `formats`.
fn over(name: &'static str, formats: &[&[u8]]) -> Vec<u8> {
    let mut image = Qcow2::new(16, &[Data, Hole]);
    image.backing = Some(name);
    spoilt(&image.build().bytes, |b| {
        let mut at = 112;
        for format in formats {
            be32(b, at, 0xe279_2aca);
            be32(b, at + 4, format.len() as u32);
            put(b, at + 8, &vec![0; format.len().next_multiple_of(8)]);
            put(b, at + 8, format);
            at += 8 + format.len().next_multiple_of(8);
        }
        put(b, at, &[0; 8]);
        put(b, at + 8, name.as_bytes());
        be64(b, 8, at as u64 + 8);
    })
}

/// QEMU takes the last of several names, up to its first zero byte, and refuses what it does not know.
#[test]
fn a_backing_format_that_others_may_take_for_another_one_is_refused() {
    let allowed = allowing(&[Reason::BackingFile]);
    let known: [(&str, Format); 6] = [
        ("raw", Format::Raw),
        ("file", Format::Raw),
        ("host_device", Format::Raw),
        ("host_cdrom", Format::Raw),
        ("qcow2", Format::Qcow2),
        ("vpc", Format::Vhd),
    ];
    for (name, format) in known {
        let bytes = over("base", &[name.as_bytes()]);
        assert!(open_with(&bytes, &allowed).is_ok(), "{name}");
        assert_eq!(info(&bytes).backing_format, Some(format), "{name}");
    }
    let long = [b'x'; 2000];
    let others: [&[&[u8]]; 8] = [
        &[b""],
        &[b"RAW"],
        &[b"raw "],
        &[b"nbd"],
        &[b"raw\0"],
        &[b"raw\0qcow2"],
        &[&long],
        &[b"qcow2", b"raw"],
    ];
    for formats in others {
        let text: Vec<_> = formats
            .iter()
            .map(|f| f.escape_ascii().to_string())
            .collect();
        let name = text.join(", ");
        let bytes = over("base", formats);
        judge(&name, &bytes, &allowed, Some(Reason::BackingFormat));
        let both = allowing(&[Reason::BackingFile, Reason::BackingFormat]);
        assert!(open_with(&bytes, &both).is_ok(), "{name}");
        assert_eq!(info(&bytes).backing_format, None, "{name}");
    }
    // It is of no file if there is none.
    let alone = spoilt(&over("base", &[b"nbd"]), |b| put(b, 8, &[0; 12]));
    judge("no backing file", &alone, &Options::default(), None);
}

#[test]
fn a_name_that_says_how_a_file_is_to_be_read_is_no_mere_name() {
    const OPTIONS: &str =
        "json:{\"driver\":\"raw\",\"offset\":65536,\"file\":{\"filename\":\"base\"}}";
    let mut parent = Vmdk::new(false, &[Data, Hole], 65536, 131_072);
    let hint = "parentFileNameHint=\"json:{}\"\n";
    parent.descriptor.push_str(hint);
    for (name, bytes) in [
        ("qcow2", over(OPTIONS, &[b"raw"])),
        ("VMDK", parent.build()),
    ] {
        let allowed = allowing(&[Reason::BackingFile]);
        judge(name, &bytes, &allowed, Some(Reason::BackingOptions));
        let both = allowing(&[Reason::BackingFile, Reason::BackingOptions]);
        assert!(open_with(&bytes, &both).is_ok(), "{name}");
    }
}

#[test]
fn a_header_that_cannot_be_read_to_its_end_is_refused_whatever_is_allowed() {
    let stream = Vmdk::new(true, &[Data], 65536, 65536).build();
    let fixed = Vhd::new(true, &[Data], 65536, 65536);
    let cases: [(&str, Vec<u8>, Reason); 4] = [
        (
            "a VMDK that is cut off before its footer",
            spoilt(&stream, |b| b.truncate(b.len() - 1024)),
            Reason::Truncated,
        ),
        (
            "a VMDK whose directory is said to be in a footer",
            spoilt(&Vmdk::new(false, &[Data], 65536, 65536).build(), |b| {
                put(b, 56, &[0xff; 8])
            }),
            Reason::Truncated,
        ),
        (
            "the footer of a fixed VHD in front of the disk",
            [fixed.footer(), fixed.disk].concat(),
            Reason::BadHeader,
        ),
        (
            "a VHDX of 65 TiB",
            spoilt(&Vhdx::new(&[Data], 1 << 20, 1 << 20).build(), |b| {
                le64(b, (2 << 20) + (64 << 10) + 8, 65 << 40);
            }),
            Reason::BadHeader,
        ),
    ];
    let all = Reason::ALL.iter().copied();
    let overridable: Vec<_> = all.filter(|reason| reason.may_be_allowed()).collect();
    for (name, bytes, reason) in cases {
        for largest_disk in [Options::LARGEST_DISK, 100 << 40] {
            let options = Options {
                largest_disk,
                ..allowing(&overridable)
            };
            judge(name, &bytes, &options, Some(reason));
            assert_ne!(info(&bytes).verdict(), Verdict::Safe, "{name}");
        }
    }
}

/// CVE-2008-2004, CVE-2015-1851, CVE-2024-44082 and CVE-2026-24708.
#[test]
fn a_header_that_a_guest_has_written_into_its_raw_disk_is_believed_by_nobody() {
    let fixed = Vhd::new(true, &[Data], 512, 512).footer();
    let headers: [(&str, Vec<u8>); 9] = [
        ("qcow2", good().bytes),
        ("VMDK", Vmdk::new(false, &[Data], 65536, 65536).build()),
        ("VHDX", Vhdx::new(&[Hole], 1 << 20, 1 << 20).build()),
        ("VHD", Vhd::new(false, &[Data], 65536, 65536).build()),
        ("VDI", vdi::build(false, &[Data], 65536, 65536)),
        ("QED", b"QED\0".to_vec()),
        ("qcow", b"QFI\xfb\0\0\0\x01".to_vec()),
        ("LUKS", b"LUKS\xba\xbe\0\x02".to_vec()),
        ("Parallels", b"WithoutFreeSpace".to_vec()),
    ];
    let disk = pattern(1, 512 << 10);
    for (name, header) in headers {
        let bytes = spoilt(&disk, |b| {
            put(b, 0, &header[..header.len().min(440)]);
            put(b, 446, &[0; 66]);
            put(b, 446, &[0x80, 0, 2, 0, 0x83, 0, 0, 0]);
            le32(b, 454, 1);
            le32(b, 458, 1000);
            put(b, 510, b"\x55\xaa");
        });
        judge(name, &bytes, &raw(), Some(Reason::OtherFormat));
        let ambiguous = (name != "VHD").then_some(Reason::SeveralFormats);
        judge(
            name,
            &bytes,
            &Options::default(),
            ambiguous.or(Some(Reason::BadChecksum)),
        );
    }
    // At its end, too. The disk is the same then, but for its last sector.
    let bytes = spoilt(&disk, |b| b.extend(&fixed));
    judge("a fixed VHD", &bytes, &raw(), Some(Reason::OtherFormat));
}

/// CVE-2014-0142 to 0148, 0222 and 0223: numbers without meaning in headers of formats that are
/// only recognised. Nobody computes with them here.
#[test]
fn headers_of_formats_that_are_not_read_may_say_what_they_like() {
    let magic: [&[u8]; 9] = [
        b"WithoutFreeSpace",
        b"WithouFreSpacExt",
        b"Bochs Virtual HD Image",
        b"#!/bin/sh\n#V2.0 Format",
        b"EVF\x09\x0d\x0a\xff\0",
        b"LUKS\xba\xbe\0\x01",
        b"SKUL\xba\xbe\0\x02",
        b"COWD",
        b"\xbe\xba\xfe\xca\0\0\0\0",
    ];
    let mut files: Vec<(Vec<u8>, Reason)> = Vec::new();
    for fill in [0, 0x7f, 0xff] {
        for magic in magic {
            files.push((
                spoilt(&[fill; 4096], |b| put(b, 0, magic)),
                Reason::FormatNotRead,
            ));
        }
        let dmg = spoilt(&[fill; 4096], |b| put(b, 4096 - 512, b"koly"));
        files.push((dmg, Reason::FormatNotRead));
        for magic in [
            &b"BZh9"[..],
            b"7z\xbc\xaf\x27\x1c",
            b"\x1f\x8b\x08",
            b"PK\x03\x04",
        ] {
            files.push((
                spoilt(&[fill; 4096], |b| put(b, 0, magic)),
                Reason::NotADisk,
            ));
        }
    }
    for (index, (bytes, reason)) in files.iter().enumerate() {
        judge(
            &format!("file {index}"),
            bytes,
            &Options::default(),
            Some(*reason),
        );
        assert_eq!(info(bytes).verdict(), Verdict::Refused, "file {index}");
    }
}

/// The item of the metadata that names the parent of a VHDX.
const PARENT_LOCATOR: [u8; 16] = [
    0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45, 0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c,
];

#[test]
fn parents_of_a_vhdx_are_named_within_bounds_and_never_looked_for() {
    const TABLE: usize = 2 << 20;
    const ITEM: usize = TABLE + (128 << 10);
    let good = Vhdx::new(&[Data, Hole], 1 << 20, 2 << 20).build();
    let with_locator = |change: &dyn Fn(&mut Vec<u8>)| {
        spoilt(&good, |b| {
            le16(b, TABLE + 10, 6);
            let entry = TABLE + 32 + 5 * 32;
            put(b, entry, &PARENT_LOCATOR);
            le32(b, entry + 16, 128 << 10);
            le32(b, entry + 20, 200);
            le32(b, entry + 24, 4);
            le16(b, ITEM + 18, 1);
            le32(b, ITEM + 20, 32);
            le32(b, ITEM + 24, 64);
            le16(b, ITEM + 28, 4);
            le16(b, ITEM + 30, 8);
            put(b, ITEM + 64, b"\\\0\\\0?\0\\\0");
            change(b);
        })
    };
    let entry = TABLE + 32 + 5 * 32;
    let locator = with_locator(&|_| {});
    assert_eq!(info(&locator).references[0].name, b"\\\0\\\0?\0\\\0");
    judge(
        "a locator",
        &locator,
        &Options::default(),
        Some(Reason::Differencing),
    );
    type Change = fn(&mut Vec<u8>, usize);
    let changes: [(&str, Change, Reason); 6] = [
        (
            "65,535 keys",
            |b, _| le16(b, ITEM + 18, u16::MAX),
            Reason::Differencing,
        ),
        (
            "a value at 4 GiB",
            |b, _| le32(b, ITEM + 24, u32::MAX),
            Reason::BadReference,
        ),
        (
            "a value of 64 KiB",
            |b, _| le16(b, ITEM + 30, u16::MAX),
            Reason::BadReference,
        ),
        (
            "a locator of 4 bytes",
            |b, entry| le32(b, entry + 20, 4),
            Reason::Differencing,
        ),
        (
            "a locator of 4 GiB",
            |b, entry| le32(b, entry + 20, u32::MAX),
            Reason::BeyondEnd,
        ),
        (
            "a locator nowhere",
            |b, entry| le32(b, entry + 16, u32::MAX),
            Reason::BeyondEnd,
        ),
    ];
    for (name, change, reason) in changes {
        let bytes = with_locator(&|b| change(b, entry));
        judge(name, &bytes, &Options::default(), Some(reason));
    }
}

#[test]
fn lists_of_a_vhdx_that_are_as_long_as_can_be_take_few_reads() {
    const TABLE: usize = 2 << 20;
    const REGIONS: [usize; 2] = [192 << 10, 256 << 10];
    let good = Vhdx::new(&[Data, Hole], 1 << 20, 2 << 20).build();
    let items = |guid: &[u8], count: u16| {
        spoilt(&good, |b| {
            le16(b, TABLE + 10, count);
            for index in 5..usize::from(count) {
                let entry = TABLE + 32 + index * 32;
                put(b, entry, guid);
                le32(b, entry + 16, 128 << 10);
                le32(b, entry + 20, 200);
                le16(b, TABLE + (128 << 10) + 18, 16);
            }
        })
    };
    let regions = spoilt(&good, |b| {
        for at in REGIONS {
            le32(b, at + 8, 2047);
            (2..2047).for_each(|index| put(b, at + 16 + index * 32, &[7; 28]));
            seal_at(b, at, 64 << 10);
        }
    });
    for (name, bytes, expected) in [
        ("unknown items", items(&[7; 16], 2047), None),
        ("unknown regions", regions, None),
        (
            "one locator",
            items(&PARENT_LOCATOR, 6),
            Some(Reason::Differencing),
        ),
        (
            "locators",
            items(&PARENT_LOCATOR, 2047),
            Some(Reason::BadHeader),
        ),
    ] {
        judge(name, &bytes, &Options::default(), expected);
        let mut source = Counting::new(&bytes);
        inspect(&mut source, &Options::default()).unwrap();
        assert!(source.reads < 150, "{name}: {} reads", source.reads);
    }
}

/// CVE-2014-0143, 0145 and 0147: refcounts and lists that send a reader astray. What reads the disk
/// does not need them, so that they are for a check to find.
#[test]
fn refcounts_and_bitmaps_of_a_qcow2_that_lie_are_found_by_a_check() {
    const REFCOUNTS: usize = 0x1_0000;
    const BITMAPS: u32 = 0x2385_2875;
    let good = good();
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, Change, &str); 9] = [
        (
            "an unaligned block",
            |b| be64(b, REFCOUNTS, 0x5_0200),
            "unaligned",
        ),
        (
            "a block nowhere",
            |b| be64(b, REFCOUNTS, 1 << 40),
            "beyond-end",
        ),
        (
            "a block at 2^64",
            |b| be64(b, REFCOUNTS, !0xffff),
            "beyond-end",
        ),
        (
            "reserved bits",
            |b| be64(b, REFCOUNTS, 0x5_0001),
            "reserved-bits",
        ),
        (
            "a block on the L1 table",
            |b| be64(b, REFCOUNTS, L1 as u64),
            "overlap",
        ),
        ("no block", |b| be64(b, REFCOUNTS, 0), "refcount-too-low"),
        (
            "two entries with a cluster",
            |b| {
                let first = b[L2..L2 + 8].to_vec();
                put(b, L2 + 16, &first);
            },
            "refcount-too-low",
        ),
        (
            "bitmaps nowhere",
            |b| bitmaps(b, BITMAPS, 1 << 40, 1),
            "beyond-end",
        ),
        (
            "bitmaps that are not aligned",
            |b| bitmaps(b, BITMAPS, 0x1_0200, 1),
            "unaligned",
        ),
    ];
    for (name, change, problem) in changes {
        judge_check(name, &spoilt(&good.bytes, change), problem);
    }
    // 2^32 - 1 of them, in a directory of 4 GiB.
    let many = spoilt(&good.bytes, |b| bitmaps(b, BITMAPS, 0x1_0000, u32::MAX));
    judge_check("4 Gi bitmaps", &many, "overlap");
}

/// An extension that says where the directory of bitmaps is, and the bit that says that it holds.
fn bitmaps(bytes: &mut Vec<u8>, kind: u32, at: u64, count: u32) {
    be64(bytes, 88, 1);
    be32(bytes, 112, kind);
    be32(bytes, 116, 24);
    be32(bytes, 120, count);
    be64(bytes, 128, u64::from(count) * 32);
    be64(bytes, 136, at);
    put(bytes, 144, &[0; 8]);
}
