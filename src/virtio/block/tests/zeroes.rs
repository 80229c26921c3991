//! Requests that make parts of the disk zero or forget them, right and wrong (virtio 1.2, section
//! 5.2.6).

use super::*;
use crate::virtio::testing::{DATA, HEADERS};

const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;
/// The status byte of slot 0.
const STATUS: u64 = HEADERS + 16;
const SECTORS: u64 = CAPACITY / 512;

/// A part of the list: first sector, how many, flags.
type Part = (u64, u32, u32);

fn rig() -> Rig {
    let mut rig = Rig::with_zeroes(512);
    rig.start(VERSION_1);
    rig
}

fn list(parts: &[Part]) -> Vec<u8> {
    let part = |&(sector, sectors, flags): &Part| {
        let words = [sectors.to_le_bytes(), flags.to_le_bytes()].concat();
        [sector.to_le_bytes().to_vec(), words].concat()
    };
    parts.iter().flat_map(part).collect()
}

impl Rig {
    /// Sends a list in one descriptor and returns the status.
    fn zero(&mut self, kind: u32, parts: &[Part]) -> u8 {
        let list = list(parts);
        let len = u32::try_from(list.len()).unwrap();
        let memory = &self.driver.memory;
        memory.write_slice(&list, GuestAddress(DATA)).unwrap();
        let answer = self.send(kind, 0, &[(DATA, len, 0), (STATUS, 1, WRITE)]);
        let (status, written) = answer.unwrap();
        assert_eq!(written, 1);
        status
    }

    fn contents(&self) -> Vec<u8> {
        self.block.storage().storage.contents()
    }
}

#[test]
fn parts_become_zero_and_nothing_else_does() {
    let mut rig = rig();
    let mut contents = rig.contents();
    assert_eq!(
        rig.zero(WRITE_ZEROES, &[(3, 2, 1), (100, 1, 0), (2047, 1, 1)]),
        OK
    );
    let calls = rig.calls();
    let zeroed = [(3, 2), (100, 1), (2047, 1)].map(|(at, len)| (at * 512, len * 512));
    let expected = zeroed.map(|(at, len)| (IoOperation::Write, at, len, 0));
    assert_eq!(calls, expected);
    for (at, len) in zeroed {
        contents[usize::try_from(at).unwrap()..][..len].fill(0);
    }
    assert!(rig.contents() == contents);
    let counters = rig.block.counters();
    assert_eq!((counters.bytes_zeroed, counters.bytes_written), (2048, 0));
    assert_eq!((counters.backend_calls, counters.errors), (3, 0));
}

#[test]
fn the_list_may_be_split_over_descriptors() {
    let mut rig = rig();
    let bytes = list(&[(1, 1, 1), (5, 1, 1)]);
    let memory = &rig.driver.memory;
    memory.write_slice(&bytes[..7], GuestAddress(DATA)).unwrap();
    memory
        .write_slice(&bytes[7..], GuestAddress(DATA + 64))
        .unwrap();
    let parts = [(DATA, 7, 0), (DATA + 64, 25, 0), (STATUS, 1, WRITE)];
    assert_eq!(rig.send(WRITE_ZEROES, 0, &parts), Some((OK, 1)));
    assert_eq!(rig.calls().len(), 2);
}

#[test]
fn a_discard_reaches_the_storage_and_counts_no_zeros() {
    let mut rig = rig();
    assert_eq!(rig.zero(DISCARD, &[(8, 8, 0)]), OK);
    assert_eq!(rig.calls(), [(IoOperation::Discard, 8 * 512, 8 * 512, 0)]);
    assert_eq!(rig.block.counters().bytes_zeroed, 0);
}

#[test]
fn a_whole_disk_is_one_part_and_a_list_may_have_256() {
    let mut rig = rig();
    let all = u32::try_from(SECTORS).unwrap();
    assert_eq!(rig.zero(WRITE_ZEROES, &[(0, all, 1)]), OK);
    let nothing = vec![0; rig.contents().len()];
    assert!(rig.contents() == nothing);
    let many: Vec<_> = (0..256).map(|sector| (sector, 1, 1)).collect();
    assert_eq!(rig.zero(WRITE_ZEROES, &many), OK);
    let too_many: Vec<_> = (0..257).map(|sector| (sector, 1, 1)).collect();
    rig.calls();
    assert_eq!(rig.zero(WRITE_ZEROES, &too_many), IOERR);
    assert_eq!(rig.calls(), []);
}

#[test]
fn parts_that_are_not_within_the_disk_get_ioerr_and_nothing_of_the_list_is_done() {
    let mut rig = rig();
    for kind in [WRITE_ZEROES, DISCARD] {
        for (sector, sectors) in [
            (0, 0),
            (SECTORS, 1),
            (SECTORS - 1, 2),
            (0, u32::MAX),
            (1 << 55, 1),
            (u64::MAX, 1),
            (u64::MAX / 512, u32::MAX),
            (u64::MAX, u32::MAX),
        ] {
            let status = rig.zero(kind, &[(0, 1, 0), (sector, sectors, 0)]);
            assert_eq!(status, IOERR, "{kind}: {sectors} at {sector}");
        }
    }
    assert_eq!(rig.calls(), []);
    rig.assert_alive();
}

#[test]
fn a_driver_that_has_not_chosen_a_feature_does_not_get_its_requests() {
    let (discard, write_zeroes) = (1 << 13, 1 << 14);
    for chosen in [0, discard, write_zeroes, discard | write_zeroes] {
        let mut rig = Rig::with_zeroes(512);
        rig.driver.start(VERSION_1 | F_FLUSH | chosen, 64);
        for (kind, feature) in [(DISCARD, discard), (WRITE_ZEROES, write_zeroes)] {
            let expected = if chosen & feature == 0 { UNSUPP } else { OK };
            assert_eq!(
                rig.zero(kind, &[(0, 1, 0)]),
                expected,
                "{kind}: {chosen:#x}"
            );
        }
        assert_eq!(rig.calls().len(), chosen.count_ones() as usize);
    }
}

#[test]
fn parts_that_are_not_whole_blocks_get_ioerr() {
    let mut rig = Rig::with_zeroes(4096);
    rig.start(VERSION_1);
    for (sector, sectors) in [(1, 8), (0, 1), (8, 12), (4, 4)] {
        assert_eq!(rig.zero(WRITE_ZEROES, &[(sector, sectors, 1)]), IOERR);
    }
    assert_eq!(rig.calls(), []);
    assert_eq!(rig.zero(WRITE_ZEROES, &[(8, 16, 1)]), OK);
}

#[test]
fn unknown_flags_are_unsupported_and_so_is_unmap_with_a_discard() {
    let mut rig = rig();
    for flags in [2, 3, 1 << 31, u32::MAX] {
        assert_eq!(rig.zero(WRITE_ZEROES, &[(0, 1, 1), (1, 1, flags)]), UNSUPP);
    }
    for flags in [1, 2, u32::MAX] {
        assert_eq!(rig.zero(DISCARD, &[(1, 1, flags)]), UNSUPP);
    }
    assert_eq!(rig.calls(), []);
    rig.assert_alive();
}

#[test]
fn a_list_of_another_length_or_in_the_wrong_direction_gets_ioerr() {
    let mut rig = rig();
    let status = (STATUS, 1, WRITE);
    for len in [0, 1, 15, 17, 31, 4096 + 16, 1 << 20] {
        let answer = rig.send(WRITE_ZEROES, 0, &[(DATA, len, 0), status]);
        assert_eq!(answer, Some((IOERR, 1)), "{len} bytes");
    }
    for (parts, written) in [
        (vec![status], 1),
        (vec![(DATA, 16, WRITE), status], 0),
        (vec![(DATA, 16, 0), (DATA, 16, WRITE), status], 0),
    ] {
        assert_eq!(rig.send(WRITE_ZEROES, 0, &parts), Some((IOERR, written)));
    }
    assert_eq!(rig.calls(), []);
    rig.assert_alive();
}

#[test]
fn a_list_that_is_not_in_memory_gets_ioerr() {
    let mut rig = rig();
    for address in [
        1 << 40,
        u64::MAX - 7,
        crate::virtio::testing::MEMORY_SIZE - 8,
    ] {
        let answer = rig.send(WRITE_ZEROES, 0, &[(address, 16, 0), (STATUS, 1, WRITE)]);
        assert_eq!(answer, Some((IOERR, 1)), "{address:#x}");
    }
    assert_eq!(rig.calls(), []);
    rig.assert_alive();
}

#[test]
fn a_disk_that_is_read_only_or_offers_none_answers_unsupported() {
    let mut rig = Rig::new();
    assert_eq!(rig.zero(WRITE_ZEROES, &[(0, 1, 1)]), UNSUPP);
    let mut rig = Rig::with(512, true);
    rig.start(VERSION_1);
    for kind in [WRITE_ZEROES, DISCARD] {
        assert_eq!(rig.zero(kind, &[(0, 1, 0)]), UNSUPP);
    }
    assert_eq!(rig.calls(), []);
    rig.assert_alive();
}

#[test]
fn a_storage_that_fails_is_an_error_until_all_of_it_is_made_good() {
    let mut rig = rig();
    *rig.block.storage().bad.lock().unwrap() = 4096..8192;
    assert_eq!(rig.zero(WRITE_ZEROES, &[(0, 1, 1), (8, 8, 1)]), IOERR);
    assert_eq!(rig.block.io_error().unwrap().len, 4096);
    assert_eq!(rig.block.counters().bytes_zeroed, 512);
    *rig.block.storage().bad.lock().unwrap() = 0..0;
    assert_eq!(rig.zero(WRITE_ZEROES, &[(8, 4, 1)]), OK);
    assert!(rig.block.io_error().is_some());
    // The rest as data.
    let write = rig.send(OUT, 12, &[(DATA, 2048, 0), (STATUS, 1, WRITE)]);
    assert_eq!(write, Some((OK, 1)));
    assert!(rig.block.io_error().is_none());
}

#[test]
fn a_discard_that_fails_is_named_and_forgotten_once_it_succeeds_or_is_written_over() {
    for repair in [DISCARD, WRITE_ZEROES, OUT] {
        let mut rig = rig();
        *rig.block.storage().bad.lock().unwrap() = 4096..8192;
        assert_eq!(rig.zero(DISCARD, &[(8, 8, 0)]), IOERR);
        let told = rig.block.io_error().unwrap().to_string();
        assert!(
            told.starts_with("cannot discard 4096 bytes at offset 4096: "),
            "{told}"
        );
        *rig.block.storage().bad.lock().unwrap() = 0..0;
        let status = match repair {
            OUT => {
                let parts = [(DATA, 4096, 0), (STATUS, 1, WRITE)];
                rig.send(OUT, 8, &parts).unwrap().0
            }
            _ => rig.zero(repair, &[(8, 8, 0)]),
        };
        assert_eq!(status, OK);
        assert!(rig.block.io_error().is_none(), "{repair}");
    }
}

#[test]
fn a_list_that_is_refused_first_is_kept_with_the_part_and_the_reason() {
    let told = |kind, parts: &[Part]| {
        let mut rig = rig();
        assert_ne!(rig.zero(kind, parts), OK);
        rig.block.first_refusal().unwrap()
    };
    assert_eq!(
        told(DISCARD, &[(1, 1, 0), (SECTORS - 1, 2, 0)]),
        "a discard, of 1024 bytes at sector 2047, past its end of 2048 sectors of 512 bytes"
    );
    assert_eq!(
        told(WRITE_ZEROES, &[(7, 1, 2)]),
        "a write of zeros (WRITE_ZEROES), of 512 bytes at sector 7, with a flag that it may not have"
    );
    assert_eq!(
        told(WRITE_ZEROES, &[]),
        "a write of zeros (WRITE_ZEROES), whose data is no list of 1 to 256 parts"
    );
    let mut without = Rig::new();
    assert_eq!(without.zero(DISCARD, &[(1, 1, 0)]), UNSUPP);
    assert_eq!(
        without.block.first_refusal().unwrap(),
        "a discard, of a feature that its driver has not chosen"
    );
}
