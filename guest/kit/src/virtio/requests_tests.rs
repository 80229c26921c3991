//! What may come back from a device, and what may not.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::testing::memory::{leak, load, store};

const READ: Request = Request {
    kind: Kind::Read,
    sector: 7,
    address: 0x1234_5000,
    len: 1024,
};

fn queue() -> RequestQueue {
    RequestQueue::new(leak(0x1_0000), 8, false).unwrap()
}

/// Lets the device use the chain `id` as the `index`-th.
fn answer(queue: &RequestQueue, index: u16, id: u32, written: u32) {
    let used = queue.ring().addresses().used;
    store(used + 4 + 8 * u64::from(index % 8), id);
    store(used + 8 + 8 * u64::from(index % 8), written);
    store(used + 2, index + 1);
}

/// A descriptor: address, length, flags, next.
fn descriptor(queue: &RequestQueue, index: u16) -> (u64, u32, u16, u16) {
    let at = queue.ring().addresses().descriptors + 16 * u64::from(index);
    (load(at), load(at + 8), load(at + 12), load(at + 14))
}

fn submit(queue: &mut RequestQueue, slot: u16, request: Request) -> u64 {
    queue.submit(slot, request);
    queue.ring_mut().publish();
    // The status descriptor's address.
    descriptor(queue, slot * 3 + 2).0
}

#[test]
fn a_request_is_a_header_data_and_a_status_byte_in_the_queues_own_memory() {
    let mut queue = queue();
    let status = submit(&mut queue, 1, READ);
    let (header, len, flags, next) = descriptor(&queue, 3);
    assert_eq!((len, flags, next), (16, 1, 4));
    assert_eq!((load::<u64>(header), load::<u64>(header + 8)), (0, 7));
    assert_eq!(descriptor(&queue, 4), (0x1234_5000, 1024, 3, 5));
    assert_eq!(descriptor(&queue, 5), (status, 1, 2, 0));
    let start = queue.ring().addresses().descriptors;
    for address in [header, status] {
        assert!((start..start + 0x1_0000).contains(&address));
    }
}

#[test]
fn a_slot_can_change_what_it_does() {
    let mut queue = queue();
    for (round, kind, data_flags) in [(0, Kind::Read, 3), (1, Kind::Write, 1), (2, Kind::Read, 3)] {
        let request = Request { kind, ..READ };
        let status = submit(&mut queue, 0, request);
        assert_eq!(descriptor(&queue, 1), (READ.address, 1024, data_flags, 2));
        store(status, 0_u8);
        answer(&queue, round, 0, request.kind.writable(request.len));
        let done = Completion { slot: 0, status: 0 };
        assert_eq!(queue.complete(), Ok(Some(done)));
    }
    submit(&mut queue, 0, Request::FLUSH);
    let (header, _, flags, next) = descriptor(&queue, 0);
    assert_eq!((load::<u32>(header), flags, next), (4, 1, 2));
}

#[test]
fn a_failed_request_gives_its_status_whatever_was_written() {
    for written in [0, 1, 513, 1025] {
        let mut queue = queue();
        let status = submit(&mut queue, 0, READ);
        store(status, 1_u8);
        answer(&queue, 0, 0, written);
        let failed = Completion { slot: 0, status: 1 };
        assert_eq!(queue.complete(), Ok(Some(failed)));
    }
}

#[test]
fn a_length_that_cannot_be_true_is_an_error() {
    for (status_byte, written) in [(0, 1024), (0, 1026), (1, 1026), (0, u32::MAX)] {
        let mut queue = queue();
        let status = submit(&mut queue, 0, READ);
        store::<u8>(status, status_byte);
        answer(&queue, 0, 0, written);
        assert_eq!(queue.complete(), Err(RequestError::Written(written, 1025)));
    }
}

#[test]
fn a_status_that_was_not_written_is_an_error() {
    let mut queue = queue();
    submit(&mut queue, 0, READ);
    answer(&queue, 0, 0, 1025);
    assert_eq!(queue.complete(), Err(RequestError::NoStatus));
}

#[test]
fn a_chain_that_was_not_offered_is_an_error() {
    // Another slot's, the middle of a chain, and the two descriptors that no slot has.
    for id in [3, 1, 2, 6, 7] {
        let mut queue = queue();
        submit(&mut queue, 0, READ);
        answer(&queue, 0, id, 1025);
        let head = u16::try_from(id).unwrap();
        assert_eq!(queue.complete(), Err(RequestError::NotOffered(head)));
    }
}

#[test]
fn the_same_chain_twice_is_an_error() {
    let mut queue = queue();
    let status = submit(&mut queue, 0, READ);
    submit(&mut queue, 1, READ);
    store(status, 0_u8);
    answer(&queue, 0, 0, 1025);
    assert!(queue.complete().unwrap().is_some());
    answer(&queue, 1, 0, 1025);
    assert_eq!(queue.complete(), Err(RequestError::NotOffered(0)));
}

#[test]
fn the_largest_queue_fits_its_memory_and_a_larger_does_not() {
    let queue = RequestQueue::new(leak(0x1_0000), MAX_SIZE, true).unwrap();
    assert_eq!(usize::from(queue.slots()), MAX_REQUEST_SLOTS);
    for (memory, size) in [(0x1_0000, 4096), (0xf000, 2048), (0x1_0000, 2)] {
        let error = RequestQueue::new(leak(memory), size, true).unwrap_err();
        assert_eq!(error, RingError::Size(size, memory).into());
    }
}

#[test]
fn a_part_to_make_zero_is_told_as_the_specification_has_it_and_may_be_given_back() {
    let expected = [8, 7, 6, 5, 4, 3, 2, 1, 0x44, 0x33, 0x22, 0x11, 1, 0, 0, 0];
    assert_eq!(zero_segment(0x0102_0304_0506_0708, 0x1122_3344), expected);
}
