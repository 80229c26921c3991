//! Guests that poll instead of waiting at the idle port, and do not kick where the device has said
//! that it needs no kick (virtio 1.2, section 2.7.10.1): each request is answered when it is made,
//! and not when the VMM next looks by itself.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::time::{Duration, Instant};

use common::program::{Program, SEEN};
use common::virtio::{Disk, IN, INPUT, OK, SECTOR, UNANSWERED};
use common::{Files, needs_kvm, test};

fn main() -> std::process::ExitCode {
    common::harness::main()
}

/// `--timeout`, in seconds: many times what a run takes, and a fraction of what it would take if
/// each request waited for the VMM's next look, 50 ms away at the most.
const LIMIT: &str = "15";
const ROUNDS: u32 = 1500;

/// Makes request 0, which lies ready, available once more, and kicks if the device wants it.
fn publish(program: Program, disk: Disk) -> Program {
    let kick = Program::new().kick(disk).build_steps();
    let over_kick = u8::try_from(kick.len()).unwrap();
    program
        .store8(disk.status(0), UNANSWERED)
        .at(disk.avail() + 2)
        // inc word [rdi]; mfence
        .raw(&[0x66, 0xff, 0x07, 0x0f, 0xae, 0xf0])
        .at(disk.used())
        // test byte [rdi], VIRTQ_USED_F_NO_NOTIFY; jnz over the kick
        .raw(&[0xf6, 0x07, 0x01, 0x75, over_kick])
        .raw(&kick)
}

/// Looks at the answer to request 0 until it is there.
fn poll(program: Program, disk: Disk) -> Program {
    program
        .at(disk.status(0))
        // pause; cmp byte [rdi], UNANSWERED; je back
        .raw(&[0xf3, 0x90, 0x80, 0x3f, UNANSWERED, 0x74, 0xf9])
        .expect8(disk.status(0), OK)
}

/// Waits at the idle port until it is there.
fn wait(program: Program, disk: Disk) -> Program {
    program.expect_answer(disk, 0, OK)
}

/// A disk that has answered one request while the guest waited: from then on the vCPU's thread
/// helps it.
fn helped() -> Program {
    let data = INPUT.queue + 0xc000;
    let program = Program::new()
        .start_disk(INPUT)
        .request(INPUT, 0, IN, (0, data, SECTOR));
    wait(program, INPUT)
}

/// Runs `round` many times behind [`helped`].
#[track_caller]
fn is_quick(round: &Program) {
    needs_kvm!();
    let mut files = Files::random(5000);
    let program = helped().repeat(ROUNDS, round).seen();
    let guest = files.add("guest", &program.build());
    let begun = Instant::now();
    let finished = files.vmm().args(&["--timeout", LIMIT]).arg(guest).run();
    finished.assert_failed(4, &format!("(exit status {SEEN})"));
    assert!(begun.elapsed() < Duration::from_secs(15));
    files.assert_untouched();
}

#[test]
fn a_guest_that_polls_is_served_without_delay() {
    is_quick(&poll(publish(Program::new(), INPUT), INPUT));
}

#[test]
fn a_guest_that_waits_now_and_polls_then_is_served_without_delay() {
    let waited = wait(publish(Program::new(), INPUT), INPUT);
    is_quick(&poll(publish(waited, INPUT), INPUT));
}

#[test]
fn a_guest_that_waits_only_is_served_without_delay() {
    is_quick(&wait(publish(Program::new(), INPUT), INPUT));
}
