//! VMDK images that lie.

use guest_formats::{Codec, Compressed, Marker, Options, Reason};

use super::{Case, judge, judge_all, judge_check, spoilt};
use crate::support::Put::{Data, Hole, Zero};
use crate::support::bytes::{le16, le32, le64, put};
use crate::support::vmdk::{Vmdk, descriptor};
use crate::support::{disk, pattern};

/// The directory is at sector 5, the one table behind it, and grains begin at sector 128.
const VMDK: &[Case] = &[
    ("version 9", |b| le32(b, 4, 9), Reason::UnsupportedVersion),
    ("2^63 sectors", |b| le64(b, 12, 1 << 63), Reason::BadHeader),
    ("2^50 bytes", |b| le64(b, 12, 1 << 41), Reason::VirtualSize),
    (
        "a disk of no bytes, with a descriptor",
        |b| le64(b, 12, 0),
        Reason::ExternalExtent,
    ),
    (
        "a disk of no bytes, with a descriptor and no directory",
        |b| {
            le64(b, 12, 0);
            le64(b, 56, 0);
        },
        Reason::ExternalExtent,
    ),
    (
        "a disk smaller than its descriptor says",
        |b| le64(b, 12, 3 * 128),
        Reason::BadHeader,
    ),
    (
        "a disk larger than its descriptor says",
        |b| le64(b, 12, 4 * 128 + 1),
        Reason::BadHeader,
    ),
    (
        "an extent without a size",
        |b| put(b, 512, b"parentCID=ffffffff\nRW x SPARSE \"disk.vmdk\"\n\0"),
        Reason::BadHeader,
    ),
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
        |b| {
            le64(b, 28, 129);
            le64(b, 36, 200);
        },
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
    (
        "a directory in the descriptor",
        |b| le64(b, 56, 4),
        Reason::Overlap,
    ),
    (
        "a second directory nowhere",
        |b| second_directory(b, 1 << 40),
        Reason::BeyondEnd,
    ),
    (
        "a second directory in the first",
        |b| second_directory(b, 5),
        Reason::Overlap,
    ),
    (
        "a grain in the second directory",
        |b| second_directory(b, 128 + 127),
        Reason::Overlap,
    ),
    (
        "more metadata than there are bytes",
        |b| le64(b, 64, b.len() as u64 / 512 + 1),
        Reason::BeyondEnd,
    ),
    ("not closed", |b| b[72] = 1, Reason::DirtyBit),
    ("taken for text", |b| b[75] = b'\n', Reason::BadHeader),
    (
        "a method without compression",
        |b| le16(b, 77, 1),
        Reason::BadHeader,
    ),
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
    (
        "a grain that the file ends in",
        |b| b.truncate(b.len() - 1),
        Reason::BeyondEnd,
    ),
    ("half a header", |b| b.truncate(256), Reason::Truncated),
    (
        "a descriptor of zeros, as a part of a disk has it",
        |b| b[512..2560].fill(0),
        Reason::FormatNotRead,
    ),
    (
        "no place for a descriptor, as another part of a disk has it",
        |b| {
            le64(b, 28, 0);
            le64(b, 36, 0);
        },
        Reason::FormatNotRead,
    ),
    (
        "a descriptor nowhere that has a length",
        |b| le64(b, 28, 0),
        Reason::FormatNotRead,
    ),
    (
        "a descriptor of no bytes",
        |b| le64(b, 36, 0),
        Reason::FormatNotRead,
    ),
    (
        "a descriptor of noise",
        |b| put(b, 512, &pattern(1, 2048)),
        Reason::BadDescriptor,
    ),
    (
        "a descriptor of 65 KiB without an end",
        |b| {
            let sector = b.len() as u64 / 512;
            b.extend(vec![b' '; 65 << 10]);
            le64(b, 28, sector);
            le64(b, 36, 130);
        },
        Reason::BadDescriptor,
    ),
    (
        "a descriptor that says nothing of a parent",
        |b| put(b, 512, b"# Disk DescriptorFile\nversion=1\n\0"),
        Reason::BadDescriptor,
    ),
];

/// Sets the flag for a second grain directory, and its sector.
fn second_directory(bytes: &mut Vec<u8>, sector: u64) {
    bytes[8] |= 2;
    le64(bytes, 48, sector);
}

/// The sector of the table of a stream with one table: behind it lie a marker, the directory, and three
/// sectors with the footer.
fn stream_table(bytes: &[u8]) -> usize {
    bytes.len() / 512 - 3 - 1 - 1 - 4
}

const STREAM: &[Case] = &[
    (
        "a grain in the marker of the footer",
        |b| {
            let (table, marker) = (stream_table(b), b.len() / 512 - 3);
            le32(b, table * 512, marker as u32);
        },
        Reason::Overlap,
    ),
    (
        "a table that ends in the footer",
        |b| {
            let (table, footer) = (stream_table(b), b.len() / 512 - 2);
            le32(b, (table + 5) * 512, footer as u32 - 3);
        },
        Reason::Overlap,
    ),
    (
        "a directory in the footer",
        |b| {
            let footer = b.len() - 1024;
            le64(b, footer + 56, footer as u64 / 512);
        },
        Reason::Overlap,
    ),
    (
        "no footer",
        |b| b.truncate(b.len() - 1024),
        Reason::Truncated,
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
        "no place for a descriptor",
        |b| {
            let at = b.len() - 1024;
            le64(b, 28, 0);
            le64(b, at + 28, 0);
        },
        Reason::FormatNotRead,
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
fn the_header_and_the_descriptor_of_a_vmdk_may_differ_by_less_than_a_grain() {
    for sectors in [3 * 128 + 1, 4 * 128] {
        let mut image = Vmdk::new(false, &[Data, Hole, Zero, Data], 65536, 4 << 16);
        image.descriptor = descriptor(
            "monolithicSparse",
            &format!("RW {sectors} SPARSE \"disk.vmdk\""),
        );
        let name = format!("{sectors} sectors in the descriptor");
        judge(&name, &image.build(), &Options::default(), None);
    }
}

/// An image of one grain with this text in place of its descriptor.
fn described(text: &str) -> Vec<u8> {
    let mut image = Vmdk::new(false, &[Data, Hole], 65536, 2 << 16);
    image.descriptor = text.to_owned();
    image.build()
}

#[test]
fn a_parent_that_only_a_search_finds_makes_a_vmdk_broken() {
    let good = descriptor("monolithicSparse", "RW 256 SPARSE \"disk.vmdk\"");
    let name = "parentFileNameHint=\"/etc/shadow\"\n";
    let long = good.clone() + &" ".repeat(1024 - good.len());
    for (what, bytes) in [
        ("a comment", described(&format!("{good}# {name}"))),
        ("a value", described(&format!("{good}ddb.x = \"{name}"))),
        (
            "an extent's name",
            described(&good.replace("disk.vmdk", "parentFileNameHint=\"x")),
        ),
        ("a longer key", described(&format!("{good}parent{name}"))),
        (
            "behind the descriptor",
            spoilt(&described(&(long + name)), |b| le64(b, 36, 2)),
        ),
        (
            "where the header names none",
            spoilt(&described(&format!("{good}{name}")), |b| {
                let sector = b.len() as u64 / 512;
                b.extend(good.as_bytes());
                b.resize((sector as usize + 4) * 512, 0);
                le64(b, 28, sector);
            }),
        ),
        (
            "a content id in a comment",
            described(&good.replace("version=1", "# CID=12345678")),
        ),
        (
            "a parent's content id in a comment",
            described(&good.replace("version=1", "# parentCID=12345678")),
        ),
    ] {
        judge(
            what,
            &bytes,
            &Options::default(),
            Some(Reason::BadDescriptor),
        );
    }
}

#[test]
fn a_content_id_is_said_once() {
    let good = descriptor("monolithicSparse", "RW 256 SPARSE \"disk.vmdk\"");
    for twice in ["CID=fffffffe\n", "parentCID=ffffffff\n", "cid = 1\n"] {
        let bytes = described(&format!("{good}{twice}"));
        judge(
            twice,
            &bytes,
            &Options::default(),
            Some(Reason::BadDescriptor),
        );
    }
}

#[test]
fn descriptors_that_programs_write_in_other_ways_are_understood() {
    let good = descriptor("monolithicSparse", "RW 256 SPARSE \"disk.vmdk\"");
    let far = spoilt(&described(""), |b| {
        let sector = b.len() as u64 / 512;
        b.extend(good.as_bytes());
        b.resize((sector as usize + 200) * 512, 0);
        le64(b, 28, sector);
        le64(b, 36, 200);
    });
    for (what, bytes) in [
        (
            "runs of blanks",
            described(&good.replace("RW 256 SPARSE \"", "RW  256\t SPARSE  \"")),
        ),
        (
            "an empty name of a parent",
            described(&good.replace("version=1", "version=1\nparentFileNameHint=\"\"")),
        ),
        (
            "the parent's content id before the own",
            described(
                &good
                    .replace("CID=fffffffe\n", "")
                    .replace("parentCID=ffffffff\n", "parentCID=ffffffff\nCID=fffffffe\n"),
            ),
        ),
        (
            "other content ids",
            described(&format!("{good}ddb.nativeParentCID = \"12345678\"\n")),
        ),
        ("100 KiB of room in another place", far),
    ] {
        judge(what, &bytes, &Options::default(), None);
    }
    for name in [
        "=\n\"\"",
        "= \"\"",
        " =\"\"",
        "=\"\"x\"",
        "=x parentFileNameHint=\"\"",
    ] {
        let text = good.replace("version=1", &format!("version=1\nparentFileNameHint{name}"));
        judge(
            name,
            &described(&text),
            &Options::default(),
            Some(Reason::BackingFile),
        );
    }
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
        judge_check(name, &bytes, Reason::BadMarker.name());
    }
    // One before the directory that says that it ends in the marker of the footer.
    let bytes = spoilt(&good, |b| {
        let (table, last) = (stream_table(b), b.len() / 512 - 5);
        le32(b, table * 512 + 4, last as u32);
        le64(b, last * 512, 128);
        le32(b, last * 512 + 8, 1024 - 12 + 1);
    });
    let reason = disk(&bytes, &Options::default()).map_err(|error| error.reason());
    assert_eq!(reason.err(), Some(Some(Reason::BadMarker)));
    judge_check("into the footer", &bytes, Reason::BadMarker.name());
    let compressed = Compressed {
        offset: 0,
        length: 5,
        codec: Codec::Zlib,
        least: 512,
        size: 512,
        skip: 0,
        marker: Marker::Grain { sector: 0 },
    };
    assert!(compressed.payload(&[0; 5]).is_err());
}
