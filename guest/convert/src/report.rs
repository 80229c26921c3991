//! What the guest says to the VMM, framed, by COM1 or by the console.

use guest_kit::channel::Channel;
use guest_kit::hardware::{Ports, Registers};
use guest_kit::virtio::console::{BUFFER_LEN, Console, ConsoleError};
use guest_protocol::{
    GuestMessage, capacity_message, complete_message, complete_with_digest, encode_framed,
    encode_progress, error_message, init_message,
};

use crate::SECTOR;
use crate::failure::Failure;

/// The operation's name in messages.
pub const CONVERT: &str = "convert";

/// Sends what happens to the VMM.
#[derive(Debug)]
pub struct Reporter<'a, P, R> {
    channel: Channel<'a, P, R>,
    buffer: [u8; BUFFER_LEN],
    len: usize,
}

impl<'a, P: Ports, R: Registers> Reporter<'a, P, R> {
    /// A reporter by COM1, until it is told otherwise.
    #[must_use]
    pub const fn new(ports: &'a P) -> Self {
        Self {
            channel: Channel::serial(ports),
            buffer: [0; BUFFER_LEN],
            len: 0,
        }
    }

    /// Reports by `console` from here on.
    pub fn use_console(&mut self, console: Console<R>) {
        self.flush();
        self.channel.use_console(console);
    }

    /// `device` has passed `stage`; `address` is what the stage is about.
    pub fn init(&mut self, stage: &str, device: &str, address: u64) {
        self.message(&init_message(stage, device, address));
    }

    /// `device` has, or will have, `bytes` bytes.
    pub fn capacity(&mut self, device: &str, bytes: u64) {
        self.message(&capacity_message(device, bytes.div_ceil(SECTOR), bytes));
        self.flush();
    }

    /// `current` of `total` sectors are done.
    pub fn progress(&mut self, current: u64, total: u64) {
        let percent = guest_copy::progress::percent(current, total);
        self.put(|buffer| encode_progress(CONVERT, current, total, percent, buffer).ok());
    }

    /// The run has failed.
    pub fn error(&mut self, failure: &Failure) {
        self.message(&error_message(
            failure.op.name(),
            failure.device,
            failure.sector,
            failure.status,
            &failure.detail,
        ));
    }

    /// The run has ended after `count` sectors, whose digest is this if one was wanted.
    pub fn complete(&mut self, count: u64, success: bool, digest: Option<&[u8]>) {
        let message = match digest {
            Some(digest) if success => complete_with_digest(CONVERT, count, digest, 0),
            _ => complete_message(CONVERT, count, success),
        };
        self.message(&message);
    }

    /// Sends what is waiting, now that there is time for it.
    pub fn idle(&mut self) {
        if self.len > 0 && self.channel.is_quiet() {
            self.flush();
        }
    }

    /// Sends what is waiting, and waits until all that was sent has been taken.
    pub fn finish(&mut self) {
        self.flush();
        self.channel.finish();
    }

    /// Why not everything was sent, if so.
    #[must_use]
    pub const fn fault(&self) -> Option<&ConsoleError> {
        self.channel.fault()
    }

    fn flush(&mut self) {
        self.channel.send(&self.buffer[..self.len]);
        self.len = 0;
    }

    fn message(&mut self, message: &GuestMessage) {
        self.put(|buffer| encode_framed(message, buffer).ok());
    }

    /// Puts what `write` writes behind what is waiting; it is called again if that did not fit.
    fn put(&mut self, write: impl Fn(&mut [u8]) -> Option<usize>) {
        let len = write(&mut self.buffer[self.len..]).unwrap_or_else(|| {
            self.flush();
            // An empty buffer has room for the longest message, which no message comes near.
            write(&mut self.buffer).unwrap_or(0)
        });
        self.len += len;
        if self.len >= self.channel.batch() {
            self.flush();
        }
    }
}
