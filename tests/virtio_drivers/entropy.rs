//! The driver of random numbers and the device of the example (virtio 1.2, section 5.4).

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use virtio_drivers::device::rng::VirtIORng;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::{DeviceStatus, Transport};
use vmm::virtio::{MmioTransport, NotificationLine, QueueWorker};

use crate::guest::{DeviceThread, Registers, TestHal, new_memory};

#[path = "../../examples/entropy/device.rs"]
mod device;

/// The device over `source`, and the thread on which it works.
fn device(source: File) -> (Registers, DeviceThread) {
    let memory = new_memory();
    let line = Arc::new(NotificationLine::new().unwrap());
    let entropy = device::Entropy { source };
    let entropy = Arc::new(QueueWorker::serving(entropy, memory.clone(), line).unwrap());
    let mmio = Arc::new(MmioTransport::new(entropy.clone(), memory));
    (Registers { mmio }, DeviceThread::start(entropy))
}

/// A file with so many bytes, none of which is zero.
fn file(length: usize) -> (File, Vec<u8>) {
    let bytes: Vec<u8> = (1..=250).cycle().take(length).collect();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes).unwrap();
    file.rewind().unwrap();
    (file, bytes)
}

/// A driver that puts into a request what it likes.
struct Chains {
    registers: Registers,
    queue: VirtQueue<TestHal, 8>,
}

impl Chains {
    fn new(mut registers: Registers) -> Self {
        let mut status = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
        registers.set_status(status);
        registers.write_driver_features(1 << 32);
        status |= DeviceStatus::FEATURES_OK;
        registers.set_status(status);
        let queue = VirtQueue::new(&mut registers, 0, false, false).unwrap();
        registers.set_status(status | DeviceStatus::DRIVER_OK);
        Self { registers, queue }
    }

    /// Makes a request of these parts, the first of which the device may read and the others write.
    /// Returns how many bytes it has written by its own account, and what the parts hold then. What it
    /// leaves alone is zero.
    fn request(&mut self, readable: &[usize], writable: &[usize]) -> (u32, Vec<u8>) {
        let shown: Vec<_> = readable.iter().map(|length| vec![0xee; *length]).collect();
        let shown: Vec<_> = shown.iter().map(Vec::as_slice).collect();
        let mut parts: Vec<_> = writable.iter().map(|length| vec![0; *length]).collect();
        let mut taken: Vec<_> = parts.iter_mut().map(Vec::as_mut_slice).collect();
        let registers = &mut self.registers;
        let used = self
            .queue
            .add_notify_wait_pop(&shown, &mut taken, registers);
        (used.unwrap(), parts.concat())
    }
}

#[test]
fn a_request_of_several_parts_gets_no_more_than_one_of_one_part() {
    let (source, bytes) = file(20_000);
    let (registers, _thread) = device(source);
    let mut driver = Chains::new(registers);
    let mut taken = 0;
    for (readable, writable, expected) in [
        (&[][..], &[4000, 4000][..], 4096),
        // What the device may read gets nothing, and takes nothing from the rest.
        (&[4096], &[4000, 4000], 4096),
        (&[5, 9000], &[1, 1, 1, 7], 10),
        (&[], &[4096, 16], 4096),
        (&[16], &[], 0),
        (&[], &[8], 8),
    ] {
        let (used, parts) = driver.request(readable, writable);
        assert_eq!(used, expected, "{readable:?} {writable:?}");
        let (filled, rest) = parts.split_at(expected as usize);
        assert!(
            *filled == bytes[taken..taken + filled.len()],
            "{writable:?}"
        );
        assert!(rest.iter().all(|byte| *byte == 0), "{writable:?}");
        taken += filled.len();
    }
}

/// A source that fails once: to read an empty datagram is to read nothing.
#[test]
fn what_the_driver_is_told_of_has_no_gap_where_the_source_has_failed() {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    for datagram in [&[1; 16][..], &[], &[2; 16]] {
        ours.send(datagram).unwrap();
    }
    let (registers, _thread) = device(File::from(OwnedFd::from(theirs)));
    let mut driver = Chains::new(registers);
    let (used, parts) = driver.request(&[], &[16, 16, 16]);
    assert_eq!((used, &parts[..16]), (16, &[1; 16][..]));
    assert!(parts[16..].iter().all(|byte| *byte == 0));
    // The device goes on.
    assert_eq!(driver.request(&[], &[16]), (16, vec![2; 16]));
}

#[test]
fn a_request_gets_the_next_bytes_and_a_large_one_no_more_than_a_few() {
    let (source, bytes) = file(20_000);
    let (registers, _thread) = device(source);
    let mut driver = VirtIORng::<TestHal, _>::new(registers).unwrap();

    let mut taken = 0;
    for (asked, expected) in [(1, 1), (16, 16), (4096, 4096), (1 << 20, 4096), (8, 8)] {
        let mut buffer = vec![0xff; asked];
        assert_eq!(driver.request_entropy(&mut buffer), Ok(expected));
        assert_eq!(buffer[..expected], bytes[taken..taken + expected]);
        taken += expected;
    }
}
