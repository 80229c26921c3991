//! Virtio steps for a [`Program`]: initialisation, queues and block requests, each of which a
//! hostile driver can do wrong (virtio 1.2, sections 2.7, 3.1, 4.2.2 and 5.2.6).
#![allow(
    clippy::cast_possible_truncation,
    reason = "registers take 64-bit addresses in halves"
)]

use guest_abi::layout::{
    CONSOLE_SLOT, INPUT_MMIO, INPUT_QUEUE, OUTPUT_MMIO, OUTPUT_QUEUE, queue, registers,
};

use super::program::Program;

pub(crate) const STATUS: u64 = 0x70;
pub(crate) const QUEUE_NOTIFY: u64 = 0x50;
pub(crate) const INTERRUPT_STATUS: u64 = 0x60;
pub(crate) const INTERRUPT_ACK: u64 = 0x64;
pub(crate) const QUEUE_NUM: u64 = 0x38;
pub(crate) const QUEUE_READY: u64 = 0x44;
pub(crate) const QUEUE_SEL: u64 = 0x30;
const DRIVER_FEATURES: u64 = 0x20;
const DRIVER_FEATURES_SEL: u64 = 0x24;
const QUEUE_DESC: u64 = 0x80;
const QUEUE_AVAIL: u64 = 0x90;
const QUEUE_USED: u64 = 0xa0;

pub(crate) const FEATURES_OK: u32 = 1 | 2 | 8;
pub(crate) const DRIVER_OK: u32 = FEATURES_OK | 4;
/// The device status of a disk that has stopped.
pub(crate) const NEEDS_RESET: u32 = DRIVER_OK | 0x40;

pub(crate) const VERSION_1: u64 = 1 << 32;
/// DISCARD and WRITE_ZEROES, of a disk.
pub(crate) const F_ZEROES: u64 = 1 << 13 | 1 << 14;
pub(crate) const INDIRECT_DESC: u64 = 1 << 28;

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

pub(crate) const IN: u32 = 0;
pub(crate) const OUT: u32 = 1;
pub(crate) const FLUSH: u32 = 4;
pub(crate) const GET_ID: u32 = 8;

pub(crate) const OK: u8 = 0;
pub(crate) const IOERR: u8 = 1;
pub(crate) const UNSUPP: u8 = 2;
/// What a status byte holds before the device answers.
pub(crate) const UNANSWERED: u8 = 0xff;

/// The queue size that the programs use.
pub(crate) const SIZE: u16 = 16;
/// What a sector of the wire format has, in bytes.
pub(crate) const SECTOR: u32 = 512;

/// A disk as the programs use it: its registers, and where in its queue's 64 KiB things lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Disk {
    pub(crate) registers: u64,
    pub(crate) queue: u64,
}

pub(crate) const INPUT: Disk = Disk {
    registers: INPUT_MMIO,
    queue: INPUT_QUEUE,
};
pub(crate) const OUTPUT: Disk = Disk {
    registers: OUTPUT_MMIO,
    queue: OUTPUT_QUEUE,
};

/// The console, whose transmit queue is laid out as a disk's queue.
pub(crate) const CONSOLE: Disk = Disk {
    registers: registers(CONSOLE_SLOT),
    queue: queue(CONSOLE_SLOT),
};

impl Disk {
    pub(crate) fn register(self, offset: u64) -> u64 {
        self.registers + offset
    }

    pub(crate) fn desc(self) -> u64 {
        self.queue
    }

    pub(crate) fn avail(self) -> u64 {
        self.queue + 0x8000
    }

    pub(crate) fn used(self) -> u64 {
        self.queue + 0xa000
    }

    /// Where the header of request `slot` is.
    pub(crate) fn header(self, slot: u16) -> u64 {
        self.queue + 0xe000 + 16 * u64::from(slot)
    }

    /// Where the status byte of request `slot` is.
    pub(crate) fn status(self, slot: u16) -> u64 {
        self.queue + 0xf000 + u64::from(slot)
    }

    /// Index of the first of the three descriptors of request `slot`.
    pub(crate) fn head(slot: u16) -> u16 {
        3 * slot
    }
}

/// A descriptor of the split virtqueue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor {
    pub(crate) address: u64,
    pub(crate) len: u32,
    pub(crate) flags: u16,
    pub(crate) next: u16,
}

pub(crate) fn descriptor(address: u64, len: u32, flags: u16, next: u16) -> Descriptor {
    Descriptor {
        address,
        len,
        flags,
        next,
    }
}

impl Program {
    /// Resets the disk and negotiates `features`.
    pub(crate) fn init_device(self, disk: Disk, features: u64) -> Self {
        let [low, high] = [features & 0xffff_ffff, features >> 32].map(|half| half as u32);
        self.store32(disk.register(STATUS), 0)
            .store32(disk.register(STATUS), 1)
            .store32(disk.register(STATUS), 1 | 2)
            .store32(disk.register(DRIVER_FEATURES_SEL), 0)
            .store32(disk.register(DRIVER_FEATURES), low)
            .store32(disk.register(DRIVER_FEATURES_SEL), 1)
            .store32(disk.register(DRIVER_FEATURES), high)
            .store32(disk.register(STATUS), FEATURES_OK)
    }

    /// Tells the disk where its queue is: the addresses of table, available and used ring.
    pub(crate) fn set_queue(self, disk: Disk, size: u32, areas: [u64; 3]) -> Self {
        self.set_queue_of(disk, 0, size, areas)
    }

    /// The same for one of several queues.
    fn set_queue_of(self, disk: Disk, index: u32, size: u32, areas: [u64; 3]) -> Self {
        let mut program = self
            .store32(disk.register(QUEUE_SEL), index)
            .store32(disk.register(QUEUE_NUM), size);
        for (register, area) in [QUEUE_DESC, QUEUE_AVAIL, QUEUE_USED].into_iter().zip(areas) {
            program = program
                .store32(disk.register(register), area as u32)
                .store32(disk.register(register + 4), (area >> 32) as u32);
        }
        program.store32(disk.register(QUEUE_READY), 1)
    }

    pub(crate) fn driver_ok(self, disk: Disk) -> Self {
        self.store32(disk.register(STATUS), DRIVER_OK)
    }

    /// Empty rings, as after power-on.
    pub(crate) fn clear_rings(self, disk: Disk) -> Self {
        self.store32(disk.avail(), 0).store32(disk.used(), 0)
    }

    /// Everything up to a disk that takes requests, as the specification wants it.
    pub(crate) fn start_disk(self, disk: Disk) -> Self {
        self.start_disk_with(disk, VERSION_1)
    }

    pub(crate) fn start_disk_with(self, disk: Disk, features: u64) -> Self {
        self.init_device(disk, features)
            .clear_rings(disk)
            .set_queue(disk, SIZE.into(), [disk.desc(), disk.avail(), disk.used()])
            .driver_ok(disk)
            .expect32(disk.register(STATUS), DRIVER_OK)
    }

    /// Everything up to a console whose transmit queue takes buffers; its other queue stays empty.
    pub(crate) fn start_console(self) -> Self {
        let empty = [0x1000, 0x2000, 0x3000].map(|offset| CONSOLE.queue + offset);
        let transmit = [CONSOLE.desc(), CONSOLE.avail(), CONSOLE.used()];
        self.init_device(CONSOLE, VERSION_1)
            .clear_rings(CONSOLE)
            .set_queue_of(CONSOLE, 0, SIZE.into(), empty)
            .set_queue_of(CONSOLE, 1, SIZE.into(), transmit)
            .driver_ok(CONSOLE)
            .expect32(CONSOLE.register(STATUS), DRIVER_OK)
    }

    /// Offers `len` bytes at `data` to the console's transmit queue, as buffer `position`, counted
    /// since the start, and notifies it.
    pub(crate) fn transmit(self, position: u16, data: u64, len: u32) -> Self {
        let head = position % SIZE;
        self.write_descriptor(CONSOLE.desc(), head, descriptor(data, len, 0, 0))
            .make_available(CONSOLE, position, head)
            .store32(CONSOLE.register(QUEUE_NOTIFY), 1)
    }

    pub(crate) fn write_descriptor(self, table: u64, index: u16, content: Descriptor) -> Self {
        let address = table + 16 * u64::from(index);
        self.store64(address, content.address)
            .store32(address + 8, content.len)
            .store16(address + 12, content.flags)
            .store16(address + 14, content.next)
    }

    /// Puts `head` at the available ring's `position`, counted since the start, and moves the
    /// index behind it.
    pub(crate) fn make_available(self, disk: Disk, position: u16, head: u16) -> Self {
        self.store16(disk.avail() + 4 + 2 * u64::from(position % SIZE), head)
            .store16(disk.avail() + 2, position.wrapping_add(1))
    }

    pub(crate) fn kick(self, disk: Disk) -> Self {
        self.store32(disk.register(QUEUE_NOTIFY), 0)
    }

    pub(crate) fn write_header(self, disk: Disk, slot: u16, kind: u32, sector: u64) -> Self {
        self.store32(disk.header(slot), kind)
            .store32(disk.header(slot) + 4, 0)
            .store64(disk.header(slot) + 8, sector)
            .store8(disk.status(slot), UNANSWERED)
    }

    /// Asks for `len` bytes at wire sector `sector`, into or out of `data`, as request `slot`,
    /// the one after `slot - 1` others.
    pub(crate) fn request(self, disk: Disk, slot: u16, kind: u32, at: (u64, u64, u32)) -> Self {
        let direction = if kind == OUT { 0 } else { WRITE };
        self.request_in_direction(disk, slot, kind, at, direction)
    }

    /// The same for a request of any kind whose data goes to the device.
    pub(crate) fn request_out(self, disk: Disk, slot: u16, kind: u32, at: (u64, u64, u32)) -> Self {
        self.request_in_direction(disk, slot, kind, at, 0)
    }

    fn request_in_direction(
        self,
        disk: Disk,
        slot: u16,
        kind: u32,
        at: (u64, u64, u32),
        direction: u16,
    ) -> Self {
        let (sector, data, len) = at;
        let head = Disk::head(slot);
        self.write_header(disk, slot, kind, sector)
            .chain(
                disk,
                head,
                &[
                    descriptor(disk.header(slot), 16, NEXT, head + 1),
                    descriptor(data, len, NEXT | direction, head + 2),
                    descriptor(disk.status(slot), 1, WRITE, 0),
                ],
            )
            .make_available(disk, slot, head)
            .kick(disk)
    }

    /// Writes `descriptors` to the disk's table from `head` up.
    pub(crate) fn chain(self, disk: Disk, head: u16, descriptors: &[Descriptor]) -> Self {
        (head..)
            .zip(descriptors)
            .fold(self, |program, (index, content)| {
                program.write_descriptor(disk.desc(), index, *content)
            })
    }

    /// Waits for the answer to request `slot`, and gives up unless it is `status`.
    pub(crate) fn expect_answer(self, disk: Disk, slot: u16, status: u8) -> Self {
        self.idle_while8(disk.status(slot), UNANSWERED)
            .expect8(disk.status(slot), status)
    }

    /// Gives up unless the disk has stopped and says that it needs a reset. The disk's thread may
    /// not have come to it yet, which the idle port waits for.
    pub(crate) fn expect_stopped(self, disk: Disk) -> Self {
        self.idle_while32(disk.register(STATUS), DRIVER_OK)
            .expect32(disk.register(STATUS), NEEDS_RESET)
    }
}
