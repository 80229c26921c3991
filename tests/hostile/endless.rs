//! Guests that do not end by themselves: a time limit ends one that works, and one that waits for
//! what can never come is ended at once.

use guest_abi::layout::DMA_POOL;
use guest_abi::ports::COM2;

use crate::common::program::Program;
use crate::common::test;
use crate::common::virtio::{
    Disk, IN, INPUT, NEXT, OK, SECTOR, STATUS, UNANSWERED, WRITE, descriptor,
};
use crate::{Attack, TIMED_OUT, refused};

const NOTHING_TO_DO: &str = "waits for a disk, and no disk has anything to do";

#[track_caller]
fn times_out(program: Program) {
    Attack::new(program.build())
        .with(&["--timeout", "0.5"])
        .fails(TIMED_OUT, "time limit of 0.5 s");
}

#[test]
fn a_guest_that_spins_without_an_exit_is_ended_by_the_time_limit() {
    times_out(Program::new().spin_forever());
}

#[test]
fn a_guest_that_reads_registers_for_ever_is_ended_by_the_time_limit() {
    let read = Program::new().load32(INPUT.register(STATUS));
    times_out(Program::new().repeat(u32::MAX, &read));
}

#[test]
fn a_guest_that_kicks_for_ever_is_ended_by_the_time_limit() {
    let kick = Program::new().kick(INPUT);
    times_out(Program::new().start_disk(INPUT).repeat(u32::MAX, &kick));
}

#[test]
fn a_guest_that_writes_debug_text_for_ever_is_ended_by_the_time_limit() {
    let write = Program::new().send(COM2, &b"x".repeat(4000));
    times_out(Program::new().repeat(u32::MAX, &write));
}

#[test]
fn a_guest_that_idles_with_nothing_in_flight_is_ended_at_once() {
    refused(Program::new().idle().exit(0), NOTHING_TO_DO);
    let started = Program::new().start_disk(INPUT);
    let forever = Program::new().idle();
    refused(started.repeat(u32::MAX, &forever), NOTHING_TO_DO);
}

#[test]
fn a_guest_that_waits_for_a_request_it_never_notified_is_ended() {
    let mut program = Program::new()
        .start_disk(INPUT)
        .request(INPUT, 0, IN, (0, DMA_POOL, SECTOR))
        .expect_answer(INPUT, 0, OK);
    // The disk's thread may find a request by itself while it is still awake, so try some more.
    for position in 1..16 {
        program = program
            .store8(INPUT.status(0), UNANSWERED)
            .make_available(INPUT, position, Disk::head(0))
            .idle_while8(INPUT.status(0), UNANSWERED);
    }
    refused(program.seen(), NOTHING_TO_DO);
}

#[test]
fn a_guest_that_waits_for_a_disk_it_has_broken_is_told_what_it_broke() {
    let program = Program::new()
        .start_disk(INPUT)
        .write_header(INPUT, 0, IN, 0)
        .chain(
            INPUT,
            0,
            &[descriptor(INPUT.header(0), 16, NEXT | WRITE, 0)],
        )
        .make_available(INPUT, 0, 0)
        .kick(INPUT)
        .expect_stopped(INPUT)
        .idle_while8(INPUT.status(0), UNANSWERED);
    refused(
        program,
        "no disk has anything to do; the guest's driver broke a queue of the input disk",
    );
}
