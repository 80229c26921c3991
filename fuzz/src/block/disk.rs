//! One disk with its driver: carries actions out through registers and guest memory, lets the
//! device work, and checks after each round what it has done to its rings.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use virtio_bindings::virtio_mmio as reg;
use virtio_queue::desc::{RawDescriptor, split::Descriptor};
use vm_device::DeviceMmio;
use vm_device::bus::MmioAddress;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm::storage::MemoryStorage;
use vmm::virtio::block::{Block, BlockConfig};
use vmm::virtio::{IrqLine, MmioTransport, VirtioDevice};

use super::action::{Action, DISCARD, Fields, Request, WRITE_ZEROES};
use super::queue::{HEADERS, INDIRECT_FLAGS, QueueLayout, TABLES, chain_flags};
use super::watched::{Probe, Watched};

pub const VERSION_1: u64 = 1 << 32;
pub const OUT: u32 = 1;
/// What a status byte holds before the device answers.
pub const UNANSWERED: u8 = 0xff;

/// A disk and its driver.
pub struct Disk {
    pub memory: GuestMemoryMmap,
    pub probe: Arc<Probe>,
    pub queue: QueueLayout,
    line: Arc<IrqLine>,
    transport: MmioTransport,
    size: u16,
    avail: u16,
    next_descriptor: u16,
}

impl Disk {
    /// A read-only disk if `index` is 0; transfers that touch the bytes `faulty` fail.
    pub fn new(
        index: usize,
        (capacity, sector_size): (u64, u32),
        faulty: Range<u64>,
        memory: &GuestMemoryMmap,
        line: &Arc<IrqLine>,
    ) -> Self {
        let config = BlockConfig {
            capacity,
            sector_size,
            read_only: index == 0,
            zeroes: true,
            id: *b"a-disk-for-fuzzing\0\0",
        };
        let backend = Watched {
            storage: MemoryStorage::new(pattern(capacity)),
            capacity,
            sector_size: sector_size.into(),
            read_only: config.read_only,
            faulty,
            reach: Watched::reach(memory),
            read: AtomicU64::new(0),
            written: AtomicU64::new(0),
            zeroed: AtomicU64::new(0),
        };
        let device = Block::new(&config, backend, memory.clone(), line.clone()).unwrap();
        let probe = Arc::new(Probe {
            device: Arc::new(device),
            active: Mutex::new(None),
        });
        Self {
            memory: memory.clone(),
            transport: MmioTransport::new(probe.clone(), memory.clone()),
            probe,
            queue: QueueLayout::of(index),
            line: line.clone(),
            size: 1,
            avail: 0,
            next_descriptor: 0,
        }
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
                let _ = self.memory.write_slice(&bytes, GuestAddress(address));
            }
            Action::Notify => {
                self.write(reg::VIRTIO_MMIO_QUEUE_NOTIFY, 0);
                if self.probe.in_flight() {
                    self.work();
                }
            }
            Action::Work => self.work(),
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
            let zeros = vec![0; usize::from(size) * 8 + 6];
            self.memory.write_slice(&zeros, GuestAddress(ring)).unwrap();
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
        let write = |value: &[u8], offset| {
            let at = GuestAddress(header + offset);
            self.memory.write_slice(value, at).unwrap();
        };
        write(&request.kind.to_le_bytes(), 0);
        write(&request.sector.to_le_bytes(), 8);
        write(&[UNANSWERED], 16);
        let mut parts = vec![(header, request.header_len, false)];
        let data = request.data.iter();
        let readable = matches!(request.kind, OUT | DISCARD | WRITE_ZEROES);
        parts.extend(data.map(|&(at, len)| (at, len, !readable)));
        if let Some(&(at, _)) = request.data.first() {
            // Where it is out of reach, the device has to see that too.
            let _ = self.memory.write_slice(&request.list, GuestAddress(at));
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
        self.memory.read_obj(GuestAddress(at)).unwrap()
    }

    /// Lets the device handle a kick, and checks how many buffers it has used.
    pub fn work(&self) {
        let interrupt = self.probe.interrupt();
        let mut active = self.probe.active.lock().unwrap();
        let running = active.as_mut().filter(|_| !interrupt.needs_reset());
        let before = self.line.completions();
        let Some(queue) = running else {
            self.probe.device.handle_kick(0);
            assert_eq!(self.line.completions(), before, "a stopped queue is used");
            return;
        };
        let predictable = !queue.can_rewrite_itself(&self.memory);
        let available = queue.available(&self.memory);
        self.probe.device.handle_kick(0);
        let used = self.line.completions() - before;
        queue.count(used);
        let stopped = interrupt.needs_reset();
        if used > 0 {
            assert!(queue.index_is_right(&self.memory), "a wrong used index");
        }
        if !predictable {
            return;
        }
        if available > queue.size() {
            assert!(
                used == 0 && stopped,
                "more was available than a queue holds"
            );
        } else if stopped || self.probe.in_flight() {
            assert!(used <= available.into(), "{used} of {available} were used");
        } else {
            assert_eq!(used, u64::from(available), "not all requests were answered");
        }
    }

    /// What must hold whenever the device is at rest.
    pub fn check(&self) {
        let backend = self.probe.device.storage();
        let counters = self.probe.device.counters();
        assert_eq!(counters.bytes_read, backend.read.load(Ordering::Relaxed));
        assert_eq!(
            counters.bytes_written,
            backend.written.load(Ordering::Relaxed)
        );
        let zeroed = backend.zeroed.load(Ordering::Relaxed);
        assert_eq!(counters.bytes_zeroed, zeroed);
        assert!(counters.errors <= counters.requests);
    }

    /// What must hold when all is over.
    pub fn check_contents(&self) {
        let backend = self.probe.device.storage();
        if backend.read_only {
            let original = pattern(backend.capacity);
            assert!(
                backend.storage.contents() == original,
                "a read-only disk has changed"
            );
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
        let at = GuestAddress(table + u64::from(index) * 16);
        let _ = self.memory.write_obj(descriptor, at);
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
        self.memory.write_obj(head, GuestAddress(slot)).unwrap();
        self.set_avail_index(self.avail.wrapping_add(1));
    }

    fn set_avail_index(&mut self, index: u16) {
        self.avail = index;
        let at = GuestAddress(self.queue.avail() + 2);
        self.memory.write_obj(index, at).unwrap();
    }
}

/// What both disks hold at first.
fn pattern(capacity: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(capacity).unwrap()];
    for (sector, bytes) in bytes.chunks_mut(512).enumerate() {
        bytes.fill((sector % 251) as u8);
    }
    bytes
}

fn halves(value: u64) -> [u32; 2] {
    [(value & 0xffff_ffff) as u32, (value >> 32) as u32]
}
