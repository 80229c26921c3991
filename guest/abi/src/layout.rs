//! The guest-physical address map: the only one in the project.
//!
//! All sizes are in bytes. [`RAM_REGIONS`] lists the RAM from address 0 up without a gap, each
//! region with what the guest's ring-3 code may do to it and whether devices reach it by DMA.

/// Size of the guest's RAM, which starts at address 0.
pub const RAM_SIZE: u64 = 0x80_0000;
/// Size of a page, the granularity of every permission.
pub const PAGE_SIZE: u64 = 0x1000;

/// Global descriptor table (Intel SDM volume 3, section 3.5.1).
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
pub const IMAGE_SIZE: u64 = INPUT_QUEUE - IMAGE;

/// The input disk's virtqueue: descriptor table, rings, request headers and status bytes.
pub const INPUT_QUEUE: u64 = 0x10_0000;
/// The output disk's virtqueue, laid out alike.
pub const OUTPUT_QUEUE: u64 = 0x11_0000;
/// Room for one virtqueue.
pub const QUEUE_SIZE: u64 = 0x1_0000;

/// The pool that request data lies in.
pub const DMA_POOL: u64 = 0x20_0000;
/// Size of the pool.
pub const DMA_POOL_SIZE: u64 = 0x10_0000;

/// Lowest address of the stack's region; its first page is [`STACK_GUARD_SIZE`]'s hole.
pub const STACK: u64 = 0x30_0000;
/// The unmapped hole at the low end of the stack: an overflow faults instead of reaching the pool.
pub const STACK_GUARD_SIZE: u64 = PAGE_SIZE;
/// End of the stack's region.
pub const STACK_END: u64 = 0x40_0000;
/// `rsp` at entry: as after a `call`, so that the entry point may be an ordinary function.
pub const STACK_TOP: u64 = STACK_END - 8;

/// Registers of the input disk (virtio 1.2, section 4.2.2).
pub const INPUT_MMIO: u64 = 0x1000_0000;
/// Registers of the output disk.
pub const OUTPUT_MMIO: u64 = 0x1000_1000;
/// Size of one device's registers: the page that they are mapped by.
pub const MMIO_SIZE: u64 = PAGE_SIZE;

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

/// The whole RAM, in order and without gaps.
pub const RAM_REGIONS: [Region; 9] = [
    region(0, GDT, Access::Unmapped, false),
    region(GDT, IMAGE, Access::Supervisor, false),
    region(IMAGE, INPUT_QUEUE, Access::Image, false),
    region(
        INPUT_QUEUE,
        OUTPUT_QUEUE + QUEUE_SIZE,
        Access::ReadWrite,
        true,
    ),
    region(
        OUTPUT_QUEUE + QUEUE_SIZE,
        DMA_POOL,
        Access::Unmapped,
        false,
    ),
    region(DMA_POOL, DMA_POOL + DMA_POOL_SIZE, Access::ReadWrite, true),
    region(STACK, STACK + STACK_GUARD_SIZE, Access::Unmapped, false),
    region(
        STACK + STACK_GUARD_SIZE,
        STACK_END,
        Access::ReadWrite,
        false,
    ),
    region(STACK_END, RAM_SIZE, Access::Unmapped, false),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_cover_ram_in_order_without_gaps_in_whole_pages() {
        let mut next = 0;
        for region in RAM_REGIONS {
            assert_eq!(region.start, next);
            assert_eq!(region.size % PAGE_SIZE, 0);
            assert!(region.size > 0);
            next = region.end();
        }
        assert_eq!(next, RAM_SIZE);
    }

    #[test]
    fn only_data_that_cannot_be_executed_is_within_reach_of_dma() {
        for region in RAM_REGIONS.iter().filter(|region| region.dma) {
            assert_eq!(region.access, Access::ReadWrite);
        }
    }
}
