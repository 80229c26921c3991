//! What the C library, its allocator and the standard library may call on any thread, with the
//! reason for each call. No program decides when its allocator asks for memory or what that takes,
//! so that these calls are on every thread's list.
//!
//! None of them opens anything, reaches another process or makes memory executable.

use super::call::{Condition, Test};

/// A call that any thread may make.
#[derive(Clone, Copy, Debug)]
pub struct AnyThread {
    /// Its number on this architecture.
    pub number: i64,
    /// What its arguments must be: one of these, each as a whole. None means that any will do.
    pub alternatives: &'static [&'static [Condition]],
    /// Who makes it, and what for.
    pub reason: &'static str,
}

const fn any(number: i64, reason: &'static str) -> AnyThread {
    with(number, &[], reason)
}

const fn with(
    number: i64,
    alternatives: &'static [&'static [Condition]],
    reason: &'static str,
) -> AnyThread {
    AnyThread {
        number,
        alternatives,
        reason,
    }
}

const fn equals(argument: u8, value: libc::c_int) -> Condition {
    Condition::new(argument, Test::Equals(value.cast_unsigned()))
}

const fn has_all(argument: u8, bits: libc::c_int) -> Condition {
    Condition::new(argument, Test::HasAll(bits.cast_unsigned()))
}

const fn has_none(argument: u8, bits: libc::c_int) -> Condition {
    Condition::new(argument, Test::HasNone(bits.cast_unsigned()))
}

/// A request of `ioctl`, which is an `int` in one C library and an `unsigned long` in the other.
const fn request(number: u32) -> Condition {
    Condition::new(1, Test::Equals(number))
}

/// Requests that ask whether a descriptor is a terminal, and how large it is. TCGETS2 is what
/// glibc has asked since 2.42 (asm-generic/ioctls.h).
const TCGETS: u32 = 0x5401;
const TCGETS2: u32 = 0x802c_542a;
const TIOCGWINSZ: u32 = 0x5413;

/// Kinds of advice that the `libc` crate does not have on every C library (madvise(2)).
const MADV_COLLAPSE: libc::c_int = 25;
const MADV_GUARD_INSTALL: libc::c_int = 102;
const MADV_GUARD_REMOVE: libc::c_int = 103;

/// `PR_SET_VMA` (prctl(2)), whose only use is to name a part of memory.
const PR_SET_VMA: libc::c_int = 0x5356_4d41;

/// The list.
pub const ANY_THREAD: &[AnyThread] = &[
    // Locks, and waiting for another thread.
    any(
        libc::SYS_futex,
        "locks, condition variables, joining a thread",
    ),
    any(
        libc::SYS_sched_yield,
        "allocators that spin for a lock give way",
    ),
    any(
        libc::SYS_nanosleep,
        "allocators that spin for a lock sleep in between",
    ),
    any(libc::SYS_clock_nanosleep, "the same, in newer C libraries"),
    // The heap, and the stacks of threads that end.
    any(
        libc::SYS_brk,
        "the heap of the first thread grows and shrinks",
    ),
    with(
        libc::SYS_mmap,
        &[&[
            has_none(2, libc::PROT_EXEC),
            has_all(3, libc::MAP_ANONYMOUS),
        ]],
        "the heap grows; memory that can be executed, or a file's, is nothing it needs",
    ),
    with(
        libc::SYS_mprotect,
        &[&[has_none(2, libc::PROT_EXEC)]],
        "the heap of another thread grows into what was reserved for it",
    ),
    any(
        libc::SYS_munmap,
        "the heap shrinks; the stack of a joined thread goes",
    ),
    any(libc::SYS_mremap, "a large allocation changes its size"),
    with(
        libc::SYS_madvise,
        &[
            &[equals(2, libc::MADV_DONTNEED)],
            &[equals(2, libc::MADV_FREE)],
            &[equals(2, libc::MADV_HUGEPAGE)],
            &[equals(2, libc::MADV_NOHUGEPAGE)],
            &[equals(2, libc::MADV_DONTDUMP)],
            &[equals(2, libc::MADV_DODUMP)],
            &[equals(2, MADV_COLLAPSE)],
            &[equals(2, MADV_GUARD_INSTALL)],
            &[equals(2, MADV_GUARD_REMOVE)],
        ],
        "allocators give memory back, and the stack of a thread that ends; never to share pages \
         with other processes",
    ),
    with(
        libc::SYS_prctl,
        &[&[equals(0, PR_SET_VMA)], &[equals(0, libc::PR_GET_NAME)]],
        "allocators name their memory; the line about a forbidden call names its thread",
    ),
    // Reading, writing and closing what is open.
    any(
        libc::SYS_read,
        "events are taken, and files of any kind read",
    ),
    any(libc::SYS_write, "events are sent, lines written"),
    any(libc::SYS_readv, "musl reads its streams with it"),
    any(
        libc::SYS_writev,
        "musl writes its streams with it, and so does the standard library",
    ),
    any(
        libc::SYS_lseek,
        "musl's streams find out where they are, and devices are asked for their size",
    ),
    any(
        libc::SYS_fstat,
        "C libraries look what kind of file a stream is",
    ),
    any(libc::SYS_close, "what a thread owns is closed when it ends"),
    with(
        libc::SYS_fcntl,
        &[&[equals(1, libc::F_GETFD)], &[equals(1, libc::F_GETFL)]],
        "the standard library looks whether a descriptor is open before it closes it, and C \
         libraries how it was opened",
    ),
    with(
        libc::SYS_ioctl,
        &[
            &[request(TCGETS)],
            &[request(TCGETS2)],
            &[request(TIOCGWINSZ)],
        ],
        "whether a stream is a terminal, and how wide it is",
    ),
    any(
        libc::SYS_poll,
        "whether there is room, or something to read",
    ),
    any(libc::SYS_ppoll, "the same, with a time limit and a mask"),
    // Signals.
    any(
        libc::SYS_rt_sigprocmask,
        "starting and ending threads, abort(3)",
    ),
    any(libc::SYS_rt_sigreturn, "a signal's handler returns"),
    any(
        libc::SYS_restart_syscall,
        "the kernel repeats what a stop has interrupted",
    ),
    any(
        libc::SYS_sigaltstack,
        "the standard library gives a thread's signal stack back",
    ),
    with(
        libc::SYS_rt_sigaction,
        &[
            &[equals(0, libc::SIGSEGV)],
            &[equals(0, libc::SIGBUS)],
            &[equals(0, libc::SIGABRT)],
        ],
        "the standard library's handler and abort(3) set them back, so that a crash is seen as one",
    ),
    // Time, chance, and who one is.
    any(
        libc::SYS_clock_gettime,
        "the time, where the host's clock takes a system call",
    ),
    any(libc::SYS_gettimeofday, "the same"),
    any(libc::SYS_getrandom, "keys of hash tables, and of the heap"),
    any(
        libc::SYS_getpid,
        "abort(3), and a signal to a thread of this process",
    ),
    any(
        libc::SYS_gettid,
        "abort(3), and locks that know their owner",
    ),
    any(
        libc::SYS_sched_getaffinity,
        "how many parts the heap is to have",
    ),
    any(
        libc::SYS_getcpu,
        "which part of the heap is this processor's",
    ),
    // Ends.
    any(
        libc::SYS_rseq,
        "allocators that keep a heap for each processor",
    ),
    any(
        libc::SYS_set_robust_list,
        "musl ends a thread that nobody joins",
    ),
    any(libc::SYS_exit, "a thread ends"),
    any(libc::SYS_exit_group, "the process ends"),
];

/// Calls that are answered with "permission denied" on every thread: they open or look up a path,
/// which the C library tries and can do without (`/proc/sys/vm/overcommit_memory` before the heap
/// shrinks, the program's own file for a backtrace).
pub const ANSWERED: &[i64] = &[
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_creat,
    libc::SYS_access,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_getcwd,
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_call_is_listed_once_and_has_a_reason() {
        let listed = ANY_THREAD.iter().map(|call| call.number);
        let numbers: Vec<i64> = listed.chain(ANSWERED.iter().copied()).collect();
        let unique: HashSet<_> = numbers.iter().collect();
        assert_eq!(unique.len(), numbers.len());
        assert!(ANY_THREAD.iter().all(|call| call.reason.len() > 3));
    }
}
