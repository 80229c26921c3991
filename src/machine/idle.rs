//! The idle port: where the vCPU waits for its devices.
//!
//! A read of it returns once a device has sent a used buffer notification. If nothing is in
//! flight on any queue no one can ever send one, and the run is over.
//!
//! While the guest waits here the vCPU's thread has nothing to do, so it serves the queues itself
//! instead of waking a thread that would then have to wake it: helping. Between two waits nobody
//! looks at a queue that is helped, since the guest is about to come back. A guest that does not
//! come back in time is found out at the next kick of the vCPU, and from then on the devices'
//! threads serve it.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use vm_device::DevicePio;
use vm_device::bus::{PioAddress, PioAddressOffset};

use super::{Ender, VcpuEnd};
use crate::virtio::{IrqLine, VirtioDevice};

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

    fn any(&self, test: impl FnMut(&Arc<dyn VirtioDevice>) -> bool) -> bool {
        let devices = self.0.read().unwrap_or_else(PoisonError::into_inner);
        devices.iter().any(test)
    }
}

/// Where the vCPU of a machine waits.
pub struct IdlePort {
    line: Arc<IrqLine>,
    devices: Devices,
    ender: Ender,
    /// The slot of the device that is helped.
    helped: Option<usize>,
    /// Whether helping goes on: not for a guest that does not come back.
    helps: AtomicBool,
    /// Whether the queues of that device are served here.
    has_queues: AtomicBool,
    /// How often the guest has come, now and at the last look.
    visits: AtomicU64,
    seen_visits: AtomicU64,
    /// [`IrqLine::completions`] when the guest was last let go.
    seen: AtomicU64,
}

impl IdlePort {
    pub(super) fn new(line: Arc<IrqLine>, devices: Devices, ender: Ender) -> Self {
        Self {
            line,
            devices,
            ender,
            helped: None,
            helps: AtomicBool::new(false),
            has_queues: AtomicBool::new(false),
            visits: AtomicU64::new(0),
            seen_visits: AtomicU64::new(0),
            seen: AtomicU64::new(0),
        }
    }

    pub(super) fn help(&mut self, slot: usize) {
        self.helped = Some(slot);
        self.helps.store(true, Ordering::Relaxed);
    }

    /// How often the guest has waited here.
    pub(super) fn visits(&self) -> u64 {
        self.visits.load(Ordering::Relaxed)
    }

    /// For each kick that makes the vCPU leave the guest: ends helping if the guest has not been
    /// here since the last one. What it has made available meanwhile is found then.
    pub(super) fn look_after_guest(&self) {
        let visits = self.visits();
        let absent = self.seen_visits.swap(visits, Ordering::Relaxed) == visits;
        if absent && self.has_queues.swap(false, Ordering::Relaxed) {
            self.helps.store(false, Ordering::Relaxed);
            self.on_helped(|device| {
                device.serve_by_kicks();
                false
            });
        }
    }

    /// Waits until a device notifies or the run is ended. A signal makes it look again.
    fn wait(&self) {
        self.visits.fetch_add(1, Ordering::Relaxed);
        loop {
            if self.ender.has_ended() || self.serve() {
                break;
            }
            if !self.devices.any(|device| device.in_flight()) {
                if !self.was_notified() {
                    self.ender.end(VcpuEnd::NothingInFlight);
                }
                break;
            }
            match self.line.wait() {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let what = format!("cannot wait for the machine's devices: {error}");
                    self.ender.end(VcpuEnd::Unexpected(what));
                }
            }
        }
        let completions = self.line.completions();
        self.seen.store(completions, Ordering::Relaxed);
    }

    /// Does the work of the device that is helped; whether there was any.
    fn serve(&self) -> bool {
        if !self.helps.load(Ordering::Relaxed) {
            return false;
        }
        self.has_queues.store(true, Ordering::Relaxed);
        self.on_helped(|device| device.serve_here())
    }

    fn on_helped(&self, act: impl Fn(&Arc<dyn VirtioDevice>) -> bool) -> bool {
        let devices = self.devices.0.read();
        let devices = devices.unwrap_or_else(PoisonError::into_inner);
        let helped = self.helped.and_then(|slot| devices.get(slot));
        helped.is_some_and(act)
    }

    /// All devices rest. One may have notified between the guest's last look and now; or have
    /// used buffers without a notification, because the guest asked for one only later on.
    fn was_notified(&self) -> bool {
        let seen = self.seen.load(Ordering::Relaxed);
        self.line.take() || self.line.completions() != seen
    }
}

impl DevicePio for IdlePort {
    fn pio_read(&self, _base: PioAddress, _offset: PioAddressOffset, data: &mut [u8]) {
        data.fill(0);
        self.wait();
    }

    fn pio_write(&self, _base: PioAddress, _offset: PioAddressOffset, _data: &[u8]) {}
}
