//! The machine, in the tests' own memory: UARTs, two virtio block devices and the idle port.
//!
//! The disks follow the specification (virtio 1.2, sections 2.7 and 5.2) and assert that the driver
//! does; they answer in any order, and only while the driver waits or kicks.
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::cast_possible_truncation,
    missing_docs
)]

pub mod disk;
pub mod memory;
pub mod ports;

use std::rc::Rc;

use disk::FakeDisk;
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

/// Ports whose idle port lets the disks work until one of them notifies the driver.
pub fn ports_with(config: &[u8], disks: [&Rc<FakeDisk>; 2], seed: u64) -> FakePorts {
    let disks = disks.map(Rc::clone);
    let mut choose = Chooser::new(seed);
    FakePorts::with_idle(config, move || {
        while !disks.iter().any(|disk| disk.take_notification()) {
            let busy: Vec<_> = disks.iter().filter(|disk| disk.is_busy()).collect();
            assert!(!busy.is_empty(), "idle with nothing under way: a hang");
            busy[choose.below(busy.len())].work();
        }
        for disk in &disks {
            disk.take_notification();
        }
    })
}
