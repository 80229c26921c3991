//! Output that never holds up the main loop.
//!
//! A terminal can be stopped and a pipe's reader can sleep for hours; signals and the time limit
//! must work all the same. Text waits here and is written when the descriptor has room: at once
//! to a regular file, in pieces that fit to a pipe or a terminal.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::{Errno, write};

/// `poll` promises room for this many bytes in a pipe that it calls writable (POSIX `PIPE_BUF`).
const PIECE: usize = 4096;
/// With this much waiting, callers should stop producing.
const FULL: usize = 64 * 1024;
/// A regular file is written when this much has come together.
const BATCH: usize = 16 * 1024;

/// Buffered, non-blocking output to a borrowed descriptor.
#[derive(Debug)]
pub struct Printer {
    fd: BorrowedFd<'static>,
    pending: Vec<u8>,
    /// Whether a write can make the process wait; a regular file is always ready.
    can_block: bool,
    /// Nobody reads any longer (a closed pipe, a full disk): everything is dropped.
    broken: bool,
}

impl Printer {
    /// Output to `fd`, which is standard output or standard error.
    #[must_use]
    pub fn new(fd: BorrowedFd<'static>) -> Self {
        Self {
            fd,
            pending: Vec::new(),
            can_block: !is_regular_file(fd),
            broken: false,
        }
    }

    /// Adds `text`, and writes if enough has come together.
    pub fn print(&mut self, text: &[u8]) {
        if self.broken {
            return;
        }
        self.pending.extend_from_slice(text);
        if self.pending.len() >= BATCH {
            self.flush();
        }
    }

    /// Writes as much as can be written without waiting.
    pub fn flush(&mut self) {
        while !self.pending.is_empty() && (!self.can_block || is_writable(self.fd)) {
            let piece = if self.can_block { PIECE } else { usize::MAX };
            let len = self.pending.len().min(piece);
            match write(self.fd, &self.pending[..len]) {
                Ok(written) => drop(self.pending.drain(..written)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    // The copy matters more than its lines: `vmm … | head -1` still copies.
                    self.broken = true;
                    self.pending = Vec::new();
                }
            }
        }
    }

    /// Whether text waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Whether text waits for room: only where a write can block does it ever have to.
    #[must_use]
    pub fn waits_for_room(&self) -> bool {
        self.can_block && !self.pending.is_empty()
    }

    /// Whether so much waits that no more should be made.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.pending.len() >= FULL
    }
}

impl AsFd for Printer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd
    }
}

impl AsRawFd for Printer {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

fn is_regular_file(fd: BorrowedFd<'_>) -> bool {
    fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
}

fn is_writable(fd: BorrowedFd<'_>) -> bool {
    let mut entries = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    let at_once = Timespec::default();
    poll(&mut entries, Some(&at_once)).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::{self, Read};
    use std::os::fd::OwnedFd;

    use super::*;

    /// The descriptor is leaked: a printer borrows for ever.
    fn printer(fd: impl Into<OwnedFd>) -> Printer {
        let fd: &'static OwnedFd = Box::leak(Box::new(fd.into()));
        Printer::new(fd.as_fd())
    }

    #[test]
    fn a_reader_that_sleeps_does_not_block_and_loses_nothing() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut printer = printer(writer);
        let text: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
        printer.print(&text);
        assert!(printer.is_full(), "a pipe holds less than that");
        let mut received = Vec::new();
        let mut part = vec![0; 10_000];
        while received.len() < text.len() {
            let len = reader.read(&mut part).unwrap();
            received.extend_from_slice(&part[..len]);
            printer.flush();
        }
        assert_eq!(received, text);
        assert!(printer.is_empty());
    }

    #[test]
    fn without_a_reader_everything_is_dropped() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut printer = printer(writer);
        printer.print(b"line\n");
        printer.flush();
        assert!(printer.is_empty());
    }
}
