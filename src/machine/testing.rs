//! What the machine's own tests share: guest memory with a small image and the processor's tables.

#![allow(clippy::unwrap_used)]

use guest_abi::layout::{IMAGE, INPUT_MMIO, OUTPUT_MMIO, STACK_TOP, TSS};
use guest_abi::ports::{COM1, COM2, EXIT, IDLE, UART_PORTS};
use kvm_bindings::kvm_regs;
use vm_memory::{Bytes, GuestAddress};

use super::fault::Scene;
use super::page_tables::{self, IMAGE_PAGES};
use super::{GuestRam, PagePermissions, segments};

/// The memory of a guest: a page of code that can be run, a page of constants, and nothing more.
pub(super) struct Scenery(GuestRam);

impl Scenery {
    /// With `code` at the start of the image.
    pub(super) fn with(code: &[u8]) -> Self {
        let ram = GuestRam::new(guest_abi::layout::Shape::COPYING).unwrap();
        let mut image = [PagePermissions::default(); IMAGE_PAGES];
        image[0].read = true;
        image[0].execute = true;
        image[1].read = true;
        page_tables::write(&ram, &image, &[INPUT_MMIO, OUTPUT_MMIO]).unwrap();
        let uarts = [COM1, COM2].map(|first| first..first + UART_PORTS);
        let ports: Vec<u16> = uarts.into_iter().flatten().chain([EXIT, IDLE]).collect();
        segments::write_tables(ram.all(), &ports).unwrap();
        let scenery = Self(ram);
        scenery.write(IMAGE, code);
        scenery
    }

    /// Puts `bytes` at `address`.
    pub(super) fn write(&self, address: u64, bytes: &[u8]) {
        let memory = self.0.all();
        memory.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    /// A guest that is at its first instruction.
    pub(super) fn scene(&self) -> Scene<'_> {
        Scene {
            regs: kvm_regs {
                rip: IMAGE,
                rsp: STACK_TOP,
                rflags: 2,
                ..Default::default()
            },
            tss: TSS,
            tss_limit: segments::TSS_LIMIT,
            memory: self.0.all(),
        }
    }
}
