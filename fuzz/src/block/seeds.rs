//! Sessions of an honest driver as inputs: what a fuzzer would take long to find, and bends from
//! then on.

use virtio_bindings::virtio_mmio as reg;

use super::writer::{Session, Writer};

const INPUT: u8 = 0;
const OUTPUT: u8 = 0x80;
const READ: u8 = 0;
const WRITE: u8 = 6;
const FLUSH: u8 = 12;
const GET_ID: u8 = 13;
const DISCARD: u8 = 11;
const WRITE_ZEROES: u8 = 14;
const INDIRECT: u8 = 0x80;
/// Bits of the first byte: 4096-byte sectors, a part that fails, disks that are not started, and
/// large ones.
const LARGE_SECTORS: u8 = 1;
const FAULTY: u8 = 2;
const STOPPED: u8 = 4;
const LARGE: u8 = 8;

/// All of them.
pub fn sessions() -> Vec<Session> {
    vec![
        probe(),
        copy("copy", 0, 0),
        copy("copy-indirect", 0, INDIRECT),
        copy("copy-large-sectors", LARGE_SECTORS, 0),
        joined(),
        helped(),
        identify(),
        zeroes(),
        retry(),
        many_rounds(),
        event_index(),
        restart(),
        misplaced(),
        long_round(),
    ]
}

/// Looks at all registers that a driver reads, and starts the disks step by step.
fn probe() -> Session {
    let mut w = Writer::new(STOPPED);
    for disk in [INPUT, OUTPUT] {
        for register in [
            reg::VIRTIO_MMIO_MAGIC_VALUE,
            reg::VIRTIO_MMIO_VERSION,
            reg::VIRTIO_MMIO_DEVICE_ID,
            reg::VIRTIO_MMIO_VENDOR_ID,
        ] {
            w.read_register(disk, register);
        }
        for status in [1, 3] {
            w.write_register(disk, reg::VIRTIO_MMIO_STATUS, status);
        }
        for select in [0, 1] {
            w.write_register(disk, reg::VIRTIO_MMIO_DEVICE_FEATURES_SEL, select);
            w.read_register(disk, reg::VIRTIO_MMIO_DEVICE_FEATURES);
            w.write_register(disk, reg::VIRTIO_MMIO_DRIVER_FEATURES_SEL, select);
            w.write_register(disk, reg::VIRTIO_MMIO_DRIVER_FEATURES, select);
        }
        w.write_register(disk, reg::VIRTIO_MMIO_STATUS, 0xb);
        w.write_register(disk, reg::VIRTIO_MMIO_QUEUE_SEL, 0);
        w.read_register(disk, reg::VIRTIO_MMIO_QUEUE_NUM_MAX);
        w.read_register(disk, reg::VIRTIO_MMIO_QUEUE_READY);
        w.read_register(disk, reg::VIRTIO_MMIO_CONFIG);
        w.read_register(disk, reg::VIRTIO_MMIO_CONFIG_GENERATION);
        w.start(disk, 1, 5);
        w.request(disk, READ, 0, 0, &[(0, 1)]);
        w.notify_and_work(disk);
        w.read_register(disk, reg::VIRTIO_MMIO_INTERRUPT_STATUS);
        w.write_register(disk, reg::VIRTIO_MMIO_INTERRUPT_ACK, 1);
        w.read_register(disk, reg::VIRTIO_MMIO_STATUS);
        w.write_register(disk, reg::VIRTIO_MMIO_STATUS, 0);
    }
    w.end("probe")
}

/// Reads from the one disk, writes to the other, and flushes it.
fn copy(name: &'static str, setup: u8, shape: u8) -> Session {
    let mut w = Writer::new(setup);
    for round in 0..2 {
        for slot in 0..4 {
            w.request(
                INPUT,
                READ | shape,
                slot,
                round * 32 + slot * 8,
                &[(slot, 8)],
            );
        }
        w.notify_and_work(INPUT);
        for slot in 0..4 {
            w.request(
                OUTPUT,
                WRITE | shape,
                slot,
                round * 32 + slot * 8,
                &[(slot, 8)],
            );
        }
        w.notify_and_work(OUTPUT);
    }
    w.request(OUTPUT, FLUSH | shape, 5, 0, &[]);
    w.notify_and_work(OUTPUT);
    w.end(name)
}

/// Requests that are neighbours on the disk and in memory, with several buffers each.
fn joined() -> Session {
    let mut w = Writer::new(LARGE);
    for disk in [INPUT, OUTPUT] {
        let kind = if disk == INPUT { READ } else { WRITE };
        w.start(disk, 1, 8);
        for slot in 0..8 {
            let data = [(0, 4), (1, 4), (2, 4), (3, 4)];
            w.request(disk, kind | INDIRECT, slot, slot * 16, &data);
        }
        w.notify_and_work(disk);
    }
    w.end("joined")
}

/// Requests large enough for a waiting processor to help with them.
fn helped() -> Session {
    let mut w = Writer::new(LARGE);
    let data = [(0, 16), (1, 16), (2, 16), (3, 16)];
    for disk in [INPUT, OUTPUT] {
        let kind = if disk == INPUT { READ } else { WRITE };
        w.request(disk, kind, 0, 0, &data);
        w.notify_and_work(disk);
        w.request(disk, kind, 1, 64, &data);
        w.help(disk);
        w.request(disk, kind, 2, 128, &data);
        w.help(disk);
        w.leave(disk);
        w.notify_and_work(disk);
    }
    w.end("helped")
}

/// The device's id, in one part and in several, and requests without data.
fn identify() -> Session {
    let mut w = Writer::new(0);
    for disk in [INPUT, OUTPUT] {
        w.request(disk, GET_ID, 0, 0, &[(0, 1)]);
        w.request(disk, GET_ID | INDIRECT, 1, 0, &[(1, 1), (2, 1)]);
        w.request(disk, FLUSH, 2, 0, &[]);
        w.notify_and_work(disk);
    }
    w.end("identify")
}

/// Parts of the disk that are made zero, that are given up, and that nobody may change.
fn zeroes() -> Session {
    let mut w = Writer::new(0);
    w.request(OUTPUT, WRITE, 0, 0, &[(0, 16)]);
    // Sectors 8 to 16, and 64 to 80 without room.
    let parts = [(2, 1, false), (3, 2, true)];
    w.zeroes(OUTPUT, WRITE_ZEROES, 1, &parts);
    w.zeroes(OUTPUT, WRITE_ZEROES | INDIRECT, 2, &[(4, 1, true)]);
    w.zeroes(OUTPUT, DISCARD, 3, &[(0, 1, false)]);
    w.notify_and_work(OUTPUT);
    // From sector 127 of 128, and of a disk that is for reading.
    w.zeroes(OUTPUT, WRITE_ZEROES, 4, &[(0, 1, false), (5, 1, false)]);
    w.notify_and_work(OUTPUT);
    w.zeroes(INPUT, WRITE_ZEROES, 0, &[(0, 1, false)]);
    w.zeroes(INPUT, DISCARD, 1, &[(0, 1, false)]);
    w.notify_and_work(INPUT);
    w.errors += 3;
    w.request(OUTPUT, READ, 5, 0, &[(5, 16)]);
    w.notify_and_work(OUTPUT);
    w.end("zeroes")
}

/// Requests of which some fail, alone and beside others; those are asked for again in part.
fn retry() -> Session {
    let mut w = Writer::new(FAULTY);
    for disk in [INPUT, OUTPUT] {
        let kind = if disk == INPUT { READ } else { WRITE };
        for slot in 0..4 {
            w.request(disk, kind, slot, 48 + slot * 8, &[(slot, 8)]);
        }
        w.notify_and_work(disk);
        w.request(disk, kind, 4, 56, &[(0, 16)]);
        w.request(disk, kind, 5, 60, &[(0, 4)]);
        w.notify_and_work(disk);
        // Bytes 0x8000 to 0x9000 are sectors 64 to 72.
        w.errors += 2;
    }
    w.end("retry")
}

/// A queue that is so short that its indices wrap.
fn many_rounds() -> Session {
    let mut w = Writer::new(STOPPED);
    w.start(INPUT, 0, 2);
    for round in 0..20 {
        w.request(INPUT, READ, round % 4, round, &[(round % 8, 1)]);
        w.notify_and_work(INPUT);
    }
    w.end("many-rounds")
}

/// Notifications that are asked for by index.
fn event_index() -> Session {
    let mut w = Writer::new(STOPPED);
    for disk in [INPUT, OUTPUT] {
        let kind = if disk == INPUT { READ } else { WRITE };
        w.start(disk, 3, 4);
        for slot in 0..3 {
            w.request(disk, kind | INDIRECT, slot, slot, &[(slot, 1)]);
            w.notify_and_work(disk);
            w.read_register(disk, reg::VIRTIO_MMIO_INTERRUPT_STATUS);
        }
    }
    w.end("event-index")
}

/// A driver that gives its queue back and starts the disk again.
fn restart() -> Session {
    let mut w = Writer::new(0);
    for size in [3, 6, 10] {
        w.request(OUTPUT, WRITE, 0, size, &[(0, 1)]);
        w.notify_and_work(OUTPUT);
        w.write_register(OUTPUT, reg::VIRTIO_MMIO_QUEUE_SEL, 0);
        w.write_register(OUTPUT, reg::VIRTIO_MMIO_QUEUE_READY, 0);
        w.read_register(OUTPUT, reg::VIRTIO_MMIO_QUEUE_READY);
        w.start(OUTPUT, 1, size);
    }
    w.end("restart")
}

/// Queues that a disk has to refuse: of a wrong size, not aligned, on top of each other, out of
/// memory. After each of them the driver asks for nothing; after a right one it does.
fn misplaced() -> Session {
    let mut w = Writer::new(STOPPED);
    w.start_by_steps(INPUT, 3, [0, 0, 0]);
    w.start_by_steps(INPUT, 16, [8, 0, 0]);
    w.start_by_steps(INPUT, 16, [0, 0x2000, 0]);
    w.start_by_steps(INPUT, 16, [0, 0, 0x7000_0000]);
    w.notify_and_work(INPUT);
    // The driver does not learn the size of a queue that it has set by registers alone, so the
    // request goes through an indirect table.
    w.start_by_steps(INPUT, 16, [0, 0, 0]);
    w.request(INPUT, READ | INDIRECT, 0, 0, &[(0, 1)]);
    w.notify_and_work(INPUT);
    w.end("misplaced")
}

/// More than a disk does before it lets others have their turn.
fn long_round() -> Session {
    let mut w = Writer::new(STOPPED | LARGE);
    w.start(INPUT, 1, 7);
    w.repeat_large(INPUT, READ, 100);
    w.notify_and_work(INPUT);
    w.notify_and_work(INPUT);
    w.end("long-round")
}
