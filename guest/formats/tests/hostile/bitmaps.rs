//! qcow2 images whose bitmaps lie. They say nothing of the disk, so that only a check looks at them.

use super::{judge_check, spoilt};
use crate::support::Put::{Data, Hole};
use crate::support::bytes::{be16, be32, be64};
use crate::support::qcow2::{Qcow2, add_bitmap};

/// The header extension, the directory, and the table of the bitmap.
const EXTENSION: usize = 120;
const DIRECTORY: usize = 0x7_0000;
const TABLE: usize = 0x8_0000;

type Change = fn(&mut Vec<u8>);

fn good() -> Vec<u8> {
    let mut image = Qcow2::new(16, &[Data, Hole, Data]).build();
    assert_eq!(add_bitmap(&mut image), DIRECTORY);
    image.bytes
}

#[test]
fn bitmaps_that_lie_are_found() {
    let cases: [(&str, Change, &str); 20] = [
        (
            "an extension of 26 bytes",
            |b| be32(b, 116, 26),
            "bad-header",
        ),
        (
            "an extension of no bytes",
            |b| be32(b, 116, 0),
            "bad-header",
        ),
        ("no bitmaps", |b| be32(b, EXTENSION, 0), "bad-header"),
        (
            "a bitmap less than there are",
            |b| be32(b, EXTENSION, 2),
            "beyond-end",
        ),
        (
            "a reserved field",
            |b| be32(b, EXTENSION + 4, 1),
            "reserved-bits",
        ),
        (
            "a longer directory",
            |b| be64(b, EXTENSION + 8, 40),
            "bad-header",
        ),
        (
            "a shorter directory",
            |b| be64(b, EXTENSION + 8, 31),
            "beyond-end",
        ),
        (
            "an unaligned directory",
            |b| be64(b, EXTENSION + 16, 512),
            "unaligned",
        ),
        (
            "a table of no entries",
            |b| be32(b, DIRECTORY + 8, 0),
            "bad-entry",
        ),
        (
            "a table of more entries than the disk needs",
            |b| be32(b, DIRECTORY + 8, 2),
            "bad-entry",
        ),
        (
            "unknown flags",
            |b| be32(b, DIRECTORY + 12, 8),
            "reserved-bits",
        ),
        ("type 7", |b| b[DIRECTORY + 16] = 7, "bad-entry"),
        (
            "granules of 2^64 bytes",
            |b| b[DIRECTORY + 17] = 64,
            "bad-entry",
        ),
        (
            "a table that is too short for the disk",
            |b| {
                be64(b, 24, 10 << 16);
                b[DIRECTORY + 17] = 0;
            },
            "bad-entry",
        ),
        ("no name", |b| be16(b, DIRECTORY + 18, 0), "bad-entry"),
        (
            "a long name",
            |b| be16(b, DIRECTORY + 18, 2000),
            "beyond-end",
        ),
        (
            "more extra data",
            |b| be32(b, DIRECTORY + 20, 8),
            "beyond-end",
        ),
        (
            "bit 1 of a table entry",
            |b| be64(b, TABLE, 2),
            "reserved-bits",
        ),
        (
            "bit 63 of a table entry",
            |b| be64(b, TABLE, 1 << 63),
            "reserved-bits",
        ),
        (
            "all ones, and where they are",
            |b| be64(b, TABLE, 0x9_0001),
            "reserved-bits",
        ),
    ];
    for (name, change, problem) in cases {
        judge_check(name, &spoilt(&good(), change), problem);
    }
}
