//! Sends the VMM the messages of a conversion.

use guest_copy::progress::{Reports, percent};
use guest_formats::Reason;
use guest_kit::channel::Channel;
use guest_kit::hardware::{Ports, Registers};
use guest_protocol::{
    FindingMessage, Payload, capacity_message, complete_message, complete_with_digest,
    encode_progress, info_message, init_message,
};

use crate::SECTOR;
use crate::failure::Failure;

/// The name that messages have for a conversion.
pub const CONVERT: &str = "convert";

/// Reports to the VMM.
#[derive(Debug)]
pub struct Reporter<'a, P, R> {
    channel: Channel<'a, P, R>,
}

impl<'a, P: Ports, R: Registers> Reporter<'a, P, R> {
    /// A reporter that sends by COM1.
    #[must_use]
    pub const fn new(ports: &'a P) -> Self {
        Self {
            channel: Channel::serial(ports),
        }
    }

    /// Reports that the initialisation of `device` has passed `stage`. `address` is the number that
    /// belongs to the stage, such as the address of the registers.
    pub fn init(&mut self, stage: &str, device: &str, address: u64) {
        self.channel.message(&init_message(stage, device, address));
    }

    /// Reports that `device` has `bytes` bytes, or will have them once it is written.
    pub fn capacity(&mut self, device: &str, bytes: u64) {
        self.channel
            .message(&capacity_message(device, bytes.div_ceil(SECTOR), bytes));
        self.channel.flush();
    }

    /// Reports that zeros stand for what the last image takes from a file that was not given.
    pub fn short(&mut self) {
        let reason = Reason::BackingFile;
        self.channel
            .message(&info_message(Payload::Finding(FindingMessage {
                name: reason.name().into(),
                text: reason.message().into(),
                allowed: true,
                ..FindingMessage::default()
            })));
        self.channel.flush();
    }

    /// Reports that the run has failed.
    pub fn error(&mut self, failure: &Failure) {
        self.channel.message(&failure.message());
    }

    /// Reports that the run has ended after `count` sectors. They have this digest, if one was
    /// wanted.
    pub fn complete(&mut self, count: u64, success: bool, digest: Option<&[u8]>) {
        let message = match digest {
            Some(digest) if success => complete_with_digest(CONVERT, count, digest, 0),
            _ => complete_message(CONVERT, count, success),
        };
        self.channel.message(&message);
    }

    /// Sends what is waiting, and waits until the VMM has taken all of it.
    pub fn finish(&mut self) {
        self.channel.finish();
    }
}

impl<P: Ports, R: Registers> Reports for Reporter<'_, P, R> {
    fn progress(&mut self, current: u64, total: u64) {
        let percent = percent(current, total);
        self.channel
            .put(|buffer| encode_progress(CONVERT, current, total, percent, buffer).ok());
    }

    fn idle(&mut self) {
        self.channel.idle();
    }
}
