//! Guests that do what ring 3 may not do: the run ends with where and what it was, as far as the
//! host's KVM tells. One that resets the vCPU at a triple fault, as kvm_amd does, no longer knows.

use guest_abi::layout::{
    DMA_POOL, GDT, IMAGE, INPUT_MMIO, INPUT_QUEUE, MMIO_PAGE_TABLE, OUTPUT_QUEUE, PAGE_SIZE,
    PAGE_TABLES, QUEUE_SIZE, RAM_SIZE, STACK, STACK_END, TSS,
};

use crate::common::elf::{Elf, R, RW};
use crate::common::program::Program;
use crate::{Attack, GUEST_FAILED};

const KVM_DOES_NOT_TELL: &str = "that this host's KVM does not tell";

/// Runs `image` and fails unless it faults, with `what` in the explanation.
#[track_caller]
fn faults(image: Vec<u8>, what: &str) {
    let finished = Attack::new(image).fails(GUEST_FAILED, "the guest faulted at ");
    if let Some(finished) = finished {
        let told = finished.stderr.contains(what) || finished.stderr.contains(KVM_DOES_NOT_TELL);
        assert!(told, "expected {what:?} in {:?}", finished.stderr);
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
fn there_is_no_way_into_ring_0() {
    // A KVM that emulates them in software may take these to their entry points, which are not
    // set up: to address 0, where there is no code.
    code_faults(&[0x0f, 0x05], ": a "); // syscall
    code_faults(&[0x0f, 0x34], ": a "); // sysenter
    code_faults(&[0xcd, 0x80], "a software interrupt"); // int 0x80
    code_faults(&[0xcc], "the guest faulted at 0x1000"); // int3: before it or behind it
    // iretq to a code segment of ring 0: ss, rsp, flags, cs and rip from the stack.
    code_faults(
        &[
            0x6a, 0x10, 0x54, 0x9c, 0x6a, 0x08, 0x68, 0, 0, 1, 0, 0x48, 0xcf,
        ],
        "at 0x1000",
    );
}

#[test]
fn a_division_by_zero_faults() {
    // xor ecx, ecx; div ecx
    code_faults(&[0x31, 0xc9, 0xf7, 0xf1], "a division by zero");
}

#[test]
fn ports_beside_the_allowed_ones_fault() {
    for port in [
        0, 0x20, 0x60, 0x64, 0x80, 0xf3, 0xf6, 0x2f7, 0x300, 0x3f7, 0x400, 0xcf8, 0xffff,
    ] {
        faults(
            Program::new().out8(port, 0).exit(0).build(),
            "a forbidden port",
        );
        faults(Program::new().in8(port).exit(0).build(), "a forbidden port");
    }
    // A word at the last allowed port reaches the next one.
    code_faults(&[0x66, 0xba, 0xff, 0x03, 0x66, 0xed], "a forbidden port");
}

#[test]
fn the_io_privilege_level_cannot_be_raised() {
    // pushf; or dword [rsp], 0x3000; popf; out 0x80, al
    code_faults(
        &[0x9c, 0x81, 0x0c, 0x24, 0x00, 0x30, 0, 0, 0x9d, 0xe6, 0x80],
        "a forbidden port",
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
        faults(Program::new().jump(address).build(), &what);
    }
    // Not a canonical address: no page fault, but a fault.
    faults(
        Program::new().load64(1 << 63).exit(0).build(),
        "forbidden memory",
    );
}

#[test]
fn a_jump_to_null_faults() {
    faults(
        Program::new().jump(0).build(),
        "at 0x0: a jump to where there is no code",
    );
}

#[test]
fn data_cannot_be_run() {
    let harmless = Program::new().exit(0).build();
    for address in [INPUT_QUEUE, DMA_POOL, STACK + PAGE_SIZE, INPUT_MMIO] {
        let what = format!("at {address:#x}: a jump to where there is no code");
        faults(Program::new().jump(address).build(), &what);
    }
    for permissions in [R, RW] {
        let data = IMAGE + PAGE_SIZE;
        let elf = Elf::of(&Program::new().jump(data).build()).with(data, permissions, &harmless);
        faults(elf.build(), &page_fault(data));
    }
}

#[test]
fn code_and_constants_of_an_elf_cannot_be_written() {
    faults(
        Elf::of(&Program::new().store8(IMAGE, 0x90).exit(0).build()).build(),
        &page_fault(IMAGE),
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
    code_faults(&[0x50, 0xeb, 0xfd], &page_fault(last));
}

#[test]
fn debug_lines_before_a_fault_are_shown_before_the_reason() {
    let program = Program::new()
        .send(guest_abi::ports::COM2, b"about to fall\n")
        .raw(&[0x0f, 0x0b]);
    let finished = Attack::new(program.build()).fails(GUEST_FAILED, "the guest faulted at ");
    if let Some(finished) = finished {
        assert!(
            finished.stderr.starts_with("[DEBUG] about to fall\n"),
            "{finished:?}"
        );
    }
}
