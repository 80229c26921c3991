//! How a run can fail, and the exit status that tells the kinds apart.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::exit_status;
use crate::limits;
use crate::machine::{KvmError, LoadError, MachineError};
use crate::quote::quote_path;
use crate::reason::reason;
use crate::sandbox::{FilterError, SandboxError};

/// Why a run has no good end. Each message is one line.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The guest that the user gave cannot be read or loaded.
    #[error("cannot use {} as the guest: {source}", quote_path(path))]
    Load {
        /// Its file.
        path: PathBuf,
        /// Why not.
        source: LoadError,
    },
    /// KVM cannot be used.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// The machine cannot be built.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The process cannot be confined.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// What the operation works on failed: a file, a disk.
    #[error("{0}")]
    Storage(Box<dyn std::error::Error + Send + Sync>),
    /// A system call of the VMM's own failed.
    #[error("cannot {what}: {}{}", reason(source), hint(source))]
    Host {
        /// What was to be done.
        what: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// A limit on the memory of the process is too low.
    #[error(
        "{what} may only have {limit} KiB, and a run needs {needed}; raise the limit: ulimit \
         -{option} {needed}"
    )]
    Limited {
        /// What is limited.
        what: &'static str,
        /// To how much, in units of 1024 bytes.
        limit: u64,
        /// How much is needed, in units of 1024 bytes.
        needed: u64,
        /// The option of the shell's command for limits.
        option: char,
    },
    /// A thread of the VMM panicked.
    #[error("fault of vmm: {0}; please report it")]
    Died(String),
    /// The guest did not do what it was to do.
    #[error("{0}")]
    Guest(String),
    /// The image that was to be used is not safe to use.
    #[error("{0}")]
    Refused(String),
    /// The image that was to be used contradicts itself.
    #[error("{0}")]
    Broken(String),
    /// The time limit was reached.
    #[error("the run was not over within the time limit of {} s; it was ended", .0.as_secs_f64())]
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
    pub fn host(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Host { what, source }
    }

    /// The exit status of the process.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Guest(_) => exit_status::GUEST,
            Self::Refused(_) => exit_status::REFUSED,
            Self::Broken(_) => exit_status::BROKEN,
            Self::Storage(_)
            | Self::Kvm(_)
            | Self::Machine(_)
            | Self::Load { .. }
            | Self::Sandbox(_)
            | Self::Died(_)
            | Self::Limited { .. }
            | Self::Host { .. } => exit_status::HOST,
            Self::TimedOut(_) => exit_status::TIMEOUT,
            Self::Signal(number) => exit_status::SIGNAL + number,
        }
    }
}

fn hint(error: &io::Error) -> &'static str {
    error.raw_os_error().map_or("", limits::hint)
}

fn signal_name(number: u8) -> &'static str {
    match i32::from(number) {
        libc::SIGINT => "SIGINT",
        libc::SIGTERM => "SIGTERM",
        libc::SIGHUP => "SIGHUP",
        _ => "a signal",
    }
}
