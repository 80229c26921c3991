//! Drivers that break the rules. What cannot be answered stops this disk and nothing else, and a
//! reset makes it work again (virtio 1.2, section 2.1.2).

use super::*;
use crate::virtio::block::request::Segment;
use crate::virtio::testing::{DATA, INDIRECT, INDIRECT_DESC, MEMORY_SIZE, NEXT};

impl Rig {
    /// The device has given up, said so, and works again after a reset.
    fn assert_stopped_until_reset(&mut self) {
        assert_eq!(self.driver.status(), 0x4f);
        assert_eq!(self.block.notifier().status() & 2, 2);
        assert!(self.line.take());
        assert!(self.block.fault().is_some());
        let used = self.driver.used_index();
        self.work();
        assert_eq!(self.driver.used_index(), used, "a stopped disk works on");
        assert!(!self.block.in_flight());
        self.start(VERSION_1);
        self.assert_alive();
    }

    fn assert_fatal(&mut self, chain: &[(u64, u32, u16)]) {
        let (_, status) = self.driver.header(0, IN, 0);
        assert_eq!(self.send_chain(chain, status), None);
        self.assert_stopped_until_reset();
    }
}

#[test]
fn a_request_without_a_status_byte_stops_the_disk() {
    let mut rig = Rig::new();
    rig.assert_fatal(&[(HEADERS, 16, 0)]);
    rig.assert_fatal(&[(HEADERS, 16, 0), (STATUS, 1, 0)]);
    rig.assert_fatal(&[(HEADERS, 16, 0), (STATUS, 0, WRITE)]);
    rig.assert_fatal(&[(HEADERS, 16, 0), (DATA, 512, WRITE), (STATUS, 0, WRITE)]);
}

#[test]
fn a_status_byte_outside_memory_stops_the_disk() {
    let mut rig = Rig::new();
    for (address, len) in [
        (MEMORY_SIZE, 1),
        (MEMORY_SIZE - 1, 2),
        (u64::MAX, 1),
        (u64::MAX, 2),
        (u64::MAX - 5, u32::MAX),
        (0x1000_0000, 1),
    ] {
        rig.assert_fatal(&[(HEADERS, 16, 0), (DATA, 512, WRITE), (address, len, WRITE)]);
    }
}

#[test]
fn chains_that_are_broken_stop_the_disk() {
    for (index, flags, next) in [
        (0, NEXT, 0),
        (0, NEXT, 64),
        (0, NEXT, 0xffff),
        (0, INDIRECT, 0),
        (0, INDIRECT | NEXT, 1),
    ] {
        let mut rig = Rig::new();
        rig.driver
            .write_descriptor(DESC_TABLE, index, HEADERS, 16, flags, next);
        rig.driver.make_available(0);
        rig.work();
        rig.assert_stopped_until_reset();
    }
}

#[test]
fn a_head_outside_the_table_stops_the_disk() {
    for head in [64, 0xffff] {
        let mut rig = Rig::new();
        rig.driver.make_available(head);
        rig.work();
        rig.assert_stopped_until_reset();
    }
}

#[test]
fn an_available_index_that_jumps_by_more_than_the_queue_stops_the_disk() {
    for index in [65, 0x8000, 0xffff] {
        let mut rig = Rig::new();
        rig.driver.set_avail_index(index);
        rig.work();
        rig.assert_stopped_until_reset();
    }
}

#[test]
fn what_came_before_a_fault_is_answered() {
    let mut rig = Rig::new();
    let status = rig.push(0, IN, 7, (DATA, 512));
    rig.driver.make_available(0xffff);
    rig.work();
    assert!(rig.driver.pop_used().is_some());
    assert_eq!(rig.driver.byte(status), OK);
    rig.assert_stopped_until_reset();
}

#[test]
fn an_indirect_table_that_names_itself_stops_the_disk() {
    let mut rig = Rig::with(512, false);
    rig.start(VERSION_1 | INDIRECT_DESC);
    rig.driver.write_descriptor(DATA, 0, DATA, 16, INDIRECT, 0);
    let head = rig.driver.chain(&[(DATA, 16, INDIRECT)]);
    rig.driver.make_available(head);
    rig.work();
    rig.assert_stopped_until_reset();
}

#[test]
fn one_chain_made_available_many_times_is_answered_each_time() {
    let mut rig = Rig::new();
    rig.driver.header(0, GET_ID, 0);
    let head = rig.driver.chain(&[(HEADERS, 16, 0), (STATUS, 1, WRITE)]);
    for _ in 0..64 {
        rig.driver.make_available(head);
    }
    rig.work();
    assert_eq!(rig.driver.used_index(), 64);
}

#[test]
fn data_read_over_the_rings_harms_the_driver_alone() {
    for target in [DESC_TABLE, AVAIL_RING & !0x1ff, USED_RING & !0x1ff, HEADERS] {
        let mut rig = Rig::new();
        for slot in 0..4 {
            rig.push(slot, IN, 99, (target, 512));
        }
        rig.work();
        rig.work();
        rig.start(VERSION_1);
        rig.assert_alive();
    }
}

#[test]
fn kicks_before_driver_ok_and_after_a_reset_do_nothing() {
    let mut rig = Rig::with(512, false);
    rig.driver.write(0x50, 0);
    rig.work();
    rig.start(VERSION_1);
    rig.push(0, IN, 0, (DATA, 512));
    rig.driver.write(0x70, 0);
    let kick = &rig.block.queue_events()[0];
    for _ in 0..1000 {
        kick.write(1).unwrap();
    }
    rig.work();
    assert_eq!(rig.driver.used_index(), 0);
    assert_eq!(rig.calls(), []);
    assert_eq!(rig.driver.status(), 0);
    assert!(!rig.block.in_flight());
}

#[test]
fn a_stopped_queue_reads_not_ready_and_is_left_alone() {
    let mut rig = Rig::new();
    rig.push(0, IN, 0, (DATA, 512));
    rig.driver.write(0x44, 0);
    assert_eq!(rig.driver.read(0x44), 0);
    rig.work();
    assert_eq!(rig.driver.used_index(), 0);
    rig.start(VERSION_1);
    rig.assert_alive();
}

#[test]
fn a_block_device_without_its_queue_needs_a_reset() {
    let mut rig = Rig::with(512, false);
    rig.driver.negotiate(VERSION_1);
    rig.driver.write(0x70, 0xf);
    assert_eq!(rig.driver.status(), 0x4f);
    rig.start(VERSION_1);
    rig.assert_alive();
}

#[test]
#[cfg_attr(miri, ignore = "130,000 descriptors take Miri hours")]
fn long_chains_shared_by_many_heads_do_not_make_the_device_use_much_memory() {
    let mut rig = Rig::with(512, false);
    rig.driver.start(VERSION_1, 2048);
    rig.driver.header(0, OUT, 0);
    let mut parts = vec![(DATA, 512, 0); 2048];
    parts[0] = (HEADERS, 16, 0);
    parts[2047] = (STATUS, 1, WRITE);
    let head = rig.driver.chain(&parts);
    for _ in 0..64 {
        rig.driver.make_available(head);
    }
    let mut taken = 0;
    rig.each_batch(&config(512, false), |batch| {
        taken += batch.requests.len();
        assert!(batch.segments.capacity() * size_of::<Segment>() < 1 << 18);
    });
    assert_eq!(taken, 64);
}
