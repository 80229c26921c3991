//! A console with its driver and its other end: carries actions out, lets the device work, and
//! checks after each round what it has done to its rings and to the bytes that pass through it.

use std::sync::Arc;

use guest_abi::layout::DMA_POOL;
use virtio_bindings::virtio_mmio as reg;
use vm_memory::{Bytes, GuestAddress};
use vmm::devices::{ByteQueue, Overflow};
use vmm::virtio::console::{Console, RECEIVE_QUEUE, TRANSMIT_QUEUE};
use vmm::virtio::{MmioTransport, VirtioDevice};

use super::super::virtio::Board;
use super::super::virtio::driver::{Registers, Ring, VERSION_1};
use super::super::virtio::memory::Memory;
use super::super::virtio::probe::{Probe, Round};
use super::super::virtio::queue::{QueueLayout, Reach};
use super::action::Action;

/// Bytes of the queue between the console and its reader.
pub const CAPACITY: usize = 512;
/// What a fault says is shown on one line.
const MAX_FAULT: usize = 300;
/// Size of each queue when a driver is honest.
pub const SIZE: u16 = 16;

/// What passed through a console.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Bytes that were taken at the other end.
    pub transmitted: usize,
    /// Bytes that the used ring of the receive queue tells of.
    pub received: u64,
    /// Buffers that were used, of both queues.
    pub used: u64,
}

/// A console between its driver and its other end.
pub struct Rig {
    memory: Arc<Memory>,
    probe: Arc<Probe<Console>>,
    registers: Registers,
    rings: [Ring; 2],
    bytes: Arc<ByteQueue>,
    is_closed: bool,
    /// Bytes that were sent to the driver.
    sent: u64,
    /// Whether [`Passed::received`] is all that has left the console's input.
    is_exact: bool,
    pub passed: Passed,
}

impl Rig {
    pub fn new(board: &Board) -> Self {
        let Board { memory, line, .. } = board;
        let bytes = Arc::new(ByteQueue::new(CAPACITY, Overflow::Wait).unwrap());
        let console = Console::new(bytes.clone(), memory.dma.clone(), line.clone()).unwrap();
        let probe = Arc::new(Probe::new(Arc::new(console)));
        let transport = MmioTransport::new(probe.clone(), memory.dma.clone());
        Self {
            memory: memory.clone(),
            probe,
            registers: Registers(transport),
            rings: [0, 1].map(|index| Ring::new(memory, QueueLayout::of(index))),
            bytes,
            is_closed: false,
            sent: 0,
            is_exact: true,
            passed: Passed::default(),
        }
    }

    pub fn apply(&mut self, index: usize, action: Action) {
        let ring = &mut self.rings[index];
        match action {
            Action::WriteRegister { offset, bytes } => self.registers.write_bytes(offset, &bytes),
            Action::ReadRegister { offset, len } => self.registers.read(offset, len),
            Action::Start { features, sizes } => self.start(features, sizes),
            Action::Descriptor {
                table,
                index,
                fields,
            } => ring.write_descriptor(table, index, fields),
            Action::Chain { parts, indirect } => {
                let head = ring.chain(&parts, indirect);
                ring.make_available(head);
            }
            Action::Available(head) => ring.make_available(head),
            Action::AvailIndex(index) => ring.set_avail_index(index),
            Action::Poke { address, bytes } => self.memory.write(&bytes, address),
            Action::Notify => {
                self.registers
                    .write(reg::VIRTIO_MMIO_QUEUE_NOTIFY, index as u32);
                self.work(index);
            }
            Action::Work => self.work(index),
            Action::Help => self.help(),
            Action::Leave => self.probe.device.serve_by_kicks(),
            Action::Take(most) => {
                self.take(most);
            }
            Action::Send(len) => self.send(&vec![0x77; len]),
            Action::Expect(more) => self.probe.device.expect_input(more),
            Action::Close => {
                self.bytes.close();
                self.is_closed = true;
            }
        }
    }

    /// The whole initialisation as a driver does it, with rings cleared.
    pub fn start(&mut self, features: u64, sizes: [u16; 2]) {
        self.registers.negotiate(features);
        for (index, (ring, size)) in (0..).zip(self.rings.iter_mut().zip(sizes)) {
            ring.clear(size);
            self.registers.write(reg::VIRTIO_MMIO_QUEUE_SEL, index);
            self.registers.set_queue(ring.layout, size);
        }
        self.registers.start();
    }

    /// Lets the device handle a kick of one queue.
    pub fn work(&mut self, index: usize) {
        let was_empty = self.bytes.is_empty();
        let Some(round) = self.watch(index, |console| console.handle_kick(index)) else {
            return;
        };
        let has_more = round.used < round.available.into();
        if !round.predictable || round.stopped || round.excessive || !has_more {
            return;
        }
        if index == TRANSMIT_QUEUE {
            let moved = round.used > 0 || !self.bytes.is_empty() || self.is_closed;
            assert!(
                !was_empty || moved,
                "a buffer is left for which there is room"
            );
        } else if self.is_exact {
            assert_eq!(
                self.pending(),
                0,
                "a buffer is left for which there is input"
            );
        }
    }

    /// Helps the device as a guest's processor does while it waits: with both queues, where it wants
    /// to be helped.
    fn help(&mut self) {
        let device = self.probe.device.clone();
        let used = |index| device.queue_counters(index).used;
        let (before, read) = ([0, 1].map(used), device.queue_counters(RECEIVE_QUEUE).used);
        let reaches = [RECEIVE_QUEUE, TRANSMIT_QUEUE].map(|index| self.reach(index));
        let place = (&*self.memory, &reaches[..]);
        self.probe.watch_all(place, used, |console| {
            console.serve_here();
        });
        self.is_exact &= used(RECEIVE_QUEUE) == read;
        self.passed.used += [0, 1].map(used).iter().sum::<u64>() - before.iter().sum::<u64>();
    }

    /// Input goes to the start of a buffer; a buffer that is transmitted is only read.
    fn reach(&self, index: usize) -> Reach {
        let start = match index {
            RECEIVE_QUEUE => self.sent,
            _ => 0,
        };
        Reach { start, end: 0 }
    }

    fn watch(&mut self, index: usize, work: impl FnOnce(&Console)) -> Option<Round> {
        let device = self.probe.device.clone();
        let used = || device.queue_counters(index).used;
        let place = (&*self.memory, self.reach(index));
        let round = self.probe.watch(index, place, used, work)?;
        self.passed.used += round.used;
        if index == RECEIVE_QUEUE {
            // Who stops in the middle of a buffer has filled a part of it without telling.
            self.is_exact &= round.is_told && !round.stopped;
            self.passed.received += round.used_bytes;
            assert!(
                !self.is_exact || self.passed.received <= self.sent,
                "more is received than was sent"
            );
        }
        Some(round)
    }

    /// Takes at most `most` of the transmitted bytes.
    pub fn take(&mut self, most: usize) -> Vec<u8> {
        let mut taken = vec![0xaa; most];
        let len = self.bytes.take(&mut taken);
        assert!(len <= CAPACITY, "the queue is over-full");
        taken.truncate(len);
        self.passed.transmitted += len;
        taken
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.sent += bytes.len() as u64;
        self.probe.device.send_input(bytes);
    }

    /// What the driver has still to receive, if [`Self::is_exact`].
    fn pending(&self) -> u64 {
        self.sent.saturating_sub(self.passed.received)
    }

    pub fn check(&self) {
        if let Some(fault) = self.probe.device.fault() {
            assert!(fault.to_string().len() < MAX_FAULT, "{fault}");
        }
    }

    /// Starts the console anew, as after whatever came before, and passes `len` bytes through it
    /// both ways, by an honest driver whose reader takes `most` at a time.
    pub fn examine(&mut self, len: usize, most: usize) {
        self.probe.device.expect_input(false);
        self.start(VERSION_1, [SIZE, SIZE]);
        while !self.take(CAPACITY).is_empty() {}
        let text: Vec<u8> = (0..=250).cycle().take(len).collect();
        if !self.is_closed {
            self.examine_transmission(&text, most);
        }
        self.examine_reception(&text);
        self.work(TRANSMIT_QUEUE);
        self.work(RECEIVE_QUEUE);
        let probe = &self.probe;
        assert!(!probe.notifier().needs_reset(), "a reset does not help");
        assert!(!probe.in_flight(), "something is said to be under way");
    }

    fn examine_transmission(&mut self, text: &[u8], most: usize) {
        self.memory.write(text, DMA_POOL);
        let first = text.len() / 3;
        let rest = DMA_POOL + first as u64;
        let parts = [
            (DMA_POOL, first as u32, false),
            (rest, (text.len() - first) as u32, false),
        ];
        let before = self.passed.used;
        self.offer(TRANSMIT_QUEUE, &parts);
        let mut arrived = self.take(most);
        while arrived.len() < text.len() {
            self.work(TRANSMIT_QUEUE);
            let part = self.take(most);
            assert!(!part.is_empty(), "{} bytes arrive", arrived.len());
            arrived.extend(part);
        }
        self.work(TRANSMIT_QUEUE);
        assert!(arrived == text, "other bytes arrive");
        assert_eq!(self.passed.used - before, 1, "the buffer is not used");
    }

    fn examine_reception(&mut self, text: &[u8]) {
        // Buffers for what was sent before, until one of them lies there.
        let buffer = [(DMA_POOL, 100, true), (DMA_POOL + 100, 4000, true)];
        let (pending, is_exact) = (self.pending(), self.is_exact);
        let mut drained = 0;
        loop {
            let (used, received) = (self.passed.used, self.passed.received);
            self.offer(RECEIVE_QUEUE, &buffer);
            drained += self.passed.received - received;
            if self.passed.used == used {
                break;
            }
        }
        assert!(drained <= self.sent && (!is_exact || drained == pending));
        let received = self.passed.received;
        self.send(text);
        self.work(RECEIVE_QUEUE);
        let len = (self.passed.received - received) as usize;
        assert_eq!(len, text.len().min(4100), "not all of the input arrives");
        let mut held = vec![0; len];
        let at = GuestAddress(DMA_POOL);
        self.memory.dma.read_slice(&mut held, at).unwrap();
        assert!(held == text[..len], "other input arrives");
    }

    fn offer(&mut self, index: usize, parts: &[(u64, u32, bool)]) {
        let head = self.rings[index].chain(parts, None);
        self.rings[index].make_available(head);
        self.work(index);
    }
}
