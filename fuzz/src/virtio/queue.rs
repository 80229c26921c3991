//! Where a driver keeps its queue, and what a queue in memory says at one moment (virtio
//! 1.2, section 2.7): how much is available, and whether the device could overwrite what it has
//! still to read.

use std::ops::Range;

use guest_abi::layout::{INPUT_QUEUE, OUTPUT_QUEUE};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::memory::Memory;

/// Offsets within the room of a queue; the descriptor table is at 0.
pub const AVAIL: u64 = 0x8000;
pub const USED: u64 = 0xa000;
/// 32 bytes a request: its header and its status byte.
pub const HEADERS: u64 = 0xe800;
/// Indirect tables, 8 descriptors each.
pub const TABLES: u64 = 0xf000;

/// How much a device may write to a buffer, in bytes, apart from data that it tells of otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Reach {
    /// From the start of the buffer.
    pub start: u64,
    /// At its end.
    pub end: u64,
}

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// The room of one queue.
#[derive(Clone, Copy, Debug)]
pub struct QueueLayout {
    pub base: u64,
}

impl QueueLayout {
    /// Of the first queue of a machine, or of its second.
    pub fn of(index: usize) -> Self {
        let base = if index == 0 {
            INPUT_QUEUE
        } else {
            OUTPUT_QUEUE
        };
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

/// What descriptors let a device write to.
pub struct Survey {
    /// The available ring or a descriptor table, its own index included: what is available may
    /// change while it works.
    pub rewrites: bool,
    /// The used ring, by a buffer: what it says may be lost.
    pub overwrites: bool,
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

    /// The lengths of the last `count` used elements, added up.
    pub fn used_bytes(&self, memory: &GuestMemoryMmap, count: u64) -> u64 {
        let last = (0..count).map(|back| {
            let index = self.taken.wrapping_sub(1).wrapping_sub(back as u16) % self.size;
            let at = self.used + 4 + u64::from(index) * 8 + 4;
            u64::from(memory.read_obj::<u32>(GuestAddress(at)).unwrap())
        });
        last.sum()
    }

    /// Takes note in `memory` of where the device may write within `reach`; then says which of its
    /// own rings and tables descriptors let it write to.
    pub fn survey(&self, memory: &Memory, reach: Reach) -> Survey {
        let size = u64::from(self.size);
        let table = self.table..self.table + size * 16;
        let mut read = vec![self.avail..self.avail + 6 + size * 2, table.clone()];
        let used = self.used..self.used + 6 + size * 8;
        memory.touch(used.start, used.end - used.start);
        let mut written = Vec::new();
        let mut tables = vec![table];
        let mut rewrites = false;
        while let Some(table) = tables.pop() {
            each_descriptor(&memory.dma, table, |address, len, flags| {
                let span = address..address.saturating_add(u64::from(len));
                if flags & WRITE != 0 {
                    memory.touch(address, reach.start.min(span.end - span.start));
                    memory.touch(span.end.saturating_sub(reach.end), reach.end);
                    written.push(span.clone());
                }
                if flags & INDIRECT != 0 && len <= LONGEST_TABLE && read.len() < 64 {
                    read.push(span.clone());
                    tables.push(span);
                } else if flags & INDIRECT != 0 {
                    rewrites = true;
                }
            });
        }
        let is_written = |range: &Range<u64>| written.iter().any(|span| overlap(range, span));
        let changes = |read: &Range<u64>| overlap(read, &used) || is_written(read);
        let survey = Survey {
            rewrites: rewrites || read.iter().any(changes),
            overwrites: is_written(&used),
        };
        if survey.rewrites {
            memory.touch_all();
        }
        survey
    }
}

/// Hands address, length and flags of each descriptor in a table to `take`; of none if the table
/// is not in memory.
fn each_descriptor(
    memory: &GuestMemoryMmap,
    table: Range<u64>,
    mut take: impl FnMut(u64, u32, u16),
) {
    let mut bytes = vec![0; usize::try_from(table.end - table.start).unwrap()];
    let at = GuestAddress(table.start);
    if memory.read_slice(&mut bytes, at).is_err() {
        return;
    }
    for descriptor in bytes.chunks_exact(16) {
        let [address, rest] = [0, 8].map(|at| {
            let field = descriptor[at..at + 8].try_into().unwrap();
            u64::from_le_bytes(field)
        });
        let flags = ((rest >> 32) & 0xffff) as u16;
        // Most of a table was never written.
        if flags & (WRITE | INDIRECT) != 0 {
            take(address, (rest & 0xffff_ffff) as u32, flags);
        }
    }
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

/// The longest indirect table that is followed, in bytes. A device takes longer ones, up to 65,535
/// descriptors; what it does then is not predicted.
const LONGEST_TABLE: u32 = 4096 * 16;

/// Flags of a descriptor that refers to an indirect table.
pub const INDIRECT_FLAGS: u16 = INDIRECT;
