//! The guest's RAM, one mapping for each region of the address map. There are three views of it:
//! all of it, the part that devices may reach, and the part that an image is loaded into.

use std::io;
use std::sync::Arc;

use guest_abi::layout::{Access, QUEUE_SIZE, QUEUES, Region, STACK_END, Shape, ram_regions};
use rustix::mm::{Advice, madvise};
use vm_memory::mmap::{FromRangesError, MmapRegionError};
use vm_memory::{
    GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionCollection,
    GuestRegionMmap,
};

use crate::limits::hint_of;
use crate::reason::reason;

/// How much of the stack, from its top down, the host commits at once: as much as the guest that
/// copies uses.
const USUAL_STACK: u64 = 0x8000;
/// How much of each virtqueue's memory: what a queue with 256 descriptors takes, for as many
/// requests as the pool has room for in a usual copy.
const USUAL_QUEUE: u64 = 0x4000;

/// The host did not give the guest its memory.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The host refused a mapping.
    #[error("cannot map the guest's memory: {}", why_not_mapped(.0))]
    Map(#[from] FromRangesError),
    /// The host refused advice about a mapping.
    #[error("cannot keep the guest's memory from child processes: {}", reason(.0))]
    Advice(io::Error),
    /// The regions of the address map contradict each other.
    #[error("the guest's memory regions do not fit together: {0}")]
    Regions(#[from] vm_memory::GuestRegionCollectionError),
}

fn why_not_mapped(error: &FromRangesError) -> String {
    match error {
        FromRangesError::MmapRegion(MmapRegionError::Mmap(error)) => reason(error) + hint_of(error),
        other => reason(other),
    }
}

/// The guest's RAM. Cloning it shares the memory.
#[derive(Clone, Debug)]
pub struct GuestRam {
    all: GuestMemoryMmap,
    dma: GuestMemoryMmap,
    image: GuestMemoryMmap,
    regions: Vec<Region>,
}

impl GuestRam {
    /// Maps the RAM of a machine of this shape as [`ram_regions`] says. The host commits what every
    /// guest touches at once, and other pages when they are touched.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Map`] if the host has no room.
    pub fn new(shape: Shape) -> Result<Self, MemoryError> {
        let regions: Vec<_> = ram_regions(shape)
            .into_iter()
            .filter(|region| region.size > 0)
            .collect();
        let ranges: Vec<_> = regions
            .iter()
            .map(|region| (GuestAddress(region.start), to_usize(region.size)))
            .collect();
        let all = GuestMemoryMmap::<()>::from_ranges(&ranges)?;
        for region in all.iter() {
            keep_from_children(region).map_err(MemoryError::Advice)?;
        }
        populate(&all, &regions);
        let with = |wanted: fn(&Region) -> bool| {
            GuestRegionCollection::from_arc_regions(select(&all, &regions, wanted))
        };
        Ok(Self {
            dma: with(|region| region.dma)?,
            image: with(|region| region.access == Access::Image)?,
            all,
            regions,
        })
    }

    /// All of it, for setting up the processor's tables and for looking at what a guest did.
    #[must_use]
    pub fn all(&self) -> &GuestMemoryMmap {
        &self.all
    }

    /// What the guest or the processor's tables can reach, region by region: what needs a memory
    /// slot of KVM's.
    pub(super) fn reachable(&self) -> impl Iterator<Item = &GuestRegionMmap> {
        self.regions
            .iter()
            .filter(|region| region.access != Access::Unmapped)
            .filter_map(|region| self.all.find_region(GuestAddress(region.start)))
    }

    /// What devices may read and write: queues and the data pool. A device that holds only this
    /// cannot be talked into changing page tables, code or stack.
    #[must_use]
    pub fn dma(&self) -> &GuestMemoryMmap {
        &self.dma
    }

    /// Where a guest image is loaded, and nothing else.
    #[must_use]
    pub fn image(&self) -> &GuestMemoryMmap {
        &self.image
    }

    /// The address map of this RAM.
    pub(super) fn regions(&self) -> &[Region] {
        &self.regions
    }
}

fn select(
    all: &GuestMemoryMmap,
    regions: &[Region],
    wanted: fn(&Region) -> bool,
) -> Vec<Arc<GuestRegionMmap>> {
    regions
        .iter()
        .filter(|region| wanted(region))
        .filter_map(|region| all.find_region(GuestAddress(region.start)))
        .filter_map(|region| GuestRegionMmap::with_arc(region.get_mmap(), region.start_addr()))
        .map(Arc::new)
        .collect()
}

/// Keeps the memory from child processes: a child would make every page of the guest copy-on-write.
fn keep_from_children(region: &GuestRegionMmap) -> io::Result<()> {
    // SAFETY: the range is a whole mapping, and the advice changes nothing for this process.
    unsafe { madvise(region.as_ptr().cast(), region.size(), Advice::LinuxDontFork) }?;
    Ok(())
}

/// Has the host commit the pages that every guest touches: the first ones of each queue, and the
/// top of the stack. A page that the guest is the first to touch costs an exit each; of those that are there
/// already KVM's shadow page tables take eight with one exit.
fn populate(all: &GuestMemoryMmap, regions: &[Region]) {
    let stack = regions.iter().find(|region| region.end() == STACK_END);
    let stack = stack.map(|region| (region.end() - USUAL_STACK.min(region.size), region.end()));
    let queues = regions
        .iter()
        .find(|region| region.start == QUEUES && region.dma);
    let queues = queues.into_iter().flat_map(|region| {
        let starts = (region.start..region.end()).step_by(to_usize(QUEUE_SIZE));
        starts.map(|start| (start, start + USUAL_QUEUE))
    });
    for (start, end) in stack.into_iter().chain(queues) {
        if let Ok(memory) = all.get_slice(GuestAddress(start), to_usize(end - start)) {
            let pages = memory.ptr_guard_mut().as_ptr();
            // SAFETY: the slice lies in one mapping, in whole pages, and is not changed.
            let result = unsafe { madvise(pages.cast(), memory.len(), Advice::LinuxPopulateWrite) };
            // Linux knows this since 5.14. If it fails, for whatever reason, the host commits the
            // pages when they are touched.
            let _ = result;
        }
    }
}

/// All addresses and sizes of the map are far below 4 GiB, so that this loses nothing.
pub(crate) fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::print_stderr)]

    use guest_abi::layout::{DMA_POOL, GDT, IMAGE, RAM_SIZE, STACK_TOP, queue};
    use vm_memory::Bytes;

    use super::*;

    #[test]
    fn ram_has_the_size_of_the_address_map() {
        let ram = GuestRam::new(guest_abi::layout::Shape::COPYING).unwrap();
        assert_eq!(ram.all().last_addr().0 + 1, RAM_SIZE);
    }

    #[test]
    fn what_every_guest_touches_is_there_before_it_runs_and_the_pool_is_not() {
        let ram = GuestRam::new(guest_abi::layout::Shape::COPYING).unwrap();
        let resident = |address: u64| {
            let page = ram.all().get_host_address(GuestAddress(address)).unwrap();
            let mut state = 0_u8;
            // SAFETY: it writes a byte for the one page that is asked about.
            let result = unsafe { libc::mincore(page.cast(), 1, &raw mut state) };
            assert_eq!(result, 0);
            state & 1 != 0
        };
        let pool = ram.all().get_host_address(GuestAddress(DMA_POOL + 0x1000));
        // SAFETY: a page of the memory, of which nothing is changed.
        let populated =
            unsafe { madvise(pool.unwrap().cast(), 0x1000, Advice::LinuxPopulateWrite) };
        if populated.is_err() {
            eprintln!("skipped: this kernel has no MADV_POPULATE_WRITE (Linux 5.14)");
            return;
        }
        let slots = guest_abi::layout::Shape::COPYING.slots;
        for start in (0..slots).map(queue) {
            for page in (start..start + USUAL_QUEUE).step_by(0x1000) {
                assert!(resident(page), "{page:#x}");
            }
            assert!(!resident(start + USUAL_QUEUE));
        }
        assert!(resident(STACK_END - USUAL_STACK));
        assert!(!resident(STACK_END - USUAL_STACK - 0x1000));
        assert!(!resident(DMA_POOL));
    }

    #[test]
    fn a_child_process_does_not_get_the_memory() {
        let ram = GuestRam::new(guest_abi::layout::Shape::COPYING).unwrap();
        let start = ram.all().get_host_address(GuestAddress(DMA_POOL)).unwrap();
        let start = start.addr();
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut lines = maps.lines().skip_while(|line| {
            let range = line
                .split_once(' ')
                .and_then(|(range, _)| range.split_once('-'));
            let number = |text| usize::from_str_radix(text, 16).ok();
            let range = range.and_then(|(from, to)| Some(number(from)?..number(to)?));
            range.is_none_or(|range| !range.contains(&start))
        });
        let flags = lines
            .find_map(|line| line.strip_prefix("VmFlags:"))
            .unwrap();
        // "Do not copy area on fork" (Linux, Documentation/filesystems/proc.rst).
        assert!(flags.split_whitespace().any(|flag| flag == "dc"), "{flags}");
    }

    #[test]
    fn devices_reach_the_pool_and_share_it_with_the_guest_but_reach_nothing_else() {
        let ram = GuestRam::new(guest_abi::layout::Shape::COPYING).unwrap();
        ram.dma().write_obj(7_u32, GuestAddress(DMA_POOL)).unwrap();
        let seen: u32 = ram.all().read_obj(GuestAddress(DMA_POOL)).unwrap();
        assert_eq!(seen, 7);
        for address in [0, GDT, IMAGE, STACK_TOP - 8] {
            assert!(ram.dma().write_obj(7_u32, GuestAddress(address)).is_err());
        }
    }
}
