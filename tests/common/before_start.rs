//! What the VMM finds when it begins: limits, filters, streams, signals and a session.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

use super::Vmm;

/// Every signal that a program may block.
pub(crate) fn all_signals() -> Vec<i32> {
    (1..=64).collect()
}

impl Vmm {
    /// With a limit on the size of any file that it writes, in bytes.
    pub(crate) fn with_file_size_limit(self, bytes: u64) -> Self {
        self.with_limit(Resource::Fsize, bytes)
    }

    /// With a limit on the memory of its own that it may have, in bytes.
    pub(crate) fn with_memory_limit(self, bytes: u64) -> Self {
        self.with_limit(Resource::Data, bytes)
    }

    /// With a limit on a resource (getrlimit(2)).
    pub(crate) fn with_limit(self, resource: Resource, most: u64) -> Self {
        self.with_limits(resource, most, most)
    }

    /// With a soft limit on a resource and a hard one.
    pub(crate) fn with_limits(self, resource: Resource, soft: u64, hard: u64) -> Self {
        let (current, maximum) = (Some(soft), Some(hard));
        let limit = move || setrlimit(resource, Rlimit { current, maximum });
        self.before_start(move || limit().map_err(io::Error::from))
    }

    /// Where `calls` fail with `errno`, as in a container.
    pub(crate) fn refused(self, calls: &[i64], errno: i32) -> Self {
        self.answered(calls, SeccompAction::Errno(errno.cast_unsigned()))
    }

    /// With a filter around it that gives this answer to `calls`.
    pub(crate) fn answered(self, calls: &[i64], answer: SeccompAction) -> Self {
        let rules = calls.iter().map(|&call| (call, Vec::new())).collect();
        let (others, target) = (SeccompAction::Allow, TargetArch::x86_64);
        let filter = SeccompFilter::new(rules, others, answer, target);
        let filter = filter.and_then(BpfProgram::try_from).unwrap();
        self.before_start(move || seccompiler::apply_filter(&filter).map_err(io::Error::other))
    }

    /// Without one of the standard streams, by its number.
    pub(crate) fn closed(self, stream: i32) -> Self {
        self.before_start(move || {
            // SAFETY: nothing in the process uses the descriptor.
            unsafe { libc::close(stream) };
            Ok(())
        })
    }

    /// With these signals ignored, as nohup(1) has it.
    pub(crate) fn ignoring(self, signals: &[i32]) -> Self {
        let signals = signals.to_vec();
        self.before_start(move || {
            for &signal in &signals {
                // SAFETY: ignoring a signal installs no code.
                unsafe { libc::signal(signal, libc::SIG_IGN) };
            }
            Ok(())
        })
    }

    /// With these signals blocked, as the parent of a process may have done.
    pub(crate) fn blocking(self, signals: &[i32]) -> Self {
        // SAFETY: a set is plain data, for which all zeros are valid.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        for &signal in signals {
            // SAFETY: the set is valid.
            unsafe { libc::sigaddset(&raw mut set, signal) };
        }
        self.before_start(move || {
            // SAFETY: the set is valid and the old one is not wanted.
            unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
            Ok(())
        })
    }

    /// In a session of its own, with what is its standard input as the session's terminal.
    pub(crate) fn in_session(self) -> Self {
        self.before_start(|| {
            // SAFETY: the call takes nothing.
            if unsafe { libc::setsid() } < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: the request takes a number.
            match unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        })
    }
}
