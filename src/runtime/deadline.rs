//! The time limit of a run. It counts from the start of the process, and holds before there is a
//! main loop too: to open a file on a network that does not answer can take for ever.

use std::ffi::c_int;
use std::io;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::error::EXIT_TIMEOUT;
use super::signals::set_of;

/// What the alarm says, made before it is set: its handler may not allocate.
static MESSAGE: OnceLock<String> = OnceLock::new();

/// When a run has to be over.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    end: Instant,
    limit: Duration,
}

impl Deadline {
    /// A run that begins now and may take `limit`; `None` if that is longer than a clock can tell.
    #[must_use]
    pub fn after(limit: Duration) -> Option<Self> {
        let end = Instant::now().checked_add(limit)?;
        Some(Self { end, limit })
    }

    /// How long the run may take.
    #[must_use]
    pub fn limit(self) -> Duration {
        self.limit
    }

    /// When it has to be over.
    #[must_use]
    pub fn end(self) -> Instant {
        self.end
    }

    /// Whether the time is over.
    #[must_use]
    pub fn is_over(self) -> bool {
        Instant::now() >= self.end
    }

    /// Ends the process when the time is over, for as long as the alarm that this returns is kept:
    /// while files are opened, and nothing has to be taken back yet.
    ///
    /// # Errors
    ///
    /// The system's reason.
    pub fn set_alarm(self) -> io::Result<Alarm> {
        let _ = MESSAGE.set(format!("vmm: {}\n", super::RunError::TimedOut(self.limit)));
        // SAFETY: the structure is plain data, for which all zeros are valid.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = end_process as extern "C" fn(c_int) as usize;
        // SAFETY: `action` is valid, its handler makes system calls and nothing else.
        if unsafe { libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let set = set_of([libc::SIGALRM]);
        // SAFETY: `set` is valid, and the old mask is not wanted.
        unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut()) };
        let left = self.end.saturating_duration_since(Instant::now());
        set_timer(left.max(Duration::from_micros(1)))?;
        Ok(Alarm(()))
    }
}

/// An alarm that is set. Dropping it takes it back.
#[derive(Debug)]
pub struct Alarm(());

impl Drop for Alarm {
    fn drop(&mut self) {
        // It cannot fail: the value is valid, and setting it worked.
        let _ = set_timer(Duration::ZERO);
    }
}

fn set_timer(after: Duration) -> io::Result<()> {
    let value = libc::timeval {
        tv_sec: libc::time_t::try_from(after.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_usec: after.subsec_micros().into(),
    };
    let timer = libc::itimerval {
        it_interval: libc::timeval {
            tv_sec: 0,
            tv_usec: 0,
        },
        it_value: value,
    };
    // SAFETY: `timer` is valid, and the old value is not wanted.
    match unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

extern "C" fn end_process(_: c_int) {
    if let Some(message) = MESSAGE.get() {
        // SAFETY: the bytes are valid for reading; the call may be made in a handler.
        unsafe { libc::write(libc::STDERR_FILENO, message.as_ptr().cast(), message.len()) };
    }
    // SAFETY: may be called in a handler; nothing has to be taken back yet.
    unsafe { libc::_exit(EXIT_TIMEOUT.into()) };
}
