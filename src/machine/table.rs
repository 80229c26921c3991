//! Which ports and which pages of registers a machine has: what was added, and nothing else, is
//! what the guest may touch.

use guest_abi::layout::{MAX_SLOTS, MMIO_END, MMIO_SIZE};
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
    page.is_multiple_of(MMIO_SIZE) && (first..MMIO_END).contains(&page)
}

#[cfg(test)]
mod tests {
    use guest_abi::layout::{INPUT_MMIO, OUTPUT_MMIO};

    use super::*;

    #[test]
    fn pages_of_registers_are_whole_ones_behind_those_of_virtio_devices() {
        let behind = guest_abi::layout::registers(MAX_SLOTS);
        for page in [behind, MMIO_END - MMIO_SIZE] {
            assert!(is_register_page(page), "{page:#x}");
        }
        let last_slot = guest_abi::layout::registers(MAX_SLOTS - 1);
        for page in [
            0,
            INPUT_MMIO,
            OUTPUT_MMIO,
            last_slot,
            behind + 8,
            MMIO_END - 8,
            MMIO_END,
        ] {
            assert!(!is_register_page(page), "{page:#x}");
        }
    }

    #[test]
    fn a_range_of_ports_has_them_all_and_one_whose_writes_are_collected() {
        let ports = Ports::new(0x3f8, 8);
        assert_eq!(
            ports.iter().collect::<Vec<_>>(),
            (0x3f8..0x400).collect::<Vec<_>>()
        );
        assert_eq!(ports.posted(), None);
        assert_eq!(ports.posting_writes_to(3).posted(), Some(0x3fb));
        assert_eq!(Ports::new(0xffff, 1).posting_writes_to(1).posted(), None);
    }

    #[test]
    fn a_slot_names_the_places_of_its_device() {
        assert_eq!(Slot(0).registers(), INPUT_MMIO);
        assert_eq!(Slot(1).registers(), OUTPUT_MMIO);
        assert_eq!(Slot(3).index(), 3);
        assert_eq!(Slot(1).queue(), guest_abi::layout::queue(1));
    }
}
