//! Filters of system calls (seccomp(2)), made of a thread's [`Calls`] and of what any thread may
//! need.
//!
//! Calls that open or look up a path are answered with "permission denied", and whatever is on no
//! list is trapped.

use seccompiler::{BackendError, BpfProgram};

use super::advice::advice;
use super::any_thread::{ANSWERED, ANY_THREAD};
use super::call::{Call, Calls, Condition};
use super::program::{Rules, assemble};
use crate::reason::reason;

/// A filter could not be made or installed.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// It does not compile.
    #[error("cannot make the seccomp filter: {}; {}", .0, advice().not_confined)]
    Compile(#[from] BackendError),
    /// The kernel refused it.
    #[error(
        "cannot install the seccomp filter: {}; {}",
        reason(.0),
        advice().not_confined
    )]
    Install(#[from] seccompiler::Error),
}

/// A thread's filter, compiled. Compiling takes memory and time, installing takes no memory.
pub struct Filter(BpfProgram);

impl Filter {
    /// Compiles the filter of a thread that makes `calls`, in this process.
    ///
    /// # Errors
    ///
    /// [`FilterError::Compile`], if the list is wrong: the index of an argument is none, or there
    /// are too many calls.
    pub fn new(calls: &Calls) -> Result<Self, FilterError> {
        Ok(Self(assemble(&rules(&any_thread().and(calls)), ANSWERED)?))
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

/// What every filter lets pass, in this process.
#[must_use]
pub fn any_thread() -> Calls {
    let abort = [
        (0, u64::from(std::process::id())),
        (2, libc::SIGABRT as u64),
    ];
    const ANY_ARGUMENTS: &[&[Condition]] = &[&[]];
    let listed = ANY_THREAD.iter().flat_map(|call| {
        let alternatives = match call.alternatives {
            [] => ANY_ARGUMENTS,
            alternatives => alternatives,
        };
        alternatives
            .iter()
            .map(|conditions| Call::new(call.number, conditions))
    });
    listed
        .collect::<Calls>()
        // What the allocator or the runtime finds wrong ends with SIGABRT, and says so.
        .allow_with(libc::SYS_tgkill, &abort)
}

/// The alternatives for each call; none means that any arguments will do.
fn rules(calls: &Calls) -> Rules<'_> {
    let mut rules = Rules::new();
    let is_free = |number| {
        let mut same = calls.iter().filter(|call| call.number() == number);
        same.any(|call| call.conditions().is_empty())
    };
    for call in calls.iter() {
        let alternatives = rules.entry(call.number()).or_default();
        if !is_free(call.number()) {
            alternatives.push(call.conditions());
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::sandbox::calls;

    #[test]
    fn all_lists_compile() {
        let all = calls::main_loop(1, 2, 3)
            .and(&calls::vcpu())
            .and(&calls::watcher())
            .and(&calls::place_file(7, 8))
            .and(&calls::see_attributes(9))
            .and(&calls::finish_device())
            .and(&calls::find_holes())
            .and(&calls::read_socket(10))
            .and(&calls::restore_terminal(0))
            .and(&calls::read_file())
            .and(&calls::write_file());
        Filter::new(&all).unwrap();
        Filter::new(&Calls::new()).unwrap();
    }

    #[test]
    fn a_call_with_any_arguments_needs_no_alternatives() {
        let pinned = Calls::new().allow_with(libc::SYS_dup, &[(0, 1)]);
        let free = Calls::new().allow(libc::SYS_dup);
        let alternatives = |calls: &Calls| rules(calls)[&libc::SYS_dup].len();
        assert_eq!(alternatives(&pinned), 1);
        assert_eq!(alternatives(&pinned.clone().and(&pinned)), 2);
        assert_eq!(alternatives(&pinned.clone().and(&free)), 0);
        assert_eq!(alternatives(&free.and(&pinned)), 0);
    }

    #[test]
    fn an_argument_that_no_call_has_is_an_error() {
        let calls = Calls::new().allow_with(libc::SYS_dup, &[(6, 1)]);
        let result = Filter::new(&calls);
        assert!(matches!(result, Err(FilterError::Compile(_))));
    }
}
