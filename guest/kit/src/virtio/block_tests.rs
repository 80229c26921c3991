//! Initialisation of a whole block device.
#![allow(clippy::unwrap_used)]

use std::rc::Rc;

use super::*;
use crate::testing::disk::FakeDisk;
use crate::testing::memory::{leak, load};
use crate::virtio::mmio::{F_VERSION_1, status};

fn open(
    disk: &Rc<FakeDisk>,
    purpose: Purpose,
    slots: u16,
) -> Result<BlockDevice<Rc<FakeDisk>>, BlockError> {
    BlockDevice::init(Rc::clone(disk), leak(0x1_0000), purpose, slots, |_| {})
}

fn disk() -> Rc<FakeDisk> {
    FakeDisk::new(vec![0; 8192], 4096, 0)
}

#[test]
fn stages_tell_what_was_negotiated() {
    let disk = disk();
    disk.get().features |= F_RO | 1 << 28;
    let mut stages = Vec::new();
    let on_stage = |stage| stages.push(stage);
    BlockDevice::init(disk, leak(0x1_0000), Purpose::Read, 16, on_stage).unwrap();
    let features = F_VERSION_1 | F_EVENT_IDX | F_BLK_SIZE | F_RO;
    let expected = [Stage::Probe, Stage::Features(features), Stage::Queue(256)];
    assert_eq!(stages, expected);
}

#[test]
fn the_features_that_are_wanted_have_the_specifications_numbers() {
    // Sizes and numbers of segments, read-only, sectors, event indices; flushes and zeros.
    assert_eq!(wanted_features(Purpose::Read), 0x2000_0066);
    assert_eq!(wanted_features(Purpose::Write), 0x2000_4266);
}

#[test]
fn the_configuration_is_the_devices_where_its_features_say_so() {
    let with = disk();
    with.get().features |= F_SIZE_MAX;
    with.get().size_max = 8192;
    let expected = BlockConfig {
        capacity: 16,
        sector_size: 4096,
        size_max: 8192,
        flush: true,
        zeroes: None,
    };
    assert_eq!(*open(&with, Purpose::Write, 1).unwrap().config(), expected);
    let without = disk();
    without.get().features = F_VERSION_1;
    let expected = BlockConfig {
        capacity: 16,
        sector_size: 512,
        size_max: u32::MAX,
        flush: false,
        zeroes: None,
    };
    let device = open(&without, Purpose::Write, 1).unwrap();
    assert_eq!(*device.config(), expected);
}

/// A disk of 2 TiB and a little more, of which nothing can be read.
struct Large(Rc<FakeDisk>);

impl Registers for Large {
    fn read(&self, offset: u16) -> u32 {
        match offset {
            0x104 => 1,
            _ => self.0.read(offset),
        }
    }

    fn write(&self, offset: u16, value: u32) {
        self.0.write(offset, value);
    }
}

#[test]
fn a_large_disk_has_a_capacity_of_two_words() {
    // By reference, as programs have their registers.
    let large = Large(disk());
    let device = BlockDevice::init(&large, leak(0x1_0000), Purpose::Read, 1, |_| {});
    assert_eq!(device.unwrap().config().capacity, (1 << 32) + 16);
}

#[test]
fn the_queue_has_room_for_the_slots_as_far_as_the_device_allows() {
    for (max, slots, expected) in [
        (256, 16, 256),
        (256, 200, 256),
        (1024, 16, 256),
        (1024, 200, 1024),
        (512, 200, 512),
        (32768, 682, 2048),
        (32768, u16::MAX, 2048),
        (4, 16, 4),
    ] {
        assert_eq!(queue_size(max, slots), Ok(expected));
    }
    for max in 0..3 {
        assert_eq!(queue_size(max, 1), Err(BlockError::QueueSize(max)));
    }
    // Of the 256 descriptors, a request takes three.
    assert_eq!(open(&disk(), Purpose::Read, 1).unwrap().slots(), 85);
}

#[test]
fn a_disk_that_cannot_be_written_is_refused_for_writing_and_told_so() {
    let disk = disk();
    disk.get().features |= F_RO;
    let error = open(&disk, Purpose::Write, 1).err().unwrap();
    assert_eq!(error, BlockError::ReadOnly);
    assert_eq!(disk.get().status & status::FAILED, status::FAILED);
    assert!(open(&FakeDisk::new(vec![0; 512], 512, 0), Purpose::Read, 1).is_ok());
}

#[test]
fn a_device_without_event_indices_is_asked_for_notifications_by_the_flag() {
    let disk = disk();
    disk.get().features = F_VERSION_1;
    let mut device = open(&disk, Purpose::Read, 1).unwrap();
    let flags = device.queue.ring().addresses().avail;
    assert_eq!(load::<u16>(flags), 1);
    device.arm(1);
    assert_eq!(load::<u16>(flags), 0);
    device.disarm();
    assert_eq!(load::<u16>(flags), 1);
}

#[test]
fn a_device_that_refuses_the_features_is_not_started() {
    let disk = disk();
    disk.get().refuse_features = true;
    assert!(open(&disk, Purpose::Read, 1).is_err());
    assert_eq!(disk.get().status & status::DRIVER_OK, 0);
}

#[test]
fn initialisation_takes_no_more_register_accesses_than_it_has_steps() {
    let disk = disk();
    open(&disk, Purpose::Read, 1).unwrap();
    // Identity 3, reset 2, acknowledge 2, features 10, queue 11, configuration 5, start 1.
    assert_eq!(disk.get().accesses, 34);
}
