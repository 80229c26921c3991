//! VHD, VDI, VMDK and VHDX images that lie.

use guest_formats::{Codec, Compressed, Content, Frame, Image, Options, ReadAt, ReadError, Reason};

use super::{Case, judge, judge_all, spoilt};
use crate::support::Put::{Data, Hole, Zero};
use crate::support::bytes::{be32, be64, le16, le32, le64, put};
use crate::support::vhd::{Vhd, seal};
use crate::support::vhdx::{self, Vhdx};
use crate::support::vmdk::Vmdk;
use crate::support::{allowing, disk, info, open, vdi};

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
        "a block nowhere",
        |b| be32(b, 1536, 0xffff_fff0),
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
];

#[test]
fn vhds_that_lie_are_refused() {
    let good = Vhd::new(false, &[Data, Hole, Data], 65536, 3 * 65536);
    judge_all(&good.build(), VHD);
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

const VDI: &[Case] = &[
    (
        "version 2",
        |b| le32(b, 68, 0x2_0000),
        Reason::UnsupportedVersion,
    ),
    ("type 9", |b| le32(b, 76, 9), Reason::BadHeader),
    ("a difference", |b| le32(b, 76, 4), Reason::Differencing),
    ("an undo image", |b| le32(b, 76, 3), Reason::Differencing),
    ("a parent's UUID", |b| b[445] = 1, Reason::Differencing),
    ("an unaligned map", |b| le32(b, 340, 513), Reason::Unaligned),
    ("a map in the header", |b| le32(b, 340, 0), Reason::Overlap),
    (
        "a map nowhere",
        |b| le32(b, 340, 0xffff_fe00),
        Reason::BeyondEnd,
    ),
    ("data in the map", |b| le32(b, 344, 512), Reason::Overlap),
    ("unaligned data", |b| le32(b, 344, 1025), Reason::Unaligned),
    ("sectors of 0 bytes", |b| le32(b, 360, 0), Reason::BadHeader),
    (
        "2^64 - 1 bytes",
        |b| le64(b, 368, u64::MAX),
        Reason::VirtualSize,
    ),
    (
        "larger than its map",
        |b| le64(b, 368, 1 << 30),
        Reason::TableSize,
    ),
    (
        "blocks of 0 bytes",
        |b| le32(b, 376, 0),
        Reason::ClusterSize,
    ),
    (
        "blocks of 3 bytes",
        |b| le32(b, 376, 3),
        Reason::ClusterSize,
    ),
    (
        "blocks of 2 GiB",
        |b| le32(b, 376, 1 << 31),
        Reason::ClusterSize,
    ),
    (
        "a map of 16 GiB",
        |b| le32(b, 384, u32::MAX),
        Reason::BeyondEnd,
    ),
    (
        "more blocks than the map has",
        |b| le32(b, 388, 100),
        Reason::BadHeader,
    ),
    (
        "a block that there is not",
        |b| le32(b, 512, 3),
        Reason::BadEntry,
    ),
    (
        "a block just below the marks",
        |b| le32(b, 512, 0xffff_fffd),
        Reason::BadEntry,
    ),
    (
        "cut before the data",
        |b| b.truncate(1024),
        Reason::BeyondEnd,
    ),
    ("half a header", |b| b.truncate(200), Reason::Truncated),
];

#[test]
fn vdis_that_lie_are_refused() {
    judge_all(
        &vdi::build(false, &[Data, Zero, Data, Data], 65536, 4 * 65536),
        VDI,
    );
}

/// The directory is at sector 5, the one table behind it, and grains begin at sector 128.
const VMDK: &[Case] = &[
    ("version 9", |b| le32(b, 4, 9), Reason::UnsupportedVersion),
    ("2^63 sectors", |b| le64(b, 12, 1 << 63), Reason::BadHeader),
    ("2^50 bytes", |b| le64(b, 12, 1 << 41), Reason::VirtualSize),
    (
        "grains of 0 sectors",
        |b| le64(b, 20, 0),
        Reason::ClusterSize,
    ),
    (
        "grains of 3 sectors",
        |b| le64(b, 20, 3),
        Reason::ClusterSize,
    ),
    (
        "grains of 2^62 sectors",
        |b| le64(b, 20, 1 << 62),
        Reason::ClusterSize,
    ),
    (
        "a descriptor of 2^40 sectors",
        |b| le64(b, 36, 1 << 40),
        Reason::BeyondEnd,
    ),
    (
        "a descriptor of 2^63 sectors",
        |b| le64(b, 36, 1 << 63),
        Reason::BeyondEnd,
    ),
    (
        "a descriptor of 100 KiB",
        |b| le64(b, 36, 200),
        Reason::BadDescriptor,
    ),
    ("tables of 0 entries", |b| le32(b, 44, 0), Reason::TableSize),
    (
        "tables of 2^32 - 1 entries",
        |b| le32(b, 44, u32::MAX),
        Reason::TableSize,
    ),
    (
        "a directory nowhere",
        |b| le64(b, 56, 1 << 40),
        Reason::BeyondEnd,
    ),
    (
        "a directory at 2^64 - 2",
        |b| le64(b, 56, u64::MAX - 1),
        Reason::BeyondEnd,
    ),
    (
        "a directory in the header",
        |b| le64(b, 56, 0),
        Reason::Overlap,
    ),
    ("not closed", |b| b[72] = 1, Reason::DirtyBit),
    ("taken for text", |b| b[75] = b'\n', Reason::BadHeader),
    (
        "compressed without markers",
        |b| b[10] |= 1,
        Reason::UnsupportedCompression,
    ),
    (
        "a table nowhere",
        |b| le32(b, 2560, u32::MAX),
        Reason::BeyondEnd,
    ),
    (
        "a table in the descriptor",
        |b| le32(b, 2560, 1),
        Reason::Overlap,
    ),
    (
        "a table in the directory",
        |b| le32(b, 2560, 5),
        Reason::Overlap,
    ),
    (
        "a grain nowhere",
        |b| le32(b, 3072, u32::MAX),
        Reason::BeyondEnd,
    ),
    (
        "a grain in the descriptor",
        |b| le32(b, 3072, 2),
        Reason::Overlap,
    ),
    ("half a header", |b| b.truncate(256), Reason::Truncated),
];

const STREAM: &[Case] = &[
    (
        "no footer",
        |b| b.truncate(b.len() - 1024),
        Reason::NoFooter,
    ),
    (
        "no end",
        |b| *b.last_chunk_mut::<512>().unwrap() = [1; 512],
        Reason::BadMarker,
    ),
    (
        "copies that differ",
        |b| le64(b, 12, 1 << 20),
        Reason::CopiesDiffer,
    ),
    (
        "a footer without a directory",
        |b| {
            let at = b.len() - 1024;
            le64(b, at + 56, u64::MAX);
        },
        Reason::BadHeader,
    ),
    (
        "method 2",
        |b| {
            let at = b.len() - 1024;
            le16(b, at + 77, 2);
            le16(b, 77, 2);
        },
        Reason::UnsupportedCompression,
    ),
];

#[test]
fn vmdks_that_lie_are_refused() {
    judge_all(
        &Vmdk::new(false, &[Data, Hole, Zero, Data], 65536, 4 << 16).build(),
        VMDK,
    );
    judge_all(
        &Vmdk::new(true, &[Data, Hole, Zero, Data], 65536, 4 << 16).build(),
        STREAM,
    );
}

#[test]
fn markers_of_compressed_grains_that_lie_are_refused() {
    let good = Vmdk::new(true, &[Data, Data], 65536, 2 << 16).build();
    let first = 128 * 512;
    for (name, at, value) in [
        ("another grain's", 0, 128_u32),
        ("no bytes", 8, 0),
        ("more bytes than up to the next grain", 8, 70_000),
        ("4 GiB", 8, u32::MAX),
    ] {
        let bytes = spoilt(&good, |b| le32(b, first + at, value));
        let error = disk(&bytes, &Options::default()).unwrap_err();
        assert_eq!(error.reason(), Some(Reason::BadMarker), "{name}");
    }
    let compressed = Compressed {
        offset: 0,
        length: 5,
        codec: Codec::Zlib,
        least: 512,
        size: 512,
        skip: 0,
        frame: Frame::Grain { sector: 0 },
    };
    assert!(compressed.payload(&[0; 5]).is_err());
}

/// Changes something that a checksum covers, and seals it.
fn sealed(bytes: &mut Vec<u8>, at: usize, length: usize, change: impl Fn(&mut Vec<u8>)) {
    change(bytes);
    vhdx::seal(bytes, at, length);
}

fn headers(bytes: &mut Vec<u8>, change: impl Fn(&mut Vec<u8>, usize)) {
    for at in [64 << 10, 128 << 10] {
        sealed(bytes, at, 4096, |b| change(b, at));
    }
}

fn regions(bytes: &mut Vec<u8>, change: impl Fn(&mut Vec<u8>, usize)) {
    for at in [192 << 10, 256 << 10] {
        sealed(bytes, at, 64 << 10, |b| change(b, at));
    }
}

const TABLE: usize = 2 << 20;
const ITEM: usize = TABLE + (64 << 10);
const BAT: usize = 3 << 20;
const MIB: u64 = 1 << 20;

const VHDX: &[Case] = &[
    (
        "both headers wrong",
        |b| (b[0x1_0100], b[0x2_0100]) = (1, 1),
        Reason::BadChecksum,
    ),
    (
        "no header",
        |b| (b[0x1_0000], b[0x2_0000]) = (0, 0),
        Reason::BadHeader,
    ),
    (
        "version 2",
        |b| headers(b, |b, at| le16(b, at + 66, 2)),
        Reason::UnsupportedVersion,
    ),
    (
        "an unaligned log",
        |b| headers(b, |b, at| le64(b, at + 72, 4096)),
        Reason::Unaligned,
    ),
    (
        "a log of 0 bytes",
        |b| headers(b, |b, at| le32(b, at + 68, 0)),
        Reason::Overlap,
    ),
    (
        "a log at 2^64 - 1 MiB",
        |b| headers(b, |b, at| le64(b, at + 72, !0 << 20)),
        Reason::BeyondEnd,
    ),
    (
        "a log of 4 GiB",
        |b| {
            headers(b, |b, at| {
                put(b, at + 48, &[1; 16]);
                le32(b, at + 68, 0xfff0_0000);
            });
        },
        Reason::LogTooLong,
    ),
    (
        "a log without entries",
        |b| headers(b, |b, at| b[at + 48] = 1),
        Reason::BadLog,
    ),
    (
        "both region tables wrong",
        |b| (b[0x3_0100], b[0x4_0100]) = (1, 1),
        Reason::BadChecksum,
    ),
    (
        "2^32 - 1 regions",
        |b| regions(b, |b, at| le32(b, at + 8, u32::MAX)),
        Reason::BadHeader,
    ),
    (
        "no BAT",
        |b| regions(b, |b, at| b[at + 16] = 0),
        Reason::UnknownFeature,
    ),
    (
        "no regions",
        |b| regions(b, |b, at| le32(b, at + 8, 0)),
        Reason::BadHeader,
    ),
    (
        "two BATs",
        |b| {
            regions(b, |b, at| {
                le32(b, at + 8, 3);
                let bat = b[at + 16..at + 48].to_vec();
                put(b, at + 80, &bat);
            });
        },
        Reason::BadHeader,
    ),
    (
        "a BAT of 4 GiB",
        |b| regions(b, |b, at| le32(b, at + 40, 0xfff0_0000)),
        Reason::BeyondEnd,
    ),
    (
        "an unaligned BAT",
        |b| regions(b, |b, at| le64(b, at + 32, BAT as u64 + 1)),
        Reason::Unaligned,
    ),
    (
        "a BAT in the metadata",
        |b| regions(b, |b, at| le64(b, at + 32, 2 * MIB)),
        Reason::Overlap,
    ),
    (
        "a BAT in the log",
        |b| regions(b, |b, at| le64(b, at + 32, MIB)),
        Reason::Overlap,
    ),
    (
        "a BAT in the headers",
        |b| regions(b, |b, at| le64(b, at + 32, 0)),
        Reason::Overlap,
    ),
    ("no metadata table", |b| b[TABLE] = 0, Reason::BadHeader),
    (
        "65,535 items",
        |b| le16(b, TABLE + 10, u16::MAX),
        Reason::BadHeader,
    ),
    ("no size", |b| le16(b, TABLE + 10, 1), Reason::BadHeader),
    (
        "two sizes",
        |b| b.copy_within(TABLE + 64..TABLE + 80, TABLE + 96),
        Reason::BadHeader,
    ),
    (
        "an unknown item",
        |b| b[TABLE + 96] ^= 1,
        Reason::UnknownFeature,
    ),
    (
        "an item nowhere",
        |b| le32(b, TABLE + 80, 0xffff_0000),
        Reason::BeyondEnd,
    ),
    (
        "an item of 4 GiB",
        |b| le32(b, TABLE + 84, u32::MAX),
        Reason::BeyondEnd,
    ),
    (
        "an item in the table",
        |b| le32(b, TABLE + 80, 32),
        Reason::BeyondEnd,
    ),
    (
        "an item of 4 bytes",
        |b| le32(b, TABLE + 84, 4),
        Reason::BadHeader,
    ),
    (
        "blocks of 0 bytes",
        |b| le32(b, ITEM, 0),
        Reason::ClusterSize,
    ),
    (
        "blocks of 3 MiB",
        |b| le32(b, ITEM, 3 << 20),
        Reason::ClusterSize,
    ),
    (
        "blocks of 512 MiB",
        |b| le32(b, ITEM, 512 << 20),
        Reason::ClusterSize,
    ),
    ("a parent", |b| le32(b, ITEM + 4, 2), Reason::Differencing),
    (
        "2^63 bytes",
        |b| le64(b, ITEM + 8, 1 << 63),
        Reason::VirtualSize,
    ),
    (
        "half a sector",
        |b| le64(b, ITEM + 8, 3 * MIB - 256),
        Reason::BadHeader,
    ),
    (
        "larger than its BAT",
        |b| le64(b, ITEM + 8, 1 << 40),
        Reason::TableSize,
    ),
    (
        "sectors of 1024 bytes",
        |b| le32(b, ITEM + 16, 1024),
        Reason::BadHeader,
    ),
    (
        "a block that is there in part",
        |b| le64(b, BAT, (4 * MIB) | 7),
        Reason::BadEntry,
    ),
    (
        "a block of state 5",
        |b| le64(b, BAT, (4 * MIB) | 5),
        Reason::BadEntry,
    ),
    (
        "reserved bits",
        |b| le64(b, BAT, (4 * MIB) | 6 | 8),
        Reason::ReservedBits,
    ),
    (
        "a block nowhere",
        |b| le64(b, BAT, 1 << 50 | 6),
        Reason::BeyondEnd,
    ),
    (
        "a block at the end of all",
        |b| le64(b, BAT, !0 << 20 | 6),
        Reason::BeyondEnd,
    ),
    (
        "a block in the headers",
        |b| le64(b, BAT, 6),
        Reason::Overlap,
    ),
    (
        "a block in the BAT",
        |b| le64(b, BAT, (3 * MIB) | 6),
        Reason::Overlap,
    ),
    ("half a header", |b| b.truncate(100_000), Reason::Truncated),
];

#[test]
fn vhdxs_that_lie_are_refused() {
    let good = Vhdx::new(&[Data, Hole, Data], 1 << 20, 3 << 20);
    judge_all(&good.build(), VHDX);
    // One copy of each is enough.
    let half = spoilt(&good.build(), |b| (b[0x1_0100], b[0x3_0100]) = (1, 1));
    judge("one copy", &half, &Options::default(), None);
    assert!(disk(&half, &Options::default()).unwrap() == good.disk);
}

#[test]
fn logs_that_lie_are_refused() {
    let mut image = Vhdx::new(&[Data, Hole, Data], 1 << 20, 3 << 20);
    image.bat_in_log = true;
    let good = image.build();
    let log = 1 << 20;
    // The entries are at 0 and 8192 of the log; each has a sector of descriptors, one of data.
    let second = log + 8192;
    let entry = |b: &mut Vec<u8>, change: &dyn Fn(&mut Vec<u8>)| {
        sealed(b, second, 8192, change);
    };
    let judge = |name, change: &dyn Fn(&mut Vec<u8>), reason| {
        judge(
            name,
            &spoilt(&good, |b| change(b)),
            &Options::default(),
            Some(reason),
        );
    };
    judge(
        "another sequence in the data",
        &|b| entry(b, &|b| b[second + 4096 + 4] = 1),
        Reason::BadLog,
    );
    judge(
        "no data",
        &|b| entry(b, &|b| b[second + 4096] = 0),
        Reason::BadLog,
    );
    judge(
        "an unaligned target",
        &|b| entry(b, &|b| b[second + 80] = 1),
        Reason::BadLog,
    );
    judge(
        "a target in the headers",
        &|b| entry(b, &|b| le64(b, second + 80, 4096)),
        Reason::BadLog,
    );
    judge(
        "an unknown descriptor",
        &|b| entry(b, &|b| b[second + 64] = 0),
        Reason::BadLog,
    );
    judge(
        "a longer file",
        &|b| entry(b, &|b| le64(b, second + 48, 1 << 40)),
        Reason::Truncated,
    );
    // Without its last entry the log ends with the one before, whose BAT makes no sense.
    judge(
        "a wrong checksum",
        &|b| b[second + 100] ^= 1,
        Reason::ReservedBits,
    );
    judge(
        "2^32 - 1 descriptors",
        &|b| entry(b, &|b| le32(b, second + 24, u32::MAX)),
        Reason::ReservedBits,
    );
    judge(
        "4 GiB",
        &|b| entry(b, &|b| le32(b, second + 8, 0xffff_f000)),
        Reason::ReservedBits,
    );
    // An entry that says it zeroes everything: the BAT is gone, and no block was.
    let zeroes = |b: &mut Vec<u8>| {
        entry(b, &|b| {
            put(b, second + 64, b"zero");
            le64(b, second + 72, MIB);
        });
    };
    let bytes = spoilt(&good, zeroes);
    let read = disk(&bytes, &Options::default()).unwrap();
    assert!(read.iter().all(|byte| *byte == 0));
    judge(
        "zeroes of half a sector",
        &|b| {
            entry(b, &|b| {
                put(b, second + 64, b"zero");
                le64(b, second + 72, 100);
            });
        },
        Reason::BadLog,
    );
    // The last one points before the first that is whole.
    judge(
        "a tail that is gone",
        &|b| b[log + 100] ^= 1,
        Reason::BadLog,
    );
}

#[test]
fn a_log_that_changes_a_data_block_is_refused_where_the_block_is_read() {
    let good = Vhdx::new(&[Hole, Data], 1 << 20, 2 << 20).build();
    let bytes = spoilt(&good, |b| {
        headers(b, |b, at| put(b, at + 48, &vhdx::LOG_GUID));
        vhdx::log_entry(b, 0, 0, 1, &[(4 << 20, &[0x11; 4096])]);
    });
    judge(
        "data",
        &bytes,
        &Options::default(),
        Some(Reason::LogTouchesData),
    );
    let mut opened = open(&bytes).unwrap();
    assert!(opened.map(&mut &bytes[..], 0).is_ok());
}

#[test]
fn a_full_log_of_entries_that_lead_nowhere_is_gone_over_in_bounded_time() {
    let mut image = Vhdx::new(&[Data], 1 << 20, 1 << 20);
    image.bat_in_log = true;
    let mut bytes = image.build();
    let sector = [0x11; 4096];
    for index in 0..128 {
        let number = 100 + index as u64;
        // Each follows the one before, and all point at an entry that is not there.
        vhdx::log_entry(
            &mut bytes,
            index * 8192,
            4096,
            number,
            &[(5 << 20, &sector)],
        );
    }
    judge("no tail", &bytes, &Options::default(), Some(Reason::BadLog));
}

#[test]
fn a_ring_of_entries_is_replayed_across_its_end() {
    let mut image = Vhdx::new(&[Data, Hole], 1 << 20, 2 << 20);
    image.bat_in_log = true;
    let good = image.build();
    let bat = {
        // What the second entry of the log writes, as a reader sees it.
        let log = 1 << 20;
        let mut bat = good[log + 8192 + 4096..log + 8192 + 8192].to_vec();
        bat[..8].copy_from_slice(&good[log + 8192 + 72..log + 8192 + 80]);
        bat[4092..].copy_from_slice(&good[log + 8192 + 68..log + 8192 + 72]);
        bat
    };
    let bytes = spoilt(&good, |b| {
        put(b, 1 << 20, &[0; 16384]);
        let last = (1 << 20) - 8192;
        vhdx::log_entry(b, last, last as u32, 7, &[(3 << 20, &[0xdd; 4096])]);
        vhdx::log_entry(b, 0, last as u32, 8, &[(3 << 20, &bat)]);
    });
    judge("a ring", &bytes, &Options::default(), None);
    assert!(disk(&bytes, &Options::default()).unwrap() == image.disk);
    let mut opened = open(&bytes).unwrap();
    let hole = opened.map(&mut &bytes[..], 1 << 20).unwrap();
    assert_eq!(hole.content, Content::Zero);
}

#[test]
fn a_log_of_more_changes_than_are_kept_is_refused() {
    let good = Vhdx::new(&[Hole], 1 << 20, 1 << 20).build();
    for (entries, expected) in [(32, None), (33, Some(Reason::LogTooLong))] {
        let bytes = spoilt(&good, |b| {
            headers(b, |b, at| put(b, at + 48, &vhdx::LOG_GUID));
            for index in 0..entries {
                let mut entry = vec![0; 4096];
                put(&mut entry, 0, b"loge");
                le32(&mut entry, 8, 4096);
                le64(&mut entry, 16, index + 1);
                le32(&mut entry, 24, 126);
                put(&mut entry, 32, &vhdx::LOG_GUID);
                for zero in 0..126 {
                    let at = 64 + zero * 32;
                    put(&mut entry, at, b"zero");
                    le64(&mut entry, at + 8, 4096);
                    let sector = index * 126 + zero as u64;
                    le64(&mut entry, at + 16, 5 * MIB + sector * 4096);
                    le64(&mut entry, at + 24, index + 1);
                }
                vhdx::seal(&mut entry, 0, 4096);
                put(b, (1 << 20) + index as usize * 4096, &entry);
            }
        });
        judge("many changes", &bytes, &Options::default(), expected);
    }
}

#[test]
fn a_sector_that_changes_often_is_one_change() {
    let mut image = Vhdx::new(&[Data, Hole], 1 << 20, 2 << 20);
    image.bat_in_log = true;
    let good = image.build();
    let log = 1 << 20;
    let bytes = spoilt(&good, |b| {
        // The entry that writes the BAT goes behind 100 that write nonsense.
        let last = b[log + 8192..log + 16384].to_vec();
        for index in 0..100 {
            vhdx::log_entry(
                b,
                index * 8192,
                0,
                1 + index as u64,
                &[(3 << 20, &[0xdd; 4096])],
            );
        }
        put(b, log + 100 * 8192, &last);
        let at = log + 100 * 8192;
        sealed(b, at, 8192, |b| {
            le64(b, at + 16, 101);
            le64(b, at + 64 + 24, 101);
            le32(b, at + 8188, 101);
        });
    });
    // The checksum is over the entry alone, wherever it lies.
    let bytes = spoilt(&bytes, |b| {
        let at = log + 100 * 8192;
        let mut entry = b[at..at + 8192].to_vec();
        vhdx::seal(&mut entry, 0, 8192);
        put(b, at, &entry);
    });
    judge("a busy BAT", &bytes, &Options::default(), None);
    assert!(disk(&bytes, &Options::default()).unwrap() == image.disk);
    let mut source = crate::support::Counting::new(&bytes);
    let (mut image, _) = Image::open(&mut source, &Options::default()).unwrap();
    let before = source.reads;
    image.map(&mut source, 0).unwrap();
    assert!(
        source.reads - before <= 2,
        "{} reads",
        source.reads - before
    );
}

/// A file of any length: some bytes, and the same byte from there on.
struct Endless<'a> {
    start: &'a [u8],
    rest: u8,
    size: u64,
}

impl ReadAt for Endless<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        for (at, byte) in (offset..).zip(buffer) {
            let stored = self.start.get(at as usize);
            *byte = stored.copied().unwrap_or(self.rest);
        }
        Ok(())
    }
}

#[test]
fn places_behind_the_largest_offset_are_behind_the_end() {
    let mut header = vdi::build(false, &[Hole], 4096, 4096);
    header.truncate(512);
    // The most that each field can say, in a file that has room for such a map.
    le32(&mut header, 344, 0xffff_fe00);
    le32(&mut header, 380, 0xffff_fe00);
    le32(&mut header, 376, 256 << 20);
    le64(&mut header, 368, 64 << 40);
    le32(&mut header, 384, (0xffff_fe00 - 512) / 4);
    le32(&mut header, 388, (0xffff_fe00 - 512) / 4);
    let mut source = Endless {
        start: &header,
        rest: 0x40,
        size: 1 << 36,
    };
    let (mut image, _) = Image::open(&mut source, &Options::default()).unwrap();
    let error = image.map(&mut source, 0).unwrap_err();
    assert_eq!(error.reason(), Some(Reason::BadEntry));
    // The largest block that there may be.
    source.rest = 0x3f;
    let (mut image, _) = Image::open(&mut source, &Options::default()).unwrap();
    let error = image.map(&mut source, 0).unwrap_err();
    assert_eq!(error.reason(), Some(Reason::BeyondEnd));
}

#[test]
fn what_cannot_be_read_on_is_refused_even_if_it_is_allowed() {
    let good = Vhd::new(true, &[Data], 65536, 65536);
    // The copy at the start of a fixed disk is not where one belongs.
    let mut bytes = good.footer();
    bytes.extend(&good.disk);
    let options = allowing(&[Reason::NoFooter]);
    let error = disk(&bytes, &options).unwrap_err();
    assert_eq!(error.reason(), Some(Reason::NoFooter));
    // Without its last footer a dynamic disk is read by the first, if that is allowed.
    let good = Vhd::new(false, &[Data, Hole], 65536, 131_072);
    let bytes = spoilt(&good.build(), |b| b.truncate(b.len() - 512));
    assert!(disk(&bytes, &options).unwrap() == good.disk);
}
