//! What a split virtqueue's driver must do, against a device that is a few stores.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::testing::memory::{leak, load, store};

fn ring(size: u16, event_idx: bool) -> Ring {
    Ring::new(leak(Ring::footprint(size)), size, event_idx).unwrap()
}

fn use_chains(ring: &Ring, index: u16, elements: &[(u32, u32)]) {
    let used = ring.addresses().used;
    for (offset, &(id, len)) in (0..).zip(elements) {
        let element = used + 4 + 8 * u64::from((index + offset) & (ring.size() - 1));
        store(element, id);
        store(element + 4, len);
    }
    let count = u16::try_from(elements.len()).unwrap();
    store(used + 2, index.wrapping_add(count));
}

#[test]
fn a_size_that_is_no_power_of_two_or_does_not_fit_is_refused() {
    let refused = |size| Ring::new(leak(4096), size, false).unwrap_err();
    for size in [0, 3, 255, 256, 0x8000] {
        assert_eq!(refused(size), RingError::Size(size, 4096));
    }
}

#[test]
fn parts_are_aligned_as_the_specification_wants() {
    for bits in 1..=11 {
        let addresses = ring(1 << bits, true).addresses();
        assert_eq!(addresses.descriptors % 16, 0);
        assert_eq!(addresses.avail % 2, 0);
        assert_eq!(addresses.used % 4, 0);
    }
}

#[test]
fn chains_are_seen_by_the_device_only_once_published() {
    let mut ring = ring(4, false);
    let avail = ring.addresses().avail;
    ring.push(3);
    assert_eq!(load::<u16>(avail + 2), 0);
    assert!(ring.publish());
    assert_eq!((load::<u16>(avail + 2), load::<u16>(avail + 4)), (1, 3));
    assert!(!ring.publish(), "nothing new is no reason to kick");
}

#[test]
fn a_device_that_wants_no_kick_gets_none() {
    let mut plain = ring(4, false);
    store(plain.addresses().used, 1_u16);
    plain.push(0);
    assert!(!plain.publish());

    let mut indexed = ring(4, true);
    let event = indexed.addresses().used + 4 + 8 * 4;
    store(event, 1_u16);
    indexed.push(0);
    assert!(!indexed.publish(), "only the second chain is asked for");
    indexed.push(1);
    assert!(indexed.publish());
}

#[test]
fn used_chains_come_back_in_the_devices_order() {
    let mut ring = ring(4, false);
    (0..3).for_each(|head| ring.push(head));
    ring.publish();
    use_chains(&ring, 0, &[(2, 7), (0, 8)]);
    assert_eq!(ring.in_flight(), 3);
    let used = |head, written| Ok(Some(Used { head, written }));
    assert_eq!(ring.pop(), used(2, 7));
    assert_eq!(ring.pop(), used(0, 8));
    assert_eq!(ring.pop(), Ok(None));
    assert_eq!(ring.in_flight(), 1);
}

#[test]
fn an_index_or_an_id_that_cannot_be_is_an_error() {
    let mut one = ring(4, false);
    one.push(0);
    one.publish();
    use_chains(&one, 0, &[(4, 0)]);
    assert_eq!(one.pop(), Err(RingError::UsedId(4, 4)));
    let mut other = ring(4, false);
    other.push(0);
    other.publish();
    use_chains(&other, 0, &[(0, 0), (0, 0)]);
    assert_eq!(other.pop(), Err(RingError::UsedIndex(2, 1)));
}

/// More than there are indices, except under Miri, which takes minutes for that.
const ROUNDS: u32 = if cfg!(miri) { 400 } else { 70_000 };

#[test]
fn indices_wrap_and_a_notification_is_asked_for_at_the_right_one() {
    let mut ring = ring(4, true);
    let event = ring.addresses().avail + 4 + 2 * 4;
    let mut notifications = 0;
    for round in 0..ROUNDS {
        let index = u16::try_from(round & 0xffff).unwrap();
        ring.push(index % 4);
        ring.publish();
        if round % 2 == 0 {
            ring.arm(1);
        }
        use_chains(&ring, index, &[(u32::from(index % 4), 0)]);
        let passed = passes(load(event), index, index.wrapping_add(1));
        assert!(passed || round % 2 == 1);
        notifications += u32::from(passed);
        assert_eq!(ring.pop().unwrap().unwrap().head, index % 4);
    }
    assert_eq!(notifications, ROUNDS / 2);
}

#[test]
fn without_event_indices_the_flag_says_when_notifications_are_wanted() {
    let mut ring = ring(4, false);
    let flags = ring.addresses().avail;
    assert_eq!(load::<u16>(flags), 1);
    ring.arm(1);
    assert_eq!(load::<u16>(flags), 0);
    ring.disarm();
    assert_eq!(load::<u16>(flags), 1);
}
