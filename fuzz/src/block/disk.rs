//! One disk with its driver: carries actions out through registers and guest memory, lets the
//! device work, and checks after each round what it has done to its rings.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use virtio_bindings::virtio_mmio as reg;
use vm_memory::{Bytes, GuestAddress};
use vmm::virtio::block::{Block, BlockConfig};
use vmm::virtio::{MmioTransport, NotificationLine, VirtioDevice};

use super::super::virtio::driver::{Registers, Ring};
use super::super::virtio::memory::Memory;
use super::super::virtio::probe::Probe;
use super::super::virtio::queue::{HEADERS, QueueLayout, Reach};
use super::action::{Action, DISCARD, Request, WRITE_ZEROES};
use super::watched::Watched;

pub const OUT: u32 = 1;
/// What a status byte holds before the device answers.
pub const UNANSWERED: u8 = 0xff;
/// DISCARD and WRITE_ZEROES, which a driver chooses here where they are offered.
const F_ZEROES: u64 = 1 << 13 | 1 << 14;
/// What a fault says is shown on one line.
const MAX_FAULT: usize = 300;
/// What a disk writes to a buffer beside the data that its storage fills: its id to the start, a
/// status to the end.
const REACH: Reach = Reach { start: 20, end: 1 };

/// A disk and its driver.
pub struct Disk {
    pub memory: Arc<Memory>,
    pub probe: Arc<Probe<Block<Watched>>>,
    line: Arc<NotificationLine>,
    registers: Registers,
    ring: Ring,
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
        let storage = Arc::new(Watched::new(geometry, config.read_only, memory));
        let device = Block::new(&config, storage, memory.dma.clone(), line.clone()).unwrap();
        let probe = Arc::new(Probe::new(Arc::new(device)));
        let transport = MmioTransport::new(probe.clone(), memory.dma.clone());
        Self {
            memory: memory.clone(),
            probe,
            line: line.clone(),
            registers: Registers(transport),
            ring: Ring::new(memory, QueueLayout::of(index)),
        }
    }

    /// Makes registers, driver and contents what they were when the disk was new. What the device
    /// remembers of its faults stays.
    pub fn renew(&mut self, is_faulty: bool) {
        self.registers.write(reg::VIRTIO_MMIO_STATUS, 0);
        let transport = MmioTransport::new(self.probe.clone(), self.memory.dma.clone());
        self.registers = Registers(transport);
        self.ring.forget();
        let storage = self.probe.device.storage();
        storage.restore();
        storage.faulty.store(is_faulty, Ordering::Relaxed);
    }

    pub fn apply(&mut self, action: Action) {
        match action {
            Action::WriteRegister { offset, bytes } => self.registers.write_bytes(offset, &bytes),
            Action::ReadRegister { offset, len } => self.registers.read(offset, len),
            Action::Start { features, size } => self.start(features, size),
            Action::Descriptor {
                table,
                index,
                fields,
            } => self.ring.write_descriptor(table, index, fields),
            Action::Request(request) => self.request(&request),
            Action::Available(head) => self.ring.make_available(head),
            Action::AvailIndex(index) => self.ring.set_avail_index(index),
            Action::Poke { address, bytes } => {
                self.memory.write(&bytes, address);
            }
            Action::Notify => {
                self.registers.write(reg::VIRTIO_MMIO_QUEUE_NOTIFY, 0);
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
        let zeroes = self.probe.device.device_features() & F_ZEROES;
        self.registers.negotiate(features | zeroes);
        self.ring.clear(size);
        self.registers.set_queue(self.ring.layout, size);
        self.registers.start();
    }

    /// Lays a request out and makes it available. Its status byte is behind its header.
    pub fn request(&mut self, request: &Request) {
        let header = self.header(request.slot);
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
        let table = request.indirect.then_some(request.slot);
        let head = self.ring.chain(&parts, table);
        self.ring.make_available(head);
    }

    /// The status byte of the request in `slot`.
    pub fn status_of(&self, slot: u16) -> u8 {
        let at = GuestAddress(self.header(slot) + 16);
        self.memory.dma.read_obj(at).unwrap()
    }

    fn header(&self, slot: u16) -> u64 {
        self.ring.layout.base + HEADERS + u64::from(slot) * 32
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
        let used = || self.line.completions();
        let place = (&*self.memory, REACH);
        let Some(round) = self.probe.watch(0, place, used, work) else {
            return;
        };
        if !round.predictable {
            return;
        }
        if round.excessive {
            assert!(
                round.stopped || !has_to_look,
                "more was available than a queue holds"
            );
        } else if !round.stopped && has_to_look && !self.probe.in_flight() {
            let available = u64::from(round.available);
            assert_eq!(round.used, available, "not all requests were answered");
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
        if let Some(fault) = device.fault() {
            assert!(fault.to_string().len() < MAX_FAULT, "{fault}");
        }
    }
}
