//! Where a disk's driver keeps its queue, and what a queue in memory says at one moment (virtio
//! 1.2, section 2.7): how much is available, and whether the device could overwrite what it has
//! still to read.

use std::ops::Range;

use guest_abi::layout::{INPUT_QUEUE, OUTPUT_QUEUE};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Offsets within the room of a disk's queue; the descriptor table is at 0.
pub const AVAIL: u64 = 0x8000;
pub const USED: u64 = 0xa000;
/// 32 bytes a request: its header and its status byte.
pub const HEADERS: u64 = 0xe800;
/// Indirect tables, 8 descriptors each.
pub const TABLES: u64 = 0xf000;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// The room of one disk's queue.
#[derive(Clone, Copy, Debug)]
pub struct QueueLayout {
    pub base: u64,
}

impl QueueLayout {
    pub fn of(disk: usize) -> Self {
        let base = if disk == 0 { INPUT_QUEUE } else { OUTPUT_QUEUE };
        Self { base }
    }

    pub fn table(self) -> u64 {
        self.base
    }

    pub fn avail(self) -> u64 {
        self.base + AVAIL
    }

    pub fn used(self) -> u64 {
        self.base + USED
    }
}

/// A queue as the device was given it, and how many buffers it has used since.
#[derive(Debug)]
pub struct ActiveQueue {
    table: u64,
    avail: u64,
    used: u64,
    size: u16,
    taken: u16,
}

impl ActiveQueue {
    pub fn new(queue: &Queue) -> Self {
        Self {
            table: queue.desc_table(),
            avail: queue.avail_ring(),
            used: queue.used_ring(),
            size: queue.size(),
            taken: 0,
        }
    }

    pub fn size(&self) -> u16 {
        self.size
    }

    pub fn count(&mut self, used: u64) {
        self.taken = self.taken.wrapping_add((used & 0xffff) as u16);
    }

    /// How many buffers are available that are not used.
    pub fn available(&self, memory: &GuestMemoryMmap) -> u16 {
        read_u16(memory, self.avail + 2).wrapping_sub(self.taken)
    }

    /// Whether the used ring's index says what was counted.
    pub fn index_is_right(&self, memory: &GuestMemoryMmap) -> bool {
        read_u16(memory, self.used + 2) == self.taken
    }

    /// Whether a descriptor lets the device write to the available ring or to a descriptor table,
    /// its own index included. What is available may then change while it works.
    pub fn can_rewrite_itself(&self, memory: &GuestMemoryMmap) -> bool {
        let size = u64::from(self.size);
        let table = self.table..self.table + size * 16;
        let mut read = vec![self.avail..self.avail + 6 + size * 2, table.clone()];
        let used = self.used..self.used + 6 + size * 8;
        let mut written = vec![used];
        let mut tables = vec![table];
        while let Some(table) = tables.pop() {
            for (address, len, flags) in descriptors(memory, table) {
                let span = address..address.saturating_add(u64::from(len));
                if flags & WRITE != 0 {
                    written.push(span.clone());
                }
                if flags & INDIRECT != 0 && len <= u32::from(self.size) * 16 && read.len() < 64 {
                    read.push(span.clone());
                    tables.push(span);
                } else if flags & INDIRECT != 0 {
                    return true;
                }
            }
        }
        read.iter()
            .any(|read| written.iter().any(|written| overlap(read, written)))
    }
}

/// Address, length and flags of each descriptor in a table; of none if it is not in memory.
fn descriptors(memory: &GuestMemoryMmap, table: Range<u64>) -> Vec<(u64, u32, u16)> {
    let len = usize::try_from(table.end - table.start).unwrap();
    let mut bytes = vec![0; len];
    if memory
        .read_slice(&mut bytes, GuestAddress(table.start))
        .is_err()
    {
        return Vec::new();
    }
    let field = |bytes: &[u8], from, to| {
        let mut value = [0; 8];
        value[..to - from].copy_from_slice(&bytes[from..to]);
        u64::from_le_bytes(value)
    };
    let fields = |bytes: &[u8]| {
        let len = u32::try_from(field(bytes, 8, 12)).unwrap();
        let flags = u16::try_from(field(bytes, 12, 14)).unwrap();
        (field(bytes, 0, 8), len, flags)
    };
    bytes.chunks_exact(16).map(fields).collect()
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

fn read_u16(memory: &GuestMemoryMmap, address: u64) -> u16 {
    memory.read_obj(GuestAddress(address)).unwrap()
}

/// Flags of the descriptor at `position` of a chain of `len`.
pub fn chain_flags(position: usize, len: usize, writable: bool) -> u16 {
    let next = if position + 1 < len { NEXT } else { 0 };
    next | if writable { WRITE } else { 0 }
}

/// Flags of a descriptor that refers to an indirect table.
pub const INDIRECT_FLAGS: u16 = INDIRECT;
