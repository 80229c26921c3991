//! Writes actions of a driver as the bytes that [`Action::take`](super::action::Action::take) reads,
//! and counts the requests among them.

use virtio_bindings::virtio_mmio as reg;

use super::super::encoder::Encoder;
use super::super::virtio::queue::QueueLayout;
use super::Answers;

/// An honest session, and what the disks answer to it.
pub struct Session {
    /// Of its file.
    pub name: &'static str,
    /// The input.
    pub bytes: Vec<u8>,
    /// How many requests there are, and how many of them fail.
    pub answers: Answers,
}

/// An input that is being written.
pub struct Writer {
    bytes: Encoder,
    requests: u64,
    /// How many of the requests will fail.
    pub errors: u64,
}

impl Writer {
    pub fn new(setup: u8) -> Self {
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

    pub fn end(self, name: &'static str) -> Session {
        Session {
            name,
            bytes: self.bytes.finish(),
            answers: Answers {
                requests: self.requests,
                errors: self.errors,
            },
        }
    }

    pub fn read_register(&mut self, disk: u8, register: u32) {
        self.bytes.byte(disk | 3);
        self.bytes.int(0, 0..=7);
        self.bytes.int(u64::from(register) / 4, 0..=0x40);
        self.bytes.int(3, 0..=8);
    }

    pub fn write_register(&mut self, disk: u8, register: u32, value: u32) {
        self.bytes.byte(disk);
        self.bytes.int(0, 0..=7);
        self.bytes.int(u64::from(register) / 4, 0..=0x40);
        self.bytes.int(4, 0..=7);
        self.bytes.raw(&value.to_le_bytes());
    }

    /// With INDIRECT_DESC if bit 0 of `features` is set, and EVENT_IDX if bit 1 is.
    pub fn start(&mut self, disk: u8, features: u8, size_log2: u64) {
        self.bytes.byte(disk | 4);
        self.bytes.byte(features);
        self.bytes.int(size_log2, 0..=11);
    }

    /// Every step of the initialisation on its own: size of the queue, and how far its three areas
    /// are moved from where they belong.
    pub fn start_by_steps(&mut self, disk: u8, size: u32, moved: [u32; 3]) {
        let queue = QueueLayout::of(usize::from(disk >> 7));
        let areas = [queue.table(), queue.avail(), queue.used()].map(|at| at as u32);
        for (register, value) in [
            (reg::VIRTIO_MMIO_STATUS, 0),
            (reg::VIRTIO_MMIO_STATUS, 1),
            (reg::VIRTIO_MMIO_STATUS, 3),
            (reg::VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1),
            (reg::VIRTIO_MMIO_DRIVER_FEATURES, 1),
            (reg::VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0),
            (reg::VIRTIO_MMIO_DRIVER_FEATURES, 1 << 28),
            (reg::VIRTIO_MMIO_STATUS, 0xb),
            (reg::VIRTIO_MMIO_QUEUE_NUM, size),
            (reg::VIRTIO_MMIO_QUEUE_DESC_LOW, areas[0] + moved[0]),
            (reg::VIRTIO_MMIO_QUEUE_AVAIL_LOW, areas[1] + moved[1]),
            (reg::VIRTIO_MMIO_QUEUE_USED_LOW, areas[2] + moved[2]),
            (reg::VIRTIO_MMIO_QUEUE_READY, 1),
            (reg::VIRTIO_MMIO_STATUS, 0xf),
        ] {
            self.write_register(disk, register, value);
        }
    }

    /// `data` are places in the pool, 64 KiB apart, each with so many wire sectors.
    pub fn request(&mut self, disk: u8, kind: u8, slot: u64, sector: u64, data: &[(u64, u64)]) {
        self.begin(disk, kind, data);
        self.finish(slot, sector);
    }

    /// A request of four times 64 KiB, which is available `times` times: a ring that nobody has
    /// written to names descriptor 0 in each place.
    pub fn repeat_large(&mut self, disk: u8, kind: u8, times: u16) {
        self.bytes.byte(disk | 12);
        self.bytes.int(4, 0..=4);
        self.bytes.byte(kind);
        for place in 0..4 {
            self.bytes.int(place, 0..=15);
            // The favoured length with the number 12.
            self.bytes.int(7, 0..=7);
            self.bytes.int(0, 0..=7);
            self.bytes.int(12, 0..=13);
        }
        self.finish(0, 0);
        self.bytes.byte(disk | 23);
        self.bytes.raw(&times.to_le_bytes());
        self.requests += u64::from(times) - 1;
    }

    /// Makes parts of a disk zero: which of the favoured sectors each begins with, how many times 8
    /// sectors it has, and whether it need not take room.
    pub fn zeroes(&mut self, disk: u8, kind: u8, slot: u64, parts: &[(u64, u64, bool)]) {
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

    pub fn notify_and_work(&mut self, disk: u8) {
        self.bytes.byte(disk | 25);
        self.bytes.byte(disk | 31);
    }

    pub fn help(&mut self, disk: u8) {
        self.bytes.byte(disk | 27);
    }

    pub fn leave(&mut self, disk: u8) {
        self.bytes.byte(disk | 28);
    }
}
