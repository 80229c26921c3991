//! The system calls that each thread may make while the guest runs (seccomp(2)): the only place
//! where they are listed.
//!
//! A rule is a call and, where it matters, what its arguments must be: the request number of an
//! `ioctl`, no executable memory for `mmap` and `mprotect`.

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
}

/// One allowed call.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Its name, as in the manual.
    pub name: &'static str,
    number: i64,
    arguments: Arguments,
}

const fn any(name: &'static str, number: i64) -> Rule {
    with(name, number, Arguments::Any)
}

const fn with(name: &'static str, number: i64, arguments: Arguments) -> Rule {
    Rule {
        name,
        number,
        arguments,
    }
}

/// What every thread needs: to wait for a lock, to use its heap, and to end.
const COMMON: [Rule; 8] = [
    any("futex", libc::SYS_futex),
    any("read", libc::SYS_read),
    any("write", libc::SYS_write),
    with("mmap", libc::SYS_mmap, Arguments::NotExecutable),
    with("mprotect", libc::SYS_mprotect, Arguments::NotExecutable),
    any("munmap", libc::SYS_munmap),
    any("rt_sigprocmask", libc::SYS_rt_sigprocmask),
    any("sigaltstack", libc::SYS_sigaltstack),
];

/// What it takes to close a descriptor. With debug assertions the standard library first looks
/// whether it is open. The vCPU's thread closes none.
const CLOSE: &[Rule] = &[
    any("close", libc::SYS_close),
    #[cfg(debug_assertions)]
    with(
        "fcntl",
        libc::SYS_fcntl,
        Arguments::Request(&[libc::F_GETFD as u64]),
    ),
];

/// What ends a thread that is not the first.
const THREAD_END: [Rule; 2] = [
    any("madvise", libc::SYS_madvise),
    any("exit", libc::SYS_exit),
];

const VCPU: [Rule; 4] = [
    with(
        "ioctl",
        libc::SYS_ioctl,
        Arguments::Request(&[KVM_RUN, KVM_GET_REGS, KVM_GET_SREGS]),
    ),
    any("ppoll", libc::SYS_ppoll),
    any("preadv", libc::SYS_preadv),
    any("rt_sigreturn", libc::SYS_rt_sigreturn),
];

const INPUT: [Rule; 2] = [
    any("epoll_wait", libc::SYS_epoll_wait),
    any("preadv", libc::SYS_preadv),
];

const OUTPUT: [Rule; 4] = [
    any("epoll_wait", libc::SYS_epoll_wait),
    any("preadv", libc::SYS_preadv),
    any("pwritev", libc::SYS_pwritev),
    any("fdatasync", libc::SYS_fdatasync),
];

const MAIN: [Rule; 16] = [
    any("epoll_wait", libc::SYS_epoll_wait),
    any("epoll_ctl", libc::SYS_epoll_ctl),
    any("ppoll", libc::SYS_ppoll),
    // Standard output or standard error may be a socket.
    any("sendto", libc::SYS_sendto),
    any("tgkill", libc::SYS_tgkill),
    any("getpid", libc::SYS_getpid),
    any("getrusage", libc::SYS_getrusage),
    any("fstat", libc::SYS_fstat),
    with(
        "ioctl",
        libc::SYS_ioctl,
        Arguments::Request(&[libc::TIOCGWINSZ, libc::TCGETS]),
    ),
    any("linkat", libc::SYS_linkat),
    any("renameat", libc::SYS_renameat),
    any("unlinkat", libc::SYS_unlinkat),
    any("fsync", libc::SYS_fsync),
    any("brk", libc::SYS_brk),
    any("clock_gettime", libc::SYS_clock_gettime),
    any("exit_group", libc::SYS_exit_group),
];

/// What the thread in `role` may do.
pub fn rules(role: Role) -> impl Iterator<Item = &'static Rule> {
    let (own, close, end): (&[Rule], &[Rule], &[Rule]) = match role {
        Role::Main => (&MAIN, CLOSE, &[]),
        Role::Vcpu => (&VCPU, &[], &THREAD_END),
        Role::Input => (&INPUT, CLOSE, &THREAD_END),
        Role::Output => (&OUTPUT, CLOSE, &THREAD_END),
    };
    COMMON.iter().chain(own).chain(close).chain(end)
}

/// A compiled filter. Compiling takes memory and time, installing takes neither.
pub struct Filter(BpfProgram);

impl Filter {
    /// Compiles the rules for `role`.
    ///
    /// # Errors
    ///
    /// [`FilterError::Compile`], if the rules are wrong.
    pub fn new(role: Role) -> Result<Self, FilterError> {
        let rules = rules(role)
            .map(|rule| Ok((rule.number, conditions(rule.arguments)?)))
            .collect::<Result<_, BackendError>>()?;
        let filter = SeccompFilter::new(
            rules,
            SeccompAction::KillProcess,
            SeccompAction::Allow,
            TargetArch::x86_64,
        )?;
        Ok(Self(filter.try_into()?))
    }

    /// Confines this thread, for good.
    ///
    /// # Errors
    ///
    /// [`FilterError::Install`], if the kernel refuses.
    pub fn install(&self) -> Result<(), FilterError> {
        Ok(seccompiler::apply_filter(&self.0)?)
    }
}

/// The alternatives for a call's arguments, none of which means that any will do.
fn conditions(arguments: Arguments) -> Result<Vec<SeccompRule>, BackendError> {
    let one = |index, length, operator, value| {
        SeccompRule::new(vec![SeccompCondition::new(index, length, operator, value)?])
    };
    match arguments {
        Arguments::Any => Ok(Vec::new()),
        Arguments::Request(requests) => requests
            .iter()
            // The kernel looks at 32 bits of it.
            .map(|&request| one(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, request))
            .collect(),
        Arguments::NotExecutable => {
            let executable = SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64);
            Ok(vec![one(2, SeccompCmpArgLen::Dword, executable, 0)?])
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_lists_are_short_and_name_each_call_once() {
        for role in Role::ALL {
            let names: Vec<_> = rules(role).map(|rule| rule.name).collect();
            let limit = if role == Role::Vcpu { 15 } else { 25 };
            assert!(names.len() <= limit, "{role:?}: {}", names.len());
            let unique: HashSet<_> = names.iter().collect();
            assert_eq!(unique.len(), names.len(), "{role:?}");
            Filter::new(role).unwrap();
        }
    }
}
