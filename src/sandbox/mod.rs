//! Confines the process once everything is open and before the guest runs.
//!
//! First the whole process: no new privileges, no core dump, and Landlock with nothing allowed but
//! what putting the output in place needs. Then, on each thread, a seccomp filter of its own: the
//! calls that the thread makes while the guest runs, what the C library may call on any thread, and
//! no others. A forbidden call ends the process with one line and SIGSYS, which a shell shows as
//! status 159.

mod advice;
mod any_thread;
mod call;
pub mod calls;
mod filter;
mod landlock;
mod program;
mod support;
mod violation;

use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

pub use advice::{Advice, advise};
pub use any_thread::{ANSWERED, ANY_THREAD, AnyThread};
pub use call::{Call, Calls, Condition, Test};
pub use filter::{Filter, FilterError, any_thread};
pub use support::Support;

use crate::quote::quote_path;
use crate::reason::reason;
use advice::advice;

/// The process could not be confined.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A system call failed.
    #[error(
        "cannot confine the process ({what}): {}; {}",
        reason(source),
        advice().not_confined
    )]
    System {
        /// What was to be done.
        what: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// Landlock refused its rules.
    #[error(
        "cannot confine the process (landlock): {}; {}",
        reason(.0),
        advice().not_confined
    )]
    Landlock(#[from] ::landlock::RulesetError),
    /// A folder where a file is to get its name could not be looked at.
    #[error(
        "cannot look at the folder {}: {}; check its file system (dmesg)",
        quote_path(folder),
        reason(source)
    )]
    Folder {
        /// Its path.
        folder: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A filter could not be made.
    #[error(transparent)]
    Filter(#[from] FilterError),
}

/// Confines the process as a whole: this thread and all that it starts later, which is why this comes
/// before any thread of the run. One that is there already must have a filter by which it opens
/// nothing, as any [`Filter`] is that allows no such calls. `folders` are those where files will get
/// their names.
///
/// # Errors
///
/// Why it could not be done. A kernel without Landlock is no error.
pub fn confine_process(folders: &[BorrowedFd<'_>]) -> Result<(), SandboxError> {
    let prctl = |what, option, value: libc::c_ulong| {
        // SAFETY: these options take a number and touch no memory.
        let result = unsafe { libc::prctl(option, value, 0, 0, 0) };
        if result == 0 {
            Ok(())
        } else {
            let source = io::Error::last_os_error();
            Err(SandboxError::System { what, source })
        }
    };
    prctl("no new privileges", libc::PR_SET_NO_NEW_PRIVS, 1)?;
    // The guest's memory holds the user's data: not for a core file, nor for another process.
    prctl("no core dump", libc::PR_SET_DUMPABLE, 0)?;
    landlock::restrict(folders)?;
    Ok(())
}

/// Has a forbidden call reported, in one line on standard error, before it ends the process. To be
/// called before a thread is started: those that are running may have the signal blocked, and end
/// the process without a line. Without it a forbidden call ends the process just as well.
///
/// # Errors
///
/// Why it could not be done.
pub fn catch_violations() -> Result<(), SandboxError> {
    violation::catch().map_err(|source| SandboxError::System {
        what: "report forbidden calls",
        source,
    })
}

/// The name of the system call with this number (`libc::SYS_*`), as in the manual.
#[must_use]
pub fn call_name(number: i64) -> &'static str {
    call::name(number)
}

/// Does what [`before_a_violation_ends`] has been told, for another sudden end of the process.
pub fn last_act() {
    violation::last_act();
}

/// Has `act` done before a forbidden call ends the process, in the handler of a signal on whatever
/// thread made the call: it may make system calls that are on every thread's list, and nothing
/// else. Only the first one counts.
pub fn before_a_violation_ends(act: fn()) {
    violation::set_last_act(act);
}
