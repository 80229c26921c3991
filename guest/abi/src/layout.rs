//! The guest-physical address map: the only one in the project.
//!
//! All sizes are in bytes. [`ram_regions`] lists the RAM from address 0 up without a gap, each
//! region with what the guest's ring-3 code may do to it and whether devices reach it by DMA.

/// Size of the guest's RAM, which starts at address 0.
pub const RAM_SIZE: u64 = 0x80_0000;
/// Size of a page, the granularity of every permission.
pub const PAGE_SIZE: u64 = 0x1000;

/// Global descriptor table (Intel SDM volume 3, "Segment Descriptor Tables").
pub const GDT: u64 = 0x1000;
/// Root of the page tables, the PML4; the PDPT and the page directory follow it, a page each.
pub const PAGE_TABLES: u64 = 0x2000;
/// First of the four page tables that map RAM, 2 MiB each.
pub const RAM_PAGE_TABLES: u64 = 0x5000;
/// The page table that maps the virtio-mmio registers.
pub const MMIO_PAGE_TABLE: u64 = 0x9000;
/// Task state segment, with the I/O permission bitmap behind it.
pub const TSS: u64 = 0xa000;

/// Where the guest image starts; a flat binary is loaded and entered here.
pub const IMAGE: u64 = 0x1_0000;
/// The room for the guest image, its zero-initialised data included.
pub const IMAGE_SIZE: u64 = QUEUES - IMAGE;

/// Most virtio devices that a machine can have: each takes a slot, in the order in which it was
/// added.
pub const MAX_SLOTS: usize = 16;
/// Queue memory of slot 0; that of each further slot follows.
pub const QUEUES: u64 = 0x10_0000;
/// Queue memory of one slot: descriptor tables, rings, request headers and status bytes.
pub const QUEUE_SIZE: u64 = 0x1_0000;
const _: () = assert!(queue(MAX_SLOTS) == DMA_POOL);

/// Queue memory of the device in `slot`.
#[must_use]
pub const fn queue(slot: usize) -> u64 {
    QUEUES + slot as u64 * QUEUE_SIZE
}

/// Slot of the input disk of a copying machine.
pub const INPUT_SLOT: usize = 0;
/// Slot of its output disk.
pub const OUTPUT_SLOT: usize = 1;
/// Slot of its console, if it has one.
pub const CONSOLE_SLOT: usize = 2;
/// Slot of the first backing file of a machine that converts an image. The other backing files
/// follow it. The image itself is the input disk.
pub const BACKING_SLOT: usize = 2;
/// The most backing files for which a machine has slots.
pub const MOST_BACKINGS: usize = MAX_SLOTS - BACKING_SLOT;
/// The input disk's virtqueue.
pub const INPUT_QUEUE: u64 = queue(INPUT_SLOT);
/// The output disk's virtqueue, laid out alike.
pub const OUTPUT_QUEUE: u64 = queue(OUTPUT_SLOT);

/// The pool that request data lies in.
pub const DMA_POOL: u64 = 0x20_0000;
/// Size of the pool. The more requests are under way, the more of them an exit to the VMM is for.
pub const DMA_POOL_SIZE: u64 = 0x28_0000;

/// Memory of its own for a guest that needs more than its image has room for, behind the pool. Only
/// machines that are made with it have it; devices never reach it.
pub const HEAP: u64 = DMA_POOL + DMA_POOL_SIZE;
/// Size of that memory.
pub const HEAP_SIZE: u64 = STACK - HEAP;

/// Lowest address of the stack's region, which begins with a hole of [`STACK_GUARD_SIZE`].
pub const STACK: u64 = 0x78_0000;
/// The unmapped hole at the low end of the stack: an overflow faults instead of reaching what lies
/// below.
pub const STACK_GUARD_SIZE: u64 = PAGE_SIZE;
/// End of the stack's region.
pub const STACK_END: u64 = RAM_SIZE;
/// `rsp` at entry: as after a `call`, so that the entry point may be an ordinary function.
pub const STACK_TOP: u64 = STACK_END - 8;

/// Where device registers are: a page for each device. The first [`MAX_SLOTS`] pages are those of
/// the virtio devices, slot by slot; the pages behind them are for other devices.
pub const MMIO: u64 = 0x1000_0000;
/// Size of one device's registers: the page that they are mapped by.
pub const MMIO_SIZE: u64 = PAGE_SIZE;
/// The end of the room for device registers: what one page table maps.
pub const MMIO_END: u64 = MMIO + 512 * PAGE_SIZE;

/// Registers of the virtio device in `slot` (virtio 1.2, section 4.2.2).
#[must_use]
pub const fn registers(slot: usize) -> u64 {
    MMIO + slot as u64 * MMIO_SIZE
}

/// Registers of the input disk of a copying machine.
pub const INPUT_MMIO: u64 = registers(INPUT_SLOT);
/// Registers of its output disk.
pub const OUTPUT_MMIO: u64 = registers(OUTPUT_SLOT);

/// What ring-3 code may do with a region's pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Not mapped at all: any access faults.
    Unmapped,
    /// Mapped for ring 0 alone; nothing in the guest runs there, so for the processor's own use.
    Supervisor,
    /// Read and write, never execute.
    ReadWrite,
    /// As the guest image's segments say.
    Image,
}

/// One region of RAM.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    /// First address.
    pub start: u64,
    /// Size, a multiple of [`PAGE_SIZE`].
    pub size: u64,
    /// What the guest's code may do with it.
    pub access: Access,
    /// Whether devices may read and write it. Only queues and data are within their reach: a
    /// descriptor that names the tables, the image or the stack is an error.
    pub dma: bool,
}

impl Region {
    /// The first address behind the region.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.start + self.size
    }
}

const fn region(start: u64, end: u64, access: Access, dma: bool) -> Region {
    Region {
        start,
        size: end - start,
        access,
        dma,
    }
}

/// What decides about a machine's RAM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// How many virtio devices there may be, up to [`MAX_SLOTS`].
    pub slots: usize,
    /// Whether there is a [`HEAP`].
    pub heap: bool,
}

impl Shape {
    /// A machine that copies one disk to another.
    pub const COPYING: Self = Self {
        slots: 2,
        heap: false,
    };
}

/// The whole RAM of a machine, in order and without gaps. A region may be empty.
#[must_use]
pub const fn ram_regions(shape: Shape) -> [Region; 9] {
    let queues_end = queue(shape.slots);
    let heap = match shape.heap {
        true => Access::ReadWrite,
        false => Access::Unmapped,
    };
    [
        region(0, GDT, Access::Unmapped, false),
        region(GDT, IMAGE, Access::Supervisor, false),
        region(IMAGE, QUEUES, Access::Image, false),
        region(QUEUES, queues_end, Access::ReadWrite, true),
        region(queues_end, DMA_POOL, Access::Unmapped, false),
        region(DMA_POOL, HEAP, Access::ReadWrite, true),
        region(HEAP, STACK, heap, false),
        region(STACK, STACK + STACK_GUARD_SIZE, Access::Unmapped, false),
        region(
            STACK + STACK_GUARD_SIZE,
            STACK_END,
            Access::ReadWrite,
            false,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All kinds of machines that there are.
    fn shapes() -> impl Iterator<Item = Shape> {
        (0..=MAX_SLOTS).flat_map(|slots| [false, true].map(|heap| Shape { slots, heap }))
    }

    #[test]
    fn regions_cover_ram_in_order_without_gaps_in_whole_pages() {
        for shape in shapes() {
            let mut next = 0;
            for region in ram_regions(shape) {
                assert_eq!(region.start, next);
                assert_eq!(region.size % PAGE_SIZE, 0);
                next = region.end();
            }
            assert_eq!(next, RAM_SIZE);
        }
    }

    #[test]
    fn only_queues_and_the_pool_are_within_reach_of_dma_and_cannot_be_executed() {
        for shape in shapes() {
            let mut reached = 0;
            for region in ram_regions(shape).iter().filter(|region| region.dma) {
                assert_eq!(region.access, Access::ReadWrite);
                assert!(region.start >= QUEUES && region.end() <= HEAP);
                reached += region.size;
            }
            assert_eq!(reached, DMA_POOL_SIZE + shape.slots as u64 * QUEUE_SIZE);
        }
    }
}
