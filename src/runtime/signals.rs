//! Signals: those that end a run arrive as events of the main loop (signalfd(2)).

use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, RawFd};
use std::sync::Arc;

use crate::ready::is_readable;

/// The signals that end a run.
const ENDING: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// Ignores SIGXFSZ, so that a write beyond the limit of a file's size is an error with a reason, and
/// does not end the process without a word. Rust's runtime does so with SIGPIPE already.
pub fn fail_writes() {
    // SAFETY: ignoring a signal installs no code of ours.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Whether this is the first process of a namespace, as the one that a container is started with: the
/// kernel drops a signal for it that would end any other process (pid_namespaces(7)).
pub(super) fn is_first_process() -> bool {
    std::process::id() == 1
}

/// Keeps the ending signals waiting until they are [taken over](Signals::take_over), where the kernel
/// would drop them. It does not drop what is blocked.
///
/// To be called before Rust's runtime begins, since one can arrive at any time.
pub extern "C" fn hold_ending() {
    if is_first_process() {
        // What cannot be kept is lost as if this had not been tried.
        let _ = change_mask(libc::SIG_BLOCK, &set_of(ENDING));
    }
}

/// A descriptor from which the ending signals are read.
pub struct Signals(Arc<File>);

impl Signals {
    /// Blocks the ending signals in this thread and all that it starts later, and has them
    /// delivered here. One that is ignored when this is called stays ignored: whoever started the
    /// process wants that, as nohup(1) does, and a shell for its background jobs.
    ///
    /// Those that a write would end the process by are ignored ([`fail_writes`]).
    ///
    /// # Errors
    ///
    /// The system's reason.
    pub fn take_over() -> io::Result<Self> {
        let set = set_of(ENDING.into_iter().filter(|&signal| !is_ignored(signal)));
        change_mask(libc::SIG_BLOCK, &set)?;
        fail_writes();
        // SAFETY: `set` is valid; a new descriptor is asked for.
        let fd =
            unsafe { libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is open and nobody else has it.
        Ok(Self(Arc::new(unsafe { File::from_raw_fd(fd) })))
    }

    /// The same descriptor for another owner.
    pub(super) fn share(&self) -> Self {
        Self(self.0.clone())
    }

    /// Whether a signal has arrived that nobody has taken yet.
    pub(super) fn is_waiting(&self) -> bool {
        is_readable(self)
    }

    /// The number of a signal that has arrived.
    pub(super) fn next(&self) -> Option<u8> {
        // The signal's number is the first field of a record (struct signalfd_siginfo).
        let mut record = [0; size_of::<libc::signalfd_siginfo>()];
        let len = (&*self.0).read(&mut record).ok()?;
        (len == record.len()).then_some(record[0])
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Does `work` while the ending signals are blocked in this thread, as they then are in each thread that
/// `work` starts.
///
/// # Errors
///
/// The system's reason.
pub(super) fn with_ending_blocked<T>(work: impl FnOnce() -> T) -> io::Result<T> {
    let before = change_mask(libc::SIG_BLOCK, &set_of(ENDING))?;
    let done = work();
    change_mask(libc::SIG_SETMASK, &before)?;
    Ok(done)
}

/// Lets the ending signals end the process, as they do unless they are ignored: whoever started it may
/// have blocked them.
///
/// # Errors
///
/// The system's reason.
pub(super) fn unblock_ending() -> io::Result<()> {
    change_mask(libc::SIG_UNBLOCK, &set_of(ENDING)).map(drop)
}

/// Lets this thread receive `signal`, and gives that its usual meaning, whatever the process has
/// inherited. One that has arrived before is dropped.
///
/// # Errors
///
/// The system's reason.
pub(super) fn let_through(signal: libc::c_int) -> io::Result<()> {
    // To ignore a signal drops one that waits.
    for action in [libc::SIG_IGN, libc::SIG_DFL] {
        // SAFETY: neither action runs any code.
        if unsafe { libc::signal(signal, action) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    change_mask(libc::SIG_UNBLOCK, &set_of([signal])).map(drop)
}

/// Changes which signals are blocked in this thread, and returns which were.
fn change_mask(how: libc::c_int, set: &libc::sigset_t) -> io::Result<libc::sigset_t> {
    let mut before = set_of([]);
    // SAFETY: `set` is valid, and `before` is valid for writing.
    match unsafe { libc::pthread_sigmask(how, set, &raw mut before) } {
        0 => Ok(before),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// The set of `signals`, whose numbers are valid.
fn set_of(signals: impl IntoIterator<Item = libc::c_int>) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `set` is valid for writing.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: `sigemptyset` has initialised all of it.
    let mut set = unsafe { set.assume_init() };
    for signal in signals {
        // SAFETY: `set` is an initialised set and the signal number is valid.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    set
}

fn is_ignored(signal: libc::c_int) -> bool {
    let mut old = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: nothing is changed, and `old` is valid for writing.
    let asked = unsafe { libc::sigaction(signal, std::ptr::null(), old.as_mut_ptr()) };
    // SAFETY: the structure is plain data, for which all zeros are valid.
    let old = unsafe { old.assume_init() };
    asked == 0 && old.sa_sigaction == libc::SIG_IGN
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::thread;

    use super::*;

    #[test]
    fn a_signal_that_has_been_taken_over_is_read_and_ends_nothing() {
        // The mask is that of a thread of its own.
        let thread = thread::spawn(|| {
            let signals = Signals::take_over().unwrap();
            assert_eq!(signals.next(), None);
            // The tests may have been started by something that ignores some of them, as nohup(1) does.
            let ending = [libc::SIGTERM, libc::SIGHUP];
            for signal in ending.into_iter().filter(|&signal| !is_ignored(signal)) {
                // SAFETY: the signal goes to this thread, in which it is blocked.
                unsafe { libc::raise(signal) };
                assert_eq!(signals.next().map(i32::from), Some(signal));
            }
            assert_eq!(signals.next(), None);
        });
        thread.join().unwrap();
    }

    #[test]
    fn a_signal_that_has_waited_since_before_is_dropped_when_it_is_let_through() {
        let thread = thread::spawn(|| {
            let signal = libc::SIGUSR1;
            change_mask(libc::SIG_BLOCK, &set_of([signal])).unwrap();
            // SAFETY: the signal goes to this thread, in which it is blocked.
            unsafe { libc::raise(signal) };
            let_through(signal).unwrap();
            let blocked = change_mask(libc::SIG_BLOCK, &set_of([])).unwrap();
            // SAFETY: the set is initialised, and the signal's number is valid.
            assert_eq!(unsafe { libc::sigismember(&raw const blocked, signal) }, 0);
        });
        // Otherwise it has ended the whole process.
        thread.join().unwrap();
    }

    #[test]
    fn a_signal_is_ignored_only_if_it_was_set_to_be() {
        // The standard library ignores this one, and nobody touches the other.
        assert!(is_ignored(libc::SIGPIPE));
        assert!(!is_ignored(libc::SIGUSR2));
    }
}
