//! Explains an exception that is no page fault by the instruction that caused it: decodes it, and
//! looks whether its ports are open, its addresses canonical and its divisor zero (Intel SDM
//! volume 3, "Exception and Interrupt Reference", and volume 2 for each instruction).

use guest_abi::layout::{IMAGE, MMIO, MMIO_END, PAGE_SIZE};
use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

use super::ports::Ports;
use super::{MAX_INSTRUCTION, PLAIN_MOVES, Scene, page};

/// Single-step: the processor raises an exception behind each instruction.
const RFLAGS_TRAP: u64 = 1 << 8;
/// Alignment check: with CR0.AM the processor raises an exception at data that is not aligned.
const RFLAGS_ALIGNMENT_CHECK: u64 = 1 << 18;
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

/// The hypercall that the guest is at, if a page fault at `address` was one of it. KVM writes the
/// processor's own hypercall over that of another vendor, which fails as a write to code does.
pub(super) fn hypercall(scene: &Scene, address: u64) -> Option<(u64, String)> {
    let rip = scene.regs.rip;
    let is_written = address == rip && page::can_run(scene, address);
    let instruction = decode(scene, rip).filter(|here| is_written && is_hypercall(here))?;
    certain_cause(scene, &instruction).map(|cause| (rip, cause))
}

/// The instruction at `address`; `None` where no memory is, or not enough of it.
fn decode(scene: &Scene, address: u64) -> Option<Instruction> {
    let (code, len) = scene.bytes::<MAX_INSTRUCTION>(address);
    let mut decoder = Decoder::with_ip(64, code.get(..len)?, address, DecoderOptions::NONE);
    decoder.can_decode().then(|| decoder.decode())
}

/// The instruction that ends where the one at `rip` begins, if the bytes say so. Instructions have
/// no mark at their beginning; but wherever decoding begins, it soon meets the true ones. It begins in
/// the code alone: what lies in a page before it that cannot be run is no instruction.
fn before(scene: &Scene, rip: u64) -> Option<Instruction> {
    let mut first = rip.saturating_sub(LOOK_BEHIND).max(IMAGE);
    let page = rip.saturating_sub(1) / PAGE_SIZE * PAGE_SIZE;
    if first < page && !page::can_run(scene, first) {
        first = page;
    }
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
        _ if is_hypercall(instruction) => {
            return Some(format!(
                "a hypercall, which this machine does not have ({name})"
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
    if scene.float.explains(&instruction) {
        return format!("a floating-point error that the guest has not masked ({name})");
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
        _ => {
            let what = "an instruction that the processor lacks or forbids here";
            match unaligned(scene, &instruction) {
                Some(address) => format!(
                    "{what}, or access to {address:#x}, which is not aligned, with RFLAGS.AC set ({name})"
                ),
                None => format!("{what} ({name})"),
            }
        }
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

fn is_hypercall(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Vmcall | Mnemonic::Vmmcall)
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
    // The decoder's address of what is no memory is 0.
    let in_memory = |operand: &u32| is_memory(instruction.op_kind(*operand));
    let operands = (0..instruction.op_count()).filter(in_memory);
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

fn is_memory(kind: OpKind) -> bool {
    matches!(
        kind,
        OpKind::Memory
            | OpKind::MemorySegSI
            | OpKind::MemorySegESI
            | OpKind::MemorySegRSI
            | OpKind::MemorySegDI
            | OpKind::MemorySegEDI
            | OpKind::MemorySegRDI
            | OpKind::MemoryESDI
            | OpKind::MemoryESEDI
            | OpKind::MemoryESRDI
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

/// The instructions that take 16 bytes of memory want them aligned, but for a few: those of SSE, and
/// CMPXCHG16B. Those of AVX, which do not, the machine does not have.
fn misaligned(scene: &Scene, instruction: &Instruction) -> Option<String> {
    let may_be_anywhere = matches!(
        instruction.mnemonic(),
        Mnemonic::Movups | Mnemonic::Movupd | Mnemonic::Movdqu | Mnemonic::Lddqu
    );
    if may_be_anywhere || instruction.memory_size().size() != 16 {
        return None;
    }
    let address = address(scene, instruction)?;
    (address % 16 != 0).then(|| {
        let name = name(instruction);
        format!("access to {address:#x}, which is not aligned to 16 bytes ({name})")
    })
}

/// The address of data that is not aligned to its own size, if the guest wants that to be checked. This
/// machine does not (CR0.AM is 0), but a software KVM has been seen to.
fn unaligned(scene: &Scene, instruction: &Instruction) -> Option<u64> {
    let size = instruction.memory_size().size() as u64;
    let checked = scene.regs.rflags & RFLAGS_ALIGNMENT_CHECK != 0 && size.is_power_of_two();
    let address = address(scene, instruction).filter(|_| checked)?;
    (address % size != 0).then_some(address)
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
mod tests;
