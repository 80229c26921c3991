//! The ports of an instruction, and whether the guest may use them: held against the I/O permission
//! bitmap as the processor does it (Intel SDM volume 1, "I/O Permission Bit Map").

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::Scene;
use crate::machine::segments::TSS_BITMAP_OFFSET;

/// The ports that an instruction reads or writes.
pub(super) struct Ports {
    first: u16,
    count: u16,
}

impl Ports {
    /// The ports of `instruction`, if it reads or writes any.
    pub(super) fn of(scene: &Scene, instruction: &Instruction) -> Option<Self> {
        let port_operand = match instruction.mnemonic() {
            Mnemonic::In => 1,
            Mnemonic::Out => 0,
            Mnemonic::Insb | Mnemonic::Outsb => return Some(Self::in_dx(scene, 1)),
            Mnemonic::Insw | Mnemonic::Outsw => return Some(Self::in_dx(scene, 2)),
            Mnemonic::Insd | Mnemonic::Outsd => return Some(Self::in_dx(scene, 4)),
            _ => return None,
        };
        let count = match instruction.op_register(1 - port_operand) {
            Register::AL => 1,
            Register::AX => 2,
            _ => 4,
        };
        if instruction.op_kind(port_operand) == OpKind::Immediate8 {
            let first = instruction.immediate8().into();
            return Some(Self { first, count });
        }
        Some(Self::in_dx(scene, count))
    }

    fn in_dx(scene: &Scene, count: u16) -> Self {
        let [low, high, ..] = scene.regs.rdx.to_le_bytes();
        Self {
            first: u16::from_le_bytes([low, high]),
            count,
        }
    }

    /// The first of them that the I/O permission bitmap does not open.
    pub(super) fn forbidden(&self, scene: &Scene) -> Option<u32> {
        let first = u32::from(self.first);
        (first..first + u32::from(self.count)).find(|port| !is_open(scene, *port))
    }
}

fn is_open(scene: &Scene, port: u32) -> bool {
    let ([low, high], 2) = scene.bytes(scene.tss + TSS_BITMAP_OFFSET as u64) else {
        return false;
    };
    let byte = u32::from(u16::from_le_bytes([low, high])) + port / 8;
    // The processor reads the byte behind that one as well.
    let ([bits], 1) = scene.bytes(scene.tss + u64::from(byte)) else {
        return false;
    };
    byte < scene.tss_limit && bits & (1 << (port % 8)) == 0
}
