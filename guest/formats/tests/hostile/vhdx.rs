//! VHDX images that lie, but for their logs.

use guest_formats::{Options, Reason};

use super::{Case, judge, judge_all, spoilt};
use crate::support::Put::{Data, Hole};
use crate::support::bytes::{le16, le32, le64, put};
use crate::support::disk;
use crate::support::vhdx::{self, Vhdx};

/// Changes something that a checksum covers, and seals it.
pub(super) fn sealed(bytes: &mut Vec<u8>, at: usize, length: usize, change: impl Fn(&mut Vec<u8>)) {
    change(bytes);
    vhdx::seal(bytes, at, length);
}

pub(super) fn headers(bytes: &mut Vec<u8>, change: impl Fn(&mut Vec<u8>, usize)) {
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
pub(super) const MIB: u64 = 1 << 20;

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
        "a log of half a mebibyte in the newer header",
        |b| sealed(b, 128 << 10, 4096, |b| le32(b, (128 << 10) + 68, 512 << 10)),
        Reason::Unaligned,
    ),
    (
        "a log of version 7 in the newer header",
        |b| {
            sealed(b, 128 << 10, 4096, |b| {
                put(b, (128 << 10) + 48, &[1; 16]);
                le16(b, (128 << 10) + 64, 7);
            });
        },
        Reason::UnsupportedVersion,
    ),
    (
        "version 2 in the newer header",
        |b| sealed(b, 128 << 10, 4096, |b| le16(b, (128 << 10) + 66, 2)),
        Reason::UnsupportedVersion,
    ),
    (
        "headers of one number that differ",
        |b| {
            headers(b, |b, at| le64(b, at + 8, 7));
            sealed(b, 128 << 10, 4096, |b| le64(b, (128 << 10) + 72, 8 * MIB));
        },
        Reason::CopiesDiffer,
    ),
    (
        "the first region table wrong",
        |b| b[0x3_0000] = b'X',
        Reason::BadChecksum,
    ),
    (
        "the second region table wrong",
        |b| b[0x4_ffff] = 1,
        Reason::BadChecksum,
    ),
    (
        "region tables that differ",
        |b| {
            sealed(b, 256 << 10, 64 << 10, |b| {
                le64(b, (256 << 10) + 32, 8 * MIB);
            });
            b.resize(9 << 20, 0);
        },
        Reason::CopiesDiffer,
    ),
    (
        "a second region table without regions",
        |b| sealed(b, 256 << 10, 64 << 10, |b| le32(b, (256 << 10) + 8, 0)),
        Reason::BadHeader,
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
        "no size of physical sectors",
        |b| {
            b.copy_within(TABLE + 160..TABLE + 192, TABLE + 128);
            le16(b, TABLE + 10, 4);
        },
        Reason::BadHeader,
    ),
    ("no id", |b| le16(b, TABLE + 10, 4), Reason::BadHeader),
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
        Reason::BadHeader,
    ),
    ("65 TiB", |b| le64(b, ITEM + 8, 65 << 40), Reason::BadHeader),
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
        "a block that the file ends in",
        |b| b.truncate(b.len() - 1),
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
    // One header is enough, and so are two of one number that are the same.
    type Change = fn(&mut Vec<u8>);
    let changes: [Change; 3] = [
        |b| b[0x1_0100] = 1,
        |b| b[0x2_0100] = 1,
        |b| headers(b, |b, at| le64(b, at + 8, 7)),
    ];
    for change in changes {
        let bytes = spoilt(&good.build(), change);
        judge("headers", &bytes, &Options::default(), None);
        assert!(disk(&bytes, &Options::default()).unwrap() == good.disk);
    }
}
