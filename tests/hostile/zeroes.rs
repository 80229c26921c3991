//! Requests that make parts of a disk zero or forget them (virtio 1.2, section 5.2.6): wrong ones
//! are answered with the status that the specification has for them, and right ones are no way to
//! claim what is not there.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use guest_abi::layout::DMA_POOL;
use guest_abi::ports::COM2;
use guest_protocol::progress_message;

use crate::common::program::Program;
use crate::common::virtio::{
    F_ZEROES, IN, INPUT, IOERR, OK, OUT, OUTPUT, SECTOR, UNSUPP, VERSION_1,
};
use crate::common::{Files, needs_kvm, test};
use crate::{INPUT_LEN, SECTORS, refused, seen};

const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;
/// A part need not take room any more.
const UNMAP: u32 = 1;
/// Where the programs write their lists: behind what they copy.
const LIST: u64 = DMA_POOL + 0x8_0000;

/// A part of a list: first sector, how many, flags.
type Part = (u64, u32, u32);

fn disks() -> Program {
    let features = VERSION_1 | F_ZEROES;
    Program::new()
        .start_disk(INPUT)
        .start_disk_with(OUTPUT, features)
}

/// Writes a list and sends it to the output as request `slot`.
fn zero(program: Program, slot: u16, kind: u32, parts: &[Part]) -> Program {
    let written = (0..).zip(parts).fold(program, |program, (index, part)| {
        let at = LIST + 16 * index;
        program
            .store64(at, part.0)
            .store32(at + 8, part.1)
            .store32(at + 12, part.2)
    });
    let len = u32::try_from(16 * parts.len()).unwrap();
    // Its data goes to the device, as that of a write.
    written.request_out(OUTPUT, slot, kind, (0, LIST, len))
}

/// Sends wrong requests, one after the other, and then reads as ever.
fn answered(wrong: &[(u32, &[Part], u8)]) -> Program {
    let sent = (0..).zip(wrong).fold(disks(), |program, (slot, wrong)| {
        let (kind, parts, status) = *wrong;
        zero(program, slot, kind, parts).expect_answer(OUTPUT, slot, status)
    });
    sent.request(INPUT, 0, IN, (0, DMA_POOL, SECTOR))
        .expect_answer(INPUT, 0, OK)
}

#[test]
fn parts_past_the_end_or_that_wrap_are_errors() {
    for (sector, sectors) in [
        (SECTORS, 1),
        (SECTORS - 1, 2),
        (0, 0),
        (0, u32::MAX),
        (1 << 55, 1),
        (u64::MAX, u32::MAX),
    ] {
        seen(answered(&[
            (WRITE_ZEROES, &[(sector, sectors, UNMAP)], IOERR),
            (WRITE_ZEROES, &[(0, 1, 0), (sector, sectors, 0)], IOERR),
            (DISCARD, &[(sector, sectors, 0)], IOERR),
        ]));
    }
}

#[test]
fn bad_flags_are_unsupported() {
    seen(answered(&[
        (WRITE_ZEROES, &[(0, 1, 2)], UNSUPP),
        (WRITE_ZEROES, &[(0, 1, u32::MAX)], UNSUPP),
        (WRITE_ZEROES, &[(0, 1, UNMAP), (1, 1, 1 << 31)], UNSUPP),
        (DISCARD, &[(0, 1, UNMAP)], UNSUPP),
    ]));
}

#[test]
fn too_many_parts_none_at_all_and_half_of_one_are_errors() {
    for len in [257 * 16, 1 << 20, 0, 8, 24] {
        let program = disks()
            .request_out(OUTPUT, 0, WRITE_ZEROES, (0, LIST, len))
            .expect_answer(OUTPUT, 0, IOERR)
            .request(INPUT, 0, IN, (0, DMA_POOL, SECTOR))
            .expect_answer(INPUT, 0, OK);
        seen(program);
    }
}

#[test]
fn a_list_in_a_table_or_in_the_code_is_not_read() {
    for address in [0x1000, 0x2000, 0x1_0000, u64::MAX - 8] {
        let program = disks()
            .request_out(OUTPUT, 0, WRITE_ZEROES, (0, address, 16))
            .expect_answer(OUTPUT, 0, IOERR);
        seen(program);
    }
}

#[test]
fn the_read_only_disk_takes_none() {
    for kind in [WRITE_ZEROES, DISCARD] {
        let program = disks()
            .store64(LIST, 0)
            .store32(LIST + 8, 1)
            .store32(LIST + 12, 0)
            .request_out(INPUT, 0, kind, (0, LIST, 16))
            .expect_answer(INPUT, 0, UNSUPP)
            .request(INPUT, 1, IN, (0, DMA_POOL, SECTOR))
            .expect_answer(INPUT, 1, OK);
        seen(program);
    }
}

#[test]
fn a_claim_of_more_than_was_declared_is_found_out() {
    let half = u32::try_from(SECTORS / 2).unwrap();
    let program = zero(disks(), 0, WRITE_ZEROES, &[(0, half, UNMAP)]);
    refused(
        program
            .expect_answer(OUTPUT, 0, OK)
            .claim_success(SECTORS)
            .exit(0),
        "the one at offset 12800 was never written",
    );
}

#[test]
fn what_is_discarded_is_not_written() {
    let all = u32::try_from(SECTORS).unwrap();
    let program = zero(disks(), 0, DISCARD, &[(0, all, 0)]);
    refused(
        program
            .expect_answer(OUTPUT, 0, OK)
            .claim_success(SECTORS)
            .exit(0),
        "the one at offset 0 was never written",
    );
}

#[test]
fn what_is_discarded_after_it_was_written_is_not_written() {
    let len = u32::try_from(INPUT_LEN).unwrap();
    let copied = disks()
        .request(INPUT, 0, IN, (0, DMA_POOL, len))
        .expect_answer(INPUT, 0, OK)
        .request(OUTPUT, 0, OUT, (0, DMA_POOL, len))
        .expect_answer(OUTPUT, 0, OK);
    refused(
        zero(copied, 1, DISCARD, &[(8, 8, 0)])
            .expect_answer(OUTPUT, 1, OK)
            .claim_success(SECTORS)
            .exit(0),
        "the one at offset 4096 was never written",
    );
}

#[test]
fn data_that_becomes_zero_again_is_zero_in_the_copy() {
    needs_kvm!();
    let len = u32::try_from(INPUT_LEN).unwrap();
    let copied = disks()
        .request(INPUT, 0, IN, (0, DMA_POOL, len))
        .expect_answer(INPUT, 0, OK)
        .request(OUTPUT, 0, OUT, (0, DMA_POOL, len))
        .expect_answer(OUTPUT, 0, OK);
    let program = zero(copied, 1, WRITE_ZEROES, &[(3, 20, UNMAP), (49, 1, 0)])
        .expect_answer(OUTPUT, 1, OK)
        .claim_success(SECTORS)
        .exit(0);
    let mut files = Files::random(INPUT_LEN);
    let guest = files.add("guest", &program.build());
    files.vmm().arg(guest).succeed();
    let mut expected = std::fs::read(files.input()).unwrap();
    expected[3 * 512..23 * 512].fill(0);
    expected[49 * 512..].fill(0);
    assert!(std::fs::read(files.output()).unwrap() == expected);
}

/// The control, and the lie: what the host says is a hole gets data while the guest is at work.
#[test]
fn a_hole_that_is_none_any_more_when_the_copy_is_complete_is_found() {
    needs_kvm!();
    const LENGTH: u64 = 1 << 20;
    let sectors = LENGTH / 512;
    let all = u32::try_from(sectors).unwrap();
    // It waits for the test to do its part.
    let program = zero(disks(), 0, WRITE_ZEROES, &[(0, all, UNMAP)])
        .expect_answer(OUTPUT, 0, OK)
        .say(&progress_message("copy", 1, sectors, 0))
        .echo_until(COM2, COM2, b'.')
        .claim_success(sectors)
        .exit(0);
    let image = program.build();
    for lies in [false, true] {
        let mut files = Files::new(&[]);
        let guest = files.add("guest", &image);
        let input = File::options().write(true).open(files.input()).unwrap();
        input.set_len(LENGTH).unwrap();
        let (reader, mut writer) = std::io::pipe().unwrap();
        let shown = files.path("shown");
        let vmm = files.vmm().arg("--serial-input").arg(guest).stdin(reader);
        let running = vmm.stdout(File::create(&shown).unwrap()).start();
        while std::fs::read(&shown).unwrap().is_empty() {
            assert!(!running.has_ended(), "the run has ended too soon");
            std::thread::sleep(Duration::from_millis(10));
        }
        if lies {
            input.write_all_at(&[1], 700_000).unwrap();
        }
        writer.write_all(b".").unwrap();
        let finished = running.finish();
        if lies {
            finished.assert_failed(3, "where it had a hole when the run began");
            assert!(!files.output().exists());
        } else {
            assert_eq!(finished.code(), Some(0), "{finished:?}");
            assert_eq!(files.output().metadata().unwrap().len(), LENGTH);
        }
    }
}

#[test]
fn a_digest_that_was_not_asked_for_or_is_none_is_refused() {
    for len in [1, 31, 32, 33, 4000] {
        let message = guest_protocol::complete_with_digest("copy", SECTORS, &vec![7; len], 0);
        refused(
            disks().say(&message).exit(0),
            &format!("the guest sent a digest of {len} bytes"),
        );
    }
}
