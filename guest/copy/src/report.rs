//! What the guest says to the VMM, as framed Protocol Buffers messages or as plain lines.
//!
//! Everything goes through one buffer that is sent whole, since leaving the virtual machine costs
//! more than a thousand bytes do. This is the only place that knows that there are two protocols.

use alloc::string::String;
use core::fmt::{self, Write as _};

use guest_kit::channel::Channel;
use guest_kit::hardware::{Ports, Registers};
use guest_kit::virtio::console::{self, Console, ConsoleError};
use guest_protocol::{
    GuestMessage, HEADER_LEN, MAX_MESSAGE_LEN, Protocol, capacity_message, complete_message,
    complete_with_digest, encode_framed, encode_progress, error_message, init_message,
};

use crate::config::Side;
use crate::copy::hex;
use crate::progress::percent;

/// The operation that is named in progress and completion.
const COPY: &str = "copy";
/// Bytes that can wait to be sent: what a console's buffer takes, and room for the longest message.
const BUFFER_LEN: usize = console::BUFFER_LEN;
const _: () = assert!(BUFFER_LEN >= HEADER_LEN + MAX_MESSAGE_LEN);

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
    buffer: [u8; BUFFER_LEN],
    len: usize,
}

impl<'a, P: Ports, R: Registers> Reporter<'a, P, R> {
    /// A reporter by COM1 that speaks Protocol Buffers, until it is told otherwise.
    #[must_use]
    pub const fn new(ports: &'a P) -> Self {
        Self {
            channel: Channel::serial(ports),
            protocol: Protocol::Protobuf,
            buffer: [0; BUFFER_LEN],
            len: 0,
        }
    }

    /// Reports by `console` from here on.
    pub fn use_console(&mut self, console: Console<R>) {
        self.flush();
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
            self.message(&init_message(stage, device, address));
        }
    }

    /// `disk` holds `sectors` sectors, `bytes` bytes in all.
    pub fn capacity(&mut self, disk: Side, sectors: u64, bytes: u64) {
        let label = match disk {
            Side::Input => "Input",
            Side::Output => "Output",
        };
        match self.protocol {
            Protocol::Protobuf => self.message(&capacity_message(disk.name(), sectors, bytes)),
            Protocol::Text => self.line(format_args!("{label}: {sectors} sectors ({bytes} bytes)")),
        }
    }

    /// `current` of `total` input sectors are copied.
    pub fn progress(&mut self, current: u64, total: u64) {
        match self.protocol {
            Protocol::Protobuf => {
                let percent = percent(current, total);
                self.put(|buffer| encode_progress(COPY, current, total, percent, buffer).ok());
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
            (Protocol::Protobuf, _) => self.message(&error_message(
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
            (Protocol::Protobuf, _) => self.message(&complete_message(COPY, count, success)),
            (Protocol::Text, true) => self.line(format_args!("Copy complete: {count} sectors")),
            (Protocol::Text, false) => self.line(format_args!("Copy failed after {count} sectors")),
        }
    }

    /// The run has ended well after `count` input sectors, which have this digest (SHA-256); to
    /// compute it took so many ticks.
    pub fn complete_with(&mut self, count: u64, digest: &[u8], ticks: u64) {
        match self.protocol {
            Protocol::Protobuf => self.message(&complete_with_digest(COPY, count, digest, ticks)),
            Protocol::Text => {
                self.complete(count, true);
                self.line(format_args!("sha256 {}", hex(digest)));
            }
        }
    }

    /// Sends what is waiting, now that there is time for it. While the console has not yet taken
    /// what was sent before, it goes on waiting: it would be seen no sooner, and the more there is
    /// in a buffer the less each report costs.
    pub fn idle(&mut self) {
        if self.len > 0 && self.channel.is_quiet() {
            self.flush();
        }
    }

    /// Sends what is waiting.
    pub fn flush(&mut self) {
        self.channel.send(&self.buffer[..self.len]);
        self.len = 0;
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

    fn message(&mut self, message: &GuestMessage) {
        self.put(|buffer| encode_framed(message, buffer).ok());
    }

    fn line(&mut self, text: fmt::Arguments<'_>) {
        self.put(|buffer| {
            let mut line = Line { buffer, len: 0 };
            let written = line.write_fmt(text).and_then(|()| line.write_str("\n"));
            written.ok().map(|()| line.len)
        });
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
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use std::rc::Rc;

    use guest_kit::testing::console::FakeConsole;
    use guest_kit::testing::memory::leak;
    use guest_kit::testing::ports_with;
    use guest_protocol::{FrameDecoder, NO_STATUS, progress_message};

    use super::*;
    use guest_kit::testing::ports::FakePorts;

    type TestReporter<'a> = Reporter<'a, FakePorts, Rc<FakeConsole>>;

    fn said(protocol: Protocol, say: impl FnOnce(&mut TestReporter<'_>)) -> FakePorts {
        let ports = FakePorts::sending(&[]);
        let mut reporter = Reporter::new(&ports);
        reporter.speak(protocol);
        say(&mut reporter);
        reporter.flush();
        ports
    }

    fn failure(op: Op) -> Failure {
        Failure {
            op,
            device: "input",
            sector: 5,
            status: NO_STATUS,
            detail: "because".into(),
        }
    }

    fn everything(reporter: &mut TestReporter<'_>) {
        reporter.init("config", "vmm", 0x3f8);
        reporter.capacity(Side::Input, 50, 25600);
        reporter.progress(11, 50);
        for op in [Op::Read, Op::Write, Op::Flush, Op::Init] {
            reporter.error(&failure(op));
        }
        reporter.complete(50, true);
        reporter.complete(5, false);
    }

    #[test]
    fn text_is_a_line_an_event() {
        let expected = "Input: 50 sectors (25600 bytes)\nProgress: 11/50\n\
            Read error at sector 5\nWrite error at sector 5\nFlush error\nError: because\n\
            Copy complete: 50 sectors\nCopy failed after 5 sectors\n";
        let ports = said(Protocol::Text, everything);
        assert_eq!(String::from_utf8(ports.com1()).unwrap(), expected);
    }

    #[test]
    fn frames_carry_every_field() {
        let mut expected = vec![
            init_message("config", "vmm", 0x3f8),
            capacity_message("input", 50, 25600),
            progress_message("copy", 11, 50, 22),
        ];
        for op in ["read", "write", "flush", "init"] {
            expected.push(error_message(op, "input", 5, NO_STATUS, "because"));
        }
        expected.push(complete_message("copy", 50, true));
        expected.push(complete_message("copy", 5, false));
        let mut messages = Vec::new();
        let ports = said(Protocol::Protobuf, everything);
        let mut decoder = FrameDecoder::new();
        decoder
            .push(&ports.com1(), |message| messages.push(message))
            .unwrap();
        assert!(!decoder.is_mid_frame());
        assert_eq!(messages, expected);
    }

    #[test]
    fn many_reports_go_out_in_few_writes_and_none_is_lost() {
        for protocol in [Protocol::Protobuf, Protocol::Text] {
            let ports = said(protocol, |reporter| {
                for current in 1..=1000 {
                    reporter.progress(current, 1000);
                }
            });
            assert!(ports.accesses() <= 15);
            let mut reports = 0;
            match protocol {
                Protocol::Text => reports = ports.com1().iter().filter(|&&b| b == b'\n').count(),
                Protocol::Protobuf => {
                    let mut decoder = FrameDecoder::new();
                    decoder.push(&ports.com1(), |_| reports += 1).unwrap();
                }
            }
            assert_eq!(reports, 1000);
        }
    }

    /// What arrives by a console, and how many chains brought it.
    fn said_by_console(
        protocol: Protocol,
        say: impl FnOnce(&mut TestReporter<'_>),
    ) -> (Vec<u8>, usize) {
        let console = FakeConsole::new(7);
        let ports = ports_with(&[], [Rc::clone(&console) as _], 7);
        let mut reporter = Reporter::new(&ports);
        reporter.use_console(Console::init(Rc::clone(&console), leak(0x1_0000)).unwrap());
        reporter.speak(protocol);
        say(&mut reporter);
        reporter.finish();
        assert!(reporter.fault().is_none());
        assert!(ports.com1().is_empty());
        (console.received(), console.counts().0)
    }

    #[test]
    fn a_console_brings_the_same_bytes_in_full_buffers() {
        for protocol in [Protocol::Protobuf, Protocol::Text] {
            let say = |reporter: &mut TestReporter<'_>| {
                everything(reporter);
                for current in 1..=10_000 {
                    reporter.progress(current, 10_000);
                    reporter.idle();
                }
            };
            let (received, chains) = said_by_console(protocol, say);
            assert!(received == said(protocol, say).com1());
            assert!(chains <= received.len() / 4000, "{chains} chains");
        }
    }

    #[test]
    fn what_waits_is_sent_at_an_idle_moment_if_the_console_has_nothing_before_it() {
        let console = FakeConsole::new(1);
        let ports = ports_with(&[], [Rc::clone(&console) as _], 1);
        let mut reporter = Reporter::new(&ports);
        reporter.use_console(Console::init(Rc::clone(&console), leak(0x1_0000)).unwrap());
        reporter.progress(1, 10);
        assert_eq!(console.counts(), (0, 0));
        reporter.idle();
        assert_eq!(console.counts().1, 1);
        reporter.finish();
        reporter.idle();
        assert_eq!(console.counts().1, 1, "nothing waits");
    }
}
