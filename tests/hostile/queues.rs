//! Broken rings and chains: what cannot be answered stops the disk (NEEDS_RESET), that disk alone,
//! until the guest resets it (virtio 1.2, sections 2.1.2 and 2.7).

use guest_abi::layout::{
    DMA_POOL, DMA_POOL_SIZE, IMAGE, INPUT_MMIO, PAGE_TABLES, RAM_SIZE, STACK_TOP,
};

use crate::common::program::Program;
use crate::common::test;
use crate::common::virtio::{
    Descriptor, Disk, IN, INDIRECT, INDIRECT_DESC, INPUT, NEEDS_RESET, NEXT, OK, OUT, OUTPUT,
    QUEUE_NUM, SECTOR, SIZE, STATUS, VERSION_1, WRITE, descriptor,
};
use crate::{refused, seen};

/// A chain that is no chain, from descriptor 0 of the input disk up.
fn chain(descriptors: &[Descriptor]) -> Program {
    Program::new()
        .write_header(INPUT, 0, IN, 0)
        .chain(INPUT, 0, descriptors)
        .make_available(INPUT, 0, 0)
        .kick(INPUT)
}

/// Reads a sector of the input disk, started anew.
fn read_after_reset() -> Program {
    Program::new()
        .start_disk(INPUT)
        .request(INPUT, 0, IN, (0, DMA_POOL, SECTOR))
        .expect_answer(INPUT, 0, OK)
}

/// Fails unless `fault` stops the input disk and only it, and a reset brings it back.
#[track_caller]
fn stops_the_disk(features: u64, fault: &Program) {
    seen(
        Program::new()
            .start_disk_with(INPUT, features)
            .start_disk(OUTPUT)
            .then(fault)
            .expect_stopped(INPUT)
            .request(OUTPUT, 0, OUT, (0, DMA_POOL, SECTOR))
            .expect_answer(OUTPUT, 0, OK)
            .then(&read_after_reset()),
    );
}

fn header() -> Descriptor {
    descriptor(INPUT.header(0), 16, NEXT, 1)
}

#[test]
fn a_chain_that_loops_stops_only_its_disk() {
    stops_the_disk(
        VERSION_1,
        &chain(&[descriptor(INPUT.header(0), 16, NEXT, 0)]),
    );
    stops_the_disk(
        VERSION_1,
        &chain(&[header(), descriptor(DMA_POOL, 512, NEXT | WRITE, 0)]),
    );
}

#[test]
fn a_chain_that_leaves_the_table_stops_only_its_disk() {
    for next in [SIZE, 0xffff] {
        stops_the_disk(
            VERSION_1,
            &chain(&[descriptor(INPUT.header(0), 16, NEXT, next)]),
        );
    }
    let head = Program::new().make_available(INPUT, 0, SIZE).kick(INPUT);
    stops_the_disk(VERSION_1, &head);
}

#[test]
fn an_available_index_that_jumps_stops_only_its_disk() {
    for index in [SIZE + 1, 0x8000, 0xffff] {
        let jump = Program::new().store16(INPUT.avail() + 2, index).kick(INPUT);
        stops_the_disk(VERSION_1, &jump);
    }
}

#[test]
fn a_request_without_a_status_byte_stops_only_its_disk() {
    let data = descriptor(DMA_POOL, 512, NEXT, 2);
    // Nothing writable, an empty last descriptor, or one where devices may not write.
    stops_the_disk(
        VERSION_1,
        &chain(&[header(), data, descriptor(INPUT.status(0), 1, 0, 0)]),
    );
    stops_the_disk(
        VERSION_1,
        &chain(&[header(), data, descriptor(INPUT.status(0), 0, WRITE, 0)]),
    );
    for address in [
        0,
        PAGE_TABLES,
        IMAGE,
        STACK_TOP,
        RAM_SIZE,
        INPUT_MMIO,
        u64::MAX,
    ] {
        let status = descriptor(address, 1, WRITE, 0);
        stops_the_disk(VERSION_1, &chain(&[header(), data, status]));
    }
}

#[test]
fn an_indirect_table_that_was_not_negotiated_stops_only_its_disk() {
    stops_the_disk(VERSION_1, &chain(&[descriptor(DMA_POOL, 48, INDIRECT, 0)]));
}

#[test]
fn a_wrong_indirect_table_stops_only_its_disk() {
    let nested = Program::new()
        .write_descriptor(DMA_POOL, 0, descriptor(DMA_POOL, 16, INDIRECT, 0))
        .then(&chain(&[descriptor(DMA_POOL, 16, INDIRECT, 0)]));
    let looping = Program::new()
        .write_descriptor(DMA_POOL, 0, descriptor(DMA_POOL, 16, NEXT, 0))
        .then(&chain(&[descriptor(DMA_POOL, 16, INDIRECT, 0)]));
    let with_next = chain(&[descriptor(DMA_POOL, 48, INDIRECT | NEXT, 1)]);
    let behind_memory = chain(&[descriptor(DMA_POOL + DMA_POOL_SIZE - 16, 32, INDIRECT, 0)]);
    let in_tables = chain(&[descriptor(PAGE_TABLES, 32, INDIRECT, 0)]);
    let features = VERSION_1 | INDIRECT_DESC;
    for fault in [nested, looping, with_next, behind_memory, in_tables] {
        stops_the_disk(features, &fault);
    }
    for len in [0, 15, 17, 1 << 20, u32::MAX - 15] {
        stops_the_disk(features, &chain(&[descriptor(DMA_POOL, len, INDIRECT, 0)]));
    }
}

/// Fails unless a queue of this size with these areas makes DRIVER_OK end in NEEDS_RESET.
#[track_caller]
fn refused_at_start(size: u32, areas: [u64; 3]) {
    seen(
        Program::new()
            .init_device(INPUT, VERSION_1)
            .set_queue(INPUT, size, areas)
            .driver_ok(INPUT)
            .expect32(INPUT.register(STATUS), NEEDS_RESET)
            .then(&read_after_reset()),
    );
}

#[test]
fn a_queue_outside_the_memory_for_devices_is_refused_at_driver_ok() {
    let good = [INPUT.desc(), INPUT.avail(), INPUT.used()];
    let bad = [
        0,
        PAGE_TABLES,
        IMAGE,
        STACK_TOP & !0xfff,
        RAM_SIZE,
        INPUT_MMIO,
        !0xfff,
    ];
    for area in 0..3 {
        for address in bad {
            let mut areas = good;
            areas[area] = address;
            refused_at_start(SIZE.into(), areas);
        }
    }
}

#[test]
fn rings_that_overlap_or_are_not_aligned_are_refused_at_driver_ok() {
    let [desc, avail, used] = [INPUT.desc(), INPUT.avail(), INPUT.used()];
    for areas in [
        [desc, desc, used],
        [desc, avail, avail],
        [desc, avail, desc + 8],
        [desc + 8, avail, used],
        [desc, avail + 1, used],
        [desc, avail, used + 2],
        // The table would reach beyond its region.
        [DMA_POOL + DMA_POOL_SIZE - 16, avail, used],
    ] {
        refused_at_start(SIZE.into(), areas);
    }
}

#[test]
fn a_size_that_is_no_queue_size_is_refused_at_driver_ok() {
    for size in [0, 3, 4096, 0x1_0008, u32::MAX] {
        refused_at_start(size, [INPUT.desc(), INPUT.avail(), INPUT.used()]);
    }
}

#[test]
fn a_queue_cannot_be_changed_after_activation() {
    let mut program = Program::new()
        .start_disk(INPUT)
        .store32(INPUT.register(QUEUE_NUM), 2)
        .set_queue(INPUT, 2, [PAGE_TABLES; 3]);
    // With two descriptors these would be outside of the table.
    for slot in 0..5 {
        program = program
            .request(INPUT, slot, IN, (u64::from(slot), DMA_POOL, SECTOR))
            .expect_answer(INPUT, slot, OK);
    }
    seen(program);
}

#[test]
fn a_device_that_writes_over_its_own_queue_harms_only_itself() {
    for target in [INPUT.desc(), INPUT.avail(), INPUT.used(), INPUT.header(0)] {
        seen(
            Program::new()
                .start_disk(INPUT)
                .start_disk(OUTPUT)
                .request(INPUT, 0, IN, (0, target, SECTOR))
                .request(OUTPUT, 0, OUT, (0, DMA_POOL, SECTOR))
                .expect_answer(OUTPUT, 0, OK)
                .then(&read_after_reset()),
        );
    }
}

#[test]
fn the_reason_names_the_disk_and_what_was_done_to_its_queue() {
    let program = Program::new()
        .start_disk(INPUT)
        .then(&chain(&[descriptor(INPUT.header(0), 16, NEXT, 0)]))
        .expect_stopped(INPUT);
    refused(
        program.exit(1),
        "the guest's driver broke a queue of the input disk: cannot answer the request at descriptor \
         0: the chain has more than 16 descriptors",
    );
    assert_eq!(Disk::head(0), 0);
}
