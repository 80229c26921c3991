//! Standard input as what a serial port receives: an event source of the main loop.
//!
//! No more is read than the port has room for, so that who sends too much waits, and nothing is
//! read without being there, so that the main loop never does. What has an end just ends.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use event_manager::{EventOps, Events};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::io::{Errno, read};
use rustix::net::{RecvFlags, recv};
use rustix::termios::isatty;
use vmm_sys_util::epoll::EventSet;

use super::crew::loop_failed;
use super::raw_terminal::{RawTerminal, Taken};
use super::{RunError, SerialPort};
use crate::devices::Uart;
use crate::ready::is_readable;
use crate::reason::reason;
use crate::sandbox::{Calls, calls};

/// How much may wait for the guest, in bytes.
const ROOM: usize = 4096;
/// While there is less room than the first, nothing is read; reading begins again when there is as
/// much room as the second. So a system call never reads only a few bytes.
const LITTLE_ROOM: usize = ROOM / 8;
const MUCH_ROOM: usize = ROOM / 2;
/// Ctrl-D, which ends what is typed on a terminal.
const END_OF_TEXT: u8 = 4;

/// How bytes are read without waiting.
enum Way {
    /// A second description of the same terminal or pipe, which does not block. The one that was
    /// inherited belongs to other processes as well, for whom it must stay as it is.
    Reopened(OwnedFd),
    /// A socket can be told with each call not to wait.
    Socket,
    /// Ask with each read whether it would wait. For files and devices that always have something,
    /// or an end, and where nothing better is possible.
    Asked,
}

/// When there is something to read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The main loop will be told.
    Watched,
    /// The port has no room.
    Full,
    /// Always. It cannot be watched, and is read whenever the guest has taken all.
    Plain,
    /// Never again, since it has ended.
    Ended,
}

/// Standard input, and the port that it goes to.
pub struct SerialInput {
    fd: BorrowedFd<'static>,
    way: Way,
    terminal: Option<RawTerminal>,
    uart: Arc<Uart>,
    state: State,
}

impl SerialInput {
    /// Takes standard input for `port`. A terminal is made to hand on each key, until this is
    /// dropped. Returns what the user should know, too.
    ///
    /// # Errors
    ///
    /// The terminal's settings cannot be changed.
    pub fn from_stdin(port: &SerialPort) -> Result<(Self, Option<String>), RunError> {
        // SAFETY: nothing in this program closes standard input; if the process was started without, it
        // was opened before `main`.
        let fd = unsafe { BorrowedFd::borrow_raw(libc::STDIN_FILENO) };
        let mut input = Self {
            fd,
            way: way(fd),
            terminal: None,
            uart: port.uart.clone(),
            state: State::Full,
        };
        if !isatty(fd) {
            return Ok((input, None));
        }
        let taken = RawTerminal::take(fd);
        match taken.map_err(RunError::host(
            "change the terminal's settings for --serial-input",
        ))? {
            Taken::Raw(terminal) => {
                input.terminal = Some(terminal);
                Ok((input, None))
            }
            Taken::InBackground => {
                input.state = State::Ended;
                let note = "standard input is a terminal that belongs to another job: the guest \
                            gets no serial input";
                Ok((input, Some(note.to_owned())))
            }
        }
    }

    /// What reading takes on the main thread.
    pub(super) fn main_calls(&self) -> Calls {
        match self.way {
            Way::Socket => calls::read_socket(self.fd.as_raw_fd()),
            _ => Calls::new(),
        }
    }

    /// What restoring the terminal takes, if standard input is one: for a thread that is started before
    /// it is taken.
    #[must_use]
    pub fn calls_of_stdin() -> Calls {
        calls::restore_terminal(libc::STDIN_FILENO)
    }

    /// What any thread may have to do about it.
    pub(super) fn any_thread_calls(&self) -> Calls {
        let terminal = self.terminal.as_ref();
        terminal.map_or_else(Calls::new, RawTerminal::calls)
    }

    /// Begins. Returns what the user should know, as the others do.
    pub(super) fn start(&mut self, ops: &mut EventOps<'_>, token: u32) -> Option<String> {
        if self.state == State::Ended {
            return None;
        }
        let events = Events::with_data_raw(self.watched_fd(), token, EventSet::IN);
        match ops.add(events) {
            Ok(()) => {
                self.state = State::Watched;
                None
            }
            // What epoll refuses is never waited for: regular files, /dev/null.
            Err(_) if matches!(self.way, Way::Asked) => {
                self.state = State::Plain;
                self.take()
            }
            Err(error) => {
                self.state = State::Ended;
                let error = loop_failed("watch standard input", &error);
                Some(format!("{error}; the guest gets none of it"))
            }
        }
    }

    /// To be called when the main loop is told that there is something to read.
    pub(super) fn on_readable(&mut self, ops: &mut EventOps<'_>) -> Option<String> {
        if self.state != State::Watched {
            return None;
        }
        let note = self.take();
        if self.state == State::Watched && self.room() < LITTLE_ROOM {
            self.state = State::Full;
        }
        if self.state != State::Watched {
            let _ = ops.remove(Events::empty_raw(self.watched_fd()));
        }
        note
    }

    /// To be called when the guest has taken all that was in the port.
    pub(super) fn on_taken(&mut self, ops: &mut EventOps<'_>, token: u32) -> Option<String> {
        match self.state {
            State::Full if self.room() >= MUCH_ROOM => self.start(ops, token),
            State::Plain if self.room() >= MUCH_ROOM => self.take(),
            _ => None,
        }
    }

    /// Reads as much as there is room for and hands it on.
    fn take(&mut self) -> Option<String> {
        let mut bytes = [0; ROOM];
        let room = self.room();
        if room == 0 {
            return None;
        }
        match self.read(&mut bytes[..room]) {
            Err(Errno::AGAIN | Errno::INTR) => None,
            Ok(len) => {
                let typed = &bytes[..len];
                let end = typed.iter().position(|byte| *byte == END_OF_TEXT);
                let end = end.filter(|_| self.terminal.is_some());
                if len == 0 || end.is_some() {
                    self.state = State::Ended;
                }
                self.uart.queue_input(&typed[..end.unwrap_or(len)]);
                None
            }
            Err(error) => {
                self.state = State::Ended;
                Some(format!(
                    "cannot read standard input: {}; the guest gets no more of it",
                    reason(error)
                ))
            }
        }
    }

    fn read(&self, bytes: &mut [u8]) -> Result<usize, Errno> {
        match &self.way {
            Way::Reopened(own) => read(own, bytes),
            Way::Socket => recv(self.fd, bytes, RecvFlags::DONTWAIT).map(|(len, _)| len),
            Way::Asked if is_readable(self.fd) => read(self.fd, bytes),
            Way::Asked => Err(Errno::AGAIN),
        }
    }

    fn room(&self) -> usize {
        ROOM.saturating_sub(self.uart.pending_input())
    }

    /// The port whose input this is.
    pub(super) fn uart(&self) -> &Arc<Uart> {
        &self.uart
    }

    fn watched_fd(&self) -> RawFd {
        match &self.way {
            Way::Reopened(own) => own.as_raw_fd(),
            _ => self.fd.as_raw_fd(),
        }
    }
}

fn way(fd: BorrowedFd<'_>) -> Way {
    let kind = fstat(fd).map(|stat| FileType::from_raw_mode(stat.st_mode));
    match kind {
        Ok(FileType::Socket) => Way::Socket,
        Ok(FileType::Fifo) => reopen(fd).map_or(Way::Asked, Way::Reopened),
        _ if isatty(fd) => reopen(fd).map_or(Way::Asked, Way::Reopened),
        _ => Way::Asked,
    }
}

/// A new description of what is open as `fd`. It fails without `/proc`, and for a terminal or a
/// pipe that belongs to another user.
fn reopen(fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    open(path, flags, Mode::empty())
}
