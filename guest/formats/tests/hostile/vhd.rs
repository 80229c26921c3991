//! VHD images that lie.

use guest_formats::{Format, Options, Reason};

use super::{Case, judge, judge_all, judge_check, spoilt};
use crate::support::Put::{Data, Hole};
use crate::support::bytes::{be32, be64, put};
use crate::support::vhd::{Vhd, seal};
use crate::support::{allowing, disk, info};

/// Changes the footer, both copies of it, and seals them.
fn footer(bytes: &mut Vec<u8>, change: impl Fn(&mut Vec<u8>)) {
    let end = bytes.len() - 512;
    for at in [0, end] {
        let mut footer = bytes[at..at + 512].to_vec();
        change(&mut footer);
        seal(&mut footer, 64);
        put(bytes, at, &footer);
    }
}

fn dynamic(bytes: &mut Vec<u8>, change: impl Fn(&mut Vec<u8>)) {
    let mut header = bytes[512..1536].to_vec();
    change(&mut header);
    seal(&mut header, 36);
    put(bytes, 512, &header);
}

const VHD: &[Case] = &[
    ("a wrong checksum", |b| b[100] ^= 1, Reason::BadChecksum),
    (
        "a wrong checksum at the end",
        |b| *b.last_mut().unwrap() ^= 1,
        Reason::BadChecksum,
    ),
    ("no footer", |b| b.truncate(b.len() - 512), Reason::NoFooter),
    (
        "half a footer",
        |b| b.truncate(b.len() - 256),
        Reason::NoFooter,
    ),
    (
        "a footer and no start",
        |b| put(b, 0, &[0; 512]),
        Reason::CopiesDiffer,
    ),
    (
        "copies that differ",
        |b| {
            let mut copy = b[..512].to_vec();
            be64(&mut copy, 48, 1 << 40);
            seal(&mut copy, 64);
            put(b, 0, &copy);
        },
        Reason::CopiesDiffer,
    ),
    (
        "version 2",
        |b| footer(b, |f| be32(f, 12, 0x2_0000)),
        Reason::UnsupportedVersion,
    ),
    (
        "type 7",
        |b| footer(b, |f| be32(f, 60, 7)),
        Reason::BadHeader,
    ),
    (
        "a difference",
        |b| footer(b, |f| be32(f, 60, 4)),
        Reason::Differencing,
    ),
    (
        "2^63 bytes",
        |b| footer(b, |f| be64(f, 48, 1 << 63)),
        Reason::VirtualSize,
    ),
    (
        "larger than its table",
        |b| footer(b, |f| be64(f, 48, 1 << 30)),
        Reason::TableSize,
    ),
    (
        "a header nowhere",
        |b| footer(b, |f| be64(f, 16, 1 << 40)),
        Reason::BeyondEnd,
    ),
    (
        "a header at 2^64 - 512",
        |b| footer(b, |f| be64(f, 16, 0u64.wrapping_sub(512))),
        Reason::BeyondEnd,
    ),
    (
        "a header in the footer",
        |b| footer(b, |f| be64(f, 16, 0)),
        Reason::Overlap,
    ),
    (
        "an unaligned header",
        |b| footer(b, |f| be64(f, 16, 513)),
        Reason::Unaligned,
    ),
    ("a header's checksum", |b| b[600] ^= 1, Reason::BadChecksum),
    (
        "blocks of 0 bytes",
        |b| dynamic(b, |h| be32(h, 32, 0)),
        Reason::ClusterSize,
    ),
    (
        "blocks of 3 sectors",
        |b| dynamic(b, |h| be32(h, 32, 1536)),
        Reason::ClusterSize,
    ),
    (
        "blocks of 2 GiB",
        |b| dynamic(b, |h| be32(h, 32, 1 << 31)),
        Reason::ClusterSize,
    ),
    (
        "a table of 16 GiB",
        |b| dynamic(b, |h| be32(h, 28, u32::MAX)),
        Reason::BeyondEnd,
    ),
    (
        "an empty table",
        |b| dynamic(b, |h| be32(h, 28, 0)),
        Reason::TableSize,
    ),
    (
        "a table nowhere",
        |b| dynamic(b, |h| be64(h, 16, 1 << 40)),
        Reason::BeyondEnd,
    ),
    (
        "a table in the header",
        |b| dynamic(b, |h| be64(h, 16, 1024)),
        Reason::Overlap,
    ),
    (
        "a table in the footer",
        |b| dynamic(b, |h| be64(h, 16, 0)),
        Reason::Overlap,
    ),
    (
        "header version 2",
        |b| dynamic(b, |h| be32(h, 24, 0x2_0000)),
        Reason::UnsupportedVersion,
    ),
    (
        "a sector with data that counts as never written",
        |b| b[2048 + 3] &= !1,
        Reason::StaleSectors,
    ),
    (
        "a block nowhere",
        |b| be32(b, 1536, 0xffff_fff0),
        Reason::BeyondEnd,
    ),
    (
        "a block that the file ends in",
        |b| be32(b, 1536, (b.len() / 512) as u32 - 4),
        Reason::BeyondEnd,
    ),
    (
        "a block in the footer",
        |b| be32(b, 1536, 0),
        Reason::Overlap,
    ),
    (
        "a block in the header",
        |b| be32(b, 1536, 1),
        Reason::Overlap,
    ),
    (
        "a block in the table",
        |b| be32(b, 1536, 3),
        Reason::Overlap,
    ),
    (
        "a block over the footer at the end",
        |b| be32(b, 1536, last_block(b) + 1),
        Reason::Overlap,
    ),
];

/// The sector at which the last block of 64 KiB begins, with its bitmap, if the footer follows it.
fn last_block(bytes: &[u8]) -> u32 {
    (bytes.len() / 512 - 1 - 129) as u32
}

#[test]
fn vhds_that_lie_are_refused() {
    let good = Vhd::new(false, &[Data, Hole, Data], 65536, 3 * 65536);
    judge_all(&good.build(), VHD);
    let stale = spoilt(&good.build(), |b| b[2048 + 10] = 0);
    judge_check("stale sectors", &stale, Reason::StaleSectors.name());
    // A fixed disk that is longer than its file.
    let mut fixed = Vhd::new(true, &[Data], 65536, 65536);
    fixed.size = 1 << 20;
    judge(
        "a fixed disk",
        &fixed.build(),
        &Options::default(),
        Some(Reason::BeyondEnd),
    );
}

#[test]
fn a_fixed_disk_that_begins_with_a_vhd_may_be_two_disks() {
    let inner = Vhd::new(false, &[Data], 65536, 65536).build();
    let mut outer = Vhd::new(true, &[Data], 1 << 20, 1 << 20);
    outer.disk[..inner.len()].copy_from_slice(&inner);
    let several = Some(Reason::SeveralFormats);
    judge(
        "a dynamic one",
        &outer.build(),
        &Options::default(),
        several,
    );
    let allowed = allowing(&[Reason::SeveralFormats]);
    assert!(disk(&outer.build(), &allowed).unwrap() == outer.disk);
    let footer = outer.footer();
    outer.disk[..512].copy_from_slice(&footer);
    judge("a fixed one", &outer.build(), &Options::default(), several);
}

#[test]
fn a_fixed_disk_much_shorter_than_its_file_may_be_a_raw_one() {
    const CYLINDER: usize = 16 * 255 * 512;
    // Virtual PC and QEMU leave the rest of a cylinder behind the disk that the geometry gives.
    for (more, reason) in [
        (0, None),
        (CYLINDER, None),
        (CYLINDER + 512, Some(Reason::SeveralFormats)),
        (63 << 20, Some(Reason::SeveralFormats)),
    ] {
        let mut image = Vhd::new(true, &[Data], 1 << 20, 1 << 20);
        image.disk.resize((1 << 20) + more, 0);
        let bytes = image.build();
        judge(
            &format!("{more} bytes"),
            &bytes,
            &Options::default(),
            reason,
        );
        let fitting = info(&bytes).fitting;
        assert_eq!(fitting.contains(Format::Raw), reason.is_some(), "{more}");
    }
}

#[test]
fn no_part_of_a_block_may_be_missing_even_if_the_disk_ends_before() {
    // The disk has the first sector of its second block.
    let good = Vhd::new(false, &[Data, Data], 65536, 65536 + 512);
    judge_all(
        &good.build(),
        &[
            (
                "a block cut off behind the end of the disk",
                |b| be32(b, 1540, last_block(b) + 2),
                Reason::BeyondEnd,
            ),
            (
                "a table over the footer",
                |b| {
                    let table = b.len() as u64 - 512 - 1024;
                    dynamic(b, |h| {
                        be64(h, 16, table);
                        be32(h, 28, 300);
                    });
                },
                Reason::Overlap,
            ),
        ],
    );
}

#[test]
fn names_of_a_vhds_parents_are_noted_within_bounds() {
    let mut image = Vhd::new(false, &[Data], 65536, 65536);
    image.kind = 4;
    let bytes = spoilt(&image.build(), |b| {
        dynamic(b, |h| {
            put(h, 64, b"\0b\0a\0s\0e");
            for locator in 0..8 {
                put(h, 576 + locator * 24, b"W2ku");
                be32(h, 576 + locator * 24 + 8, u32::MAX);
                be64(h, 576 + locator * 24 + 16, 1 << 50);
            }
        });
    });
    judge(
        "locators",
        &bytes,
        &Options::default(),
        Some(Reason::BadReference),
    );
    let report = info(&bytes);
    assert!(report.findings.has(Reason::Differencing));
    assert_eq!(report.references[0].name, b"\0b\0a\0s\0e");
}

#[test]
fn what_cannot_be_read_on_is_refused_even_if_it_is_allowed() {
    let good = Vhd::new(true, &[Data], 65536, 65536);
    // The copy at the start of a fixed disk is not where one belongs.
    let mut bytes = good.footer();
    bytes.extend(&good.disk);
    let options = allowing(&[Reason::NoFooter]);
    let error = disk(&bytes, &options).unwrap_err();
    assert_eq!(error.reason(), Some(Reason::BadHeader));
    // Without its last footer a dynamic disk is read by the first, if that is allowed.
    let good = Vhd::new(false, &[Data, Hole], 65536, 131_072);
    let bytes = spoilt(&good.build(), |b| b.truncate(b.len() - 512));
    assert!(disk(&bytes, &options).unwrap() == good.disk);
}
