//! Sends the VMM the reports of a copy, as the messages of every program or as plain lines of text.
//! No other part of this one knows that there are these two protocols.

use core::fmt::{self, Write as _};

use guest_kit::failure::{Failure, Op};
use guest_kit::hardware::{Ports, Registers};
use guest_kit::progress::Reports;
use guest_kit::report;
use guest_kit::virtio::console::{Console, ConsoleError};
use guest_protocol::{Protocol, hex};

use crate::config::Side;

/// The name that messages have for a copy.
const COPY: &str = "copy";

/// Reports to the VMM.
#[derive(Debug)]
pub struct Reporter<'a, P, R> {
    messages: report::Reporter<'a, P, R>,
    protocol: Protocol,
}

impl<'a, P: Ports, R: Registers> Reporter<'a, P, R> {
    /// A reporter that sends Protocol Buffers messages by COM1, until it is told otherwise.
    #[must_use]
    pub const fn new(ports: &'a P) -> Self {
        Self {
            messages: report::Reporter::new(ports, COPY),
            protocol: Protocol::Protobuf,
        }
    }

    /// Reports by `console` from here on.
    pub fn use_console(&mut self, console: Console<R>) {
        self.messages.channel.use_console(console);
    }

    /// Reports in `protocol` from here on.
    pub fn speak(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    /// Reports that the initialisation of `device` has passed `stage`. `address` is the number that
    /// belongs to the stage, such as the address of the registers.
    pub fn init(&mut self, stage: &str, device: &str, address: u64) {
        // There is no line of text for it.
        if self.protocol == Protocol::Protobuf {
            self.messages.init(stage, device, address);
        }
    }

    /// Reports that `disk` has `sectors` sectors, which are `bytes` bytes.
    pub fn capacity(&mut self, disk: Side, sectors: u64, bytes: u64) {
        let label = match disk {
            Side::Input => "Input",
            Side::Output => "Output",
        };
        match self.protocol {
            Protocol::Protobuf => self.messages.capacity(disk.name(), sectors, bytes),
            Protocol::Text => self.line(format_args!("{label}: {sectors} sectors ({bytes} bytes)")),
        }
    }

    /// Reports that the run has failed.
    pub fn error(&mut self, failure: &Failure) {
        let Failure {
            op, sector, detail, ..
        } = failure;
        match (self.protocol, op) {
            (Protocol::Protobuf, _) => self.messages.error(failure),
            (Protocol::Text, Op::Read) => self.line(format_args!("Read error at sector {sector}")),
            (Protocol::Text, Op::Write) => {
                self.line(format_args!("Write error at sector {sector}"))
            }
            (Protocol::Text, Op::Flush) => self.line(format_args!("Flush error")),
            (Protocol::Text, Op::Verify) => self.line(format_args!("Verify error: {detail}")),
            (Protocol::Text, _) => self.line(format_args!("Error: {detail}")),
        }
    }

    /// Reports that the run has ended after `count` input sectors.
    pub fn complete(&mut self, count: u64, success: bool) {
        match (self.protocol, success) {
            (Protocol::Protobuf, _) => self.messages.complete(count, success),
            (Protocol::Text, true) => self.line(format_args!("Copy complete: {count} sectors")),
            (Protocol::Text, false) => self.line(format_args!("Copy failed after {count} sectors")),
        }
    }

    /// Reports that the run has ended well after `count` input sectors, which have this digest
    /// (SHA-256). `ticks` is how long it took to compute the digest, in ticks of the processor.
    pub fn complete_with(&mut self, count: u64, digest: &[u8], ticks: u64) {
        match self.protocol {
            Protocol::Protobuf => self.messages.complete_with(count, digest, ticks),
            Protocol::Text => {
                self.complete(count, true);
                self.line(format_args!("sha256 {}", hex(digest)));
            }
        }
    }

    /// Sends what is waiting.
    pub fn flush(&mut self) {
        self.messages.channel.flush();
    }

    /// Sends what is waiting, and waits until the VMM has taken all of it.
    pub fn finish(&mut self) {
        self.messages.channel.finish();
    }

    /// Why not all reports were sent, if so.
    #[must_use]
    pub const fn fault(&self) -> Option<&ConsoleError> {
        self.messages.channel.fault()
    }

    fn line(&mut self, text: fmt::Arguments<'_>) {
        self.messages.channel.put(|buffer| {
            let mut line = LineBuffer { buffer, len: 0 };
            let written = line.write_fmt(text).and_then(|()| line.write_str("\n"));
            written.ok().map(|()| line.len)
        });
    }
}

impl<P: Ports, R: Registers> Reports for Reporter<'_, P, R> {
    fn progress(&mut self, current: u64, total: u64) {
        match self.protocol {
            Protocol::Protobuf => self.messages.progress(current, total),
            Protocol::Text => self.line(format_args!("Progress: {current}/{total}")),
        }
    }

    fn idle(&mut self) {
        self.messages.channel.idle();
    }
}

/// A line that is written to the start of a buffer.
struct LineBuffer<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl fmt::Write for LineBuffer<'_> {
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
