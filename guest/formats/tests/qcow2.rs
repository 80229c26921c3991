//! qcow2: every way to store a cluster, at every size, and the check of refcounts.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a failure in a test is to panic"
)]

mod support;

use guest_formats::qcow2::{Check, CheckOptions, CheckReport, ProblemKind};
use guest_formats::{Content, Contents, Image, Options, Reason};
use support::Put::{Compressed, Data, Hole, Zero, ZeroAllocated};
use support::bytes::{be16, be32, be64, put};
use support::qcow2::{Qcow2, add_bitmap};
use support::{Put, allowing, contents, disk, info, open_qcow2, open_with};

const ALL: [Put; 12] = [
    Data,
    Compressed,
    Hole,
    Zero,
    ZeroAllocated,
    Data,
    Data,
    Compressed,
    Compressed,
    Hole,
    Zero,
    Data,
];

fn check(bytes: &[u8], window: u32) -> CheckReport {
    let opened = open_with(bytes, &allowing(&[Reason::BackingFile])).unwrap();
    let Image::Qcow2(image) = opened else {
        unreachable!("the image is of another format")
    };
    let options = CheckOptions {
        window,
        ..CheckOptions::default()
    };
    let mut source = bytes;
    let mut check = Check::new(&image, &source, &options);
    while !check.step(&mut source).unwrap() {}
    check.report().clone()
}

#[test]
fn every_kind_of_cluster_of_every_size_is_read() {
    for bits in 9..=21 {
        for (version, zstd) in [(2, false), (3, false), (3, true)] {
            let mut puts = ALL.to_vec();
            if version == 2 {
                puts.retain(|put| !matches!(put, Zero | ZeroAllocated));
            }
            let mut image = Qcow2::new(bits, &puts).shorter(300);
            image.size -= 212;
            image.disk.truncate(image.size as usize);
            (image.version, image.zstd) = (version, zstd);
            let bytes = image.build().bytes;
            let read = disk(&bytes, &Options::default()).unwrap();
            assert!(
                read == image.disk,
                "version {version}, bits {bits}, zstd {zstd}"
            );
        }
    }
}

#[test]
fn subclusters_of_extended_entries_are_read_apart() {
    for bits in 14..=21 {
        let mut image = Qcow2::new(bits, &ALL);
        image.extended = true;
        let mut built = image.build();
        let read = disk(&built.bytes, &Options::default()).unwrap();
        assert!(read == image.disk, "bits {bits}");
        // Of the first cluster, subclusters 0 and 2 keep their data, 1 is zero, the rest is a hole.
        be64(&mut built.bytes, built.first_l2 + 8, 0b101 | 0b10 << 32);
        let read = disk(&built.bytes, &Options::default()).unwrap();
        let size = (1 << bits) / 32;
        let mut expected = image.disk.clone();
        expected[size..2 * size].fill(0);
        expected[3 * size..32 * size].fill(0);
        assert!(read == expected, "bits {bits}");
    }
}

#[test]
fn what_the_image_lacks_is_its_backing_files() {
    for extended in [false, true] {
        let mut image = Qcow2::new(16, &ALL);
        image.backing = Some("/etc/passwd");
        image.extended = extended;
        let bytes = image.build().bytes;
        let report = info(&bytes);
        assert!(report.findings.has(Reason::BackingFile));
        assert_eq!(report.references[0].name, b"/etc/passwd");
        let mut open = open_with(&bytes, &allowing(&[Reason::BackingFile])).unwrap();
        let backing = vec![0xbb; 3 * 65536 - 1000];
        let read = contents(&mut open, &bytes, Some(&backing)).unwrap();
        let mut expected = image.disk.clone();
        expected[2 * 65536..3 * 65536 - 1000].fill(0xbb);
        assert!(read == expected);
        // A zero flag hides the backing file.
        let zero = open.map(&mut &bytes[..], 3 * 65536).unwrap();
        assert_eq!(zero.content, Content::Zero);
    }
}

#[test]
fn snapshots_are_found_by_id_and_then_by_name() {
    let mut image = Qcow2::new(12, &ALL);
    image.snapshots = vec![("1", "2"), ("2", "before"), ("3", "before")];
    let mut built = image.build();
    assert_eq!(info(&built.bytes).snapshots, 3);
    // The disk of today differs: its first cluster became a hole.
    let table = built.bytes[built.l1..built.l1 + 8].to_vec();
    let l2 = u64::from_be_bytes(table.try_into().unwrap()) & !(1 << 63);
    assert_eq!(l2 as usize, built.first_l2);
    be64(&mut built.bytes, built.l1, 0);
    let mut seen = Vec::new();
    let opened = open_qcow2(&built.bytes);
    opened
        .snapshots(&mut &built.bytes[..], &mut |snapshot| seen.push(snapshot))
        .unwrap();
    assert_eq!(seen.len(), 3);
    assert_eq!(seen[1].name, b"before");
    assert_eq!(seen[1].disk_size, Some(image.size));
    let zeros = disk(&built.bytes, &Options::default()).unwrap();
    assert!(zeros.iter().all(|byte| *byte == 0));
    for selector in [&b"1"[..], b"2", b"before"] {
        let mut opened = open_qcow2(&built.bytes);
        let mut source = &built.bytes[..];
        opened
            .select_snapshot(&mut source, selector, &Options::default())
            .unwrap();
        let mut opened = Image::Qcow2(opened);
        let read = contents(&mut opened, &built.bytes, None).unwrap();
        assert!(read == image.disk);
    }
    let mut opened = open_qcow2(&built.bytes);
    let error = opened
        .select_snapshot(&mut &built.bytes[..], b"after", &Options::default())
        .unwrap_err();
    assert_eq!(error.reason(), Some(Reason::NoSuchSnapshot));
}

#[test]
fn of_long_names_of_snapshots_the_start_is_kept_and_they_are_not_confused() {
    let long = "y".repeat(1024).leak();
    let mut image = Qcow2::new(16, &ALL);
    image.snapshots = vec![("1", long), ("2", &long[1..])];
    let mut bytes = image.build().bytes;
    let list = u64::from_be_bytes(bytes[64..72].try_into().unwrap()) as usize;
    // The second one goes on in the bytes behind it, as far as a name can.
    let second = list + (56 + 1 + 1024_usize).next_multiple_of(8);
    for (length, kept) in [(1023, 1023), (1024, 1024), (60_000, 1024)] {
        be16(&mut bytes, second + 14, length);
        let mut seen = Vec::new();
        let mut opened = open_qcow2(&bytes);
        let mut source = &bytes[..];
        opened
            .snapshots(&mut source, &mut |snapshot| seen.push(snapshot))
            .unwrap();
        assert_eq!((seen.len(), seen[1].name.len()), (2, kept));
        let mut select =
            |name: &str| opened.select_snapshot(&mut source, name.as_bytes(), &Options::default());
        assert_eq!(select("2"), Ok(()));
        assert_eq!(select(&long[1..]).is_ok(), length == 1023);
        assert!(select(long).is_err());
    }
}

#[test]
fn refcounts_of_every_width_are_right_in_every_window() {
    for order in 0..=6 {
        for bits in [9, 12, 16] {
            let mut image = Qcow2::new(bits, &ALL);
            // A bit counts to one, so that compressed clusters may not share theirs.
            image.puts.retain(|put| order > 1 || *put != Compressed);
            image = Qcow2::new(bits, &image.puts);
            image.refcount_order = order;
            if order > 2 {
                image.snapshots = vec![("1", "one"), ("2", "two")];
            }
            let built = image.build();
            for window in [1, 7, 1 << 16] {
                let report = check(&built.bytes, window);
                assert_eq!(
                    report.problems,
                    [],
                    "order {order}, bits {bits}, window {window}"
                );
                assert_eq!((report.errors, report.leaks), (0, 0));
                assert_eq!(report.image_end, built.bytes.len() as u64);
                let stored = image.puts.iter();
                let stored = stored.filter(|put| !matches!(put, Hole | Zero)).count();
                assert_eq!(report.allocated, stored as u64);
            }
        }
    }
}

#[test]
fn leaks_and_errors_are_told_apart() {
    let image = Qcow2::new(16, &ALL);
    let built = image.build();
    let cluster = built.first_l2 / 65536 + 1;

    let mut leak = built.bytes.clone();
    be16(&mut leak, built.first_block + cluster * 2, 3);
    let report = check(&leak, 5);
    // The flag of the entry that points there is wrong as well.
    assert_eq!((report.errors, report.leaks), (1, 1));
    assert_eq!(report.problems[0].kind, ProblemKind::CopiedFlag);
    assert_eq!(report.problems[1].kind, ProblemKind::Leak);
    assert_eq!(report.problems[1].at, cluster as u64 * 65536);

    let mut low = built.bytes.clone();
    be16(&mut low, built.first_block + cluster * 2, 0);
    let report = check(&low, 5);
    assert_eq!((report.errors, report.leaks), (2, 0));

    // An entry that points at the L1 table.
    let mut overlap = built.bytes.clone();
    be64(&mut overlap, built.first_l2, built.l1 as u64 | 1 << 63);
    let kinds: Vec<_> = check(&overlap, 3).problems.iter().map(|p| p.kind).collect();
    assert!(kinds.contains(&ProblemKind::Overlap), "{kinds:?}");
    assert!(kinds.contains(&ProblemKind::RefcountTooLow));
    assert!(kinds.contains(&ProblemKind::Leak));

    let mut unaligned = built.bytes.clone();
    be64(&mut unaligned, built.first_l2, 0x1_0200);
    let report = check(&unaligned, 3);
    let entry = ProblemKind::Entry(Reason::Unaligned);
    assert_eq!(report.problems[0].kind, entry);
    assert_eq!((report.errors, report.leaks), (1, 1));
}

#[test]
fn a_check_says_what_each_byte_of_the_disk_is() {
    for (extended, backing) in [(false, None), (false, Some("base")), (true, Some("base"))] {
        let mut image = Qcow2::new(16, &ALL).shorter(512);
        (image.extended, image.backing) = (extended, backing);
        image.snapshots = vec![("1", "one")];
        let built = image.build();
        let mut bytes = built.bytes.clone();
        let report = check(&bytes, 3);
        let of = |kinds: &[Put]| {
            let all = image.puts.iter().enumerate();
            let ours = all.filter(|(_, put)| kinds.contains(put));
            ours.map(|(index, _)| (image.size - index as u64 * 65536).min(65536))
                .sum::<u64>()
        };
        let mut expected = Contents {
            data: of(&[Data]),
            compressed: of(&[Compressed]),
            zero: of(&[Zero, ZeroAllocated]),
            ..Contents::default()
        };
        match backing {
            Some(_) => expected.backing = of(&[Hole]),
            None => expected.zero += of(&[Hole]),
        }
        assert_eq!(report.contents, expected, "{extended} {backing:?}");
        // An entry that leads nowhere.
        let data = image.puts.iter().position(|put| *put == Data).unwrap();
        let size = if extended { 16 } else { 8 };
        be64(&mut bytes, built.first_l2 + data * size, 1 << 40);
        let lost = check(&bytes, 3).contents;
        assert_eq!((lost.lost, lost.data), (65536, expected.data - 65536));
        // And the whole table.
        be64(&mut bytes, built.l1, 1);
        let lost = check(&bytes, 3).contents;
        assert_eq!(lost.lost, image.size);
    }
}

/// What a reader sees of each byte of the disk. What it cannot read is lost.
fn as_read(bytes: &[u8]) -> Contents {
    const SUBCLUSTER: u64 = 2048;
    let mut image = open_qcow2(bytes);
    let size = image.virtual_size();
    let mut contents = Contents::default();
    for at in (0..size).step_by(SUBCLUSTER as usize) {
        let sum = match image.map(&mut { bytes }, at).map(|mapping| mapping.content) {
            Ok(Content::Data { .. }) => &mut contents.data,
            Ok(Content::Compressed(_)) => &mut contents.compressed,
            Ok(Content::Backing) => &mut contents.backing,
            Ok(Content::Zero | Content::Unwritten { .. }) => &mut contents.zero,
            Err(_) => &mut contents.lost,
        };
        *sum += SUBCLUSTER.min(size - at);
    }
    contents
}

#[test]
fn a_check_calls_those_bytes_lost_that_cannot_be_read() {
    let far = 1 << 40;
    for extended in [false, true] {
        let mut image = Qcow2::new(16, &ALL).shorter(512);
        image.extended = extended;
        let built = image.build();
        assert_eq!(check(&built.bytes, 3).contents, as_read(&built.bytes));
        let entries = [
            far,
            far | 1 << 63,
            far | 1,
            0x200,
            1 << 62 | far,
            1 << 62,
            1 << 63,
            built.bytes.len() as u64,
        ];
        let bitmaps = [
            0,
            0xf,
            0xf_0000_0000,
            0xff_0000_ff00,
            0xffff_ffff,
            1 << 32 | 1,
        ];
        for (index, entry) in (0..ALL.len()).flat_map(|index| entries.map(|entry| (index, entry))) {
            for bitmap in bitmaps.iter().take(if extended { 6 } else { 1 }) {
                let mut bytes = built.bytes.clone();
                let at = built.first_l2 + index * if extended { 16 } else { 8 };
                be64(&mut bytes, at, entry);
                if extended {
                    be64(&mut bytes, at + 8, *bitmap);
                }
                let report = check(&bytes, 3);
                let name = format!("{index}: {entry:#x} {bitmap:#x}");
                assert_eq!(report.contents, as_read(&bytes), "{name}");
                assert!(report.contents.lost == 0 || report.errors > 0, "{name}");
            }
        }
    }
}

#[test]
fn bitmaps_count_only_if_the_image_says_that_they_fit_it() {
    let mut image = Qcow2::new(16, &ALL).build();
    add_bitmap(&mut image);
    assert_eq!(check(&image.bytes, 64).problems, []);
    // Without the bit nothing uses what they have.
    be64(&mut image.bytes, 88, 0);
    let report = check(&image.bytes, 64);
    assert_eq!((report.errors, report.leaks), (0, 2));
}

#[test]
fn bitmaps_may_be_all_that_the_format_allows() {
    const EXTENSION: usize = 120;
    type Change = fn(&mut Vec<u8>, usize, usize);
    let changes: [Change; 4] = [
        // All bits are set.
        |b, _, table| be64(b, table, 1),
        // It was in use, with a bit for each byte of a disk of another size.
        |b, directory, _| (b[directory + 15], b[directory + 17]) = (1, 0),
        // The whole disk is less than a granule.
        |b, directory, _| b[directory + 17] = 63,
        // Extra data before the name, which may be left alone.
        |b, directory, _| {
            be64(b, EXTENSION + 8, 40);
            be32(b, directory + 12, 4);
            be32(b, directory + 20, 8);
            put(b, directory + 32, b"a bitmap");
        },
    ];
    for (case, change) in changes.into_iter().enumerate() {
        let mut image = Qcow2::new(16, &ALL).build();
        let directory = add_bitmap(&mut image);
        change(&mut image.bytes, directory, directory + 65536);
        assert_eq!(check(&image.bytes, 64).problems, [], "case {case}");
    }
}

#[test]
fn flags_of_what_is_not_there_are_errors_and_no_mere_leaks() {
    let mut image = Qcow2::new(16, &ALL);
    image.snapshots = vec![("1", "one")];
    let built = image.build();
    let mut table = built.bytes.clone();
    be64(&mut table, built.l1, 1 << 63);
    let found = check(&table, 64).problems[0];
    let expected = (ProblemKind::Entry(Reason::BadEntry), built.l1 as u64);
    assert_eq!((found.kind, found.at), expected);
    let hole = ALL.iter().position(|put| *put == Hole).unwrap();
    let mut cluster = built.bytes.clone();
    let at = built.first_l2 + hole * 8;
    be64(&mut cluster, at, 1 << 63);
    for window in [1, 64] {
        let report = check(&cluster, window);
        assert_eq!((report.errors, report.leaks), (1, 0));
        let found = report.problems[0];
        assert_eq!((found.kind, found.at), (ProblemKind::CopiedFlag, at as u64));
    }
}

#[test]
fn snapshots_that_lack_the_size_of_their_disk_are_errors_in_version_3() {
    let mut image = Qcow2::new(16, &ALL);
    image.snapshots = vec![("1", "one"), ("2", "two")];
    for (version, errors) in [(3, 48), (2, 0)] {
        image.version = version;
        image
            .puts
            .retain(|put| !matches!(put, Zero | ZeroAllocated));
        let mut bytes = image.build().bytes;
        // There are two, and behind them zeros, which say that they have no extra data.
        be32(&mut bytes, 60, 50);
        let report = check(&bytes, 64);
        assert_eq!((report.errors, report.leaks), (errors, 0), "{report:?}");
        let bad = ProblemKind::Entry(Reason::BadSnapshot);
        assert!(report.problems.iter().all(|found| found.kind == bad));
    }
}

#[test]
fn a_check_gives_up_when_it_has_looked_at_enough() {
    let built = Qcow2::new(16, &ALL).build();
    let image = open_qcow2(&built.bytes);
    let options = CheckOptions {
        window: 1,
        most_entries: 20_000,
    };
    let mut source = &built.bytes[..];
    let mut check = Check::new(&image, &source, &options);
    let error = loop {
        if let Err(error) = check.step(&mut source) {
            break error;
        }
    };
    assert_eq!(error.reason(), Some(Reason::TooMuchWork));
}

#[test]
fn an_empty_disk_of_terabytes_takes_few_reads() {
    let mut image = Qcow2::new(16, &[Hole]);
    image.size = 8 << 40;
    let mut bytes = image.build().bytes;
    // An L1 table of 16,384 entries behind everything else.
    let l1 = bytes.len().next_multiple_of(65536);
    bytes.resize(l1 + 16384 * 8, 0);
    be64(&mut bytes, 40, l1 as u64);
    be32(&mut bytes, 36, 16384);
    let mut source = support::Counting::new(&bytes);
    let (mut image, _) = Image::open(&mut source, &Options::default()).unwrap();
    let mut at = 0;
    let mut answers = 0;
    while at < image.virtual_size() {
        let mapping = image.map(&mut source, at).unwrap();
        assert_eq!(mapping.content, Content::Zero);
        at += mapping.length;
        answers += 1;
    }
    assert!(answers < 10, "{answers} answers");
    assert!(source.reads < 40, "{} reads", source.reads);
}
