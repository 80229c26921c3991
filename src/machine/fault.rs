//! Says where and why a guest faulted, as far as KVM tells.
//!
//! There is no interrupt descriptor table, so that any fault is a triple fault, which KVM reports
//! as a shutdown without a reason. What is left are the registers and the instruction.

use std::fmt;

use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Paging is on for as long as the guest runs; a processor without it has been reset.
const CR0_PAGING: u64 = 1 << 31;
/// The longest instruction of the architecture.
const MAX_INSTRUCTION: usize = 15;

/// A fault of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Where it was, and what it did there.
    At {
        /// Address of the instruction.
        rip: u64,
        /// What kind of instruction it is.
        kind: &'static str,
        /// The last address that caused a page fault, 0 if none did.
        cr2: u64,
    },
    /// The host's KVM has reset the vCPU and no longer knows where it was, as kvm_amd does.
    Unknown,
}

impl Fault {
    /// Examines a vCPU that has shut down.
    pub(super) fn examine(vcpu: &VcpuFd, memory: &GuestMemoryMmap) -> Self {
        let (Ok(regs), Ok(sregs)) = (vcpu.get_regs(), vcpu.get_sregs()) else {
            return Self::Unknown;
        };
        if sregs.cr0 & CR0_PAGING == 0 {
            return Self::Unknown;
        }
        Self::At {
            rip: regs.rip,
            kind: kind(memory, regs.rip, sregs.cr2),
            cr2: sregs.cr2,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At { rip, kind, cr2 } => {
                write!(f, "at {rip:#x}: {kind}")?;
                if *cr2 != 0 {
                    write!(f, " (page fault at {cr2:#x})")?;
                }
                Ok(())
            }
            Self::Unknown => {
                f.write_str("at an address that this host's KVM does not tell (it reset the vCPU)")
            }
        }
    }
}

fn kind(memory: &GuestMemoryMmap, rip: u64, cr2: u64) -> &'static str {
    let mut code = [0; MAX_INSTRUCTION];
    match memory.read(&mut code, GuestAddress(rip)) {
        // A page fault at the instruction itself: it could not even be fetched.
        Ok(len) if len > 0 && cr2 != rip => decode(&code[..len]),
        _ => "a jump to where there is no code",
    }
}

/// The kind of the instruction at the start of `code`, told by its opcode.
fn decode(code: &[u8]) -> &'static str {
    // Operand-size, repeat and REX prefixes say nothing about the kind.
    let is_prefix = |byte: &&u8| matches!(**byte, 0x66 | 0xf2 | 0xf3 | 0x40..=0x4f);
    let prefixes = code.iter().take_while(is_prefix).count();
    match code[prefixes..] {
        [0x0f, 0x0b, ..] => "an invalid instruction (ud2)",
        [0x0f, 0x05 | 0x34, ..] => "a system call, which this machine does not have",
        [
            0x0f,
            0x00 | 0x01 | 0x06 | 0x08 | 0x09 | 0x20..=0x23 | 0x30 | 0x32,
            ..,
        ]
        | [0xf4 | 0xfa | 0xfb, ..] => "a privileged instruction",
        [0xe4..=0xe7 | 0xec..=0xef | 0x6c..=0x6f, ..] => "access to a forbidden port",
        [0xcc | 0xcd | 0xf1, ..] => "a software interrupt, for which there is no handler",
        [0xf6 | 0xf7, ..] => "a division by zero or access to forbidden memory",
        _ => "access to forbidden memory or an invalid instruction",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_is_told_behind_prefixes_too() {
        assert_eq!(decode(&[0x0f, 0x0b]), "an invalid instruction (ud2)");
        assert_eq!(decode(&[0xf3, 0x6e]), "access to a forbidden port");
        assert_eq!(
            decode(&[0x48, 0x0f, 0x05]),
            "a system call, which this machine does not have"
        );
        assert_eq!(decode(&[0xf4]), "a privileged instruction");
    }
}
