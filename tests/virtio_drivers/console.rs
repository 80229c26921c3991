//! The console driver and the console (virtio 1.2, section 5.3).

use std::sync::Arc;

use virtio_drivers::device::console::VirtIOConsole;
use vmm::devices::{ByteQueue, Overflow};
use vmm::virtio::console::Console;
use vmm::virtio::{MmioTransport, NotificationLine, VirtioDevice};

use crate::guest::{DeviceThread, Registers, TestHal, new_memory, until};

/// What may wait to be taken, in bytes.
const ROOM: usize = 1000;

type Driver = VirtIOConsole<TestHal, Registers>;

/// A console on its own thread, as the machine runs it.
struct Machine {
    console: Arc<Console>,
    mmio: Arc<MmioTransport>,
    transmitted: Arc<ByteQueue>,
    _thread: DeviceThread,
}

impl Machine {
    fn new() -> Self {
        let memory = new_memory();
        let line = Arc::new(NotificationLine::new().unwrap());
        let transmitted = Arc::new(ByteQueue::new(ROOM, Overflow::Wait).unwrap());
        let console = Console::new(transmitted.clone(), memory.clone(), line).unwrap();
        let console = Arc::new(console);
        Self {
            mmio: Arc::new(MmioTransport::new(console.clone(), memory)),
            _thread: DeviceThread::start(console.clone()),
            console,
            transmitted,
        }
    }

    fn driver(&self) -> Driver {
        let mmio = Arc::clone(&self.mmio);
        Driver::new(Registers { mmio }).unwrap()
    }
}

/// Takes `len` bytes, a few at a time.
fn take(queue: &ByteQueue, len: usize) -> Vec<u8> {
    let (mut bytes, mut part) = (Vec::new(), [0; 300]);
    until(|| {
        let taken = queue.take(&mut part);
        bytes.extend_from_slice(&part[..taken]);
        bytes.len() >= len
    });
    bytes
}

#[test]
fn what_the_driver_sends_arrives() {
    let machine = Machine::new();
    let mut driver = machine.driver();
    driver.send(b'>').unwrap();
    driver.send_bytes(b" hello").unwrap();
    assert_eq!(take(&machine.transmitted, 7), b"> hello");
    assert_eq!(driver.size().unwrap(), None);
    assert!(driver.emergency_write(b'x').is_err());
}

#[test]
fn a_driver_that_sends_more_than_anyone_takes_waits_and_loses_nothing() {
    let machine = Machine::new();
    let sent: Vec<u8> = (0..=250).cycle().take(20 * ROOM).collect();
    let reader = std::thread::spawn({
        let (queue, len) = (machine.transmitted.clone(), sent.len());
        move || take(&queue, len)
    });
    let mut driver = machine.driver();
    for part in sent.chunks(5 * ROOM / 2) {
        driver.send_bytes(part).unwrap();
    }
    assert!(reader.join().unwrap() == sent);
}

#[test]
fn what_is_sent_to_the_driver_arrives_in_order() {
    let machine = Machine::new();
    let mut driver = machine.driver();
    let sent: Vec<u8> = (0..=250).cycle().take(20_000).collect();
    let mut received = Vec::new();
    for part in sent.chunks(999) {
        machine.console.send_input(part);
        received.extend(driver.recv(true).unwrap());
    }
    while received.len() < sent.len() {
        received.extend(driver.recv(true).unwrap());
    }
    assert!(received == sent);
}

#[test]
fn a_second_driver_takes_over_from_one_that_is_gone() {
    let machine = Machine::new();
    for round in 0..20 {
        let mut driver = machine.driver();
        driver.send(round).unwrap();
        assert_eq!(take(&machine.transmitted, 1), [round]);
    }
    assert!(!machine.console.notifier().needs_reset());
}

#[test]
fn a_buffer_that_waits_for_input_is_not_in_flight_unless_more_may_come() {
    let machine = Machine::new();
    let mut driver = machine.driver();
    driver.send(b'x').unwrap();
    let rests = || until(|| !machine.console.in_flight());
    rests();
    machine.console.expect_input(true);
    assert!(machine.console.in_flight());
    machine.console.expect_input(false);
    rests();
}
