//! What the guest says to the VMM, framed, by COM1 or by the console.

use guest_copy::progress::{Reports, percent};
use guest_kit::channel::Channel;
use guest_kit::hardware::{Ports, Registers};
use guest_kit::virtio::console::{Console, ConsoleError};
use guest_protocol::{
    capacity_message, complete_message, complete_with_digest, encode_progress, init_message,
};

use crate::SECTOR;
use crate::failure::Failure;

/// The operation's name in messages.
pub const CONVERT: &str = "convert";

/// Sends what happens to the VMM.
#[derive(Debug)]
pub struct Reporter<'a, P, R> {
    channel: Channel<'a, P, R>,
}

impl<'a, P: Ports, R: Registers> Reporter<'a, P, R> {
    /// A reporter by COM1, until it is told otherwise.
    #[must_use]
    pub const fn new(ports: &'a P) -> Self {
        Self {
            channel: Channel::serial(ports),
        }
    }

    /// Reports by `console` from here on.
    pub fn use_console(&mut self, console: Console<R>) {
        self.channel.use_console(console);
    }

    /// `device` has passed `stage`; `address` is what the stage is about.
    pub fn init(&mut self, stage: &str, device: &str, address: u64) {
        self.channel.message(&init_message(stage, device, address));
    }

    /// `device` has, or will have, `bytes` bytes.
    pub fn capacity(&mut self, device: &str, bytes: u64) {
        self.channel
            .message(&capacity_message(device, bytes.div_ceil(SECTOR), bytes));
        self.channel.flush();
    }

    /// The run has failed.
    pub fn error(&mut self, failure: &Failure) {
        self.channel.message(&failure.message());
    }

    /// The run has ended after `count` sectors, whose digest is this if one was wanted.
    pub fn complete(&mut self, count: u64, success: bool, digest: Option<&[u8]>) {
        let message = match digest {
            Some(digest) if success => complete_with_digest(CONVERT, count, digest, 0),
            _ => complete_message(CONVERT, count, success),
        };
        self.channel.message(&message);
    }

    /// Sends what is waiting, and waits until all that was sent has been taken.
    pub fn finish(&mut self) {
        self.channel.finish();
    }

    /// Why not everything was sent, if so.
    #[must_use]
    pub const fn fault(&self) -> Option<&ConsoleError> {
        self.channel.fault()
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
