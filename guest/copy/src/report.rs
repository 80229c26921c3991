//! What the guest says on COM1, as framed Protocol Buffers messages or as plain lines.
//!
//! Everything goes through one buffer that is sent whole: the VMM takes a byte of a string write
//! about thirty times faster than a byte written by itself. This is the only place that knows that
//! there are two protocols.

use alloc::string::String;
use core::fmt::{self, Write as _};

use guest_protocol::{
    GuestMessage, HEADER_LEN, MAX_MESSAGE_LEN, Payload, Protocol, capacity_message,
    complete_message, encode_framed, error_message, init_message, progress_message,
};

use crate::config::Disk;
use crate::progress::percent;
use guest_kit::hardware::Ports;
use guest_kit::serial::Uart;

/// The operation that is named in progress and completion.
const COPY: &str = "copy";
/// When this many bytes are waiting they are sent: about a millisecond's worth.
const SEND_AT: usize = 2048;
/// Room for what is waiting and the longest message on top of it.
const BUFFER_LEN: usize = SEND_AT + HEADER_LEN + MAX_MESSAGE_LEN;

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
}

impl Op {
    const fn name(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Init => "init",
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
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

/// Sends what happens to whoever reads COM1.
#[derive(Debug)]
pub struct Reporter<'a, P> {
    uart: Uart<'a, P>,
    protocol: Protocol,
    /// Built once and changed for each report, of which there may be hundreds of thousands.
    progress: GuestMessage,
    buffer: [u8; BUFFER_LEN],
    len: usize,
}

impl<'a, P: Ports> Reporter<'a, P> {
    /// A reporter that speaks Protocol Buffers until it is told otherwise.
    #[must_use]
    pub fn new(uart: Uart<'a, P>) -> Self {
        Self {
            uart,
            protocol: Protocol::Protobuf,
            progress: progress_message(COPY, 0, 0, 0),
            buffer: [0; BUFFER_LEN],
            len: 0,
        }
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
    pub fn capacity(&mut self, disk: Disk, sectors: u64, bytes: u64) {
        let label = match disk {
            Disk::Input => "Input",
            Disk::Output => "Output",
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
                if let Some(Payload::Progress(progress)) = &mut self.progress.payload {
                    progress.current = current;
                    progress.total = total;
                    progress.percent = percent(current, total);
                }
                self.len += encode(&self.progress, &mut self.buffer[self.len..]);
                self.send_if_full();
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
            (Protocol::Text, Op::Config | Op::Init) => self.line(format_args!("Error: {detail}")),
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

    /// Sends what is waiting.
    pub fn flush(&mut self) {
        self.uart.send(&self.buffer[..self.len]);
        self.len = 0;
    }

    fn message(&mut self, message: &GuestMessage) {
        self.len += encode(message, &mut self.buffer[self.len..]);
        self.send_if_full();
    }

    fn line(&mut self, text: fmt::Arguments<'_>) {
        let mut rest = Rest {
            buffer: &mut self.buffer[self.len..],
            len: 0,
        };
        // There is room for the longest line; were there not, the rest of it would be missing.
        let _ = rest.write_fmt(text).and_then(|()| rest.write_str("\n"));
        self.len += rest.len;
        self.send_if_full();
    }

    fn send_if_full(&mut self) {
        if self.len >= SEND_AT {
            self.flush();
        }
    }
}

/// There is always room for the longest message, and no message of this program comes near it.
fn encode(message: &GuestMessage, buffer: &mut [u8]) -> usize {
    encode_framed(message, buffer).unwrap_or(0)
}

/// Text that is written into what is left of a buffer.
struct Rest<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl fmt::Write for Rest<'_> {
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

    use guest_abi::ports::COM1;
    use guest_protocol::{FrameDecoder, NO_STATUS};

    use super::*;
    use guest_kit::testing::ports::FakePorts;

    fn said(protocol: Protocol, say: impl FnOnce(&mut Reporter<'_, FakePorts>)) -> FakePorts {
        let ports = FakePorts::sending(&[]);
        let mut reporter = Reporter::new(Uart::new(&ports, COM1));
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

    fn everything(reporter: &mut Reporter<'_, FakePorts>) {
        reporter.init("config", "vmm", 0x3f8);
        reporter.capacity(Disk::Input, 50, 25600);
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
}
