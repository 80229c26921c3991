//! A virtio console on virtio-mmio, whose other end is a vector.

use std::cell::{RefCell, RefMut};
use std::collections::VecDeque;
use std::rc::Rc;

use super::memory::{load, load_bytes, store};
use super::{Chooser, Device};
use crate::hardware::Registers;
use crate::virtio::console::{RECEIVE_QUEUE, TRANSMIT_QUEUE};
use crate::virtio::mmio::{F_EVENT_IDX, F_VERSION_1, register, status};
use crate::virtio::ring::passes;

/// What the driver has said of one queue.
#[derive(Clone, Copy, Debug, Default)]
struct Queue {
    size: u32,
    ready: u32,
    addresses: [u32; 12],
}

impl Queue {
    fn part(&self, register: u16) -> u64 {
        let index = usize::from(register - 0x80) / 4;
        u64::from(self.addresses[index]) | u64::from(self.addresses[index + 1]) << 32
    }
}

pub struct Model {
    pub device_id: u32,
    pub features: u64,
    pub queue_max: [u32; 2],
    /// From this chain on, the device has failed.
    pub fails_at: Option<usize>,
    /// What the device says it has used instead of what it has.
    pub used_id: Option<u32>,
    pub status: u32,
    pub accepted: u64,
    chains: usize,
    kicks: usize,
    received: Vec<u8>,
    notified: bool,
    feature_sel: [u32; 2],
    queue_sel: usize,
    queues: [Queue; 2],
    seen: u16,
    used: u16,
    heads: VecDeque<u16>,
    choose: Chooser,
}

pub struct FakeConsole(RefCell<Model>);

impl FakeConsole {
    pub fn new(seed: u64) -> Rc<Self> {
        Rc::new(Self(RefCell::new(Model {
            device_id: 3,
            features: F_VERSION_1 | F_EVENT_IDX,
            queue_max: [64; 2],
            fails_at: None,
            used_id: None,
            status: 0,
            accepted: 0,
            chains: 0,
            kicks: 0,
            received: Vec::new(),
            notified: false,
            feature_sel: [0; 2],
            queue_sel: 0,
            queues: [Queue::default(); 2],
            seen: 0,
            used: 0,
            heads: VecDeque::new(),
            choose: Chooser::new(seed),
        })))
    }

    pub fn get(&self) -> RefMut<'_, Model> {
        self.0.borrow_mut()
    }

    pub fn received(&self) -> Vec<u8> {
        self.get().received.clone()
    }

    /// How many chains have come, and how many kicks.
    pub fn counts(&self) -> (usize, usize) {
        let model = self.get();
        (model.chains, model.kicks)
    }
}

impl Device for FakeConsole {
    fn take_notification(&self) -> bool {
        std::mem::take(&mut self.get().notified)
    }

    fn is_busy(&self) -> bool {
        let model = self.get();
        !model.heads.is_empty() && !model.has_failed()
    }

    fn work(&self) {
        let mut model = self.get();
        let count = 1 + model.choose.below(4);
        model.work(count);
    }
}

impl Registers for Rc<FakeConsole> {
    fn read(&self, offset: u16) -> u32 {
        let model = self.get();
        match offset {
            register::MAGIC_VALUE => 0x7472_6976,
            register::VERSION => 2,
            register::DEVICE_ID => model.device_id,
            register::DEVICE_FEATURES => (model.features >> (32 * model.feature_sel[0])) as u32,
            register::QUEUE_READY => model.queues[model.queue_sel].ready,
            register::QUEUE_NUM_MAX => model.queue_max[model.queue_sel],
            register::STATUS => model.status,
            _ => panic!("read of register {offset:#x}"),
        }
    }

    fn write(&self, offset: u16, value: u32) {
        let mut model = self.get();
        let sel = model.queue_sel;
        match offset {
            register::STATUS => model.set_status(value),
            register::DEVICE_FEATURES_SEL => model.feature_sel[0] = value,
            register::DRIVER_FEATURES_SEL => model.feature_sel[1] = value,
            register::DRIVER_FEATURES => {
                model.accepted |= u64::from(value) << (32 * model.feature_sel[1]);
            }
            register::QUEUE_SEL => model.queue_sel = value as usize,
            register::QUEUE_NUM => {
                assert!(value.is_power_of_two() && value <= model.queue_max[sel]);
                model.queues[sel].size = value;
            }
            register::QUEUE_READY => model.queues[sel].ready = value,
            register::QUEUE_NOTIFY => {
                assert_eq!(value, u32::from(TRANSMIT_QUEUE));
                model.kicks += 1;
                model.kick();
            }
            0x80..=0xa4 => model.queues[sel].addresses[usize::from(offset - 0x80) / 4] = value,
            _ => panic!("write to register {offset:#x}"),
        }
    }
}

impl Model {
    pub fn queue_sizes(&self) -> [u32; 2] {
        self.queues.map(|queue| queue.size)
    }

    fn has_failed(&self) -> bool {
        self.status & status::DEVICE_NEEDS_RESET != 0
    }

    fn set_status(&mut self, value: u32) {
        self.status = value;
        if value & status::FEATURES_OK != 0 {
            assert_eq!(self.accepted & !self.features, 0, "features not offered");
        }
        if value & status::DRIVER_OK != 0 && value & status::FAILED == 0 {
            let ready = self.queues.map(|queue| queue.ready);
            assert_eq!((value, ready), (15, [1, 1]));
        }
    }

    fn transmit(&self) -> Queue {
        self.queues[usize::from(TRANSMIT_QUEUE)]
    }

    fn kick(&mut self) {
        assert_eq!(self.status & status::DRIVER_OK, status::DRIVER_OK);
        self.look();
        let count = self.choose.below(3);
        self.work(count);
    }

    /// Takes what was offered since the last look.
    fn look(&mut self) {
        let queue = self.transmit();
        let avail = queue.part(register::QUEUE_DRIVER);
        let index: u16 = load(avail + 2);
        while self.seen != index {
            let slot = u64::from(self.seen) % u64::from(queue.size);
            self.heads.push_back(load(avail + 4 + 2 * slot));
            self.seen = self.seen.wrapping_add(1);
        }
        let receive = self.queues[usize::from(RECEIVE_QUEUE)];
        let offered: u16 = load(receive.part(register::QUEUE_DRIVER) + 2);
        assert_eq!(offered, 0, "nobody would read what is received");
    }

    fn work(&mut self, count: usize) {
        let old = self.used;
        for _ in 0..count {
            if self.fails_at.is_some_and(|at| self.chains >= at) {
                // Said once, whoever is listening.
                self.notified |= !self.has_failed();
                self.status |= status::DEVICE_NEEDS_RESET;
                return;
            }
            let Some(head) = self.heads.pop_front() else {
                break;
            };
            self.take(head);
            // A device that works looks for more by itself.
            self.look();
        }
        self.ask_for_kicks();
        self.notify(old);
    }

    /// Takes the bytes of a chain, which is one descriptor that the device reads.
    fn take(&mut self, head: u16) {
        let queue = self.transmit();
        assert!(u32::from(head) < queue.size);
        let at = queue.part(register::QUEUE_DESC) + 16 * u64::from(head);
        let (address, len): (u64, u32) = (load(at), load(at + 8));
        let flags: u16 = load(at + 12);
        assert!(flags == 0 && len > 0);
        let mut bytes = vec![0; len as usize];
        load_bytes(address, &mut bytes);
        self.received.append(&mut bytes);
        self.chains += 1;
        let ring = queue.part(register::QUEUE_DEVICE);
        let element = ring + 4 + 8 * (u64::from(self.used) % u64::from(queue.size));
        store(element, self.used_id.unwrap_or(u32::from(head)));
        store(element + 4, 0_u32);
        self.used = self.used.wrapping_add(1);
        store(ring + 2, self.used);
    }

    /// Asks for a kick only if there is nothing left to do.
    fn ask_for_kicks(&self) {
        let queue = self.transmit();
        let ring = queue.part(register::QUEUE_DEVICE);
        if self.accepted & F_EVENT_IDX == 0 {
            store(ring, u16::from(!self.heads.is_empty()));
        } else if self.heads.is_empty() {
            store(ring + 4 + 8 * u64::from(queue.size), self.seen);
        }
    }

    fn notify(&mut self, old: u16) {
        let queue = self.transmit();
        let avail = queue.part(register::QUEUE_DRIVER);
        self.notified |= match self.accepted & F_EVENT_IDX {
            0 => load::<u16>(avail) == 0 && self.used != old,
            _ => {
                let event = load(avail + 4 + 2 * u64::from(queue.size));
                passes(event, old, self.used)
            }
        };
    }
}
