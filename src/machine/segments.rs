//! The processor's segments: a global descriptor table for ring 3, and a task state segment whose
//! I/O permission bitmap opens the guest's few ports (Intel SDM volume 3, "Segment
//! Descriptors", "TSS Descriptor in 64-bit mode" and "Task Management in 64-bit Mode"; volume 1,
//! "I/O Permission Bit Map").

use guest_abi::layout::{GDT, IMAGE, TSS};
use kvm_bindings::{kvm_dtable, kvm_segment, kvm_sregs};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

/// Privilege level of everything that runs in the guest.
const RING_3: u8 = 3;

const CODE_SELECTOR: u16 = 0x08 | RING_3 as u16;
const DATA_SELECTOR: u16 = 0x10 | RING_3 as u16;
const TSS_SELECTOR: u16 = 0x18;
/// The null descriptor, one for code, one for data, and two entries for the TSS descriptor, which
/// has 16 bytes.
const GDT_ENTRIES: usize = 5;

/// Segment types (Intel SDM volume 3, "Code- and Data-Segment Descriptor Types" and "System
/// Descriptor Types"): code that may be executed and read, and data that may be read and written,
/// both accessed; and a busy 64-bit TSS, which is the type that the processor has in TR once a TSS is
/// loaded.
const TYPE_CODE: u8 = 11;
const TYPE_DATA: u8 = 3;
const TYPE_BUSY_TSS: u8 = 11;

/// Size of a 64-bit TSS without its bitmap, and where the offset of the bitmap stands in it.
const TSS_SIZE: usize = 104;
pub(super) const TSS_BITMAP_OFFSET: usize = 102;
/// A bit for each port, and the byte of ones that must follow the last of them.
const BITMAP_SIZE: usize = 0x1_0000 / 8 + 1;

/// The numbers of above once more, in the types of the registers and fields that hold them.
const GDT_LIMIT: u16 = 5 * 8 - 1;
const BITMAP_START: u16 = 104;
pub(super) const TSS_LIMIT: u32 = 104 + 0x1_0000 / 8;
const _: () = assert!(
    GDT_ENTRIES * 8 == GDT_LIMIT as usize + 1
        && TSS_SIZE == BITMAP_START as usize
        && TSS_SIZE + BITMAP_SIZE == TSS_LIMIT as usize + 1
        // The table ends before the image begins.
        && TSS + (TSS_LIMIT as u64) < IMAGE
);

fn code_segment() -> kvm_segment {
    kvm_segment {
        limit: 0xffff_ffff,
        selector: CODE_SELECTOR,
        type_: TYPE_CODE,
        present: 1,
        dpl: RING_3,
        s: 1,
        l: 1,
        g: 1,
        ..Default::default()
    }
}

fn data_segment() -> kvm_segment {
    kvm_segment {
        limit: 0xffff_ffff,
        selector: DATA_SELECTOR,
        type_: TYPE_DATA,
        present: 1,
        dpl: RING_3,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    }
}

fn task_segment() -> kvm_segment {
    kvm_segment {
        base: TSS,
        // The granularity bit is 0, so that the limit is in bytes: VMX refuses a TSS of this size
        // whose limit is counted in pages.
        limit: TSS_LIMIT,
        selector: TSS_SELECTOR,
        type_: TYPE_BUSY_TSS,
        present: 1,
        ..Default::default()
    }
}

/// Points `sregs` at the segments that [`write_tables`] lays out.
pub(super) fn set_up(sregs: &mut kvm_sregs) {
    let data = data_segment();
    sregs.cs = code_segment();
    sregs.ss = data;
    sregs.ds = data;
    sregs.es = data;
    sregs.fs = data;
    sregs.gs = data;
    sregs.tr = task_segment();
    sregs.ldt = kvm_segment {
        unusable: 1,
        ..Default::default()
    };
    sregs.gdt = kvm_dtable {
        base: GDT,
        limit: GDT_LIMIT,
        ..Default::default()
    };
    // No interrupt descriptor table: any fault becomes a triple fault, which ends the run.
    sregs.idt = kvm_dtable::default();
}

/// Writes the descriptor table and the task state segment, which opens `ports`, into guest memory.
///
/// # Errors
///
/// If `memory` lacks the pages that the address map gives to them.
pub(super) fn write_tables(
    memory: &GuestMemoryMmap,
    ports: &[u16],
) -> Result<(), GuestMemoryError> {
    let task = task_segment();
    let table: [u64; GDT_ENTRIES] = [
        0,
        descriptor(&code_segment()),
        descriptor(&data_segment()),
        descriptor(&task),
        task.base >> 32,
    ];
    for (index, entry) in (0_u64..).zip(table) {
        memory.write_obj(entry, GuestAddress(GDT + index * 8))?;
    }
    memory.write_slice(&task_state(ports), GuestAddress(TSS))
}

/// Encodes a segment as the low eight bytes of its descriptor.
fn descriptor(segment: &kvm_segment) -> u64 {
    let limit = u64::from(if segment.g == 1 {
        segment.limit >> 12
    } else {
        segment.limit
    });
    let bits = |value: u8, shift: u32| u64::from(value) << shift;
    (limit & 0xffff)
        | (segment.base & 0xff_ffff) << 16
        | bits(segment.type_, 40)
        | bits(segment.s, 44)
        | bits(segment.dpl, 45)
        | bits(segment.present, 47)
        | (limit >> 16 & 0xf) << 48
        | bits(segment.l, 53)
        | bits(segment.db, 54)
        | bits(segment.g, 55)
        | (segment.base >> 24 & 0xff) << 56
}

/// The task state segment with the bitmap. The stacks that it could name stay zero, since the
/// processor would use them only to enter another ring.
fn task_state(ports: &[u16]) -> Vec<u8> {
    let mut state = vec![0; TSS_SIZE + BITMAP_SIZE];
    let offset = BITMAP_START.to_le_bytes();
    state[TSS_BITMAP_OFFSET..TSS_SIZE].copy_from_slice(&offset);
    let bitmap = &mut state[TSS_SIZE..];
    bitmap.fill(0xff);
    for &port in ports {
        bitmap[usize::from(port / 8)] &= !(1 << (port % 8));
    }
    state
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::machine::memory::GuestRam;

    #[test]
    fn every_field_of_a_descriptor_has_its_place() {
        let segment = kvm_segment {
            base: 0x8765_4321,
            limit: 0xedcba,
            type_: 0x5,
            s: 1,
            dpl: 2,
            present: 0,
            l: 0,
            db: 1,
            ..Default::default()
        };
        assert_eq!(descriptor(&segment), 0x874e_5565_4321_dcba);
        let large = kvm_segment { g: 1, ..segment };
        assert_eq!(descriptor(&large), 0x87c0_5565_4321_00ed);
    }

    #[test]
    fn the_descriptor_table_says_what_the_segment_registers_hold() {
        let ram = GuestRam::new(guest_abi::layout::Shape::COPYING).unwrap();
        write_tables(ram.all(), &[]).unwrap();
        let mut sregs = kvm_sregs::default();
        set_up(&mut sregs);
        assert_eq!((sregs.gdt.base, sregs.gdt.limit), (GDT, 39));
        let entry = |address: u64| -> u64 { ram.all().read_obj(GuestAddress(address)).unwrap() };
        let named = |selector: u16| entry(GDT + u64::from(selector & !7));
        for segment in [
            sregs.cs, sregs.ss, sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.tr,
        ] {
            assert_eq!(named(segment.selector), descriptor(&segment));
        }
        for segment in [sregs.cs, sregs.ss, sregs.ds] {
            assert_eq!((segment.selector & 3, segment.dpl), (3, 3));
        }
        assert_eq!(entry(GDT), 0, "the null descriptor");
        // The busy TSS of 8297 bytes, whose base has an upper half.
        assert_eq!(named(sregs.tr.selector), 0x0000_8b00_a000_2068);
        assert_eq!(entry(GDT + 32), TSS >> 32);
        assert_eq!((sregs.ldt.unusable, sregs.idt.limit), (1, 0));
        let bitmap: u16 = ram.all().read_obj(GuestAddress(TSS + 102)).unwrap();
        assert_eq!(bitmap, 104);
    }

    #[test]
    fn descriptors_have_the_encoding_of_the_manual() {
        assert_eq!(descriptor(&code_segment()), 0x00af_fb00_0000_ffff);
        assert_eq!(descriptor(&data_segment()), 0x00cf_f300_0000_ffff);
    }

    #[test]
    fn the_bitmap_allows_the_ports_of_devices_and_no_others() {
        let ports = [0, 0x3f8, 0x3ff, 0xf4, u16::MAX];
        let state = task_state(&ports);
        let bitmap = &state[TSS_SIZE..];
        for port in 0..=u16::MAX {
            let allowed = bitmap[usize::from(port / 8)] & (1 << (port % 8)) == 0;
            assert_eq!(allowed, ports.contains(&port), "{port:#x}");
        }
        assert_eq!(bitmap.last(), Some(&0xff));
    }
    #[test]
    fn the_bytes_are_those_that_the_page_about_the_first_instruction_shows() {
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap();
        let ports: Vec<u16> = [0xf4..=0xf5, 0x2f8..=0x2ff, 0x3f8..=0x3ff]
            .into_iter()
            .flatten()
            .collect();
        write_tables(&memory, &ports).unwrap();
        let page = include_str!("../../docs/boot.md");
        let lines = |block: &str| {
            let rest = page.split(&format!("```{block}\n")).nth(1).unwrap();
            rest.split("```").next().unwrap().lines()
        };
        let address = |text: &str| {
            let address = u64::from_str_radix(text.strip_prefix("0x").unwrap(), 16);
            GuestAddress(address.unwrap())
        };
        for line in lines("gdt") {
            let words: Vec<_> = line.split_whitespace().collect();
            let entry: u64 = memory.read_obj(address(words[0])).unwrap();
            assert_eq!(format!("{entry:016x}"), words[1], "{line}");
        }
        for line in lines("tss") {
            let mut words = line.split(';').next().unwrap().split_whitespace();
            let start = address(words.next().unwrap());
            for (offset, shown) in (0..).zip(words) {
                let byte: u8 = memory.read_obj(GuestAddress(start.0 + offset)).unwrap();
                assert_eq!(format!("{byte:02x}"), shown, "{line}");
            }
        }
    }

    #[test]
    fn the_segment_registers_are_those_that_the_page_about_the_first_instruction_shows() {
        let page = include_str!("../../docs/boot.md");
        let mut sregs = kvm_sregs::default();
        set_up(&mut sregs);
        for row in [
            format!(
                "| CS | {:#04x} | 0 | {:#x} | {}: ",
                sregs.cs.selector, sregs.cs.limit, sregs.cs.type_
            ),
            format!(
                "| SS, DS, ES, FS, GS | {:#04x} | 0 | {:#x} | {}: ",
                sregs.ss.selector, sregs.ss.limit, sregs.ss.type_
            ),
            format!(
                "| TR | {:#04x} | {:#x} | {:#x} | {}: ",
                sregs.tr.selector, sregs.tr.base, sregs.tr.limit, sregs.tr.type_
            ),
            format!(
                "| GDTR | | {:#x} | {:#x} |",
                sregs.gdt.base, sregs.gdt.limit
            ),
            format!("| IDTR | | {} | {} |", sregs.idt.base, sregs.idt.limit),
        ] {
            assert!(page.contains(&row), "the page lacks {row}");
        }
    }
}
