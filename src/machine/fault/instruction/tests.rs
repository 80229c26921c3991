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
