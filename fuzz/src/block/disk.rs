//! One disk with its driver: carries actions out through registers and guest memory, lets the
//! device work, and checks after each round what it has done to its rings.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use virtio_bindings::virtio_mmio as reg;
use virtio_queue::desc::{RawDescriptor, split::Descriptor};
use vm_device::DeviceMmio;
use vm_device::bus::MmioAddress;
use vm_memory::{Bytes, GuestAddress};
use vmm::virtio::block::{Block, BlockConfig};
use vmm::virtio::{MmioTransport, NotificationLine, VirtioDevice};

use super::action::{Action, DISCARD, Fields, Request, WRITE_ZEROES};
use super::memory::Memory;
use super::queue::{HEADERS, INDIRECT_FLAGS, QueueLayout, TABLES, chain_flags};
use super::watched::{Probe, Watched};

pub const VERSION_1: u64 = 1 << 32;
pub const OUT: u32 = 1;
/// What a status byte holds before the device answers.
pub const UNANSWERED: u8 = 0xff;
/// What a fault says is shown on one line.
const MAX_FAULT: usize = 300;

/// A disk and its driver.
pub struct Disk {
    pub memory: Arc<Memory>,
    pub probe: Arc<Probe>,
    pub queue: QueueLayout,
    line: Arc<NotificationLine>,
    transport: MmioTransport,
    size: u16,
    avail: u16,
    next_descriptor: u16,
}

impl Disk {
    /// A read-only disk if `index` is 0.
    pub fn new(
        index: usize,
        geometry: (u64, u32),
        memory: &Arc<Memory>,
        line: &Arc<NotificationLine>,
    ) -> Self {
        let config = BlockConfig {
            capacity: geometry.0,
            sector_size: geometry.1,
            read_only: index == 0,
            zeroes: true,
            id: *b"a-disk-for-fuzzing\0\0",
        };
        let storage = Watched::new(geometry, config.read_only, memory);
        let device = Block::new(&config, storage, memory.dma.clone(), line.clone()).unwrap();
        let probe = Arc::new(Probe {
            device: Arc::new(device),
            active: Mutex::new(None),
        });
        Self {
            memory: memory.clone(),
            transport: MmioTransport::new(probe.clone(), memory.dma.clone()),
            probe,
            queue: QueueLayout::of(index),
            line: line.clone(),
            size: 1,
            avail: 0,
            next_descriptor: 0,
        }
    }

    /// Makes registers, driver and contents what they were when the disk was new. What the device
    /// remembers of its faults stays.
    pub fn renew(&mut self, is_faulty: bool) {
        self.write(reg::VIRTIO_MMIO_STATUS, 0);
        self.transport = MmioTransport::new(self.probe.clone(), self.memory.dma.clone());
        (self.size, self.avail, self.next_descriptor) = (1, 0, 0);
        let storage = self.probe.device.storage();
        storage.restore();
        storage.faulty.store(is_faulty, Ordering::Relaxed);
    }

    pub fn apply(&mut self, action: Action) {
        match action {
            Action::WriteRegister { offset, bytes } => {
                self.transport.mmio_write(MmioAddress(0), offset, &bytes);
            }
            Action::ReadRegister { offset, len } => self.read_register(offset, len),
            Action::Start { features, size } => self.start(features, size),
            Action::Descriptor {
                table,
                index,
                fields,
            } => self.write_descriptor(table, index, fields),
            Action::Request(request) => self.request(&request),
            Action::Available(head) => self.make_available(head),
            Action::AvailIndex(index) => self.set_avail_index(index),
            Action::Poke { address, bytes } => {
                self.memory.write(&bytes, address);
            }
            Action::Notify => {
                self.write(reg::VIRTIO_MMIO_QUEUE_NOTIFY, 0);
                if self.probe.in_flight() {
                    self.work();
                }
            }
            Action::Work => self.work(),
            Action::Help => self.help(),
            Action::Leave => self.probe.device.serve_by_kicks(),
        }
    }

    /// The whole initialisation as a driver does it, with rings cleared.
    pub fn start(&mut self, features: u64, size: u16) {
        for status in [0, 1, 3] {
            self.write(reg::VIRTIO_MMIO_STATUS, status);
        }
        for (select, word) in halves(features).into_iter().enumerate() {
            self.write(reg::VIRTIO_MMIO_DRIVER_FEATURES_SEL, select as u32);
            self.write(reg::VIRTIO_MMIO_DRIVER_FEATURES, word);
        }
        self.write(reg::VIRTIO_MMIO_STATUS, 0xb);
        for ring in [self.queue.avail(), self.queue.used()] {
            self.memory.zero(ring, usize::from(size) * 8 + 6);
        }
        self.write(reg::VIRTIO_MMIO_QUEUE_NUM, size.into());
        for (register, address) in [
            (reg::VIRTIO_MMIO_QUEUE_DESC_LOW, self.queue.table()),
            (reg::VIRTIO_MMIO_QUEUE_AVAIL_LOW, self.queue.avail()),
            (reg::VIRTIO_MMIO_QUEUE_USED_LOW, self.queue.used()),
        ] {
            let [low, high] = halves(address);
            self.write(register, low);
            self.write(register + 4, high);
        }
        self.write(reg::VIRTIO_MMIO_QUEUE_READY, 1);
        self.write(reg::VIRTIO_MMIO_STATUS, 0xf);
        self.size = size;
        (self.avail, self.next_descriptor) = (0, 0);
    }

    /// Lays a request out and makes it available. Its status byte is behind its header.
    pub fn request(&mut self, request: &Request) {
        let header = self.queue.base + HEADERS + u64::from(request.slot) * 32;
        let write = |value: &[u8], offset| self.memory.write(value, header + offset);
        write(&request.kind.to_le_bytes(), 0);
        write(&request.sector.to_le_bytes(), 8);
        write(&[UNANSWERED], 16);
        let mut parts = vec![(header, request.header_len, false)];
        let data = request.data.iter();
        let readable = matches!(request.kind, OUT | DISCARD | WRITE_ZEROES);
        parts.extend(data.map(|&(at, len)| (at, len, !readable)));
        if let Some(&(at, _)) = request.data.first() {
            // Where it is out of reach, the device has to see that too.
            self.memory.write(&request.list, at);
        }
        parts.push((header + 16, request.status_len, true));
        let head = if request.indirect {
            self.indirect_chain(request.slot, &parts)
        } else {
            self.direct_chain(&parts)
        };
        self.make_available(head);
    }

    /// The status byte of the request in `slot`.
    pub fn status_of(&self, slot: u16) -> u8 {
        let at = self.queue.base + HEADERS + u64::from(slot) * 32 + 16;
        self.memory.dma.read_obj(GuestAddress(at)).unwrap()
    }

    /// Lets the device handle a kick.
    pub fn work(&self) {
        self.round(true, |device| device.handle_kick(0));
    }

    /// Helps the device as a guest's processor does while it waits: with large requests alone.
    fn help(&self) {
        self.round(false, |device| {
            device.serve_here();
        });
    }

    /// Lets the device work, and checks how many buffers it has used: all if it has to look.
    fn round(&self, has_to_look: bool, work: impl FnOnce(&Block<Watched>)) {
        let notifier = self.probe.notifier();
        let mut active = self.probe.active.lock().unwrap();
        let running = active.as_mut().filter(|_| !notifier.needs_reset());
        let before = self.line.completions();
        let Some(queue) = running else {
            work(&self.probe.device);
            assert_eq!(self.line.completions(), before, "a stopped queue is used");
            return;
        };
        let predictable = !queue.survey(&self.memory);
        let available = queue.available(&self.memory.dma);
        work(&self.probe.device);
        let used = self.line.completions() - before;
        queue.count(used);
        let stopped = notifier.needs_reset();
        if used > 0 {
            assert!(queue.index_is_right(&self.memory.dma), "a wrong used index");
        }
        if !predictable {
            return;
        }
        if available > queue.size() {
            assert!(
                used == 0 && (stopped || !has_to_look),
                "more was available than a queue holds"
            );
        } else if stopped || !has_to_look || self.probe.in_flight() {
            assert!(used <= available.into(), "{used} of {available} were used");
        } else {
            assert_eq!(used, u64::from(available), "not all requests were answered");
        }
    }

    /// What must hold whenever the device is at rest.
    pub fn check(&self) {
        let device = &self.probe.device;
        let storage = device.storage();
        let counters = device.counters();
        assert_eq!(counters.bytes_read, storage.read.load(Ordering::Relaxed));
        assert_eq!(
            counters.bytes_written,
            storage.written.load(Ordering::Relaxed)
        );
        let zeroed = storage.zeroed.load(Ordering::Relaxed);
        assert_eq!(counters.bytes_zeroed, zeroed);
        assert!(counters.errors <= counters.requests);
        if let Some(fault) = device.first_fault() {
            assert!(fault.to_string().len() < MAX_FAULT, "{fault}");
        }
    }

    fn read_register(&self, offset: u64, len: usize) {
        let read = |fill| {
            let mut data = vec![fill; len];
            self.transport.mmio_read(MmioAddress(0), offset, &mut data);
            data
        };
        assert_eq!(
            read(0xaa),
            read(0x55),
            "an answer has bytes of the question"
        );
    }

    fn write(&self, register: u32, value: u32) {
        self.transport
            .mmio_write(MmioAddress(0), register.into(), &value.to_le_bytes());
    }

    fn write_descriptor(&self, table: u64, index: u16, fields: Fields) {
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
            self.write_descriptor(self.queue.table(), index, fields);
        }
        head
    }

    fn indirect_chain(&mut self, slot: u16, parts: &[(u64, u32, bool)]) -> u16 {
        let table = self.queue.base + TABLES + u64::from(slot) * 128;
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
        self.write_descriptor(self.queue.table(), head, fields);
        head
    }

    fn make_available(&mut self, head: u16) {
        let slot = self.queue.avail() + 4 + u64::from(self.avail % self.size) * 2;
        self.memory.write_obj(head, slot);
        self.set_avail_index(self.avail.wrapping_add(1));
    }

    fn set_avail_index(&mut self, index: u16) {
        self.avail = index;
        self.memory.write_obj(index, self.queue.avail() + 2);
    }
}

fn halves(value: u64) -> [u32; 2] {
    [(value & 0xffff_ffff) as u32, (value >> 32) as u32]
}
