//! What a driver can make the device do in one turn and in one round, since whoever stops it has to wait
//! for that: flushes, parts that become zero and empty descriptors have no data that would count.

use super::*;
use crate::virtio::testing::DATA;

const WRITE_ZEROES: u32 = 13;

/// A driver with a long queue, in which one request is available many times.
fn many(kind: u32, data: &[(u64, u32, u16)], count: usize) -> Rig {
    let mut rig = Rig::with_zeroes(512);
    rig.driver.start(VERSION_1 | F_FLUSH | F_ZEROES, 2048);
    rig.work();
    let (header, status) = rig.driver.header(0, kind, 0);
    let mut parts = vec![(header, 16, 0)];
    parts.extend_from_slice(data);
    parts.push((status, 1, WRITE));
    let head = rig.driver.chain(&parts);
    (0..count).for_each(|_| rig.driver.make_available(head));
    rig
}

/// How many calls of the storage each round makes until all requests are answered.
fn calls_of_rounds(rig: &Rig) -> Vec<usize> {
    let mut calls = Vec::new();
    rig.driver.write(0x50, 0);
    while rig.block.in_flight() {
        rig.work();
        calls.push(rig.calls().len());
    }
    calls
}

/// How many of the requests each turn takes.
fn taken_by_turns(rig: &Rig) -> Vec<usize> {
    let config = BlockConfig {
        zeroes: true,
        ..config(512, false)
    };
    let mut taken = Vec::new();
    rig.each_batch(&config, |batch| taken.push(batch.requests.len()));
    taken
}

#[test]
fn a_turn_has_few_flushes_and_a_round_not_many() {
    let rig = many(FLUSH, &[], 64);
    assert_eq!(taken_by_turns(&rig), [4; 16]);
    let rounds = calls_of_rounds(&rig);
    assert_eq!(rounds.iter().sum::<usize>(), 64);
    assert!(rounds.iter().all(|&flushes| flushes <= 16), "{rounds:?}");
    assert_eq!(rig.driver.used_index(), 64);
}

#[test]
#[cfg_attr(miri, ignore = "8,192 parts take Miri minutes")]
fn a_turn_has_some_hundred_parts_that_become_zero_and_a_round_some_thousand() {
    // A list of 256 parts of one sector each.
    let rig = many(WRITE_ZEROES, &[(DATA, 256 * 16, 0)], 32);
    let part = [0_u64.to_le_bytes(), 1_u64.to_le_bytes()].concat();
    let list = part.repeat(256);
    let memory = &rig.driver.memory;
    memory.write_slice(&list, GuestAddress(DATA)).unwrap();
    assert_eq!(taken_by_turns(&rig), [2; 16]);
    let rounds = calls_of_rounds(&rig);
    assert_eq!(rounds.iter().sum::<usize>(), 32 * 256);
    assert!(rounds.iter().all(|&parts| parts <= 2048), "{rounds:?}");
    assert_eq!(rig.block.counters().errors, 0);
}

#[test]
#[cfg_attr(miri, ignore = "130,000 descriptors take Miri hours")]
fn a_turn_ends_after_many_descriptors_although_they_are_empty() {
    let rig = many(OUT, &[(DATA, 0, 0); 2046], 64);
    assert_eq!(taken_by_turns(&rig), [8; 8]);
}
