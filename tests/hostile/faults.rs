//! Guests that do what ring 3 may not do: the run ends with where and what it was, as far as the
//! host's KVM tells. One that resets the vCPU at a triple fault, as kvm_amd does, no longer knows.

use guest_abi::layout::{
    DMA_POOL, GDT, IMAGE, INPUT_MMIO, INPUT_QUEUE, MMIO_PAGE_TABLE, OUTPUT_QUEUE, PAGE_SIZE,
    PAGE_TABLES, QUEUE_SIZE, RAM_SIZE, STACK, STACK_END, TSS,
};
use guest_abi::ports::COM2;

use crate::common::elf::{Elf, R, RW};
use crate::common::program::Program;
use crate::common::test;
use crate::{Attack, GUEST_FAILED};

/// Runs `image` and fails unless it faults, with `what` in the explanation.
#[track_caller]
fn faults(image: Vec<u8>, what: &str) {
    let finished = Attack::new(image).fails(GUEST_FAILED, "the guest faulted at ");
    if let Some(finished) = finished {
        finished.assert_fault_told(what);
    }
}

#[track_caller]
fn code_faults(code: &[u8], what: &str) {
    faults(Program::new().raw(code).exit(0).build(), what);
}

fn page_fault(address: u64) -> String {
    format!("(page fault at {address:#x})")
}

#[test]
fn an_invalid_instruction_faults_and_says_where() {
    code_faults(
        &[0x90, 0x90, 0x0f, 0x0b],
        "at 0x10002: an invalid instruction (ud2)",
    );
}

#[test]
fn a_floating_point_error_that_the_guest_wants_to_know_of_is_told_as_one() {
    // MXCSR = 0, by way of the stack; 0 divided by 0.
    let sse = [
        &[0xc7, 0x44, 0x24, 0xf8, 0, 0, 0, 0][..], // mov dword ptr [rsp - 8], 0
        &[0x0f, 0xae, 0x54, 0x24, 0xf8],           // ldmxcsr [rsp - 8]
        &[0x0f, 0x57, 0xc0],                       // xorps xmm0, xmm0
        &[0xf3, 0x0f, 0x5e, 0xc0],                 // divss xmm0, xmm0
    ];
    code_faults(
        &sse.concat(),
        "at 0x10010: a floating-point error that the guest has not masked (divss)",
    );
    let x87 = [
        &[0xdb, 0xe3][..],                     // fninit
        &[0x66, 0xc7, 0x44, 0x24, 0xf8, 0, 0], // mov word ptr [rsp - 8], 0
        &[0xd9, 0x6c, 0x24, 0xf8],             // fldcw [rsp - 8]
        &[0xd9, 0xe8, 0xd9, 0xee, 0xde, 0xf9], // fld1; fldz; fdivp
        &[0x9b],                               // wait
    ];
    code_faults(
        &x87.concat(),
        "a floating-point error that the guest has not masked (wait)",
    );
}

#[test]
fn privileged_instructions_fault() {
    let instructions: [&[u8]; 9] = [
        &[0xf4],                   // hlt
        &[0xfa],                   // cli
        &[0xfb],                   // sti
        &[0x0f, 0x30],             // wrmsr
        &[0x0f, 0x32],             // rdmsr
        &[0x0f, 0x22, 0xd8],       // mov cr3, rax
        &[0x0f, 0x20, 0xc0],       // mov rax, cr0
        &[0x0f, 0x09],             // wbinvd
        &[0x0f, 0x01, 0x14, 0x24], // lgdt [rsp]
    ];
    for instruction in instructions {
        code_faults(instruction, "a privileged instruction");
    }
}

#[test]
fn an_instruction_that_writes_to_itself_is_told_as_a_write() {
    // mov byte ptr [rip - 7], 1
    faults(
        Elf::of(&[0xc6, 0x05, 0xf9, 0xff, 0xff, 0xff, 1]).build(),
        "at 0x10000: a write to memory that is read-only (page fault at 0x10000)",
    );
}

#[test]
fn there_is_no_way_into_ring_0() {
    // A KVM that emulates it in software takes a system call to its entry point, which is not set
    // up: to address 0, where there is no code.
    code_faults(
        &[0x0f, 0x05],
        "at 0x10000: a system call, which this machine does not have (syscall)",
    );
    code_faults(
        &[0x0f, 0x34],
        "at 0x10000: a system call, which this machine does not have (sysenter)",
    );
    // iretq to a code segment of ring 0: ss, rsp, flags, cs and rip from the stack.
    code_faults(
        &[
            0x6a, 0x10, 0x54, 0x9c, 0x6a, 0x08, 0x68, 0, 0, 1, 0, 0x48, 0xcf,
        ],
        "at 0x1000",
    );
}

#[test]
fn software_interrupts_fault_and_are_found_before_rip_or_behind_it() {
    for (code, name) in [
        (&[0xcc, 0x90][..], "int3"),
        (&[0xf1, 0x90], "int1"),
        (&[0xcd, 0x80, 0x90], "int 0x80"),
        (&[0xcd, 0x03, 0x90], "int 0x3"),
    ] {
        let what =
            format!("at 0x10000: a software interrupt, for which there is no handler ({name})");
        code_faults(code, &what);
    }
    // What follows could be the reason as well, where rip is behind the interrupt: both are said.
    code_faults(
        &[0xcc, 0xf4],
        "software interrupt, for which there is no handler (int3)",
    );
    // pushf; or dword [rsp], 0x100; popf; nop; nop
    code_faults(
        &[0x9c, 0x81, 0x0c, 0x24, 0x00, 0x01, 0, 0, 0x9d, 0x90, 0x90],
        "the trap flag is set",
    );
}

#[test]
fn divisions_fault_and_say_why() {
    // xor ecx, ecx; div ecx
    code_faults(
        &[0x31, 0xc9, 0xf7, 0xf1],
        "at 0x10002: a division by zero (div)",
    );
    // mov ecx, 1; mov edx, 1; div ecx
    code_faults(
        &[0xb9, 1, 0, 0, 0, 0xba, 1, 0, 0, 0, 0xf7, 0xf1],
        "a division with a result that is too large (div)",
    );
}

#[test]
fn memory_that_must_be_aligned_is_told() {
    // mov edi, 0x200008; movaps [rdi], xmm0
    code_faults(
        &[0xbf, 0x08, 0x00, 0x20, 0x00, 0x0f, 0x29, 0x07],
        "access to 0x200008, which is not aligned to 16 bytes (movaps)",
    );
}

#[test]
fn ports_beside_the_allowed_ones_fault() {
    for port in [
        0, 0x20, 0x60, 0x64, 0x80, 0xf3, 0xf6, 0x2f7, 0x300, 0x3f7, 0x400, 0xcf8, 0xffff,
    ] {
        let what = format!("access to the forbidden port {port:#x} (");
        faults(Program::new().out8(port, 0).exit(0).build(), &what);
        faults(Program::new().in8(port).exit(0).build(), &what);
    }
    // A word at the last allowed port reaches the next one.
    code_faults(
        &[0x66, 0xba, 0xff, 0x03, 0x66, 0xed],
        "access to the forbidden port 0x400 (in)",
    );
}

#[test]
fn a_string_from_memory_that_may_not_be_read_is_about_the_memory_and_not_about_the_port() {
    for (address, what) in [
        (0, "access through a null pointer (page fault at 0x0)"),
        (
            GDT,
            "access to the processor's tables (page fault at 0x1000)",
        ),
        (
            RAM_SIZE,
            "access to memory that is not there (page fault at 0x800000)",
        ),
    ] {
        let program = Program::new().send_memory(COM2, address, 4).exit(0);
        faults(program.build(), what);
    }
    // To a port that is forbidden too, the port comes first.
    faults(
        Program::new().send_memory(0x80, 0, 4).exit(0).build(),
        "access to the forbidden port 0x80 (outsb)",
    );
}

#[test]
fn null_pointers_are_told_as_page_faults_at_0() {
    let what = "access through a null pointer (page fault at 0x0)";
    faults(Program::new().load64(0).exit(0).build(), what);
    faults(Program::new().store64(0, 7).exit(0).build(), what);
    // ret
    code_faults(&[0xc3], "a return from the entry point, which has nowhere");
}

#[test]
fn an_access_to_registers_that_kvm_cannot_emulate_says_where_and_what() {
    // mov edi, 0x10000000; fld dword [rdi]
    let program = Program::new()
        .raw(&[0xbf, 0, 0, 0, 0x10, 0xd9, 0x07])
        .exit(0);
    // KVM ends the run by itself, or tells a guest in ring 3 that there is no such instruction.
    let finished = Attack::new(program.build()).fails(GUEST_FAILED, "the guest");
    if let Some(finished) = finished {
        for part in [
            "at 0x10005",
            "(fld",
            "use plain moves of 1, 2, 4 or 8 bytes",
        ] {
            finished.assert_fault_told(part);
        }
    }
}

#[test]
fn the_io_privilege_level_cannot_be_raised() {
    // pushf; or dword [rsp], 0x3000; popf; out 0x80, al
    code_faults(
        &[0x9c, 0x81, 0x0c, 0x24, 0x00, 0x30, 0, 0, 0x9d, 0xe6, 0x80],
        "access to the forbidden port 0x80 (out)",
    );
}

#[test]
fn the_processors_tables_can_be_neither_read_nor_written() {
    for address in [GDT, PAGE_TABLES, MMIO_PAGE_TABLE, TSS, IMAGE - 8] {
        let what = page_fault(address);
        faults(Program::new().load64(address).exit(0).build(), &what);
        faults(Program::new().store64(address, 7).exit(0).build(), &what);
    }
}

#[test]
fn what_is_not_mapped_can_be_neither_read_nor_written_nor_run() {
    let holes = [
        8,
        OUTPUT_QUEUE + QUEUE_SIZE,
        STACK,
        STACK_END,
        RAM_SIZE,
        INPUT_MMIO - PAGE_SIZE,
        INPUT_MMIO + 2 * PAGE_SIZE,
        0xfee0_0000,
        1 << 40,
    ];
    for address in holes {
        let what = page_fault(address);
        faults(Program::new().load64(address).exit(0).build(), &what);
        faults(Program::new().store64(address, 7).exit(0).build(), &what);
        let what = match address {
            ..GDT => "a jump through a null pointer",
            _ => "a jump to where there is no code",
        };
        let what = format!("at {address:#x}: {what}");
        faults(Program::new().jump(address).build(), &what);
    }
    // Not a canonical address: no page fault, but a fault.
    faults(
        Program::new().load64(1 << 63).exit(0).build(),
        "access to 0x8000000000000000, which is no address",
    );
    faults(
        Program::new().jump(1 << 63).build(),
        "a jump to 0x8000000000000000, which is no address",
    );
}

#[test]
fn a_jump_to_null_faults() {
    faults(
        Program::new().jump(0).build(),
        "at 0x0: a jump through a null pointer (page fault at 0x0)",
    );
}

#[test]
fn data_cannot_be_run() {
    let harmless = Program::new().exit(0).build();
    for address in [INPUT_QUEUE, DMA_POOL, STACK + PAGE_SIZE, INPUT_MMIO] {
        let what = format!("at {address:#x}: a jump to data, which cannot be run");
        faults(Program::new().jump(address).build(), &what);
    }
    for permissions in [R, RW] {
        let data = IMAGE + PAGE_SIZE;
        let elf = Elf::of(&Program::new().jump(data).build()).with(data, permissions, &harmless);
        let what = format!("at {data:#x}: a jump to data, which cannot be run");
        faults(elf.build(), &what);
    }
}

#[test]
fn code_and_constants_of_an_elf_cannot_be_written() {
    faults(
        Elf::of(&Program::new().store8(IMAGE, 0x90).exit(0).build()).build(),
        &format!("a write to memory that is read-only {}", page_fault(IMAGE)),
    );
    let constants = IMAGE + PAGE_SIZE;
    let elf = Elf::of(&Program::new().store8(constants, 1).exit(0).build());
    faults(
        elf.with(constants, R, &[0; 16]).build(),
        &page_fault(constants),
    );
}

#[test]
fn pages_of_the_image_that_no_segment_has_are_not_mapped() {
    let beyond = IMAGE + PAGE_SIZE;
    let elf = Elf::of(&Program::new().load64(beyond).exit(0).build());
    faults(elf.build(), &page_fault(beyond));
}

#[test]
fn a_stack_that_overflows_ends_in_the_guard_page() {
    // push rax; jmp back
    let last = STACK + PAGE_SIZE - 8;
    let what = format!("the stack has overflowed {}", page_fault(last));
    code_faults(&[0x50, 0xeb, 0xfd], &what);
}

#[test]
fn debug_lines_before_a_fault_are_shown_before_the_reason() {
    let program = Program::new()
        .send(COM2, b"about to fall\n")
        .raw(&[0x0f, 0x0b]);
    let finished = Attack::new(program.build()).fails(GUEST_FAILED, "the guest faulted at ");
    if let Some(finished) = finished {
        assert!(
            finished.stderr.starts_with("[DEBUG] about to fall\n"),
            "{finished:?}"
        );
    }
}
