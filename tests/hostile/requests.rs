//! Wrong requests that can be answered: they get IOERR or UNSUPP, and the disk goes on (virtio
//! 1.2, section 5.2.6).

use guest_abi::layout::DMA_POOL;

use crate::common::program::Program;
use crate::common::test;
use crate::common::virtio::{
    Descriptor, FLUSH, GET_ID, IN, INPUT, IOERR, NEXT, OK, OUT, OUTPUT, SECTOR, UNSUPP, WRITE,
    descriptor,
};
use crate::{Attack, GUEST_FAILED, SECTORS, seen};

fn disks() -> Program {
    Program::new().start_disk(INPUT).start_disk(OUTPUT)
}

/// Answers `wrong`, which is request 0 of the input disk, with `status`, and then a right one.
fn answered(wrong: Program, status: u8) -> Program {
    disks()
        .then(&wrong)
        .expect_answer(INPUT, 0, status)
        .request(INPUT, 1, IN, (0, DMA_POOL, SECTOR))
        .expect_answer(INPUT, 1, OK)
}

fn request(kind: u32, sector: u64, len: u32) -> Program {
    Program::new().request(INPUT, 0, kind, (sector, DMA_POOL, len))
}

#[test]
fn what_is_past_the_end_or_wraps_is_an_error() {
    for (sector, len) in [
        (SECTORS, SECTOR),
        (SECTORS - 1, 2 * SECTOR),
        (0, 51 * SECTOR),
        (1 << 55, SECTOR),
        (u64::MAX, SECTOR),
        (u64::MAX / 512, SECTOR),
    ] {
        seen(answered(request(IN, sector, len), IOERR));
    }
}

#[test]
fn lengths_that_are_not_whole_sectors_are_errors() {
    for len in [0, 1, 511, 513, u32::MAX, u32::MAX - 511] {
        seen(answered(request(IN, 0, len), IOERR));
    }
}

#[test]
fn what_is_not_aligned_to_the_configured_sector_is_an_error() {
    for (sector, len) in [(1, 4096), (0, 512), (8, 2048)] {
        let program = answered_with_4096(sector, len);
        Attack::new(program.seen().build())
            .with(&["--input-sector-size", "4096"])
            .fails(GUEST_FAILED, "(exit status 42)");
    }
}

fn answered_with_4096(sector: u64, len: u32) -> Program {
    disks()
        .then(&request(IN, sector, len))
        .expect_answer(INPUT, 0, IOERR)
        .request(INPUT, 1, IN, (8, DMA_POOL, 4096))
        .expect_answer(INPUT, 1, OK)
}

#[test]
fn an_unknown_type_is_unsupported() {
    for kind in [2, 3, 5, 11, 13, 0x8000_0000, u32::MAX] {
        seen(answered(request(kind, 0, SECTOR), UNSUPP));
    }
}

#[test]
fn the_input_disk_cannot_be_written() {
    seen(answered(request(OUT, 0, SECTOR), IOERR));
}

#[test]
fn flush_and_id_work_on_a_read_only_disk() {
    seen(answered(request(FLUSH, 0, 0), OK));
    // "inpu"
    let id = answered(request(GET_ID, 0, 20), OK);
    seen(answered(request(GET_ID, 0, 20), OK).then(&id));
    let short = disks()
        .request(INPUT, 0, GET_ID, (0, DMA_POOL, 4))
        .expect_answer(INPUT, 0, OK)
        .expect32(DMA_POOL, u32::from_le_bytes(*b"inpu"));
    seen(short);
}

/// A request of these descriptors, the last of which is the status.
fn chain(kind: u32, descriptors: &[Descriptor]) -> Program {
    Program::new()
        .write_header(INPUT, 0, kind, 0)
        .chain(INPUT, 0, descriptors)
        .make_available(INPUT, 0, 0)
        .kick(INPUT)
}

#[test]
fn the_wrong_direction_is_an_error() {
    let header = descriptor(INPUT.header(0), 16, NEXT, 1);
    let status = descriptor(INPUT.status(0), 1, WRITE, 0);
    let readable = descriptor(DMA_POOL, SECTOR, NEXT, 2);
    seen(answered(chain(IN, &[header, readable, status]), IOERR));
    // A readable descriptor behind a writable one.
    let writable = descriptor(DMA_POOL, SECTOR, NEXT | WRITE, 2);
    let late = descriptor(DMA_POOL, SECTOR, NEXT, 3);
    seen(answered(
        chain(IN, &[header, writable, late, status]),
        IOERR,
    ));
    // Written into by OUT, on the disk that can be written.
    let wrong_out = disks()
        .write_header(OUTPUT, 0, OUT, 0)
        .chain(
            OUTPUT,
            0,
            &[
                descriptor(OUTPUT.header(0), 16, NEXT, 1),
                writable,
                descriptor(OUTPUT.status(0), 1, WRITE, 0),
            ],
        )
        .make_available(OUTPUT, 0, 0)
        .kick(OUTPUT)
        .expect_answer(OUTPUT, 0, IOERR);
    seen(wrong_out);
}

#[test]
fn a_header_that_is_too_short_or_missing_is_an_error() {
    let status = descriptor(INPUT.status(0), 1, WRITE, 0);
    let data = descriptor(DMA_POOL, SECTOR, NEXT | WRITE, 2);
    for len in [0, 1, 15] {
        let header = descriptor(INPUT.header(0), len, NEXT, 1);
        seen(answered(chain(IN, &[header, data, status]), IOERR));
    }
    seen(answered(chain(IN, &[status]), IOERR));
}

#[test]
fn a_header_may_be_split_over_descriptors() {
    let split = [
        descriptor(INPUT.header(0), 5, NEXT, 1),
        descriptor(INPUT.header(0) + 5, 11, NEXT, 2),
        // Data and status in one descriptor.
        descriptor(INPUT.status(0) - u64::from(SECTOR), SECTOR + 1, WRITE, 0),
    ];
    seen(answered(chain(IN, &split), OK));
}

/// Fails unless a guest that has this request of the output disk refused, and then gives up, is told of it
/// as `what`.
#[track_caller]
fn told(start: Program, refused: Program, what: &str) {
    let program = start.then(&refused).exit(1);
    let expected = format!(
        "the guest ended without a completion (exit status 1); the first request that the output disk \
         refused: {what}"
    );
    Attack::new(program.build()).fails_with(GUEST_FAILED, &expected);
}

#[test]
fn the_first_request_that_a_disk_refused_is_told_beside_what_the_guest_says() {
    let write = |slot, sector, len| {
        Program::new()
            .request(OUTPUT, slot, OUT, (sector, DMA_POOL, len))
            .expect_answer(OUTPUT, slot, IOERR)
    };
    let past = "a write of 4096 bytes at sector 100, past its end of 50 sectors of 512 bytes";
    told(disks(), write(0, 100, 4096), past);
    // An answer that is good does not make it unsaid, and the next refusal is not told.
    let later = Program::new()
        .request(OUTPUT, 1, OUT, (0, DMA_POOL, SECTOR))
        .expect_answer(OUTPUT, 1, OK)
        .then(&write(2, 0, 100));
    told(disks(), write(0, 100, 4096).then(&later), past);
    told(
        disks(),
        write(0, 0, 100),
        "a write of 100 bytes at sector 0, which are no whole sectors of 512 bytes",
    );
    let other = |kind| {
        Program::new()
            .request(OUTPUT, 0, kind, (0, DMA_POOL, SECTOR))
            .expect_answer(OUTPUT, 0, UNSUPP)
    };
    told(disks(), other(5), "one of type 5, which it does not know");
    told(
        disks(),
        other(11),
        "a discard, of a feature that its driver has not chosen",
    );
    let outside = Program::new()
        .request(OUTPUT, 0, OUT, (0, 1 << 40, SECTOR))
        .expect_answer(OUTPUT, 0, IOERR);
    told(
        disks(),
        outside,
        "a write of 512 bytes at sector 0, whose data is not within the memory that devices may use",
    );
}

#[test]
fn a_guest_that_does_not_look_at_a_refusal_and_claims_success_is_told_of_it() {
    let whole = u32::try_from(SECTORS * 512).unwrap();
    let program = disks()
        .request(INPUT, 0, IN, (0, DMA_POOL, whole))
        .expect_answer(INPUT, 0, OK)
        .request(OUTPUT, 0, OUT, (1, DMA_POOL, whole))
        .expect_answer(OUTPUT, 0, IOERR)
        .claim_success(SECTORS)
        .exit(0);
    let reason = "; the first request that the output disk refused: a write of 25600 bytes at sector 1, past \
                  its end of 50 sectors";
    Attack::new(program.build()).fails(GUEST_FAILED, reason);
    // The disk that is read has a word of its own.
    let program = disks()
        .request(INPUT, 0, OUT, (0, DMA_POOL, SECTOR))
        .expect_answer(INPUT, 0, IOERR);
    let reason = "; the first request that the input disk refused: a write of 512 bytes at sector 0, on a disk \
                  that can only be read";
    Attack::new(program.exit(1).build()).fails(GUEST_FAILED, reason);
}
