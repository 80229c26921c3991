//! System calls that fail once (strace(1), `inject`): a call that a signal interrupts is made again,
//! and any other failure is a reason in one line, or nothing that matters.

use std::fs;
use std::io;

use crate::HOST_FAILED;
use crate::common::strace::{injected, with_fault};
use crate::common::{Files, Finished, Operation, needs_kvm, needs_strace, test};

/// Calls on names and descriptors of files, which network file systems let signals interrupt.
const OF_FILES: [&str; 20] = [
    "open",
    "openat",
    "stat",
    "newfstatat",
    "fstat",
    "statx",
    "readlinkat",
    "faccessat2",
    "linkat",
    "renameat",
    "unlinkat",
    "fchown",
    "fchmod",
    "lgetxattr",
    "llistxattr",
    "fgetxattr",
    "flistxattr",
    "fremovexattr",
    "lseek",
    "fsync",
];

/// What else a start and an end take.
const OTHERS: [&str; 15] = [
    "ioctl",
    "eventfd2",
    "epoll_create1",
    "epoll_ctl",
    "signalfd4",
    "timerfd_create",
    "timerfd_settime",
    "clone3",
    "fcntl",
    "madvise",
    "preadv",
    "pwritev",
    // What the guest's thread waits in, among others.
    "read",
    "ftruncate",
    "fallocate",
];

/// More than any call is made of in one thread, but for those of the running guest.
const MOST: u32 = 60;

/// Runs `operation` while `call` number `turn` of each thread fails with `error`; nothing if there is
/// no such call. Without the sandbox: strace makes of a call that it refuses another one, which the
/// sandbox forbids.
fn with(
    operation: Operation,
    files: &Files,
    call: &str,
    error: &str,
    turn: u32,
) -> Option<Finished> {
    let vmm = operation.vmm(files).arg("--no-sandbox");
    let (finished, times) = injected(vmm, &format!("{call}:error={error}:when={turn}"));
    // Before the program's first instruction its libraries are loaded.
    let is_loading = finished.code() == Some(127);
    (times > 0 && !is_loading).then_some(finished)
}

/// As many calls as each thread makes, and then three more that say that there is none: in between
/// the libraries may have been loaded.
fn for_each_turn(mut run: impl FnMut(u32) -> bool) {
    let mut missing = 0;
    for turn in 1..MOST {
        missing = if run(turn) { 0 } else { missing + 1 };
        if missing > 4 {
            return;
        }
    }
}

#[test]
fn a_file_system_that_leads_back_when_it_is_asked_for_data_is_not_asked_for_ever() {
    needs_kvm!();
    needs_strace!();
    // From an answer on each is the same place, which lies before what was asked for then.
    for turn in 2..4 {
        let files = Files::random(100_000);
        let vmm = files.vmm().args(&["--no-sandbox", "--timeout", "20"]);
        let finished = with_fault(vmm, &format!("lseek:retval=4096:when={turn}+"));
        assert_eq!(finished.code(), Some(0), "{turn}: {finished:?}");
        files.assert_copied();
    }
}

#[test]
fn a_call_that_a_signal_interrupts_is_made_again() {
    needs_kvm!();
    needs_strace!();
    for (operation, calls) in [
        (Operation::Verified, &OF_FILES[..]),
        (Operation::Verified, &["ioctl"]),
        (Operation::Convert, &["openat", "ioctl", "linkat"]),
        (Operation::Info, &["openat", "ioctl", "fstat"]),
    ] {
        for call in calls {
            let files = Operation::files();
            for_each_turn(|turn| {
                let Some(finished) = with(operation, &files, call, "EINTR", turn) else {
                    return false;
                };
                let what = format!("{operation:?}: {call} number {turn}: {finished:?}");
                assert_eq!(finished.code(), Some(0), "{what}");
                let warning = "vmm: warning: the sandbox is off\n";
                assert_eq!(finished.stderr, warning, "{what}");
                operation.assert_done(&files);
                true
            });
        }
    }
}

#[test]
fn any_call_may_fail_once_and_the_run_says_so_or_succeeds() {
    needs_kvm!();
    needs_strace!();
    let mut failed = 0;
    for (operation, error, calls) in [
        (Operation::Convert, "EPERM", &OF_FILES[..]),
        (Operation::Convert, "ENOMEM", &OTHERS[..]),
        (Operation::Info, "EPERM", &["ioctl", "epoll_ctl", "clone3"]),
    ] {
        for call in calls {
            let files = Operation::files();
            for_each_turn(|turn| {
                // It would leave the file that tries out the folder, and say so.
                if *call == "unlinkat" && turn == 1 {
                    return true;
                }
                let Some(finished) = with(operation, &files, call, error, turn) else {
                    return false;
                };
                let what = format!("{call} number {turn} fails with {error}");
                let succeeded =
                    operation.assert_done_or_failed(&what, &files, &finished, HOST_FAILED);
                failed += u32::from(!succeeded);
                true
            });
        }
    }
    assert!(failed > 40, "{failed} calls that failed were noticed");
}

#[test]
fn an_empty_file_that_cannot_be_removed_from_the_folder_is_named() {
    needs_kvm!();
    needs_strace!();
    for operation in Operation::WRITING {
        let files = Operation::files();
        let finished = with(operation, &files, "unlinkat", "EPERM", 1).unwrap();
        finished.assert_failed(HOST_FAILED, "cannot be removed: Operation not permitted");
        let left = fs::read_dir(files.folder()).unwrap();
        let left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let left: Vec<_> = left.filter(|name| name.ends_with(".tmp")).collect();
        assert_eq!(left.len(), 1, "{left:?}");
        assert!(finished.stderr.contains(&left[0]), "{finished:?}");
    }
}

fn on_one_processor() -> io::Result<()> {
    // SAFETY: a set is plain data, for which all zeros are valid.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    let size = size_of_val(&set);
    // SAFETY: `set` is valid for writing, and of this size.
    unsafe { libc::sched_getaffinity(0, size, &raw mut set) };
    // SAFETY: the numbers are those that a set has room for.
    let first = (0..1024).find(|processor| unsafe { libc::CPU_ISSET(*processor, &set) });
    // SAFETY: as above.
    let mut one: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    unsafe { libc::CPU_SET(first.unwrap_or(0), &mut one) };
    // SAFETY: `one` is a set of this size, which is only read.
    match unsafe { libc::sched_setaffinity(0, size, &raw const one) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The guest's thread waits for the disks in `read`, and has nothing else to read.
#[test]
fn a_wait_for_the_disks_that_fails_is_a_failure_of_the_host() {
    needs_kvm!();
    needs_strace!();
    // Libraries are loaded by the first few calls of the first thread.
    let files = Files::random(4_000_000).with_old_output(b"what was there before");
    let vmm = files
        .vmm()
        .args(&["--no-sandbox", "--progress-percent", "100"]);
    let vmm = vmm.args(&["--queue-depth", "1", "--request-size", "4096"]);
    let fault = ["-e", "inject=read:error=EIO:when=8+"];
    let vmm = vmm.traced("/dev/null".as_ref(), &fault);
    // On one processor nobody can look at the queues all the time to spare the guest its waits.
    let finished = vmm.before_start(on_one_processor).run();
    assert_eq!(finished.code(), Some(HOST_FAILED), "{finished:?}");
    let reason = "vmm: cannot wait for the machine's devices: Input/output error";
    assert_eq!(finished.stderr.lines().last(), Some(reason), "{finished:?}");
    files.assert_untouched();
}
