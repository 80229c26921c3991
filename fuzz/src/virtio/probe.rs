//! A device that passes everything on to the one behind it and remembers which queues are active,
//! so that a round of its work can be looked at from both sides.

use std::sync::{Arc, Mutex, MutexGuard};

use virtio_queue::Queue;
use vmm::virtio::{ActivateError, Notifier, VirtioDevice};
use vmm_sys_util::eventfd::EventFd;

use super::memory::Memory;
use super::queue::{ActiveQueue, Reach};

/// The device and the queues that it was started with.
pub struct Probe<D> {
    pub device: Arc<D>,
    active: Vec<Mutex<Option<ActiveQueue>>>,
}

/// What a device did with a queue that it runs.
pub struct Round {
    /// Whether nothing that the device wrote could change what it had still to read.
    pub predictable: bool,
    /// How many buffers were available.
    pub available: u16,
    /// Whether that is more than the queue holds.
    pub excessive: bool,
    /// How many were used, and the bytes that the used ring says were written to them, which it
    /// does not if a buffer lies there.
    pub used: u64,
    pub is_told: bool,
    pub used_bytes: u64,
    /// Whether the device has stopped.
    pub stopped: bool,
}

impl<D: VirtioDevice> Probe<D> {
    pub fn new(device: Arc<D>) -> Self {
        let queues = device.queue_max_sizes().iter();
        Self {
            active: queues.map(|_| Mutex::new(None)).collect(),
            device,
        }
    }

    /// Lets the device work on queue `index`, where it may write within `reach`; `used` counts the
    /// buffers that it has used of it. `None` if the queue is not active, and then it uses none.
    pub fn watch(
        &self,
        index: usize,
        (memory, reach): (&Memory, Reach),
        used: impl Fn() -> u64,
        work: impl FnOnce(&D),
    ) -> Option<Round> {
        let mut active = self.active(index);
        let before = used();
        let running = active.as_mut().filter(|_| !self.notifier().needs_reset());
        let Some(queue) = running else {
            work(&self.device);
            assert_eq!(used(), before, "a stopped queue is used");
            return None;
        };
        let survey = queue.survey(memory, reach);
        let predictable = !survey.rewrites;
        let available = queue.available(&memory.dma);
        work(&self.device);
        let used = used() - before;
        queue.count(used);
        if used > 0 {
            assert!(queue.index_is_right(&memory.dma), "a wrong used index");
        }
        let round = Round {
            predictable,
            available,
            excessive: available > queue.size(),
            used,
            is_told: predictable && !survey.overwrites,
            used_bytes: queue.used_bytes(&memory.dma, used.min(queue.size().into())),
            stopped: self.notifier().needs_reset(),
        };
        if predictable && round.excessive {
            assert_eq!(used, 0, "more was available than a queue holds");
        } else if predictable {
            assert!(
                used <= available.into(),
                "{used} of {available} buffers were used"
            );
        }
        Some(round)
    }

    /// Lets the device work on all its queues, where it may write within `reaches`; `used` counts the
    /// buffers of a queue. What it writes for one of them may change another.
    pub fn watch_all(
        &self,
        (memory, reaches): (&Memory, &[Reach]),
        used: impl Fn(usize) -> u64,
        work: impl FnOnce(&D),
    ) {
        for (index, reach) in reaches.iter().enumerate() {
            if let Some(queue) = self.active(index).as_ref() {
                queue.survey(memory, *reach);
            }
        }
        let before: Vec<_> = (0..reaches.len()).map(&used).collect();
        work(&self.device);
        for (index, before) in before.into_iter().enumerate() {
            let used = used(index) - before;
            let mut active = self.active(index);
            assert!(used == 0 || active.is_some(), "a stopped queue is used");
            active.iter_mut().for_each(|queue| queue.count(used));
        }
    }

    fn active(&self, index: usize) -> MutexGuard<'_, Option<ActiveQueue>> {
        self.active[index].lock().unwrap()
    }
}

impl<D: VirtioDevice> VirtioDevice for Probe<D> {
    fn device_type(&self) -> u32 {
        self.device.device_type()
    }

    fn device_features(&self) -> u64 {
        self.device.device_features()
    }

    fn queue_max_sizes(&self) -> &[u16] {
        self.device.queue_max_sizes()
    }

    fn queue_events(&self) -> &[EventFd] {
        self.device.queue_events()
    }

    fn notifier(&self) -> &Notifier {
        self.device.notifier()
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        self.device.read_config(offset, data);
    }

    fn write_config(&self, offset: usize, data: &[u8]) {
        self.device.write_config(offset, data);
    }

    fn activate(&self, driver_features: u64, queues: Vec<Queue>) -> Result<(), ActivateError> {
        let started: Vec<_> = queues.iter().map(ActiveQueue::new).collect();
        self.device.activate(driver_features, queues)?;
        for (index, queue) in started.into_iter().enumerate() {
            *self.active(index) = Some(queue);
        }
        Ok(())
    }

    fn stop_queue(&self, index: usize) {
        self.device.stop_queue(index);
        if index < self.active.len() {
            *self.active(index) = None;
        }
    }

    fn reset(&self) {
        self.device.reset();
        (0..self.active.len()).for_each(|index| *self.active(index) = None);
    }

    fn serve_here(&self) -> bool {
        self.device.serve_here()
    }

    fn serve_by_kicks(&self) {
        self.device.serve_by_kicks();
    }

    fn refuse_start(&self, why: ActivateError) {
        self.device.refuse_start(why);
    }

    fn in_flight(&self) -> bool {
        self.device.in_flight()
    }
}
