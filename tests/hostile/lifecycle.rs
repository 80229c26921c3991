//! Initialisation out of order, kicks at the wrong time, and resets, after which everything can
//! start again (virtio 1.2, sections 2.4, 3.1 and 4.2.2.1).

use guest_abi::layout::DMA_POOL;

use crate::common::program::Program;
use crate::common::virtio::{
    DRIVER_OK, Disk, IN, INPUT, INTERRUPT_ACK, INTERRUPT_STATUS, OK, OUTPUT, QUEUE_READY,
    QUEUE_SEL, SECTOR, SIZE, STATUS, VERSION_1,
};
use crate::common::{Files, needs_kvm, test};
use crate::{Attack, GUEST_FAILED, INPUT_LEN, SECTORS, copy, seen};

fn read(disk: Disk) -> Program {
    Program::new()
        .request(disk, 0, IN, (0, DMA_POOL, SECTOR))
        .expect_answer(disk, 0, OK)
}

#[test]
fn a_disk_that_is_reset_in_use_can_be_started_again_and_again() {
    let round = Program::new().start_disk(INPUT).then(&read(INPUT));
    seen(Program::new().repeat(20, &round));
}

#[test]
fn a_reset_with_a_request_in_flight_leaves_nothing_behind() {
    let len = u32::try_from(SECTORS * 512).unwrap();
    let round = Program::new()
        .start_disk(INPUT)
        .request(INPUT, 0, IN, (0, DMA_POOL, len))
        .store32(INPUT.register(STATUS), 0)
        .expect32(INPUT.register(STATUS), 0);
    seen(
        Program::new()
            .repeat(20, &round)
            .start_disk(INPUT)
            .then(&read(INPUT)),
    );
}

#[test]
fn an_acknowledgement_clears_no_notification_that_comes_after_it() {
    let acknowledge = Program::new()
        .expect32(INPUT.register(INTERRUPT_STATUS), 1)
        .store32(INPUT.register(INTERRUPT_ACK), 1);
    seen(
        Program::new()
            .start_disk(INPUT)
            .then(&read(INPUT))
            .then(&acknowledge)
            .request(INPUT, 1, IN, (0, DMA_POOL, SECTOR))
            // Not one exit to the VMM may lie between the acknowledgement and the notification.
            .spin_while8(INPUT.used() + 2, 1)
            .idle()
            .then(&acknowledge)
            .expect32(INPUT.register(INTERRUPT_STATUS), 0),
    );
}

#[test]
fn a_stopped_queue_answers_nothing_and_the_disk_starts_again_after_a_reset() {
    seen(
        Program::new()
            .start_disk(INPUT)
            .store32(INPUT.register(QUEUE_SEL), 0)
            .store32(INPUT.register(QUEUE_READY), 0)
            .expect32(INPUT.register(QUEUE_READY), 0)
            .kick(INPUT)
            .start_disk(INPUT)
            .then(&read(INPUT)),
    );
}

#[test]
fn kicks_before_driver_ok_and_after_a_reset_are_ignored() {
    let kicks = Program::new().repeat(10, &Program::new().kick(INPUT));
    seen(
        Program::new()
            .then(&kicks)
            .init_device(INPUT, VERSION_1)
            .then(&kicks)
            .clear_rings(INPUT)
            .set_queue(
                INPUT,
                SIZE.into(),
                [INPUT.desc(), INPUT.avail(), INPUT.used()],
            )
            .then(&kicks)
            .driver_ok(INPUT)
            .then(&read(INPUT))
            .store32(INPUT.register(STATUS), 0)
            .then(&kicks)
            .start_disk(INPUT)
            .then(&read(INPUT)),
    );
}

#[test]
fn driver_ok_comes_only_after_the_features() {
    for status in [4, 1 | 4, 1 | 2 | 4] {
        seen(
            Program::new()
                .store32(INPUT.register(STATUS), status)
                .expect32(INPUT.register(STATUS), status & !4)
                .start_disk(INPUT)
                .then(&read(INPUT)),
        );
    }
}

#[test]
fn a_disk_without_a_queue_needs_a_reset_and_then_works() {
    seen(
        Program::new()
            .init_device(INPUT, VERSION_1)
            .driver_ok(INPUT)
            .expect32(INPUT.register(STATUS), DRIVER_OK | 0x40)
            .start_disk(INPUT)
            .then(&read(INPUT)),
    );
}

#[test]
fn a_guest_that_resets_both_disks_half_way_and_starts_again_copies_everything() {
    needs_kvm!();
    let mut files = Files::random(INPUT_LEN);
    let program = copy(SECTORS / 2).then(&copy(SECTORS));
    let guest = files.add("guest", &program.claim_success(SECTORS).exit(0).build());
    files.vmm().arg(guest).succeed();
    files.assert_copied();
}

/// Fails unless a guest that starts a disk like this is told of with `parts`.
#[track_caller]
fn does_not_start(start: Program, parts: &[&str]) {
    let attack = Attack::new(start.idle().exit(1).build());
    if let Some(finished) = attack.fails(GUEST_FAILED, parts[0]) {
        for part in parts {
            assert!(
                finished.stderr.contains(part),
                "expected {part:?} in {finished:?}"
            );
        }
    }
}

#[test]
fn a_disk_that_does_not_start_is_named_with_the_reason() {
    let rings = [OUTPUT.desc(), OUTPUT.avail(), OUTPUT.used()];
    let [table, available, used] = rings;
    let queue = |size, areas| {
        Program::new()
            .init_device(OUTPUT, VERSION_1)
            .set_queue(OUTPUT, size, areas)
            .driver_ok(OUTPUT)
    };
    let disk = "the output disk did not start: queue 0 cannot be used: ";
    does_not_start(
        queue(16, [0x9999_0000, available, used]),
        &[
            disk,
            "the descriptor table at 0x99990000 (256 bytes) is not within",
        ],
    );
    does_not_start(
        queue(16, [table, available + 1, used]),
        &[disk, "the available ring at ", "is not aligned to 2 bytes"],
    );
    does_not_start(
        queue(16, [table, available, used + 2]),
        &[disk, "the used ring at ", "is not aligned to 4 bytes"],
    );
    does_not_start(queue(3, rings), &[disk, "3 is not a queue size"]);
    does_not_start(
        Program::new()
            .init_device(OUTPUT, VERSION_1)
            .driver_ok(OUTPUT),
        &["the output disk did not start: queue 0 is not ready"],
    );
    does_not_start(
        Program::new().init_device(INPUT, 0).driver_ok(INPUT),
        &[
            "the input disk did not start: its driver chose the features 0x0, without VIRTIO_F_VERSION_1, \
             and the status has no FEATURES_OK; the device offers 0x1",
        ],
    );
    does_not_start(
        Program::new().store32(INPUT.register(STATUS), 4),
        &["the input disk did not start: its driver set DRIVER_OK without"],
    );
    // The steps one by one, each without those before it.
    let write = |program: Program, status| program.store32(INPUT.register(STATUS), status);
    let singly = [0, 1, 2, 8, 4].into_iter().fold(Program::new(), write);
    does_not_start(
        singly.kick(INPUT),
        &["the input disk did not start: its driver wrote a status of 0x4 where it was 0x1; "],
    );
}

#[test]
fn a_guest_that_waits_is_told_of_the_disks_that_its_driver_has_not_started() {
    let told = |program: Program, causes: &str| {
        let reason = format!("the guest waits for a disk, and no disk has anything to do{causes}");
        Attack::new(program.idle().exit(1).build()).fails_with(GUEST_FAILED, &reason);
    };
    let begun = |disk: Disk| {
        let rings = [disk.desc(), disk.avail(), disk.used()];
        let begun = Program::new().init_device(disk, VERSION_1);
        begun.set_queue(disk, SIZE.into(), rings)
    };
    let unfinished = "disk did not start: its driver has not set DRIVER_OK; its status is";
    let started = Program::new().start_disk(INPUT).then(&read(INPUT));
    told(
        started.then(&begun(OUTPUT)),
        &format!("; the output {unfinished} 0xb"),
    );
    told(
        begun(INPUT).store32(OUTPUT.register(STATUS), 1),
        &format!("; the input {unfinished} 0xb; the output {unfinished} 0x1"),
    );
    told(
        begun(INPUT).store32(INPUT.register(STATUS), 0x8b),
        &format!("; the input {unfinished} 0x8b, with FAILED"),
    );
    // What was reset is not begun, and what runs has started.
    told(begun(INPUT).store32(INPUT.register(STATUS), 0), "");
    told(Program::new().start_disk(INPUT).start_disk(OUTPUT), "");
    // A guest that ends by itself does not wait for a disk.
    let ends = Attack::new(begun(INPUT).exit(1).build());
    ends.fails_with(GUEST_FAILED, "without a completion (exit status 1)");
}
