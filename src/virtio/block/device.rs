//! The block device as the transport sees it (virtio 1.2, section 5.2). Its queue belongs to the
//! disk's thread while it runs; whoever stops it waits for that thread to finish its round.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use thiserror::Error;
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::config::{ConfigSpace, MAX_QUEUE_SIZE};
use super::disk::Disk;
use super::execute::{Progress, QueueFault, QueueHandler, WhenEmpty};
use super::request::Geometry;
use super::{BlockConfig, BlockConfigError, BlockCounters, BlockIoError, BlockStats};
use crate::storage::Storage;
use crate::virtio::interrupt::is_readable;
use crate::virtio::{ActivateError, Interrupt, IrqLine, VirtioDevice};

/// Why a block device could not be made.
#[derive(Debug, Error)]
pub enum NewBlockError {
    /// There is no such disk.
    #[error(transparent)]
    Config(#[from] BlockConfigError),
    /// The host has no eventfd for its queue.
    #[error("cannot create an eventfd for the disk's queue: {0}")]
    EventFd(#[source] io::Error),
}

/// A block device over a backend `B`, with one queue.
///
/// Add it, in an [`Arc`], to an [`EventManager`](event_manager::EventManager) on a thread of its
/// own, and to the MMIO bus by way of a [`MmioTransport`](crate::virtio::MmioTransport).
pub struct Block<B> {
    disk: Disk<B>,
    features: u64,
    config_space: ConfigSpace,
    kicks: [EventFd; 1],
    /// `None` unless the driver has started the device.
    handler: Mutex<Option<QueueHandler>>,
    /// Set before the kick is taken from its eventfd and cleared when the queue has been looked
    /// at, so that at any time one of the two tells of work to come.
    busy: AtomicBool,
    /// Set once another thread works on the queue whenever it has the time: kicks, each of which
    /// wakes the disk's own thread, are not asked for any more.
    helped: AtomicBool,
    /// Whether the requests of the last batch were large. Small ones are left to the disk's own
    /// thread, since they cost the processor more than a wake-up does.
    has_large_requests: AtomicBool,
    /// The first fault alone: a guest can reset the device and cause as many as it likes.
    fault: OnceLock<QueueFault>,
}

impl<B: Storage> Block<B> {
    /// Makes a disk. It reads and writes `memory` and nothing else of the guest: the regions in
    /// it are those that the guest may hand to devices.
    ///
    /// # Errors
    ///
    /// A configuration that is not a disk's, or a host without eventfds.
    pub fn new(
        config: &BlockConfig,
        backend: B,
        memory: GuestMemoryMmap,
        line: Arc<IrqLine>,
    ) -> Result<Self, NewBlockError> {
        config.check()?;
        let kick = EventFd::new(EFD_NONBLOCK).map_err(NewBlockError::EventFd)?;
        Ok(Self {
            disk: Disk {
                backend,
                memory,
                geometry: Geometry::new(config),
                id: config.id,
                interrupt: Interrupt::new(line),
                stats: Arc::new(BlockStats::default()),
                io_error: OnceLock::new(),
            },
            features: config.features(),
            config_space: ConfigSpace::new(config),
            kicks: [kick],
            handler: Mutex::new(None),
            busy: AtomicBool::new(false),
            helped: AtomicBool::new(false),
            has_large_requests: AtomicBool::new(false),
            fault: OnceLock::new(),
        })
    }

    /// The counters, to be read at any time.
    #[must_use]
    pub fn stats(&self) -> Arc<BlockStats> {
        Arc::clone(&self.disk.stats)
    }

    /// What lies behind the device.
    #[must_use]
    pub fn backend(&self) -> &B {
        &self.disk.backend
    }

    /// The first error of the host that a request has met, if any.
    #[must_use]
    pub fn io_error(&self) -> Option<&BlockIoError> {
        self.disk.io_error.get()
    }

    /// The first fault of the driver that has stopped the device, if any.
    #[must_use]
    pub fn fault(&self) -> Option<&QueueFault> {
        self.fault.get()
    }

    /// The eventfd of the only queue.
    pub(super) fn kick(&self) -> &EventFd {
        &self.kicks[0]
    }

    /// Takes a kick and does what the queue asks for. Without an active queue the kick is lost,
    /// as one before DRIVER_OK is to be. For the disk's thread, and for who drives the device without
    /// an event loop.
    pub fn handle_kick(&self) {
        self.busy.store(true, Ordering::SeqCst);
        // It fails if a reset has taken the kick; the queue is looked at all the same.
        let _ = self.kick().read();
        self.disk.stats.add(&BlockCounters {
            kicks: 1,
            ..BlockCounters::default()
        });
        let when_empty = match self.helped.load(Ordering::SeqCst) {
            true => WhenEmpty::LookAgainIfLarge,
            false => WhenEmpty::AskForKicks,
        };
        self.process_queue(&mut self.handler(), when_empty);
        self.busy.store(false, Ordering::SeqCst);
    }

    fn process_queue(&self, active: &mut Option<QueueHandler>, when_empty: WhenEmpty) {
        let Some(handler) = active.as_mut() else {
            return;
        };
        let progress = handler.process(&self.disk, when_empty);
        let large = handler.has_large_requests();
        self.has_large_requests.store(large, Ordering::SeqCst);
        match progress {
            Ok(Progress::Empty) => {}
            Ok(Progress::More) => self.kick_self(),
            Err(fault) => {
                // Still locked, so that a reset comes before all of this or after it.
                *active = None;
                let _ = self.fault.set(fault);
                self.disk.interrupt.set_needs_reset();
            }
        }
    }

    fn kick_self(&self) {
        // The only failure is a counter that is full, and then the queue is looked at anyway.
        let _ = self.kick().write(1);
    }

    fn handler(&self) -> MutexGuard<'_, Option<QueueHandler>> {
        self.handler.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Storage> VirtioDevice for Block<B> {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn device_features(&self) -> u64 {
        self.features
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &[MAX_QUEUE_SIZE]
    }

    fn queue_events(&self) -> &[EventFd] {
        &self.kicks
    }

    fn interrupt(&self) -> &Interrupt {
        &self.disk.interrupt
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        self.config_space.read(offset, data);
    }

    fn write_config(&self, _offset: usize, _data: &[u8]) {}

    fn activate(&self, driver_features: u64, queues: Vec<Queue>) -> Result<(), ActivateError> {
        let queue = queues
            .into_iter()
            .next()
            .filter(Queue::ready)
            .ok_or(ActivateError::QueueNotReady(0))?;
        let indirect = driver_features & (1 << VIRTIO_RING_F_INDIRECT_DESC) != 0;
        *self.handler() = Some(QueueHandler::new(queue, indirect));
        // What the driver made available before it started the device comes with no kick.
        self.kick_self();
        Ok(())
    }

    fn stop_queue(&self, index: usize) {
        if index == 0 {
            *self.handler() = None;
        }
    }

    fn reset(&self) {
        let mut active = self.handler();
        *active = None;
        // It fails if there is no kick to forget.
        let _ = self.kick().read();
        self.disk.interrupt.reset();
    }

    fn work_here(&self) -> bool {
        self.helped.store(true, Ordering::SeqCst);
        // Nor is the lock waited for in vain, which the disk's thread may hold for long.
        if !self.has_large_requests.load(Ordering::SeqCst) {
            return false;
        }
        let mut active = self.handler();
        let before = self.disk.stats.counters().requests;
        self.process_queue(&mut active, WhenEmpty::LookAgainIfLarge);
        self.disk.stats.counters().requests != before
    }

    fn in_flight(&self) -> bool {
        // In this order: a kick that is not there any more was taken by a thread that had set
        // `busy` before. The first look spares the system call while the disk works.
        let is_busy = || self.busy.load(Ordering::SeqCst);
        is_busy() || is_readable(self.kick()) || is_busy()
    }
}
