//! Guests that end without having done their work, or say that they did.

use guest_abi::layout::DMA_POOL;
use guest_abi::ports::EXIT;
use guest_protocol::{capacity_message, complete_message, error_message, progress_message};

use crate::common::program::Program;
use crate::common::strace::injected;
use crate::common::virtio::{IN, INPUT, OK, OUT, OUTPUT, SECTOR};
use crate::common::{Files, needs_kvm, needs_strace, test};
use crate::{Attack, GUEST_FAILED, HOST_FAILED, INPUT_LEN, SECTORS, copy, refused};

fn program() -> Program {
    Program::new()
}

/// The control: programs fail in the other tests for what they do, not for what they are.
#[test]
fn a_program_that_copies_everything_and_says_so_succeeds() {
    needs_kvm!();
    let mut files = Files::random(INPUT_LEN);
    let image = copy(SECTORS).claim_success(SECTORS).exit(0).build();
    let guest = files.add("guest", &image);
    let finished = files.vmm().arg(guest).succeed();
    assert_eq!(finished.stderr, "");
    files.assert_copied();
}

/// A thread that hangs in a write is left behind at the end, and what it writes may still come.
#[test]
fn a_write_that_is_under_way_at_the_end_changes_nothing_that_has_been_judged() {
    needs_kvm!();
    needs_strace!();
    let len = u32::try_from(INPUT_LEN).unwrap();
    let hasty = copy(SECTORS)
        .request(OUTPUT, 1, OUT, (0, DMA_POOL + u64::from(len), SECTOR))
        .claim_success(SECTORS)
        .exit(0);
    let mut files = Files::random(INPUT_LEN).with_old_output(b"what was there before");
    let guest = files.add("guest", &hasty.build());
    // Longer than the runtime waits for a thread that hangs.
    let late = "pwritev:delay_enter=3500000:when=2";
    let vmm = files.vmm().args(&["--no-sandbox", "--quiet"]);
    let (finished, _) = injected(vmm.arg(guest), late);
    assert_eq!(finished.code(), Some(HOST_FAILED), "{finished:?}");
    let reason = "a write to it has not come back";
    assert!(finished.stderr.contains(reason), "{finished:?}");
    files.assert_untouched();
}

#[test]
fn a_guest_may_write_backwards_or_at_random() {
    needs_kvm!();
    // As many parts as the programs' queue has room for.
    const PART: u64 = SECTORS / 5;
    let orders = [[4, 3, 2, 1, 0], [2, 4, 0, 3, 1]];
    for order in orders {
        let disks = program().start_disk(INPUT).start_disk(OUTPUT);
        let all = u32::try_from(INPUT_LEN).unwrap();
        let read = disks
            .request(INPUT, 0, IN, (0, DMA_POOL, all))
            .expect_answer(INPUT, 0, OK);
        let written = (0..).zip(order).fold(read, |program, (slot, part)| {
            let (sector, len) = (part * PART, u32::try_from(PART).unwrap() * SECTOR);
            program
                .request(OUTPUT, slot, OUT, (sector, DMA_POOL + sector * 512, len))
                .expect_answer(OUTPUT, slot, OK)
        });
        let mut files = Files::random(INPUT_LEN);
        let guest = files.add("guest", &written.claim_success(SECTORS).exit(0).build());
        files.vmm().arg(guest).succeed();
        files.assert_copied();
    }
}

/// Guests of a conversion say how long the output is; what one of a copy says of it is only shown.
#[test]
fn what_a_guest_says_of_lengths_changes_nothing() {
    needs_kvm!();
    for (device, bytes) in [
        ("input", 0),
        ("output", 0),
        ("output", 512),
        ("output", 1 << 40),
        ("output", u64::MAX),
        ("another", 7),
    ] {
        let said = capacity_message(device, bytes / 512, bytes);
        for program in [
            program().say(&said).then(&copy(SECTORS)),
            copy(SECTORS).say(&said).say(&said),
        ] {
            let mut files = Files::random(INPUT_LEN);
            let guest = files.add("guest", &program.claim_success(SECTORS).exit(0).build());
            files.vmm().arg(guest).succeed();
            files.assert_copied();
        }
        // Nor does it make up for what was not written.
        refused(
            copy(SECTORS / 2).say(&said).claim_success(SECTORS).exit(0),
            "the one at offset 12800 was never written",
        );
    }
}

#[test]
fn an_exit_without_a_completion_is_a_failure() {
    refused(program().exit(0), "ended without a completion");
    refused(copy(SECTORS).exit(0), "ended without a completion");
}

#[test]
fn a_claim_of_success_without_a_byte_written_is_found_out() {
    refused(program().claim_success(SECTORS).exit(0), "incomplete");
}

#[test]
fn a_claim_of_success_with_half_written_is_found_out_and_says_where() {
    refused(
        copy(SECTORS / 2).claim_success(SECTORS).exit(0),
        "the one at offset 12800 was never written",
    );
}

#[test]
fn a_claim_over_the_text_protocol_is_found_out_too() {
    Attack::new(program().send_com1(b"Copy complete\n").exit(0).build())
        .with(&["--protocol", "text"])
        .fails(GUEST_FAILED, "incomplete");
}

#[test]
fn a_claim_of_more_or_fewer_sectors_than_there_are_is_a_failure() {
    for claimed in [0, SECTORS - 1, SECTORS + 1, u64::MAX] {
        refused(
            copy(SECTORS).claim_success(claimed).exit(0),
            &format!("claimed success with {claimed} of 50 sectors"),
        );
    }
}

#[test]
fn a_complete_copy_that_the_guest_calls_a_failure_is_one() {
    let gave_up = complete_message("copy", SECTORS, false);
    refused(
        copy(SECTORS).say(&gave_up).exit(0),
        "gave up after 50 of 50",
    );
}

#[test]
fn a_status_other_than_zero_is_a_failure_whatever_was_said() {
    for status in [1, 101, 255] {
        refused(
            copy(SECTORS).claim_success(SECTORS).exit(status),
            &format!("the guest claimed success (exit status {status})"),
        );
    }
    // A wide write to the exit port: the low byte is the status.
    let wide = program().raw(&[0x66, 0xba, 0xf4, 0, 0x66, 0xb8, 7, 9, 0x66, 0xef]);
    assert_eq!(EXIT, 0xf4);
    refused(wide, "(exit status 7)");
}

#[test]
fn a_reported_error_is_part_of_the_reason() {
    let error = error_message("read", "input", 7, 1, "so it goes");
    let gave_up = complete_message("copy", 7, false);
    let finished = refused(
        program().say(&error).say(&gave_up).exit(1),
        "gave up after 7 of 50 sectors: [ERROR] error op=read device=input sector=7 status=1",
    );
    if let Some(finished) = finished {
        assert!(finished.stdout.starts_with("[ERROR] "), "{finished:?}");
    }
}

#[test]
fn an_error_is_not_taken_back_by_a_claim_of_success() {
    for op in ["read", "verify"] {
        let error = error_message(op, "input", 7, 1, "never mind");
        for program in [
            program().say(&error).then(&copy(SECTORS)),
            copy(SECTORS).say(&error),
        ] {
            refused(
                program.claim_success(SECTORS).exit(0),
                "claimed success all the same: [ERROR] error op=",
            );
        }
    }
}

#[test]
fn progress_that_cannot_be_is_refused() {
    for (current, total, complaint) in [
        (0, 50, "progress that does not rise: 0 sectors after 0"),
        (51, 50, "that 51 sectors are done, but the disk has 50"),
        (1, 49, "that there are 49 sectors, but the disk has 50"),
        (
            u64::MAX,
            u64::MAX,
            "that there are 18446744073709551615 sectors",
        ),
    ] {
        refused(
            program()
                .say(&progress_message("copy", current, total, 1))
                .spin_forever(),
            complaint,
        );
    }
    let back = program()
        .say(&progress_message("copy", 20, 50, 40))
        .say(&progress_message("copy", 10, 50, 20));
    refused(back.spin_forever(), "progress that does not rise");
}

#[test]
fn a_message_after_the_completion_is_refused() {
    let program = copy(SECTORS).claim_success(SECTORS).claim_success(SECTORS);
    refused(program.exit(0), "after its completion");
}
