#![allow(clippy::unwrap_used)]

use super::*;
use crate::virtio::QueueConfig;
use crate::virtio::testing::{
    AVAIL_RING, DATA, DESC_TABLE, INDIRECT, MEMORY_SIZE, NEXT, USED_RING, memory,
};
use virtio_queue::desc::RawDescriptor;

const SIZE: u16 = 8;
const TABLE: u64 = DATA;

struct Table {
    memory: GuestMemoryMmap,
    indirect: bool,
}

impl Table {
    /// A queue with these descriptors: table, index, address, length, flags, next.
    fn new(descriptors: &[(u64, u16, u64, u32, u16, u16)]) -> Self {
        let memory = memory();
        for &(table, index, address, len, flags, next) in descriptors {
            let descriptor = RawDescriptor::from(Descriptor::new(address, len, flags, next));
            let at = GuestAddress(table + u64::from(index) * 16);
            memory.write_obj(descriptor, at).unwrap();
        }
        Self {
            memory,
            indirect: true,
        }
    }

    /// The addresses of the chain's descriptors.
    fn walk(&self, head: u16) -> Result<Vec<u64>, ChainError> {
        Ok(self.walk_counted(head)?.0)
    }

    /// The same, and how much work it was.
    fn walk_counted(&self, head: u16) -> Result<(Vec<u64>, usize), ChainError> {
        let config = QueueConfig {
            size: SIZE.into(),
            desc_table: DESC_TABLE,
            avail_ring: AVAIL_RING,
            used_ring: USED_RING,
            ready: true,
        };
        let queue = config.build(SIZE, false, &self.memory).unwrap();
        let table = DescriptorTable::new(&queue, &self.memory, self.indirect)?;
        let mut chain = table.chain(head);
        let mut addresses = Vec::new();
        while let Some(descriptor) = chain.next_descriptor()? {
            addresses.push(descriptor.addr().0);
        }
        Ok((addresses, table.steps()))
    }
}

#[test]
fn a_chain_follows_its_next_fields() {
    let table = Table::new(&[
        (DESC_TABLE, 5, 0x50, 1, NEXT, 2),
        (DESC_TABLE, 2, 0x20, 1, NEXT, 7),
        (DESC_TABLE, 7, 0x70, 1, 0, 0xffff),
    ]);
    assert_eq!(table.walk(5).unwrap(), [0x50, 0x20, 0x70]);
}

#[test]
fn a_chain_may_be_as_long_as_the_queue() {
    let mut descriptors = Vec::new();
    for index in 0..SIZE {
        let flags = if index + 1 < SIZE { NEXT } else { 0 };
        descriptors.push((DESC_TABLE, index, index.into(), 1, flags, index + 1));
    }
    assert_eq!(Table::new(&descriptors).walk(0).unwrap().len(), 8);
}

#[test]
fn a_loop_ends_with_an_error() {
    let table = Table::new(&[
        (DESC_TABLE, 0, 0, 1, NEXT, 1),
        (DESC_TABLE, 1, 0, 1, NEXT, 0),
    ]);
    assert_eq!(table.walk(0), Err(ChainError::TooLong(SIZE)));
}

#[test]
fn a_head_or_next_outside_the_table_is_an_error() {
    let table = Table::new(&[(DESC_TABLE, 0, 0, 1, NEXT, SIZE)]);
    let error = Err(ChainError::OutOfRange {
        index: SIZE,
        size: SIZE,
    });
    assert_eq!(table.walk(0), error);
    assert_eq!(table.walk(SIZE), error);
}

#[test]
fn an_indirect_table_ends_a_chain_of_direct_descriptors() {
    let table = Table::new(&[
        (DESC_TABLE, 0, 0x10, 1, NEXT, 1),
        (DESC_TABLE, 1, TABLE, 32, INDIRECT, 0),
        (TABLE, 0, 0x20, 1, NEXT, 1),
        (TABLE, 1, 0x30, 1, 0, 0),
    ]);
    assert_eq!(table.walk(0).unwrap(), [0x10, 0x20, 0x30]);
}

#[test]
fn each_descriptor_that_is_read_counts_as_work() {
    let table = Table::new(&[
        (DESC_TABLE, 0, 0x10, 1, NEXT, 1),
        (DESC_TABLE, 1, TABLE, 32, INDIRECT, 0),
        (TABLE, 0, 0x20, 1, NEXT, 1),
        (TABLE, 1, 0x30, 1, 0, 0),
        (DESC_TABLE, 2, 0x40, 1, 0, 0),
    ]);
    assert_eq!(table.walk_counted(2).unwrap().1, 1);
    assert_eq!(table.walk_counted(0).unwrap().1, 4);
}

#[test]
fn an_indirect_descriptor_must_have_been_negotiated() {
    let mut table = Table::new(&[(DESC_TABLE, 0, TABLE, 16, INDIRECT, 0)]);
    assert!(table.walk(0).is_ok());
    table.indirect = false;
    assert_eq!(table.walk(0), Err(ChainError::IndirectNotNegotiated));
}

#[test]
fn an_indirect_table_has_whole_descriptors() {
    for bytes in [0, 8, 17, u32::MAX, 1 << 20, 0xffff_fff0] {
        let table = Table::new(&[(DESC_TABLE, 0, TABLE, bytes, INDIRECT, 0)]);
        assert_eq!(table.walk(0), Err(ChainError::IndirectLength(bytes)));
    }
}

#[test]
fn an_indirect_table_may_be_longer_than_the_queue_but_no_chain_in_it_may() {
    let last = SIZE + 3;
    let table = Table::new(&[
        (DESC_TABLE, 0, TABLE, 16 * u32::from(last + 1), INDIRECT, 0),
        (TABLE, 0, 0x10, 1, NEXT, last),
        (TABLE, last, 0x20, 1, 0, 0),
    ]);
    assert_eq!(table.walk(0).unwrap(), [0x10, 0x20]);

    let chain = (0..last).map(|index| (TABLE, index, 0x10, 1, NEXT, index + 1));
    let head = (DESC_TABLE, 0, TABLE, 16 * u32::from(last + 1), INDIRECT, 0);
    let descriptors: Vec<_> = std::iter::once(head).chain(chain).collect();
    let table = Table::new(&descriptors);
    assert_eq!(table.walk(0), Err(ChainError::TooLong(SIZE)));
}

#[test]
fn an_indirect_table_does_not_refer_to_another() {
    for index in [0, 1] {
        let table = Table::new(&[
            (DESC_TABLE, 0, TABLE, 32, INDIRECT, 0),
            (TABLE, 0, 0x20, 1, NEXT, 1),
            (TABLE, index, TABLE, 16, INDIRECT, 0),
        ]);
        assert_eq!(table.walk(0), Err(ChainError::IndirectNested));
    }
}

#[test]
fn an_indirect_descriptor_has_no_next() {
    let table = Table::new(&[(DESC_TABLE, 0, TABLE, 16, INDIRECT | NEXT, 1)]);
    assert_eq!(table.walk(0), Err(ChainError::IndirectHasNext));
}

#[test]
fn an_indirect_chain_stays_in_its_table() {
    let table = Table::new(&[
        (DESC_TABLE, 0, TABLE, 32, INDIRECT, 0),
        (TABLE, 0, 0x20, 1, NEXT, 2),
        (TABLE, 2, 0x30, 1, 0, 0),
    ]);
    let error = ChainError::OutOfRange { index: 2, size: 2 };
    assert_eq!(table.walk(0), Err(error));

    let table = Table::new(&[
        (DESC_TABLE, 0, TABLE, 32, INDIRECT, 0),
        (TABLE, 0, 0x20, 1, NEXT, 0),
    ]);
    assert_eq!(table.walk(0), Err(ChainError::TooLong(2)));
}

#[test]
fn an_indirect_table_lies_in_memory() {
    for address in [MEMORY_SIZE - 8, MEMORY_SIZE, u64::MAX - 7] {
        let table = Table::new(&[(DESC_TABLE, 0, address, 16, INDIRECT, 0)]);
        assert_eq!(table.walk(0), Err(ChainError::Unreadable(address)));
    }
}
