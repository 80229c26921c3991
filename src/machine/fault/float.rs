//! Tells floating-point errors that the guest wants to be told of, which nothing but the state of
//! the floating-point units shows (Intel SDM volume 1, "MXCSR Control and Status Register" and "x87
//! FPU Status Register").

use iced_x86::{CpuidFeature, Instruction, Mnemonic};
use kvm_bindings::kvm_xsave;

/// What the floating-point units say of the errors that they have met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::machine) struct FloatState {
    /// The status word of the x87 unit.
    pub(in crate::machine) status: u16,
    /// The control and status register of SSE.
    pub(in crate::machine) mxcsr: u32,
}

impl FloatState {
    /// The state out of the area that FXSAVE fills, with which that of XSAVE begins (Intel SDM volume
    /// 1, "Legacy Region of an XSAVE Area"): the status word at byte 2, MXCSR at byte 24.
    pub(super) fn new(area: &kvm_xsave) -> Self {
        let status = (area.region[0] >> 16) as u16;
        let mxcsr = area.region[6];
        Self { status, mxcsr }
    }

    /// Whether the error of `instruction` is one that the guest has unmasked.
    pub(super) fn explains(self, instruction: &Instruction) -> bool {
        let features = instruction.cpuid_features();
        let is_of = |names: &[CpuidFeature]| features.iter().any(|name| names.contains(name));
        // An instruction of the x87 unit, or of MMX, which has the same registers, is told of the error
        // of the one before it.
        const ERROR_SUMMARY: u16 = 1 << 7;
        let mut operands = 0..instruction.op_count();
        let waits = instruction.mnemonic() == Mnemonic::Wait
            || operands.any(|operand| instruction.op_register(operand).is_mm());
        if waits
            || is_of(&[
                CpuidFeature::FPU,
                CpuidFeature::FPU287,
                CpuidFeature::FPU387,
                CpuidFeature::MMX,
            ])
        {
            return self.status & ERROR_SUMMARY != 0;
        }
        // Six flags for six kinds of errors, and their masks seven bits above them.
        let (flags, masks) = (self.mxcsr & 0x3f, (self.mxcsr >> 7) & 0x3f);
        is_of(&[
            CpuidFeature::SSE,
            CpuidFeature::SSE2,
            CpuidFeature::SSE3,
            CpuidFeature::SSE4_1,
        ]) && flags & !masks != 0
    }
}

#[cfg(test)]
mod tests {
    use iced_x86::{Decoder, DecoderOptions};

    use super::*;

    fn explains(code: &[u8], status: u16, mxcsr: u32) -> bool {
        let instruction = Decoder::new(64, code, DecoderOptions::NONE).decode();
        FloatState { status, mxcsr }.explains(&instruction)
    }

    #[test]
    fn only_an_error_that_is_not_masked_explains_a_fault_of_its_own_unit() {
        let divss = &[0xf3, 0x0f, 0x5e, 0xc0];
        let wait = &[0x9b];
        let mov = &[0x89, 0x08];
        // An invalid operation, with all masks, without its own, and without another one.
        for (mxcsr, told) in [
            (0x1f81, false),
            (0x1f01, true),
            (0x1e81, false),
            (0x1f00, false),
        ] {
            assert_eq!(explains(divss, 0, mxcsr), told, "{mxcsr:#x}");
            assert!(!explains(wait, 0, mxcsr) && !explains(mov, 0, mxcsr));
        }
        // wait; fucompp; fsin; paddd mm0, mm1; emms; cvtpi2ps xmm0, mm0
        for code in [
            &wait[..],
            &[0xda, 0xe9],
            &[0xd9, 0xfe],
            &[0x0f, 0xfe, 0xc1],
            &[0x0f, 0x77],
            &[0x0f, 0x2a, 0xc0],
        ] {
            assert!(explains(code, 0x8081, 0x1f80), "{code:x?}");
        }
        assert!(!explains(wait, 0x0001, 0x1f80));
        assert!(!explains(divss, 0x8081, 0x1f80) && !explains(mov, 0x8081, 0x1f80));
    }

    #[test]
    fn the_state_is_where_fxsave_puts_it() {
        let mut area = kvm_xsave::default();
        area.region[0] = 0xaaaa_037f;
        area.region[6] = 0x1f80;
        let expected = FloatState {
            status: 0xaaaa,
            mxcsr: 0x1f80,
        };
        assert_eq!(FloatState::new(&area), expected);
    }
}
