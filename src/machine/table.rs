//! Which ports and which pages of registers a machine has: what was added, and nothing else, is
//! what the guest may touch.

use guest_abi::layout::{MAX_SLOTS, MMIO, MMIO_END, MMIO_SIZE};
use vm_device::bus::{self, PioAddress, PioRange};

/// A range of I/O ports that a device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    first: u16,
    count: u16,
    posted: Option<u16>,
}

impl Ports {
    /// `count` ports from `first` up; at least 1.
    #[must_use]
    pub const fn new(first: u16, count: u16) -> Self {
        Self {
            first,
            count,
            posted: None,
        }
    }

    /// Lets KVM collect what is written to the port `offset` behind the first one, where KVM can
    /// (KVM API, section 4.116). The device sees the writes later, in order, before the next
    /// access that KVM does not collect. For ports whose writes nobody waits for.
    #[must_use]
    pub const fn posting_writes_to(self, offset: u16) -> Self {
        Self {
            posted: Some(offset),
            ..self
        }
    }

    /// The port whose writes are collected.
    pub(super) fn posted(self) -> Option<u16> {
        self.first.checked_add(self.posted?)
    }

    pub(super) fn range(self) -> Result<PioRange, bus::Error> {
        PioRange::new(PioAddress(self.first), self.count)
    }

    /// All of them. That they fit below port 65,536 was found out by [`range`](Self::range).
    pub(super) fn iter(self) -> impl Iterator<Item = u16> {
        (self.first..=u16::MAX).take(self.count.into())
    }
}

/// Where a virtio device is: its place in the order in which they were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(pub(super) usize);

impl Slot {
    /// The slot's number, from 0 up.
    #[must_use]
    pub fn index(self) -> usize {
        self.0
    }

    /// Guest-physical address of the device's registers (virtio 1.2, section 4.2.2).
    #[must_use]
    pub fn registers(self) -> u64 {
        guest_abi::layout::registers(self.0)
    }

    /// Guest-physical address of the 64 KiB that the device's queues may lie in.
    #[must_use]
    pub fn queue(self) -> u64 {
        guest_abi::layout::queue(self.0)
    }
}

/// Whether there can be registers at `page`, beside those of virtio devices.
pub(super) fn is_register_page(page: u64) -> bool {
    let first = guest_abi::layout::registers(MAX_SLOTS);
    page.is_multiple_of(MMIO_SIZE) && (first..MMIO_END).contains(&page) && first > MMIO
}
