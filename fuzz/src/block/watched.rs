//! The two things between the device and its surroundings that watch it: a backend that checks
//! each transfer it is asked for, and a device that remembers which queue is active.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use virtio_queue::Queue;
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, VolatileSlice};
use vmm::storage::{MemoryStorage, Storage};
use vmm::virtio::block::Block;
use vmm::virtio::{ActivateError, Interrupt, VirtioDevice};
use vmm_sys_util::eventfd::EventFd;

use super::queue::ActiveQueue;

/// The kernel's IOV_MAX: a real backend could not pass more buffers on.
const MAX_BUFFERS: usize = 1024;

/// A disk in memory that accepts only what a device may ask for.
pub struct Watched {
    pub storage: MemoryStorage,
    pub capacity: u64,
    pub sector_size: u64,
    pub read_only: bool,
    /// Transfers that touch these bytes fail.
    pub faulty: Range<u64>,
    /// Where guest memory within reach of devices lies in this process.
    pub reach: Vec<Range<usize>>,
    pub read: AtomicU64,
    pub written: AtomicU64,
    pub zeroed: AtomicU64,
}

impl Watched {
    /// The host addresses of `memory`.
    pub fn reach(memory: &GuestMemoryMmap) -> Vec<Range<usize>> {
        let span = |region: &vm_memory::GuestRegionMmap| {
            let start = region.get_mmap().as_ptr() as usize;
            start..start + usize::try_from(region.len()).unwrap()
        };
        memory.iter().map(span).collect()
    }

    fn check(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<u64> {
        assert!(buffers.len() <= MAX_BUFFERS, "{} buffers", buffers.len());
        for buffer in buffers {
            let start = buffer.ptr_guard().as_ptr() as usize;
            let inside =
                |reach: &Range<usize>| start >= reach.start && start + buffer.len() <= reach.end;
            assert!(self.reach.iter().any(inside), "a buffer out of reach");
        }
        let len: usize = buffers.iter().map(VolatileSlice::len).sum();
        let len = u64::try_from(len).unwrap();
        self.check_extent(offset, len)?;
        Ok(len)
    }

    fn check_extent(&self, offset: u64, len: u64) -> io::Result<()> {
        assert!(len > 0, "an empty transfer");
        let whole = offset.is_multiple_of(self.sector_size) && len.is_multiple_of(self.sector_size);
        assert!(whole, "{len} bytes at {offset} are not whole sectors");
        let end = offset.checked_add(len).unwrap();
        assert!(
            end <= self.capacity,
            "{len} bytes at {offset} are past the end"
        );
        if offset < self.faulty.end && self.faulty.start < end {
            return Err(io::ErrorKind::Other.into());
        }
        Ok(())
    }
}

impl Storage for Watched {
    fn read_at(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        let len = self.check(offset, buffers)?;
        self.storage.read_at(offset, buffers)?;
        self.read.fetch_add(len, Ordering::Relaxed);
        Ok(())
    }

    fn write_at(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        assert!(!self.read_only, "a read-only disk is written to");
        let len = self.check(offset, buffers)?;
        self.storage.write_at(offset, buffers)?;
        self.written.fetch_add(len, Ordering::Relaxed);
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, length: u64, unmap: bool) -> io::Result<()> {
        assert!(!self.read_only, "a read-only disk is made zero");
        self.check_extent(offset, length)?;
        self.storage.write_zeroes(offset, length, unmap)?;
        self.zeroed.fetch_add(length, Ordering::Relaxed);
        Ok(())
    }

    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        assert!(!self.read_only, "a read-only disk is discarded");
        self.check_extent(offset, length)
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Passes everything on to the device and remembers the queue that it was started with.
pub struct Probe {
    pub device: Arc<Block<Watched>>,
    pub active: Mutex<Option<ActiveQueue>>,
}

impl VirtioDevice for Probe {
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

    fn interrupt(&self) -> &Interrupt {
        self.device.interrupt()
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        self.device.read_config(offset, data);
    }

    fn write_config(&self, offset: usize, data: &[u8]) {
        self.device.write_config(offset, data);
    }

    fn activate(&self, driver_features: u64, queues: Vec<Queue>) -> Result<(), ActivateError> {
        let active = queues.first().map(ActiveQueue::new);
        self.device.activate(driver_features, queues)?;
        *self.active.lock().unwrap() = active;
        Ok(())
    }

    fn stop_queue(&self, index: usize) {
        self.device.stop_queue(index);
        if index == 0 {
            *self.active.lock().unwrap() = None;
        }
    }

    fn reset(&self) {
        self.device.reset();
        *self.active.lock().unwrap() = None;
    }

    fn in_flight(&self) -> bool {
        self.device.in_flight()
    }
}
