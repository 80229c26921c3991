//! The page tables that confine the guest: 4 KiB pages, each mapped to itself with exactly the
//! permissions of the address map (Intel SDM volume 3, "4-Level Paging and 5-Level
//! Paging"). docs/boot.md shows them.
//!
//! The accessed and dirty bits are set in advance, so that the processor has no reason to write
//! to a table.

use guest_abi::layout::{
    Access, IMAGE, IMAGE_SIZE, MMIO, MMIO_PAGE_TABLE, PAGE_SIZE, PAGE_TABLES, RAM_PAGE_TABLES,
    RAM_SIZE, Region,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::memory::{GuestRam, to_usize};

pub(super) const PRESENT: u64 = 1;
pub(super) const WRITABLE: u64 = 1 << 1;
pub(super) const USER: u64 = 1 << 2;
const CACHE_DISABLE: u64 = 1 << 4;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
pub(super) const NO_EXECUTE: u64 = 1 << 63;

const PDPT: u64 = PAGE_TABLES + PAGE_SIZE;
const PAGE_DIRECTORY: u64 = PDPT + PAGE_SIZE;
/// How many bytes of addresses one page table maps.
const TABLE_SPAN: u64 = 512 * PAGE_SIZE;
/// How many pages an image may have.
pub(crate) const IMAGE_PAGES: usize = (IMAGE_SIZE / PAGE_SIZE) as usize;

/// What the guest may do with one page of its image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PagePermissions {
    /// Data may be read. The hardware cannot grant anything else without this.
    pub read: bool,
    /// Data may be written.
    pub write: bool,
    /// Instructions may be fetched.
    pub execute: bool,
}

impl PagePermissions {
    /// Read, write and execute.
    pub const ALL: Self = Self {
        read: true,
        write: true,
        execute: true,
    };

    const READ_WRITE: Self = Self {
        read: true,
        write: true,
        execute: false,
    };

    /// Whether anything at all is allowed.
    #[must_use]
    pub const fn any(self) -> bool {
        self.read || self.write || self.execute
    }

    /// Adds what `other` allows.
    pub(crate) fn join(&mut self, other: Self) {
        self.read |= other.read;
        self.write |= other.write;
        self.execute |= other.execute;
    }

    const fn flags(self) -> u64 {
        let write = if self.write { WRITABLE } else { 0 };
        let no_execute = if self.execute { 0 } else { NO_EXECUTE };
        PRESENT | USER | ACCESSED | DIRTY | write | no_execute
    }
}

/// What the guest may do with each page of its image, from [`IMAGE`] up.
pub type ImagePermissions = [PagePermissions; IMAGE_PAGES];

/// Writes the page tables for a guest whose image has the permissions `image`, and whose devices
/// have their registers at the pages `registers`.
///
/// # Errors
///
/// If `ram` lacks the pages that the address map gives to the tables.
pub(super) fn write(
    ram: &GuestRam,
    image: &ImagePermissions,
    registers: &[u64],
) -> Result<(), GuestMemoryError> {
    let entry = |table: u64, index: u64, value: u64| {
        ram.all().write_obj(value, GuestAddress(table + index * 8))
    };
    // The processor allows what the entries of all four levels allow. The upper levels allow
    // everything, so that the entry of the page decides.
    let directory_flags = PRESENT | WRITABLE | USER | ACCESSED;
    entry(PAGE_TABLES, 0, PDPT | directory_flags)?;
    entry(PDPT, 0, PAGE_DIRECTORY | directory_flags)?;
    for table in 0..RAM_SIZE / TABLE_SPAN {
        let address = RAM_PAGE_TABLES + table * PAGE_SIZE;
        entry(PAGE_DIRECTORY, table, address | directory_flags)?;
    }
    entry(
        PAGE_DIRECTORY,
        MMIO / TABLE_SPAN,
        MMIO_PAGE_TABLE | directory_flags,
    )?;
    for registers in registers {
        let flags = PagePermissions::READ_WRITE.flags() | CACHE_DISABLE;
        let index = registers % TABLE_SPAN / PAGE_SIZE;
        entry(MMIO_PAGE_TABLE, index, registers | flags)?;
    }
    for page in (0..RAM_SIZE).step_by(to_usize(PAGE_SIZE)) {
        // The four tables for RAM lie one behind the other in memory, so that together they are one
        // array with an entry for each page.
        if let Some(flags) = ram_page_flags(page, ram.regions(), image) {
            entry(RAM_PAGE_TABLES, page / PAGE_SIZE, page | flags)?;
        }
    }
    Ok(())
}

/// The flags for the page of RAM at `page`, or `None` if it is not mapped.
fn ram_page_flags(page: u64, regions: &[Region], image: &ImagePermissions) -> Option<u64> {
    let region = regions
        .iter()
        .find(|region| (region.start..region.end()).contains(&page))?;
    match region.access {
        Access::Unmapped => None,
        Access::Supervisor => Some(PRESENT | WRITABLE | ACCESSED | DIRTY | NO_EXECUTE),
        Access::ReadWrite => Some(PagePermissions::READ_WRITE.flags()),
        Access::Image => {
            let index = usize::try_from((page - IMAGE) / PAGE_SIZE).ok()?;
            let permissions = *image.get(index)?;
            permissions.any().then(|| permissions.flags())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use guest_abi::layout::{DMA_POOL, GDT, INPUT_MMIO, OUTPUT_MMIO, STACK, STACK_TOP, TSS};
    use vm_memory::GuestMemoryMmap;

    use super::*;
    use crate::machine::memory::GuestRam;

    /// Walks the tables as the processor does; the leaf entry, or `None` if not present.
    fn walk(memory: &GuestMemoryMmap, address: u64) -> Option<u64> {
        let mut table = PAGE_TABLES;
        for shift in [39, 30, 21, 12] {
            let index = (address >> shift) & 0x1ff;
            let entry: u64 = memory.read_obj(GuestAddress(table + index * 8)).unwrap();
            if entry & PRESENT == 0 {
                return None;
            }
            table = entry & 0x000f_ffff_ffff_f000;
            if shift == 12 {
                assert_eq!(table, address & !0xfff, "pages are mapped to themselves");
                return Some(entry);
            }
        }
        None
    }

    fn tables() -> GuestRam {
        let ram = GuestRam::new(guest_abi::layout::Shape::COPYING).unwrap();
        let mut image = [PagePermissions::default(); IMAGE_PAGES];
        image[0] = PagePermissions {
            read: true,
            write: false,
            execute: true,
        };
        image[1] = PagePermissions::READ_WRITE;
        write(&ram, &image, &[INPUT_MMIO, OUTPUT_MMIO]).unwrap();
        ram
    }

    #[test]
    fn the_guest_cannot_reach_null_tables_guard_or_the_rest_of_its_image() {
        let ram = tables();
        for address in [
            0,
            STACK,
            IMAGE + 2 * PAGE_SIZE,
            RAM_SIZE,
            INPUT_MMIO + 0x2000,
        ] {
            assert_eq!(walk(ram.all(), address), None, "{address:#x}");
        }
        for address in [GDT, PAGE_TABLES, TSS] {
            assert_eq!(walk(ram.all(), address).unwrap() & USER, 0, "{address:#x}");
        }
    }

    /// Bits 0 to 2 and 4 to 6 of an entry are present, writable, user, uncached, accessed, dirty.
    #[test]
    fn every_kind_of_page_has_exactly_its_flags() {
        let ram = tables();
        let constants = PagePermissions {
            read: true,
            ..PagePermissions::default()
        };
        assert!(constants.any() && !PagePermissions::default().any());
        let mut image = [PagePermissions::default(); IMAGE_PAGES];
        image[IMAGE_PAGES - 1] = constants;
        image[IMAGE_PAGES - 2] = PagePermissions::ALL;
        write(&ram, &image, &[]).unwrap();
        let last = IMAGE + IMAGE_SIZE - PAGE_SIZE;
        let no_execute = 1 << 63;
        for (address, flags) in [
            (GDT, no_execute | 0x63),
            (IMAGE, 0x65),
            (IMAGE + PAGE_SIZE, no_execute | 0x67),
            (last - PAGE_SIZE, 0x67),
            (last, no_execute | 0x65),
            (DMA_POOL, no_execute | 0x67),
            (INPUT_MMIO, no_execute | 0x77),
        ] {
            let entry = walk(ram.all(), address).unwrap();
            assert_eq!(entry, address | flags, "{address:#x}");
        }
    }

    #[test]
    fn no_page_can_be_both_written_and_executed() {
        let ram = tables();
        let code = walk(ram.all(), IMAGE).unwrap();
        assert_eq!(code & (WRITABLE | NO_EXECUTE), 0);
        let data = [
            IMAGE + PAGE_SIZE,
            DMA_POOL,
            STACK_TOP,
            INPUT_MMIO,
            OUTPUT_MMIO,
        ];
        for address in data {
            let entry = walk(ram.all(), address).unwrap();
            assert_eq!(
                entry & (USER | WRITABLE | NO_EXECUTE),
                USER | WRITABLE | NO_EXECUTE
            );
        }
    }
    #[test]
    fn the_entries_are_those_that_the_page_about_the_first_instruction_shows() {
        let ram = tables();
        let page = include_str!("../../docs/boot.md");
        let block = page.split("```tables\n").nth(1).unwrap();
        let lines = block.split("```").next().unwrap().lines();
        let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
        for line in lines {
            let mut words = line.split_whitespace();
            let address = number(words.next().unwrap().strip_prefix("0x").unwrap());
            let shown = number(words.next().unwrap());
            let entry: u64 = ram.all().read_obj(GuestAddress(address)).unwrap();
            assert_eq!(entry, shown, "at {address:#x}: {entry:016x}");
        }
    }
}
