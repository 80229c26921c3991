//! What the guest says to the VMM, as framed Protocol Buffers messages or as plain lines.
//!
//! This is the only place that knows that there are two protocols.

use alloc::string::String;
use core::fmt::{self, Write as _};

use guest_kit::channel::Channel;
use guest_kit::hardware::{Ports, Registers};
use guest_kit::virtio::console::{Console, ConsoleError};
use guest_protocol::{
    Protocol, capacity_message, complete_message, complete_with_digest, encode_progress,
    error_message, init_message,
};

use crate::config::Side;
use crate::copy::hex;
use crate::progress::percent;

/// The operation that is named in progress and completion.
const COPY: &str = "copy";
/// What was being done when something failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Taking the configuration.
    Config,
    /// Setting up a disk.
    Init,
    /// Reading the input disk.
    Read,
    /// Writing the output disk.
    Write,
    /// Flushing the output disk.
    Flush,
    /// Reading the output disk back and comparing its digest.
    Verify,
    /// Reporting all this by the console.
    Report,
}

impl Op {
    const fn name(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Init => "init",
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
            Self::Verify => "verify",
            Self::Report => "report",
        }
    }
}

/// Something that ends the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was being done.
    pub op: Op,
    /// Name of the device that it was done to.
    pub device: &'static str,
    /// Where, in sectors of that disk's configured size.
    pub sector: u64,
    /// The request's status byte, or [`guest_protocol::NO_STATUS`].
    pub status: u32,
    /// Why, for a person; may be empty.
    pub detail: String,
}

/// Sends what happens to the VMM.
#[derive(Debug)]
pub struct Reporter<'a, P, R> {
    channel: Channel<'a, P, R>,
    protocol: Protocol,
}

impl<'a, P: Ports, R: Registers> Reporter<'a, P, R> {
    /// A reporter by COM1 that speaks Protocol Buffers, until it is told otherwise.
    #[must_use]
    pub const fn new(ports: &'a P) -> Self {
        Self {
            channel: Channel::serial(ports),
            protocol: Protocol::Protobuf,
        }
    }

    /// Reports by `console` from here on.
    pub fn use_console(&mut self, console: Console<R>) {
        self.channel.use_console(console);
    }

    /// Speaks `protocol` from here on.
    pub fn speak(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    /// `device` has passed `stage`; `address` is what the stage is about.
    pub fn init(&mut self, stage: &str, device: &str, address: u64) {
        // The plain protocol has no line for it.
        if self.protocol == Protocol::Protobuf {
            self.channel.message(&init_message(stage, device, address));
        }
    }

    /// `disk` holds `sectors` sectors, `bytes` bytes in all.
    pub fn capacity(&mut self, disk: Side, sectors: u64, bytes: u64) {
        let label = match disk {
            Side::Input => "Input",
            Side::Output => "Output",
        };
        match self.protocol {
            Protocol::Protobuf => {
                self.channel
                    .message(&capacity_message(disk.name(), sectors, bytes))
            }
            Protocol::Text => self.line(format_args!("{label}: {sectors} sectors ({bytes} bytes)")),
        }
    }

    /// `current` of `total` input sectors are copied.
    pub fn progress(&mut self, current: u64, total: u64) {
        match self.protocol {
            Protocol::Protobuf => {
                let percent = percent(current, total);
                self.channel
                    .put(|buffer| encode_progress(COPY, current, total, percent, buffer).ok());
            }
            Protocol::Text => self.line(format_args!("Progress: {current}/{total}")),
        }
    }

    /// The run has failed.
    pub fn error(&mut self, failure: &Failure) {
        let Failure {
            op, sector, detail, ..
        } = failure;
        match (self.protocol, op) {
            (Protocol::Protobuf, _) => self.channel.message(&error_message(
                op.name(),
                failure.device,
                *sector,
                failure.status,
                detail,
            )),
            (Protocol::Text, Op::Read) => self.line(format_args!("Read error at sector {sector}")),
            (Protocol::Text, Op::Write) => {
                self.line(format_args!("Write error at sector {sector}"))
            }
            (Protocol::Text, Op::Flush) => self.line(format_args!("Flush error")),
            (Protocol::Text, Op::Verify) => self.line(format_args!("Verify error: {detail}")),
            (Protocol::Text, Op::Config | Op::Init | Op::Report) => {
                self.line(format_args!("Error: {detail}"))
            }
        }
    }

    /// The run has ended after `count` input sectors.
    pub fn complete(&mut self, count: u64, success: bool) {
        match (self.protocol, success) {
            (Protocol::Protobuf, _) => self
                .channel
                .message(&complete_message(COPY, count, success)),
            (Protocol::Text, true) => self.line(format_args!("Copy complete: {count} sectors")),
            (Protocol::Text, false) => self.line(format_args!("Copy failed after {count} sectors")),
        }
    }

    /// The run has ended well after `count` input sectors, which have this digest (SHA-256); to
    /// compute it took so many ticks.
    pub fn complete_with(&mut self, count: u64, digest: &[u8], ticks: u64) {
        match self.protocol {
            Protocol::Protobuf => self
                .channel
                .message(&complete_with_digest(COPY, count, digest, ticks)),
            Protocol::Text => {
                self.complete(count, true);
                self.line(format_args!("sha256 {}", hex(digest)));
            }
        }
    }

    /// Sends what is waiting, if it would be seen now.
    pub fn idle(&mut self) {
        self.channel.idle();
    }

    /// Sends what is waiting.
    pub fn flush(&mut self) {
        self.channel.flush();
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

    fn line(&mut self, text: fmt::Arguments<'_>) {
        self.channel.put(|buffer| {
            let mut line = Line { buffer, len: 0 };
            let written = line.write_fmt(text).and_then(|()| line.write_str("\n"));
            written.ok().map(|()| line.len)
        });
    }
}

/// A line that is written to the start of a buffer.
struct Line<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl fmt::Write for Line<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let free = self
            .buffer
            .get_mut(self.len..)
            .and_then(|rest| rest.get_mut(..text.len()));
        free.ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
