//! Requests that are neighbours on the disk are carried out as one, and if that fails only the one at
//! fault fails.

use vm_memory::GuestMemoryMmap;

use super::*;
use crate::virtio::testing::{DATA, MEMORY_SIZE, USED_RING};

/// Has the first `count` sectors from sector 20 on read to one place after the other.
fn push_neighbours(rig: &mut Rig, count: u16) {
    for slot in 0..count {
        let data = (DATA + u64::from(slot) * 512, 512);
        rig.push(slot, IN, 20 + u64::from(slot), data);
    }
}

#[test]
fn neighbours_are_read_by_one_call_with_one_buffer() {
    let mut rig = Rig::new();
    push_neighbours(&mut rig, 10);
    rig.work();
    assert_eq!(rig.calls(), [(IoOperation::Read, 20 * 512, 5120, 1)]);
    assert_eq!(rig.driver.used_index(), 10);
    for slot in 0..10u8 {
        let data = rig.guest_bytes(DATA + u64::from(slot) * 512, 512);
        assert_eq!(data, [20 + slot; 512]);
        assert_eq!(rig.driver.byte(HEADERS + u64::from(slot) * 32 + 16), OK);
    }
    assert_eq!(rig.line.completions(), 10);
    for _ in 0..10 {
        assert_eq!(rig.driver.pop_used().unwrap().1, 512 + 1);
    }
    let counters = rig.block.counters();
    assert_eq!((counters.bytes_read, counters.requests), (5120, 10));
    assert_eq!(counters.backend_calls, 1);
}

#[test]
fn neighbours_make_good_what_they_have_read_and_nothing_behind_it() {
    let mut rig = Rig::new();
    *rig.block.storage().bad.lock().unwrap() = 30 * 512..31 * 512;
    let read = rig.send(IN, 30, &[(DATA, 512, WRITE), (STATUS, 1, WRITE)]);
    assert_eq!(read, Some((IOERR, 0)));
    *rig.block.storage().bad.lock().unwrap() = 0..0;
    for sectors in [20..24_u16, 28..30, 29..32] {
        assert!(rig.block.io_error().is_some());
        for sector in sectors {
            rig.push(sector, IN, sector.into(), (DATA, 512));
        }
        rig.work();
    }
    assert!(rig.block.io_error().is_none());
}

#[test]
fn a_request_that_fails_alone_is_tried_once_and_counted_as_a_call() {
    let mut rig = Rig::new();
    *rig.block.storage().bad.lock().unwrap() = 0..512;
    let read = rig.send(IN, 0, &[(DATA, 512, WRITE), (STATUS, 1, WRITE)]);
    assert_eq!(read, Some((IOERR, 0)));
    assert_eq!(rig.calls().len(), 1);
    assert_eq!(rig.block.counters().backend_calls, 1);
    let nowhere = rig.send(IN, 0, &[(MEMORY_SIZE, 512, WRITE), (STATUS, 1, WRITE)]);
    assert_eq!(nowhere, Some((IOERR, 0)));
    assert_eq!(rig.block.counters().backend_calls, 1);
}

#[test]
fn buffers_that_are_no_neighbours_are_joined_all_the_same() {
    let mut rig = Rig::new();
    rig.push(0, OUT, 8, (DATA + 0x3000, 512));
    rig.push(1, OUT, 9, (DATA, 1024));
    rig.work();
    assert_eq!(rig.calls(), [(IoOperation::Write, 8 * 512, 1536, 2)]);
}

/// Storage that notes how many buffers its driver has got back at each call.
struct Watcher {
    memory: GuestMemoryMmap,
    returned: Mutex<Vec<u16>>,
}

impl Storage for Watcher {
    fn read_at(&self, _: u64, _: &[VolatileSlice<'_>]) -> io::Result<()> {
        let returned = self.memory.read_obj(GuestAddress(USED_RING + 2)).unwrap();
        self.returned.lock().unwrap().push(returned);
        Ok(())
    }

    fn write_at(&self, _: u64, _: &[VolatileSlice<'_>]) -> io::Result<()> {
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_driver_gets_the_first_of_many_large_requests_back_before_the_last_is_done() {
    let memory = memory();
    let storage = Arc::new(Watcher {
        memory: memory.clone(),
        returned: Mutex::default(),
    });
    let line = Arc::new(NotificationLine::new().unwrap());
    let block = Block::new(&config(512, false), storage, memory.clone(), line).unwrap();
    let block = Arc::new(block);
    let mut driver = Driver::new(block.clone(), memory);
    driver.start(VERSION_1, 64);
    // Two small ones, which are returned together with the first large one; none are neighbours.
    for (slot, sector, len) in [(0, 2, 512), (1, 4, 512), (2, 1024, 256 << 10), (3, 8, 512)] {
        let (header, status) = driver.header(slot, IN, sector);
        let head = driver.chain(&[(header, 16, 0), (DATA, len, WRITE), (status, 1, WRITE)]);
        driver.make_available(head);
    }
    block.handle_kick(0);
    assert_eq!(*block.storage().returned.lock().unwrap(), [0, 0, 0, 3]);
    assert_eq!(driver.used_index(), 4);
}

#[test]
fn only_neighbours_in_one_direction_are_joined() {
    let mut rig = Rig::new();
    for (slot, kind, sector) in [(0, IN, 1), (1, IN, 3), (2, OUT, 4), (3, IN, 5), (4, IN, 5)] {
        rig.push(slot, kind, sector, (DATA + u64::from(slot) * 512, 512));
    }
    rig.work();
    let offsets: Vec<_> = rig.calls().iter().map(|call| (call.1, call.2)).collect();
    let sectors = [1, 3, 4, 5, 5];
    assert_eq!(offsets, sectors.map(|sector| (sector * 512, 512)));
}

#[test]
fn a_run_is_not_longer_than_its_limit() {
    let mut rig = Rig::new();
    for slot in 0..10 {
        let offset = u64::from(slot) << 16;
        rig.push(slot, IN, offset / 512, (DATA + offset, 1 << 16));
    }
    rig.work();
    let sizes: Vec<_> = rig.calls().iter().map(|call| call.2).collect();
    assert_eq!(sizes, [256 << 10, 256 << 10, 128 << 10]);
}

#[test]
fn a_run_has_no_more_segments_than_its_limit_wherever_in_the_batch_it_is() {
    let mut rig = Rig::with(512, false);
    rig.driver.start(VERSION_1, 1024);
    rig.work();
    // A hundred segments each; the first is no neighbour of the others.
    for (slot, sector) in [1000, 0, 100, 200, 300, 400, 500].into_iter().enumerate() {
        let (header, status) = rig.driver.header(u16::try_from(slot).unwrap(), IN, sector);
        let mut parts = vec![(header, 16, 0)];
        parts.extend(vec![(DATA, 512, WRITE); 100]);
        parts.push((status, 1, WRITE));
        let head = rig.driver.chain(&parts);
        rig.driver.make_available(head);
    }
    rig.work();
    let sizes: Vec<_> = rig.calls().iter().map(|call| call.2 / 51200).collect();
    assert_eq!(sizes, [1, 5, 1]);
}

#[test]
fn when_a_run_fails_only_the_bad_request_gets_ioerr() {
    let mut rig = Rig::new();
    *rig.block.storage().bad.lock().unwrap() = 22 * 512..22 * 512 + 1;
    push_neighbours(&mut rig, 4);
    rig.work();
    let status = |slot: u64| rig.driver.byte(HEADERS + slot * 32 + 16);
    assert_eq!([0, 1, 2, 3].map(status), [OK, OK, IOERR, OK]);
    assert_eq!(rig.block.counters().errors, 1);
    let error = rig.block.io_error().unwrap();
    assert_eq!(error.operation, IoOperation::Read);
    assert_eq!((error.offset, error.len), (22 * 512, 512));
    assert_eq!(error.source.raw_os_error(), Some(libc::EIO));
    let told = error.to_string();
    assert!(
        told.starts_with("cannot read 512 bytes at offset 11264: "),
        "{told}"
    );
}

#[test]
fn a_bad_buffer_among_neighbours_fails_alone() {
    let mut rig = Rig::new();
    for (slot, address) in [(0, DATA), (1, MEMORY_SIZE), (2, DATA + 512)] {
        rig.push(slot, IN, 20 + u64::from(slot), (address, 512));
    }
    rig.work();
    let status = |slot: u64| rig.driver.byte(HEADERS + slot * 32 + 16);
    assert_eq!([0, 1, 2].map(status), [OK, IOERR, OK]);
    assert!(rig.block.io_error().is_none(), "the host is not to blame");
}

#[test]
fn a_failed_flush_and_a_failed_write_reach_the_driver_and_the_first_is_kept() {
    let mut rig = Rig::new();
    *rig.block.storage().bad.lock().unwrap() = 0..1;
    assert_eq!(rig.send(FLUSH, 0, &[(STATUS, 1, WRITE)]), Some((IOERR, 1)));
    let write = rig.send(OUT, 0, &[(DATA, 512, 0), (STATUS, 1, WRITE)]);
    assert_eq!(write, Some((IOERR, 1)));
    assert_eq!(rig.block.io_error().unwrap().operation, IoOperation::Flush);
    rig.assert_alive();
}
