//! Sessions of an honest driver as inputs: what a fuzzer would take long to find, and bends from
//! then on. It writes the bytes that [`Action::take`](super::action::Action::take) reads.

use virtio_bindings::virtio_mmio as reg;

use super::super::encoder::Encoder;
use super::Answers;

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

/// An honest session, and what the disks answer to it.
pub struct Session {
    /// Of its file.
    pub name: &'static str,
    /// The input.
    pub bytes: Vec<u8>,
    /// How many requests there are, and how many of them fail.
    pub answers: Answers,
}

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
    ]
}

struct Writer {
    bytes: Encoder,
    requests: u64,
    errors: u64,
}

impl Writer {
    fn new(setup: u8) -> Self {
        let mut bytes = Encoder::default();
        bytes.byte(setup);
        // What is asked for in the end: 8 sectors of the start.
        bytes.byte(0);
        bytes.int(0, 0..=1100);
        bytes.int(8, 0..=24);
        Self {
            bytes,
            requests: 0,
            errors: 0,
        }
    }

    fn end(self, name: &'static str) -> Session {
        Session {
            name,
            bytes: self.bytes.finish(),
            answers: Answers {
                requests: self.requests,
                errors: self.errors,
            },
        }
    }

    fn read_register(&mut self, disk: u8, register: u32) {
        self.bytes.byte(disk | 3);
        self.bytes.int(0, 0..=7);
        self.bytes.int(u64::from(register) / 4, 0..=0x40);
        self.bytes.int(3, 0..=8);
    }

    fn write_register(&mut self, disk: u8, register: u32, value: u32) {
        self.bytes.byte(disk);
        self.bytes.int(0, 0..=7);
        self.bytes.int(u64::from(register) / 4, 0..=0x40);
        self.bytes.int(4, 0..=7);
        self.bytes.raw(&value.to_le_bytes());
    }

    /// With INDIRECT_DESC if bit 0 of `features` is set, and EVENT_IDX if bit 1 is.
    fn start(&mut self, disk: u8, features: u8, size_log2: u64) {
        self.bytes.byte(disk | 4);
        self.bytes.byte(features);
        self.bytes.int(size_log2, 0..=11);
    }

    /// `data` are places in the pool, 64 KiB apart, each with so many wire sectors.
    fn request(&mut self, disk: u8, kind: u8, slot: u64, sector: u64, data: &[(u64, u64)]) {
        self.begin(disk, kind, data);
        self.finish(slot, sector);
    }

    /// Makes parts of a disk zero: which of the favoured sectors each begins with, how many times 8
    /// sectors it has, and whether it need not take room.
    fn zeroes(&mut self, disk: u8, kind: u8, slot: u64, parts: &[(u64, u64, bool)]) {
        self.begin(disk, kind, &[(slot, 1)]);
        self.bytes.int(parts.len() as u64, 0..=4);
        for &(sector, eights, unmap) in parts {
            self.bytes.byte(u8::from(unmap) << 7);
            self.bytes.int(sector, 0..=9);
            self.bytes.int(eights, 0..=16);
        }
        self.finish(slot, 0);
    }

    fn begin(&mut self, disk: u8, kind: u8, data: &[(u64, u64)]) {
        self.bytes.byte(disk | 12);
        self.bytes.int(data.len() as u64, 0..=4);
        self.bytes.byte(kind);
        for &(place, sectors) in data {
            self.bytes.int(place, 0..=15);
            self.bytes.int(0, 0..=7);
            self.bytes.int(sectors, 1..=16);
        }
    }

    fn finish(&mut self, slot: u64, sector: u64) {
        self.bytes.int(slot, 0..=31);
        self.bytes.int(3, 0..=7);
        self.bytes.int(sector, 0..=140);
        self.requests += 1;
    }

    fn notify_and_work(&mut self, disk: u8) {
        self.bytes.byte(disk | 25);
        self.bytes.byte(disk | 31);
    }

    fn help(&mut self, disk: u8) {
        self.bytes.byte(disk | 27);
    }

    fn leave(&mut self, disk: u8) {
        self.bytes.byte(disk | 28);
    }
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
