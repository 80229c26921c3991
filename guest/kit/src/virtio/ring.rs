//! The driver's side of a split virtqueue (virtio 1.2, section 2.7): descriptors, avail ring and
//! used ring in one piece of memory, with notifications suppressed as far as the device allows.
//!
//! Nothing that the device writes is trusted: an index that runs ahead of what was offered, or an
//! element that names no descriptor, is an error.

use core::sync::atomic::{AtomicU16, Ordering, fence};

use thiserror::Error;

use crate::dma::DmaRegion;

/// The buffer continues in the descriptor that `next` names.
pub const DESC_NEXT: u16 = 1;
/// The device writes the buffer; without it, it reads it.
pub const DESC_WRITE: u16 = 2;
/// Largest ring whose structures, and a block driver's headers, fit in 64 KiB.
pub const MAX_SIZE: u16 = guest_abi::limits::MAX_QUEUE_SIZE;

/// Size of a descriptor, and offsets of its fields (section 2.7.5).
const DESC_LEN: usize = 16;
const DESC_LENGTH: usize = 8;
const DESC_FLAGS: usize = 12;
const DESC_NEXT_INDEX: usize = 14;
/// Offsets in the avail ring (section 2.7.6) and, alike, the used ring (section 2.7.8).
const RING_FLAGS: usize = 0;
const RING_INDEX: usize = 2;
const RING_ENTRIES: usize = 4;
/// Size of an element of the used ring, and offset of its length.
const USED_LEN: usize = 8;
const USED_LENGTH: usize = 4;
/// Avail ring flag: the device need not send used buffer notifications.
const NO_INTERRUPT: u16 = 1;
/// Used ring flag: the driver need not send available buffer notifications.
const NO_NOTIFY: u16 = 1;
/// Keeps what each side writes on cache lines of its own.
const CACHE_LINE: usize = 64;

/// What a device did wrong, or a driver asked for in vain.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RingError {
    /// The size is not a power of two, or too large for the memory.
    #[error("a queue of {0} entries does not fit the {1} bytes that it may use")]
    Size(u16, usize),
    /// More buffers came back than were offered.
    #[error("the device's used index is {0} ahead, with only {1} buffers offered")]
    UsedIndex(u16, u16),
    /// An element of the used ring names no descriptor.
    #[error("the device used descriptor {0} of a queue of {1}")]
    UsedId(u32, u16),
}

/// One element of the used ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// Head of the descriptor chain.
    pub head: u16,
    /// How many bytes the device wrote to the chain's buffers.
    pub written: u32,
}

/// Where the parts of a ring are, as offsets from its start in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    avail: usize,
    used_event: usize,
    used: usize,
    avail_event: usize,
    end: usize,
}

impl Layout {
    fn new(size: u16) -> Self {
        let size = usize::from(size);
        let avail = DESC_LEN * size;
        let used_event = avail + RING_ENTRIES + 2 * size;
        let used = (used_event + 2).next_multiple_of(CACHE_LINE);
        let avail_event = used + RING_ENTRIES + USED_LEN * size;
        let end = (avail_event + 2).next_multiple_of(CACHE_LINE);
        Self {
            avail,
            used_event,
            used,
            avail_event,
            end,
        }
    }
}

/// The addresses that a transport tells the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingAddresses {
    /// Descriptor table.
    pub descriptors: u64,
    /// Avail ring, the driver area.
    pub avail: u64,
    /// Used ring, the device area.
    pub used: u64,
}

/// A split virtqueue, as its driver sees it.
#[derive(Debug)]
pub struct Ring {
    memory: DmaRegion,
    layout: Layout,
    size: u16,
    event_idx: bool,
    /// The avail index with everything that was pushed, and what of it the device may see.
    pushed: u16,
    published: u16,
    /// The used index up to which elements were taken.
    taken: u16,
}

impl Ring {
    /// How many bytes a ring of `size` entries takes.
    #[must_use]
    pub fn footprint(size: u16) -> usize {
        Layout::new(size).end
    }

    /// An empty ring of `size` entries in `memory`, aligned to 16 bytes. `event_idx` says whether
    /// VIRTIO_F_EVENT_IDX was negotiated.
    ///
    /// # Errors
    ///
    /// [`RingError::Size`] if it is not a power of two or does not fit.
    pub fn new(mut memory: DmaRegion, size: u16, event_idx: bool) -> Result<Self, RingError> {
        if !size.is_power_of_two() || Self::footprint(size) > memory.len() {
            return Err(RingError::Size(size, memory.len()));
        }
        let layout = Layout::new(size);
        memory.zero(0, layout.end);
        let ring = Self {
            memory,
            layout,
            size,
            event_idx,
            pushed: 0,
            published: 0,
            taken: 0,
        };
        ring.disarm();
        Ok(ring)
    }

    /// How many descriptors there are.
    #[must_use]
    pub const fn size(&self) -> u16 {
        self.size
    }

    /// Where the device finds the parts.
    #[must_use]
    pub fn addresses(&self) -> RingAddresses {
        RingAddresses {
            descriptors: self.memory.address(0),
            avail: self.memory.address(self.layout.avail),
            used: self.memory.address(self.layout.used),
        }
    }

    /// Sets the buffer of descriptor `index`.
    pub fn set_buffer(&mut self, index: u16, address: u64, len: u32) {
        let offset = DESC_LEN * usize::from(index);
        self.memory.u64_at(offset).store(address, Ordering::Relaxed);
        let length = self.memory.u32_at(offset + DESC_LENGTH);
        length.store(len, Ordering::Relaxed);
    }

    /// Sets the flags of descriptor `index`, and what follows it if they have [`DESC_NEXT`].
    pub fn set_link(&mut self, index: u16, flags: u16, next: u16) {
        let offset = DESC_LEN * usize::from(index);
        self.set_u16(offset + DESC_FLAGS, flags);
        self.set_u16(offset + DESC_NEXT_INDEX, next);
    }

    /// Offers the chain that starts at descriptor `head`; [`Ring::publish`] shows it to the device.
    pub fn push(&mut self, head: u16) {
        let entry = RING_ENTRIES + 2 * self.slot(self.pushed);
        self.set_u16(self.layout.avail + entry, head);
        self.pushed = self.pushed.wrapping_add(1);
    }

    /// Shows everything that was pushed to the device. True if it wants to be notified of it.
    pub fn publish(&mut self) -> bool {
        let old = self.published;
        if self.pushed == old {
            return false;
        }
        // Release: the device must see the chains and entries before the index that covers them.
        self.u16_at(self.layout.avail + RING_INDEX)
            .store(self.pushed, Ordering::Release);
        self.published = self.pushed;
        // The index must be visible before the device's wish is looked at (section 2.7.10.1).
        fence(Ordering::SeqCst);
        if self.event_idx {
            let event = self.u16_at(self.layout.avail_event).load(Ordering::Relaxed);
            return passes(event, old, self.published);
        }
        self.u16_at(self.layout.used + RING_FLAGS)
            .load(Ordering::Relaxed)
            & NO_NOTIFY
            == 0
    }

    /// How many chains are with the device, or pushed for it.
    #[must_use]
    pub const fn in_flight(&self) -> u16 {
        self.pushed.wrapping_sub(self.taken)
    }

    /// Whether [`Ring::pop`] would give something.
    #[must_use]
    pub fn has_used(&self) -> bool {
        self.used_index() != self.taken
    }

    /// Takes the next chain that the device has used.
    ///
    /// # Errors
    ///
    /// [`RingError`] if the used ring cannot be what a conforming device writes.
    pub fn pop(&mut self) -> Result<Option<Used>, RingError> {
        let ahead = self.used_index().wrapping_sub(self.taken);
        if ahead == 0 {
            return Ok(None);
        }
        let offered = self.published.wrapping_sub(self.taken);
        if ahead > offered {
            return Err(RingError::UsedIndex(ahead, offered));
        }
        let element = self.layout.used + RING_ENTRIES + USED_LEN * self.slot(self.taken);
        let id = self.memory.u32_at(element).load(Ordering::Relaxed);
        let length = self.memory.u32_at(element + USED_LENGTH);
        let written = length.load(Ordering::Relaxed);
        self.taken = self.taken.wrapping_add(1);
        match u16::try_from(id) {
            Ok(head) if head < self.size => Ok(Some(Used { head, written })),
            _ => Err(RingError::UsedId(id, self.size)),
        }
    }

    /// Asks for a notification when `count` more chains have been used, at least one. What was
    /// used already does not cause one: look at [`Ring::has_used`] after this.
    pub fn arm(&mut self, count: u16) {
        if self.event_idx {
            let event = self.taken.wrapping_add(count.max(1) - 1);
            self.used_event().store(event, Ordering::Relaxed);
        } else {
            self.set_u16(self.layout.avail + RING_FLAGS, 0);
        }
        // The wish must be visible before the used index is looked at again (section 2.7.7.1).
        fence(Ordering::SeqCst);
    }

    /// Asks for no notifications.
    pub fn disarm(&self) {
        // With VIRTIO_F_EVENT_IDX the flag must stay 0. Instead the event index is set to one that
        // has been passed: it will not be passed again before another 65535 buffers.
        if self.event_idx {
            let event = self.taken.wrapping_sub(1);
            self.used_event().store(event, Ordering::Relaxed);
        } else {
            self.set_u16(self.layout.avail + RING_FLAGS, NO_INTERRUPT);
        }
    }

    /// Acquire: what the device wrote to elements and buffers is visible if its index is.
    fn used_index(&self) -> u16 {
        self.u16_at(self.layout.used + RING_INDEX)
            .load(Ordering::Acquire)
    }

    fn used_event(&self) -> &AtomicU16 {
        self.u16_at(self.layout.used_event)
    }

    fn slot(&self, index: u16) -> usize {
        usize::from(index & (self.size - 1))
    }

    fn u16_at(&self, offset: usize) -> &AtomicU16 {
        self.memory.u16_at(offset)
    }

    fn set_u16(&self, offset: usize, value: u16) {
        self.u16_at(offset).store(value, Ordering::Relaxed);
    }
}

/// Whether an index that moves from `old` to `new` passes `event` (section 2.7.7.2).
#[must_use]
pub const fn passes(event: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
