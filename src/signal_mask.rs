//! Which signals a thread receives (pthread_sigmask(3)).

use std::ffi::c_int;
use std::io;

use libc::sigset_t;
use vmm_sys_util::signal::create_sigset;

/// The set of `signals`.
///
/// # Errors
///
/// One of them is no signal.
pub(crate) fn set_of(signals: &[c_int]) -> io::Result<sigset_t> {
    Ok(create_sigset(signals)?)
}

/// Changes which signals are blocked in this thread, and returns which were.
///
/// # Errors
///
/// The system's reason.
pub(crate) fn change(how: c_int, set: &sigset_t) -> io::Result<sigset_t> {
    let mut before = set_of(&[])?;
    // SAFETY: `set` is valid, and `before` is valid for writing.
    match unsafe { libc::pthread_sigmask(how, set, &raw mut before) } {
        0 => Ok(before),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Blocks `signals` in this thread, and returns which were blocked before.
///
/// # Errors
///
/// The system's reason.
pub(crate) fn block(signals: &[c_int]) -> io::Result<sigset_t> {
    change(libc::SIG_BLOCK, &set_of(signals)?)
}

/// Lets this thread receive `signals`: whoever started the process may have blocked them.
///
/// # Errors
///
/// The system's reason.
pub(crate) fn unblock(signals: &[c_int]) -> io::Result<()> {
    change(libc::SIG_UNBLOCK, &set_of(signals)?).map(drop)
}
