//! Writes actions as the bytes that [`Action::take`](super::action::Action::take) reads.

use super::super::encoder::Encoder;
use super::Passed;
use super::action::MOST_BYTES;
use super::device::CAPACITY;

/// An honest session, and what passes through the console in it.
pub struct Session {
    /// Of its file.
    pub name: &'static str,
    /// The input.
    pub bytes: Vec<u8>,
    /// What has passed before the console is examined.
    pub passed: Passed,
}

/// An input that is being written.
pub struct Writer(Encoder);

impl Writer {
    /// Of a console that is started, if `setup` is 0; examined with 700 bytes, 100 at a time.
    pub fn new(setup: u8) -> Self {
        let mut bytes = Encoder::default();
        bytes.byte(setup);
        bytes.int(700, 1..=3 * CAPACITY as u64);
        bytes.int(100, 16..=CAPACITY as u64);
        Self(bytes)
    }

    pub fn end(self, name: &'static str, transmitted: usize, received: u64, used: u64) -> Session {
        Session {
            name,
            bytes: self.0.finish(),
            passed: Passed {
                transmitted,
                received,
                used,
            },
        }
    }

    pub fn write_register(&mut self, register: u32, value: u32) {
        self.0.byte(0);
        self.0.int(0, 0..=7);
        self.0.int(u64::from(register) / 4, 0..=0x40);
        self.0.int(4, 0..=7);
        self.0.raw(&value.to_le_bytes());
    }

    pub fn read_register(&mut self, register: u32) {
        self.0.byte(2);
        self.0.int(0, 0..=7);
        self.0.int(u64::from(register) / 4, 0..=0x40);
        self.0.int(3, 0..=8);
    }

    /// With INDIRECT_DESC if bit 0 of `features` is set, and EVENT_IDX if bit 1 is.
    pub fn start(&mut self, features: u8, sizes_log2: [u64; 2]) {
        self.0.byte(3);
        self.0.byte(features);
        sizes_log2.iter().for_each(|&size| self.0.int(size, 0..=6));
    }

    /// A chain of buffers for the right direction: places in the pool, 64 KiB apart, and lengths.
    pub fn chain(&mut self, queue: u8, parts: &[(u64, u64)], indirect: Option<u64>) {
        self.0.byte(queue | 8);
        self.0.int(parts.len() as u64, 1..=4);
        for &(place, len) in parts {
            self.0.int(place, 0..=15);
            self.0.byte(0);
            self.0.int(len, 0..=400);
        }
        let table = indirect.map_or(0, |table| table + 32);
        self.0.int(table, 0..=63);
    }

    pub fn notify(&mut self, queue: u8) {
        self.0.byte(queue | 20);
    }

    pub fn work(&mut self, queue: u8) {
        self.0.byte(queue | 31);
    }

    pub fn help_and_leave(&mut self) {
        self.0.byte(22);
        self.0.byte(23);
    }

    pub fn take(&mut self, most: u64) {
        self.0.byte(24);
        self.0.int(most, 0..=MOST_BYTES as u64);
    }

    pub fn send(&mut self, len: u64) {
        self.0.byte(26);
        self.0.int(len, 0..=MOST_BYTES as u64);
    }

    /// Says whether more is to come; or, if that is `None`, that nobody reads any more.
    pub fn expect(&mut self, more: Option<bool>) {
        self.0.byte(28);
        self.0.int(more.map_or(15, u64::from), 0..=15);
    }
}
