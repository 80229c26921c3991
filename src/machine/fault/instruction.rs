//! Explains an exception that is no page fault by the instruction that caused it: decodes it, and
//! looks whether its ports are open, its addresses canonical and its divisor zero (Intel SDM
//! volume 3, section 6.15, and volume 2 for each instruction).

use guest_abi::layout::{IMAGE, MMIO, MMIO_END};
use iced_x86::{
    Code, Decoder, DecoderOptions, EncodingKind, Instruction, Mnemonic, OpKind, Register,
};

use super::ports::Ports;
use super::{MAX_INSTRUCTION, PLAIN_MOVES, Scene};

/// Single-step: the processor raises an exception behind each instruction.
const RFLAGS_TRAP: u64 = 1 << 8;
/// How far before an instruction it is looked for the one before it: far enough that decoding,
/// begun at any byte, has come to the guest's own instructions.
const LOOK_BEHIND: u64 = 64;

/// Explains an exception at the instruction that `scene` is at, or that it has just executed: a KVM
/// that emulates a software interrupt stops behind it. Returns the address of the instruction too.
pub(super) fn explain(scene: &Scene) -> (u64, String) {
    let rip = scene.regs.rip;
    let here = decode(scene, rip);
    let certain = here.and_then(|instruction| certain_cause(scene, &instruction));
    let trap = before(scene, rip).filter(is_software_interrupt);
    match (certain, trap) {
        (Some(cause), None) => (rip, cause),
        (None, Some(trap)) => (trap.ip(), software_interrupt(&trap)),
        (Some(cause), Some(trap)) => {
            let trap = software_interrupt(&trap);
            (rip, format!("{cause}; or, right before it, {trap}"))
        }
        (None, None) => (rip, uncertain_cause(scene, here)),
    }
}

/// The name and the length in bytes of the instruction at `address`; `None` if there is none.
pub(super) fn name_and_len(scene: &Scene, address: u64) -> Option<(String, usize)> {
    let instruction = decode(scene, address).filter(|instruction| !instruction.is_invalid())?;
    Some((name(&instruction), instruction.len()))
}

/// The system call that was made last, if the guest is at the entry point of system calls. There
/// is none; but a KVM that emulates the instruction goes there all the same, to address 0.
pub(super) fn system_call(scene: &Scene) -> Option<(u64, String)> {
    let is_system_call = |instruction: &Instruction| {
        instruction.mnemonic() == Mnemonic::Syscall && scene.regs.rip == 0
    };
    // The instruction leaves the address of the next one in rcx.
    let instruction = before(scene, scene.regs.rcx).filter(is_system_call)?;
    certain_cause(scene, &instruction).map(|cause| (instruction.ip(), cause))
}

/// The instruction at `address`; `None` where no memory is, or not enough of it.
fn decode(scene: &Scene, address: u64) -> Option<Instruction> {
    let (code, len) = scene.bytes::<MAX_INSTRUCTION>(address);
    let mut decoder = Decoder::with_ip(64, code.get(..len)?, address, DecoderOptions::NONE);
    decoder.can_decode().then(|| decoder.decode())
}

/// The instruction that ends where the one at `rip` begins, if the bytes say so. Instructions have
/// no mark at their beginning; but wherever decoding begins, it soon meets the true ones.
fn before(scene: &Scene, rip: u64) -> Option<Instruction> {
    let first = rip.saturating_sub(LOOK_BEHIND).max(IMAGE);
    (first..rip).find_map(|start| {
        let mut at = start;
        loop {
            let instruction = decode(scene, at)?;
            if instruction.is_invalid() {
                return None;
            }
            match instruction.next_ip() {
                next if next == rip => return Some(instruction),
                next if next > rip => return None,
                next => at = next,
            }
        }
    })
}

/// The cause, where the instruction leaves no doubt that it is one.
fn certain_cause(scene: &Scene, instruction: &Instruction) -> Option<String> {
    if instruction.is_invalid() {
        return Some(invalid(scene, instruction));
    }
    let name = name(instruction);
    if let Some(ports) = Ports::of(scene, instruction) {
        if let Some(port) = ports.forbidden(scene) {
            return Some(format!("access to the forbidden port {port:#x} ({name})"));
        }
        return not_canonical(scene, instruction);
    }
    match instruction.mnemonic() {
        Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2 => {
            return Some(format!("an invalid instruction ({name})"));
        }
        Mnemonic::Syscall | Mnemonic::Sysenter => {
            return Some(format!(
                "a system call, which this machine does not have ({name})"
            ));
        }
        _ if is_software_interrupt(instruction) => return Some(software_interrupt(instruction)),
        _ if instruction.is_privileged() => {
            return Some(format!("a privileged instruction ({name})"));
        }
        _ => {}
    }
    not_canonical(scene, instruction)
        .or_else(|| division(scene, instruction))
        .or_else(|| misaligned(scene, instruction))
        .or_else(|| branch(scene, instruction))
}

/// What to say where all that is known is that the instruction could not be executed.
fn uncertain_cause(scene: &Scene, instruction: Option<Instruction>) -> String {
    let Some(instruction) = instruction else {
        return "a jump to where there is no code".to_owned();
    };
    let name = name(&instruction);
    if scene.regs.rflags & RFLAGS_TRAP != 0 {
        return format!("the trap flag is set, and there is no handler for it ({name})");
    }
    // KVM emulates it, and where it cannot, tells the guest that there is no such instruction.
    if address(scene, &instruction).is_some_and(|address| (MMIO..MMIO_END).contains(&address)) {
        return format!(
            "access to device registers by an instruction that KVM cannot emulate ({name}); use \
             {PLAIN_MOVES}"
        );
    }
    match instruction.mnemonic() {
        Mnemonic::Iret
        | Mnemonic::Iretd
        | Mnemonic::Iretq
        | Mnemonic::Retf
        | Mnemonic::Lss
        | Mnemonic::Lfs
        | Mnemonic::Lgs => format!("a change of segment or of privilege level ({name})"),
        Mnemonic::Mov | Mnemonic::Pop if loads_segment(&instruction) => {
            format!("a change of segment or of privilege level ({name})")
        }
        Mnemonic::Jmp | Mnemonic::Call
            if instruction.is_jmp_far_indirect() || instruction.is_call_far_indirect() =>
        {
            format!("a change of segment or of privilege level ({name} far)")
        }
        _ => format!("an instruction that the processor lacks or forbids here ({name})"),
    }
}

fn loads_segment(instruction: &Instruction) -> bool {
    instruction.op0_kind() == OpKind::Register && instruction.op0_register().is_segment_register()
}

fn name(instruction: &Instruction) -> String {
    match instruction.code() {
        Code::Int_imm8 => format!("int {:#x}", instruction.immediate8()),
        _ => format!("{:?}", instruction.mnemonic()).to_lowercase(),
    }
}

fn invalid(scene: &Scene, instruction: &Instruction) -> String {
    let (code, _) = scene.bytes::<1>(instruction.ip());
    // The first byte of an encoding with VEX or EVEX; in 64-bit mode they stand for nothing else.
    if matches!(code, [0xc4 | 0xc5 | 0x62]) {
        return "an AVX instruction, which this machine does not have (compile for plain x86-64)"
            .to_owned();
    }
    "an invalid instruction".to_owned()
}

fn is_software_interrupt(instruction: &Instruction) -> bool {
    matches!(
        instruction.mnemonic(),
        Mnemonic::Int | Mnemonic::Int1 | Mnemonic::Int3
    )
}

fn software_interrupt(instruction: &Instruction) -> String {
    let name = name(instruction);
    format!("a software interrupt, for which there is no handler ({name})")
}

/// An operand in memory whose address is none: bits 47 to 63 are not all alike.
fn not_canonical(scene: &Scene, instruction: &Instruction) -> Option<String> {
    if matches!(instruction.mnemonic(), Mnemonic::Lea | Mnemonic::Nop) {
        return None;
    }
    let address = address(scene, instruction)?;
    (!is_canonical(address)).then(|| not_an_address("access to", address, instruction))
}

fn not_an_address(what: &str, address: u64, instruction: &Instruction) -> String {
    let name = name(instruction);
    format!("{what} {address:#x}, which is no address ({name}; bits 47 to 63 must be alike)")
}

fn is_canonical(address: u64) -> bool {
    matches!(address >> 47, 0 | 0x1_ffff)
}

/// The address of the instruction's operand in memory. A string instruction has up to two; the
/// first that is not canonical decides, or else the first.
fn address(scene: &Scene, instruction: &Instruction) -> Option<u64> {
    let operands = 0..instruction.op_count();
    let mut addresses = operands.filter_map(|operand| {
        instruction.virtual_address(operand, 0, |register, _, _| register_value(scene, register))
    });
    let pushes = matches!(
        instruction.mnemonic(),
        Mnemonic::Push | Mnemonic::Pop | Mnemonic::Pushfq | Mnemonic::Popfq | Mnemonic::Leave
    );
    let first = addresses
        .next()
        .or_else(|| pushes.then_some(scene.regs.rsp))?;
    Some(
        std::iter::once(first)
            .chain(addresses)
            .find(|address| !is_canonical(*address))
            .unwrap_or(first),
    )
}

fn register_value(scene: &Scene, register: Register) -> Option<u64> {
    let regs = &scene.regs;
    let value = match register.full_register() {
        Register::RAX => regs.rax,
        Register::RCX => regs.rcx,
        Register::RDX => regs.rdx,
        Register::RBX => regs.rbx,
        Register::RSP => regs.rsp,
        Register::RBP => regs.rbp,
        Register::RSI => regs.rsi,
        Register::RDI => regs.rdi,
        Register::R8 => regs.r8,
        Register::R9 => regs.r9,
        Register::R10 => regs.r10,
        Register::R11 => regs.r11,
        Register::R12 => regs.r12,
        Register::R13 => regs.r13,
        Register::R14 => regs.r14,
        Register::R15 => regs.r15,
        // All segments begin at 0.
        _ if register.is_segment_register() => return Some(0),
        _ => return None,
    };
    let high_byte = matches!(
        register,
        Register::AH | Register::BH | Register::CH | Register::DH
    );
    let value = if high_byte { value >> 8 } else { value };
    Some(low_bytes(value, register.size()))
}

fn low_bytes(value: u64, size: usize) -> u64 {
    match size {
        1 => value & 0xff,
        2 => value & 0xffff,
        4 => value & 0xffff_ffff,
        _ => value,
    }
}

fn division(scene: &Scene, instruction: &Instruction) -> Option<String> {
    if !matches!(instruction.mnemonic(), Mnemonic::Div | Mnemonic::Idiv) {
        return None;
    }
    let divisor = if instruction.op0_kind() == OpKind::Register {
        register_value(scene, instruction.op0_register())
    } else {
        let size = instruction.memory_size().size();
        let number = scene.number(address(scene, instruction)?);
        number.map(|number| low_bytes(number, size))
    };
    let what = match divisor {
        Some(0) => "a division by zero",
        Some(_) => "a division with a result that is too large",
        None => "a division by zero, or with a result that is too large",
    };
    Some(format!("{what} ({})", name(instruction)))
}

/// The SSE instructions that take 16 bytes of memory want them aligned, but for a few.
fn misaligned(scene: &Scene, instruction: &Instruction) -> Option<String> {
    let may_be_anywhere = matches!(
        instruction.mnemonic(),
        Mnemonic::Movups | Mnemonic::Movupd | Mnemonic::Movdqu | Mnemonic::Lddqu
    );
    let is_sse = instruction.encoding() == EncodingKind::Legacy
        && (0..instruction.op_count()).any(|operand| instruction.op_register(operand).is_xmm());
    if !is_sse || may_be_anywhere || instruction.memory_size().size() != 16 {
        return None;
    }
    let address = address(scene, instruction)?;
    (address % 16 != 0).then(|| {
        let name = name(instruction);
        format!("access to {address:#x}, which is not aligned to 16 bytes ({name})")
    })
}

/// A jump, call or return to an address that is none.
fn branch(scene: &Scene, instruction: &Instruction) -> Option<String> {
    let target = match instruction.mnemonic() {
        Mnemonic::Ret => scene.number(scene.regs.rsp)?,
        Mnemonic::Jmp | Mnemonic::Call => match instruction.op0_kind() {
            OpKind::Register => register_value(scene, instruction.op0_register())?,
            OpKind::Memory => scene.number(address(scene, instruction)?)?,
            _ => return None,
        },
        _ => return None,
    };
    (!is_canonical(target)).then(|| not_an_address("a jump to", target, instruction))
}

#[cfg(test)]
mod tests {
    use guest_abi::layout::DMA_POOL;

    use super::*;
    use crate::machine::testing::Scenery;

    /// What is said of `code` at the start of the image, with these registers.
    fn told(code: &[u8], rax: u64, rdx: u64, rsi: u64) -> String {
        let scenery = Scenery::with(code);
        let mut scene = scenery.scene();
        scene.regs.rax = rax;
        scene.regs.rdx = rdx;
        scene.regs.rsi = rsi;
        let (address, cause) = explain(&scene);
        assert_eq!(address, IMAGE);
        cause
    }

    #[test]
    fn instructions_that_ring_3_may_not_use_are_named() {
        for (code, what) in [
            (&[0x0f, 0x0b][..], "an invalid instruction (ud2)"),
            (&[0x06], "an invalid instruction"),
            (
                &[0x48, 0x0f, 0x05],
                "a system call, which this machine does not have (syscall)",
            ),
            (
                &[0x0f, 0x34],
                "a system call, which this machine does not have (sysenter)",
            ),
            (&[0xf4], "a privileged instruction (hlt)"),
            (&[0xfa], "a privileged instruction (cli)"),
            (&[0x0f, 0x22, 0xd8], "a privileged instruction (mov)"),
            (&[0x0f, 0x01, 0x14, 0x24], "a privileged instruction (lgdt)"),
            (
                &[0xc5, 0xf8, 0x77],
                "an AVX instruction, which this machine does not have (compile for plain x86-64)",
            ),
            (
                &[0x48, 0xcf],
                "a change of segment or of privilege level (iretq)",
            ),
            (
                &[0x8e, 0xd8],
                "a change of segment or of privilege level (mov)",
            ),
            (
                &[0x0f, 0x58, 0xc1],
                "an instruction that the processor lacks or forbids here (addps)",
            ),
        ] {
            assert_eq!(told(code, 0, 0, 0), what, "{code:x?}");
        }
    }

    #[test]
    fn a_forbidden_port_is_told_wherever_the_instruction_has_it_from() {
        for (code, rdx, port) in [
            (&[0xe6, 0x80][..], 0x3f8, "0x80"),
            (&[0xe4, 0x20], 0x3f8, "0x20"),
            (&[0xee], 0x1_0060, "0x60"),
            (&[0xf3, 0x6e], 0xcf8, "0xcf8"),
            (&[0x66, 0xed], 0x3ff, "0x400"),
            (&[0xef], 0x2f6, "0x2f6"),
            (&[0xef], 0xffff, "0xffff"),
        ] {
            let told = told(code, 0, rdx, 0);
            let what = format!("access to the forbidden port {port} (");
            assert!(told.starts_with(&what), "{code:x?}: {told}");
        }
    }

    #[test]
    fn a_string_for_an_open_port_from_an_address_that_is_none_is_about_the_address() {
        let told = told(&[0xf3, 0x6e], 0, 0x2f8, 1 << 63);
        assert!(
            told.starts_with("access to 0x8000000000000000, which is no address (outsb;"),
            "{told}"
        );
    }

    #[test]
    fn addresses_that_are_none_are_told_with_what_was_made_of_the_registers() {
        for (code, what) in [
            // mov al, [rax + rdx * 8 + 0x10]
            (
                &[0x8a, 0x44, 0xd0, 0x10][..],
                "access to 0x7fffffffffff0028,",
            ),
            // jmp rax; call [0x200000]
            (&[0xff, 0xe0], "a jump to 0x7fffffffffff0010,"),
        ] {
            let told = told(code, 0x7fff_ffff_ffff_0010, 1, 0);
            assert!(told.starts_with(what), "{code:x?}: {told}");
        }
        let scenery = Scenery::with(&[0xc3]);
        scenery.write(DMA_POOL, &[0xff; 7]);
        let mut scene = scenery.scene();
        scene.regs.rsp = DMA_POOL;
        let (_, told) = explain(&scene);
        assert!(told.starts_with("a jump to 0xffffffffffffff,"), "{told}");
    }

    #[test]
    fn a_division_is_told_by_its_divisor() {
        // div ecx, which is 0; div eax; div dword [rsi]
        assert_eq!(told(&[0xf7, 0xf1], 1, 0, 0), "a division by zero (div)");
        assert_eq!(
            told(&[0xf7, 0xf0], 1, 7, 0),
            "a division with a result that is too large (div)"
        );
        assert_eq!(
            told(&[0xf7, 0x36], 1, 7, DMA_POOL),
            "a division by zero (div)"
        );
    }

    #[test]
    fn memory_that_is_not_aligned_is_told_for_the_instructions_that_need_it() {
        // movaps [rsi], xmm0
        assert_eq!(
            told(&[0x0f, 0x29, 0x06], 0, 0, DMA_POOL + 8),
            "access to 0x200008, which is not aligned to 16 bytes (movaps)"
        );
        // movups has no such need.
        assert!(told(&[0x0f, 0x11, 0x06], 0, 0, DMA_POOL + 8).contains("(movups)"));
    }

    #[test]
    fn registers_of_devices_want_plain_moves() {
        // fld dword [rsi]
        let told = told(&[0xd9, 0x06], 0, 0, MMIO + 8);
        assert!(told.contains("device registers"), "{told}");
        assert!(told.contains("(fld); use plain moves"), "{told}");
    }

    /// What is said of `code` when rip is `behind` bytes behind its start, and where.
    fn told_behind(code: &[u8], behind: u64) -> (u64, String) {
        let scenery = Scenery::with(code);
        let mut scene = scenery.scene();
        scene.regs.rip = IMAGE + behind;
        explain(&scene)
    }

    #[test]
    fn a_software_interrupt_is_found_where_rip_is_and_right_before_it() {
        for (code, len, name) in [
            (&[0xcc, 0x90][..], 1, "int3"),
            (&[0xf1, 0x90], 1, "int1"),
            (&[0xcd, 0x80, 0x90], 2, "int 0x80"),
        ] {
            let what = format!("a software interrupt, for which there is no handler ({name})");
            assert_eq!(told_behind(code, 0), (IMAGE, what.clone()));
            assert_eq!(told_behind(code, len), (IMAGE, what));
        }
    }

    #[test]
    fn what_only_looks_like_a_software_interrupt_is_none() {
        // mov al, 0xcc; hlt
        let (address, told) = told_behind(&[0xb0, 0xcc, 0xf4], 2);
        assert_eq!(address, IMAGE + 2);
        assert_eq!(told, "a privileged instruction (hlt)");
        // Either may have been the one: int3; hlt
        let (address, told) = told_behind(&[0xcc, 0xf4], 1);
        assert_eq!(address, IMAGE + 1);
        assert!(told.starts_with("a privileged instruction (hlt); or, right before it, a soft"));
    }

    #[test]
    fn a_system_call_that_went_to_address_0_is_found_by_what_it_left_in_rcx() {
        let scenery = Scenery::with(&[0x90, 0x0f, 0x05, 0x90]);
        let mut scene = scenery.scene();
        scene.regs.rip = 0;
        scene.regs.rcx = IMAGE + 3;
        let (address, told) = system_call(&scene).unwrap_or_default();
        assert_eq!(address, IMAGE + 1);
        assert!(told.ends_with("(syscall)"));
        scene.regs.rcx = IMAGE + 4;
        assert_eq!(system_call(&scene), None);
    }

    #[test]
    fn a_single_step_is_told_by_the_flag() {
        let scenery = Scenery::with(&[0x90, 0x90]);
        let mut scene = scenery.scene();
        scene.regs.rflags |= RFLAGS_TRAP;
        assert!(explain(&scene).1.starts_with("the trap flag is set"));
    }
}
