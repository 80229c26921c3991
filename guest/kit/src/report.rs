//! Sends the VMM the messages that every program for disks has: how its devices are set up, how far
//! it is, what has failed, and how it has ended.

use guest_protocol::{
    capacity_message, complete_message, complete_with_digest, encode_progress, init_message,
};

use crate::channel::Channel;
use crate::failure::Failure;
use crate::hardware::{Ports, Registers};
use crate::progress::{Reports, percent};

/// Reports to the VMM.
#[derive(Debug)]
pub struct Reporter<'a, P, R> {
    /// The way that the messages go. It takes others too.
    pub channel: Channel<'a, P, R>,
    /// The name that messages have for what the program does.
    operation: &'static str,
}

impl<'a, P: Ports, R: Registers> Reporter<'a, P, R> {
    /// A reporter of `operation` that sends by COM1 until its channel is given a console.
    #[must_use]
    pub const fn new(ports: &'a P, operation: &'static str) -> Self {
        Self {
            channel: Channel::serial(ports),
            operation,
        }
    }

    /// Reports that the initialisation of `device` has passed `stage`, and the number that
    /// belongs to the stage, such as the address of the registers.
    pub fn init(&mut self, stage: &str, device: &str, number: u64) {
        self.channel.message(&init_message(stage, device, number));
    }

    /// Reports that `device` has `sectors` sectors, which are `bytes` bytes, or will have them once it
    /// is written.
    pub fn capacity(&mut self, device: &str, sectors: u64, bytes: u64) {
        self.channel
            .message(&capacity_message(device, sectors, bytes));
    }

    /// Reports that the run has failed.
    pub fn error(&mut self, failure: &Failure) {
        self.channel.message(&failure.message());
    }

    /// Reports that the run has ended after `count` sectors.
    pub fn complete(&mut self, count: u64, success: bool) {
        self.channel
            .message(&complete_message(self.operation, count, success));
    }

    /// Reports that the run has ended well after `count` sectors, which have this digest (SHA-256).
    /// `ticks` is how long it took to compute the digest, in ticks of the processor, or 0 if that was
    /// not measured.
    pub fn complete_with(&mut self, count: u64, digest: &[u8], ticks: u64) {
        self.channel
            .message(&complete_with_digest(self.operation, count, digest, ticks));
    }
}

impl<P: Ports, R: Registers> Reports for Reporter<'_, P, R> {
    fn progress(&mut self, current: u64, total: u64) {
        let (operation, percent) = (self.operation, percent(current, total));
        self.channel
            .put(|buffer| encode_progress(operation, current, total, percent, buffer).ok());
    }

    fn idle(&mut self) {
        self.channel.idle();
    }
}
