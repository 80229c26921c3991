//! The registers of one virtqueue, kept as the driver wrote them until they are checked all at
//! once (virtio 1.2, sections 2.7 and 4.2.2). A queue is only built from registers that describe
//! three aligned areas of guest memory that do not overlap.

use thiserror::Error;
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// Size of a descriptor in bytes (virtio 1.2, section 2.7.5).
pub(super) const DESCRIPTOR_SIZE: u64 = 16;
/// Flags and index at the start of either ring.
pub(super) const RING_HEADER_SIZE: u64 = 4;
/// Size of an element of the available ring.
pub(super) const AVAIL_ELEMENT_SIZE: u64 = 2;
/// Size of an element of the used ring.
pub(super) const USED_ELEMENT_SIZE: u64 = 8;
/// The event index behind either ring; room is needed even if the feature is not negotiated.
const RING_EVENT_SIZE: u64 = 2;

/// Why a queue cannot be used as the driver set it up.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum QueueConfigError {
    /// Not aligned as the specification demands.
    #[error("the {area} at {address:#x} is not aligned to {align} bytes")]
    Alignment {
        /// Which part of the queue.
        area: &'static str,
        /// Where the driver put it.
        address: u64,
        /// What it must be a multiple of.
        align: u64,
    },
    /// Not wholly within one region of the memory that devices may use.
    #[error("the {area} at {address:#x} ({size} bytes) is not within guest memory")]
    Memory {
        /// Which part of the queue.
        area: &'static str,
        /// Where the driver put it.
        address: u64,
        /// Its size in bytes.
        size: u64,
    },
    /// Two parts of the queue lie in the same memory.
    #[error("the {0} and the {1} overlap")]
    Overlap(&'static str, &'static str),
    /// Not a power of two, or more than the device offers.
    #[error("{size} is not a queue size (a power of two up to {max})")]
    Size {
        /// What the driver asked for.
        size: u32,
        /// What the device offers.
        max: u16,
    },
}

/// What the driver has written to one queue's registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueConfig {
    /// The register QueueNum. All 32 bits are kept, so that 0x10008 is not taken for 8.
    pub size: u32,
    /// Address of the descriptor table.
    pub desc_table: u64,
    /// Address of the available ring, which the driver writes.
    pub avail_ring: u64,
    /// Address of the used ring, which the device writes.
    pub used_ring: u64,
    /// QueueReady.
    pub ready: bool,
}

/// One of the three parts of a queue.
struct Area {
    name: &'static str,
    address: u64,
    size: u64,
    align: u64,
}

impl QueueConfig {
    /// The state after a reset.
    #[must_use]
    pub fn new(max_size: u16) -> Self {
        Self {
            size: u32::from(max_size),
            ..Self::default()
        }
    }

    /// Checks the registers and makes a queue of them, which is ready if the registers say so.
    ///
    /// Each area must lie in one region of `memory`: then a single lookup resolves it.
    ///
    /// # Errors
    ///
    /// What is wrong with a queue that is ready. One that is not ready is not looked at.
    pub fn build(
        &self,
        max_size: u16,
        event_idx: bool,
        memory: &GuestMemoryMmap,
    ) -> Result<Queue, QueueConfigError> {
        let size_error = QueueConfigError::Size {
            size: self.size,
            max: max_size,
        };
        let Ok(mut queue) = Queue::new(max_size) else {
            return Err(size_error);
        };
        if !self.ready {
            return Ok(queue);
        }
        match u16::try_from(self.size) {
            Ok(size) if queue.try_set_size(size).is_ok() => self.check_areas(size, memory)?,
            _ => return Err(size_error),
        }
        // None of these can fail: the alignment has been checked.
        let _ = queue.try_set_desc_table_address(GuestAddress(self.desc_table));
        let _ = queue.try_set_avail_ring_address(GuestAddress(self.avail_ring));
        let _ = queue.try_set_used_ring_address(GuestAddress(self.used_ring));
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        Ok(queue)
    }

    fn check_areas(&self, size: u16, memory: &GuestMemoryMmap) -> Result<(), QueueConfigError> {
        let areas = self.areas(u64::from(size));
        for area in &areas {
            area.check(memory)?;
        }
        for (index, area) in areas.iter().enumerate() {
            for other in &areas[index + 1..] {
                if area.overlaps(other) {
                    return Err(QueueConfigError::Overlap(area.name, other.name));
                }
            }
        }
        Ok(())
    }

    fn areas(&self, size: u64) -> [Area; 3] {
        let ring = RING_HEADER_SIZE + RING_EVENT_SIZE;
        [
            Area {
                name: "descriptor table",
                address: self.desc_table,
                size: DESCRIPTOR_SIZE * size,
                align: 16,
            },
            Area {
                name: "available ring",
                address: self.avail_ring,
                size: ring + AVAIL_ELEMENT_SIZE * size,
                align: 2,
            },
            Area {
                name: "used ring",
                address: self.used_ring,
                size: ring + USED_ELEMENT_SIZE * size,
                align: 4,
            },
        ]
    }
}

impl Area {
    fn check(&self, memory: &GuestMemoryMmap) -> Result<(), QueueConfigError> {
        if !self.address.is_multiple_of(self.align) {
            return Err(QueueConfigError::Alignment {
                area: self.name,
                address: self.address,
                align: self.align,
            });
        }
        // virtio-queue takes address 0 for "never set", even where there is memory.
        let inside = self.address != 0
            && usize::try_from(self.size)
                .is_ok_and(|size| memory.get_slice(GuestAddress(self.address), size).is_ok());
        if inside {
            return Ok(());
        }
        Err(QueueConfigError::Memory {
            area: self.name,
            address: self.address,
            size: self.size,
        })
    }

    /// Both areas lie in memory, so their ends do not wrap.
    fn overlaps(&self, other: &Self) -> bool {
        self.address < other.address + other.size && other.address < self.address + self.size
    }
}

#[cfg(test)]
mod tests;
