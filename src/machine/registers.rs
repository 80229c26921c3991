//! The processor's state at the guest's first instruction: 64-bit mode, paging on, ring 3 (Intel
//! SDM volume 3, "Modes of Operation", "Control Registers" and "Initializing IA-32e Mode"). The guest
//! starts in this state and never changes it. docs/boot.md gives the reason for each bit.

use guest_abi::layout::{PAGE_TABLES, STACK_TOP};
use kvm_bindings::{CpuId, kvm_regs, kvm_sregs};
use kvm_ioctls::VcpuFd;

use super::fault::NO_PAGE_FAULT;
use super::segments;

const CR0_PROTECTED_MODE: u64 = 1;
const CR0_MONITOR_COPROCESSOR: u64 = 1 << 1;
const CR0_EXTENSION_TYPE: u64 = 1 << 4;
const CR0_NUMERIC_ERROR: u64 = 1 << 5;
const CR0_WRITE_PROTECT: u64 = 1 << 16;
pub(super) const CR0_PAGING: u64 = 1 << 31;
const CR4_PHYSICAL_ADDRESS_EXTENSION: u64 = 1 << 5;
const CR4_FXSAVE: u64 = 1 << 9;
const CR4_SIMD_EXCEPTIONS: u64 = 1 << 10;
const EFER_LONG_MODE_ENABLE: u64 = 1 << 8;
const EFER_LONG_MODE_ACTIVE: u64 = 1 << 10;
const EFER_NO_EXECUTE: u64 = 1 << 11;

/// Bit 1 of the flags register is always set. The I/O privilege level is 0, so that the I/O
/// permission bitmap decides about ports.
///
/// Bit 9 lets interrupts in, although the machine has none. An interrupt of the host makes the
/// processor leave the guest whatever this bit is. But an emulated processor (Bochs' VMX) was seen
/// to forget the host's interrupts when the bit was 0 at the entry, and then a guest that looped
/// stopped its host.
const RFLAGS: u64 = 1 << 1 | 1 << 9;

/// Sets the registers of `vcpu`, so that its first instruction is the one at `entry`.
///
/// # Errors
///
/// The reason of the KVM call that failed.
pub(super) fn set_up(vcpu: &VcpuFd, cpuid: &CpuId, entry: u64) -> Result<(), kvm_ioctls::Error> {
    vcpu.set_cpuid2(cpuid)?;
    let mut sregs = vcpu.get_sregs()?;
    segments::set_up(&mut sregs);
    set_long_mode(&mut sregs);
    vcpu.set_sregs(&sregs)?;
    vcpu.set_regs(&kvm_regs {
        rip: entry,
        rsp: STACK_TOP,
        rflags: RFLAGS,
        ..Default::default()
    })
}

fn set_long_mode(sregs: &mut kvm_sregs) {
    sregs.cr0 = CR0_PROTECTED_MODE
        | CR0_MONITOR_COPROCESSOR
        | CR0_EXTENSION_TYPE
        | CR0_NUMERIC_ERROR
        | CR0_WRITE_PROTECT
        | CR0_PAGING;
    sregs.cr2 = NO_PAGE_FAULT;
    sregs.cr3 = PAGE_TABLES;
    sregs.cr4 = CR4_PHYSICAL_ADDRESS_EXTENSION | CR4_FXSAVE | CR4_SIMD_EXCEPTIONS;
    // Without EFER.SCE the instruction SYSCALL faults: it is no way into ring 0.
    sregs.efer = EFER_LONG_MODE_ENABLE | EFER_LONG_MODE_ACTIVE | EFER_NO_EXECUTE;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registers_are_those_that_the_page_about_the_first_instruction_shows() {
        let page = include_str!("../../docs/boot.md");
        let mut sregs = kvm_sregs::default();
        set_long_mode(&mut sregs);
        for (name, value) in [
            ("CR0", sregs.cr0),
            ("CR2", sregs.cr2),
            ("CR3", sregs.cr3),
            ("CR4", sregs.cr4),
            ("EFER", sregs.efer),
            ("RFLAGS", RFLAGS),
            ("RSP", STACK_TOP),
        ] {
            let row = format!("\n| {name} | {value:#x} |\n");
            assert!(page.contains(&row), "the page lacks {row}");
        }
        // Each bit that is set has a row of its own.
        for (name, value) in [
            ("CR0", sregs.cr0),
            ("CR4", sregs.cr4),
            ("EFER", sregs.efer),
            ("RFLAGS", RFLAGS),
        ] {
            for bit in (0..64).filter(|bit| value >> bit & 1 == 1) {
                let row = format!("\n| {name}.{bit} |");
                assert!(
                    page.contains(&row),
                    "the page does not explain {name}.{bit}"
                );
            }
        }
    }
}
