//! Starts that fail half-way: whatever the surroundings refuse, and at whatever moment, the run ends
//! at once with status 3, one line that says why, and an output as it was; or it does without, and
//! copies.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::strace::{injected, with_fault};
use common::{Files, Finished, Vmm, leave_out, needs_kvm, needs_strace, skip, test};
use rustix::process::Resource;
use rustix::thread::sched_getaffinity;
use vmm::sandbox::Support;

fn main() -> std::process::ExitCode {
    common::harness::main()
}

const HOST_FAILED: i32 = 3;
const OLD: &[u8] = b"what was there before";
/// So long a start may take that fails, on a host that has much to do.
const SOON: Duration = Duration::from_secs(10);

fn files() -> Files {
    Files::random(100_000).with_old_output(OLD)
}

/// Has `run` copy `files`, and fails unless it copies, or fails as it should. Returns whether it
/// copied.
#[track_caller]
fn copies_or_fails(what: &str, files: &Files, run: impl FnOnce() -> Finished) -> bool {
    let begun = Instant::now();
    let finished = run();
    let taken = begun.elapsed();
    assert!(taken < SOON, "{what}: it took {taken:?}: {finished:?}");
    if finished.code() == Some(0) {
        files.assert_copied();
        return true;
    }
    assert_refused(what, &finished);
    files.assert_untouched();
    false
}

#[track_caller]
fn assert_refused(what: &str, finished: &Finished) {
    assert_eq!(finished.code(), Some(HOST_FAILED), "{what}: {finished:?}");
    let lines: Vec<_> = finished.stderr.lines().collect();
    let one_line = lines.len() == 1 && lines[0].starts_with("vmm: ");
    assert!(one_line, "{what}: {finished:?}");
}

#[test]
fn every_limit_on_open_files_ends_a_start_with_a_reason_or_is_enough() {
    needs_kvm!();
    let mut enough = 0;
    for open in 4..48 {
        let files = files();
        let run = || files.vmm().with_limit(Resource::Nofile, open).run();
        enough += u32::from(copies_or_fails(&format!("{open} files"), &files, run));
    }
    assert!(
        enough > 0 && enough < 40,
        "{enough} of 44 limits were enough"
    );
}

/// Whether a start makes this system call on this host. If not, the test leaves it out.
fn is_made(call: &str) -> bool {
    let is_made = match call {
        // The threads are told where to begin where there are just two places.
        "sched_setaffinity" => sched_getaffinity(None).is_ok_and(|set| set.count() == 2),
        _ if call.starts_with("landlock_") => Support::of_this_kernel().landlock.is_some(),
        _ => true,
    };
    if !is_made {
        leave_out(&format!("a start makes no call {call} here"));
    }
    is_made
}

/// Refuses `call` at each of the first `turns` times, in a run each. Returns how often it was refused,
/// and how many of the runs failed.
#[track_caller]
fn refuse_each(call: &str, error: &str, turns: u32) -> (usize, u32) {
    let (mut refused, mut failed) = (0, 0);
    for turn in 1..=turns {
        let files = files();
        let run = || {
            let fault = format!("{call}:error={error}:when={turn}");
            let (finished, times) = injected(files.vmm(), &fault);
            refused += times;
            finished
        };
        let what = format!("{call} number {turn} fails with {error}");
        failed += u32::from(!copies_or_fails(&what, &files, run));
    }
    (refused, failed)
}

#[test]
fn each_call_of_a_start_may_be_refused_once() {
    needs_kvm!();
    needs_strace!();
    for (call, error, turns) in [
        ("signalfd4", "EMFILE", 1),
        ("timerfd_create", "ENFILE", 1),
        ("timerfd_settime", "EPERM", 1),
        ("epoll_create1", "EMFILE", 3),
        ("eventfd2", "ENFILE", 14),
        ("clone3", "EAGAIN", 3),
        ("seccomp", "EINVAL", 1),
        ("prctl", "EPERM", 2),
        ("landlock_restrict_self", "EINVAL", 1),
    ] {
        if is_made(call) {
            let (_, failed) = refuse_each(call, error, turns);
            assert!(failed > 0, "{call} was refused and nobody noticed");
        }
    }
}

#[test]
fn what_a_start_can_do_without_may_be_refused() {
    needs_kvm!();
    needs_strace!();
    for (call, error) in [
        ("socketpair", "ENOSYS"),
        ("sendmsg", "ENOSYS"),
        ("sched_setaffinity", "EPERM"),
        ("landlock_create_ruleset", "ENOSYS"),
        ("landlock_add_rule", "EPERM"),
        ("landlock_restrict_self", "EPERM"),
        ("landlock_restrict_self", "E2BIG"),
    ] {
        if is_made(call) {
            let (refused, failed) = refuse_each(call, error, 1);
            assert!(refused > 0, "{call} was never made");
            assert_eq!(failed, 0, "{call}: {error}");
        }
    }
}

#[test]
fn events_that_cannot_be_watched_are_a_reason_not_to_begin() {
    needs_kvm!();
    needs_strace!();
    // As when fs.epoll.max_user_watches is reached: from some call on there is no room any more.
    for turn in 1..=12 {
        let files = files();
        let fault = format!("epoll_ctl:error=ENOSPC:when={turn}+");
        let finished = with_fault(files.vmm(), &fault);
        assert_refused("no room for a watch", &finished);
        assert!(finished.stderr.contains("max_user_watches"), "{finished:?}");
        files.assert_untouched();
    }
}

#[test]
fn a_policy_under_which_no_thread_can_start_is_named() {
    needs_kvm!();
    // The size and the policy, no flags, no niceness; then runtime, deadline and period in ns.
    const ATTRIBUTES: [u64; 6] = [
        48 | (libc::SCHED_DEADLINE.cast_unsigned() as u64) << 32,
        0,
        0,
        1_000_000,
        10_000_000,
        10_000_000,
    ];
    let files = files();
    let vmm = files.vmm().before_start(|| {
        // SAFETY: the attributes are as long as they say, and are only read.
        unsafe { libc::syscall(libc::SYS_sched_setattr, 0, ATTRIBUTES.as_ptr(), 0) };
        Ok(())
    });
    let finished = vmm.run();
    if finished.code() == Some(0) {
        return skip("this process may not have the policy SCHED_DEADLINE");
    }
    assert_refused("a deadline", &finished);
    assert!(finished.stderr.contains("chrt -R"), "{finished:?}");
    files.assert_untouched();
}

/// A control group that allows only so many threads.
struct FewThreads(PathBuf);

impl FewThreads {
    /// `None` where control groups cannot be made.
    fn new() -> Option<Self> {
        let name = format!("vmm-test-{}", std::process::id());
        let roots = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"];
        roots
            .map(|root| Path::new(root).join(&name))
            .into_iter()
            .find_map(|path| {
                fs::create_dir(&path).ok()?;
                let group = Self(path);
                group.allow(1).then_some(group)
            })
    }

    fn allow(&self, threads: u32) -> bool {
        fs::write(self.0.join("pids.max"), threads.to_string()).is_ok()
    }

    fn confine(&self, vmm: Vmm) -> Vmm {
        let processes = File::options()
            .write(true)
            .open(self.0.join("cgroup.procs"));
        let processes = processes.unwrap();
        // Zero is whoever writes it.
        vmm.before_start(move || (&processes).write_all(b"0"))
    }
}

impl Drop for FewThreads {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_control_group_with_few_threads_ends_a_run_with_a_reason() {
    needs_kvm!();
    let Some(group) = FewThreads::new() else {
        return skip("a control group for threads cannot be made here");
    };
    for threads in 1..=8 {
        assert!(group.allow(threads));
        let files = files();
        let run = || group.confine(files.vmm()).run();
        let copied = copies_or_fails(&format!("{threads} threads"), &files, run);
        // The program's four, and one that the kernel needs for a guest.
        assert!(copied || threads < 8, "8 threads are not enough");
        assert!(!copied || threads > 4, "{threads} threads are enough");
    }
}
