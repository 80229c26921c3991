//! What is asked of KVM again, how often, and what is not.
//!
//! - A call that a signal interrupted (`EINTR`) while the machine is built is repeated: a process
//!   that was stopped and continued is no reason to fail. Whoever sends signals without end gets
//!   an error after [`MAX_INTERRUPTIONS`] of them.
//! - `KVM_RUN` that is interrupted is not repeated here: an interruption is how the vCPU is told to
//!   look whether it is to stop.
//! - `KVM_RUN` that says "try again" (`EAGAIN`) could not start a thread of the kernel that it needs.
//!   That passes when other processes end, so it is repeated, ever more slowly, for less than a
//!   second in a row ([`Retries`]).
//! - Nothing else is repeated.

use std::time::Duration;

use kvm_ioctls::Error;
use rustix::event::{Timespec, poll};

/// How often a call in a row may be interrupted before that is an error.
pub(super) const MAX_INTERRUPTIONS: u32 = 100;

/// Makes `call` until a signal does not interrupt it, [`MAX_INTERRUPTIONS`] times at the most.
///
/// # Errors
///
/// That of the last call.
pub(super) fn interrupted<T>(mut call: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    for _ in 1..MAX_INTERRUPTIONS {
        match call() {
            Err(error) if error.errno() == libc::EINTR => {}
            done => return done,
        }
    }
    call()
}

/// Counts how often in a row `KVM_RUN` has said that it be tried again.
#[derive(Debug, Default)]
pub(super) struct Retries(u32);

impl Retries {
    /// The first wait; each further one is twice as long.
    const FIRST_WAIT: Duration = Duration::from_millis(1);
    /// With these the waits add up to 0.511 s.
    const MAX_RETRIES: u32 = 9;

    /// The call has succeeded, or failed for another reason.
    pub(super) fn reset(&mut self) {
        self.0 = 0;
    }

    /// The call has said `EAGAIN`. Waits, and returns whether it is to be made again.
    ///
    /// A signal ends the wait, so that a stop is seen at once.
    pub(super) fn again(&mut self) -> bool {
        self.again_after(|wait| {
            let wait = Timespec {
                tv_sec: 0,
                tv_nsec: wait.subsec_nanos().into(),
            };
            // The vCPU's thread may make this call anyway, which holds for few that wait.
            let _ = poll(&mut [], Some(&wait));
        })
    }

    fn again_after(&mut self, wait: impl FnOnce(Duration)) -> bool {
        if self.0 == Self::MAX_RETRIES {
            return false;
        }
        wait(Self::FIRST_WAIT * 2_u32.pow(self.0));
        self.0 += 1;
        true
    }
}

/// What an error number of KVM's usually means, and what to do, behind the system's own words.
///
/// Empty for a number that says all there is to say.
#[must_use]
pub(crate) fn hint(error: Error) -> &'static str {
    match error.errno() {
        libc::EAGAIN => {
            " (it cannot start a thread that it needs: raise the limit on processes, which is \
             pids.max of the control group or ulimit -u)"
        }
        libc::EBUSY => {
            " (another hypervisor uses the processor's virtualisation: end it, VirtualBox and \
             VMware for example, or unload its kernel modules)"
        }
        libc::EINTR => " (signals keep interrupting it: find out who sends them)",
        libc::ENOMEM => " (the host or the control group is out of memory: see memory.max)",
        libc::EMFILE => " (this process has too many open files: raise ulimit -n)",
        libc::ENFILE => " (the host has too many open files: raise fs.file-max)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A call that fails with `errno` for `times` times, and how often it was made.
    fn call_failing(errno: i32, times: u32) -> (Result<(), i32>, u32) {
        let mut calls = 0;
        let result = interrupted(|| {
            calls += 1;
            if calls <= times {
                Err(Error::new(errno))
            } else {
                Ok(())
            }
        });
        (result.map_err(|error| error.errno()), calls)
    }

    #[test]
    fn an_interrupted_call_is_repeated_but_not_for_ever() {
        assert_eq!(call_failing(libc::EINTR, 0), (Ok(()), 1));
        assert_eq!(call_failing(libc::EINTR, 7), (Ok(()), 8));
        assert_eq!(
            call_failing(libc::EINTR, u32::MAX),
            (Err(libc::EINTR), MAX_INTERRUPTIONS)
        );
    }

    #[test]
    fn a_call_that_fails_for_another_reason_is_made_once() {
        for errno in [libc::EAGAIN, libc::EBUSY, libc::ENOMEM] {
            assert_eq!(call_failing(errno, 1), (Err(errno), 1));
        }
    }

    #[test]
    fn trying_again_ends_within_a_second_and_begins_anew_after_a_success() {
        let mut retries = Retries::default();
        for _ in 0..2 {
            let mut waited = Duration::ZERO;
            let mut times = 0;
            while retries.again_after(|wait| waited += wait) {
                times += 1;
                assert!(times < 100);
            }
            assert!(times > 1);
            assert!(waited > Duration::from_millis(100) && waited < Duration::from_secs(1));
            assert!(!retries.again_after(|_| {}));
            retries.reset();
        }
    }

    #[test]
    fn a_shortage_of_processes_and_another_hypervisor_are_named() {
        assert!(hint(Error::new(libc::EAGAIN)).contains("pids.max"));
        assert!(hint(Error::new(libc::EBUSY)).contains("another hypervisor"));
        assert_eq!(hint(Error::new(libc::EINVAL)), "");
    }
}
