//! Walks a descriptor chain and says what is wrong with it (virtio 1.2, sections 2.7.5 and
//! 2.7.5.3). `virtio_queue::DescriptorChain` ends a broken chain as if it were complete; a device
//! that must answer or stop has to know the difference.

use std::cell::Cell;

use thiserror::Error;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, VolatileSlice};

const DESCRIPTOR_SIZE: u32 = 16;

/// What a driver did wrong with a chain.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ChainError {
    /// An indirect descriptor that says that the chain goes on.
    #[error("an indirect descriptor has a next one")]
    IndirectHasNext,
    /// An indirect table that is empty, that does not consist of whole descriptors, or that has more
    /// than 65,535 of them. It may be longer than the queue, but no chain in it may.
    #[error("an indirect table has {0} bytes; it takes 1 to 65535 descriptors of 16 bytes each")]
    IndirectLength(u32),
    /// An indirect descriptor within an indirect table.
    #[error("an indirect table refers to another one")]
    IndirectNested,
    /// An indirect descriptor although the feature was not negotiated.
    #[error("an indirect descriptor was not negotiated")]
    IndirectNotNegotiated,
    /// A head or a next field that is no index of the table.
    #[error("descriptor {index} is outside of a table of {size}")]
    OutOfRange {
        /// The index.
        index: u16,
        /// How many descriptors the table has.
        size: u16,
    },
    /// More descriptors than the queue has, or than the indirect table has: it loops.
    #[error("the chain has more than {0} descriptors")]
    TooLong(u16),
    /// A table that is not in one region of the memory that devices may use.
    #[error("a descriptor table at {0:#x} is not within guest memory")]
    Unreadable(u64),
}

/// A queue's descriptor table, looked up once for many chains.
#[derive(Debug)]
pub struct DescriptorTable<'m> {
    memory: &'m GuestMemoryMmap,
    slice: VolatileSlice<'m>,
    size: u16,
    indirect: bool,
    steps: Cell<usize>,
}

impl<'m> DescriptorTable<'m> {
    /// Finds the table of `queue`; `indirect` says whether INDIRECT_DESC was negotiated.
    ///
    /// # Errors
    ///
    /// The table is outside memory.
    pub fn new(
        queue: &Queue,
        memory: &'m GuestMemoryMmap,
        indirect: bool,
    ) -> Result<Self, ChainError> {
        let bytes = u32::from(queue.size()) * DESCRIPTOR_SIZE;
        Ok(Self {
            memory,
            slice: table(memory, GuestAddress(queue.desc_table()), bytes)?,
            size: queue.size(),
            indirect,
            steps: Cell::new(0),
        })
    }

    /// How many descriptors have been read up to now, as a measure of how much work the chains
    /// were.
    pub(super) fn steps(&self) -> usize {
        self.steps.get()
    }

    /// The chain that starts at descriptor `head`.
    #[must_use]
    pub fn chain(&self, head: u16) -> Chain<'m, '_> {
        Chain {
            table: self,
            head,
            slice: self.slice,
            size: self.size,
            next: Some(head),
            limit: self.size,
            left: self.size,
            in_indirect: false,
        }
    }
}

/// The descriptors of one chain, in order. After an error it gives no more of them.
#[derive(Debug)]
pub struct Chain<'m, 't> {
    table: &'t DescriptorTable<'m>,
    head: u16,
    slice: VolatileSlice<'m>,
    size: u16,
    next: Option<u16>,
    /// How many descriptors it may have in all.
    limit: u16,
    left: u16,
    in_indirect: bool,
}

impl Chain<'_, '_> {
    /// Index of the first descriptor, by which the used ring names the chain.
    #[must_use]
    pub fn head(&self) -> u16 {
        self.head
    }

    /// The next descriptor, never one that refers to an indirect table, or `None` at the end.
    ///
    /// # Errors
    ///
    /// What is wrong with the chain. It ends after at most as many descriptors as the queue has.
    pub fn next_descriptor(&mut self) -> Result<Option<Descriptor>, ChainError> {
        let Some(index) = self.next else {
            return Ok(None);
        };
        let mut descriptor = self.read(index)?;
        if descriptor.refers_to_indirect_table() {
            self.enter_indirect(&descriptor)?;
            descriptor = self.read(0)?;
            if descriptor.refers_to_indirect_table() {
                return Err(ChainError::IndirectNested);
            }
        }
        self.left = self
            .left
            .checked_sub(1)
            .ok_or(ChainError::TooLong(self.limit))?;
        self.next = descriptor.has_next().then(|| descriptor.next());
        Ok(Some(descriptor))
    }

    fn read(&self, index: u16) -> Result<Descriptor, ChainError> {
        self.table.steps.set(self.table.steps.get() + 1);
        if index >= self.size {
            return Err(ChainError::OutOfRange {
                index,
                size: self.size,
            });
        }
        self.slice
            .read_obj(usize::from(index) * DESCRIPTOR_SIZE as usize)
            .map_err(|_| ChainError::OutOfRange {
                index,
                size: self.size,
            })
    }

    fn enter_indirect(&mut self, descriptor: &Descriptor) -> Result<(), ChainError> {
        if !self.table.indirect {
            return Err(ChainError::IndirectNotNegotiated);
        }
        if self.in_indirect {
            return Err(ChainError::IndirectNested);
        }
        if descriptor.has_next() {
            return Err(ChainError::IndirectHasNext);
        }
        let bytes = descriptor.len();
        let size = match u16::try_from(bytes / DESCRIPTOR_SIZE) {
            Ok(size) if size > 0 && bytes.is_multiple_of(DESCRIPTOR_SIZE) => size,
            _ => return Err(ChainError::IndirectLength(bytes)),
        };
        self.slice = table(self.table.memory, descriptor.addr(), bytes)?;
        self.size = size;
        if size < self.left {
            (self.limit, self.left) = (size, size);
        }
        self.in_indirect = true;
        Ok(())
    }
}

fn table(
    memory: &GuestMemoryMmap,
    address: GuestAddress,
    bytes: u32,
) -> Result<VolatileSlice<'_>, ChainError> {
    memory
        .get_slice(address, bytes as usize)
        .map_err(|_| ChainError::Unreadable(address.0))
}

#[cfg(test)]
mod tests;
