//! What parsers read, and when requests are shown to the disks.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::rc::Rc;

use guest_kit::testing::disk::FakeDisk;
use guest_kit::testing::memory::leak;
use guest_kit::testing::ports::FakePorts;
use guest_kit::testing::ports_with;
use guest_kit::virtio::block::{F_SIZE_MAX, Purpose};

use super::*;

fn open(disk: &Rc<FakeDisk>, purpose: Purpose) -> BlockDevice<Rc<FakeDisk>> {
    BlockDevice::init(Rc::clone(disk), leak(0x1_0000), purpose, 85, |_| {}).unwrap()
}

fn disks<'a>(
    ports: &'a FakePorts,
    [input, output]: &[Rc<FakeDisk>; 2],
    length: u64,
    memory: usize,
) -> Disks<'a, FakePorts, Rc<FakeDisk>> {
    let source = Source::new(open(input, Purpose::Read), length, FileHoles::default());
    let output = open(output, Purpose::Write);
    Disks::new(ports, vec![source], output, leak(memory))
}

fn two_disks() -> ([Rc<FakeDisk>; 2], FakePorts) {
    let bytes = (0..20_480_u32).map(|at| (at % 251) as u8).collect();
    let both = [bytes, vec![0; 4096]].map(|bytes| FakeDisk::new(bytes, 512, 7));
    let ports = ports_with(&[], [both[0].clone() as _, both[1].clone() as _], 3);
    (both, ports)
}

#[test]
fn a_parser_reads_any_bytes_however_little_a_request_may_be() {
    for (memory, most) in [(1024, u32::MAX), (65536, 1500), (65536, u32::MAX)] {
        let (both, ports) = two_disks();
        both[0].get().features |= F_SIZE_MAX;
        both[0].get().size_max = most;
        let mut disks = disks(&ports, &both, 20_000, memory);
        for (offset, length) in [(0, 1), (511, 2), (700, 5000), (0, 20_000), (19_999, 1)] {
            let mut bytes = vec![0; length];
            disks.file(0).read_at(offset as u64, &mut bytes).unwrap();
            assert!(bytes == both[0].get().data[offset..offset + length]);
        }
        assert!(disks.file(0).read_at(19_999, &mut [0; 2]).is_err());
        assert!(disks.take_failure().is_none(), "it was not read");
    }
}

#[test]
fn a_sector_that_a_parser_cannot_read_is_named_once() {
    let (both, ports) = two_disks();
    both[0].get().bad.extend([6000, 12_000]);
    let mut disks = disks(&ports, &both, 20_480, 512);
    for offset in [5000, 12_000] {
        assert!(disks.file(0).read_at(offset, &mut [0; 2000]).is_err());
    }
    let failure = disks.take_failure().unwrap();
    assert_eq!(
        (failure.op, failure.sector, failure.status),
        (Op::Read, 11, 1)
    );
    assert!(disks.take_failure().is_none());
}

#[test]
fn a_slot_that_was_not_used_can_be_taken_again() {
    let (both, ports) = two_disks();
    let mut disks = disks(&ports, &both, 20_480, 512);
    let mut slots: Vec<_> = std::iter::from_fn(|| disks.take_slot(0)).collect();
    slots.sort_unstable();
    assert!(slots.iter().copied().eq(OWN_SLOT + 1..85));
    disks.give_slot(0, 44);
    assert_eq!(disks.take_slot(0), Some(44));
    assert_eq!(disks.take_slot(0), None);
}

#[test]
fn the_output_is_shown_some_requests_together_or_all_if_there_is_nothing_else_to_do() {
    let (both, ports) = two_disks();
    let mut disks = disks(&ports, &both, 20_480, 512);
    let mut slot = 0;
    let mut submit = |disks: &mut Disks<_, _>, count| {
        for _ in 0..count {
            disks.submit_write(slot, Request::FLUSH);
            slot += 1;
        }
    };
    submit(&mut disks, TOGETHER - 1);
    disks.start(false);
    assert_eq!(both[1].get().kicks, 0);
    submit(&mut disks, 1);
    disks.start(false);
    assert_eq!(both[1].get().kicks, 1);
    submit(&mut disks, TOGETHER - 1);
    disks.start(false);
    assert_eq!(both[1].get().kicks, 1);
}
