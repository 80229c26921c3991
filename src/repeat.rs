//! The one rule for a call that a signal interrupts (`EINTR`) while a run is prepared or ended, be it
//! of KVM or of a file system: it is made again, since a process that was stopped and continued is no
//! reason to fail. Whoever sends signals without end gets an error after [`MAX_INTERRUPTIONS`] of
//! them.
//!
//! Transfers of a disk are repeated as long as the run goes on, which is
//! [`Cancel`](crate::storage::Cancel)'s to say; what is repeated while the guest runs is said in
//! `machine::repeat`.

use std::io;

use rustix::io::Errno;

/// How often a call in a row may be interrupted before that is an error.
pub(crate) const MAX_INTERRUPTIONS: u32 = 100;

/// An error that can say that a signal interrupted the call.
pub(crate) trait Interruption {
    /// Whether it says that.
    fn is_interruption(&self) -> bool;
}

impl Interruption for io::Error {
    fn is_interruption(&self) -> bool {
        self.kind() == io::ErrorKind::Interrupted
    }
}

impl Interruption for Errno {
    fn is_interruption(&self) -> bool {
        *self == Self::INTR
    }
}

impl Interruption for kvm_ioctls::Error {
    fn is_interruption(&self) -> bool {
        self.errno() == libc::EINTR
    }
}

/// Makes `call` until a signal does not interrupt it, [`MAX_INTERRUPTIONS`] times at the most.
///
/// # Errors
///
/// That of the last call.
pub(crate) fn interrupted<T, E: Interruption>(
    mut call: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    for _ in 1..MAX_INTERRUPTIONS {
        match call() {
            Err(error) if error.is_interruption() => {}
            done => return done,
        }
    }
    call()
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
                Err(kvm_ioctls::Error::new(errno))
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
    fn every_kind_of_error_can_say_that_it_is_an_interruption() {
        let number = libc::EINTR;
        assert!(io::Error::from_raw_os_error(number).is_interruption());
        assert!(Errno::INTR.is_interruption());
        assert!(kvm_ioctls::Error::new(number).is_interruption());
        assert!(!io::Error::from_raw_os_error(libc::EAGAIN).is_interruption());
        assert!(!Errno::AGAIN.is_interruption());
    }
}
