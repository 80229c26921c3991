//! A few whole-VM tests that are small enough for a slow host: `tests/nested/run` takes them to
//! machines with another KVM. They hold everywhere, so they run with all others, too.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::program::Program;
use common::{Files, needs_kvm, test};
use rustix::process::Signal;

fn main() -> std::process::ExitCode {
    common::harness::main()
}

#[test]
fn small_files_are_copied_exactly() {
    needs_kvm!();
    for (input, output) in [("512", "512"), ("512", "65536"), ("4096", "1024")] {
        let files = Files::random(70_001);
        let sizes = ["--input-sector-size", input, "--output-sector-size", output];
        files.vmm().args(&sizes).succeed();
        files.assert_copied();
    }
}

#[test]
fn fifty_sectors_give_the_lines_of_the_reference() {
    needs_kvm!();
    let files = Files::random(50 * 512);
    let finished = files.vmm().succeed();
    files.assert_copied();
    let expected = "\
[INFO] init stage=config device=vmm address=0x3f8
[INFO] init stage=probe device=input address=0x10000000
[INFO] init stage=features device=input address=0x120000066
[INFO] init stage=queue device=input address=0x100
[INFO] capacity device=input sectors=50 bytes=25600
[INFO] init stage=probe device=output address=0x10001000
[INFO] init stage=features device=output address=0x120004246
[INFO] init stage=queue device=output address=0x100
[INFO] capacity device=output sectors=50 bytes=25600
[PROGRESS] progress op=copy 1/50 (2%)
[PROGRESS] progress op=copy 11/50 (22%)
[PROGRESS] progress op=copy 21/50 (42%)
[PROGRESS] progress op=copy 31/50 (62%)
[PROGRESS] progress op=copy 41/50 (82%)
[PROGRESS] progress op=copy 50/50 (100%)
[COMPLETE] complete op=copy count=50 success=true
";
    assert_eq!(finished.stdout, expected);
}

/// Files, and the VMM with this guest.
fn with_guest(program: Program) -> (Files, common::Vmm) {
    let mut files = Files::random(5000);
    let guest = files.add("guest", &program.build());
    let vmm = files.vmm().arg(guest);
    (files, vmm)
}

#[test]
fn a_fault_says_where_it_was_or_that_this_kvm_does_not_tell() {
    needs_kvm!();
    for (code, what) in [
        ([0x0f, 0x0b], "at 0x10000: an invalid instruction (ud2)"),
        (
            [0xe6, 0x80],
            "at 0x10000: access to the forbidden port 0x80 (out)",
        ),
    ] {
        let (files, vmm) = with_guest(Program::new().raw(&code));
        let finished = vmm.run();
        finished.assert_failed(4, "the guest faulted at ");
        finished.assert_fault_told(what);
        files.assert_untouched();
    }
}

#[test]
fn a_guest_that_spins_is_ended_by_the_time_limit() {
    needs_kvm!();
    let (files, vmm) = with_guest(Program::new().spin_forever());
    let finished = vmm.args(&["--timeout", "0.5"]).run();
    finished.assert_failed(124, "time limit of 0.5 s");
    files.assert_untouched();
}

#[test]
fn a_guest_that_waits_for_nothing_is_ended_at_once() {
    needs_kvm!();
    let (files, vmm) = with_guest(Program::new().idle().exit(0));
    vmm.run().assert_failed(4, "no disk has anything to do");
    files.assert_untouched();
}

#[test]
fn a_signal_ends_a_guest_that_spins() {
    needs_kvm!();
    let (files, vmm) = with_guest(Program::new().spin_forever());
    let running = vmm.start();
    // Long enough for the VMM to have taken over its signals on a host that is emulated itself.
    std::thread::sleep(Duration::from_secs(1));
    running.signal(Signal::TERM);
    running.finish().assert_failed(143, "ended by SIGTERM");
    files.assert_untouched();
}
