//! The idle port: where the vCPU waits for its devices.
//!
//! A read of it returns once a device has sent a used buffer notification. If nothing is in
//! flight on any queue no one can ever send one, and the run is over.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::virtio::{IrqLine, VirtioDevice};

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wake {
    /// A device has used buffers.
    Notified,
    /// The run is to stop.
    Stopped,
    /// No device has anything to do, and none has used a buffer since the last wait.
    NothingInFlight,
}

/// The idle port of a machine.
pub struct IdlePort {
    line: Arc<IrqLine>,
    devices: Vec<Arc<dyn VirtioDevice>>,
    /// The device whose work the vCPU's thread does while the guest waits.
    helped: Option<Arc<dyn VirtioDevice>>,
    /// [`IrqLine::completions`] when the guest was last let go.
    seen: u64,
}

impl IdlePort {
    /// The idle port for `devices`, which all notify through `line`.
    #[must_use]
    pub fn new(line: Arc<IrqLine>, devices: Vec<Arc<dyn VirtioDevice>>) -> Self {
        Self {
            line,
            devices,
            helped: None,
            seen: 0,
        }
    }

    /// Lets the vCPU's thread do the work of `device` while the guest waits. It has nothing else
    /// to do then, and its work need not be handed to a thread that would have to wake up first.
    #[must_use]
    pub fn helping(mut self, device: Arc<dyn VirtioDevice>) -> Self {
        self.helped = Some(device);
        self
    }

    /// Does the work of the device that is helped; whether there was any.
    pub(super) fn help(&self) -> bool {
        self.helped
            .as_ref()
            .is_some_and(|device| device.work_here())
    }

    /// Waits until a device notifies or `stop` is set. A signal makes it look again.
    pub(super) fn wait(&mut self, stop: &AtomicBool) -> Wake {
        let wake = loop {
            if stop.load(Ordering::SeqCst) {
                break Wake::Stopped;
            }
            if self.help() {
                break Wake::Notified;
            }
            if !self.in_flight() {
                break self.wake_without_work();
            }
            match self.line.wait() {
                Ok(()) => break Wake::Notified,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // An eventfd cannot fail in another way.
                Err(_) => break Wake::Stopped,
            }
        };
        self.seen = self.line.completions();
        wake
    }

    /// All devices rest. One may have notified between the guest's last look and now; or have
    /// used buffers without a notification, because the guest asked for one only later on.
    fn wake_without_work(&self) -> Wake {
        if self.line.take() || self.line.completions() != self.seen {
            Wake::Notified
        } else {
            Wake::NothingInFlight
        }
    }

    fn in_flight(&self) -> bool {
        self.devices.iter().any(|device| device.in_flight())
    }
}
