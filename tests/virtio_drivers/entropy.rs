//! The driver of random numbers and the device of the example (virtio 1.2, section 5.4).

use std::io::{Seek, Write};
use std::sync::Arc;

use virtio_drivers::device::rng::VirtIORng;
use vmm::virtio::{MmioTransport, NotificationLine, QueueWorker};

use crate::guest::{DeviceThread, Registers, TestHal, new_memory};

#[path = "../../examples/entropy/device.rs"]
mod device;

#[test]
fn a_request_gets_the_next_bytes_and_a_large_one_no_more_than_a_few() {
    let bytes: Vec<u8> = (0..=250).cycle().take(20_000).collect();
    let mut source = tempfile::tempfile().unwrap();
    source.write_all(&bytes).unwrap();
    source.rewind().unwrap();

    let memory = new_memory();
    let line = Arc::new(NotificationLine::new().unwrap());
    let entropy = device::Entropy { source };
    let entropy = Arc::new(QueueWorker::serving(entropy, memory.clone(), line).unwrap());
    let mmio = Arc::new(MmioTransport::new(entropy.clone(), memory));
    let _thread = DeviceThread::start(entropy);
    let mut driver = VirtIORng::<TestHal, _>::new(Registers { mmio }).unwrap();

    let mut taken = 0;
    for (asked, expected) in [(1, 1), (16, 16), (4096, 4096), (1 << 20, 4096), (8, 8)] {
        let mut buffer = vec![0xff; asked];
        assert_eq!(driver.request_entropy(&mut buffer), Ok(expected));
        assert_eq!(buffer[..expected], bytes[taken..taken + expected]);
        taken += expected;
    }
}
