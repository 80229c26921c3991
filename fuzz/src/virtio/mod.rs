//! What hostile drivers of different devices have in common: their memory and rings, the values
//! that they write, and what is seen of the device's work.

pub mod driver;
pub mod memory;
pub mod probe;
pub mod queue;
pub mod values;

use std::sync::Arc;

use guest_abi::layout::{
    DMA_POOL, DMA_POOL_SIZE, INPUT_QUEUE, OUTPUT_QUEUE, PAGE_SIZE, QUEUE_SIZE, Shape,
};
use vm_memory::{Bytes, GuestAddress};
use vmm::machine::GuestRam;
use vmm::virtio::NotificationLine;

use memory::Memory;

/// A machine with a heap: behind the pool lies memory that devices may not reach.
const SHAPE: Shape = Shape {
    slots: 2,
    heap: true,
};
/// After each so many inputs all memory is looked at.
const LOOK_INPUTS: u32 = 64;

/// What devices are put on, with room for two queues. It serves many inputs.
pub struct Board {
    ram: GuestRam,
    pub memory: Arc<Memory>,
    pub line: Arc<NotificationLine>,
    inputs: u32,
}

impl Board {
    pub fn new() -> Self {
        let ram = GuestRam::new(SHAPE).unwrap();
        Self {
            memory: Arc::new(Memory::new(ram.dma().clone())),
            line: Arc::new(NotificationLine::new().unwrap()),
            ram,
            inputs: 0,
        }
    }

    /// Makes the memory what it was when it was new; now and then, looks whether it is.
    pub fn clear(&mut self) {
        self.memory.clear();
        self.inputs += 1;
        if self.inputs.is_multiple_of(LOOK_INPUTS) {
            assert!(self.memory.is_clear(), "a device wrote where it may not");
        }
        assert!(self.guards_are_clean(), "memory out of reach has changed");
    }

    /// Whether the pages next to what devices may reach are still zero.
    fn guards_are_clean(&self) -> bool {
        let guards = [
            INPUT_QUEUE - PAGE_SIZE,
            OUTPUT_QUEUE + QUEUE_SIZE,
            DMA_POOL - PAGE_SIZE,
            DMA_POOL + DMA_POOL_SIZE,
        ];
        guards.iter().all(|&guard| {
            let mut page = [0xff; PAGE_SIZE as usize];
            let at = GuestAddress(guard);
            self.ram.all().read_slice(&mut page, at).unwrap();
            page == [0; PAGE_SIZE as usize]
        })
    }
}
