//! The initialisation sequence, register by register.
#![allow(clippy::unwrap_used)]

use core::cell::RefCell;

use super::*;
use crate::testing::disk::FakeDisk;
use crate::testing::memory::leak;

#[test]
fn initialisation_writes_what_the_specification_says_in_its_order() {
    let disk = FakeDisk::new(vec![0; 512], 512, 0);
    let mut transport = Transport::probe(disk.clone(), 2).unwrap();
    transport.reset().unwrap();
    let wanted = F_EVENT_IDX | 1 << 40;
    assert_eq!(transport.negotiate(wanted), Ok(F_VERSION_1 | F_EVENT_IDX));
    assert_eq!(transport.queue_size_max(0), Ok(256));
    let memory = leak(0x1_0000);
    let at = |offset| memory.address(offset);
    let addresses = RingAddresses {
        descriptors: at(0x2000),
        avail: at(0x3000),
        used: at(0x4000),
    };
    transport.enable_queue(128, addresses);
    transport.start();
    transport.notify(0);
    let expected = [
        (0x70, 0),
        (0x70, 1),
        (0x70, 3),
        (0x14, 0),
        (0x14, 1),
        (0x24, 0),
        (0x20, 1 << 29),
        (0x24, 1),
        (0x20, 1),
        (0x70, 11),
        (0x30, 0),
        (0x38, 128),
        (0x80, low(at(0x2000))),
        (0x84, low(at(0x2000) >> 32)),
        (0x90, low(at(0x3000))),
        (0x94, low(at(0x3000) >> 32)),
        (0xa0, low(at(0x4000))),
        (0xa4, low(at(0x4000) >> 32)),
        (0x44, 1),
        (0x70, 15),
    ];
    let writes = &disk.get().writes;
    assert_eq!(writes[..expected.len()], expected);
    assert_eq!(writes[expected.len()..], [(0x50, 0)]);
}

/// Registers that hold whatever a test puts there, a value for each read in turn.
struct Script(RefCell<Vec<(u16, u32)>>);

impl Registers for Script {
    fn read(&self, offset: u16) -> u32 {
        let mut script = self.0.borrow_mut();
        let next = script.iter().position(|&(at, _)| at == offset);
        script.remove(next.unwrap()).1
    }

    fn write(&self, _: u16, _: u32) {}
}

fn script(reads: &[(u16, u32)]) -> Script {
    Script(RefCell::new(reads.to_vec()))
}

fn probed(reads: &[(u16, u32)]) -> Transport<Script> {
    let there = [(0, MAGIC), (4, 2), (8, 2)];
    Transport::probe(script(&[&there, reads].concat()), 2).unwrap()
}

#[test]
fn what_is_no_such_device_is_told_apart() {
    let probe = |reads: &[(u16, u32)]| Transport::probe(script(reads), 2).err().unwrap();
    assert_eq!(probe(&[(0, 0)]), TransportError::Magic(0));
    assert_eq!(probe(&[(0, MAGIC), (4, 1)]), TransportError::Version(1));
    let other = probe(&[(0, MAGIC), (4, 2), (8, 0)]);
    assert_eq!(other, TransportError::DeviceId(0, 2));
}

#[test]
fn a_reset_is_waited_for() {
    assert_eq!(probed(&[(0x70, 4), (0x70, 4), (0x70, 0)]).reset(), Ok(()));
}

/// A device whose status stays as it is.
struct Stuck;

impl Registers for Stuck {
    fn read(&self, _: u16) -> u32 {
        4
    }

    fn write(&self, _: u16, _: u32) {}
}

#[test]
#[cfg_attr(miri, ignore = "50,000 looks take Miri a minute")]
fn a_reset_that_never_ends_is_an_error() {
    let mut transport = Transport {
        registers: Stuck,
        status: 0,
    };
    assert_eq!(transport.reset(), Err(TransportError::Reset));
}

#[test]
fn a_legacy_device_or_one_that_disagrees_is_refused() {
    let mut legacy = probed(&[(0x10, 0), (0x10, 0)]);
    assert_eq!(legacy.negotiate(0), Err(TransportError::Legacy));
    let mut stubborn = probed(&[(0x10, 0), (0x10, 1), (0x70, 3)]);
    let error = stubborn.negotiate(0);
    assert_eq!(error, Err(TransportError::Features(F_VERSION_1)));
}

#[test]
fn a_queue_has_a_power_of_two_that_the_device_allows() {
    for (allowed, size) in [
        (0, 0),
        (1, 1),
        (7, 4),
        (256, 256),
        (1000, 512),
        (u32::MAX, 32768),
    ] {
        let size_max = probed(&[(0x44, 0), (0x34, allowed)]).queue_size_max(0);
        assert_eq!(size_max, Ok(size), "{allowed}");
    }
}

#[test]
fn a_queue_in_use_is_refused() {
    let error = probed(&[(0x44, 1)]).queue_size_max(0);
    assert_eq!(error, Err(TransportError::QueueInUse));
}

#[test]
fn a_configuration_that_changes_while_it_is_read_is_read_again() {
    let transport = probed(&[
        (0xfc, 1),
        (0x100, 0xffff),
        (0x104, 0),
        (0xfc, 2),
        (0x100, 0),
        (0x104, 1),
        (0xfc, 2),
    ]);
    let capacity = transport.read_config(|read| (read(0), read(4)));
    assert_eq!(capacity, Ok((0, 1)));
}

/// A configuration that is another one at each look.
struct Restless(RefCell<u32>);

impl Registers for Restless {
    fn read(&self, _: u16) -> u32 {
        let mut generation = self.0.borrow_mut();
        *generation += 1;
        *generation
    }

    fn write(&self, _: u16, _: u32) {}
}

#[test]
#[cfg_attr(miri, ignore = "50,000 looks take Miri a minute")]
fn a_configuration_that_never_settles_is_an_error() {
    let transport = Transport {
        registers: Restless(RefCell::new(0)),
        status: 0,
    };
    assert_eq!(transport.read_config(|_| ()), Err(TransportError::Config));
}

#[test]
fn only_a_device_that_has_failed_needs_a_reset() {
    assert!(probed(&[(0x70, 15 | 64)]).needs_reset());
    assert!(!probed(&[(0x70, 15)]).needs_reset());
}
