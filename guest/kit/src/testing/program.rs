//! What tests of whole programs have in common: where their devices are, what they said, and how far
//! they say that they are.

use guest_abi::layout::{QUEUE_SIZE, registers};
use guest_protocol::{FrameDecoder, GuestMessage};

use super::memory::leak;
use crate::hardware::{Attached, Registers};
use crate::progress::Observer;

/// The device in `slot`, with memory for its queue.
pub fn attached(device: &dyn Registers, slot: usize) -> Attached<&dyn Registers> {
    Attached {
        registers: device,
        address: registers(slot),
        queue: leak(QUEUE_SIZE as usize),
    }
}

/// The messages in what was sent, all of which are whole.
pub fn decode(bytes: &[u8]) -> Vec<GuestMessage> {
    let mut messages = Vec::new();
    let mut decoder = FrameDecoder::new();
    decoder
        .push(bytes, |message| messages.push(message))
        .unwrap();
    assert!(!decoder.is_mid_frame());
    messages
}

/// Records the counts, which must never fall, and those up to which there were holes.
#[derive(Default)]
pub struct Counts(pub Vec<u64>, pub Vec<u64>);

impl Observer for Counts {
    fn done(&mut self, sectors: u64) {
        assert!(self.0.last().is_none_or(|&last| last <= sectors));
        self.0.push(sectors);
    }

    fn skipped(&mut self, sectors: u64) {
        self.1.push(sectors);
    }

    fn idle(&mut self) {}
}
