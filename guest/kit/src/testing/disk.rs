//! A virtio block device on virtio-mmio, with a disk in memory.

use std::cell::{RefCell, RefMut};
use std::collections::HashSet;
use std::rc::Rc;

use super::memory::{load, load_bytes, store, store_bytes};
use super::{Chooser, Device};
use crate::hardware::Registers;
use crate::virtio::block::{F_BLK_SIZE, F_FLUSH, F_RO, F_SIZE_MAX, F_WRITE_ZEROES};
use crate::virtio::mmio::{F_EVENT_IDX, F_VERSION_1, register, status};
use crate::virtio::ring::{DESC_NEXT, DESC_WRITE, passes};

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mischief {
    UsedId(u32),
    UsedIndex,
    Written(u32),
    NoStatus,
    NeedsReset,
}

/// A request that changed the disk, or made that durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// So many bytes were written at this offset.
    Write(u64, u64),
    /// Parts were made zero.
    Zero,
    Flush,
}

pub struct DiskState {
    pub data: Vec<u8>,
    pub sector_size: u32,
    pub features: u64,
    pub queue_max: u32,
    pub size_max: u32,
    /// Byte offsets; a request that covers one fails.
    pub bad: HashSet<u64>,
    /// Requests that fail, counted from the first, though nothing is wrong with the disk.
    pub hiccups: HashSet<usize>,
    pub flush_fails: bool,
    /// Most sectors of a part that is made zero, and most parts of a request.
    pub zero_limits: (u32, u32),
    /// What requests to make parts zero get, if not success.
    pub zeroes_fail: Option<u8>,
    /// What was made zero without data: first byte and length.
    pub zeroed: Vec<(u64, u64)>,
    /// A byte that is stored wrong.
    pub corrupt: Option<usize>,
    /// A byte that can be written but not read.
    pub unreadable: Option<u64>,
    /// A read that begins at this byte is answered only when so many other requests have been.
    pub late: Option<(u64, usize)>,
    /// Bytes that were read.
    pub bytes_read: u64,
    /// From this request on, this goes wrong.
    pub mischief: Option<(usize, Mischief)>,
    pub refuse_features: bool,
    /// Every register write, and how many accesses there were.
    pub writes: Vec<(u16, u32)>,
    pub accesses: usize,
    pub kicks: usize,
    pub served: usize,
    pub flushes: usize,
    /// What was served that changes the disk, in order.
    pub changes: Vec<Change>,
    pub most_at_once: usize,
    pub notified: bool,
    pub status: u32,
    pub accepted: u64,
    sel: [u32; 2],
    queue_num: u32,
    queue_ready: u32,
    addresses: [u32; 12],
    seen: u16,
    used: u16,
    heads: Vec<u16>,
    choose: Chooser,
}

pub struct FakeDisk(RefCell<DiskState>);

impl FakeDisk {
    pub fn new(data: Vec<u8>, sector_size: u32, seed: u64) -> Rc<Self> {
        Rc::new(Self(RefCell::new(DiskState {
            data,
            sector_size,
            features: F_VERSION_1 | F_EVENT_IDX | F_BLK_SIZE | F_FLUSH,
            queue_max: 256,
            size_max: 0,
            bad: HashSet::new(),
            hiccups: HashSet::new(),
            flush_fails: false,
            zero_limits: (u32::MAX, 256),
            zeroes_fail: None,
            zeroed: Vec::new(),
            corrupt: None,
            unreadable: None,
            late: None,
            bytes_read: 0,
            mischief: None,
            refuse_features: false,
            writes: Vec::new(),
            accesses: 0,
            kicks: 0,
            served: 0,
            flushes: 0,
            changes: Vec::new(),
            most_at_once: 0,
            notified: false,
            status: 0,
            accepted: 0,
            sel: [0; 2],
            queue_num: 0,
            queue_ready: 0,
            addresses: [0; 12],
            seen: 0,
            used: 0,
            heads: Vec::new(),
            choose: Chooser::new(seed),
        })))
    }

    pub fn get(&self) -> RefMut<'_, DiskState> {
        self.0.borrow_mut()
    }
}

impl Device for FakeDisk {
    fn take_notification(&self) -> bool {
        let failed = self.get().status & status::DEVICE_NEEDS_RESET != 0;
        std::mem::take(&mut self.get().notified) || failed
    }

    fn is_busy(&self) -> bool {
        let disk = self.get();
        !disk.ready().is_empty() && disk.status & status::DEVICE_NEEDS_RESET == 0
    }

    fn work(&self) {
        let mut disk = self.get();
        let count = 1 + disk.choose.below(4);
        disk.work(count);
    }
}

impl Registers for Rc<FakeDisk> {
    fn read(&self, offset: u16) -> u32 {
        self.get().read(offset)
    }

    fn write(&self, offset: u16, value: u32) {
        self.get().write(offset, value);
    }
}

impl DiskState {
    fn read(&mut self, offset: u16) -> u32 {
        self.accesses += 1;
        let capacity = self.data.len() as u64 / 512;
        match offset {
            register::MAGIC_VALUE => 0x7472_6976,
            register::VERSION | register::DEVICE_ID => 2,
            register::DEVICE_FEATURES => (self.features >> (32 * self.sel[0])) as u32,
            register::QUEUE_READY => self.queue_ready,
            register::QUEUE_NUM_MAX => self.queue_max,
            register::STATUS => self.status,
            register::CONFIG_GENERATION => 0,
            register::CONFIG => capacity as u32,
            0x104 => (capacity >> 32) as u32,
            0x108 if self.accepted & F_SIZE_MAX != 0 => self.size_max,
            0x114 if self.accepted & F_BLK_SIZE != 0 => self.sector_size,
            0x130 if self.accepted & F_WRITE_ZEROES != 0 => self.zero_limits.0,
            0x134 if self.accepted & F_WRITE_ZEROES != 0 => self.zero_limits.1,
            _ => panic!("read of register {offset:#x}"),
        }
    }

    fn write(&mut self, offset: u16, value: u32) {
        self.accesses += 1;
        self.writes.push((offset, value));
        match offset {
            register::STATUS => self.set_status(value),
            register::DEVICE_FEATURES_SEL => self.sel[0] = value,
            register::DRIVER_FEATURES_SEL => self.sel[1] = value,
            register::DRIVER_FEATURES => {
                assert_eq!(self.status, status::ACKNOWLEDGE | status::DRIVER);
                self.accepted |= u64::from(value) << (32 * self.sel[1]);
            }
            register::QUEUE_SEL => assert_eq!(value, 0),
            register::QUEUE_NUM => {
                assert!(value.is_power_of_two() && value <= self.queue_max);
                self.queue_num = value;
            }
            register::QUEUE_READY => {
                assert_eq!(self.status, 11);
                self.queue_ready = value;
            }
            register::QUEUE_NOTIFY => {
                assert_eq!(value, 0);
                self.kicks += 1;
                self.kick();
            }
            0x80..=0xa4 => self.addresses[usize::from(offset - 0x80) / 4] = value,
            _ => panic!("write to register {offset:#x}"),
        }
    }

    fn set_status(&mut self, value: u32) {
        self.status = value;
        if value & status::FEATURES_OK != 0 && value & status::DRIVER_OK == 0 {
            assert_eq!(self.accepted & !self.features, 0, "features not offered");
            if self.refuse_features {
                self.status &= !status::FEATURES_OK;
            }
        }
        if value & status::DRIVER_OK != 0 {
            assert_eq!((value, self.queue_ready), (15, 1));
        }
    }

    fn part(&self, register: u16) -> u64 {
        let index = usize::from(register - 0x80) / 4;
        u64::from(self.addresses[index]) | u64::from(self.addresses[index + 1]) << 32
    }

    fn descriptor(&self, index: u16) -> (u64, u32, u16, u16) {
        assert!(u32::from(index) < self.queue_num);
        let at = self.part(register::QUEUE_DESC) + 16 * u64::from(index);
        (load(at), load(at + 8), load(at + 12), load(at + 14))
    }

    /// A kick: the only thing that wakes a device that has nothing to do.
    pub fn kick(&mut self) {
        assert_eq!(self.status & status::DRIVER_OK, status::DRIVER_OK);
        if self.status & status::DEVICE_NEEDS_RESET != 0 {
            return;
        }
        self.look();
        // It may get to work at once, or wait until the driver does.
        let count = self.choose.below(3);
        self.work(count);
    }

    /// Takes what was offered since the last look.
    fn look(&mut self) {
        let avail = self.part(register::QUEUE_DRIVER);
        let index: u16 = load(avail + 2);
        while self.seen != index {
            let slot = u64::from(self.seen) % u64::from(self.queue_num);
            self.heads.push(load(avail + 4 + 2 * slot));
            self.seen = self.seen.wrapping_add(1);
        }
        self.most_at_once = self.most_at_once.max(self.heads.len());
    }

    /// The indices of the requests that may be answered.
    fn ready(&self) -> Vec<usize> {
        let all = 0..self.heads.len();
        all.filter(|index| !self.is_late(self.heads[*index]))
            .collect()
    }

    fn is_late(&self, head: u16) -> bool {
        let Some((byte, _)) = self.late.filter(|(_, others)| self.served < *others) else {
            return false;
        };
        let header = self.descriptor(head).0;
        load::<u32>(header) == 0 && 512 * load::<u64>(header + 8) == byte
    }

    fn work(&mut self, count: usize) {
        let old = self.used;
        for _ in 0..count {
            let ready = self.ready();
            if ready.is_empty() {
                break;
            }
            let index = self.choose.below(ready.len());
            let head = self.heads.remove(ready[index]);
            let due = self.mischief.filter(|(from, _)| self.served >= *from);
            self.served += 1;
            if let Some((_, Mischief::NeedsReset)) = due {
                self.status |= status::DEVICE_NEEDS_RESET;
                self.notified = true;
                return;
            }
            self.answer(head, due.map(|(_, mischief)| mischief));
            // A device that works looks for more by itself.
            self.look();
        }
        self.ask_for_kicks();
        self.notify(old);
    }

    fn answer(&mut self, head: u16, mischief: Option<Mischief>) {
        let (code, mut written, at) = self.serve(head);
        if mischief != Some(Mischief::NoStatus) {
            store(at, code);
        }
        let mut id = u32::from(head);
        match mischief {
            Some(Mischief::UsedId(wrong)) => id = wrong,
            Some(Mischief::Written(wrong)) => written = wrong,
            _ => {}
        }
        let ring = self.part(register::QUEUE_DEVICE);
        let element = ring + 4 + 8 * (u64::from(self.used) % u64::from(self.queue_num));
        store(element, id);
        store(element + 4, written);
        self.used = self.used.wrapping_add(1);
        let ahead = match mischief {
            Some(Mischief::UsedIndex) => 1000,
            _ => 0,
        };
        store(ring + 2, self.used.wrapping_add(ahead));
    }

    /// Does one request: its status, the bytes written, and where the status belongs.
    fn serve(&mut self, head: u16) -> (u8, u32, u64) {
        let (header, len, flags, next) = self.descriptor(head);
        assert_eq!((len, flags), (16, DESC_NEXT));
        let (kind, reserved, sector): (u32, u32, u64) =
            (load(header), load(header + 4), load(header + 8));
        assert_eq!(reserved, 0);
        let (address, len, flags, next) = self.descriptor(next);
        if kind == 4 {
            assert_eq!((len, flags, sector), (1, DESC_WRITE, 0));
            assert_ne!(self.accepted & F_FLUSH, 0);
            self.flushes += 1;
            self.changes.push(Change::Flush);
            return (u8::from(self.flush_fails), 1, address);
        }
        let (at, one, writable, _) = self.descriptor(next);
        assert_eq!((one, writable), (1, DESC_WRITE));
        if kind == 13 {
            assert_eq!((flags, sector), (DESC_NEXT, 0));
            return (self.zero(address, len), 1, at);
        }
        let (start, bytes) = (sector as usize * 512, len as usize);
        let sector_size = self.sector_size as usize;
        assert!(bytes > 0 && bytes % sector_size == 0 && start % sector_size == 0);
        assert!(start + bytes <= self.data.len(), "beyond the disk's end");
        assert!(self.accepted & F_SIZE_MAX == 0 || len <= self.size_max);
        let range = start as u64..(start + bytes) as u64;
        let lost = kind == 0 && self.unreadable.is_some_and(|bad| range.contains(&bad));
        let bad = self.bad.iter().any(|bad| range.contains(bad));
        if bad || lost || self.hiccups.contains(&self.served) {
            return (1, 1, at);
        }
        let data = &mut self.data[start..start + bytes];
        if kind == 0 {
            assert_eq!(flags, DESC_NEXT | DESC_WRITE);
            store_bytes(address, data);
            self.bytes_read += u64::from(len);
            return (0, len + 1, at);
        }
        assert_eq!((kind, flags, self.accepted & F_RO), (1, DESC_NEXT, 0));
        load_bytes(address, data);
        self.changes
            .push(Change::Write(range.start, u64::from(len)));
        if let Some(at) = self
            .corrupt
            .filter(|at| (start..start + bytes).contains(at))
        {
            self.data[at] ^= 1;
        }
        (0, 1, at)
    }

    /// Makes the parts zero that the list of `len` bytes at `address` names.
    fn zero(&mut self, address: u64, len: u32) -> u8 {
        assert_ne!(self.accepted & F_WRITE_ZEROES, 0);
        let parts = u64::from(len / 16);
        assert!(self.accepted & F_SIZE_MAX == 0 || len <= self.size_max);
        assert!(len.is_multiple_of(16) && (1..=u64::from(self.zero_limits.1)).contains(&parts));
        if let Some(status) = self.zeroes_fail {
            return status;
        }
        self.changes.push(Change::Zero);
        for part in 0..parts {
            let at = address + 16 * part;
            let (sector, sectors, flags): (u64, u32, u32) = (load(at), load(at + 8), load(at + 12));
            assert_eq!(flags, 1);
            assert!(sectors > 0 && sectors <= self.zero_limits.0);
            let (start, length) = (sector * 512, u64::from(sectors) * 512);
            let sector_size = u64::from(self.sector_size);
            assert!(start.is_multiple_of(sector_size) && length.is_multiple_of(sector_size));
            self.data[start as usize..(start + length) as usize].fill(0);
            self.zeroed.push((start, length));
        }
        0
    }

    /// Asks for a kick only if there is nothing left to do.
    fn ask_for_kicks(&self) {
        let ring = self.part(register::QUEUE_DEVICE);
        let is_idle = self.ready().is_empty();
        if self.accepted & F_EVENT_IDX == 0 {
            store(ring, u16::from(!is_idle));
        } else if is_idle {
            store(ring + 4 + 8 * u64::from(self.queue_num), self.seen);
        }
    }

    fn notify(&mut self, old: u16) {
        let avail = self.part(register::QUEUE_DRIVER);
        self.notified |= match self.accepted & F_EVENT_IDX {
            0 => load::<u16>(avail) == 0 && self.used != old,
            _ => {
                let event = load(avail + 4 + 2 * u64::from(self.queue_num));
                passes(event, old, self.used)
            }
        };
    }
}
