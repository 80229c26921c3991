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
fn what_the_guest_has_unmasked_itself_is_told_as_that() {
    // divss xmm0, xmm0
    let scenery = Scenery::with(&[0xf3, 0x0f, 0x5e, 0xc0]);
    let mut scene = scenery.scene();
    scene.float.mxcsr = 0x1f01;
    let what = "a floating-point error that the guest has not masked (divss)";
    assert_eq!(explain(&scene).1, what);
    // mov ecx, [rax]
    let scenery = Scenery::with(&[0x8b, 0x08]);
    for (rax, flags, told) in [
        (DMA_POOL + 2, 1 << 18, true),
        (DMA_POOL + 4, 1 << 18, false),
        (DMA_POOL + 2, 0, false),
    ] {
        let mut scene = scenery.scene();
        (scene.regs.rax, scene.regs.rflags) = (rax, flags | 2);
        let cause = explain(&scene).1;
        let what = "access to 0x200002, which is not aligned, with RFLAGS.AC set (mov)";
        assert_eq!(cause.ends_with(what), told, "{cause}");
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
        (&[0x66, 0xef], 0x3ff, "0x400"),
        (&[0x66, 0x6d], 0x3ff, "0x400"),
        (&[0x66, 0x6f], 0x3ff, "0x400"),
        (&[0x6d], 0x3fd, "0x400"),
        (&[0x6f], 0x3fd, "0x400"),
        (&[0xed], 0x3fd, "0x400"),
        (&[0xef], 0x2f6, "0x2f6"),
        (&[0xef], 0xffff, "0xffff"),
    ] {
        let told = told(code, 0, rdx, 0);
        let what = format!("access to the forbidden port {port} (");
        assert!(told.starts_with(&what), "{code:x?}: {told}");
    }
}

#[test]
fn an_instruction_needs_no_more_ports_than_it_has_bytes() {
    for (code, rdx) in [
        (&[0xec][..], 0x3ff),
        (&[0xee], 0x3ff),
        (&[0x66, 0xed], 0x3fe),
        (&[0x66, 0xef], 0x3fe),
        (&[0xed], 0x3fc),
        (&[0xef], 0x3fc),
        (&[0x6c], 0x3ff),
        (&[0x66, 0x6d], 0x3fe),
        (&[0x6d], 0x3fc),
    ] {
        let told = told(code, 0, rdx, DMA_POOL);
        assert!(!told.contains("port"), "{code:x?}: {told}");
    }
}

#[test]
fn ports_are_forbidden_from_where_the_segment_with_the_bitmap_ends() {
    // out dx, al
    let scenery = Scenery::with(&[0xee]);
    let mut scene = scenery.scene();
    scene.regs.rdx = 0x3f8;
    // The last byte of the segment is behind the bits of all ports.
    let byte = scene.tss_limit - 0x1_0000 / 8 + 0x3f8 / 8;
    let told = [byte, byte + 1].map(|limit| {
        scene.tss_limit = limit;
        explain(&scene).1.contains("the forbidden port 0x3f8")
    });
    assert_eq!(told, [true, false]);
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
fn a_jump_through_memory_is_told_by_what_stands_there() {
    // call [rsi]
    let scenery = Scenery::with(&[0xff, 0x16]);
    scenery.write(DMA_POOL, &(1_u64 << 63).to_le_bytes());
    let mut scene = scenery.scene();
    scene.regs.rsi = DMA_POOL;
    let (_, told) = explain(&scene);
    assert!(told.starts_with("a jump to 0x8000000000000000,"), "{told}");
}

#[test]
fn an_address_can_be_made_of_any_register() {
    for number in 0..16_u8 {
        // mov al, [register]: rsp and r12 need a SIB byte, rbp and r13 a displacement.
        let mut code = vec![0x40 | number >> 3, 0x8a, number & 7];
        match number & 7 {
            4 => code.push(0x24),
            5 => {
                code[2] |= 0x40;
                code.push(0);
            }
            _ => {}
        }
        let scenery = Scenery::with(&code);
        let mut scene = scenery.scene();
        let regs = &mut scene.regs;
        let registers = [
            &mut regs.rax,
            &mut regs.rcx,
            &mut regs.rdx,
            &mut regs.rbx,
            &mut regs.rsp,
            &mut regs.rbp,
            &mut regs.rsi,
            &mut regs.rdi,
            &mut regs.r8,
            &mut regs.r9,
            &mut regs.r10,
            &mut regs.r11,
            &mut regs.r12,
            &mut regs.r13,
            &mut regs.r14,
            &mut regs.r15,
        ];
        for (register, value) in registers.into_iter().zip(0..) {
            *register = 1 << 63 | value << 12;
        }
        let (_, told) = explain(&scene);
        let what = format!("access to 0x800000000000{number:x}000, which");
        assert!(told.starts_with(&what), "{told}");
    }
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
fn a_divisor_is_the_part_of_its_register_that_the_instruction_names() {
    // div dl, dh, dx and edx, with a divisor of 0 and of 1, and ones in what is none of it.
    for (code, zero, one) in [
        (&[0xf6, 0xf2][..], 0xff00, 0xff01),
        (&[0xf6, 0xf6], 0xff_00ff, 0xff_01ff),
        (&[0x66, 0xf7, 0xf2], 0xff_0000, 0xff_0001),
        (&[0xf7, 0xf2], 0xff_0000_0000, 0xff_0000_0001),
    ] {
        let by_zero = told(code, 0, zero, 0);
        assert_eq!(by_zero, "a division by zero (div)", "{code:x?}");
        let too_large = told(code, 0, one, 0);
        assert!(too_large.contains("is too large"), "{code:x?}: {too_large}");
    }
}

#[test]
fn a_move_or_jump_without_segments_is_no_change_of_one() {
    // mov al, cl; mov al, [rsi]; jmp rsi
    for code in [&[0x8a, 0xc1][..], &[0x8a, 0x06], &[0xff, 0xe6]] {
        let told = told(code, 0, 0, DMA_POOL);
        assert!(told.contains("lacks or forbids here"), "{code:x?}: {told}");
    }
    // jmp far [rsi]; call far [rsi]
    for code in [[0xff, 0x2e], [0xff, 0x1e]] {
        let told = told(&code, 0, 0, DMA_POOL);
        assert!(told.starts_with("a change of segment"), "{code:x?}: {told}");
        assert!(told.ends_with(" far)"), "{code:x?}: {told}");
    }
}

#[test]
fn memory_that_is_not_aligned_is_told_for_the_instructions_that_need_it() {
    // movaps [rsi], xmm0; movaps xmm0, [rsi]
    for code in [&[0x0f, 0x29, 0x06], &[0x0f, 0x28, 0x06]] {
        assert_eq!(
            told(code, 0, 0, DMA_POOL + 8),
            "access to 0x200008, which is not aligned to 16 bytes (movaps)"
        );
    }
    // cmpxchg16b [rsi]
    assert_eq!(
        told(&[0x48, 0x0f, 0xc7, 0x0e], 0, 0, DMA_POOL + 8),
        "access to 0x200008, which is not aligned to 16 bytes (cmpxchg16b)"
    );
    // movups has no such need, movaps has what it needs, and movss wants no 16 bytes.
    for (code, address, name) in [
        (&[0x0f, 0x11, 0x06][..], DMA_POOL + 8, "movups"),
        (&[0x0f, 0x29, 0x06], DMA_POOL, "movaps"),
        (&[0xf3, 0x0f, 0x10, 0x06], DMA_POOL + 8, "movss"),
    ] {
        let told = told(code, 0, 0, address);
        assert!(told.ends_with(&format!("forbids here ({name})")), "{told}");
    }
}

#[test]
fn registers_of_devices_want_plain_moves() {
    // fld dword [rsi]; movups xmm0, [rsi]; movups [rsi], xmm0
    for (code, name) in [
        (&[0xd9, 0x06][..], "fld"),
        (&[0x0f, 0x10, 0x06], "movups"),
        (&[0x0f, 0x11, 0x06], "movups"),
    ] {
        let told = told(code, 0, 0, MMIO + 8);
        assert!(told.contains("device registers"), "{told}");
        assert!(
            told.contains(&format!("({name}); use plain moves")),
            "{told}"
        );
    }
}

#[test]
fn a_stack_whose_address_is_none_is_told_whatever_is_pushed() {
    for code in [&[0x50][..], &[0x9c], &[0x6a, 0x01]] {
        let scenery = Scenery::with(code);
        let mut scene = scenery.scene();
        scene.regs.rsp = 1 << 47;
        let told = explain(&scene).1;
        assert!(told.contains("which is no address"), "{code:x?}: {told}");
    }
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
fn a_software_interrupt_that_is_the_first_instruction_of_the_code_is_found_right_before_rip() {
    for (code, len, name) in [
        (&[0xcc, 0x90, 0x90][..], 1, "int3"),
        (&[0xf1, 0x90], 1, "int1"),
        (&[0xcd, 0x80, 0x90], 2, "int 0x80"),
    ] {
        // The second page is the first that can be run. Before it there are zeros: with the first byte
        // of the code they are `add ah, cl`.
        let scenery = Scenery::with_code_in_page(1, code);
        let start = IMAGE + PAGE_SIZE;
        let mut scene = scenery.scene();
        scene.regs.rip = start + len;
        let what = format!("a software interrupt, for which there is no handler ({name})");
        assert_eq!(explain(&scene), (start, what));
    }
}

#[test]
fn an_instruction_that_ends_its_page_is_found_right_before_rip() {
    let scenery = Scenery::with(&[]);
    scenery.write(IMAGE + PAGE_SIZE - 2, &[0x90, 0xcc]);
    let mut scene = scenery.scene();
    scene.regs.rip = IMAGE + PAGE_SIZE;
    let (address, told) = explain(&scene);
    assert_eq!(address, IMAGE + PAGE_SIZE - 1);
    assert!(told.ends_with("(int3)"), "{told}");
}

#[test]
fn what_only_looks_like_a_software_interrupt_is_none() {
    // mov al, 0xcc; hlt
    let (address, told) = told_behind(&[0xb0, 0xcc, 0xf4], 2);
    assert_eq!(address, IMAGE + 2);
    assert_eq!(told, "a privileged instruction (hlt)");
    // mov eax, 0xb0000000; int3, of which the last two bytes are mov al, 0xcc.
    let (address, told) = told_behind(&[0xb8, 0, 0, 0, 0xb0, 0xcc, 0x90], 6);
    assert_eq!(address, IMAGE + 5);
    assert!(told.ends_with("(int3)"), "{told}");
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
    scene.regs.rcx = IMAGE + 3;
    scene.regs.rip = IMAGE + 3;
    assert_eq!(system_call(&scene), None, "the guest has gone on");
    // A jump to address 0 right behind an instruction that would be one to tell of: hlt
    let scenery = Scenery::with(&[0xf4]);
    let mut scene = scenery.scene();
    scene.regs.rip = 0;
    scene.regs.rcx = IMAGE + 1;
    assert_eq!(system_call(&scene), None);
}

#[test]
fn a_single_step_is_told_by_the_flag() {
    let scenery = Scenery::with(&[0x90, 0x90]);
    let mut scene = scenery.scene();
    scene.regs.rflags |= RFLAGS_TRAP;
    assert!(explain(&scene).1.starts_with("the trap flag is set"));
}
