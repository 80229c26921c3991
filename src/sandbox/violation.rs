//! A forbidden system call: one line on standard error, and the end by SIGSYS, which a shell shows
//! as status 159.
//!
//! The handler runs wherever the call was made, within the allocator for one: it takes no lock, no
//! memory but a little of the stack, and makes system calls that every thread may make.

use std::ffi::{c_int, c_void};
use std::io;
use std::ptr::null_mut;
use std::sync::OnceLock;

use super::advice::advice;
use super::call::name;
use super::program::OWN_TRAP;
use crate::signal_mask;
use crate::stack_line::StackLine;

/// `SYS_SECCOMP` (sigaction(2)): the signal comes from a filter.
const FROM_A_FILTER: c_int = 1;
/// About a call that another filter traps, which the process was started in.
const AROUND: &[u8] =
    b"), which a filter around the process forbids, as that of a container or a service: \
                        allow it there";

/// What is to be done before the process ends.
static LAST_ACT: OnceLock<fn()> = OnceLock::new();

/// Has `act` done before a forbidden call ends the process. Only the first one counts.
pub(super) fn set_last_act(act: fn()) {
    let _ = LAST_ACT.set(act);
}

/// Has forbidden calls of all threads reported, and lets this thread, and those that it starts
/// later, receive the signal for it, whatever the process has inherited.
///
/// # Errors
///
/// The system's reason.
pub(super) fn catch() -> io::Result<()> {
    // SAFETY: a `sigaction` is plain data, for which all zeros are valid: no flags, no mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = report;
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the action is valid, and its handler does only what is safe in one.
    if unsafe { libc::sigaction(libc::SIGSYS, &raw const action, null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    signal_mask::unblock(&[libc::SIGSYS])
}

/// The beginning of `siginfo_t` for SIGSYS, whose fields the `libc` crate does not have.
#[repr(C)]
struct SigsysInfo {
    signal: c_int,
    /// The data of the filter's answer.
    error: c_int,
    code: c_int,
    _padding: c_int,
    call_address: *mut c_void,
    call_number: c_int,
}

extern "C" fn report(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel hands over a valid structure of this layout (sigaction(2)).
    let info = unsafe { &*info.cast::<SigsysInfo>() };
    // Somebody may also have sent the signal by hand, which is nobody's fault.
    if info.code == FROM_A_FILTER {
        let mut line = StackLine::new();
        line.add(b"vmm: the thread ");
        line.add_thread_name();
        line.add(b" made the system call ");
        line.add(name(info.call_number.into()).as_bytes());
        line.add(b" (");
        line.add_number(info.call_number.cast_unsigned().into());
        if info.error == c_int::from(OWN_TRAP) {
            line.add(b"), which the sandbox forbids; ");
            line.add(advice().forbidden_call.as_bytes());
        } else {
            line.add(AROUND);
        }
        line.add(b"\n");
        line.write();
    }
    last_act();
    end();
}

/// Does what is to be done before the process ends.
pub(super) fn last_act() {
    if let Some(act) = LAST_ACT.get() {
        act();
    }
}

/// Ends the process by this signal, which is blocked while its handler runs. A confined thread may
/// not change what a signal does: the kernel ends the process at the first of these calls. On any
/// other thread they do what they say once the handler has returned.
fn end() {
    // SAFETY: the default action runs no code.
    unsafe { libc::signal(libc::SIGSYS, libc::SIG_DFL) };
    // SAFETY: sends a signal to this thread.
    unsafe { libc::raise(libc::SIGSYS) };
}
