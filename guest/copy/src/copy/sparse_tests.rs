//! Copies with holes, with zeros that are found, with a digest and with a look back.

use guest_kit::virtio::block::F_WRITE_ZEROES;
use sha2::{Digest as _, Sha256};

use super::*;

/// How long most inputs are, and which of their units of 4096 bytes are data: three of them.
const LEN: usize = if cfg!(miri) { 64 << 10 } else { 1 << 20 };
const LIST: [u64; 4] = if cfg!(miri) {
    [2, 2, 6, 1]
} else {
    [10, 2, 100, 1]
};

/// A copy of `job` with the input zero outside of `data`, which is the list, in units of 4096.
fn sparse(job: Job, lengths: &[u64]) -> Setup {
    let mut setup = Setup::new(job);
    let list = DataList::from_message(lengths);
    let len = setup.source.get().data.len() as u64;
    let mut zeroed = vec![0; len as usize];
    for range in list.ranges(len) {
        let range = range.start as usize..range.end as usize;
        zeroed[range.clone()].copy_from_slice(&setup.source.get().data[range]);
    }
    setup.source.get().data = zeroed;
    setup.target.get().features |= F_WRITE_ZEROES;
    setup.list = Some(list);
    setup
}

fn digest_of(setup: &Setup) -> [u8; 32] {
    Sha256::digest(&setup.source.get().data[..setup.job.len]).into()
}

/// A copy that is short, as digests take Miri long, and takes a few requests.
fn short_job() -> Job {
    Job {
        len: if cfg!(miri) { 3000 } else { 25_600 },
        request: 1024,
        ..Job::default()
    }
}

fn job_of(len: usize) -> Job {
    Job {
        len,
        request: 8192,
        ..Job::default()
    }
}

#[test]
fn a_hole_is_neither_read_nor_written() {
    let setup = sparse(job_of(LEN), &LIST);
    setup.assert_copies_all();
    assert_eq!(setup.source.get().bytes_read, 3 * 4096);
    let zeroed: u64 = setup.target.get().zeroed.iter().map(|part| part.1).sum();
    assert_eq!(zeroed, LEN as u64 - 3 * 4096);
    // One request for all holes, one or two for each piece of data, a flush.
    assert_eq!(setup.target.get().served, 1 + 2 + 1);
    let [first, data, second, ..] = LIST.map(|units| units * 8);
    let skipped = [first, first + data + second, LEN as u64 / 512];
    assert_eq!(*setup.skipped.borrow(), skipped);
}

#[test]
fn an_input_of_nothing_but_a_hole_takes_one_request() {
    let setup = sparse(job_of(LEN + 5), &[0]);
    setup.assert_copies_all();
    assert_eq!(setup.source.get().served, 0);
    assert_eq!(setup.target.get().served, 2);
}

#[test]
fn a_disk_that_takes_no_zeroes_or_refuses_them_is_written() {
    let (len, list) = if cfg!(miri) {
        (30_000, [1, 1, 3, 1])
    } else {
        (300_000, [3, 2, 10, 1])
    };
    for status in [None, Some(1), Some(2)] {
        for search in [false, true] {
            let mut setup = sparse(job_of(len), &list);
            setup.search = search;
            match status {
                None => setup.target.get().features &= !F_WRITE_ZEROES,
                Some(_) => setup.target.get().zeroes_fail = status,
            }
            setup.assert_copies_all();
            assert_eq!(setup.target.get().zeroed, []);
        }
    }
}

#[test]
fn a_device_that_takes_little_gets_many_declarations() {
    let setup = sparse(job_of(LEN), &LIST);
    setup.target.get().zero_limits = (16, 3);
    setup.assert_copies_all();
    assert!(setup.target.get().zeroed.len() >= LEN / 8192 - 3);
}

#[test]
fn many_declarations_are_made_at_once() {
    let setup = sparse(job_of(LEN), &[0]);
    setup.target.get().zero_limits = (16, 3);
    setup.assert_copies_all();
    assert!(setup.target.get().most_at_once > 1);
}

#[test]
fn a_copy_that_begins_with_data_has_passed_nothing_when_it_begins() {
    let setup = sparse(job_of(64 << 10), &[0, 2, 6, 8]);
    setup.assert_copies_all();
    assert_eq!(*setup.skipped.borrow(), [8 * 8]);
}

#[test]
fn a_device_that_takes_less_than_a_sector_or_no_part_at_all_is_written() {
    for (limits, taken) in [((7, 3), false), ((8, 3), true), ((64, 0), false)] {
        let job = Job {
            output: 4096,
            ..job_of(64 << 10)
        };
        let setup = sparse(job, &[2, 2, 6, 1]);
        setup.target.get().zero_limits = limits;
        setup.assert_copies_all();
        assert_eq!(!setup.target.get().zeroed.is_empty(), taken, "{limits:?}");
    }
}

#[test]
fn a_list_of_holes_is_as_long_as_the_memory_and_the_device_allow() {
    // 550 parts of 16 bytes.
    let holes = if cfg!(miri) { 60 } else { 550 };
    for limited in [false, true] {
        let job = Job {
            request: 4096,
            ..job_of(holes * 8192)
        };
        let mut setup = sparse(job, &[1].repeat(2 * holes));
        setup.target.get().zero_limits = (u32::MAX, u32::MAX);
        if limited {
            setup.target.get().features |= F_SIZE_MAX;
            setup.target.get().size_max = 8000;
        } else {
            setup.pool = 8192;
        }
        setup.assert_copies_all();
        assert_eq!(setup.target.get().zeroed.len(), holes);
    }
}

#[test]
fn zeros_are_looked_for_in_a_piece_and_not_behind_it() {
    // Seven pieces for four slots: behind the last one lies data of an earlier one.
    let setup = |seed| {
        let mut setup = Setup::new(Job {
            seed,
            ..job_of(7 * 8192)
        });
        setup.target.get().features |= F_WRITE_ZEROES;
        setup.search = true;
        setup.source.get().data[6 * 8192..][..4096].fill(0);
        setup
    };
    for seed in 0..4 {
        let setup = setup(seed);
        setup.assert_copies_all();
        assert_eq!(setup.target.get().zeroed, [(6 * 8192, 4096)]);
    }
}

#[test]
fn blocks_of_zeros_are_found_whatever_the_size_of_the_requests() {
    for request in [512, 1536, 3072, 5120, 64_000] {
        let mut setup = Setup::new(Job {
            request,
            ..job_of(64 << 10)
        });
        setup.target.get().features |= F_WRITE_ZEROES;
        setup.search = true;
        // Three whole blocks of 4096 bytes, and a part of one on each side.
        setup.source.get().data[3000..18_000].fill(0);
        setup.assert_copies_all();
        let zeroed = setup.target.get().zeroed.clone();
        let covered: Vec<_> = (4096..16_384)
            .step_by(512)
            .filter(|at| {
                zeroed
                    .iter()
                    .any(|(start, len)| (*start..start + len).contains(at))
            })
            .collect();
        assert_eq!(covered.len(), 3 * 8, "{request}: {zeroed:?}");
    }
}

#[test]
fn how_long_the_digest_takes_is_the_sum_of_its_parts() {
    let mut setup = Setup::new(Job::default());
    setup.digest = true;
    let (outcome, _) = setup.run();
    assert_eq!(outcome.digest, Some(digest_of(&setup)));
    // Seven pieces and the end.
    assert_eq!(outcome.digest_ticks, 8 * 3);
    // A piece that is done again takes as long at least.
    let mut setup = Setup::new(Job::default());
    setup.digest = true;
    setup.source.get().hiccups.insert(0);
    let (outcome, _) = setup.run();
    assert_eq!(outcome.digest, Some(digest_of(&setup)));
    assert!(outcome.digest_ticks >= 8 * 3, "{}", outcome.digest_ticks);
}

#[test]
fn zeros_that_are_found_are_declared_only_if_that_is_wanted() {
    for search in [false, true] {
        let mut setup = sparse(job_of(LEN), &LIST);
        setup.list = None;
        setup.search = search;
        setup.assert_copies_all();
        assert_eq!(setup.source.get().bytes_read, LEN as u64);
        let zeroed: u64 = setup.target.get().zeroed.iter().map(|part| part.1).sum();
        let expected = if search { LEN as u64 - 3 * 4096 } else { 0 };
        assert_eq!(zeroed, expected);
    }
}

#[test]
fn an_output_that_came_out_wrong_fails_the_verification() {
    let mut setup = Setup::new(short_job());
    (setup.digest, setup.verify) = (true, true);
    setup.target.get().corrupt = Some(2100);
    let failure = setup.run().0.result.unwrap_err();
    assert_eq!((failure.op, failure.device), (Op::Verify, "output"));
    assert!(failure.detail.starts_with("what was read back has sha256 "));
    assert!(
        failure
            .detail
            .contains(&guest_protocol::hex(&digest_of(&setup)))
    );
}

#[test]
fn an_output_that_cannot_be_read_back_fails_with_its_sector() {
    let mut setup = Setup::new(short_job());
    (setup.digest, setup.verify) = (true, true);
    setup.target.get().unreadable = Some(2048);
    let failure = setup.run().0.result.unwrap_err();
    assert_eq!((failure.op, failure.sector), (Op::Verify, 4));
    assert_eq!(failure.status, 1);
}

#[test]
fn an_output_that_fails_while_it_is_read_back_is_not_verified() {
    let mut setup = Setup::new(Job::default());
    (setup.digest, setup.verify) = (true, true);
    // Seven writes, a flush and a read before it.
    setup.target.get().mischief = Some((9, Mischief::NeedsReset));
    let (outcome, _) = setup.run();
    let failure = outcome.result.unwrap_err();
    assert_eq!((failure.op, failure.device), (Op::Verify, "output"));
    assert_eq!(outcome.digest, None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 200 }))]

    #[test]
    fn any_combination_copies_exactly_and_has_the_digest_of_the_bytes(
        job in job(),
        list in prop::option::of(prop::collection::vec(0_u64..20, 0..12)),
        search in any::<bool>(),
        verify in any::<bool>(),
        takes_zeroes in any::<bool>(),
        first in prop::collection::hash_set(0_usize..40, 0..2),
        second in prop::collection::hash_set(0_usize..40, 0..2),
    ) {
        let mut setup = match list {
            Some(lengths) => sparse(job, &lengths),
            None => Setup::new(job),
        };
        (setup.search, setup.digest, setup.verify) = (search, true, verify);
        if takes_zeroes {
            setup.target.get().features |= F_WRITE_ZEROES;
        } else {
            setup.target.get().features &= !F_WRITE_ZEROES;
        }
        setup.source.get().hiccups = first;
        setup.target.get().hiccups = second;
        let (outcome, _) = setup.run();
        match outcome.result {
            Ok(()) => {
                prop_assert_eq!(outcome.count, setup.sectors());
                prop_assert_eq!(outcome.digest, Some(digest_of(&setup)));
                setup.assert_copied();
            }
            // A second hiccup in a row, or one while it is read back.
            Err(failure) => {
                prop_assert_eq!(failure.status, 1);
                prop_assert_eq!(outcome.digest, None);
            }
        }
    }
}
