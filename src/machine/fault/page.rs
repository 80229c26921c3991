//! Explains a page fault by what the page tables say of its address, and by where that lies in the
//! address map (Intel SDM volume 3, "Page-Fault Exceptions").

use guest_abi::layout::{GDT, PAGE_SIZE, PAGE_TABLES, STACK, STACK_GUARD_SIZE, STACK_TOP};

use super::{MAX_INSTRUCTION, Scene, instruction};
use crate::machine::page_tables::{NO_EXECUTE, PRESENT, USER, WRITABLE};

/// The bits of an entry that are the address of a table or page.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// The bits of an address that each level of tables looks at start here, 9 for a level.
const LEVELS: [u32; 4] = [39, 30, 21, 12];

/// Explains a page fault at `address`.
pub(super) fn explain(scene: &Scene, address: u64) -> String {
    let (rip, rsp) = (scene.regs.rip, scene.regs.rsp);
    let is_fetch = is_fetch(scene, address);
    let what = if is_fetch {
        match (address, entry(scene, address)) {
            // The return took its address, a zero, from where the stack begins.
            (0, _) if rsp == STACK_TOP + 8 => {
                "a return from the entry point, which has nowhere to return to"
            }
            (..GDT, _) => "a jump through a null pointer",
            (_, None) => "a jump to where there is no code",
            (_, Some(flags)) if flags & USER == 0 => "a jump into the processor's tables",
            (_, Some(_)) => "a jump to data, which cannot be run",
        }
    } else {
        match (address, entry(scene, address)) {
            _ if has_overflowed(address, rsp) => "the stack has overflowed",
            (..GDT, _) => "access through a null pointer",
            (_, None) => "access to memory that is not there",
            (_, Some(flags)) if flags & USER == 0 => "access to the processor's tables",
            (_, Some(flags)) if flags & WRITABLE == 0 => "a write to memory that is read-only",
            (_, Some(_)) => "access to forbidden memory",
        }
    };
    if is_fetch && address == rip && address != 0 {
        return what.to_owned();
    }
    format!("{what} (page fault at {address:#x})")
}

/// Whether it was the instruction itself that could not be read, or the rest of it in the page
/// behind. Where there is code that can be run, it was an instruction that writes to itself.
fn is_fetch(scene: &Scene, address: u64) -> bool {
    let rip = scene.regs.rip;
    let to_page_end = PAGE_SIZE - rip % PAGE_SIZE;
    (address == rip && !can_run(scene, address))
        || (address.wrapping_sub(rip) == to_page_end
            && to_page_end < MAX_INSTRUCTION as u64
            && instruction::name_and_len(scene, rip)
                .is_none_or(|(_, len)| len as u64 > to_page_end))
}

/// Whether a fault at `address` is one of a stack that has no room left. `rsp` has then come to the
/// guard page, or will with the next thing that is pushed.
fn has_overflowed(address: u64, rsp: u64) -> bool {
    let guard = STACK..STACK + STACK_GUARD_SIZE;
    let beside = address.abs_diff(rsp) < PAGE_SIZE;
    beside && (guard.contains(&address) || (GDT..guard.end).contains(&rsp))
}

/// Whether the guest can run what lies at `address`.
pub(super) fn can_run(scene: &Scene, address: u64) -> bool {
    entry(scene, address).is_some_and(|flags| flags & (NO_EXECUTE | USER) == USER)
}

/// The page table entry for `address` with its flags, or `None` if there is no page.
fn entry(scene: &Scene, address: u64) -> Option<u64> {
    LEVELS.into_iter().try_fold(PAGE_TABLES, |table, shift| {
        let index = (address >> shift) & 0x1ff;
        let entry = scene.number((table & ADDRESS) + index * 8)?;
        (entry & PRESENT != 0).then_some(entry)
    })
}

#[cfg(test)]
mod tests {
    use guest_abi::layout::{DMA_POOL, IMAGE, PAGE_TABLES, RAM_SIZE, TSS};

    use super::*;
    use crate::machine::testing::Scenery;

    /// What is said of a page fault at `address`, of an instruction at the image's start.
    fn told(address: u64, rsp: u64) -> String {
        let scenery = Scenery::with(&[0x8a, 0x07]);
        let mut scene = scenery.scene();
        scene.regs.rsp = rsp;
        explain(&scene, address)
    }

    #[test]
    fn access_is_told_by_what_the_tables_say() {
        for (address, what) in [
            (0, "access through a null pointer (page fault at 0x0)"),
            (8, "access through a null pointer (page fault at 0x8)"),
            (
                TSS,
                "access to the processor's tables (page fault at 0xa000)",
            ),
            (
                PAGE_TABLES + 8,
                "access to the processor's tables (page fault at 0x2008)",
            ),
            (
                IMAGE + PAGE_SIZE,
                "a write to memory that is read-only (page fault at 0x11000)",
            ),
            (
                DMA_POOL,
                "access to forbidden memory (page fault at 0x200000)",
            ),
            (
                RAM_SIZE,
                "access to memory that is not there (page fault at 0x800000)",
            ),
            (
                0xffff_8000_0000_0000,
                "access to memory that is not there (page fault at 0xffff800000000000)",
            ),
            (
                STACK + 8,
                "access to memory that is not there (page fault at 0x780008)",
            ),
        ] {
            assert_eq!(told(address, STACK_TOP), what);
        }
    }

    #[test]
    fn a_stack_that_overflows_is_told_from_a_pointer_that_is_wrong() {
        let last = STACK + STACK_GUARD_SIZE;
        for rsp in [last, last - 8, last + 100] {
            assert!(told(last - 8, rsp).starts_with("the stack has overflowed"));
        }
        // The frame of this function is larger than the guard page.
        let far = DMA_POOL - 0x100;
        assert!(told(far - 8, far).starts_with("the stack has overflowed"));
        assert!(told(0, 0x7f_f000).starts_with("access through a null pointer"));
    }

    #[test]
    fn a_jump_is_told_by_where_it_went() {
        let scenery = Scenery::with(&[0x90]);
        let mut scene = scenery.scene();
        for (target, what) in [
            (0, "a jump through a null pointer (page fault at 0x0)"),
            (TSS, "a jump into the processor's tables"),
            (DMA_POOL, "a jump to data, which cannot be run"),
            (RAM_SIZE, "a jump to where there is no code"),
        ] {
            scene.regs.rip = target;
            assert_eq!(explain(&scene, target), what);
        }
        scene.regs.rip = 0;
        scene.regs.rsp = STACK_TOP + 8;
        assert_eq!(
            explain(&scene, 0),
            "a return from the entry point, which has nowhere to return to (page fault at 0x0)"
        );
    }

    #[test]
    fn an_instruction_that_writes_to_itself_is_no_jump() {
        assert_eq!(
            told(IMAGE, STACK_TOP),
            "a write to memory that is read-only (page fault at 0x10000)"
        );
    }

    #[test]
    fn an_instruction_that_is_cut_off_by_the_end_of_its_page_is_a_jump() {
        // mov rdi, imm64, of which two bytes are in the page.
        let scenery = Scenery::with(&[]);
        scenery.write(IMAGE + PAGE_SIZE - 2, &[0x48, 0xbf, 1, 2, 3, 4, 5, 6, 7, 8]);
        let mut scene = scenery.scene();
        scene.regs.rip = IMAGE + PAGE_SIZE - 2;
        assert!(explain(&scene, IMAGE + PAGE_SIZE).starts_with("a jump to data"));
        assert!(explain(&scene, 8).starts_with("access through a null pointer"));
        // mov al, [rdi], which ends with the page.
        scenery.write(IMAGE + PAGE_SIZE - 2, &[0x8a, 0x07]);
        assert!(explain(&scene, IMAGE + PAGE_SIZE).starts_with("a write to memory"));
    }
}
