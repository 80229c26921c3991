//! qcow2 images whose headers lie.

use guest_formats::Reason;

use super::{Case, judge_all, reasons, spoilt};
use crate::support::Put::{Compressed, Data, Hole, Zero};
use crate::support::bytes::{be32, be64, put};
use crate::support::qcow2::{Built, Qcow2};
use crate::support::{allowing, disk, info};

/// Clusters of 64 KiB: the header, the refcount table, the L1 table at 2, an L2 table at 3, data.
pub(super) fn good() -> Built {
    let built = Qcow2::new(16, &[Data, Compressed, Data, Hole, Zero]).build();
    assert_eq!((built.l1, built.first_l2), (L1, L2));
    built
}

pub(super) const L1: usize = 0x2_0000;
pub(super) const L2: usize = 0x3_0000;
/// Far behind the end of the file, aligned.
pub(super) const FAR: u64 = 1 << 40;

const HEADERS: &[Case] = &[
    ("version 4", |b| be32(b, 4, 4), Reason::UnsupportedVersion),
    ("version 0", |b| be32(b, 4, 0), Reason::UnsupportedVersion),
    (
        "clusters of 256 bytes",
        |b| be32(b, 20, 8),
        Reason::ClusterSize,
    ),
    (
        "clusters of 4 MiB",
        |b| be32(b, 20, 22),
        Reason::ClusterSize,
    ),
    (
        "clusters of 1 byte",
        |b| be32(b, 20, 0),
        Reason::ClusterSize,
    ),
    (
        "a shift of 2^32 - 1",
        |b| be32(b, 20, u32::MAX),
        Reason::ClusterSize,
    ),
    (
        "a disk of 2^63 bytes",
        |b| be64(b, 24, 1 << 63),
        Reason::VirtualSize,
    ),
    (
        "a disk of 2^64 - 1 bytes",
        |b| be64(b, 24, u64::MAX),
        Reason::TableSize,
    ),
    (
        "a disk larger than its L1 table",
        |b| be64(b, 24, 1 << 30),
        Reason::TableSize,
    ),
    ("encrypted by AES", |b| be32(b, 32, 1), Reason::Encrypted),
    ("encrypted by LUKS", |b| be32(b, 32, 2), Reason::Encrypted),
    (
        "an extension for LUKS without LUKS",
        |b| {
            be32(b, 112, 0x0537_be77);
            be32(b, 116, 16);
        },
        Reason::BadHeader,
    ),
    (
        "an end of extensions that is longer than the header",
        |b| be32(b, 116, 1 << 20),
        Reason::BadHeader,
    ),
    (
        "a raw data file that is none",
        |b| be64(b, 88, 2),
        Reason::BadHeader,
    ),
    (
        "no snapshots at an unaligned place",
        |b| be64(b, 64, 513),
        Reason::Unaligned,
    ),
    (
        "encrypted by method 77",
        |b| be32(b, 32, 77),
        Reason::UnknownFeature,
    ),
    (
        "an L1 table of 2^32 - 1 entries",
        |b| be32(b, 36, u32::MAX),
        Reason::TableSize,
    ),
    (
        "an L1 table of 4 Mi entries",
        |b| be32(b, 36, 1 << 22),
        Reason::BeyondEnd,
    ),
    ("no L1 table", |b| be32(b, 36, 0), Reason::TableSize),
    (
        "an unaligned L1 table",
        |b| be64(b, 40, 0x2_0200),
        Reason::Unaligned,
    ),
    (
        "an L1 table behind the end",
        |b| be64(b, 40, FAR),
        Reason::BeyondEnd,
    ),
    (
        "an L1 table at 2^64 - 64 KiB",
        |b| be64(b, 40, 0xffff_ffff_ffff_0000),
        Reason::BeyondEnd,
    ),
    (
        "an L1 table in the header",
        |b| be64(b, 40, 0),
        Reason::Overlap,
    ),
    (
        "an L1 table in the refcounts",
        |b| be64(b, 40, 0x1_0000),
        Reason::Overlap,
    ),
    (
        "an unaligned refcount table",
        |b| be64(b, 48, 0x1_0008),
        Reason::Unaligned,
    ),
    (
        "a refcount table behind the end",
        |b| be64(b, 48, FAR),
        Reason::BeyondEnd,
    ),
    (
        "a refcount table in the header",
        |b| be64(b, 48, 0),
        Reason::Overlap,
    ),
    (
        "a refcount table of 2^32 - 1 clusters",
        |b| be32(b, 56, u32::MAX),
        Reason::TableSize,
    ),
    ("no refcount table", |b| be32(b, 56, 0), Reason::TableSize),
    (
        "2^32 - 1 snapshots",
        |b| be32(b, 60, u32::MAX),
        Reason::BadSnapshot,
    ),
    (
        "snapshots in the header",
        |b| be32(b, 60, 1),
        Reason::Overlap,
    ),
    (
        "snapshots behind the end",
        |b| {
            be32(b, 60, 1);
            be64(b, 64, FAR);
        },
        Reason::BeyondEnd,
    ),
    (
        "a backing file",
        |b| backing(b, 120, 11),
        Reason::BackingFile,
    ),
    (
        "a name of 4 GiB",
        |b| backing(b, 120, u32::MAX),
        Reason::BadReference,
    ),
    (
        "a name behind the end",
        |b| backing(b, FAR, 11),
        Reason::BadReference,
    ),
    (
        "a name over the header",
        |b| backing(b, 8, 11),
        Reason::BadReference,
    ),
    (
        "a name that wraps",
        |b| backing(b, u64::MAX - 4, 11),
        Reason::BadReference,
    ),
    ("the dirty bit", |b| be64(b, 72, 1), Reason::DirtyBit),
    ("the corrupt bit", |b| be64(b, 72, 2), Reason::CorruptBit),
    (
        "an external data file",
        |b| be64(b, 72, 4),
        Reason::DataFile,
    ),
    (
        "incompatible feature 5",
        |b| be64(b, 72, 1 << 5),
        Reason::UnknownFeature,
    ),
    (
        "incompatible feature 63",
        |b| be64(b, 72, 1 << 63),
        Reason::UnknownFeature,
    ),
    (
        "a compression type without its bit",
        |b| b[104] = 1,
        Reason::BadHeader,
    ),
    (
        "a compression bit without its type",
        |b| be64(b, 72, 8),
        Reason::BadHeader,
    ),
    (
        "compression type 2",
        |b| {
            be64(b, 72, 8);
            b[104] = 2;
        },
        Reason::UnsupportedCompression,
    ),
    (
        "refcounts of 128 bits",
        |b| be32(b, 96, 7),
        Reason::BadHeader,
    ),
    (
        "a header of 4 GiB",
        |b| be32(b, 100, u32::MAX),
        Reason::BadHeader,
    ),
    (
        "a header of 72 bytes",
        |b| be32(b, 100, 72),
        Reason::BadHeader,
    ),
    (
        "the name of a data file",
        |b| extension(b, 112, 0x4441_5441, 8),
        Reason::DataFile,
    ),
    (
        "an extension of 4 GiB",
        |b| extension(b, 112, 0x1234, u32::MAX),
        Reason::BadHeader,
    ),
    (
        "thousands of extensions",
        |b| {
            (112..0x1_0000)
                .step_by(8)
                .for_each(|at| extension(b, at, 0x1234, 0))
        },
        Reason::BadHeader,
    ),
    ("half a header", |b| b.truncate(80), Reason::Truncated),
    (
        "a header of 71 bytes",
        |b| b.truncate(71),
        Reason::Truncated,
    ),
];

fn backing(bytes: &mut Vec<u8>, at: u64, length: u32) {
    be64(bytes, 8, at);
    be32(bytes, 16, length);
    put(bytes, 120, b"/etc/passwd");
}

fn extension(bytes: &mut Vec<u8>, at: usize, kind: u32, length: u32) {
    be32(bytes, at, kind);
    be32(bytes, at + 4, length);
}

#[test]
fn headers_that_lie_are_refused() {
    judge_all(&good().bytes, HEADERS);
}

#[test]
fn what_a_user_allows_is_read() {
    let good = good();
    let dirty = spoilt(&good.bytes, |b| be64(b, 72, 3));
    let options = allowing(&[Reason::DirtyBit, Reason::CorruptBit]);
    assert_eq!(
        reasons(&dirty, &options),
        [Reason::DirtyBit, Reason::CorruptBit]
    );
    assert!(disk(&dirty, &options).is_ok());
    let encrypted = spoilt(&good.bytes, |b| be32(b, 32, 1));
    let error = disk(&encrypted, &allowing(&[Reason::Encrypted])).unwrap_err();
    assert_eq!(error.reason(), Some(Reason::Encrypted));
}

#[test]
fn names_are_kept_as_they_are_and_within_bounds() {
    let good = good();
    let name = [0xff; 1000];
    let bytes = spoilt(&good.bytes, |b| {
        backing(b, 120, 1000);
        put(b, 120, &name);
    });
    let report = info(&bytes);
    assert_eq!(report.references[0].name, name);
    // 60 formats of 1,000 bytes each: as many as are kept.
    let bytes = spoilt(&good.bytes, |b| {
        (0..60).for_each(|index| extension(b, 112 + index * 1008, 0xe279_2aca, 1000));
    });
    let report = info(&bytes);
    assert_eq!(report.references.len(), guest_formats::MOST_REFERENCES);
}
