//! The devices that are helped: those whose queues somebody else's thread serves where that is of
//! use. docs/waiting.md has the whole of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::virtio::VirtioDevice;

/// A guest that has been away for so long is not about to come back.
pub(super) const ABSENCE: Duration = Duration::from_millis(25);

/// The virtio devices of a machine, shared by the machine, to which they are added, and its idle
/// port.
#[derive(Clone, Default)]
pub(super) struct Devices(Arc<RwLock<Vec<Arc<dyn VirtioDevice>>>>);

impl Devices {
    pub(super) fn add(&self, device: Arc<dyn VirtioDevice>) {
        let mut devices = self.0.write().unwrap_or_else(PoisonError::into_inner);
        devices.push(device);
    }

    pub(super) fn len(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(super) fn any(&self, test: impl FnMut(&Arc<dyn VirtioDevice>) -> bool) -> bool {
        let devices = self.0.read().unwrap_or_else(PoisonError::into_inner);
        devices.iter().any(test)
    }
}

/// The devices in some of a machine's slots, and whether they are still helped.
pub(super) struct Helped {
    devices: Devices,
    slots: Vec<usize>,
    /// A guest that does not come back ends that for good.
    helps: AtomicBool,
    /// When the guest was last looked after: let go by the idle port, or left by the poller.
    left: Mutex<Instant>,
}

impl Helped {
    pub(super) fn new(devices: Devices, slots: Vec<usize>) -> Self {
        Self {
            devices,
            helps: AtomicBool::new(!slots.is_empty()),
            slots,
            left: Mutex::new(Instant::now()),
        }
    }

    /// Serves the queues of these devices. Returns whether any buffer was used.
    pub(super) fn serve(&self) -> bool {
        let mut any = false;
        if self.helps.load(Ordering::Relaxed) {
            self.each(|device| any |= device.serve_here());
        }
        any
    }

    /// Notes that the guest has just been served.
    pub(super) fn leave(&self) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Does what has become available while nobody looked, and ends helping if the guest has been
    /// away for long.
    pub(super) fn look_after_guest(&self) {
        let left = *self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if self.serve() && left.elapsed() >= ABSENCE {
            self.helps.store(false, Ordering::Relaxed);
            self.each(|device| device.serve_by_kicks());
        }
    }

    fn each(&self, act: impl FnMut(&Arc<dyn VirtioDevice>)) {
        let devices = self.devices.0.read();
        let devices = devices.unwrap_or_else(PoisonError::into_inner);
        let helped = self.slots.iter().filter_map(|&slot| devices.get(slot));
        helped.for_each(act);
    }
}
