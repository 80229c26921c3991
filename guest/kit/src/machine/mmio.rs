//! Device registers (virtio 1.2, section 4.2.2). Each access is one plain move between memory and
//! a register, the simplest instruction for a hypervisor to take apart.

use core::arch::asm;
use core::ptr;

use guest_abi::layout::{MMIO, MMIO_END, MMIO_SIZE};

use crate::hardware::Registers;

/// The registers of the device at one address.
#[derive(Debug)]
pub struct MmioRegisters {
    base: *mut u8,
}

impl MmioRegisters {
    /// The registers of the device whose page starts at `address`. If the VMM put none there, the
    /// page is not mapped, and touching it ends the run.
    ///
    /// # Panics
    ///
    /// If the address map has no device registers there: the program's mistake.
    #[must_use]
    pub fn at(address: u64) -> Self {
        let is_page = (MMIO..MMIO_END).contains(&address) && address.is_multiple_of(MMIO_SIZE);
        assert!(is_page, "no device registers at {address:#x}");
        let address = usize::try_from(address).unwrap_or(0);
        Self {
            base: ptr::with_exposed_provenance_mut(address),
        }
    }

    fn register(&self, offset: u16) -> *mut u32 {
        assert!(u64::from(offset) + 4 <= MMIO_SIZE && offset.is_multiple_of(4));
        self.base.wrapping_add(usize::from(offset)).cast()
    }
}

impl Registers for MmioRegisters {
    fn read(&self, offset: u16) -> u32 {
        let register = self.register(offset);
        let value;
        // SAFETY: the register lies in a page that is mapped to a device and to nothing else.
        unsafe {
            asm!(
                "mov {value:e}, dword ptr [{register}]",
                register = in(reg) register,
                value = out(reg) value,
                options(nostack, preserves_flags),
            );
        }
        value
    }

    fn write(&self, offset: u16, value: u32) {
        let register = self.register(offset);
        // SAFETY: as above. The asm is a compiler barrier, and the processor keeps stores in
        // order, so memory that was written before is visible to the device first.
        unsafe {
            asm!(
                "mov dword ptr [{register}], {value:e}",
                register = in(reg) register,
                value = in(reg) value,
                options(nostack, preserves_flags),
            );
        }
    }
}
