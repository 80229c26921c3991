//! Surroundings that refuse what the VMM asks of them: KVM calls that are interrupted, never
//! succeed or find the processor taken, and systems that allow no sockets. strace plays them.

use std::time::{Duration, Instant};

use crate::HOST_FAILED;
use crate::common::strace::{fault_of_ioctl, injected, traced, with_fault};
use crate::common::{Files, Vmm, needs_kvm, needs_strace, test};

/// The VMM copying `files`. Not in the sandbox, whose filter sees a call that strace answers as a forbidden
/// one.
fn vmm(files: &Files) -> Vmm {
    files.vmm().arg("--no-sandbox")
}

#[test]
fn setting_up_goes_on_after_an_interruption() {
    needs_kvm!();
    needs_strace!();
    for request in ["KVM_CREATE_VM", "KVM_CREATE_VCPU", "KVM_SET_SREGS"] {
        let files = Files::random(5000);
        let fault = fault_of_ioctl(vmm(&files), request, "EINTR");
        files.restore_output();
        let finished = with_fault(vmm(&files), &fault);
        assert_eq!(finished.code(), Some(0), "{finished:?}");
        files.assert_copied();
    }
}

#[test]
fn a_processor_that_another_hypervisor_uses_is_told() {
    needs_kvm!();
    needs_strace!();
    let files = Files::random(5000);
    let fault = fault_of_ioctl(vmm(&files), "KVM_CREATE_VM", "EBUSY");
    files.restore_output();
    let finished = with_fault(vmm(&files), &fault);
    assert_eq!(finished.code(), Some(HOST_FAILED), "{finished:?}");
    let told = finished.stderr.contains("another hypervisor uses the");
    assert!(told, "{finished:?}");
    files.assert_untouched();
}

#[test]
fn a_vcpu_that_cannot_start_for_want_of_processes_is_an_error_within_seconds() {
    needs_kvm!();
    needs_strace!();
    let mut files = Files::random(5000);
    // mov dx, COM1 + 5; in al, dx; jmp back: leaves the guest again and again.
    let guest = files.add("guest", &[0x66, 0xba, 0xfd, 0x03, 0xec, 0xeb, 0xfd]);
    // strace counts for each thread: more than the main thread makes, which sets KVM up.
    let fault = "ioctl:error=EAGAIN:when=200+";
    let start = Instant::now();
    let (finished, times) = injected(vmm(&files).arg(guest), fault);
    assert!(start.elapsed() < Duration::from_secs(20));
    assert_eq!(finished.code(), Some(HOST_FAILED), "{finished:?}");
    assert!(finished.stderr.contains("pids.max"), "{finished:?}");
    assert!((2..50).contains(&times), "{times} times");
    files.assert_untouched();
}

#[test]
fn a_system_without_sockets_copies_all_the_same() {
    needs_kvm!();
    needs_strace!();
    for fault in [
        "socketpair:error=EPERM",
        "socketpair:error=EMFILE",
        "sendmsg:error=ETOOMANYREFS",
    ] {
        let files = Files::random(5000);
        let finished = with_fault(vmm(&files), fault);
        assert_eq!(finished.code(), Some(0), "{finished:?}");
        files.assert_copied();
    }
}

#[test]
fn a_run_starts_no_other_process() {
    needs_kvm!();
    needs_strace!();
    let files = Files::random(5000);
    let calls = ["-e", "trace=execve,execveat,fork,vfork,clone,clone3"];
    let (finished, log) = traced(files.vmm(), &calls);
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    files.assert_copied();
    let begun = log.lines().filter(|line| line.contains('('));
    let (threads, others): (Vec<_>, Vec<_>) = begun.partition(|line| line.contains("CLONE_THREAD"));
    assert!(!threads.is_empty(), "{log}");
    // The first is strace's, which starts the VMM.
    assert!(others.len() == 1 && others[0].contains("execve("), "{log}");
}
