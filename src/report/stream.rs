//! Output that never holds up the main loop.
//!
//! A terminal can be stopped, a pipe's reader can sleep for hours, and a socket's peer as well;
//! signals and the time limit must work all the same. Text waits here, in a buffer that never
//! grows, and is written when the descriptor has room.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::fs::{FileType, Mode, OFlags, Stat, fcntl_getfl, fstat, open};
use rustix::io::{Errno, write};
use rustix::net::{SendFlags, send};
use rustix::termios::isatty;

use crate::ready::is_ready;

/// When this many bytes wait, callers should stop producing.
pub(super) const FULL: usize = 64 * 1024;
/// What can wait at most, in bytes: what waits when a stream is not yet full, and all that one
/// [`PIECE`](super::PIECE) of a guest's bytes can become.
pub(super) const CAPACITY: usize = 2 * FULL;
/// Text is written when this much has come together, in bytes, or at the next tick.
const BATCH: usize = 16 * 1024;
/// `poll` promises room for this many bytes in a pipe that it calls writable (POSIX `PIPE_BUF`).
const PIPE_BUF: usize = 4096;
/// `poll` promises room for this many bytes in a terminal.
const ONE: usize = 1;

/// How bytes are written without waiting.
#[derive(Debug)]
enum Way {
    /// A regular file always takes what it is given, and what is open for reading alone nothing.
    Direct,
    /// A second description of the same terminal or pipe, which does not block. The one that was
    /// inherited belongs to other processes as well, for whom it must stay as it is.
    Reopened(OwnedFd),
    /// A socket can be told with each call not to wait.
    Socket,
    /// Nothing better is possible: it is asked first, and no more is written than `poll` promised.
    /// Another process that writes there between the two can still make the write wait.
    Polled(usize),
}

/// Buffered output to a borrowed descriptor that does not wait.
#[derive(Debug)]
pub(super) struct Stream {
    fd: BorrowedFd<'static>,
    way: Way,
    terminal: bool,
    pending: VecDeque<u8>,
    /// When something was last taken of what waits, or began to wait.
    moved: Instant,
    /// Nobody reads any longer (a closed pipe, a full disk): everything is dropped.
    broken: bool,
    /// Why writing failed, until somebody asks. A reader that has gone is no failure.
    failure: Option<Errno>,
    /// Bytes that were dropped because they did not fit.
    lost: usize,
}

impl Stream {
    /// Output to `fd`. All that it ever needs is opened here.
    pub(super) fn open(fd: BorrowedFd<'static>) -> Self {
        let terminal = isatty(fd);
        let kind = fstat(fd).map(|stat| FileType::from_raw_mode(stat.st_mode));
        let way = match kind {
            // To write it fails at once, with the reason that it has.
            _ if is_only_read(fd) => Way::Direct,
            Ok(FileType::RegularFile) => Way::Direct,
            Ok(FileType::Socket) => Way::Socket,
            Ok(FileType::Fifo) => reopen(fd).map_or(Way::Polled(PIPE_BUF), Way::Reopened),
            _ if terminal => reopen(fd).map_or(Way::Polled(ONE), Way::Reopened),
            // /dev/null and its like, which never wait. Opening such a device again could do
            // something.
            _ => Way::Polled(PIPE_BUF),
        };
        Self::with(fd, way, terminal)
    }

    fn with(fd: BorrowedFd<'static>, way: Way, terminal: bool) -> Self {
        Self {
            fd,
            way,
            terminal,
            pending: VecDeque::with_capacity(CAPACITY),
            moved: Instant::now(),
            broken: false,
            failure: None,
            lost: 0,
        }
    }

    /// Whether it is a terminal, as it was when it was opened.
    pub(super) const fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Adds `text`, all of it or, where it does not fit, nothing.
    pub(super) fn print(&mut self, text: &[u8]) {
        if self.broken {
            return;
        }
        if text.len() > self.room_left() {
            self.flush();
        }
        if text.len() > self.room_left() {
            self.lost = self.lost.saturating_add(text.len());
            return;
        }
        if self.pending.is_empty() {
            self.moved = Instant::now();
        }
        self.pending.extend(text);
        if self.pending.len() >= BATCH {
            self.flush();
        }
    }

    /// How many more bytes fit.
    pub(super) fn room_left(&self) -> usize {
        CAPACITY - self.pending.len()
    }

    /// Writes as much as can be written without waiting. Returns whether anything was written.
    pub(super) fn flush(&mut self) -> bool {
        let mut wrote = false;
        while !self.pending.is_empty() {
            match self.write_some() {
                Ok(0) | Err(Errno::AGAIN) => break,
                Ok(written) => {
                    wrote = true;
                    self.pending.drain(..written);
                }
                Err(Errno::INTR) => {}
                Err(error) => {
                    // The copy matters more than its lines: `vmm … | head -1` still copies.
                    self.failure = (!is_reader_gone(self.fd, error)).then_some(error);
                    self.give_up();
                }
            }
        }
        if wrote {
            self.moved = Instant::now();
        }
        wrote
    }

    fn write_some(&self) -> Result<usize, Errno> {
        let (bytes, _) = self.pending.as_slices();
        match &self.way {
            Way::Direct => write(self.fd, bytes),
            Way::Reopened(own) => write(own, bytes),
            Way::Socket => send(self.fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
            Way::Polled(promised) if is_writable(self.fd) => {
                write(self.fd, &bytes[..bytes.len().min(*promised)])
            }
            Way::Polled(_) => Err(Errno::AGAIN),
        }
    }

    /// Drops what waits, and all that follows. Returns how many bytes waited.
    pub(super) fn give_up(&mut self) -> usize {
        let waited = self.pending.len();
        self.broken = true;
        self.pending.clear();
        waited
    }

    /// Whether all that is printed is dropped, since nobody reads it.
    pub(super) const fn is_broken(&self) -> bool {
        self.broken
    }

    /// Why the last write failed, if that has not been told yet.
    pub(super) const fn take_failure(&mut self) -> Option<Errno> {
        self.failure.take()
    }

    /// How many bytes were dropped for want of room since this was last asked.
    pub(super) fn take_lost(&mut self) -> usize {
        std::mem::take(&mut self.lost)
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// For how long nothing has been taken of what waits.
    pub(super) fn stuck_for(&self) -> Duration {
        if self.is_empty() {
            Duration::ZERO
        } else {
            self.moved.elapsed()
        }
    }

    /// Whether so much waits that no more should be made.
    pub(super) fn is_full(&self) -> bool {
        self.pending.len() >= FULL
    }

    /// Whether text waits for room: a regular file never has to.
    pub(super) fn waits_for_room(&self) -> bool {
        !self.pending.is_empty() && !matches!(self.way, Way::Direct)
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.way {
            Way::Reopened(own) => own.as_fd(),
            _ => self.fd,
        }
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// Whether two descriptors lead to the same terminal, pipe or socket, so that what is written to
/// one must not overtake what was written to the other.
pub(super) fn lead_to_the_same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    let (Ok(a), Ok(b)) = (fstat(one), fstat(other)) else {
        return false;
    };
    let kind = |stat: &Stat| FileType::from_raw_mode(stat.st_mode);
    if isatty(one) && isatty(other) {
        // `/dev/tty` stands for whatever terminal the process has: that is the other one.
        return a.st_rdev == b.st_rdev || is_dev_tty(&a) || is_dev_tty(&b);
    }
    matches!(kind(&a), FileType::Fifo | FileType::Socket)
        && (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
}

fn is_dev_tty(stat: &Stat) -> bool {
    let device = (
        rustix::fs::major(stat.st_rdev),
        rustix::fs::minor(stat.st_rdev),
    );
    device == (5, 0)
}

/// A new description of what is open as `fd`. It fails without `/proc`, for a terminal or a pipe
/// that belongs to another user, and for a named pipe without a reader.
fn reopen(fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let kept = fcntl_getfl(fd)? & OFlags::APPEND;
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC | kept;
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    open(path, flags, Mode::empty())
}

/// Whether a write to `stream` failed with `error` because nobody reads there any more.
#[must_use]
pub fn is_reader_gone(stream: BorrowedFd<'_>, error: Errno) -> bool {
    match error {
        Errno::PIPE | Errno::CONNRESET | Errno::CONNREFUSED => true,
        // A terminal that had hung up before the start does not say that it is one.
        Errno::IO => is_character_device(stream),
        _ => false,
    }
}

fn is_only_read(fd: BorrowedFd<'_>) -> bool {
    fcntl_getfl(fd).is_ok_and(|flags| flags & OFlags::ACCMODE == OFlags::RDONLY)
}

fn is_character_device(fd: BorrowedFd<'_>) -> bool {
    fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice)
}

fn is_writable(fd: BorrowedFd<'_>) -> bool {
    is_ready(fd, PollFlags::OUT).unwrap_or(false)
}

#[cfg(test)]
mod tests;
