//! What the user can do where the host has run out of something, behind the system's words: the
//! limit's name, as far as the error number and the process's own limits tell it (getrlimit(2)).

use std::sync::OnceLock;

/// A number of getrlimit(2), whose type the C libraries do not agree about.
#[cfg(target_env = "gnu")]
type Resource = libc::__rlimit_resource_t;
#[cfg(not(target_env = "gnu"))]
type Resource = libc::c_int;

/// Which of the limits on memory this process is held to.
struct Limited {
    address_space: bool,
    data: bool,
    /// Whether it may start no thread because of its scheduling policy (sched(7)).
    one_thread: bool,
}

static LIMITED: OnceLock<Limited> = OnceLock::new();

/// To be called before the process is confined, which must not ask for its limits any more.
pub(crate) fn remember() {
    limited();
}

fn limited() -> &'static Limited {
    LIMITED.get_or_init(|| Limited {
        address_space: limit(libc::RLIMIT_AS).is_some(),
        data: limit(libc::RLIMIT_DATA).is_some(),
        // Without the flag that has threads begin under the usual policy, which comes with the number.
        // SAFETY: the call takes a number and touches no memory.
        one_thread: unsafe { libc::sched_getscheduler(0) } == libc::SCHED_DEADLINE,
    })
}

/// What to do about an error number that tells of a limit, or of a filter that forbids what is open to
/// everybody; empty for any other.
pub(crate) fn hint(errno: i32) -> &'static str {
    let limited = limited();
    if errno == libc::EAGAIN && limited.one_thread {
        return " (under the policy SCHED_DEADLINE a process may start no thread: start it with chrt -R, \
                which sets reset-on-fork, or under another policy)";
    }
    hint_with(errno, limited.address_space, limited.data)
}

fn hint_with(errno: i32, address_space_is_limited: bool, data_is_limited: bool) -> &'static str {
    match errno {
        libc::EMFILE => " (this process has too many open files: raise ulimit -n)",
        libc::ENFILE => " (the host has too many open files: raise fs.file-max)",
        libc::EAGAIN if address_space_is_limited => {
            " (raise the limit on address space, which is ulimit -v, or the one on processes, which \
             is pids.max of the control group or ulimit -u)"
        }
        libc::EAGAIN if data_is_limited => {
            " (raise the limit on data, which is ulimit -d, or the one on processes, which is \
             pids.max of the control group or ulimit -u)"
        }
        // The C library says so too where a thread's stack cannot be had (pthread_create(3)).
        libc::EAGAIN => {
            " (raise the limit on processes, which is pids.max of the control group or ulimit -u, or free \
             memory on the host if it allows no overcommitting: vm.overcommit_memory)"
        }
        libc::ENOSPC => " (raise the limit: sysctl fs.epoll.max_user_watches)",
        libc::ENOMEM if address_space_is_limited => {
            " (raise the limit on address space: ulimit -v)"
        }
        libc::ENOMEM if data_is_limited => " (raise the limit on data: ulimit -d)",
        libc::ENOMEM => " (the host or the control group is out of memory: see memory.max)",
        libc::EPERM | libc::EACCES | libc::ENOSYS => {
            " (a filter on system calls may forbid it: see the profile of the container or the service)"
        }
        _ => "",
    }
}

/// The limit on a resource that this process is held to; `None` where there is none, or where the
/// surroundings refuse to tell.
pub(crate) fn limit(resource: Resource) -> Option<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: `limit` is valid for writing.
    let asked = unsafe { libc::getrlimit(resource, &raw mut limit) };
    (asked == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_is_told_by_the_limit_that_can_be_the_reason() {
        for (errno, address_space, data, name) in [
            (libc::EMFILE, false, false, "ulimit -n"),
            (libc::ENFILE, false, false, "fs.file-max"),
            (libc::EAGAIN, false, false, "pids.max"),
            (libc::EAGAIN, true, true, "ulimit -v"),
            (libc::EAGAIN, false, true, "ulimit -d"),
            (libc::ENOMEM, false, false, "memory.max"),
            (libc::ENOMEM, true, true, "ulimit -v"),
            (libc::ENOMEM, false, true, "ulimit -d"),
            (libc::EAGAIN, false, false, "vm.overcommit_memory"),
            (libc::EPERM, false, false, "a filter"),
            (libc::ENOSYS, false, false, "a filter"),
        ] {
            let hint = hint_with(errno, address_space, data);
            assert!(hint.contains(name), "{errno}: {hint}");
        }
        assert_eq!(hint_with(libc::EINVAL, true, true), "");
    }
}
