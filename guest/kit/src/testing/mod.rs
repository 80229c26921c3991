//! The machine, in the tests' own memory: UARTs, virtio devices and the idle port.
//!
//! The devices follow the specification (virtio 1.2, sections 2.7, 5.2 and 5.3) and assert that the
//! driver does. Disks answer in any order; both kinds work only while the driver waits or kicks.
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::cast_possible_truncation,
    missing_docs
)]

pub mod console;
pub mod disk;
pub mod memory;
pub mod ports;
pub mod program;

use std::rc::Rc;

use ports::FakePorts;
use proptest::test_runner::{RngAlgorithm, TestRng};

/// A source of arbitrary but repeatable choices.
pub struct Chooser(TestRng);

impl Chooser {
    pub fn new(seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Self(TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
    }

    /// A number less than `end`.
    pub fn below(&mut self, end: usize) -> usize {
        use proptest::prelude::Rng;
        self.0.next_u64() as usize % end
    }
}

/// A device that works while the driver waits.
pub trait Device {
    /// Whether the driver is to be woken. That the device has failed stays so until a reset.
    fn take_notification(&self) -> bool;

    /// Whether there is something that it can do.
    fn is_busy(&self) -> bool;

    /// Does some of it.
    fn work(&self);
}

/// Ports whose idle port lets the devices work until one of them notifies the driver.
pub fn ports_with(
    config: &[u8],
    devices: impl IntoIterator<Item = Rc<dyn Device>>,
    seed: u64,
) -> FakePorts {
    let devices: Vec<_> = devices.into_iter().collect();
    let mut choose = Chooser::new(seed);
    FakePorts::with_idle(config, move || {
        while !devices.iter().any(|device| device.take_notification()) {
            let busy: Vec<_> = devices.iter().filter(|device| device.is_busy()).collect();
            assert!(!busy.is_empty(), "idle with nothing under way: a hang");
            busy[choose.below(busy.len())].work();
        }
        for device in &devices {
            device.take_notification();
        }
    })
}
