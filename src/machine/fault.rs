//! Says where and why a guest faulted, as far as KVM tells.
//!
//! There is no interrupt descriptor table, so that any exception is a triple fault, which KVM
//! reports as a shutdown without a reason (Intel SDM volume 3, "Interrupt Descriptor
//! Table (IDT)" and "Exception and Interrupt Reference"). What is left are the registers, the
//! instruction and the processor's tables: [`page`] looks at a page fault's address, [`instruction`]
//! at everything else.

mod float;
mod instruction;
mod page;
mod ports;

use std::fmt::{self, Write as _};

use kvm_bindings::{kvm_regs, kvm_sregs};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::registers::CR0_PAGING;
use crate::repeat::interrupted;
pub(super) use float::FloatState;

/// The longest instruction of the architecture.
const MAX_INSTRUCTION: usize = 15;

/// What a guest should use instead of an instruction that KVM cannot emulate.
const PLAIN_MOVES: &str = "plain moves of 1, 2, 4 or 8 bytes for device registers";

/// What CR2 holds at the guest's first instruction: an address that is not canonical, so that no
/// page fault can have happened at it. The first page fault ends the run, and so any other value
/// is the address of the fault that ended it. Address 0 is one like any other.
pub(super) const NO_PAGE_FAULT: u64 = 1 << 63;

/// A fault of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Where it was, and what it did there.
    At {
        /// Address of the instruction.
        rip: u64,
        /// What was wrong with it, for a person.
        cause: String,
    },
    /// The host's KVM has reset the vCPU and no longer knows where it was, as kvm_amd does.
    Unknown,
}

impl Fault {
    /// Examines a vCPU that has shut down.
    pub(super) fn examine(vcpu: &VcpuFd, memory: &GuestMemoryMmap) -> Self {
        let (Ok(regs), Ok(sregs)) = (
            interrupted(|| vcpu.get_regs()),
            interrupted(|| vcpu.get_sregs()),
        ) else {
            return Self::Unknown;
        };
        // Paging is on for as long as the guest runs; a processor without it has been reset.
        if sregs.cr0 & CR0_PAGING == 0 {
            return Self::Unknown;
        }
        let area = interrupted(|| vcpu.get_xsave());
        let float = area.as_ref().map(FloatState::new).unwrap_or_default();
        let page_fault = (sregs.cr2 != NO_PAGE_FAULT).then_some(sregs.cr2);
        let scene = Scene {
            float,
            ..Scene::new(regs, &sregs, memory)
        };
        Self::explain(&scene, page_fault)
    }

    /// Explains a fault from what there was at its end, `page_fault` being the address of one.
    fn explain(scene: &Scene, page_fault: Option<u64>) -> Self {
        let (rip, cause) = match page_fault {
            Some(address) => instruction::system_call(scene)
                .or_else(|| instruction::hypercall(scene, address))
                .unwrap_or_else(|| (scene.regs.rip, page::explain(scene, address))),
            None => instruction::explain(scene),
        };
        Self::At { rip, cause }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At { rip, cause } => write!(f, "at {rip:#x}: {cause}"),
            Self::Unknown => {
                f.write_str("at an address that this host's KVM does not tell (it reset the vCPU)")
            }
        }
    }
}

/// What is known of a guest that has faulted.
pub(super) struct Scene<'a> {
    pub(super) regs: kvm_regs,
    pub(super) float: FloatState,
    /// Address and limit of the task state segment.
    pub(super) tss: u64,
    pub(super) tss_limit: u32,
    pub(super) memory: &'a GuestMemoryMmap,
}

impl<'a> Scene<'a> {
    fn new(regs: kvm_regs, sregs: &kvm_sregs, memory: &'a GuestMemoryMmap) -> Self {
        Self {
            regs,
            float: FloatState::default(),
            tss: sregs.tr.base,
            tss_limit: sregs.tr.limit,
            memory,
        }
    }

    /// Up to `N` bytes of memory at `address`, fewer where the memory ends.
    fn bytes<const N: usize>(&self, address: u64) -> ([u8; N], usize) {
        let mut bytes = [0; N];
        let len = self.memory.read(&mut bytes, GuestAddress(address));
        (bytes, len.unwrap_or(0))
    }

    /// The unsigned number of 8 bytes at `address`.
    fn number(&self, address: u64) -> Option<u64> {
        self.memory.read_obj(GuestAddress(address)).ok()
    }
}

/// Why KVM has given up on a guest, after `KVM_EXIT_INTERNAL_ERROR`, with where it was.
///
/// It is not the processor that fails here: KVM emulates what it cannot let the processor run, an
/// access to device registers above all, and knows only a part of the instructions.
pub(super) fn explain_internal_error(vcpu: &mut VcpuFd, memory: &GuestMemoryMmap) -> String {
    // SAFETY: KVM has filled this variant of the union, and all values are valid for it.
    let internal = unsafe { vcpu.get_kvm_run().__bindgen_anon_1.internal };
    let regs = interrupted(|| vcpu.get_regs()).unwrap_or_default();
    let sregs = interrupted(|| vcpu.get_sregs()).unwrap_or_default();
    internal_error(internal.suberror, &Scene::new(regs, &sregs, memory))
}

fn internal_error(suberror: u32, scene: &Scene) -> String {
    let what = match suberror {
        kvm_bindings::KVM_INTERNAL_ERROR_EMULATION => "could not emulate an instruction",
        kvm_bindings::KVM_INTERNAL_ERROR_SIMUL_EX => "met an exception within another",
        kvm_bindings::KVM_INTERNAL_ERROR_DELIVERY_EV => "could not deliver an exception",
        kvm_bindings::KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON => {
            "does not know why the processor left the guest"
        }
        _ => "failed",
    };
    let rip = scene.regs.rip;
    let mut text = format!("KVM {what} of the guest at {rip:#x}");
    let (code, len) = scene.bytes::<MAX_INSTRUCTION>(rip);
    if len == 0 {
        text.push_str(" (there is no code)");
    } else {
        let (name, len) =
            instruction::name_and_len(scene, rip).unwrap_or_else(|| ("bytes".to_owned(), len));
        let _ = write!(text, " ({name}:");
        for byte in code.iter().take(len) {
            let _ = write!(text, " {byte:02x}");
        }
        text.push(')');
    }
    if suberror == kvm_bindings::KVM_INTERNAL_ERROR_EMULATION {
        let _ = write!(text, "; use {PLAIN_MOVES}");
    } else if what == "failed" {
        let _ = write!(text, "; its internal error is {suberror}");
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::machine::testing::Scenery;
    use guest_abi::layout::{IMAGE, MMIO};

    #[test]
    fn a_failed_emulation_names_the_address_the_instruction_and_its_bytes() {
        // movups xmm0, [rdi]
        let scenery = Scenery::with(&[0x0f, 0x10, 0x07]);
        let mut scene = scenery.scene();
        let text = internal_error(kvm_bindings::KVM_INTERNAL_ERROR_EMULATION, &scene);
        assert!(text.contains("at 0x10000 (movups: 0f 10 07)"), "{text}");
        assert!(text.contains("plain moves"), "{text}");
        scene.regs.rip = MMIO;
        let text = internal_error(kvm_bindings::KVM_INTERNAL_ERROR_EMULATION, &scene);
        assert!(text.contains("at 0x10000000 (there is no code)"), "{text}");
        let text = internal_error(77, &scene);
        assert!(text.contains("error is 77"), "{text}");
    }

    #[test]
    fn each_failure_of_kvm_that_has_a_name_is_told_by_it() {
        let scenery = Scenery::with(&[0x90]);
        let told = [1, 2, 3, 4].map(|error| internal_error(error, &scenery.scene()));
        for (told, what) in told.iter().zip([
            "KVM could not emulate an instruction of the guest",
            "KVM met an exception within another of the guest",
            "KVM could not deliver an exception of the guest",
            "KVM does not know why the processor left the guest",
        ]) {
            assert!(told.starts_with(what), "{told}");
            assert!(!told.contains("internal error"), "{told}");
        }
    }

    #[test]
    fn a_page_fault_decides_before_the_instruction_does() {
        // rep outsb, to COM2 from address 0
        let scenery = Scenery::with(&[0xf3, 0x6e]);
        let mut scene = scenery.scene();
        scene.regs.rdx = 0x2f8;
        let told = Fault::explain(&scene, Some(0)).to_string();
        assert_eq!(
            told,
            format!("at {IMAGE:#x}: access through a null pointer (page fault at 0x0)")
        );
    }

    #[test]
    fn a_hypercall_that_kvm_could_not_write_anew_is_told_as_what_it_is() {
        for (code, name) in [
            ([0x0f, 0x01, 0xd9], "vmmcall"),
            ([0x0f, 0x01, 0xc1], "vmcall"),
        ] {
            let scenery = Scenery::with(&code);
            let what = format!("a hypercall, which this machine does not have ({name})");
            for page_fault in [None, Some(IMAGE)] {
                let told = Fault::explain(&scenery.scene(), page_fault).to_string();
                assert_eq!(told, format!("at {IMAGE:#x}: {what}"));
            }
            // Nor is it one where something else has failed.
            let told = Fault::explain(&scenery.scene(), Some(8)).to_string();
            assert!(told.contains("null pointer"), "{told}");
        }
    }
}
