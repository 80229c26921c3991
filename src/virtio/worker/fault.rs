//! What a device's driver did wrong, kept for who asks in the end why the device does not work.

use std::sync::{Arc, Mutex};

use super::DeviceFault;
use crate::lock::lock;

/// The first fault since the device was last started. No further ones are kept: a driver can reset the
/// device and cause as many as it likes.
#[derive(Debug, Default)]
pub(super) struct FirstFault(Mutex<Option<Arc<DeviceFault>>>);

impl FirstFault {
    /// Keeps `fault` if it is the first. A driver whose features are refused may try others, so that such a
    /// refusal is of no account any more where the next fault came after FEATURES_OK.
    pub(super) fn set(&self, fault: DeviceFault) {
        let mut first = lock(&self.0);
        if first
            .as_deref()
            .is_none_or(|first| first.is_mended_by(&fault))
        {
            *first = Some(Arc::new(fault));
        }
    }

    /// The device has been started: whatever its driver did wrong before is mended.
    pub(super) fn clear(&self) {
        *lock(&self.0) = None;
    }

    pub(super) fn get(&self) -> Option<Arc<DeviceFault>> {
        lock(&self.0).clone()
    }
}
