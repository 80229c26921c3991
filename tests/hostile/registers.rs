//! Accesses to the registers that the specification does not define: they read as zero, change
//! nothing, and the disk works as before (virtio 1.2, section 4.2.2).

use guest_abi::layout::{DMA_POOL, INPUT_MMIO, MMIO_SIZE};

use crate::common::program::Program;
use crate::common::test;
use crate::common::virtio::{
    DRIVER_OK, FEATURES_OK, IN, INPUT, OK, QUEUE_NOTIFY, QUEUE_SEL, SECTOR, STATUS, VERSION_1,
};
use crate::seen;

/// Runs `accesses` on a disk in use, which must go on working.
#[track_caller]
fn harmless(accesses: &Program) {
    seen(
        Program::new()
            .start_disk(INPUT)
            .then(accesses)
            .expect32(INPUT.register(STATUS), DRIVER_OK)
            .request(INPUT, 0, IN, (0, DMA_POOL, SECTOR))
            .expect_answer(INPUT, 0, OK),
    );
}

#[test]
fn accesses_of_other_widths_than_a_register_do_nothing() {
    let mut program = Program::new();
    for register in [0, STATUS, QUEUE_SEL, 0x44, 0x80] {
        let address = INPUT.register(register);
        program = program
            .load8(address)
            .load16(address)
            .load64(address)
            .store8(address, 0)
            .store16(address, 0)
            .store64(address, 0);
    }
    harmless(&program);
}

#[test]
fn undefined_offsets_do_nothing() {
    let mut program = Program::new();
    for offset in [0x14, 0x40, 0x5c, 0x68, 0xfc, 0x13c, 0x800, MMIO_SIZE - 4] {
        let address = INPUT_MMIO + offset;
        program = program.expect32(address, 0).store32(address, u32::MAX);
    }
    harmless(&program);
}

#[test]
fn accesses_that_are_not_aligned_or_cross_into_the_next_device_do_nothing() {
    let mut program = Program::new();
    for offset in [1, 2, 3, STATUS - 1, STATUS + 2, MMIO_SIZE - 2] {
        let address = INPUT_MMIO + offset;
        program = program.load32(address).store32(address, 0).load64(address);
    }
    harmless(&program);
}

#[test]
fn a_queue_that_does_not_exist_has_no_registers() {
    let mut program = Program::new();
    for queue in [1, 0xffff, u32::MAX] {
        program = program
            .store32(INPUT.register(QUEUE_SEL), queue)
            .expect32(INPUT.register(0x34), 0)
            .expect32(INPUT.register(0x44), 0)
            .store32(INPUT.register(0x44), 0)
            .store32(INPUT.register(0x38), 8)
            .store32(INPUT.register(QUEUE_NOTIFY), queue);
    }
    harmless(&program);
}

#[test]
fn the_configuration_cannot_be_written() {
    let capacity = INPUT.register(0x100);
    harmless(
        &Program::new()
            .expect32(capacity, 50)
            .store32(capacity, 1000)
            .store64(capacity, u64::MAX)
            .expect32(capacity, 50),
    );
}

#[test]
fn string_and_vector_accesses_to_registers_do_no_harm() {
    // mov rdi, registers; mov rsi, pool; mov ecx, 64; rep movsb; then movdqu [rdi - 64], xmm0
    let code = Program::new()
        .raw(&[0x48, 0xbf])
        .raw(&(INPUT_MMIO + 0x100).to_le_bytes())
        .raw(&[0x48, 0xbe])
        .raw(&DMA_POOL.to_le_bytes())
        .raw(&[0xb9, 64, 0, 0, 0, 0xf3, 0xa4, 0xf3, 0x0f, 0x7f, 0x47, 0xc0]);
    harmless(&code);
}

#[test]
fn a_storm_of_kicks_does_no_harm() {
    let kick = Program::new().kick(INPUT);
    harmless(&Program::new().repeat(5000, &kick));
}

#[test]
fn features_that_are_not_offered_are_not_accepted() {
    for features in [VERSION_1 | 1 << 3, VERSION_1 | 1 << 63, 0, u64::MAX] {
        seen(
            Program::new()
                .init_device(INPUT, features)
                .expect32(INPUT.register(STATUS), FEATURES_OK & !8)
                .driver_ok(INPUT)
                .expect32(INPUT.register(STATUS), FEATURES_OK & !8),
        );
    }
}
