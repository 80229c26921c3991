//! A terminal that hands each key on at once and shows none of them (termios(3)): what the guest's
//! serial port takes as input is the guest's to show.
//!
//! Only Ctrl-C keeps its meaning, so that a run can be ended; a key that would stop the process, or
//! end it without a chance to give the terminal back, is a key like others. The settings are
//! restored when this is dropped, however the run ends, and before a signal or a forbidden system call
//! ends the process.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};

use crate::job;
use crate::sandbox::{self, Calls, calls};

/// What puts the terminal back when the process ends within a signal's handler: one in a process.
static SAVED: OnceLock<(BorrowedFd<'static>, Termios)> = OnceLock::new();
/// Whether the terminal has not been put back yet. After that its settings are somebody else's.
static IS_RAW: AtomicBool = AtomicBool::new(false);
/// What the terminal is made again when the process goes on after a stop: a shell has put its own settings
/// in place meanwhile, and a stop from elsewhere leaves no chance to do anything before.
static RAW: OnceLock<Termios> = OnceLock::new();
/// Whether it is made that again.
static STAYS_RAW: AtomicBool = AtomicBool::new(false);

/// The signals that end a process by themselves, but for those that are taken over, those that tell of
/// a fault of the process, those of real time (signal(7)), and SIGKILL.
const AT_ONCE: [libc::c_int; 11] = [
    libc::SIGQUIT,
    libc::SIGABRT,
    libc::SIGALRM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGXCPU,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGPWR,
    libc::SIGSTKFLT,
];

/// A terminal whose settings are to be restored.
pub(super) struct RawTerminal {
    fd: BorrowedFd<'static>,
    saved: Termios,
}

/// Whether the terminal can be used.
pub(super) enum Taken {
    /// It hands on each key.
    Raw(RawTerminal),
    /// It belongs to another job of the shell.
    InBackground,
}

impl RawTerminal {
    /// Takes the terminal `fd`, which is never closed, unless it belongs to another job.
    ///
    /// # Errors
    ///
    /// The system's reason; then nothing has changed.
    pub(super) fn take(fd: BorrowedFd<'static>) -> io::Result<Taken> {
        if job::has_another(fd, job::own()) {
            return Ok(Taken::InBackground);
        }
        // A job that is put into the background later is not stopped when it reads, or restores
        // the settings: it is told so by an error.
        for signal in [libc::SIGTTIN, libc::SIGTTOU] {
            // SAFETY: ignoring a signal installs no code of ours.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
        let saved = tcgetattr(fd)?;
        let mut raw = saved.clone();
        raw.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::IEXTEN;
        for (key, value) in [
            (SpecialCodeIndex::VMIN, 1),
            (SpecialCodeIndex::VTIME, 0),
            // The value 0 is no key: nothing has this meaning then (_POSIX_VDISABLE).
            (SpecialCodeIndex::VQUIT, 0),
            (SpecialCodeIndex::VSUSP, 0),
        ] {
            raw.special_codes[key] = value;
        }
        let _ = SAVED.set((fd, saved.clone()));
        let terminal = Self { fd, saved };
        IS_RAW.store(true, Ordering::SeqCst);
        sandbox::before_a_violation_ends(restore_saved);
        restore_before_signals_end();
        set(fd, &raw)?;
        let _ = RAW.set(raw);
        STAYS_RAW.store(true, Ordering::SeqCst);
        take_again_after_a_stop();
        Ok(Taken::Raw(terminal))
    }

    /// What restoring takes. Any thread may have to: see [`sandbox::before_a_violation_ends`].
    pub(super) fn calls(&self) -> Calls {
        calls::restore_terminal(self.fd.as_raw_fd())
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        STAYS_RAW.store(false, Ordering::SeqCst);
        restore(self.fd, &self.saved);
        IS_RAW.store(false, Ordering::SeqCst);
    }
}

/// Puts settings in place, unless another job has the terminal: then they are that job's. This is safe
/// in a signal's handler, since it makes three system calls and nothing else.
fn restore(fd: BorrowedFd<'_>, settings: &Termios) {
    if !job::has_another(fd, job::own()) {
        // There is nobody to tell, and nothing to do about it.
        let _ = set(fd, settings);
    }
}

/// Restores the settings when the process ends within a signal's handler, if that is still to be done.
fn restore_saved() {
    if let Some((fd, saved)) = SAVED.get()
        && IS_RAW.load(Ordering::SeqCst)
    {
        restore(*fd, saved);
    }
}

/// Has each signal that would end the process at once give the terminal back first. Such a signal may
/// not be sent again in the sandbox, so that the process ends with the status that a shell gives it.
fn restore_before_signals_end() {
    extern "C" fn end(signal: libc::c_int) {
        restore_saved();
        // SAFETY: ends the process at once.
        unsafe { libc::_exit(128 + signal) }
    }
    for signal in AT_ONCE
        .into_iter()
        .chain(libc::SIGRTMIN()..=libc::SIGRTMAX())
    {
        let handler = end as extern "C" fn(libc::c_int) as libc::sighandler_t;
        // SAFETY: the handler makes system calls that are safe there, and nothing else.
        let before = unsafe { libc::signal(signal, handler) };
        if before == libc::SIG_IGN {
            // Whoever started the process wants that.
            // SAFETY: ignoring a signal installs no code of ours.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
    }
}

/// Makes the terminal hand on each key again after a stop, unless another job has it.
fn take_again_after_a_stop() {
    extern "C" fn take_again(_: libc::c_int) {
        // SAFETY: the call takes nothing.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: the pointer is to the error number of this thread, which what is interrupted may be
        // about to read.
        let before = unsafe { *errno };
        if let Some((fd, _)) = SAVED.get()
            && let Some(raw) = RAW.get()
            && STAYS_RAW.load(Ordering::SeqCst)
        {
            restore(*fd, raw);
        }
        // SAFETY: as above.
        unsafe { *errno = before };
    }
    let handler = take_again as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: the handler makes system calls that are safe there and that each thread may make.
    unsafe { libc::signal(libc::SIGCONT, handler) };
}

/// Changes the settings at once, without waiting for output that a stopped terminal still holds.
fn set(fd: BorrowedFd<'_>, settings: &Termios) -> Result<(), Errno> {
    tcsetattr(fd, OptionalActions::Now, settings)
}
