//! What a device's driver did wrong, kept for who asks in the end why the device does not work.

use std::sync::{Arc, Mutex};

use super::DeviceFault;
use crate::lock::lock;

/// The first fault since the device was last started. No further ones are kept: a driver can reset the
/// device and cause as many as it likes.
#[derive(Debug, Default)]
pub(super) struct FirstFault(Mutex<Option<Arc<DeviceFault>>>);

impl FirstFault {
    /// Keeps `fault` if it is the first.
    pub(super) fn set(&self, fault: DeviceFault) {
        lock(&self.0).get_or_insert_with(|| Arc::new(fault));
    }

    /// The device has been started: whatever its driver did wrong before is mended.
    pub(super) fn clear(&self) {
        *lock(&self.0) = None;
    }

    pub(super) fn get(&self) -> Option<Arc<DeviceFault>> {
        lock(&self.0).clone()
    }
}
