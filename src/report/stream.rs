//! Output that never holds up the main loop.
//!
//! A terminal can be stopped, a pipe's reader can sleep for hours, and a socket's peer as well;
//! signals and the time limit must work all the same. Text waits here, in a buffer that never
//! grows, and is written when the descriptor has room.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, Stat, fcntl_getfl, fstat, open};
use rustix::io::{Errno, write};
use rustix::net::{SendFlags, send};
use rustix::termios::isatty;

/// With so much waiting, in bytes, callers should stop producing.
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
    /// A regular file always takes what it is given.
    Direct,
    /// A second description of the same terminal or pipe, which does not block. The one that was
    /// inherited belongs to other processes as well, for whom it must stay as it is.
    Reopened(OwnedFd),
    /// A socket can be told with each call not to wait.
    Socket,
    /// Where nothing better is possible: ask first, and write no more than `poll` promised.
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
                    // A terminal that had hung up before the start does not say that it is one.
                    let hung_up = error == Errno::IO && is_character_device(self.fd);
                    let gone = hung_up
                        || matches!(error, Errno::PIPE | Errno::CONNRESET | Errno::CONNREFUSED);
                    self.failure = (!gone).then_some(error);
                    self.give_up();
                }
            }
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

fn is_character_device(fd: BorrowedFd<'_>) -> bool {
    fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice)
}

fn is_writable(fd: BorrowedFd<'_>) -> bool {
    let mut entries = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    let at_once = Timespec::default();
    poll(&mut entries, Some(&at_once)).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::{File, OpenOptions};
    use std::io::{self, Read, Seek, Write};
    use std::os::unix::net::UnixStream;
    use std::time::{Duration, Instant};

    use rustix::io::FdFlags;
    use rustix::net::sockopt::set_socket_send_buffer_size;
    use rustix::termios::{Action, tcflow};

    use super::*;
    use crate::report::testing::{Pty, leak};

    /// So long a test may take where nothing is to wait.
    const AT_ONCE: Duration = Duration::from_secs(2);

    fn text(len: usize) -> Vec<u8> {
        (b'a'..=b'w').cycle().take(len).collect()
    }

    /// Writes more than there is room for while nobody reads, and then reads all of it.
    fn a_slow_reader_gets_all(mut stream: Stream, mut reader: impl Read) {
        let text = text(100_000);
        let begun = Instant::now();
        let mut left = &text[..];
        while !stream.is_full() && !left.is_empty() {
            let (part, rest) = left.split_at(left.len().min(1000));
            stream.print(part);
            left = rest;
        }
        stream.print(left);
        stream.flush();
        assert!(begun.elapsed() < AT_ONCE, "it waited for the reader");
        assert_eq!(stream.take_lost(), 0);
        let mut received = Vec::new();
        let mut part = vec![0; 10_000];
        while received.len() < text.len() {
            let len = reader.read(&mut part).unwrap();
            received.extend_from_slice(&part[..len]);
            stream.flush();
        }
        assert!(received == text);
        assert!(stream.is_empty() && !stream.waits_for_room());
    }

    #[test]
    fn a_pipe_whose_reader_sleeps_does_not_block_and_loses_nothing() {
        let (reader, writer) = io::pipe().unwrap();
        let stream = Stream::open(leak(writer));
        assert!(matches!(stream.way, Way::Reopened(_)));
        a_slow_reader_gets_all(stream, reader);
    }

    #[test]
    fn a_pipe_that_cannot_be_reopened_does_not_block_either() {
        let (reader, writer) = io::pipe().unwrap();
        let stream = Stream::with(leak(writer), Way::Polled(PIPE_BUF), false);
        a_slow_reader_gets_all(stream, reader);
    }

    #[test]
    fn a_socket_whose_peer_sleeps_does_not_block_and_loses_nothing() {
        let (reader, writer) = UnixStream::pair().unwrap();
        set_socket_send_buffer_size(&writer, 4096).unwrap();
        let stream = Stream::open(leak(writer));
        assert!(matches!(stream.way, Way::Socket));
        a_slow_reader_gets_all(stream, reader);
    }

    #[test]
    fn a_terminal_whose_other_side_sleeps_does_not_block_and_loses_nothing() {
        let pty = Pty::open(80);
        let stream = Stream::open(leak(pty.theirs.try_clone().unwrap()));
        assert!(matches!(stream.way, Way::Reopened(_)));
        a_slow_reader_gets_all(stream, pty.ours);
    }

    #[test]
    fn a_terminal_that_cannot_be_reopened_does_not_block_either() {
        let pty = Pty::open(80);
        let stream = Stream::with(
            leak(pty.theirs.try_clone().unwrap()),
            Way::Polled(ONE),
            true,
        );
        a_slow_reader_gets_all(stream, pty.ours);
    }

    #[test]
    fn a_stopped_terminal_blocks_neither_way_and_gets_all_when_it_goes_on() {
        for way in [None, Some(Way::Polled(ONE))] {
            let mut pty = Pty::open(80);
            let fd = leak(pty.theirs.try_clone().unwrap());
            let mut stream = match way {
                None => Stream::open(fd),
                Some(way) => Stream::with(fd, way, true),
            };
            tcflow(&pty.theirs, Action::OOff).unwrap();
            let begun = Instant::now();
            stream.print(b"line\n");
            stream.flush();
            assert!(begun.elapsed() < AT_ONCE, "it waited for the terminal");
            assert!(stream.waits_for_room());
            tcflow(&pty.theirs, Action::OOn).unwrap();
            stream.flush();
            assert!(stream.is_empty());
            let mut shown = [0; 6];
            pty.ours.read_exact(&mut shown).unwrap();
            assert_eq!(&shown, b"line\r\n");
        }
    }

    #[test]
    fn the_inherited_description_stays_as_it_is() {
        let (_reader, writer) = io::pipe().unwrap();
        let fd = leak(writer);
        let before = fcntl_getfl(fd).unwrap();
        let stream = Stream::open(fd);
        assert_eq!(fcntl_getfl(fd).unwrap(), before);
        assert!(fcntl_getfl(&stream).unwrap().contains(OFlags::NONBLOCK));
        let flags = rustix::io::fcntl_getfd(&stream).unwrap();
        assert!(flags.contains(FdFlags::CLOEXEC));
    }

    #[test]
    fn a_regular_file_is_written_where_it_stands() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"before ").unwrap();
        let mut stream = Stream::open(leak(file.try_clone().unwrap()));
        stream.print(b"after");
        stream.flush();
        let mut content = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut content).unwrap();
        assert_eq!(content, "before after");
    }

    #[test]
    fn without_a_reader_everything_is_dropped_and_that_is_no_failure() {
        let (reader, writer) = io::pipe().unwrap();
        let mut stream = Stream::open(leak(writer));
        drop(reader);
        stream.print(b"line\n");
        stream.flush();
        assert!(stream.is_empty());
        assert_eq!(stream.take_failure(), None);
    }

    #[test]
    fn a_full_disk_is_a_failure_that_is_told_once() {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut stream = Stream::open(leak(full));
        stream.print(b"line\n");
        stream.flush();
        assert!(stream.is_empty());
        assert_eq!(stream.take_failure(), Some(Errno::NOSPC));
        assert_eq!(stream.take_failure(), None);
    }

    #[test]
    fn the_buffer_never_grows_and_what_does_not_fit_is_counted() {
        let (_reader, writer) = io::pipe().unwrap();
        let mut stream = Stream::open(leak(writer));
        let capacity = stream.pending.capacity();
        for _ in 0..1000 {
            stream.print(&[b'x'; 1000]);
        }
        assert_eq!(stream.pending.capacity(), capacity);
        assert!(stream.is_full());
        assert!(stream.take_lost() > 700_000);
    }

    #[test]
    fn two_descriptors_of_one_terminal_or_pipe_lead_to_the_same() {
        let pty = Pty::open(80);
        let copy = pty.theirs.try_clone().unwrap();
        assert!(lead_to_the_same(pty.theirs.as_fd(), copy.as_fd()));
        let other = Pty::open(80);
        assert!(!lead_to_the_same(pty.theirs.as_fd(), other.theirs.as_fd()));
        let (_reader, writer) = io::pipe().unwrap();
        let copy = writer.try_clone().unwrap();
        assert!(lead_to_the_same(writer.as_fd(), copy.as_fd()));
        let null = File::open("/dev/null").unwrap();
        assert!(!lead_to_the_same(null.as_fd(), null.as_fd()));
    }
}
