//! What is asked of KVM again, how often, and what is not.
//!
//! - A call that a signal interrupted (`EINTR`) while the machine is built is repeated, as all calls
//!   of a start are (`crate::repeat`). So is the question whether KVM can do something
//!   ([`capability`]): "no" would be believed.
//! - `KVM_RUN` that is interrupted is not repeated here: an interruption is how the vCPU is told to
//!   look whether it is to stop.
//! - `KVM_RUN` that says "try again" (`EAGAIN`) could not start a thread of the kernel that it needs.
//!   That passes when other processes end, so it is repeated, ever more slowly, for less than a
//!   second in a row ([`Retries`]).
//! - Nothing else is repeated.

use std::time::Duration;

use kvm_ioctls::Error;
use rustix::event::{Timespec, poll};

use crate::limits;
use crate::repeat::interrupted;

/// Asks with `ask` what KVM makes of a capability, as its own calls return it: negative for an error.
///
/// # Errors
///
/// The call failed, which is another answer than 0, "no".
pub(super) fn capability(mut ask: impl FnMut() -> i32) -> Result<i32, Error> {
    interrupted(|| match ask() {
        answer if answer < 0 => Err(Error::last()),
        answer => Ok(answer),
    })
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
        // Of a thread of the kernel's, which takes no address space.
        libc::EAGAIN => {
            " (it cannot start a thread that it needs: raise the limit on processes, which is \
             pids.max of the control group or ulimit -u)"
        }
        libc::EBUSY => {
            " (another hypervisor uses the processor's virtualisation: end it, VirtualBox and \
             VMware for example, or unload its kernel modules)"
        }
        libc::EINTR => " (signals keep interrupting it: find out who sends them)",
        errno => limits::hint(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_is_asked_for_until_there_is_an_answer() {
        let ask = |errno: i32, times: u32, answer: i32| {
            let mut calls = 0;
            let result = capability(|| {
                calls += 1;
                if calls > times {
                    return answer;
                }
                // SAFETY: the call takes nothing.
                let place = unsafe { libc::__errno_location() };
                // SAFETY: the pointer is to the error number of this thread.
                unsafe { *place = errno };
                -1
            });
            (result.map_err(|error| error.errno()), calls)
        };
        assert_eq!(ask(libc::EINTR, 3, 2), (Ok(2), 4));
        assert_eq!(ask(libc::EINTR, 3, 0), (Ok(0), 4));
        assert_eq!(ask(libc::ENOTTY, 3, 2), (Err(libc::ENOTTY), 1));
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
    fn each_wait_is_a_real_one_until_there_were_enough() {
        let mut retries = Retries(3);
        let began = std::time::Instant::now();
        assert!(retries.again());
        assert!(began.elapsed() >= Duration::from_millis(8));
        let mut retries = Retries(Retries::MAX_RETRIES);
        assert!(!retries.again());
    }

    #[test]
    fn a_shortage_of_processes_and_another_hypervisor_are_named() {
        assert!(hint(Error::new(libc::EAGAIN)).contains("pids.max"));
        assert!(hint(Error::new(libc::EBUSY)).contains("another hypervisor"));
        assert_eq!(hint(Error::new(libc::EINVAL)), "");
    }
}
