//! Counts of the vCPU's exits to user space, by kind.

use std::sync::atomic::{AtomicU64, Ordering};

/// How often the vCPU has left for user space, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExitCounts {
    /// Port input, the idle port excepted.
    pub pio_in: u64,
    /// Port output, the exit port included.
    pub pio_out: u64,
    /// Reads of device registers.
    pub mmio_read: u64,
    /// Writes of device registers.
    pub mmio_write: u64,
    /// Reads of the idle port.
    pub idle: u64,
    /// Signals and whatever else.
    pub other: u64,
    /// Bytes written that KVM kept until another exit; not exits themselves.
    pub coalesced: u64,
}

impl ExitCounts {
    /// All exits.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.pio_in + self.pio_out + self.mmio_read + self.mmio_write + self.idle + self.other
    }
}

/// A sign of life from the vCPU's thread: it changes with each exit.
#[derive(Debug, Default)]
pub(super) struct Heartbeat(AtomicU64);

impl Heartbeat {
    /// For the vCPU's thread alone: no other writes, so that no atomic addition is needed.
    pub(super) fn beat(&self) {
        let next = self.0.load(Ordering::Relaxed).wrapping_add(1);
        self.0.store(next, Ordering::Relaxed);
    }

    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
