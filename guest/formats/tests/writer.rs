//! Images that the writer makes, through the parser and its check.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a failure in a test is to panic"
)]

use std::collections::BTreeMap;

use guest_formats::qcow2::{CLUSTER, Check, CheckOptions, Qcow2, TooLarge, Writer};
use guest_formats::{Content, Options, ReadAt, ReadError, inspect};
use proptest::collection::vec;
use proptest::prelude::*;

/// Entries of a table, and refcounts of a block.
const ENTRIES: u64 = 8192;
const REFCOUNTS: u64 = 32_768;

/// A file of which only the tables are kept: the parser reads nothing else.
struct File {
    tables: BTreeMap<u64, Vec<u8>>,
    length: u64,
}

impl ReadAt for File {
    fn size(&self) -> u64 {
        self.length
    }

    fn read_at(&mut self, mut offset: u64, mut buffer: &mut [u8]) -> Result<(), ReadError> {
        while !buffer.is_empty() {
            let within = (offset % CLUSTER) as usize;
            let len = buffer.len().min(CLUSTER as usize - within);
            let (piece, rest) = buffer.split_at_mut(len);
            match self.tables.get(&(offset - offset % CLUSTER)) {
                Some(table) => piece.copy_from_slice(&table[within..within + len]),
                None => piece.fill(0xdd),
            }
            offset += len as u64;
            buffer = rest;
        }
        Ok(())
    }
}

/// An image, and where each cluster of the disk is in its file.
struct Image {
    file: File,
    places: BTreeMap<u64, u64>,
}

/// Makes an image of a disk of `size` bytes that has data in these runs of clusters: the first, and
/// how many. Each byte of the file is given once.
fn image(size: u64, runs: &[(u64, u64)]) -> Image {
    let mut writer = Writer::new(size).unwrap();
    let mut tables = BTreeMap::new();
    let mut places = BTreeMap::new();
    let mut take = |writer: &mut Writer| {
        let mut buffer = vec![0xee; CLUSTER as usize];
        while let Some(at) = writer.take_table(&mut buffer) {
            assert_eq!(tables.insert(at, buffer.clone()), None, "{at} twice");
        }
        assert!(!writer.has_table());
    };
    for &(first, count) in runs {
        let at = writer.place(first, count);
        places.extend((0..count).map(|number| (first + number, at + number * CLUSTER)));
        take(&mut writer);
    }
    assert!(!writer.is_done());
    writer.finish();
    assert!(writer.has_table());
    take(&mut writer);
    assert!(writer.is_done());
    let length = writer.length();
    let mut used: Vec<_> = tables.keys().chain(places.values()).copied().collect();
    used.sort_unstable();
    let all: Vec<_> = (0..length / CLUSTER)
        .map(|cluster| cluster * CLUSTER)
        .collect();
    assert_eq!(used, all, "each cluster of the file once");
    Image {
        file: File { tables, length },
        places,
    }
}

/// Checks that the parser finds the image good, and each cluster where it was put.
fn verify(size: u64, runs: &[(u64, u64)]) {
    let Image { mut file, places } = image(size, runs);
    let options = Options {
        largest_disk: u64::MAX,
        ..Options::default()
    };
    let info = inspect(&mut file, &options).unwrap();
    assert_eq!(info.findings.iter().count(), 0, "{:?}", info.findings);
    let mut qcow2 = Qcow2::open(&mut file, &options).unwrap();
    assert_eq!(qcow2.virtual_size(), size.next_multiple_of(512));
    assert_eq!(qcow2.cluster_size(), CLUSTER);
    let mut check = Check::new(&qcow2, &file, &CheckOptions::default());
    while !check.step(&mut file).unwrap() {}
    let report = check.report();
    let wrong = (report.errors, report.leaks);
    assert_eq!(wrong, (0, 0), "{size} {runs:?}: {:?}", report.problems);
    assert_eq!(report.image_end, file.length);
    assert_eq!(report.allocated, places.len() as u64);
    // The ends of each run, and what is around them.
    let clusters = size.div_ceil(CLUSTER);
    let ends = runs.iter().flat_map(|&(first, count)| {
        let last = first + count - 1;
        [first.saturating_sub(1), first, last, last + 1]
    });
    for cluster in ends.filter(|&cluster| cluster < clusters) {
        let mapping = qcow2.map(&mut file, cluster * CLUSTER).unwrap();
        let expected = match places.get(&cluster) {
            Some(&offset) => Content::Data { offset },
            None => Content::Zero,
        };
        assert_eq!(mapping.content, expected, "cluster {cluster}");
    }
}

#[test]
fn disks_of_every_size_have_images_without_a_fault() {
    for size in [0, 1, 511, 512, 513] {
        verify(size, &[]);
    }
    for clusters in [1, 2, ENTRIES - 1, ENTRIES, ENTRIES + 1, 2 * ENTRIES] {
        for more in [0, 1, 512, CLUSTER - 1] {
            let size = clusters * CLUSTER + more;
            let all = size.div_ceil(CLUSTER);
            verify(size, &[]);
            verify(size, &[(0, 1)]);
            verify(size, &[(all - 1, 1)]);
            verify(size, &[(0, all)]);
        }
    }
}

#[test]
fn the_file_does_not_depend_on_the_runs_in_which_clusters_are_placed() {
    let size = 3 * ENTRIES * CLUSTER;
    let all = [
        ENTRIES - 3,
        ENTRIES - 2,
        ENTRIES - 1,
        ENTRIES,
        ENTRIES + 1,
        2 * ENTRIES,
    ];
    let one_by_one = image(size, &all.map(|cluster| (cluster, 1)));
    let runs = image(size, &[(ENTRIES - 3, 3), (ENTRIES, 2), (2 * ENTRIES, 1)]);
    assert_eq!(runs.places, one_by_one.places);
    assert!(runs.file.tables == one_by_one.file.tables);
    // A table is behind its clusters, and before those of the next one.
    let places: Vec<_> = runs.places.values().map(|at| at / CLUSTER).collect();
    assert_eq!(places, [3, 4, 5, 7, 8, 10]);
}

#[test]
fn runs_across_the_borders_of_tables_stay_in_one_piece() {
    let size = 5 * ENTRIES * CLUSTER;
    verify(size, &[(ENTRIES - 1, 2)]);
    verify(size, &[(7, 1), (ENTRIES - 1, 2), (ENTRIES + 1, 1)]);
    // A table of which nothing is placed has no place itself.
    verify(size, &[(0, 1), (3 * ENTRIES, 2), (5 * ENTRIES - 1, 1)]);
    let one = image(size, &[(0, 1)]).file.length;
    let two = image(size, &[(0, 1), (4 * ENTRIES, 1)]).file.length;
    assert_eq!(two - one, 2 * CLUSTER);
}

#[test]
fn refcount_blocks_count_themselves_at_every_number_of_clusters() {
    let size = (3 * REFCOUNTS) * CLUSTER;
    // The header, the refcount table, the L1 table, and what a full L2 table maps, with itself.
    let others = |data: u64| 3 + data + data.div_ceil(ENTRIES);
    for blocks in 1..=2 {
        let full = blocks * REFCOUNTS;
        let exact = (1..full).rev().find(|&data| others(data) + blocks <= full);
        let exact = exact.unwrap();
        for data in [exact, exact + 1] {
            let image = image(size, &[(0, data)]);
            let more = u64::from(data > exact);
            let expected = others(data) + blocks + more;
            assert_eq!(image.file.length, expected * CLUSTER, "{data} clusters");
            verify(size, &[(0, data)]);
        }
    }
}

#[test]
fn a_large_disk_takes_what_is_in_it_and_its_l1_table() {
    let tib = 1 << 40;
    for (size, l1) in [(tib, 1), (4 * tib, 1), (4 * tib + 1, 2), (64 * tib, 16)] {
        let length = image(size, &[]).file.length;
        assert!(
            length <= (4 + l1 + size / (16 * tib)) * CLUSTER,
            "{size}: {length}"
        );
        verify(size, &[]);
        let all = size.div_ceil(CLUSTER);
        verify(size, &[(0, 1), (all / 2, 3), (all - 2, 2)]);
        verify(size, &[(all - 1, 1)]);
    }
}

#[test]
fn the_largest_disk_is_the_one_that_qemu_still_reads() {
    let pib = 1_u64 << 50;
    let refused = |size| Writer::new(size).unwrap_err();
    for size in [2 * pib + 1, 4 * pib, u64::MAX] {
        assert_eq!(refused(size), TooLarge { size });
    }
    // The refcounts of a full one have to fit, too.
    let short = |gib: u64| Writer::new(2 * pib - (gib << 30));
    assert!(short(319).is_err() && short(321).is_ok());
    verify(2 * pib - 4 * (1 << 40), &[(3, 1)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_clusters_in_their_order_make_an_image_without_a_fault(
        steps in vec((0..3 * ENTRIES, 1_u64..=2), 0..40),
        rest in 0..2 * CLUSTER,
    ) {
        let mut end = 0;
        let runs: Vec<_> = steps
            .iter()
            .map(|&(passed, count)| {
                let first = end + if passed % 3 == 0 { 0 } else { passed };
                end = first + count;
                (first, count)
            })
            .collect();
        verify(end * CLUSTER + rest, &runs);
    }
}
