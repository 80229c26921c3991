//! A driver for tests of devices: it lays rings and chains out in guest memory, as right or as
//! wrong as a test wants them, and writes registers as a guest would.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::Ordering;

use virtio_bindings::virtio_mmio as reg;
use virtio_queue::desc::{RawDescriptor, split::Descriptor};
use vm_device::DeviceMmio;
use vm_device::bus::MmioAddress;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{MmioTransport, VirtioDevice};

pub(crate) const MEMORY_SIZE: u64 = 0x40_0000;
pub(crate) const DESC_TABLE: u64 = 0x1_0000;
pub(crate) const AVAIL_RING: u64 = 0x2_0000;
pub(crate) const USED_RING: u64 = 0x3_0000;
/// Where requests put their headers and status bytes.
pub(crate) const HEADERS: u64 = 0x4_0000;
pub(crate) const DATA: u64 = 0x10_0000;

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

pub(crate) const VERSION_1: u64 = 1 << 32;
pub(crate) const EVENT_IDX: u64 = 1 << 29;
pub(crate) const INDIRECT_DESC: u64 = 1 << 28;

pub(crate) fn memory() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), usize::try_from(MEMORY_SIZE).unwrap())])
        .unwrap()
}

/// A driver of one queue of a device.
pub(crate) struct Driver {
    pub(crate) memory: GuestMemoryMmap,
    pub(crate) transport: MmioTransport,
    size: u16,
    avail: u16,
    used: u16,
    next_descriptor: u16,
}

impl Driver {
    pub(crate) fn new(device: Arc<dyn VirtioDevice>, memory: GuestMemoryMmap) -> Self {
        Self {
            transport: MmioTransport::new(device, memory.clone()),
            memory,
            size: 0,
            avail: 0,
            used: 0,
            next_descriptor: 0,
        }
    }

    pub(crate) fn read(&self, register: u32) -> u32 {
        let mut data = [0xaa; 4];
        self.transport
            .mmio_read(MmioAddress(0), register.into(), &mut data);
        u32::from_le_bytes(data)
    }

    pub(crate) fn write(&self, register: u32, value: u32) {
        self.transport
            .mmio_write(MmioAddress(0), register.into(), &value.to_le_bytes());
    }

    pub(crate) fn status(&self) -> u32 {
        self.read(reg::VIRTIO_MMIO_STATUS)
    }

    /// Goes as far as FEATURES_OK and returns the status then.
    pub(crate) fn negotiate(&self, features: u64) -> u32 {
        self.write(reg::VIRTIO_MMIO_STATUS, 0);
        self.write(reg::VIRTIO_MMIO_STATUS, 1);
        self.write(reg::VIRTIO_MMIO_STATUS, 3);
        for (select, word) in [(0, features & 0xffff_ffff), (1, features >> 32)] {
            self.write(reg::VIRTIO_MMIO_DRIVER_FEATURES_SEL, select);
            self.write(reg::VIRTIO_MMIO_DRIVER_FEATURES, word.try_into().unwrap());
        }
        self.write(reg::VIRTIO_MMIO_STATUS, 0xb);
        self.status()
    }

    pub(crate) fn set_queue(&self, size: u32, desc_table: u64, avail_ring: u64, used_ring: u64) {
        self.set_queue_of(0, size, [desc_table, avail_ring, used_ring]);
    }

    fn set_queue_of(&self, index: u32, size: u32, [desc_table, avail_ring, used_ring]: [u64; 3]) {
        self.write(reg::VIRTIO_MMIO_QUEUE_SEL, index);
        self.write(reg::VIRTIO_MMIO_QUEUE_NUM, size);
        for (register, address) in [
            (reg::VIRTIO_MMIO_QUEUE_DESC_LOW, desc_table),
            (reg::VIRTIO_MMIO_QUEUE_AVAIL_LOW, avail_ring),
            (reg::VIRTIO_MMIO_QUEUE_USED_LOW, used_ring),
        ] {
            self.write(register, (address & 0xffff_ffff).try_into().unwrap());
            self.write(register + 4, (address >> 32).try_into().unwrap());
        }
        self.write(reg::VIRTIO_MMIO_QUEUE_READY, 1);
    }

    /// The whole initialisation, with rings cleared.
    pub(crate) fn start(&mut self, features: u64, size: u16) {
        self.start_with(features, size, 0, |_| ());
    }

    /// The same for a device with two queues, of which `index` is driven and the other is empty:
    /// its index, and an address of 16 KiB for it.
    pub(crate) fn start_beside(
        &mut self,
        features: u64,
        size: u16,
        index: u32,
        (other, address): (u32, u64),
    ) {
        self.start_with(features, size, index, |driver| {
            let areas = [address, address + 0x1000, address + 0x2000];
            driver.set_queue_of(other, size.into(), areas);
        });
    }

    fn start_with(&mut self, features: u64, size: u16, index: u32, set_up: impl FnOnce(&Self)) {
        self.negotiate(features);
        for ring in [AVAIL_RING, USED_RING] {
            let zeros = vec![0; usize::from(size) * 8 + 6];
            self.memory.write_slice(&zeros, GuestAddress(ring)).unwrap();
        }
        self.set_queue_of(index, size.into(), [DESC_TABLE, AVAIL_RING, USED_RING]);
        set_up(self);
        self.write(reg::VIRTIO_MMIO_STATUS, 0xf);
        assert_eq!(self.status(), 0xf);
        self.size = size;
        (self.avail, self.used, self.next_descriptor) = (0, 0, 0);
    }

    pub(crate) fn write_descriptor(
        &self,
        table: u64,
        index: u16,
        address: u64,
        len: u32,
        flags: u16,
        next: u16,
    ) {
        let descriptor = RawDescriptor::from(Descriptor::new(address, len, flags, next));
        let at = GuestAddress(table + u64::from(index) * 16);
        self.memory.write_obj(descriptor, at).unwrap();
    }

    /// Lays `parts` (address, length, flags) out as a chain in the queue's table; NEXT is added.
    pub(crate) fn chain(&mut self, parts: &[(u64, u32, u16)]) -> u16 {
        let head = self.next_descriptor;
        for (position, &(address, len, flags)) in parts.iter().enumerate() {
            let index = self.next_descriptor;
            let next = (index + 1) % self.size;
            let more = if position + 1 < parts.len() { NEXT } else { 0 };
            self.write_descriptor(DESC_TABLE, index, address, len, flags | more, next);
            self.next_descriptor = next;
        }
        head
    }

    /// Puts a head into the available ring, for the device to see at once.
    pub(crate) fn make_available(&mut self, head: u16) {
        let slot = AVAIL_RING + 4 + u64::from(self.avail % self.size) * 2;
        self.memory.write_obj(head, GuestAddress(slot)).unwrap();
        self.set_avail_index(self.avail.wrapping_add(1));
    }

    /// Who sees the index sees what was written before.
    pub(crate) fn set_avail_index(&mut self, index: u16) {
        self.avail = index;
        self.memory
            .store(index, GuestAddress(AVAIL_RING + 2), Ordering::Release)
            .unwrap();
    }

    pub(crate) fn used_index(&self) -> u16 {
        self.memory
            .load(GuestAddress(USED_RING + 2), Ordering::Acquire)
            .unwrap()
    }

    /// The next used buffer: its head and the bytes written.
    pub(crate) fn pop_used(&mut self) -> Option<(u32, u32)> {
        if self.used == self.used_index() {
            return None;
        }
        let slot = USED_RING + 4 + u64::from(self.used % self.size) * 8;
        self.used = self.used.wrapping_add(1);
        let [head, len]: [u32; 2] = [
            self.memory.read_obj(GuestAddress(slot)).unwrap(),
            self.memory.read_obj(GuestAddress(slot + 4)).unwrap(),
        ];
        Some((head, len))
    }

    /// Writes a block request's header; its status byte is the 17th.
    pub(crate) fn header(&self, slot: u16, kind: u32, sector: u64) -> (u64, u64) {
        let address = HEADERS + u64::from(slot) * 32;
        self.memory.write_obj(kind, GuestAddress(address)).unwrap();
        self.memory
            .write_obj(sector, GuestAddress(address + 8))
            .unwrap();
        self.memory
            .write_obj(0xffu8, GuestAddress(address + 16))
            .unwrap();
        (address, address + 16)
    }

    pub(crate) fn byte(&self, address: u64) -> u8 {
        self.memory.read_obj(GuestAddress(address)).unwrap()
    }
}
