//! Surroundings that refuse what the VMM asks of them: KVM calls that are interrupted, never
//! succeed or find the processor taken, and systems that allow no sockets. strace plays them.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::common::process::{Vmm, binary};
use crate::common::program::Program;
use crate::common::{Files, kvm_is_usable, skip, test};

const HOST_FAILED: i32 = 3;

/// Whether there is what these tests need; says what is missing.
fn can_inject() -> bool {
    let has_strace = Command::new("strace").arg("--version").output().is_ok();
    if !has_strace {
        skip("strace is not installed");
    }
    has_strace && kvm_is_usable()
}

/// The VMM under strace, with these options, copying `files`. Not in the sandbox, whose filter sees
/// a call that strace answers as a forbidden one.
fn under_strace(files: &Files, log: &Path, options: &[&str]) -> Vmm {
    Vmm::of(Path::new("strace"))
        .args(&["-f", "-o"])
        .arg(log)
        .args(options)
        .arg(binary())
        .arg("--input")
        .arg(files.path("input.img"))
        .arg("--output")
        .arg(files.output())
        .arg("--no-sandbox")
}

/// How many ioctls the VMM has made when it makes the first `request`, that one included.
fn position_of(request: &str) -> Option<usize> {
    let mut files = Files::random(512);
    let log = files.expect("log");
    under_strace(&files, &log, &["-e", "trace=ioctl"]).run();
    let log = fs::read_to_string(log).unwrap();
    let thread = |line: &str| line.split_whitespace().next().map(str::to_owned);
    let first = log.lines().find(|line| line.contains(request))?;
    // strace counts for each thread.
    let of_thread = |line: &&str| thread(line) == thread(first) && line.contains("ioctl(");
    let ioctls = log.lines().filter(of_thread);
    Some(ioctls.take_while(|line| *line != first).count() + 1)
}

/// Injects `error` into the first call of `request`.
fn inject(request: &str, error: &str) -> Option<String> {
    let position = position_of(request)?;
    Some(format!("inject=ioctl:error={error}:when={position}"))
}

#[test]
fn setting_up_goes_on_after_an_interruption() {
    if !can_inject() {
        return;
    }
    for request in ["KVM_CREATE_VM", "KVM_CREATE_VCPU", "KVM_SET_SREGS"] {
        let mut files = Files::random(5000);
        let log = files.expect("log");
        let option = inject(request, "EINTR").unwrap();
        under_strace(&files, &log, &["-e", &option]).succeed();
        let log = fs::read_to_string(log).unwrap();
        assert!(log.contains("(INJECTED)"), "{log}");
        files.assert_copied();
    }
}

#[test]
fn a_processor_that_another_hypervisor_uses_is_told() {
    if !can_inject() {
        return;
    }
    let mut files = Files::random(5000);
    let log = files.expect("log");
    let option = inject("KVM_CREATE_VM", "EBUSY").unwrap();
    let finished = under_strace(&files, &log, &["-e", &option]).run();
    assert_eq!(finished.code(), Some(HOST_FAILED), "{finished:?}");
    let told = finished.stderr.contains("another hypervisor uses the");
    assert!(told, "{finished:?}");
    files.assert_untouched();
}

#[test]
fn a_vcpu_that_cannot_start_for_want_of_processes_is_an_error_within_seconds() {
    if !can_inject() {
        return;
    }
    let mut files = Files::random(5000);
    let log = files.expect("log");
    // mov dx, COM1 + 5; in al, dx; jmp back: leaves the guest again and again.
    let guest = files.add("guest", &[0x66, 0xba, 0xfd, 0x03, 0xec, 0xeb, 0xfd]);
    // strace counts for each thread: more than the main thread makes, which sets KVM up.
    let option = "inject=ioctl:error=EAGAIN:when=200+";
    let start = Instant::now();
    let finished = under_strace(&files, &log, &["-e", option]).arg(guest).run();
    assert!(start.elapsed() < Duration::from_secs(20));
    assert_eq!(finished.code(), Some(HOST_FAILED), "{finished:?}");
    assert!(finished.stderr.contains("pids.max"), "{finished:?}");
    let log = fs::read_to_string(log).unwrap();
    let injected = log.matches("(INJECTED)").count();
    assert!((2..50).contains(&injected), "{injected} times");
    files.assert_untouched();
}

#[test]
fn a_system_without_sockets_copies_all_the_same() {
    if !can_inject() {
        return;
    }
    for option in [
        "inject=socketpair:error=EPERM",
        "inject=socketpair:error=EMFILE",
        "inject=sendmsg:error=ETOOMANYREFS",
    ] {
        let mut files = Files::random(5000);
        let log = files.expect("log");
        under_strace(&files, &log, &["-e", option]).succeed();
        let log = fs::read_to_string(log).unwrap();
        assert!(log.contains("(INJECTED)"), "{log}");
        files.assert_copied();
    }
}

/// Processes whose parent is `parent`.
fn children_of(parent: i32) -> Vec<String> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| fs::read_to_string(entry.unwrap().path().join("stat")).ok())
        .filter(|stat| {
            // Behind the name, which is in brackets and may hold anything: state, parent.
            let rest = stat.rsplit(')').next().unwrap();
            rest.split_whitespace().nth(1) == Some(&parent.to_string())
        })
        .collect()
}

#[test]
fn a_run_starts_no_other_process() {
    if !kvm_is_usable() {
        return;
    }
    let mut files = Files::random(5000);
    let guest = files.add("guest", &Program::new().spin_forever().build());
    let running = files.vmm().arg(guest).start();
    let is_running = || {
        let pid = running.pid().as_raw_nonzero();
        let threads = fs::read_dir(format!("/proc/{pid}/task"));
        threads.is_ok_and(|threads| threads.count() >= 4)
    };
    let start = Instant::now();
    while !is_running() {
        assert!(start.elapsed() < Duration::from_secs(30), "its threads run");
        std::thread::sleep(Duration::from_millis(20));
    }
    let children = children_of(running.pid().as_raw_nonzero().get());
    assert!(children.is_empty(), "{children:?}");
    running.signal(Signal::TERM);
    running.finish().assert_failed(143, "ended by SIGTERM");
}
