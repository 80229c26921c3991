//! How a run can fail, and the exit status that tells the kinds apart.

use std::io;
use std::time::Duration;

use crate::files::FileError;
use crate::machine::{KvmError, LoadError, MachineError, MemoryError};
use crate::sandbox::{FilterError, SandboxError};

/// Exit status for a wrong command line.
pub const EXIT_USAGE: u8 = 2;
const EXIT_HOST: u8 = 3;
const EXIT_GUEST: u8 = 4;
/// As timeout(1) has it.
const EXIT_TIMEOUT: u8 = 124;
/// As shells have it: 128 and the signal's number.
const EXIT_SIGNAL: u8 = 128;

/// Why there is no copy. Each message is one line.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A file cannot be used, read, written or put in place.
    #[error(transparent)]
    File(#[from] FileError),
    /// The guest that the user gave cannot be read or loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// KVM cannot be used.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// The machine cannot be built.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// There is no memory for it.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The process cannot be confined.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A file could not be read or written while the guest copied.
    #[error("{0}")]
    Disk(String),
    /// A system call of the VMM's own failed.
    #[error("cannot {what}: {source}")]
    Host {
        /// What was to be done.
        what: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The guest did not do what it was to do.
    #[error("the copy failed: {0}")]
    Guest(String),
    /// The time limit was reached.
    #[error("the copy was not complete within the time limit of {} s; it was ended", .0.as_secs_f64())]
    TimedOut(Duration),
    /// A signal ended the run.
    #[error("ended by {}", signal_name(*.0))]
    Signal(u8),
}

impl From<FilterError> for RunError {
    fn from(error: FilterError) -> Self {
        Self::Sandbox(error.into())
    }
}

impl RunError {
    /// What failed on the host's side.
    pub(crate) fn host(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Host { what, source }
    }

    /// The exit status of the process.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            // All writes have gone well, but the guest has not made all of them.
            Self::Guest(_) | Self::File(FileError::Incomplete { .. }) => EXIT_GUEST,
            Self::File(_)
            | Self::Kvm(_)
            | Self::Machine(_)
            | Self::Memory(_)
            | Self::Load(_)
            | Self::Disk(_)
            | Self::Sandbox(_)
            | Self::Host { .. } => EXIT_HOST,
            Self::TimedOut(_) => EXIT_TIMEOUT,
            Self::Signal(number) => EXIT_SIGNAL + number,
        }
    }
}

fn signal_name(number: u8) -> &'static str {
    match i32::from(number) {
        libc::SIGINT => "SIGINT",
        libc::SIGTERM => "SIGTERM",
        libc::SIGHUP => "SIGHUP",
        _ => "a signal",
    }
}
