//! Images that are made so that each entry of their tables leads to a place that no cache has, or so
//! that a few tables are gone through many times. What that takes is counted in reads, and what is
//! read counts as work, of which a caller allows only so much.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a failure in a test is to panic"
)]

mod support;

use guest_formats::qcow2::{Check, CheckOptions, CheckReport};
use guest_formats::{Error, Image, Options, Reason, Survey, inspect};
use support::Put::{Compressed, Data, Hole};
use support::bytes::{be16, be32, be64, le32, le64, put};
use support::qcow2::Qcow2;
use support::vhd::Vhd;
use support::vmdk::{Vmdk, descriptor};
use support::{Counting, open, open_qcow2, pattern};

/// As how many table entries it counts to read a piece of a table.
const LOAD: u64 = 2000;

fn check(source: &mut Counting<'_>, most_entries: u64) -> (Result<(), Error>, CheckReport) {
    let options = CheckOptions {
        window: 1 << 19,
        most_entries,
    };
    let mut check = Check::new(&open_qcow2(source.bytes), source, &options);
    let result = loop {
        match check.step(source) {
            Ok(true) => break Ok(()),
            Ok(false) => {}
            Err(error) => break Err(error),
        }
    };
    (result, check.report().clone())
}

/// The L1 table names L2 tables that are 128 KiB apart, each of them many times.
#[test]
fn l2_tables_that_are_far_apart_count_as_what_it_takes_to_read_them() {
    let entries = 8192_usize;
    let mut bytes = Qcow2::new(9, &[Hole]).build().bytes;
    let l1 = bytes.len().next_multiple_of(512);
    let tables = (l1 + entries * 8).next_multiple_of(1 << 17);
    for index in 0..entries {
        let table = tables + (index * 7 % 40) * (1 << 17);
        be64(&mut bytes, l1 + index * 8, table as u64);
    }
    bytes.resize(tables + (40 << 17), 0);
    be64(&mut bytes, 24, entries as u64 * 64 * 512);
    be32(&mut bytes, 36, entries as u32);
    be64(&mut bytes, 40, l1 as u64);
    let mut source = Counting::new(&bytes);
    let (result, report) = check(&mut source, 1 << 30);
    assert_eq!(result, Ok(()));
    assert!(source.reads > 8192, "{} reads", source.reads);
    assert!(report.entries > LOAD * 8192, "{}", report.entries);
    let mut source = Counting::new(&bytes);
    let (result, _) = check(&mut source, 1 << 22);
    assert_eq!(result.unwrap_err().reason(), Some(Reason::TooMuchWork));
    assert!(
        source.reads < (1 << 22) / LOAD + 8,
        "{} reads",
        source.reads
    );
    // Who maps the disk is told as well.
    let mut source = Counting::new(&bytes);
    let mut image = open(&bytes).unwrap();
    let (_, work) = image.map_counted(&mut source, 0).unwrap();
    assert!(work > LOAD * 64, "{work}");
}

/// Each table names clusters that lie together, those of the first one compressed.
#[test]
fn a_pass_of_a_check_reads_only_the_tables_that_name_something_in_its_window() {
    const CLUSTER: usize = 65536;
    let good = Qcow2::new(16, &[Hole]).build();
    let mut bytes = good.bytes;
    let (tables, each) = (16, 8);
    let first = bytes.len();
    let clusters = first / CLUSTER + tables;
    bytes.resize((clusters + tables * each) * CLUSTER, 0);
    be64(&mut bytes, 24, (tables * 8192 * CLUSTER) as u64);
    be32(&mut bytes, 36, tables as u32);
    for table in 0..tables {
        let at = first + table * CLUSTER;
        be64(&mut bytes, good.l1 + table * 8, at as u64 | 1 << 63);
        for index in 0..each {
            let cluster = (clusters + table * each + index) * CLUSTER;
            let entry = match table {
                0 => cluster as u64 | 1 << 62,
                _ => cluster as u64 | 1 << 63,
            };
            be64(&mut bytes, at + (index * 1000) * 8, entry);
        }
    }
    for cluster in 4..clusters + tables * each {
        be16(&mut bytes, good.first_block + cluster * 2, 1);
    }
    // The table that was there is not used any more, and one cluster is counted twice.
    be16(
        &mut bytes,
        good.first_block + (good.first_l2 / CLUSTER) * 2,
        0,
    );
    be16(&mut bytes, good.first_block + (clusters + 60) * 2, 2);
    let look = |window| {
        let options = CheckOptions {
            window,
            ..CheckOptions::default()
        };
        let mut source = Counting::new(&bytes);
        let mut check = Check::new(&open_qcow2(&bytes), &source, &options);
        while !check.step(&mut source).unwrap() {}
        let report = CheckReport {
            entries: 0,
            ..check.report().clone()
        };
        (report, source.read_bytes / CLUSTER as u64)
    };
    let (whole, once) = look(1 << 16);
    assert_eq!((whole.errors, whole.leaks), (1, 1), "{whole:?}");
    let (in_passes, read) = look(each as u32);
    assert_eq!(in_passes.contents, whole.contents);
    assert_eq!(
        (in_passes.errors, in_passes.leaks),
        (whole.errors, whole.leaks)
    );
    // There are 19 passes, and each table is in two windows at the most, beside the first.
    let tables = tables as u64;
    assert!(once >= tables, "{once} clusters");
    assert!(
        read < once + 3 * tables,
        "{read} clusters, {once} in one pass"
    );
}

/// Clusters in a random order, in a file whose refcounts no cache holds.
#[test]
fn flags_of_clusters_in_any_order_are_compared_without_looking_for_each_refcount() {
    let clusters = 1 << 16;
    let mut bytes = Qcow2::new(9, &[Data; 64 * 64]).build().bytes;
    let table = bytes.len().next_multiple_of(512);
    let blocks = table + clusters / 256 * 8;
    for index in 0..clusters / 256 {
        be64(&mut bytes, table + index * 8, (blocks + index * 512) as u64);
    }
    bytes.resize(clusters * 512, 0);
    be64(&mut bytes, 48, table as u64);
    be32(&mut bytes, 56, (clusters / 256 * 8 / 512) as u32);
    let l1 = be64_at(&bytes, 40);
    let noise = pattern(1, 64 * 64 * 4);
    for (index, number) in noise.chunks_exact(4).enumerate() {
        let l2 = be64_at(&bytes, l1 + index / 64 * 8) as u64 & 0xff_ffff_ffff;
        let free = blocks / 512 + clusters / 256;
        let number = u32::from_le_bytes(number.try_into().unwrap()) as usize;
        let cluster = free + number % (clusters - free);
        be64(
            &mut bytes,
            l2 as usize + index % 64 * 8,
            (cluster * 512) as u64 | 1 << 63,
        );
        be16(&mut bytes, blocks + cluster * 2, 1);
    }
    let mut source = Counting::new(&bytes);
    let (result, report) = check(&mut source, 1 << 30);
    assert_eq!(result, Ok(()));
    assert!(report.errors > 0);
    assert!(source.reads < 200, "{} reads", source.reads);
}

fn be64_at(bytes: &[u8], at: usize) -> usize {
    u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap()) as usize
}

/// As many snapshots as can be, with as long names as can be: a table of more than 64 MiB.
#[test]
fn a_table_of_snapshots_is_read_in_large_pieces_and_not_for_ever() {
    let mut bytes = Qcow2::new(16, &[Data]).build().bytes;
    let table = bytes.len();
    let entry = 40 + 3 * 1024;
    // The last one of them begins before 64 MiB.
    for (count, good) in [(21_564, true), (21_565, false), (22_000, false)] {
        bytes.resize(table + count * entry, 0);
        for index in 0..count {
            let at = table + index * entry;
            be16(&mut bytes, at + 12, 1024);
            be16(&mut bytes, at + 14, 1024);
            be32(&mut bytes, at + 36, 1024);
        }
        be32(&mut bytes, 60, count as u32);
        be64(&mut bytes, 64, table as u64);
        let mut source = Counting::new(&bytes);
        let info = inspect(&mut source, &Options::default()).unwrap();
        assert_eq!(info.findings.has(Reason::BadSnapshot), !good);
        assert!(source.reads < 2100, "{} reads", source.reads);
    }
}

/// Each entry of the directory has a table of its own, which has one entry.
#[test]
fn grain_tables_in_any_order_count_as_what_it_takes_to_read_them() {
    let tables = 8192_usize;
    let mut image = Vmdk::new(false, &[Hole], 512, 512);
    let extent = format!("RW {tables} SPARSE \"disk.vmdk\"");
    image.descriptor = descriptor("monolithicSparse", &extent);
    let mut bytes = image.build();
    let directory = bytes.len().next_multiple_of(512);
    let first = (directory + tables * 4).div_ceil(512);
    for index in 0..tables {
        let table = first + index * 301 % tables;
        le32(&mut bytes, directory + index * 4, table as u32);
    }
    bytes.resize((first + tables) * 512, 0);
    le64(&mut bytes, 12, tables as u64);
    le32(&mut bytes, 44, 1);
    le64(&mut bytes, 56, directory as u64 / 512);
    let (reads, work) = survey(&bytes);
    assert!(reads > 8000, "{reads} reads");
    assert!(work > LOAD * reads - 8 * LOAD, "{work} for {reads} reads");
}

/// Each stands for many grains.
#[test]
fn entries_of_a_grain_directory_that_lead_nowhere_count_once_however_many_they_are() {
    let count = 100;
    let mut bytes = Vmdk::new(false, &vec![Hole; count * 512], 512, count << 18).build();
    for index in 0..count {
        le32(&mut bytes, 5 * 512 + index * 4, 0x1000_0000 + index as u32);
    }
    let mut image = open(&bytes).unwrap();
    let mut source = Counting::new(&bytes);
    let mut survey = Survey::new(&image, &source, 1 << 20);
    while !survey.step(&mut image, &mut source, 1000).unwrap() {}
    assert_eq!((survey.faults, survey.findings.len()), (count as u64, 64));
}

#[test]
fn a_pass_of_a_survey_goes_through_the_parts_of_the_disk_that_take_something_of_its_window() {
    let grains = 64 * 512;
    let mut bytes = Vmdk::new(false, &vec![Data; grains], 512, grains * 512).build();
    let look = |bytes: &[u8], window| {
        let mut image = open(bytes).unwrap();
        let mut source = Counting::new(bytes);
        let mut survey = Survey::new(&image, &source, window);
        while !survey.step(&mut image, &mut source, 1000).unwrap() {}
        assert_eq!(survey.contents.data, (grains * 512) as u64);
        let looked_at = survey.entries - LOAD * source.reads.min(survey.entries / LOAD);
        (survey.findings, looked_at)
    };
    let (found, once) = look(&bytes, 1 << 20);
    assert_eq!((found.len(), once < 34_000), (0, true), "{once} entries");
    // There are 17 passes.
    let (found, entries) = look(&bytes, 2048);
    assert_eq!(found, []);
    assert!(entries < 5 * once, "{entries} entries, {once} in one pass");
    // A grain at the end of the disk that is one at its start as well.
    let directory = 5 * 512;
    let table = |index: usize| {
        let at = directory + index / 512 * 4;
        let table = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        table as usize * 512 + index % 512 * 4
    };
    let (first, last) = (table(100), table(grains - 10));
    bytes.copy_within(first..first + 4, last);
    for window in [64, 2048, 1 << 20] {
        let (found, _) = look(&bytes, window);
        let found: Vec<_> = found.iter().map(|f| (f.reason, f.at)).collect();
        assert_eq!(found, [(Reason::Overlap, last as u64)], "{window}");
    }
}

#[test]
fn the_marker_of_one_grain_is_read_once_however_many_entries_name_it() {
    let mut image = Vmdk::new(true, &[Compressed; 512], 512, 512 * 512);
    image.disk = pattern(1, 512 * 512);
    let mut bytes = image.build();
    let grain = bytes[128 * 512..129 * 512].to_vec();
    let (reads, _) = survey(&bytes);
    // In the order of the file, the markers of many small grains are read at once.
    assert!(reads < 100, "{reads} reads");
    let footer = bytes.len() - 1024;
    let directory = u64::from_le_bytes(bytes[footer + 56..][..8].try_into().unwrap()) as usize;
    let table = u32::from_le_bytes(bytes[directory * 512..][..4].try_into().unwrap()) as usize;
    (0..512).for_each(|index| le32(&mut bytes, table * 512 + index * 4, 128));
    put(&mut bytes, 128 * 512, &grain);
    let (reads, _) = survey(&bytes);
    assert!(reads < 10, "{reads} reads");
}

/// As programs write them that set a bit for each sector which was written.
#[test]
fn sectors_of_a_vhd_that_were_never_written_are_read_once_and_as_data_is() {
    let (block, count) = (2 << 20, 8);
    let mut image = Vhd::new(false, &vec![Data; count], block, count * block);
    image.disk.fill(0);
    let written = image.build();
    let first = 2048;
    let bitmaps = |pattern: u8| {
        let mut bytes = written.clone();
        for index in 0..count {
            let at = first + index * (512 + block);
            bytes[at..at + 512].fill(pattern);
        }
        bytes
    };
    for (pattern, read) in [(0xff, 0), (0xf0, count * block), (0, count * block)] {
        let bytes = bitmaps(pattern);
        // Who reads the disk is told where they are, and reads no more than bitmaps for that.
        let mut opened = open(&bytes).unwrap();
        let mut source = Counting::new(&bytes);
        let (mut at, mut work, mut answers) = (0, 0, 0);
        while at < (count * block) as u64 {
            let (mapping, entries) = opened.map_counted(&mut source, at).unwrap();
            (at, work, answers) = (at + mapping.length, work + entries, answers + 1);
        }
        let lines = 2 * count as u64 + 1;
        assert!(
            source.reads <= lines,
            "{pattern:#x}: {} reads",
            source.reads
        );
        assert!(work <= lines * LOAD + 2 * answers, "{pattern:#x}: {work}");
        // A check reads them in large pieces.
        let mut source = Counting::new(&bytes);
        let mut survey = Survey::new(&opened, &source, 1 << 20);
        while !survey.step(&mut opened, &mut source, 1000).unwrap() {}
        assert_eq!(
            (survey.faults, survey.contents.data),
            (0, (count * block) as u64)
        );
        let pieces = 1 + 2 * count as u64 + (read / 65536) as u64;
        assert!(source.reads <= pieces, "{pattern:#x}: {}", source.reads);
        assert!(
            survey.entries <= pieces * LOAD + 8,
            "{pattern:#x}: {}",
            survey.entries
        );
    }
    // A block that many entries name is read once, wherever it lies.
    let mut bytes = bitmaps(0);
    let entry = bytes[1536..1540].to_vec();
    (0..count).for_each(|index| put(&mut bytes, 1536 + index * 4, &entry));
    for window in [64, 1 << 20] {
        let mut image = open(&bytes).unwrap();
        let mut source = Counting::new(&bytes);
        let mut survey = Survey::new(&image, &source, window);
        while !survey.step(&mut image, &mut source, 1000).unwrap() {}
        assert!(survey.faults >= count as u64 - 1);
        assert!(source.reads < 2 * 32 + 8, "{} reads", source.reads);
    }
}

/// How many reads it takes to go through all entries, and as how much work that counts.
fn survey(bytes: &[u8]) -> (u64, u64) {
    let mut image: Image = open(bytes).unwrap();
    let mut source = Counting::new(bytes);
    let mut survey = Survey::new(&image, &source, 1 << 20);
    while !survey.step(&mut image, &mut source, 1000).unwrap() {}
    (source.reads, survey.entries)
}
