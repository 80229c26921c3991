//! A driver that could have had FLUSH and left it out takes what it has written for stable as soon as
//! it has the answer (virtio 1.2, section 5.2.6.2), and so it is stable by then.

use std::sync::atomic::{AtomicU16, Ordering};

use vm_memory::GuestMemoryMmap;

use super::*;
use crate::virtio::testing::{AVAIL_RING, DATA, USED_RING};

const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

/// Storage that notes what is written and flushed, and how many buffers the driver has back by then.
struct Watcher {
    memory: GuestMemoryMmap,
    seen: Mutex<Vec<(IoOperation, u16)>>,
}

impl Watcher {
    fn note(&self, operation: IoOperation) {
        let returned = self.memory.read_obj(GuestAddress(USED_RING + 2)).unwrap();
        self.seen.lock().unwrap().push((operation, returned));
    }
}

impl Storage for Watcher {
    fn read_at(&self, _: u64, _: &[VolatileSlice<'_>]) -> io::Result<()> {
        Ok(())
    }

    fn write_at(&self, _: u64, _: &[VolatileSlice<'_>]) -> io::Result<()> {
        self.note(IoOperation::Write);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.note(IoOperation::Flush);
        Ok(())
    }
}

/// A running disk whose driver does not flush.
fn rig() -> Rig {
    let mut rig = Rig::with_zeroes(512);
    rig.driver.start(VERSION_1 | F_ZEROES, 64);
    rig.work();
    rig
}

fn operations(rig: &Rig) -> Vec<IoOperation> {
    rig.calls().iter().map(|call| call.0).collect()
}

#[test]
fn writes_are_flushed_before_a_driver_that_does_not_flush_has_any_of_them_back() {
    let memory = memory();
    let storage = Arc::new(Watcher {
        memory: memory.clone(),
        seen: Mutex::default(),
    });
    let line = Arc::new(NotificationLine::new().unwrap());
    let block = Block::new(&config(512, false), storage, memory.clone(), line).unwrap();
    let block = Arc::new(block);
    let mut driver = Driver::new(block.clone(), memory);
    // None are neighbours, and one is so large that it would be answered by itself.
    let written = [(0, 2, 512), (1, 4, 512), (2, 1024, 256 << 10), (3, 8, 512)];
    let [write, flush] = [IoOperation::Write, IoOperation::Flush];
    for (features, expected) in [
        (
            VERSION_1,
            [(write, 0), (write, 0), (write, 0), (write, 0), (flush, 0)].as_slice(),
        ),
        (
            VERSION_1 | F_FLUSH,
            &[(write, 0), (write, 0), (write, 0), (write, 3)],
        ),
    ] {
        driver.start(features, 64);
        for (slot, sector, len) in written {
            let (header, status) = driver.header(slot, OUT, sector);
            let head = driver.chain(&[(header, 16, 0), (DATA, len, 0), (status, 1, WRITE)]);
            driver.make_available(head);
        }
        block.handle_kick(0);
        let seen = std::mem::take(&mut *block.storage().seen.lock().unwrap());
        assert_eq!(seen, expected);
        assert_eq!(driver.used_index(), 4);
    }
}

#[test]
fn zeros_are_flushed_like_data_and_what_changes_nothing_is_not() {
    let mut rig = rig();
    let zeros = [[0; 8], 8_u64.to_le_bytes()].concat();
    let memory = &rig.driver.memory;
    memory.write_slice(&zeros, GuestAddress(DATA)).unwrap();
    let [write, flush] = [IoOperation::Write, IoOperation::Flush];
    for (kind, calls) in [
        (WRITE_ZEROES, [write, flush].as_slice()),
        (DISCARD, &[IoOperation::Discard]),
        (FLUSH, &[flush]),
        (GET_ID, &[]),
    ] {
        let flags = if kind == GET_ID { WRITE } else { 0 };
        let answer = rig.send(kind, 0, &[(DATA, 16, flags), (STATUS, 1, WRITE)]);
        assert_eq!(answer.unwrap().0, OK, "{kind}");
        assert_eq!(operations(&rig), calls, "{kind}");
    }
    assert_eq!(
        rig.send(IN, 0, &[(DATA, 512, WRITE), (STATUS, 1, WRITE)]),
        Some((OK, 513))
    );
    assert_eq!(operations(&rig), [IoOperation::Read]);
}

#[test]
fn what_cannot_be_made_stable_has_failed_and_a_flush_that_failed_stays_an_error() {
    let mut rig = rig();
    // The storage's flushes are at offset 0, and its writes elsewhere.
    *rig.block.storage().bad.lock().unwrap() = 0..1;
    let push_all = |rig: &mut Rig| {
        let requests = [(0, OUT, 8), (1, OUT, 9), (2, IN, 20), (3, OUT, 30)];
        requests.map(|(slot, kind, sector)| rig.push(slot, kind, sector, (DATA, 512)))
    };
    let statuses = push_all(&mut rig);
    rig.work();
    let answers = statuses.map(|status| rig.driver.byte(status));
    assert_eq!(answers, [IOERR, IOERR, OK, IOERR]);
    let counters = rig.block.counters();
    assert_eq!((counters.bytes_written, counters.errors), (0, 3));
    // Two neighbours, a read, a write, the flush.
    assert_eq!(counters.backend_calls, 4);
    assert_eq!(rig.block.io_error().unwrap().operation, IoOperation::Flush);

    *rig.block.storage().bad.lock().unwrap() = 0..0;
    let statuses = push_all(&mut rig);
    rig.work();
    assert_eq!(statuses.map(|status| rig.driver.byte(status)), [OK; 4]);
    assert_eq!(rig.block.counters().bytes_written, 3 * 512);
    assert_eq!(rig.block.io_error().unwrap().operation, IoOperation::Flush);
}

#[test]
fn a_write_that_fails_is_answered_without_a_flush() {
    let mut rig = rig();
    *rig.block.storage().bad.lock().unwrap() = 4096..4097;
    let write = rig.send(OUT, 8, &[(DATA, 512, 0), (STATUS, 1, WRITE)]);
    assert_eq!(write, Some((IOERR, 1)));
    assert_eq!(operations(&rig), [IoOperation::Write]);
}

#[test]
fn what_was_written_before_a_fault_is_flushed_and_answered() {
    let mut rig = rig();
    let status = rig.push(0, OUT, 7, (DATA, 512));
    rig.driver.make_available(0xffff);
    rig.work();
    assert!(rig.block.notifier().needs_reset());
    assert!(rig.driver.pop_used().is_some());
    assert_eq!(rig.driver.byte(status), OK);
    assert_eq!(operations(&rig), [IoOperation::Write, IoOperation::Flush]);
}

/// Storage whose driver makes another request available whenever one has been written.
struct Feeder {
    memory: GuestMemoryMmap,
    flushes: AtomicU16,
}

impl Storage for Feeder {
    fn read_at(&self, _: u64, _: &[VolatileSlice<'_>]) -> io::Result<()> {
        Ok(())
    }

    fn write_at(&self, _: u64, _: &[VolatileSlice<'_>]) -> io::Result<()> {
        let index = GuestAddress(AVAIL_RING + 2);
        let available: u16 = self.memory.read_obj(index).unwrap();
        if available < 64 {
            self.memory.write_obj(available + 1, index).unwrap();
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

#[test]
fn a_round_has_not_many_flushes_that_its_driver_has_not_asked_for() {
    let memory = memory();
    let storage = Arc::new(Feeder {
        memory: memory.clone(),
        flushes: AtomicU16::new(0),
    });
    let line = Arc::new(NotificationLine::new().unwrap());
    let block = Block::new(&config(512, false), storage, memory.clone(), line).unwrap();
    let block = Arc::new(block);
    let mut driver = Driver::new(block.clone(), memory);
    driver.start(VERSION_1, 64);
    let (header, status) = driver.header(0, OUT, 0);
    let head = driver.chain(&[(header, 16, 0), (DATA, 512, 0), (status, 1, WRITE)]);
    (0..64).for_each(|_| driver.make_available(head));
    driver.set_avail_index(1);
    let mut before = 0;
    while driver.used_index() < 64 {
        block.handle_kick(0);
        let flushes = block.storage().flushes.load(Ordering::Relaxed);
        assert!(flushes - before <= 16, "{flushes} after {before}");
        before = flushes;
    }
    assert_eq!(before, 64);
}
