//! What virtio-queue leaves to its user: to publish many used buffers with one update of the index,
//! and to decide once for all of them whether to notify (virtio 1.2, sections 2.7.7 and 2.7.8).
//! Both work on a [`virtio_queue::Queue`], whose state stays right.

use std::sync::atomic::{Ordering, fence};

use thiserror::Error;
use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryMmap};

use super::queue_config::{AVAIL_ELEMENT_SIZE, RING_HEADER_SIZE, USED_ELEMENT_SIZE};

/// Offset of the index in either ring.
const RING_INDEX_OFFSET: u64 = 2;
const USED_ELEMENT_BYTES: usize = 8;

/// Why a ring cannot be worked on any more.
#[derive(Debug, Error)]
pub enum QueueError {
    /// The rings are not where they were when the queue was checked.
    #[error("cannot access the rings of the queue: {0}")]
    Memory(#[from] GuestMemoryError),
    /// The available ring is not as a driver may leave it.
    #[error("cannot take buffers from the available ring: {0}")]
    Avail(#[from] virtio_queue::Error),
    /// More buffers are used than were ever available.
    #[error("cannot publish {count} used buffers in a ring of {size}")]
    TooManyUsed {
        /// How many buffers.
        count: usize,
        /// The size of the queue.
        size: u16,
    },
}

/// An element of the used ring, as it lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsedElement([u8; USED_ELEMENT_BYTES]);

impl UsedElement {
    /// The chain that starts at `head`, with `len` bytes written to its writable part.
    #[must_use]
    pub fn new(head: u16, len: u32) -> Self {
        let element = u64::from(head) | (u64::from(len) << 32);
        Self(element.to_le_bytes())
    }
}

/// Puts `elements`, no more than the queue's size, into the used ring and moves its index once. Returns
/// how many they are.
///
/// # Errors
///
/// There are too many elements, or the used ring is outside memory.
pub fn publish_used(
    queue: &mut Queue,
    memory: &GuestMemoryMmap,
    elements: &[UsedElement],
) -> Result<u16, QueueError> {
    let size = queue.size();
    let too_many = QueueError::TooManyUsed {
        count: elements.len(),
        size,
    };
    let Some(count) = u16::try_from(elements.len())
        .ok()
        .filter(|&count| count <= size)
    else {
        return Err(too_many);
    };
    let position = queue.next_used() % size;
    let until_end = usize::from(size - position).min(elements.len());
    let (before_wrap, after_wrap) = elements.split_at(until_end);
    write_elements(queue, memory, position, before_wrap)?;
    write_elements(queue, memory, 0, after_wrap)?;

    queue.set_next_used(queue.next_used().wrapping_add(count));
    let index = offset(queue.used_ring(), RING_INDEX_OFFSET)?;
    // Release: whoever sees the index sees the elements, the data and the status bytes.
    memory.store(queue.next_used().to_le(), index, Ordering::Release)?;
    Ok(count)
}

fn write_elements(
    queue: &Queue,
    memory: &GuestMemoryMmap,
    position: u16,
    elements: &[UsedElement],
) -> Result<(), QueueError> {
    if elements.is_empty() {
        return Ok(());
    }
    let start = RING_HEADER_SIZE + u64::from(position) * USED_ELEMENT_SIZE;
    let address = offset(queue.used_ring(), start)?;
    let ring = memory.get_slice(address, elements.len() * USED_ELEMENT_BYTES)?;
    for (index, element) in elements.iter().enumerate() {
        ring.write_slice(&element.0, index * USED_ELEMENT_BYTES)
            .map_err(GuestMemoryError::from)?;
    }
    Ok(())
}

/// Whether the driver wants to be notified of the last `published` used buffers.
///
/// With EVENT_IDX it does if the index that it waits for is among them. Without EVENT_IDX it does
/// unless it has set VRING_AVAIL_F_NO_INTERRUPT. To be called once after each [`publish_used`].
///
/// # Errors
///
/// The available ring is outside memory.
pub fn needs_notification(
    queue: &Queue,
    memory: &GuestMemoryMmap,
    published: u16,
) -> Result<bool, QueueError> {
    // The index must be visible before the driver's wish is read. The driver writes its wish before
    // it reads the index. So at least one of the two sees what the other one wrote.
    fence(Ordering::SeqCst);
    if !queue.event_idx_enabled() {
        let flags: u16 = memory.load(GuestAddress(queue.avail_ring()), Ordering::Relaxed)?;
        return Ok(u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT == 0);
    }
    let event = RING_HEADER_SIZE + u64::from(queue.size()) * AVAIL_ELEMENT_SIZE;
    let used_event: u16 = memory.load(offset(queue.avail_ring(), event)?, Ordering::Relaxed)?;
    let behind_event = queue
        .next_used()
        .wrapping_sub(u16::from_le(used_event))
        .wrapping_sub(1);
    Ok(behind_event < published)
}

fn offset(base: u64, offset: u64) -> Result<GuestAddress, QueueError> {
    base.checked_add(offset)
        .map(GuestAddress)
        .ok_or(QueueError::Memory(GuestMemoryError::GuestAddressOverflow))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::virtio::QueueConfig;
    use crate::virtio::testing::{AVAIL_RING, DESC_TABLE, USED_RING, memory};

    fn queue(memory: &GuestMemoryMmap, event_idx: bool) -> Queue {
        let config = QueueConfig {
            size: 4,
            desc_table: DESC_TABLE,
            avail_ring: AVAIL_RING,
            used_ring: USED_RING,
            ready: true,
        };
        config.build(4, event_idx, memory).unwrap()
    }

    fn elements(heads: &[u16]) -> Vec<UsedElement> {
        let element = |&head| UsedElement::new(head, u32::from(head) + 100);
        heads.iter().map(element).collect()
    }

    fn used_ids(memory: &GuestMemoryMmap) -> [u32; 4] {
        let id = |slot: u64| {
            memory
                .read_obj(GuestAddress(USED_RING + 4 + slot * 8))
                .unwrap()
        };
        [id(0), id(1), id(2), id(3)]
    }

    #[test]
    fn published_elements_wrap_at_the_end_of_the_ring_and_the_index_does_not() {
        let memory = memory();
        let mut queue = queue(&memory, false);
        queue.set_next_used(u16::MAX - 1);
        publish_used(&mut queue, &memory, &elements(&[1, 2, 3])).unwrap();
        assert_eq!(used_ids(&memory), [3, 0, 1, 2]);
        let index: u16 = memory.read_obj(GuestAddress(USED_RING + 2)).unwrap();
        assert_eq!(index, 1);
        let len: u32 = memory.read_obj(GuestAddress(USED_RING + 8)).unwrap();
        assert_eq!(len, 103);
    }

    #[test]
    fn nothing_is_written_outside_the_used_ring() {
        let memory = memory();
        let mut queue = queue(&memory, false);
        publish_used(&mut queue, &memory, &elements(&[1, 2, 3, 1])).unwrap();
        let behind: u64 = memory
            .read_obj(GuestAddress(USED_RING + 4 + 4 * 8))
            .unwrap();
        assert_eq!(behind, 0);
        let error = publish_used(&mut queue, &memory, &elements(&[0; 5])).unwrap_err();
        assert!(matches!(
            error,
            QueueError::TooManyUsed { count: 5, size: 4 }
        ));
    }

    #[test]
    fn without_event_idx_the_flag_suppresses_notifications() {
        let memory = memory();
        let mut queue = queue(&memory, false);
        publish_used(&mut queue, &memory, &elements(&[0])).unwrap();
        assert!(needs_notification(&queue, &memory, 1).unwrap());
        memory.write_obj(1u16, GuestAddress(AVAIL_RING)).unwrap();
        assert!(!needs_notification(&queue, &memory, 1).unwrap());
    }

    #[test]
    fn with_event_idx_the_driver_is_notified_if_its_index_is_anywhere_in_the_batch() {
        let memory = memory();
        let mut queue = queue(&memory, true);
        // With EVENT_IDX the flag means nothing.
        memory.write_obj(1u16, GuestAddress(AVAIL_RING)).unwrap();
        for (event, wanted) in [(9u16, false), (10, true), (12, true), (13, false)] {
            let used_event = GuestAddress(AVAIL_RING + 4 + 4 * 2);
            memory.write_obj(event, used_event).unwrap();
            queue.set_next_used(10);
            publish_used(&mut queue, &memory, &elements(&[0, 1, 2])).unwrap();
            let needed = needs_notification(&queue, &memory, 3).unwrap();
            assert_eq!(needed, wanted, "event {event}");
        }
    }

    #[test]
    fn the_event_index_wraps_with_the_ring() {
        let memory = memory();
        let mut queue = queue(&memory, true);
        let used_event = GuestAddress(AVAIL_RING + 4 + 4 * 2);
        memory.write_obj(u16::MAX, used_event).unwrap();
        queue.set_next_used(u16::MAX);
        publish_used(&mut queue, &memory, &elements(&[0, 1])).unwrap();
        assert!(needs_notification(&queue, &memory, 2).unwrap());
    }
}
