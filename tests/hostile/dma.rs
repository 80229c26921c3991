//! Devices reach the queues and the data pool and nothing else: a request that names other memory
//! is an error, and the memory is unchanged.

use guest_abi::layout::{
    DMA_POOL, DMA_POOL_SIZE, GDT, IMAGE, INPUT_MMIO, OUTPUT_QUEUE, PAGE_TABLES, QUEUE_SIZE,
    RAM_SIZE, STACK, STACK_TOP, TSS,
};

use crate::common::program::Program;
use crate::common::test;
use crate::common::virtio::{IN, INPUT, IOERR, NEXT, OK, OUT, OUTPUT, SECTOR, WRITE, descriptor};
use crate::seen;

const FORBIDDEN: [u64; 14] = [
    0,
    GDT,
    PAGE_TABLES,
    TSS,
    IMAGE,
    IMAGE + 0x8000,
    OUTPUT_QUEUE + QUEUE_SIZE - 256,
    DMA_POOL - 256,
    DMA_POOL + DMA_POOL_SIZE - 256,
    STACK,
    STACK_TOP - 4096,
    RAM_SIZE - 256,
    INPUT_MMIO,
    u64::MAX - 255,
];

#[test]
fn reading_into_memory_that_is_not_for_devices_is_an_error() {
    for address in FORBIDDEN {
        seen(
            Program::new()
                .start_disk(INPUT)
                .request(INPUT, 0, IN, (0, address, SECTOR))
                .expect_answer(INPUT, 0, IOERR)
                .request(INPUT, 1, IN, (0, DMA_POOL, SECTOR))
                .expect_answer(INPUT, 1, OK),
        );
    }
}

#[test]
fn writing_from_memory_that_is_not_for_devices_is_an_error() {
    for address in FORBIDDEN {
        seen(
            Program::new()
                .start_disk(OUTPUT)
                .request(OUTPUT, 0, OUT, (0, address, SECTOR))
                .expect_answer(OUTPUT, 0, IOERR)
                .request(OUTPUT, 1, OUT, (0, DMA_POOL, SECTOR))
                .expect_answer(OUTPUT, 1, OK),
        );
    }
}

#[test]
fn image_and_stack_are_unchanged_by_a_read_that_names_them() {
    let stack = STACK_TOP & !0xfff;
    // Behind the code; the input there is random, so that zeros would not stay zeros.
    let image = IMAGE + 0x8000;
    let mut program = Program::new()
        .start_disk(INPUT)
        .store64(stack, 0x1122_3344_5566_7788);
    for (slot, address) in [(0, stack), (1, image)] {
        program = program
            .request(INPUT, slot, IN, (0, address, SECTOR))
            .expect_answer(INPUT, slot, IOERR);
    }
    seen(
        program
            .expect32(stack, 0x5566_7788)
            .expect32(stack + 4, 0x1122_3344)
            .expect32(image, 0),
    );
}

#[test]
fn a_header_in_memory_that_is_not_for_devices_is_an_error() {
    for address in [PAGE_TABLES, IMAGE, STACK_TOP - 64, RAM_SIZE, INPUT_MMIO] {
        seen(
            Program::new()
                .start_disk(INPUT)
                .write_header(INPUT, 0, IN, 0)
                .chain(
                    INPUT,
                    0,
                    &[
                        descriptor(address, 16, NEXT, 1),
                        descriptor(DMA_POOL, SECTOR, NEXT | WRITE, 2),
                        descriptor(INPUT.status(0), 1, WRITE, 0),
                    ],
                )
                .make_available(INPUT, 0, 0)
                .kick(INPUT)
                .expect_answer(INPUT, 0, IOERR),
        );
    }
}

#[test]
fn lengths_whose_sum_wraps_are_an_error() {
    let huge = |next| descriptor(DMA_POOL, 0xffff_fe00, NEXT | WRITE, next);
    seen(
        Program::new()
            .start_disk(INPUT)
            .write_header(INPUT, 0, IN, 0)
            .chain(
                INPUT,
                0,
                &[
                    descriptor(INPUT.header(0), 16, NEXT, 1),
                    huge(2),
                    huge(3),
                    descriptor(DMA_POOL, 0x600, NEXT | WRITE, 4),
                    descriptor(INPUT.status(0), 1, WRITE, 0),
                ],
            )
            .make_available(INPUT, 0, 0)
            .kick(INPUT)
            .expect_answer(INPUT, 0, IOERR),
    );
}
