//! What the guest says to the VMM: framed Protocol Buffers messages by COM1, each sent when it is
//! made, and their number at the end.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use guest_abi::ports::COM1;
use guest_formats::{Finding, ReasonSet};
use guest_kit::failure::{Failure, Op};
use guest_kit::hardware::Ports;
use guest_kit::serial::Uart;
use guest_protocol::{
    FindingMessage, GuestMessage, HEADER_LEN, MAX_MESSAGE_LEN, Payload, complete_message,
    encode_framed, info_message,
};

/// The device that everything is about.
const IMAGE: &str = "input";
const SECTOR: u64 = 512;

/// The failure of `op`, for `detail`.
pub fn failure(op: Op, detail: &dyn fmt::Display) -> Failure {
    Failure::new(op, IMAGE, detail)
}

/// The failure of a read of the image at the byte `offset`.
pub fn read_failure(offset: u64, detail: &dyn fmt::Display) -> Failure {
    Failure {
        sector: offset / SECTOR,
        ..failure(Op::Read, detail)
    }
}

/// Sends what is found to the VMM.
#[derive(Debug)]
pub struct Reporter<'a, P> {
    uart: Uart<'a, P>,
    buffer: Vec<u8>,
    /// Messages sent.
    count: u64,
}

impl<'a, P: Ports> Reporter<'a, P> {
    /// A reporter by COM1.
    #[must_use]
    pub fn new(ports: &'a P) -> Self {
        Self {
            uart: Uart::new(ports, COM1),
            buffer: vec![0; HEADER_LEN + MAX_MESSAGE_LEN],
            count: 0,
        }
    }

    /// Says something of the image.
    pub fn say(&mut self, payload: Payload) {
        self.send(&info_message(payload));
    }

    /// Says what speaks against the image.
    pub fn finding(&mut self, finding: &Finding, allowed: ReasonSet) {
        let reason = finding.reason;
        self.say(Payload::Finding(FindingMessage {
            name: reason.name().into(),
            text: reason.message().into(),
            broken: reason.class() == guest_formats::Class::Broken,
            allowed: allowed.contains(reason) && reason.may_be_allowed(),
            at: finding.at,
            value: finding.value,
        }));
    }

    /// The run has ended, well or not.
    pub fn end(&mut self, operation: &str, result: &Result<(), Failure>) {
        if let Err(failure) = result {
            self.send(&failure.message());
        }
        let count = self.count;
        self.send(&complete_message(operation, count, result.is_ok()));
    }

    fn send(&mut self, message: &GuestMessage) {
        // Every message fits: its texts have bounds, which together stay below that of a frame.
        let len = encode_framed(message, &mut self.buffer).unwrap_or(0);
        self.uart.send(self.buffer.get(..len).unwrap_or_default());
        self.count += 1;
    }
}
