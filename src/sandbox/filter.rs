//! Filters of system calls (seccomp(2)), made of a thread's [`Calls`] and of what any thread may
//! need.
//!
//! Each thread gets two, of which the kernel takes the stricter answer: one lets everything pass
//! but what opens or looks up a path, which it answers with "permission denied"; the other traps
//! whatever is on no list.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use super::any_thread::{ANSWERED, ANY_THREAD};
use super::call::{Call, Calls, Condition, Test};

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

/// A thread's filters, compiled. Compiling takes memory and time, installing takes neither.
pub struct Filter {
    answered: BpfProgram,
    listed: BpfProgram,
}

impl Filter {
    /// Compiles the filters of a thread that makes `calls`, in this process.
    ///
    /// # Errors
    ///
    /// [`FilterError::Compile`], if the list is wrong: the index of an argument is none, or there
    /// are too many calls.
    pub fn new(calls: &Calls) -> Result<Self, FilterError> {
        let listed = rules(&any_thread().and(calls))?;
        let answered = ANSWERED.iter().map(|&number| (number, Vec::new()));
        let errno = SeccompAction::Errno(libc::EACCES.cast_unsigned());
        Ok(Self {
            answered: compile(answered.collect(), SeccompAction::Allow, errno)?,
            listed: compile(listed, SeccompAction::Trap, SeccompAction::Allow)?,
        })
    }

    /// Confines this thread, for good.
    ///
    /// # Errors
    ///
    /// [`FilterError::Install`], if the kernel refuses.
    pub fn install(&self) -> Result<(), FilterError> {
        // In this order, since the second one forbids to install another.
        seccompiler::apply_filter(&self.answered)?;
        seccompiler::apply_filter(&self.listed)?;
        Ok(())
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
    // The other filter answers them.
    let answered = ANSWERED.iter().map(|&number| Call::new(number, &[]));
    listed
        .chain(answered)
        .collect::<Calls>()
        // What the allocator or the runtime finds wrong ends with SIGABRT, and says so.
        .allow_with(libc::SYS_tgkill, &abort)
}

fn compile(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matching: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    SeccompFilter::new(rules, otherwise, matching, TargetArch::x86_64)?.try_into()
}

/// The alternatives for each call; none means that any arguments will do.
fn rules(calls: &Calls) -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    let mut rules = BTreeMap::<i64, Option<Vec<SeccompRule>>>::new();
    for call in calls.iter() {
        let alternatives = rules.entry(call.number()).or_insert(Some(Vec::new()));
        if call.conditions().is_empty() {
            *alternatives = None;
        } else if let Some(alternatives) = alternatives {
            let conditions = call.conditions().iter().map(condition);
            alternatives.push(SeccompRule::new(conditions.collect::<Result<_, _>>()?)?);
        }
    }
    let known = |(number, alternatives): (_, Option<_>)| (number, alternatives.unwrap_or_default());
    Ok(rules.into_iter().map(known).collect())
}

fn condition(condition: &Condition) -> Result<SeccompCondition, BackendError> {
    let (operator, value) = match condition.test {
        Test::Equals(number) => (SeccompCmpOp::Eq, number),
        Test::HasAll(bits) => (SeccompCmpOp::MaskedEq(bits.into()), bits),
        Test::HasNone(bits) => (SeccompCmpOp::MaskedEq(bits.into()), 0),
    };
    let length = SeccompCmpArgLen::Dword;
    SeccompCondition::new(condition.argument, length, operator, value.into())
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
            .and(&calls::place_file(7))
            .and(&calls::read_file())
            .and(&calls::write_file());
        Filter::new(&all).unwrap();
        Filter::new(&Calls::new()).unwrap();
    }

    #[test]
    fn a_call_with_any_arguments_needs_no_alternatives() {
        let pinned = Calls::new().allow_with(libc::SYS_dup, &[(0, 1)]);
        let free = Calls::new().allow(libc::SYS_dup);
        let alternatives = |calls: &Calls| rules(calls).unwrap()[&libc::SYS_dup].len();
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
