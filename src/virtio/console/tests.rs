#![allow(clippy::unwrap_used)]

use virtio_bindings::virtio_mmio as reg;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::devices::Overflow;
use crate::virtio::testing::{
    AVAIL_RING, DATA, DESC_TABLE, Driver, EVENT_IDX, INDIRECT_DESC, USED_RING, VERSION_1, WRITE,
};
use crate::virtio::worker::Counts;
use crate::virtio::{DescriptorTable, Notifier, QueueConfig};

const CAPACITY: usize = 64;
const SIZE: u16 = 16;
/// Where the rings of the queue are that a test does not drive.
const OTHER: u64 = 0x8_0000;

/// A console, whose driver drives one of its queues, and what was transmitted.
struct Rig {
    console: Arc<Console>,
    driver: Driver,
    queue: usize,
    transmitted: Arc<ByteQueue>,
    line: Arc<NotificationLine>,
}

impl Rig {
    fn new(queue: usize) -> Self {
        let memory = crate::virtio::testing::memory();
        let line = Arc::new(NotificationLine::new().unwrap());
        let transmitted = Arc::new(ByteQueue::new(CAPACITY, Overflow::Wait).unwrap());
        let console = Console::new(transmitted.clone(), memory.clone(), line.clone()).unwrap();
        let console = Arc::new(console);
        let driver = Driver::new(console.clone(), memory);
        let mut rig = Self {
            console,
            driver,
            queue,
            transmitted,
            line,
        };
        rig.start();
        rig
    }

    fn start(&mut self) {
        let queue = u32::try_from(self.queue).unwrap();
        self.driver
            .start_beside(VERSION_1, SIZE, queue, (1 - queue, OTHER));
        self.work();
    }

    /// What the console's thread does until it has nothing to do.
    fn work(&self) {
        for _ in 0..if cfg!(miri) { 2 } else { 10 } {
            self.console.handle_kick(RECEIVE_QUEUE);
            self.console.handle_kick(TRANSMIT_QUEUE);
        }
    }

    fn offer(&mut self, parts: &[(u64, u32, u16)]) -> u16 {
        let head = self.driver.chain(parts);
        self.driver.make_available(head);
        self.work();
        head
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        let memory = &self.driver.memory;
        memory.write_slice(bytes, GuestAddress(at)).unwrap();
    }

    fn take(&self, at_most: usize) -> Vec<u8> {
        let mut bytes = vec![0; at_most];
        let len = self.transmitted.take(&mut bytes);
        bytes.truncate(len);
        bytes
    }
}

fn text(len: usize) -> Vec<u8> {
    (b'a'..=b'w').cycle().take(len).collect()
}

#[test]
fn what_is_transmitted_arrives_however_it_is_spread() {
    let mut rig = Rig::new(TRANSMIT_QUEUE);
    rig.write(DATA, b"hello world");
    let head = rig.offer(&[(DATA, 4, 0), (DATA, 0, 0), (DATA + 4, 7, 0)]);
    assert_eq!(rig.driver.pop_used(), Some((head.into(), 0)));
    assert_eq!(rig.take(99), b"hello world");
    assert!(!rig.console.in_flight());
}

#[test]
fn a_buffer_for_which_there_is_no_room_stays_until_there_is() {
    let mut rig = Rig::new(TRANSMIT_QUEUE);
    let sent = text(3 * CAPACITY);
    rig.write(DATA, &sent);
    let len = u32::try_from(CAPACITY).unwrap();
    let first = rig.offer(&[(DATA, len, 0)]);
    let second = rig.offer(&[(DATA + u64::from(len), 2 * len, 0)]);
    assert_eq!(rig.driver.pop_used(), Some((first.into(), 0)));
    assert_eq!(rig.driver.pop_used(), None);
    assert!(
        rig.console.in_flight(),
        "its guest must not be told that nothing is under way"
    );

    let mut received = Vec::new();
    while received.len() < sent.len() {
        assert_eq!(rig.driver.used_index(), 1);
        let part = rig.take(7);
        assert!(!part.is_empty(), "{} bytes have arrived", received.len());
        received.extend(part);
        rig.work();
        if received.len() + CAPACITY >= sent.len() {
            break;
        }
    }
    received.extend(rig.take(CAPACITY));
    rig.work();
    received.extend(rig.take(CAPACITY));
    assert_eq!(received, sent);
    assert_eq!(rig.driver.pop_used(), Some((second.into(), 0)));
    assert!(!rig.console.in_flight());
}

#[test]
fn a_chain_of_which_a_part_was_taken_goes_on_in_the_midst_of_it() {
    let mut rig = Rig::new(TRANSMIT_QUEUE);
    let sent = text(2 * CAPACITY);
    rig.write(DATA, &sent);
    // The second piece has room for half of it, and as much again is left of it and behind it.
    let parts = [40, 48, 40].iter().scan(DATA, |at, &len| {
        *at += u64::from(len);
        Some((*at - u64::from(len), len, 0))
    });
    let head = rig.offer(&parts.collect::<Vec<_>>());
    assert_eq!(rig.driver.pop_used(), None);
    let mut received = rig.take(CAPACITY);
    rig.work();
    received.extend(rig.take(CAPACITY));
    assert_eq!(received, sent);
    assert_eq!(rig.driver.pop_used(), Some((head.into(), 0)));
}

#[test]
fn a_reset_forgets_the_part_of_a_buffer_that_was_taken() {
    let mut rig = Rig::new(TRANSMIT_QUEUE);
    rig.write(DATA, &text(CAPACITY + 10));
    rig.offer(&[(DATA, u32::try_from(CAPACITY + 10).unwrap(), 0)]);
    assert!(rig.console.in_flight());
    rig.driver.write(reg::VIRTIO_MMIO_STATUS, 0);
    assert!(!rig.console.in_flight());
    rig.take(CAPACITY);
    rig.start();
    rig.write(DATA, b"again");
    rig.offer(&[(DATA, 5, 0)]);
    assert_eq!(rig.take(99), b"again");
}

#[test]
fn stopping_the_other_queue_forgets_nothing_of_a_buffer() {
    let mut rig = Rig::new(TRANSMIT_QUEUE);
    let sent = text(CAPACITY + 10);
    rig.write(DATA, &sent);
    rig.offer(&[(DATA, u32::try_from(CAPACITY + 10).unwrap(), 0)]);
    let receive_queue = u32::try_from(RECEIVE_QUEUE).unwrap();
    rig.driver.write(reg::VIRTIO_MMIO_QUEUE_SEL, receive_queue);
    rig.driver.write(reg::VIRTIO_MMIO_QUEUE_READY, 0);
    assert!(rig.console.in_flight());
    let mut received = rig.take(CAPACITY);
    rig.work();
    received.extend(rig.take(CAPACITY));
    assert_eq!(received, sent);
}

#[test]
fn a_closed_queue_takes_everything_and_keeps_nothing() {
    let mut rig = Rig::new(TRANSMIT_QUEUE);
    rig.transmitted.close();
    for _ in 0..10 {
        rig.offer(&[(DATA, 100_000, 0)]);
        assert!(rig.driver.pop_used().is_some());
    }
    assert!(!rig.console.in_flight());
}

#[test]
fn buffers_that_wait_for_input_rest_and_are_filled_when_it_comes() {
    let mut rig = Rig::new(RECEIVE_QUEUE);
    let first = rig.offer(&[(DATA, 2, WRITE), (DATA + 16, 1, WRITE)]);
    let second = rig.offer(&[(DATA + 32, 16, WRITE)]);
    assert_eq!(rig.driver.used_index(), 0);
    assert!(!rig.console.in_flight(), "no input will come");
    rig.console.expect_input(true);
    assert!(rig.console.in_flight());

    rig.console.send_input(b"12345");
    rig.work();
    assert_eq!(rig.driver.pop_used(), Some((first.into(), 3)));
    assert_eq!(rig.driver.pop_used(), Some((second.into(), 2)));
    let found = [DATA, DATA + 1, DATA + 16, DATA + 32, DATA + 33].map(|at| rig.driver.byte(at));
    assert_eq!(&found, b"12345");
    assert!(rig.line.take(), "the driver is notified");
    rig.console.expect_input(false);
    assert!(!rig.console.in_flight());
}

#[test]
fn input_that_comes_before_a_buffer_waits_for_it() {
    let mut rig = Rig::new(RECEIVE_QUEUE);
    rig.console.send_input(b"123");
    rig.work();
    let head = rig.offer(&[(DATA, 9, WRITE)]);
    assert_eq!(rig.driver.pop_used(), Some((head.into(), 3)));
    assert_eq!(rig.driver.byte(DATA + 2), b'3');
}

#[test]
fn a_buffer_for_the_other_direction_or_out_of_reach_stops_the_device() {
    let cases = [
        (
            TRANSMIT_QUEUE,
            (DATA, 4, WRITE),
            "transmit queue is for the other direction",
        ),
        (TRANSMIT_QUEUE, (1 << 40, 4, 0), "not within guest memory"),
        (TRANSMIT_QUEUE, (u64::MAX, 4, 0), "not within guest memory"),
        (
            RECEIVE_QUEUE,
            (DATA, 4, 0),
            "receive queue is for the other direction",
        ),
        (
            RECEIVE_QUEUE,
            (1 << 40, 4, WRITE),
            "not within guest memory",
        ),
    ];
    for (queue, part, reason) in cases {
        let mut rig = Rig::new(queue);
        rig.console.send_input(b"123");
        rig.offer(&[part]);
        assert!(rig.console.notifier().needs_reset());
        let fault = rig.console.fault().unwrap().to_string();
        assert!(fault.contains(reason), "{fault}");
        assert!(!rig.console.in_flight());
    }
}

#[test]
fn a_fault_of_one_queue_stops_the_other_until_a_reset() {
    let mut rig = Rig::new(TRANSMIT_QUEUE);
    let available = |rig: &Rig, count: u16| rig.write(OTHER + 0x1002, &count.to_le_bytes());
    // The buffer is not for the device to write to.
    rig.driver.write_descriptor(OTHER, 0, DATA, 4, 0, 0);
    available(&rig, 1);
    rig.console.expect_input(true);
    rig.console.send_input(b"1");
    rig.work();
    assert!(rig.console.notifier().needs_reset());
    assert!(!rig.console.in_flight(), "no input will be received");

    rig.write(DATA, b"hello");
    rig.offer(&[(DATA, 5, 0)]);
    assert_eq!(rig.driver.used_index(), 0);
    assert_eq!(rig.take(99), b"");

    rig.console.expect_input(false);
    available(&rig, 0);
    rig.start();
    rig.offer(&[(DATA, 5, 0)]);
    assert_eq!(rig.take(99), b"hello");
}

#[test]
fn it_is_a_console_with_two_queues_and_an_empty_configuration() {
    let rig = Rig::new(TRANSMIT_QUEUE);
    assert_eq!(rig.driver.read(reg::VIRTIO_MMIO_DEVICE_ID), 3);
    assert_eq!(rig.console.queue_max_sizes(), QUEUE_SIZES);
    assert_eq!(rig.driver.read(reg::VIRTIO_MMIO_CONFIG), 0);
    assert_eq!(rig.driver.read(reg::VIRTIO_MMIO_CONFIG_GENERATION), 0);
    let of_the_queues = VERSION_1 | EVENT_IDX | INDIRECT_DESC;
    assert_eq!(rig.console.device_features(), of_the_queues);
}

#[test]
fn bytes_that_were_moved_count_although_there_was_no_room_for_more() {
    let mut rig = Rig::new(TRANSMIT_QUEUE);
    let len = u32::try_from(CAPACITY).unwrap();
    let head = rig.driver.chain(&[(DATA, len + 10, 0)]);
    rig.driver.make_available(head);
    let registers = QueueConfig {
        size: SIZE.into(),
        desc_table: DESC_TABLE,
        avail_ring: AVAIL_RING,
        used_ring: USED_RING,
        ready: true,
    };
    let memory = &rig.driver.memory;
    let mut queue = registers.build(SIZE, false, memory).unwrap();
    let (notifier, counts) = (Notifier::new(rig.line.clone()), Counts::default());
    let mut used = Vec::new();
    let table = DescriptorTable::new(&queue, memory, false).unwrap();
    let mut turn = Turn::new(&mut queue, table, memory, &mut used, (&notifier, &counts));
    let output = Output::new(rig.transmitted.clone());
    output.serve(&mut turn).unwrap();
    assert_eq!(turn.bytes(), CAPACITY as u64);
}
