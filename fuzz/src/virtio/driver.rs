//! What a driver of any device does: registers (virtio 1.2, section 4.2.2), and chains of
//! descriptors laid out in a ring (section 2.7).

use std::sync::Arc;

use virtio_bindings::virtio_mmio as reg;
use virtio_queue::desc::{RawDescriptor, split::Descriptor};
use vm_device::DeviceMmio;
use vm_device::bus::MmioAddress;
use vmm::virtio::MmioTransport;

use super::memory::Memory;
use super::queue::{INDIRECT_FLAGS, QueueLayout, TABLES, chain_flags};
use super::values::Fields;

pub const VERSION_1: u64 = 1 << 32;

/// A device's registers.
pub struct Registers(pub MmioTransport);

impl Registers {
    pub fn write(&self, register: u32, value: u32) {
        self.write_bytes(register.into(), &value.to_le_bytes());
    }

    pub fn write_bytes(&self, offset: u64, bytes: &[u8]) {
        self.0.mmio_write(MmioAddress(0), offset, bytes);
    }

    /// Reads, and looks whether all of the answer is the device's.
    pub fn read(&self, offset: u64, len: usize) {
        let read = |fill| {
            let mut data = vec![fill; len];
            self.0.mmio_read(MmioAddress(0), offset, &mut data);
            data
        };
        assert_eq!(
            read(0xaa),
            read(0x55),
            "an answer has bytes of the question"
        );
    }

    /// Goes as far as FEATURES_OK.
    pub fn negotiate(&self, features: u64) {
        for status in [0, 1, 3] {
            self.write(reg::VIRTIO_MMIO_STATUS, status);
        }
        for (select, word) in halves(features).into_iter().enumerate() {
            self.write(reg::VIRTIO_MMIO_DRIVER_FEATURES_SEL, select as u32);
            self.write(reg::VIRTIO_MMIO_DRIVER_FEATURES, word);
        }
        self.write(reg::VIRTIO_MMIO_STATUS, 0xb);
    }

    /// Says where the queue that is selected lies.
    pub fn set_queue(&self, layout: QueueLayout, size: u16) {
        self.write(reg::VIRTIO_MMIO_QUEUE_NUM, size.into());
        for (register, address) in [
            (reg::VIRTIO_MMIO_QUEUE_DESC_LOW, layout.table()),
            (reg::VIRTIO_MMIO_QUEUE_AVAIL_LOW, layout.avail()),
            (reg::VIRTIO_MMIO_QUEUE_USED_LOW, layout.used()),
        ] {
            let [low, high] = halves(address);
            self.write(register, low);
            self.write(register + 4, high);
        }
        self.write(reg::VIRTIO_MMIO_QUEUE_READY, 1);
    }

    /// Sets DRIVER_OK.
    pub fn start(&self) {
        self.write(reg::VIRTIO_MMIO_STATUS, 0xf);
    }
}

/// A driver's side of a queue.
pub struct Ring {
    memory: Arc<Memory>,
    pub layout: QueueLayout,
    size: u16,
    avail: u16,
    next_descriptor: u16,
}

impl Ring {
    pub fn new(memory: &Arc<Memory>, layout: QueueLayout) -> Self {
        Self {
            memory: memory.clone(),
            layout,
            size: 1,
            avail: 0,
            next_descriptor: 0,
        }
    }

    /// Makes it what it was when it was new.
    pub fn forget(&mut self) {
        (self.size, self.avail, self.next_descriptor) = (1, 0, 0);
    }

    /// Clears the rings for a queue of `size`.
    pub fn clear(&mut self, size: u16) {
        for ring in [self.layout.avail(), self.layout.used()] {
            self.memory.zero(ring, usize::from(size) * 8 + 6);
        }
        (self.size, self.avail, self.next_descriptor) = (size, 0, 0);
    }

    pub fn write_descriptor(&self, table: u64, index: u16, fields: Fields) {
        let Fields {
            address,
            len,
            flags,
            next,
        } = fields;
        let descriptor = RawDescriptor::from(Descriptor::new(address, len, flags, next));
        let at = table + u64::from(index) * 16;
        self.memory.write_obj(descriptor, at);
    }

    /// Lays out `parts`, each with address, length and whether the device may write to it; in an
    /// indirect table if one is given, by its number. Returns the chain's head.
    pub fn chain(&mut self, parts: &[(u64, u32, bool)], indirect: Option<u16>) -> u16 {
        match indirect {
            Some(table) => self.indirect_chain(table, parts),
            None => self.direct_chain(parts),
        }
    }

    fn direct_chain(&mut self, parts: &[(u64, u32, bool)]) -> u16 {
        let head = self.next_descriptor;
        for (position, &(address, len, writable)) in parts.iter().enumerate() {
            let index = self.next_descriptor;
            self.next_descriptor = (index + 1) % self.size;
            let fields = Fields {
                address,
                len,
                flags: chain_flags(position, parts.len(), writable),
                next: self.next_descriptor,
            };
            self.write_descriptor(self.layout.table(), index, fields);
        }
        head
    }

    fn indirect_chain(&mut self, number: u16, parts: &[(u64, u32, bool)]) -> u16 {
        let table = self.layout.base + TABLES + u64::from(number) * 128;
        for (index, &(address, len, writable)) in (0..).zip(parts) {
            let fields = Fields {
                address,
                len,
                flags: chain_flags(index.into(), parts.len(), writable),
                next: index + 1,
            };
            self.write_descriptor(table, index, fields);
        }
        let head = self.next_descriptor;
        self.next_descriptor = (head + 1) % self.size;
        let fields = Fields {
            address: table,
            len: parts.len() as u32 * 16,
            flags: INDIRECT_FLAGS,
            next: 0,
        };
        self.write_descriptor(self.layout.table(), head, fields);
        head
    }

    pub fn make_available(&mut self, head: u16) {
        let slot = self.layout.avail() + 4 + u64::from(self.avail % self.size) * 2;
        self.memory.write_obj(head, slot);
        self.set_avail_index(self.avail.wrapping_add(1));
    }

    pub fn set_avail_index(&mut self, index: u16) {
        self.avail = index;
        self.memory.write_obj(index, self.layout.avail() + 2);
    }
}

fn halves(value: u64) -> [u32; 2] {
    [(value & 0xffff_ffff) as u32, (value >> 32) as u32]
}
