//! The whole copy, between two disks in memory.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::panic)]

use std::cell::RefCell;
use std::rc::Rc;

use disks::Disks;
use engine::{Engine, Extras};
use plan::{DiskShape, Plan, request_size};
use proptest::prelude::*;
use proptest::sample::Index;

use skip::Selection;

use super::*;
use crate::config::Config;
use guest_kit::digest::Hasher;
use guest_kit::testing::Device;
use guest_kit::testing::disk::{FakeDisk, Mischief};
use guest_kit::testing::memory::leak;
use guest_kit::testing::ports_with;
use guest_kit::testing::program::Counts;
use guest_kit::virtio::block::{BlockDevice, F_FLUSH, F_SIZE_MAX, Purpose};
use guest_kit::virtio::mmio::F_EVENT_IDX;
use guest_kit::zeros::Search;
use guest_protocol::{DataList, NO_STATUS};

/// What fills each sector of an input, from a place of the sector's own.
const PATTERN: [u8; 768] = {
    let mut bytes = [0; 768];
    let mut index = 0;
    while index < bytes.len() {
        bytes[index] = (index * 31 + 1) as u8;
        index += 1;
    }
    bytes
};

/// What is copied, and how.
#[derive(Clone, Copy, Debug)]
struct Job {
    input: u32,
    output: u32,
    /// Length of the file behind the input disk.
    len: usize,
    request: u32,
    depth: u32,
    seed: u64,
}

impl Default for Job {
    fn default() -> Self {
        Self {
            input: 512,
            output: 512,
            len: 50 * 512,
            request: 4096,
            depth: 4,
            seed: 0,
        }
    }
}

struct Setup {
    job: Job,
    source: Rc<FakeDisk>,
    target: Rc<FakeDisk>,
    list: Option<DataList<'static>>,
    search: bool,
    digest: bool,
    verify: bool,
    /// The memory for data on its way, in bytes.
    pool: usize,
    /// Up to which sectors there were holes, in the last copy.
    skipped: RefCell<Vec<u64>>,
}

impl Setup {
    fn new(job: Job) -> Self {
        let mut source = vec![0; job.len.next_multiple_of(job.input as usize)];
        for (number, sector) in source[..job.len].chunks_mut(512).enumerate() {
            sector.copy_from_slice(&PATTERN[number * 7 % 256..][..sector.len()]);
        }
        let room = job.len.next_multiple_of(job.output as usize);
        Self {
            job,
            source: FakeDisk::new(source, job.input, job.seed),
            target: FakeDisk::new(vec![0xee; room], job.output, job.seed ^ 1),
            list: None,
            search: false,
            digest: false,
            verify: false,
            pool: 1 << 20,
            skipped: RefCell::default(),
        }
    }

    fn run(&self) -> (CopyEnd, Vec<u64>) {
        let job = self.job;
        let open = |disk: &Rc<FakeDisk>, purpose| {
            BlockDevice::init(Rc::clone(disk), leak(0x1_0000), purpose, 85, |_| {}).unwrap()
        };
        let devices: [Rc<dyn Device>; 2] = [self.source.clone(), self.target.clone()];
        let ports = ports_with(&[], devices, job.seed ^ 2);
        ports.tick_by(3);
        let mut disks = Disks::new(
            &ports,
            open(&self.source, Purpose::Read),
            open(&self.target, Purpose::Write),
        );
        let config = Config {
            input_sector: job.input,
            output_sector: job.output,
            progress_percent: 100,
            protocol: guest_protocol::Protocol::Protobuf,
            transport: guest_protocol::Transport::Serial,
            request_size: job.request,
            queue_depth: job.depth,
            sparse: guest_protocol::Sparse::Auto,
            data: DataList::everything(),
            data_in_pool: 0,
            digest: None,
            verify: false,
        };
        let (from, to) = (disks.input.config(), disks.output.config());
        let request = request_size(&config, from, to).unwrap();
        let source = DiskShape::new(Side::Input, from, job.input).unwrap();
        let target = DiskShape::new(Side::Output, to, job.output).unwrap();
        let plan = Plan::new(source, target, request).unwrap();
        let mut pool = leak(self.pool);
        let mut counts = Counts::default();
        let parts = match &self.list {
            Some(list) => Selection::new(plan, list),
            None => Selection::everything(plan),
        };
        let extras = Extras {
            zeros: self
                .search
                .then(|| {
                    Search::new(
                        plan.block(),
                        plan.request_size(),
                        disks.output.config().zeroes,
                    )
                })
                .flatten(),
            digest: self.digest.then(|| Hasher::new(job.len as u64)),
            verify: self.verify,
        };
        let copy = (plan, parts);
        let engine = Engine::new(copy, extras, &mut disks, &mut pool, &mut counts, job.depth);
        let outcome = engine.run();
        self.skipped.replace(counts.1);
        (outcome, counts.0)
    }

    fn sectors(&self) -> u64 {
        (self.source.get().data.len() / self.job.input as usize) as u64
    }

    /// The file's bytes and zeros behind them.
    fn assert_copied(&self) {
        let (source, target) = (self.source.get(), self.target.get());
        let (file, filling) = target.data.split_at(self.job.len);
        assert_eq!(file, &source.data[..self.job.len]);
        assert!(
            filling == vec![0; filling.len()],
            "not filled up with zeros"
        );
    }

    fn assert_copies_all(&self) {
        let (outcome, counts) = self.run();
        let count = self.sectors();
        assert_eq!(
            outcome,
            CopyEnd {
                count,
                result: Ok(()),
                digest: None,
                digest_ticks: 0,
            }
        );
        assert_eq!(counts.last(), Some(&count));
        self.assert_copied();
    }
}

fn sector() -> impl Strategy<Value = u32> {
    (9_u32..=16).prop_map(|bits| 1 << bits)
}

fn job() -> impl Strategy<Value = Job> {
    let small = 0_usize..if cfg!(miri) { 4000 } else { 300_000 };
    let depth = prop_oneof![1_u32..20, Just(u32::MAX)];
    (sector(), sector(), small, 1_u32..9, depth, any::<u64>()).prop_map(
        |(input, output, len, multiple, depth, seed)| {
            let request = input.max(output) * multiple;
            Job {
                input,
                output,
                len,
                request,
                depth,
                seed,
            }
        },
    )
}

#[test]
#[cfg_attr(miri, ignore = "384 copies take Miri hours")]
fn every_pair_of_sector_sizes_copies_exactly() {
    for input in 9..=16 {
        for output in 9..=16 {
            for len in [1, 511, 512, 65_535, 65_537, 200_000] {
                let (input, output) = (1 << input, 1 << output);
                let request = input.max(output);
                let job = Job {
                    input,
                    output,
                    len,
                    request,
                    ..Job::default()
                };
                Setup::new(job).assert_copies_all();
            }
        }
    }
}

#[test]
fn nothing_is_copied_without_a_request() {
    let setup = Setup::new(Job {
        len: 0,
        ..Job::default()
    });
    setup.target.get().features &= !F_FLUSH;
    let (outcome, _) = setup.run();
    assert_eq!(
        outcome,
        CopyEnd {
            count: 0,
            result: Ok(()),
            digest: None,
            digest_ticks: 0,
        }
    );
    assert_eq!(
        (setup.source.get().served, setup.target.get().served),
        (0, 0)
    );
}

#[test]
fn the_output_is_flushed_once_at_the_end_if_it_can_be() {
    let setup = Setup::new(Job::default());
    setup.assert_copies_all();
    assert_eq!(setup.target.get().flushes, 1);
    assert_eq!(setup.source.get().flushes, 0);
}

#[test]
fn a_flush_that_fails_fails_the_copy_with_everything_counted() {
    let setup = Setup::new(Job::default());
    setup.target.get().flush_fails = true;
    let (outcome, _) = setup.run();
    let failure = Failure::answered(Op::Flush, Side::Output.name(), 0, 1);
    assert_eq!(
        outcome,
        CopyEnd {
            count: 50,
            result: Err(failure),
            digest: None,
            digest_ticks: 0,
        }
    );
}

#[test]
fn an_output_that_fails_at_the_flush_has_not_been_flushed() {
    let setup = Setup::new(Job::default());
    setup.target.get().mischief = Some((7, Mischief::NeedsReset));
    let (outcome, _) = setup.run();
    let failure = outcome.result.unwrap_err();
    assert_eq!((failure.op, failure.device), (Op::Flush, "output"));
    assert_eq!(outcome.count, 50);
}

#[test]
fn a_depth_of_one_is_one_request_at_a_time() {
    let setup = Setup::new(Job {
        request: 512,
        depth: 1,
        ..Job::default()
    });
    setup.assert_copies_all();
    for disk in [&setup.source, &setup.target] {
        assert_eq!(disk.get().most_at_once, 1);
    }
    assert_eq!(setup.source.get().kicks, 50);
}

#[test]
#[cfg_attr(miri, ignore = "8 MiB take Miri an hour")]
fn a_depth_beyond_everything_fills_the_pool_and_kicks_seldom() {
    let len = 8 << 20;
    let request = 65536;
    let setup = Setup::new(Job {
        len,
        request,
        depth: u32::MAX,
        ..Job::default()
    });
    setup.assert_copies_all();
    assert_eq!(setup.source.get().most_at_once, 16);
    assert!(setup.source.get().kicks < 128 / 2);
}

#[test]
fn a_device_that_takes_less_gets_smaller_requests() {
    let setup = Setup::new(Job {
        request: 65536,
        ..Job::default()
    });
    setup.target.get().features |= F_SIZE_MAX;
    setup.target.get().size_max = 1500;
    setup.assert_copies_all();
    assert_eq!(setup.source.get().served, 25);
}

#[test]
fn a_small_queue_is_enough() {
    let setup = Setup::new(Job {
        depth: 100,
        ..Job::default()
    });
    setup.source.get().queue_max = 4;
    setup.target.get().queue_max = 7;
    setup.assert_copies_all();
}

#[test]
fn a_disk_that_misbehaves_ends_the_copy_with_its_name_and_no_panic() {
    let (sectors, from) = if cfg!(miri) { (12, 5) } else { (50, 20) };
    for mischief in [
        Mischief::UsedId(300),
        Mischief::UsedId(u32::MAX),
        Mischief::UsedId(1),
        Mischief::UsedIndex,
        Mischief::Written(u32::MAX),
        Mischief::NoStatus,
        Mischief::NeedsReset,
    ] {
        for (disk, op) in [(Side::Input, Op::Read), (Side::Output, Op::Write)] {
            let setup = Setup::new(Job {
                len: sectors * 512,
                request: 512,
                ..Job::default()
            });
            let bad = match disk {
                Side::Input => &setup.source,
                Side::Output => &setup.target,
            };
            bad.get().mischief = Some((from, mischief));
            let (outcome, _) = setup.run();
            let failure = outcome.result.unwrap_err();
            assert_eq!((failure.op, failure.device), (op, disk.name()));
            assert_eq!(failure.status, NO_STATUS, "{mischief:?}");
            assert!(!failure.detail.is_empty());
            assert_eq!(failure.sector, outcome.count);
            assert!(outcome.count <= from as u64);
        }
    }
}

#[test]
fn a_depth_beyond_the_disks_is_no_reason_to_hang_without_event_indices() {
    let setup = Setup::new(Job {
        depth: u32::MAX,
        request: 512,
        ..Job::default()
    });
    for disk in [&setup.source, &setup.target] {
        disk.get().features &= !F_EVENT_IDX;
    }
    setup.assert_copies_all();
}

/// What happens first at the block that holds each bad byte, as one request at a time would see.
fn first_failure(setup: &Setup, bad: [Option<u64>; 2]) -> Option<(u64, Failure)> {
    let job = setup.job;
    let block = u64::from(job.input.max(job.output));
    let [read, write] = bad.map(|at| at.unwrap_or(u64::MAX));
    let (op, disk, at, sector) = match read / block <= write / block {
        true => (Op::Read, Side::Input, read, job.input),
        false => (Op::Write, Side::Output, write, job.output),
    };
    (at != u64::MAX).then(|| {
        let count = at / block * block / u64::from(job.input);
        let failure = Failure::answered(op, disk.name(), at / u64::from(sector), 1);
        (count, failure)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 200 }))]

    #[test]
    fn any_combination_copies_exactly(
        job in job(),
        event_idx in any::<[bool; 2]>(),
        queue_max in 4_u32..300,
    ) {
        let setup = Setup::new(job);
        for (disk, event_idx) in [&setup.source, &setup.target].into_iter().zip(event_idx) {
            disk.get().queue_max = queue_max;
            if !event_idx {
                disk.get().features &= !F_EVENT_IDX;
            }
        }
        setup.assert_copies_all();
    }

    #[test]
    fn a_bad_sector_is_named_exactly_and_what_is_before_it_is_counted(
        job in job(),
        read in prop::option::of(any::<Index>()),
        write in prop::option::of(any::<Index>()),
    ) {
        let setup = Setup::new(Job { len: job.len.max(1), ..job });
        let place = |index: Option<Index>, disk: &FakeDisk| {
            let at = index.map(|index| index.index(disk.get().data.len()) as u64);
            disk.get().bad.extend(at);
            at
        };
        // A write beyond the input's end is never made: such a byte is not there to be bad.
        let end = setup.source.get().data.len() as u64;
        let bad = [place(read, &setup.source), place(write, &setup.target)];
        let block = u64::from(job.output);
        let bad = [bad[0], bad[1].filter(|at| *at < end.next_multiple_of(block))];
        let (outcome, counts) = setup.run();
        match first_failure(&setup, bad) {
            None => prop_assert_eq!(outcome.result, Ok(())),
            Some((count, failure)) => {
                let result = Err(failure);
                let end = CopyEnd { count, result, digest: None, digest_ticks: 0 };
                prop_assert_eq!(outcome, end);
                prop_assert_eq!(counts.last().copied().unwrap_or(0), count);
                let bytes = (count * u64::from(job.input)) as usize;
                let bytes = bytes.min(setup.target.get().data.len());
                let target = &setup.target.get().data[..bytes];
                prop_assert_eq!(target, &setup.source.get().data[..bytes]);
            }
        }
    }

    #[test]
    fn a_request_that_fails_once_is_made_up_for(
        job in job(),
        first in prop::collection::hash_set(0_usize..40, 0..4),
        second in prop::collection::hash_set(0_usize..40, 0..4),
    ) {
        let setup = Setup::new(job);
        setup.source.get().hiccups = first;
        setup.target.get().hiccups = second;
        let (outcome, _) = setup.run();
        // A retry may meet a hiccup too, and then the copy has failed, for a true reason.
        match outcome.result {
            Ok(()) => {
                prop_assert_eq!(outcome.count, setup.sectors());
                setup.assert_copied();
            }
            Err(failure) => prop_assert_eq!(failure.status, 1),
        }
    }
}

#[test]
fn a_single_hiccup_of_either_disk_never_fails_the_copy() {
    for number in (1..=7).step_by(if cfg!(miri) { 6 } else { 1 }) {
        for input in [true, false] {
            let setup = Setup::new(Job {
                depth: 3,
                ..Job::default()
            });
            let disk = if input { &setup.source } else { &setup.target };
            disk.get().hiccups.insert(number);
            setup.assert_copies_all();
        }
    }
}

#[path = "sparse_tests.rs"]
mod sparse;
