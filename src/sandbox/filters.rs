//! The system calls that each thread may make while the guest runs (seccomp(2)): the only place
//! where they are listed.
//!
//! A rule is a call and, where it matters, what its arguments must be: the request number of an
//! `ioctl`, no executable memory for `mmap` and `mprotect`.

use std::io;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

/// `_IO(KVMIO, 0x80)` (KVM API, section 4.10): the one call that the vCPU's thread makes of KVM
/// while the guest runs.
const KVM_RUN: u64 = 0xae80;
/// Reading the registers of a guest that has faulted (KVM API, sections 4.11 and 4.13).
const KVM_GET_REGS: u64 = 0x8090_ae81;
const KVM_GET_SREGS: u64 = 0x8138_ae83;

/// A thread, by what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The main loop, which also puts the output in place.
    Main,
    /// The thread that runs the guest.
    Vcpu,
    /// The thread of the input disk.
    Input,
    /// The thread of the output disk.
    Output,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Main, Self::Vcpu, Self::Input, Self::Output];
}

/// A filter could not be made or installed.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// It does not compile.
    #[error("cannot make the seccomp filter: {0}; --no-sandbox runs without")]
    Compile(#[from] BackendError),
    /// The kernel refused it.
    #[error("cannot install the seccomp filter: {0}; --no-sandbox runs without")]
    Install(#[from] seccompiler::Error),
}

/// What a call's arguments must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arguments {
    Any,
    /// The second is one of these.
    Request(&'static [u64]),
    /// The third has no `PROT_EXEC`.
    NotExecutable,
    /// The first is this.
    First(u64),
}

/// One allowed call.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Its name, as in the manual.
    pub name: &'static str,
    number: i64,
    arguments: Arguments,
}

macro_rules! rule {
    ($name:ident) => {
        rule!($name, Arguments::Any)
    };
    ($name:ident, $arguments:expr) => {
        Rule {
            name: stringify!($name),
            number: pastey::paste!(libc::[<SYS_ $name>]),
            arguments: $arguments,
        }
    };
}
