//! VDI images that lie.

use guest_formats::{Image, Options, Reason};

use super::{Case, Endless, judge_all, judge_check, spoilt, surveyed};
use crate::support::Put::{Data, Hole, Zero};
use crate::support::bytes::{le32, le64};
use crate::support::vdi;

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
        "blocks with a sector before the data",
        |b| le32(b, 380, 512),
        Reason::BadHeader,
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
    (
        "a block that the file ends in",
        |b| b.truncate(b.len() - 1),
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

#[test]
fn a_vdi_whose_map_names_not_as_many_blocks_as_its_header_is_an_error() {
    let good = vdi::build(false, &[Data, Zero, Data, Data], 65536, 4 * 65536);
    let lost = spoilt(&good, |b| le32(b, 520, u32::MAX));
    judge_check("a block that no entry names", &lost, "bad-header");
    let more = spoilt(&good, |b| le32(b, 388, 4));
    judge_check("a block more than there are", &more, "bad-header");
    // A map may have more entries than the disk needs, and they may name blocks, if these are there.
    let shorter = spoilt(&good, |b| le64(b, 368, 3 * 65536));
    assert_eq!(problems(&shorter), [""; 0]);
    for (name, block, problem) in [
        ("a block of another entry, behind the disk", 1, "overlap"),
        (
            "a block that is not there, behind the disk",
            99,
            "bad-entry",
        ),
        ("a block less, behind the disk", u32::MAX, "bad-header"),
    ] {
        judge_check(name, &spoilt(&shorter, |b| le32(b, 524, block)), problem);
    }
}

/// The names of what a check finds.
fn problems(bytes: &[u8]) -> Vec<&'static str> {
    let mut source = bytes;
    let survey = surveyed(&mut source);
    let findings = survey.findings.iter();
    findings.map(|finding| finding.reason.name()).collect()
}

#[test]
fn places_behind_the_largest_offset_are_behind_the_end() {
    let mut header = vdi::build(false, &[Hole], 4096, 4096);
    header.truncate(512);
    // The most that each field can say, in a file that has room for such a map.
    le32(&mut header, 344, 0xffff_fe00);
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
