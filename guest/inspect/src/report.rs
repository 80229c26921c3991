//! Sends the VMM what is found, as messages by COM1. Each is sent when it is made, and the last one
//! says how many there were.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use guest_abi::ports::COM1;
use guest_formats::Finding;
use guest_kit::failure::{Failure, Op};
use guest_kit::hardware::Ports;
use guest_kit::serial::Uart;
use guest_protocol::{
    FindingMessage, GuestMessage, HEADER_LEN, MAX_MESSAGE_LEN, Payload, complete_message,
    encode_framed, info_message,
};

/// The name that messages have for the disk with the image.
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

/// Reports to the VMM.
#[derive(Debug)]
pub struct Reporter<'a, P> {
    uart: Uart<'a, P>,
    buffer: Vec<u8>,
    /// How many messages were sent.
    count: u64,
}

impl<'a, P: Ports> Reporter<'a, P> {
    /// A reporter that sends by COM1.
    #[must_use]
    pub fn new(ports: &'a P) -> Self {
        Self {
            uart: Uart::new(ports, COM1),
            buffer: vec![0; HEADER_LEN + MAX_MESSAGE_LEN],
            count: 0,
        }
    }

    /// Reports `payload`, something of the image.
    pub fn say(&mut self, payload: Payload) {
        self.send(&info_message(payload));
    }

    /// Reports something that speaks against the image, and whether the user overrides it.
    pub fn finding(&mut self, finding: &Finding, allowed: bool) {
        let reason = finding.reason;
        self.say(Payload::Finding(FindingMessage {
            name: reason.name().into(),
            text: reason.message().into(),
            broken: reason.class() == guest_formats::Class::Broken,
            allowed,
            at: finding.at,
            value: finding.value,
        }));
    }

    /// Reports that the run has ended, and why if it has failed.
    pub fn end(&mut self, operation: &str, result: &Result<(), Failure>) {
        if let Err(failure) = result {
            self.send(&failure.message());
        }
        let count = self.count;
        self.send(&complete_message(operation, count, result.is_ok()));
    }

    fn send(&mut self, message: &GuestMessage) {
        let written = encode_framed(message, &mut self.buffer);
        // Each of its texts has a limit. One that is left out could make a broken image look sound.
        assert!(written.is_ok(), "a message that fits into no frame");
        let len = written.unwrap_or(0);
        self.uart.send(self.buffer.get(..len).unwrap_or_default());
        self.count += 1;
    }
}
