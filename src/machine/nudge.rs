//! Nudges: what makes a vCPU leave the guest, or look again if it waits at the idle port.
//!
//! A nudge is a signal whose handler does nothing: its only purpose is to interrupt a system call.
//! The signal is SIGURG, because a program that does not handle it ignores it, so that a SIGURG
//! from outside does no harm; and because a signal of the old kind needs no place in a queue, which
//! a limit could keep full (signal(7)).
//!
//! KVM's flag `immediate_exit` would keep a nudge that arrives just before the guest is entered, but not
//! one just before the sleep at the idle port; a nudge that is repeated gets through in both.

use std::ffi::{c_int, c_void};
use std::io;

use rustix::process::getpid;
use rustix::thread::gettid;
use vmm_sys_util::signal::register_signal_handler;

use crate::signal_mask;

/// The signal.
pub const NUDGE_SIGNAL: c_int = libc::SIGURG;

/// Nudges the vCPU that one thread runs.
#[derive(Clone, Copy, Debug)]
pub struct Nudger {
    process: libc::pid_t,
    thread: libc::pid_t,
}

impl Nudger {
    /// Prepares the calling thread, which is about to run a vCPU, for nudges: whoever started this
    /// process may have blocked or ignored the signal.
    ///
    /// # Errors
    ///
    /// The system's reason.
    pub fn of_this_thread() -> io::Result<Self> {
        extern "C" fn nothing(_: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {}
        register_signal_handler(NUDGE_SIGNAL, nothing)?;
        signal_mask::unblock(&[NUDGE_SIGNAL])?;
        Ok(Self {
            process: getpid().as_raw_pid(),
            thread: gettid().as_raw_pid(),
        })
    }

    /// The thread, as the system numbers it.
    #[must_use]
    pub fn thread(self) -> libc::pid_t {
        self.thread
    }

    /// Nudges the vCPU. One that is about to enter the guest misses it; who depends on a nudge
    /// repeats it.
    ///
    /// # Errors
    ///
    /// The system's reason; none if the thread has ended.
    pub fn nudge(self) -> io::Result<()> {
        // This is not pthread_kill, which some C libraries make a call of that cannot be confined
        // to this process. SAFETY: the call takes three numbers, and the signal has a handler.
        let sent =
            unsafe { libc::syscall(libc::SYS_tgkill, self.process, self.thread, NUDGE_SIGNAL) };
        match sent {
            0 => Ok(()),
            _ => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
                error => Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::virtio::NotificationLine;

    #[test]
    fn a_nudge_gets_through_where_the_signal_was_blocked_at_the_start() {
        let (sender, receiver) = mpsc::channel();
        let waiter = thread::spawn(move || {
            vmm_sys_util::signal::block_signal(NUDGE_SIGNAL).unwrap();
            sender.send(Nudger::of_this_thread().unwrap()).unwrap();
            NotificationLine::new().unwrap().wait()
        });
        let nudger = receiver.recv().unwrap();
        // The other thread may not wait yet, so it is nudged more than once.
        while !waiter.is_finished() {
            nudger.nudge().unwrap();
            thread::sleep(Duration::from_millis(1));
        }
        let error = waiter.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
        nudger.nudge().unwrap();
    }
}
