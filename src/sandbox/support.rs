//! What this kernel offers for a sandbox, asked for without confining anything but a thread that is made
//! for that (landlock(7), seccomp(2)).

use std::ptr::null;
use std::thread;

use super::landlock;

/// `LANDLOCK_CREATE_RULESET_VERSION` (landlock_create_ruleset(2)).
const RULESET_VERSION: libc::c_ulong = 1;

/// What there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Support {
    /// The version of Landlock's interface; `None` if the kernel has no Landlock, or it is off.
    pub landlock: Option<u32>,
    /// Whether this process is given it.
    pub gives_landlock: bool,
    /// Whether system calls can be filtered as the sandbox does it: trapped, or answered with an
    /// error.
    pub seccomp: bool,
}

impl Support {
    /// Asks the kernel.
    #[must_use]
    pub fn of_this_kernel() -> Self {
        // SAFETY: with this flag the call takes no attributes, and makes nothing.
        let version = unsafe {
            libc::syscall(
                libc::SYS_landlock_create_ruleset,
                null::<u8>(),
                0_usize,
                RULESET_VERSION,
            )
        };
        let landlock = u32::try_from(version).ok().filter(|version| *version > 0);
        Self {
            landlock,
            gives_landlock: landlock.is_some() && is_given_landlock(),
            seccomp: [libc::SECCOMP_RET_TRAP, libc::SECCOMP_RET_ERRNO]
                .into_iter()
                .all(is_available),
        }
    }
}

/// Tries it, on a thread of its own, which is all that it holds for. Where there can be no thread, that is
/// for others to tell.
fn is_given_landlock() -> bool {
    let thread = thread::Builder::new().stack_size(64 * 1024);
    let tried = thread.spawn(|| landlock::restrict(&[]));
    let tried = tried.ok().and_then(|thread| thread.join().ok());
    !matches!(tried, Some(Ok(landlock::Held::Refused)))
}

/// Whether filters may answer with `action`.
fn is_available(action: u32) -> bool {
    // SAFETY: the call only reads the action.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::c_ulong::from(libc::SECCOMP_GET_ACTION_AVAIL),
            0_usize,
            &raw const action,
        )
    };
    answer == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_that_there_is_none_of_is_not_available() {
        assert!(!is_available(0x1234_0000));
        // Every kernel with filters has this one.
        assert_eq!(
            is_available(libc::SECCOMP_RET_KILL_THREAD),
            is_available(libc::SECCOMP_RET_ERRNO)
        );
    }

    #[test]
    fn what_the_system_says_of_landlock_is_what_is_told() {
        let modules = std::fs::read_to_string("/sys/kernel/security/lsm");
        if let Ok(modules) = modules {
            let on = modules.split(',').any(|module| module.trim() == "landlock");
            assert_eq!(Support::of_this_kernel().landlock.is_some(), on);
        }
    }
}
