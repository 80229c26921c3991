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
use guest_kit::testing::disk::FakeDisk;
use guest_kit::testing::memory::leak;
use guest_kit::testing::ports_with;
use guest_kit::virtio::block::{BlockDevice, F_WRITE_ZEROES, Purpose};
use support::Put::{Compressed, Data, Hole, Zero};
use support::mutate::images;
use support::qcow2::Qcow2;

use super::*;
use crate::backing_chain::Wish;
use crate::disks::Source;
use crate::pool::PAGE;

/// Records the counts, which must never fall.
#[derive(Default)]
struct Counts(Vec<u64>);

impl Observer for Counts {
    fn done(&mut self, sectors: u64) {
        assert!(self.0.last().is_none_or(|&last| last <= sectors));
        self.0.push(sectors);
    }

    fn skipped(&mut self, _: u64) {}

    fn idle(&mut self) {}
}

struct Trial {
    outcome: ConversionEnd,
    target: Rc<FakeDisk>,
    sectors: u64,
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
    if zeros {
        target.get().features |= F_WRITE_ZEROES;
        target.get().zero_limits = (64, 3);
    }
    prepare(&disks);
    let devices = disks.iter().map(|disk| Rc::clone(disk) as Rc<dyn Device>);
    let ports = ports_with(&[], devices, seed);
    let open = |disk: &Rc<FakeDisk>, purpose| {
        BlockDevice::init(Rc::clone(disk), leak(0x1_0000), purpose, SLOTS, |_| {}).unwrap()
    };
    let sources = disks.iter().zip(files).map(|(disk, file)| {
        let device = open(disk, Purpose::Read);
        Source::new(device, file.len() as u64)
    });
    let output = open(&target, Purpose::Write);
    let mut disks = Disks::new(&ports, sources.collect(), output, leak(2 * PAGE));
    let wish = Wish {
        options: Options {
            allowed: ReasonSet::EMPTY.with(Reason::UnknownFormat),
            ..Options::default()
        },
        snapshot: b"",
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
            let mut pool = Pool::new(leak((1 << 20) - 2 * PAGE));
            let hasher = Some(Hasher::new(chain.size()));
            let (chain, disks, pool) = (&mut chain, &mut disks, &mut pool);
            let engine = Engine::new(chain, disks, pool, &mut counts, hasher, format);
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
    assert_eq!(run.target.get().flushes, 1);
    assert!(run.target.get().zeroed.is_empty());
    let image = run.output();
    let mut disk = support::disk(&image, &Options::default()).unwrap();
    let filling = disk.split_off(expected.len());
    assert!(disk == expected, "{name}");
    assert!(filling.len() < 512 && filling.iter().all(|&byte| byte == 0));
    let mut source = &image[..];
    let opened = support::open_qcow2(&image);
    let mut check = Check::new(&opened, &source, &CheckOptions::default());
    while !check.step(&mut source).unwrap() {}
    let report = check.report();
    assert_eq!((report.errors, report.leaks), (0, 0), "{name}");
    let clusters = expected.chunks(CLUSTER as usize);
    let data = clusters.filter(|cluster| cluster.iter().any(|&byte| byte != 0));
    assert_eq!(report.allocated, data.count() as u64, "{name}");
    image
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

#[test]
fn a_disk_that_cannot_be_read_or_written_is_named() {
    let built = Qcow2::new(16, &[Data, Data, Compressed]).build();
    let (image, entry) = (built.bytes, built.first_l2);
    let entry = u64::from_be_bytes(image[entry..entry + 8].try_into().unwrap());
    let failed = |run: Trial| run.outcome.result.unwrap_err();
    let data = (entry & 0x00ff_ffff_ffff_fe00) + 5000;
    let failure = failed(run(&[&image], true, 2, |disks| {
        disks[0].get().bad.insert(data);
    }));
    assert_eq!((failure.op, failure.device), (Op::Read, "input"));
    let failure = failed(run(&[&image], true, 3, |disks| {
        disks[1].get().bad.insert(70_000);
    }));
    assert_eq!((failure.op, failure.device), (Op::Write, "output"));
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
    for clusters in 0..10 {
        let run = run_to(ConvertFormat::Qcow2, &[&disk], true, 1, |disks| {
            disks[1].get().data.truncate(clusters << 16);
        });
        // Header, refcount table, L1 table, five clusters, L2 table and refcounts.
        let Err(failure) = run.outcome.result else {
            panic!("{clusters} clusters were enough");
        };
        assert_eq!((failure.op, failure.device), (Op::Write, "output"));
        let room = format!("the {} bytes", clusters << 16);
        assert!(failure.detail.contains(&room), "{}", failure.detail);
    }
    let run = run_to(ConvertFormat::Qcow2, &[&disk], true, 1, |disks| {
        disks[1].get().data.truncate(10 << 16);
    });
    assert_eq!(run.outcome.length, 10 << 16);
    assert!(run.outcome.result.is_ok());
}

#[test]
fn a_table_that_cannot_be_written_fails_the_conversion() {
    let disk = support::pattern(1, 300_000);
    // One of each kind, and data.
    for cluster in [0, 1, 2, 4, 8, 9] {
        let run = run_to(ConvertFormat::Qcow2, &[&disk], true, 3, |disks| {
            disks[1].get().bad.insert((cluster << 16) + 9);
        });
        let failure = run.outcome.result.unwrap_err();
        assert_eq!((failure.op, failure.device), (Op::Write, "output"));
    }
}
