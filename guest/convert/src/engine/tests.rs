//! The whole conversion, between disks in memory that answer in any order.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::panic,
    unreachable_pub
)]

#[path = "../../../formats/tests/support/mod.rs"]
mod support;

use std::cell::RefCell;
use std::rc::Rc;

use guest_formats::qcow2::{CLUSTER, Check, CheckOptions};
use guest_formats::{Options, Reason, ReasonSet};
use guest_kit::testing::Device;
use guest_kit::testing::disk::{Change, FakeDisk};
use guest_kit::testing::memory::leak;
use guest_kit::testing::ports_with;
use guest_kit::testing::program::Counts;
use guest_kit::virtio::block::{BlockDevice, F_WRITE_ZEROES, Purpose};
use guest_protocol::DataList;
use support::Put::{Compressed, Data, Hole, Zero};
use support::mutate::images;
use support::qcow2::Qcow2;
use support::vhd::Vhd;
use support::vmdk::Vmdk;

use super::*;
use crate::backing_chain::Wish;
use crate::disks::Source;
use crate::holes::FileHoles;
use crate::pool::PAGE;

struct Trial {
    outcome: ConversionEnd,
    target: Rc<FakeDisk>,
    sectors: u64,
    /// Up to which sectors there were holes.
    skipped: Vec<u64>,
}

impl Trial {
    /// What was written to the output, which is longer.
    fn output(&self) -> Vec<u8> {
        let target = self.target.get();
        let (output, rest) = target.data.split_at(self.outcome.length as usize);
        assert!(rest.iter().all(|&byte| byte == 0xee));
        output.to_vec()
    }
}

/// Converts the first of `files`, behind which the others are, to a raw disk. `zeros` says whether
/// the output takes declarations; `prepare` may spoil the disks, of which the output is the last.
fn run(files: &[&[u8]], zeros: bool, seed: u64, prepare: impl Fn(&[Rc<FakeDisk>])) -> Trial {
    run_to(ConvertFormat::Raw, files, zeros, seed, prepare)
}

fn run_to(
    format: ConvertFormat,
    files: &[&[u8]],
    zeros: bool,
    seed: u64,
    prepare: impl Fn(&[Rc<FakeDisk>]),
) -> Trial {
    let setup = Setup {
        format,
        zeros,
        seed,
        ..Setup::default()
    };
    setup.run(files, prepare)
}

/// How a conversion is made.
struct Setup {
    format: ConvertFormat,
    /// Whether the output takes declarations of zeros.
    zeros: bool,
    seed: u64,
    digest: bool,
    /// The memory for data on its way, in bytes.
    memory: usize,
    allowed: ReasonSet,
    snapshot: &'static [u8],
    /// Where the files may have data. Those without a list may have it everywhere.
    lists: Vec<DataList<'static>>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            format: ConvertFormat::Raw,
            zeros: true,
            seed: 1,
            digest: true,
            memory: (1 << 20) - 2 * PAGE,
            allowed: ReasonSet::EMPTY.with(Reason::UnknownFormat),
            snapshot: b"",
            lists: Vec::new(),
        }
    }
}

impl Setup {
    fn run(&self, files: &[&[u8]], prepare: impl Fn(&[Rc<FakeDisk>])) -> Trial {
        let seed = self.seed;
        let padded = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            bytes.resize(bytes.len().next_multiple_of(512), 0xaa);
            bytes
        };
        let mut disks: Vec<_> = files
            .iter()
            .enumerate()
            .map(|(index, file)| FakeDisk::new(padded(file), 512, seed ^ index as u64))
            .collect();
        disks.push(FakeDisk::new(vec![0xee; 4 << 20], 512, seed ^ 77));
        let target = Rc::clone(disks.last().unwrap());
        if self.zeros {
            target.get().features |= F_WRITE_ZEROES;
            target.get().zero_limits = (64, 3);
        }
        prepare(&disks);
        let devices = disks.iter().map(|disk| Rc::clone(disk) as Rc<dyn Device>);
        let ports = ports_with(&[], devices, seed);
        let open = |disk: &Rc<FakeDisk>, purpose| {
            BlockDevice::init(Rc::clone(disk), leak(0x1_0000), purpose, SLOTS, |_| {}).unwrap()
        };
        let sources = disks.iter().zip(files).enumerate();
        let sources = sources.map(|(index, (disk, file))| {
            let (device, length) = (open(disk, Purpose::Read), file.len() as u64);
            let list = self.lists.get(index);
            let holes = list.map(|list| FileHoles::new(list, length));
            Source::new(device, length, holes.unwrap_or_default())
        });
        let output = open(&target, Purpose::Write);
        let mut disks = Disks::new(&ports, sources.collect(), output, leak(2 * PAGE));
        let wish = Wish {
            options: Options {
                allowed: self.allowed,
                ..Options::default()
            },
            snapshot: self.snapshot,
        };
        let mut counts = Counts::default();
        let mut sectors = 0;
        let outcome = match BackingChain::open(&mut disks, &wish) {
            Err(failure) => ConversionEnd {
                count: 0,
                length: 0,
                result: Err(failure),
            },
            Ok(mut chain) => {
                sectors = chain.size().div_ceil(SECTOR);
                let mut pool = Pool::new(leak(self.memory));
                let hasher = self.digest.then(|| Hasher::new(chain.size()));
                let (chain, disks, pool) = (&mut chain, &mut disks, &mut pool);
                let room = target.get().data.len() as u64;
                let output = Output {
                    format: self.format,
                    room,
                };
                let engine = Engine::new(chain, disks, pool, &mut counts, hasher, output);
                let outcome = engine.unwrap().run();
                if outcome.result.is_ok() {
                    assert_eq!(counts.0.last(), Some(&sectors));
                }
                outcome
            }
        };
        Trial {
            outcome,
            target,
            sectors,
            skipped: counts.1,
        }
    }
}

/// Checks conversions whose disk is `expected`, to both formats.
fn check(files: &[&[u8]], expected: &[u8], name: &str) {
    check_raw(files, expected, name);
    let mut images = (0..2).map(|seed| qcow2(files, expected, seed, name));
    // Whatever comes first of what is read, the file is the same.
    assert!(images.next() == images.next(), "{name}");
}

/// The image that a conversion makes of the disk `expected`.
fn qcow2(files: &[&[u8]], expected: &[u8], seed: u64, name: &str) -> Vec<u8> {
    let run = run_to(ConvertFormat::Qcow2, files, true, seed, |_| {});
    let digest = run.outcome.result.as_ref().unwrap();
    assert_eq!(*digest, Some(digest_of(expected)), "{name}");
    assert_eq!(run.outcome.count, run.sectors, "{name}");
    assert!(run.target.get().zeroed.is_empty());
    assert_header_comes_last(&run.target.get().changes, name);
    let image = run.output();
    let mut disk = support::disk(&image, &Options::default()).unwrap();
    let filling = disk.split_off(expected.len());
    assert!(disk == expected, "{name}");
    assert!(filling.len() < 512 && filling.iter().all(|&byte| byte == 0));
    let clusters = expected.chunks(CLUSTER as usize);
    let data = clusters.filter(|cluster| cluster.iter().any(|&byte| byte != 0));
    assert_is_sound(&image, data.count() as u64, name);
    image
}

/// The refcounts of an image are right, and so many clusters of its disk have a place.
fn assert_is_sound(image: &[u8], allocated: u64, name: &str) {
    let mut source = image;
    let opened = support::open_qcow2(image);
    let mut check = Check::new(&opened, &source, &CheckOptions::default());
    while !check.step(&mut source).unwrap() {}
    let report = check.report();
    assert_eq!((report.errors, report.leaks), (0, 0), "{name}");
    assert_eq!(report.allocated, allocated, "{name}");
}

/// Before anything else the place of the header is made zero, behind everything else it is written,
/// and what is before and behind each of the two is flushed.
fn assert_header_comes_last(changes: &[Change], name: &str) {
    let header = Change::Write(0, CLUSTER);
    let [first, second, middle @ .., third, last, end] = changes else {
        panic!("{name}: {changes:?}");
    };
    assert_eq!([*first, *second], [header, Change::Flush], "{name}");
    assert_eq!(
        [*third, *last, *end],
        [Change::Flush, header, Change::Flush],
        "{name}"
    );
    let other = |change: &Change| matches!(change, Change::Write(at, _) if *at >= CLUSTER);
    assert!(middle.iter().all(other), "{name}: {changes:?}");
}

fn digest_of(bytes: &[u8]) -> [u8; 32] {
    let mut hasher = Hasher::new(bytes.len() as u64);
    hasher.data(0, bytes);
    hasher.finish()
}

fn check_raw(files: &[&[u8]], expected: &[u8], name: &str) {
    for seed in 0..2 {
        for zeros in [false, true] {
            let run = run(files, zeros, seed, |_| {});
            assert_eq!(run.outcome.count, run.sectors, "{name}: {:?}", run.outcome);
            let digest = run.outcome.result.unwrap();
            assert_eq!(digest, Some(digest_of(expected)), "{name}");
            assert_eq!(run.outcome.length, expected.len() as u64);
            let target = run.target.get();
            assert!(target.data[..expected.len()] == *expected, "{name}");
            let whole = expected.len().next_multiple_of(512);
            assert!(target.data[expected.len()..whole].iter().all(|&b| b == 0));
            assert!(target.data[whole..].iter().all(|&b| b == 0xee), "{name}");
            assert_eq!(target.flushes, 1);
        }
    }
}

#[test]
fn every_format_is_converted_in_whatever_order_the_disks_answer() {
    for (index, image) in images(false).iter().enumerate() {
        let expected = support::disk(image, &Options::default()).unwrap();
        check(&[image], &expected, &format!("image {index}"));
    }
}

#[test]
fn clusters_of_any_size_and_codec_are_converted() {
    for bits in [9, 16, 17, 18, 19] {
        for zstd in [false, true] {
            let puts = [Compressed, Hole, Compressed, Data, Zero, Compressed];
            let mut image = Qcow2::new(bits, &puts).shorter(99);
            image.zstd = zstd;
            check(
                &[&image.build().bytes],
                &image.disk,
                &format!("{bits} {zstd}"),
            );
        }
    }
}

#[test]
fn the_pieces_of_a_large_cluster_are_read_at_once() {
    let mut image = Qcow2::new(19, &[Compressed, Hole, Compressed]);
    image.disk[..1 << 19].copy_from_slice(&support::pattern(9, 1 << 19));
    let built = image.build().bytes;
    check(&[&built], &image.disk, "a large cluster");
    let source = RefCell::new(None);
    let run = run(&[&built], true, 1, |disks| {
        source.replace(Some(Rc::clone(&disks[0])));
    });
    assert!(run.outcome.result.is_ok());
    let source = source.take().unwrap();
    assert!(source.get().most_at_once > 1);
}

#[test]
fn a_large_cluster_that_ends_early_or_too_late_is_refused() {
    let mut image = Qcow2::new(19, &[Compressed]);
    image.disk = support::pattern(9, 1 << 19);
    let built = image.build();
    let entry = u64::from_be_bytes(
        built.bytes[built.first_l2..built.first_l2 + 8]
            .try_into()
            .unwrap(),
    );
    let bits = 62 - (19 - 8);
    let offset = (entry & ((1 << bits) - 1)) as usize;
    for sectors in [0, 1, 500] {
        let mut bytes = built.bytes.clone();
        let entry = 1 << 62 | sectors << bits | offset as u64;
        bytes[built.first_l2..built.first_l2 + 8].copy_from_slice(&entry.to_be_bytes());
        let failure = run(&[&bytes], true, 1, |_| {}).outcome.result.unwrap_err();
        assert_eq!(failure.op, Op::Broken, "{sectors}: {failure:?}");
    }
    // Bytes of nobody behind the cluster do no harm.
    let mut bytes = built.bytes.clone();
    bytes.extend([0xa5; 300_000]);
    let entry = 1 << 62 | 1500 << bits | offset as u64;
    bytes[built.first_l2..built.first_l2 + 8].copy_from_slice(&entry.to_be_bytes());
    check(&[&bytes], &image.disk, "more than the cluster");
}

#[test]
fn what_is_missing_comes_from_the_next_disk_though_it_is_no_whole_sectors() {
    let mut top = Qcow2::new(12, &[Hole, Data, Zero, Hole, Hole]);
    top.backing = Some("base");
    let top = top.build().bytes;
    let base = support::pattern(5, 13_001);
    let options = support::allowing(&[Reason::BackingFile]);
    let mut image = support::open_with(&top, &options).unwrap();
    let expected = support::contents(&mut image, &top, Some(&base)).unwrap();
    check(&[&top, &base], &expected, "a chain");
}

#[test]
fn zeros_are_declared_and_not_written() {
    let image = Qcow2::new(16, &[Data, Hole, Hole, Zero, Compressed]).build();
    let run = run(&[&image.bytes], true, 1, |_| {});
    assert!(run.outcome.result.is_ok());
    let zeroed: u64 = run.target.get().zeroed.iter().map(|part| part.1).sum();
    assert_eq!(zeroed, 3 << 16);
}

/// Converts a raw disk to an output with these limits of declarations, and checks that exactly
/// the zeros, in whole grains, are declared; returns how many requests and parts that took.
fn assert_zeros_are_found(
    disk: &[u8],
    limits: (u32, u32),
    seed: u64,
    name: &str,
) -> (usize, usize) {
    let run = run(&[disk], true, seed, |disks| {
        disks[1].get().zero_limits = limits;
    });
    let digest = run.outcome.result.unwrap();
    assert_eq!(digest, Some(digest_of(disk)), "{name}");
    let target = run.target.get();
    assert!(target.data[..disk.len()] == *disk, "{name}");
    let mut zeroed = vec![false; disk.len().next_multiple_of(512)];
    for &(at, length) in &target.zeroed {
        for byte in &mut zeroed[at as usize..][..length as usize] {
            assert!(!std::mem::replace(byte, true), "{name}: declared twice");
        }
    }
    let grains = disk.chunks(4096).zip(zeroed.chunks(4096));
    for (index, (grain, zeroed)) in grains.enumerate() {
        let zero = grain.iter().all(|&byte| byte == 0);
        assert!(
            zeroed.iter().all(|&declared| declared == zero),
            "{name}: {index}"
        );
    }
    let requests = target
        .changes
        .iter()
        .filter(|&&change| change == Change::Zero);
    (requests.count(), target.zeroed.len())
}

#[test]
fn zeros_in_the_bytes_of_a_disk_are_declared_as_holes_are() {
    for (name, size) in [
        ("whole", 40 << 12),
        ("a part of a sector", (70 << 12) + 700),
    ] {
        for seed in 0..4 {
            let mut disk = vec![0; size];
            for (index, byte) in support::pattern(seed + 1, size >> 12).iter().enumerate() {
                // Data that begins late in its grain, and grains that look like data at first.
                let at = (index << 12) + usize::from(*byte) * 16;
                disk[at] = byte & 1;
            }
            let limits = [(64, 3), (u32::MAX, 256), (8, 1), (u32::MAX, 2)];
            assert_zeros_are_found(&disk, limits[seed as usize], seed, name);
        }
        // Every second grain, which is the most stretches that there can be.
        let mut disk = vec![0; size];
        disk.iter_mut().step_by(8192).for_each(|byte| *byte = 1);
        assert_zeros_are_found(&disk, (64, 3), 5, name);
    }
}

#[test]
fn a_long_stretch_of_zeros_is_one_part_of_one_request() {
    let mut disk = vec![0; 3 << 20];
    disk[5000] = 1;
    disk[(3 << 20) - 1] = 1;
    for seed in 0..4 {
        let taken = assert_zeros_are_found(&disk, (u32::MAX, 256), seed, "long");
        assert_eq!(taken, (1, 2), "{seed}");
    }
    let nothing = vec![0; 3 << 20];
    assert_eq!(
        assert_zeros_are_found(&nothing, (u32::MAX, 256), 1, "all"),
        (1, 1)
    );
}

#[test]
fn inflated_zeros_are_found_and_an_output_that_takes_no_declarations_gets_them_written() {
    let mut image = Qcow2::new(16, &[Compressed, Data, Compressed]);
    image.disk[..2 << 16].fill(0);
    let built = image.build().bytes;
    check(&[&built], &image.disk, "compressed zeros");
    let run = run(&[&built], true, 1, |_| {});
    let zeroed: u64 = run.target.get().zeroed.iter().map(|part| part.1).sum();
    assert!(zeroed >= 2 << 16, "{zeroed}");
}

#[test]
fn a_disk_that_cannot_be_read_or_written_is_named() {
    let disk = Qcow2::new(16, &[Data, Data, Compressed]);
    let built = disk.build();
    let (image, entry) = (built.bytes, built.first_l2);
    let entry = u64::from_be_bytes(image[entry..entry + 8].try_into().unwrap());
    let failed = |run: Trial| run.outcome.result.unwrap_err();
    let data = (entry & 0x00ff_ffff_ffff_fe00) + 5000;
    let failure = failed(run(&[&image], true, 2, |disks| {
        disks[0].get().bad.insert(data);
    }));
    assert_eq!((failure.op, failure.device), (Op::Read, "input"));
    // It is the one at which the request began that met the bad byte.
    let bad = data / 512;
    assert!((bad - 256..=bad).contains(&failure.sector), "{failure:?}");
    for seed in 0..8 {
        let run = run(&[&image], true, seed, |disks| {
            disks[1].get().bad.insert(140_000);
        });
        // Blocks have 128 KiB.
        let (outcome, target) = (run.outcome, run.target.get());
        let failure = outcome.result.unwrap_err();
        assert_eq!((failure.op, failure.device), (Op::Write, "output"));
        assert_eq!(failure.sector, 256);
        // What is counted as converted is there.
        let converted = outcome.count as usize * 512;
        assert!(target.data[..converted] == disk.disk[..converted]);
    }
    let failure = failed(run(&[&image], true, 4, |disks| {
        disks[0].get().bad.insert(0);
    }));
    assert_eq!((failure.op, failure.device), (Op::Read, "input"));
}

#[test]
fn raw_disks_of_any_size_make_an_image_without_clusters_of_zeros() {
    let cluster = CLUSTER as usize;
    for size in [
        1,
        511,
        512,
        513,
        cluster - 1,
        cluster,
        cluster + 1,
        5 * cluster + 300,
    ] {
        let all = support::pattern(1, size);
        check(&[&all], &all, &format!("{size}"));
        let mut last = vec![0; size];
        last[size - 1] = 1;
        // Without a signature it is raw, as the test allows; so that it is found, there is data.
        check(&[&last], &last, &format!("the last of {size}"));
        check(
            &[&vec![0; size]],
            &vec![0; size],
            &format!("nothing of {size}"),
        );
    }
}

#[test]
fn an_image_that_does_not_fit_names_the_output_and_its_room() {
    let disk = support::pattern(1, 300_000);
    // Also such as end within a cluster.
    for room in (0..10 << 16).step_by(24 << 10) {
        let run = run_to(ConvertFormat::Qcow2, &[&disk], true, 1, |disks| {
            disks[1].get().data.truncate(room as usize);
        });
        // Header, refcount table, L1 table, five clusters, L2 table and refcounts.
        let Err(failure) = run.outcome.result else {
            panic!("{room} bytes were enough");
        };
        assert_eq!((failure.op, failure.device), (Op::Room, "output"));
        assert!(failure.sector * 512 > room, "{failure:?} with {room}");
        assert!(failure.sector * 512 <= 10 << 16, "{failure:?}");
    }
    let run = run_to(ConvertFormat::Qcow2, &[&disk], true, 1, |disks| {
        disks[1].get().data.truncate(10 << 16);
    });
    assert_eq!(run.outcome.length, 10 << 16);
    assert!(run.outcome.result.is_ok());
}

#[test]
fn an_image_that_lay_there_is_none_any_more_when_a_conversion_fails() {
    let old = support::pattern(7, 300_000);
    let old = qcow2(&[&old], &old, 1, "the old image");
    // Longer, so that nothing of the old image is left where the new one has its tables.
    let disk = support::pattern(8, 500_000);
    for seed in 0..8 {
        let run = run_to(ConvertFormat::Qcow2, &[&disk], true, seed, |disks| {
            disks[1].get().data[..old.len()].copy_from_slice(&old);
            disks[0].get().bad.insert(450_000);
        });
        let failure = run.outcome.result.unwrap_err();
        assert_eq!((failure.op, failure.device), (Op::Read, "input"));
        let target = run.target.get();
        assert!(
            target.data[..CLUSTER as usize]
                .iter()
                .all(|&byte| byte == 0)
        );
    }
    // What cannot be cleared is not written to.
    let run = run_to(ConvertFormat::Qcow2, &[&disk], true, 1, |disks| {
        disks[1].get().bad.insert(9);
    });
    assert!(run.outcome.result.is_err());
    assert_eq!(run.target.get().changes, []);
}

#[test]
fn a_flush_that_fails_before_the_header_leaves_none() {
    let disk = support::pattern(8, 500_000);
    let run = run_to(ConvertFormat::Qcow2, &[&disk], true, 1, |disks| {
        disks[1].get().flush_fails = true;
    });
    let failure = run.outcome.result.unwrap_err();
    assert_eq!((failure.op, failure.device), (Op::Flush, "output"));
    assert_eq!(run.target.get().data[..4], [0; 4]);
}

#[test]
fn a_table_that_cannot_be_written_fails_the_conversion() {
    let disk = support::pattern(1, 300_000);
    // One of each kind, and data; also a device that fails when its head is to be cleared.
    for cluster in [0, 1, 2, 4, 8, 9] {
        let run = run_to(ConvertFormat::Qcow2, &[&disk], true, 3, |disks| {
            disks[1].get().bad.insert((cluster << 16) + 9);
        });
        let failure = run.outcome.result.unwrap_err();
        assert_eq!((failure.op, failure.device), (Op::Write, "output"));
        // A cluster of data is named by its sector of the disk, of which it is the first here.
        let sector = if cluster == 4 { 0 } else { cluster * 128 };
        assert_eq!(failure.sector, sector, "{cluster}");
    }
}

#[test]
fn what_lies_in_the_file_as_it_is_goes_by_large_requests() {
    let disk = support::pattern(3, (1 << 20) + 300);
    let source = RefCell::new(None);
    let run = run(&[&disk], true, 1, |disks| {
        source.replace(Some(Rc::clone(&disks[0])));
    });
    assert_eq!(run.outcome.result.unwrap(), Some(digest_of(&disk)));
    let source = source.take().unwrap();
    // Nine for the disk, and some to find out what it is.
    assert!(source.get().served < 32, "{}", source.get().served);
}

#[test]
fn sectors_of_a_vhd_that_were_never_written_go_by_large_requests_and_have_to_be_zero() {
    const BLOCK: usize = 1 << 20;
    let mut image = Vhd::new(false, &[Data, Data], BLOCK, 2 * BLOCK);
    // The first block is written to one half, and the second one not at all.
    image.disk[BLOCK / 2..].fill(0);
    let mut bytes = image.build();
    let (first, second) = (2048, 2048 + 512 + BLOCK);
    bytes[first + 128..first + 256].fill(0);
    bytes[second..second + 256].fill(0);
    check(&[&bytes], &image.disk, "unwritten sectors");
    let served = RefCell::new(None);
    let trial = run(&[&bytes], true, 1, |disks| {
        served.replace(Some(Rc::clone(&disks[0])));
    });
    assert!(trial.outcome.result.is_ok());
    let served = served.take().unwrap().get().served;
    assert!(served < 64, "{served} requests");
    // Over such a disk others may lie.
    let mut over = Qcow2::new(16, &[Hole; 32]);
    over.backing = Some("base.vhd");
    check(
        &[&over.build().bytes, &bytes],
        &image.disk,
        "a backing file",
    );
    for spoilt in [first + 512 + BLOCK / 2, second + 511 + BLOCK] {
        let mut bytes = bytes.clone();
        bytes[spoilt] = 7;
        for format in [ConvertFormat::Raw, ConvertFormat::Qcow2] {
            let trial = run_to(format, &[&bytes], true, 1, |_| {});
            let failure = trial.outcome.result.unwrap_err();
            assert_eq!(failure.op, Op::Refused, "{failure:?}");
            let place = format!("(byte {spoilt} of the file, 0x7)");
            let detail = failure.detail.as_str();
            assert!(detail.starts_with("stale-sectors"), "{detail}");
            assert!(detail.ends_with(&place), "{detail}");
        }
    }
}

#[test]
fn the_sectors_of_a_hole_are_passed_at_once() {
    let image = Qcow2::new(16, &[Hole, Hole, Hole, Data, Hole]).build();
    let run = run(&[&image.bytes], true, 1, |disks| {
        disks[1].get().zero_limits = (u32::MAX, 256);
    });
    assert!(run.outcome.result.is_ok());
    // The second one lies behind a block that is on its way, and is reported with it.
    assert_eq!(run.skipped, [3 * 128]);
}

#[test]
fn few_slots_on_the_disks_that_are_read_are_enough() {
    let mut image = Qcow2::new(19, &[Compressed; 4]);
    image.disk = support::pattern(4, 4 << 19);
    let large = image.build().bytes;
    let small = Qcow2::new(16, &[Data, Compressed, Hole, Compressed, Data]);
    for (bytes, disk) in [(&large, &image.disk), (&small.build().bytes, &small.disk)] {
        for queue in [8, 16] {
            let run = run(&[bytes], true, 2, |disks| {
                disks[0].get().queue_max = queue;
            });
            assert_eq!(run.outcome.result.unwrap(), Some(digest_of(disk)));
            assert!(run.target.get().data[..disk.len()] == *disk);
        }
    }
}

#[test]
fn blocks_behind_one_that_is_late_wait_until_there_is_a_number_for_them() {
    // Each a block of its own, more than there can be at once.
    let puts = [Hole, Data].repeat(80);
    let image = Qcow2::new(12, &puts);
    let built = image.build();
    // Not the first one, which is looked at to find out what it is.
    let entry = built.first_l2 + 5 * 8;
    let entry = u64::from_be_bytes(built.bytes[entry..entry + 8].try_into().unwrap());
    let late = entry & 0x00ff_ffff_ffff_fe00;
    for seed in 0..8 {
        let setup = Setup {
            seed,
            digest: false,
            ..Setup::default()
        };
        let run = setup.run(&[&built.bytes], |disks| {
            disks[0].get().late = Some((late, 66));
            disks[1].get().zero_limits = (u32::MAX, 256);
        });
        assert_eq!(run.outcome.result, Ok(None));
        assert!(
            run.target.get().data[..image.disk.len()] == image.disk,
            "{seed}"
        );
    }
}

#[test]
fn much_memory_does_not_make_more_fetches_than_there_are() {
    let mut image = Qcow2::new(16, &[Compressed; 40]);
    image.disk = support::pattern(6, 40 << 16);
    let bytes = image.build().bytes;
    for seed in 0..4 {
        let setup = Setup {
            seed,
            memory: 4 << 20,
            ..Setup::default()
        };
        let run = setup.run(&[&bytes], |_| {});
        assert_eq!(run.outcome.result, Ok(Some(digest_of(&image.disk))));
        assert!(run.target.get().data[..image.disk.len()] == image.disk);
    }
}

#[test]
fn a_large_cluster_that_inflates_to_too_little_is_refused() {
    let mut image = Qcow2::new(19, &[Compressed]);
    image.disk = support::pattern(9, 1 << 19);
    let built = image.build();
    let entry = &built.bytes[built.first_l2..built.first_l2 + 8];
    let entry = u64::from_be_bytes(entry.try_into().unwrap());
    let offset = (entry & ((1 << (62 - (19 - 8))) - 1)) as usize;
    let mut bytes = built.bytes;
    let short = miniz_oxide::deflate::compress_to_vec(&[7; 300_000], 6);
    bytes[offset..offset + short.len()].copy_from_slice(&short);
    let failure = run(&[&bytes], true, 1, |_| {}).outcome.result.unwrap_err();
    assert_eq!((failure.op, failure.device), (Op::Broken, "input"));
}

/// How long they are only their markers tell. If each counted as the most that there can be, it would
/// be more than may be read.
#[test]
fn short_grains_before_holes_are_no_more_work_than_others() {
    let grain = 65536;
    let mut image = Vmdk::new(true, &[Compressed, Hole].repeat(32), grain, 64 * grain);
    for start in (0..64 * grain).step_by(2 * grain) {
        image.disk[start..start + grain].fill(7);
        image.disk[start..start + 600].copy_from_slice(&support::pattern(3, 600));
    }
    let bytes = image.build();
    assert!(32 * 2 * grain > 8 * bytes.len());
    check_raw(&[&bytes], &image.disk, "grains and holes");
}

#[test]
fn large_grains_are_found_behind_their_markers() {
    let grain = 256 << 10;
    let mut image = Vmdk::new(true, &[Compressed, Hole, Compressed], grain, 3 * grain);
    image.disk[..grain].copy_from_slice(&support::pattern(1, grain));
    image.disk[2 * grain..].copy_from_slice(&support::pattern(2, grain));
    let mut bytes = image.build();
    check(&[&bytes], &image.disk, "large grains");
    // The first grain is shown in the place of the second, too, which is not what its marker says.
    let field = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    let directory = field(bytes.len() - 1024 + 56) * 512;
    let table = (field(directory) & 0xffff_ffff) * 512;
    bytes.copy_within(table..table + 4, table + 4);
    let failure = run(&[&bytes], true, 1, |_| {}).outcome.result.unwrap_err();
    assert_eq!((failure.op, failure.device), (Op::Broken, "input"));
}

#[test]
fn tables_of_data_that_lie_far_apart_are_all_written() {
    // A disk of four L2 tables, each of 512 MiB, at the start of which is the same data.
    let image = Qcow2::new(16, &[Data]);
    let built = image.build();
    let mut bytes = built.bytes;
    bytes[24..32].copy_from_slice(&(1537_u64 << 20).to_be_bytes());
    bytes[36..40].copy_from_slice(&4_u32.to_be_bytes());
    for index in 1..4 {
        bytes.copy_within(built.l1..built.l1 + 8, built.l1 + 8 * index);
    }
    for seed in 0..4 {
        let setup = Setup {
            format: ConvertFormat::Qcow2,
            seed,
            digest: false,
            ..Setup::default()
        };
        let run = setup.run(&[&bytes], |_| {});
        assert_eq!(run.outcome.result, Ok(None));
        let made = run.output();
        assert_is_sound(&made, 4, "far apart");
        let mut opened = support::open(&made).unwrap();
        // A table lies behind the clusters that it maps.
        for (index, cluster) in (0..4).zip([3, 5, 7, 9]) {
            let mapping = opened.map(&mut &made[..], index << 29).unwrap();
            let guest_formats::Content::Data { offset } = mapping.content else {
                panic!("{mapping:?}");
            };
            assert_eq!(offset, cluster * CLUSTER, "{index}");
            let offset = offset as usize;
            assert!(made[offset..offset + image.disk.len()] == image.disk);
        }
    }
}

/// A disk of two L2 tables with data at the end of the first one's part and the start of the second's.
#[test]
fn the_same_disk_makes_the_same_file_in_whatever_pieces_it_is_read() {
    const MAPS: usize = 8192;
    const UNIT: usize = CLUSTER as usize;
    let mut image = Qcow2::new(16, &[Data; 4]);
    image.disk[..UNIT].fill(0);
    let built = image.build();
    let entry = |index: usize| {
        let at = built.first_l2 + index * 8;
        built.bytes[at..at + 8].to_vec()
    };
    let entries: Vec<_> = (0..4).map(entry).collect();
    let set = |bytes: &mut [u8], at: usize, value: &[u8]| bytes[at..at + 8].copy_from_slice(value);
    // Which cluster of the file has which part of the disk: `places` in their order. With `zeros` there
    // is a cluster of zeros before the data.
    let variant = |places: [usize; 3], zeros: bool| {
        let mut bytes = built.bytes.clone();
        let second = bytes.len().next_multiple_of(UNIT);
        bytes.resize(second + UNIT, 0);
        bytes[24..32].copy_from_slice(&(1_u64 << 30).to_be_bytes());
        bytes[36..40].copy_from_slice(&2_u32.to_be_bytes());
        bytes[built.first_l2..built.first_l2 + 32].fill(0);
        set(
            &mut bytes,
            built.l1 + 8,
            &(second as u64 | 1 << 63).to_be_bytes(),
        );
        if zeros {
            set(&mut bytes, built.first_l2 + (MAPS - 2) * 8, &entries[0]);
        }
        let disk = [built.first_l2 + (MAPS - 1) * 8, second, second + 8];
        let offset = |index: usize| {
            let entry = u64::from_be_bytes(entries[index].as_slice().try_into().unwrap());
            (entry << 8 >> 8) as usize
        };
        let data: Vec<_> = (1..4)
            .map(|index| built.bytes[offset(index)..][..UNIT].to_vec())
            .collect();
        for ((at, place), data) in disk.into_iter().zip(places).zip(data) {
            set(&mut bytes, at, &entries[place]);
            bytes[offset(place)..][..UNIT].copy_from_slice(&data);
        }
        bytes
    };
    let convert = |bytes: &[u8]| {
        let setup = Setup {
            format: ConvertFormat::Qcow2,
            digest: false,
            ..Setup::default()
        };
        let run = setup.run(&[bytes], |_| {});
        assert_eq!(run.outcome.result, Ok(None));
        run.output()
    };
    let made = convert(&variant([1, 2, 3], false));
    assert_is_sound(&made, 3, "two tables");
    for places in [[1, 2, 3], [3, 2, 1], [2, 3, 1]] {
        for zeros in [false, true] {
            let other = convert(&variant(places, zeros));
            assert!(other == made, "{places:?} {zeros}");
        }
    }
    assert!(convert(&made) == made, "its own output");
}

#[path = "chain_tests.rs"]
mod chain;

#[path = "hole_tests.rs"]
mod holes;
