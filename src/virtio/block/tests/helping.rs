//! Another thread than the device's does the work, for as long as it comes again: what it takes
//! over, that the driver is not asked to kick meanwhile, and that nothing is left behind at the end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;
use crate::virtio::testing::{AVAIL_RING, DATA, EVENT_IDX, USED_RING};

/// Without EVENT_IDX the device says by a flag that it needs no kicks.
fn asks_for_kicks(rig: &Rig) -> bool {
    let flags: u16 = rig.driver.memory.read_obj(GuestAddress(USED_RING)).unwrap();
    flags & 1 == 0
}

/// One request, done by a kick.
fn one_by_kick(rig: &mut Rig) {
    rig.push(0, IN, 0, (DATA, 512));
    rig.work();
    assert!(rig.driver.pop_used().is_some());
}

/// A disk whose driver has the habit of waiting for each request, which somebody helps.
fn helped_one_by_one() -> Rig {
    let mut rig = Rig::new();
    for _ in 0..20 {
        assert!(asks_for_kicks(&rig));
        one_by_kick(&mut rig);
    }
    assert!(!rig.block.serve_here(), "there is nothing to do");
    assert!(!asks_for_kicks(&rig));
    rig
}

#[test]
fn a_driver_that_waits_for_each_request_is_helped_and_not_asked_to_kick() {
    let mut rig = helped_one_by_one();
    for _ in 0..20 {
        rig.push(0, OUT, 0, (DATA, 512));
        assert!(rig.block.serve_here());
        assert!(rig.driver.pop_used().is_some());
        assert!(!asks_for_kicks(&rig));
    }
}

#[test]
fn who_has_no_helper_is_always_asked_to_kick() {
    let mut rig = Rig::new();
    for _ in 0..if cfg!(miri) { 30 } else { 100 } {
        one_by_kick(&mut rig);
        assert!(asks_for_kicks(&rig));
    }
}

#[test]
fn what_came_without_a_kick_is_found_when_helping_ends() {
    let mut rig = helped_one_by_one();
    rig.push(0, IN, 0, (DATA, 512));
    assert!(rig.driver.pop_used().is_none());
    rig.block.serve_by_kicks();
    assert!(rig.block.in_flight(), "the device's thread is to look");
    rig.work();
    assert!(rig.driver.pop_used().is_some());
    assert!(asks_for_kicks(&rig));
    for _ in 0..20 {
        one_by_kick(&mut rig);
        assert!(asks_for_kicks(&rig));
    }
}

#[test]
fn many_small_requests_are_done_once_and_then_left_to_the_devices_thread() {
    let mut rig = helped_one_by_one();
    for slot in 0..20 {
        rig.push(slot, IN, 0, (DATA, 512));
    }
    assert!(rig.block.serve_here());
    assert_eq!(rig.driver.used_index(), 21 + 20 - 1);
    assert!(asks_for_kicks(&rig));
    rig.push(0, IN, 0, (DATA, 512));
    assert!(!rig.block.serve_here());
}

#[test]
fn a_helper_goes_back_to_a_driver_that_wanted_to_know_and_does_the_rest_when_it_comes_again() {
    let mut rig = Rig::with(512, false);
    rig.start(VERSION_1 | EVENT_IDX);
    let large = (DATA, 0x8_0000);
    rig.push(0, IN, 0, large);
    rig.work();
    // The driver wants to know of the next one, and makes more available than one turn does.
    let used_event = GuestAddress(AVAIL_RING + 4 + 64 * 2);
    rig.driver.memory.write_obj(1u16, used_event).unwrap();
    for slot in 0..6 {
        rig.push(slot, IN, 0, large);
    }
    assert!(rig.block.serve_here());
    assert!(rig.line.take());
    let first = rig.driver.used_index();
    assert!((2..7).contains(&first), "{first}");
    while rig.block.serve_here() {}
    assert_eq!(rig.driver.used_index(), 7);
}

#[test]
fn every_request_is_answered_whoever_comes_and_goes() {
    const REQUESTS: u16 = if cfg!(miri) { 20 } else { 20_000 };
    let mut rig = Rig::with(512, false);
    rig.start(VERSION_1 | EVENT_IDX);
    let block = rig.block.clone();
    let (stop, kick) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        // The device's thread, which looks only when it is kicked.
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                let looks_itself = crate::virtio::notify::is_readable(&block.queue_events()[0]);
                if kick.swap(false, Ordering::SeqCst) || looks_itself {
                    block.handle_kick(0);
                }
                thread::yield_now();
            }
        });
        // A helper that comes for a while and goes, again and again.
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                for _ in 0..50 {
                    block.serve_here();
                    thread::yield_now();
                }
                block.serve_by_kicks();
                thread::yield_now();
            }
        });
        let avail_event = GuestAddress(USED_RING + 4 + 64 * 8);
        for request in 0..REQUESTS {
            rig.push(0, IN, 0, (DATA, 512));
            std::sync::atomic::fence(Ordering::SeqCst);
            let event: u16 = rig
                .driver
                .memory
                .load(avail_event, Ordering::Relaxed)
                .unwrap();
            if event == request {
                kick.store(true, Ordering::SeqCst);
            }
            let mut patience = 0_u32;
            while rig.driver.pop_used().is_none() {
                patience += 1;
                assert!(patience < 100_000_000, "request {request} is not answered");
                thread::yield_now();
            }
        }
        stop.store(true, Ordering::SeqCst);
    });
}
