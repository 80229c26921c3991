//! qcow2 images whose tables lie.

use guest_formats::qcow2::{Check, CheckOptions, CheckReport, ProblemKind};
use guest_formats::{Options, Reason};

use super::qcow2::{FAR, L1, L2, good};
use super::{Case, judge, judge_all, judge_check, spoilt};
use crate::support::Put::{Compressed, Data, Hole};
use crate::support::bytes::{be16, be32, be64, put};
use crate::support::qcow2::Qcow2;
use crate::support::{Counting, disk, examine_qcow2, open_qcow2};

/// The entry of the compressed cluster.
const PACKED: usize = L2 + 8;

const TABLES: &[Case] = &[
    (
        "L1: reserved bits",
        |b| be64(b, L1, L2 as u64 | 1),
        Reason::ReservedBits,
    ),
    (
        "L1: bit 62",
        |b| be64(b, L1, L2 as u64 | 1 << 62),
        Reason::ReservedBits,
    ),
    (
        "L1: unaligned",
        |b| be64(b, L1, L2 as u64 + 512),
        Reason::Unaligned,
    ),
    (
        "L1: behind the end",
        |b| be64(b, L1, FAR),
        Reason::BeyondEnd,
    ),
    ("L1: itself", |b| be64(b, L1, L1 as u64), Reason::Overlap),
    (
        "L1: the refcount table",
        |b| be64(b, L1, 0x1_0000),
        Reason::Overlap,
    ),
    (
        "L2: reserved bits",
        |b| be64(b, L2, 0x4_0002),
        Reason::ReservedBits,
    ),
    (
        "L2: bit 61",
        |b| be64(b, L2, 0x4_0000 | 1 << 61),
        Reason::ReservedBits,
    ),
    (
        "L2: unaligned",
        |b| be64(b, L2, 0x4_0200),
        Reason::Unaligned,
    ),
    (
        "L2: behind the end",
        |b| be64(b, L2, FAR),
        Reason::BeyondEnd,
    ),
    (
        "L2: the L1 table",
        |b| be64(b, L2, L1 as u64),
        Reason::Overlap,
    ),
    (
        "L2: the refcount table",
        |b| be64(b, L2, 0x1_0000),
        Reason::Overlap,
    ),
    (
        "L2: a zero flag in version 2",
        zero_flag_in_version_2,
        Reason::ReservedBits,
    ),
    (
        "packed: with the copied flag",
        |b| b[PACKED] |= 0x80,
        Reason::ReservedBits,
    ),
    (
        "packed: behind the end",
        |b| be64(b, PACKED, 1 << 62 | FAR),
        Reason::BeyondEnd,
    ),
    (
        "packed: nowhere",
        |b| be64(b, PACKED, 1 << 62),
        Reason::BadEntry,
    ),
    (
        "packed: over the L1 table",
        |b| be64(b, PACKED, 1 << 62 | L1 as u64),
        Reason::Overlap,
    ),
    (
        "packed: into the L1 table",
        |b| be64(b, PACKED, 1 << 62 | 1 << 54 | 0x1_ff00),
        Reason::Overlap,
    ),
    (
        "cut in the L2 table",
        |b| b.truncate(L2 + 4),
        Reason::BeyondEnd,
    ),
    (
        "cut before the L2 table",
        |b| b.truncate(L2),
        Reason::BeyondEnd,
    ),
];

fn zero_flag_in_version_2(bytes: &mut Vec<u8>) {
    be32(bytes, 4, 2);
    put(bytes, 72, &[0; 40]);
}

#[test]
fn tables_that_lie_are_refused() {
    judge_all(&good().bytes, TABLES);
}

#[test]
fn bitmaps_of_subclusters_that_lie_are_refused() {
    let mut image = Qcow2::new(16, &[Data, Compressed, Hole]);
    image.extended = true;
    let good = image.build();
    assert_eq!(good.first_l2, L2);
    judge_all(
        &good.bytes,
        &[
            (
                "allocated and zero",
                |b| be64(b, L2 + 8, 1 << 32 | 1),
                Reason::BadEntry,
            ),
            (
                "allocated nowhere",
                |b| be64(b, L2 + 32 + 8, 1),
                Reason::BadEntry,
            ),
            (
                "of a packed cluster",
                |b| be64(b, L2 + 16 + 8, 1),
                Reason::ReservedBits,
            ),
            (
                "a zero flag beside them",
                |b| b[L2 + 7] |= 1,
                Reason::ReservedBits,
            ),
            (
                "in clusters of 8 KiB",
                |b| be32(b, 20, 13),
                Reason::ClusterSize,
            ),
        ],
    );
}

#[test]
fn snapshots_that_lie_are_refused_when_they_are_looked_for() {
    let mut image = Qcow2::new(16, &[Data]);
    image.snapshots = vec![("1", "one")];
    let good = image.build();
    let table = good.snapshots;
    type Change = fn(&mut Vec<u8>, usize);
    let cases: [(Change, Reason); 3] = [
        (|b, at| be32(b, at + 8, u32::MAX), Reason::TableSize),
        (|b, at| be64(b, at, 513), Reason::Unaligned),
        (|b, at| be64(b, at + 48, u64::MAX), Reason::VirtualSize),
    ];
    for (case, (change, reason)) in cases.into_iter().enumerate() {
        let bytes = spoilt(&good.bytes, |bytes| change(bytes, table));
        let mut image = open_qcow2(&bytes);
        let mut source = Counting::new(&bytes);
        let error = image
            .select_snapshot(&mut source, b"1", &Options::default())
            .unwrap_err();
        assert_eq!(error.reason(), Some(reason), "case {case}");
        // A check of such an image ends, and has something to say.
        let mut check = Check::new(&image, &source, &CheckOptions::default());
        while !check.step(&mut source).unwrap() {}
        let blind = reason == Reason::VirtualSize;
        assert_eq!(check.report().errors > 0, !blind, "case {case}");
    }
}

/// Encrypted data do not keep the tables from being checked.
#[test]
fn an_encryption_header_that_lies_elsewhere_is_found_with_its_place() {
    const EXTENSION: usize = 120;
    let mut good = Qcow2::new(16, &[Data]).build();
    let header = good.bytes.len();
    good.bytes.resize(header + 0x1_0000, 0);
    be16(&mut good.bytes, good.first_block + header / 0x1_0000 * 2, 1);
    for (at, value) in [(32, 2), (112, 0x0537_be77), (116, 16)] {
        be32(&mut good.bytes, at, value);
    }
    be64(&mut good.bytes, EXTENSION, header as u64);
    be64(&mut good.bytes, EXTENSION + 8, 4096);
    let problems = |bytes: &[u8]| {
        let mut source = Counting::new(bytes);
        let image = examine_qcow2(bytes);
        let mut check = Check::new(&image, &source, &CheckOptions::default());
        while !check.step(&mut source).unwrap() {}
        let problems = check.report().problems.iter();
        problems
            .map(|problem| (problem.kind, problem.at))
            .collect::<Vec<_>>()
    };
    assert_eq!(problems(&good.bytes), []);
    let place = EXTENSION as u64;
    let unaligned = spoilt(&good.bytes, |b| be64(b, EXTENSION, header as u64 + 512));
    let expected = ProblemKind::Entry(Reason::Unaligned);
    assert_eq!(problems(&unaligned), [(expected, place)]);
    let long = spoilt(&good.bytes, |b| be64(b, EXTENSION + 8, 0x1_0001));
    let expected = ProblemKind::Entry(Reason::BeyondEnd);
    assert_eq!(problems(&long), [(expected, place)]);
    // One that has the cluster of the header.
    let shared = spoilt(&good.bytes, |b| be64(b, EXTENSION, 0));
    let kinds: Vec<_> = problems(&shared).iter().map(|found| found.0).collect();
    assert!(kinds.contains(&ProblemKind::Leak), "{kinds:?}");
    assert!(kinds.len() > 1, "{kinds:?}");
}

/// Makes the list of snapshots the last of the file. The name of the one in it begins there, is longer
/// than what is read of it, and ends `behind` bytes behind the end.
fn long_name(bytes: &mut Vec<u8>, behind: u16) {
    let list = bytes.len().next_multiple_of(0x1_0000);
    bytes.resize(list + 40 + 16 + 2000, 0);
    be16(bytes, list + 14, 2000 + behind);
    be32(bytes, list + 36, 16);
    be64(bytes, 64, list as u64);
}

/// The snapshot table is at 3, and the L1 table of the snapshot behind it.
#[test]
fn lists_of_snapshots_that_lie_are_refused_even_if_no_snapshot_is_looked_for() {
    const LIST: usize = 0x3_0000;
    let mut image = Qcow2::new(16, &[Data]);
    image.snapshots = vec![("1", "one")];
    let good = image.build();
    assert_eq!(good.snapshots, LIST);
    let cases: &[Case] = &[
        (
            "much extra data",
            |b| be32(b, LIST + 36, 16 << 20),
            Reason::BadSnapshot,
        ),
        (
            "a name behind the end",
            |b| {
                let end = b.len().next_multiple_of(0x1_0000);
                b.resize(end + 40, 0);
                be16(b, end + 14, 1);
                be64(b, 64, end as u64);
            },
            Reason::BeyondEnd,
        ),
        (
            "a long name that ends a byte behind the end",
            |b| long_name(b, 1),
            Reason::BeyondEnd,
        ),
        (
            "a long name that ends far behind the end",
            |b| long_name(b, 60_000),
            Reason::BeyondEnd,
        ),
    ];
    judge_all(&good.bytes, cases);
    let ends = spoilt(&good.bytes, |b| long_name(b, 0));
    judge("up to the end", &ends, &Options::default(), None);
    // Such an image is checked all the same.
    for (name, change, reason) in cases {
        let bytes = spoilt(&good.bytes, change);
        let mut source = Counting::new(&bytes);
        let image = examine_qcow2(&bytes);
        let mut check = Check::new(&image, &source, &CheckOptions::default());
        while !check.step(&mut source).unwrap() {}
        let mut problems = check.report().problems.iter();
        let expected = ProblemKind::Entry(*reason);
        assert!(problems.any(|found| found.kind == expected), "{name}");
    }
}

#[test]
fn an_l2_table_of_many_l1_entries_is_legal_and_bounds_nothing() {
    // 2,000 entries share a table whose entries share one compressed cluster.
    let mut image = Qcow2::new(16, &[Compressed; 1]);
    image.size = 2000 << 29;
    let mut bytes = image.build().bytes;
    be32(&mut bytes, 36, 2000);
    let entry = bytes[L2..L2 + 8].to_vec();
    (0..8192).for_each(|index| put(&mut bytes, L2 + index * 8, &entry));
    (0..2000).for_each(|index| be64(&mut bytes, L1 + index * 8, L2 as u64));
    judge("shared tables", &bytes, &Options::default(), None);
    // The check sees that nothing counts them, and gives up in time.
    let image = open_qcow2(&bytes);
    let options = CheckOptions {
        most_entries: 1 << 20,
        ..CheckOptions::default()
    };
    let mut source = Counting::new(&bytes);
    let mut check = Check::new(&image, &source, &options);
    let error = check.step(&mut source).unwrap_err();
    assert_eq!(error.reason(), Some(Reason::TooMuchWork));
}

#[test]
fn snapshots_that_share_one_long_table_are_found_without_going_through_it_for_each() {
    const SNAPSHOTS: usize = 4000;
    const ENTRIES: usize = 1 << 16;
    let bytes = spoilt(&good().bytes, |b| {
        let table = b.len().next_multiple_of(65536);
        let l1 = (table + SNAPSHOTS * 64).next_multiple_of(65536);
        be32(b, 60, SNAPSHOTS as u32);
        be64(b, 64, table as u64);
        for at in (table..).step_by(64).take(SNAPSHOTS) {
            be64(b, at, l1 as u64);
            be32(b, at + 8, ENTRIES as u32);
            be16(b, at + 12, 4);
            be16(b, at + 14, 4);
            be32(b, at + 36, 16);
        }
        b.resize(l1 + ENTRIES * 8, 0);
    });
    judge_check("one table of 4,000 snapshots", &bytes, "overlap");
}

#[test]
fn shared_compressed_clusters_are_read_right() {
    let image = Qcow2::new(9, &[Compressed, Compressed]);
    let built = image.build();
    let entry = built.bytes[built.first_l2..built.first_l2 + 8].to_vec();
    let bytes = spoilt(&built.bytes, |b| put(b, built.first_l2 + 8, &entry));
    let read = disk(&bytes, &Options::default()).unwrap();
    assert_eq!(read[..512], image.disk[..512]);
    assert_eq!(read[512..], image.disk[..512]);
}

#[test]
fn what_is_lost_at_the_end_of_the_file_is_an_error() {
    const CLUSTER: usize = 65536;
    let good = Qcow2::new(16, &[Data, Hole]).build();
    let (end, block) = (good.bytes.len(), good.first_block);
    let last_cluster = |b: &mut Vec<u8>, length: usize| {
        be16(b, block + end / CLUSTER * 2, 1);
        b.resize(length, 1);
    };
    // A compressed cluster of six sectors behind all else, of which the last one may be cut off.
    let offset = end + 1024;
    let packed = |length: usize| {
        spoilt(&good.bytes, |b| {
            be64(b, PACKED, 1 << 62 | 5 << 54 | offset as u64);
            last_cluster(b, length);
        })
    };
    for length in [offset + 3072, offset + 2561] {
        let report = check(&packed(length));
        assert_eq!((report.problems, report.errors), (Vec::new(), 0));
        assert_eq!(report.contents.compressed, CLUSTER as u64);
    }
    for length in [offset + 2560, offset + 1, offset, offset - 512, end] {
        let name = format!("packed, cut at {}", length - end);
        let bytes = packed(length);
        judge_check(&name, &bytes, "beyond-end");
        judge(&name, &bytes, &Options::default(), Some(Reason::BeyondEnd));
        assert_eq!(check(&bytes).contents.lost, CLUSTER as u64, "{name}");
    }
    // A table that the file ends in, whatever the entries say that are left.
    let table = spoilt(&good.bytes, |b| {
        be64(b, L1, end as u64 | 1 << 63);
        last_cluster(b, end + CLUSTER - 1);
        b[end..].fill(0);
    });
    judge_check("a cut table", &table, "beyond-end");
    let beyond = Some(Reason::BeyondEnd);
    judge("a cut table", &table, &Options::default(), beyond);
    assert_eq!(check(&table).contents.lost, 2 * CLUSTER as u64);
    // The directory of a bitmap, in which its name is missing.
    let directory = spoilt(&good.bytes, |b| {
        be64(b, 88, 1);
        for (at, value) in [(112, 0x2385_2875), (116, 24), (120, 1)] {
            be32(b, at, value);
        }
        be64(b, 128, 32);
        be64(b, 136, end as u64);
        last_cluster(b, end + 24);
        b[end..].fill(0);
        be16(b, end + 18, 8);
    });
    judge_check("a cut directory", &directory, "beyond-end");
}

fn check(bytes: &[u8]) -> CheckReport {
    let image = open_qcow2(bytes);
    let mut source = Counting::new(bytes);
    let mut check = Check::new(&image, &source, &CheckOptions::default());
    while !check.step(&mut source).unwrap() {}
    check.report().clone()
}
