#![allow(clippy::unwrap_used)]

use super::*;
use crate::machine::GuestRam;

/// An executable of one page of code and `notes` note segments, all of the same `note_size`
/// bytes behind the headers.
fn executable(notes: u16, note_size: u64) -> Vec<u8> {
    let mut header = Elf64_Ehdr::default();
    header.e_ident[..4].copy_from_slice(ELF_MAGIC);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_ident[6] = 1;
    header.e_type = ET_EXEC;
    header.e_machine = EM_X86_64;
    header.e_entry = IMAGE;
    header.e_phoff = 64;
    header.e_ehsize = 64;
    header.e_phentsize = 56;
    header.e_phnum = notes + 1;
    let code = Elf64_Phdr {
        p_type: PT_LOAD,
        p_flags: PF_R | PF_X,
        p_paddr: IMAGE,
        p_vaddr: IMAGE,
        p_filesz: 64,
        p_memsz: 64,
        ..Elf64_Phdr::default()
    };
    let note = Elf64_Phdr {
        p_type: PT_NOTE,
        p_offset: 64 + 56 * u64::from(header.e_phnum),
        p_filesz: note_size,
        ..Elf64_Phdr::default()
    };
    let mut image = header.as_slice().to_vec();
    image.extend_from_slice(code.as_slice());
    for _ in 0..notes {
        image.extend_from_slice(note.as_slice());
    }
    image.resize(image.len() + to_usize(note_size), 0);
    image
}

fn try_load(image: &[u8]) -> Result<u64, LoadError> {
    let ram = GuestRam::new(guest_abi::layout::Shape::COPYING).unwrap();
    load(ram.image(), image).map(|loaded| loaded.entry)
}

#[test]
fn a_file_is_read_whole_up_to_what_can_fit_and_not_beyond() {
    let most = 16 << 20;
    let read = |len| read_image(std::io::repeat(0x90).take(len));
    assert_eq!(read(3).unwrap(), [0x90; 3]);
    assert_eq!(read(most).unwrap().len() as u64, most);
    let refused = read_image(std::io::repeat(0x90));
    assert!(matches!(refused, Err(LoadError::TooLong(max)) if max == most));
}

#[test]
fn a_file_that_cannot_be_read_is_refused_with_the_reason() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::from_raw_os_error(libc::EIO))
        }
    }
    let error = read_image(Broken).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("cannot be read: Input/output error"),
        "{error}"
    );
}

#[test]
fn a_flat_binary_fills_the_image_and_no_more() {
    let largest = vec![0xf4; to_usize(IMAGE_SIZE)];
    assert_eq!(try_load(&largest).unwrap(), IMAGE);
    let refused = try_load(&[&largest[..], &[0xf4]].concat());
    assert!(matches!(
        refused,
        Err(LoadError::TooBig {
            max: IMAGE_SIZE,
            ..
        })
    ));
    assert!(matches!(try_load(&[]), Err(LoadError::Empty)));
}

/// An executable with one more segment: its address, its size in file and memory, its flags.
fn with_segment(address: u64, size: u64, flags: u32) -> Vec<u8> {
    let mut image = executable(1, 0);
    let mut second = Elf64_Phdr {
        p_type: PT_LOAD,
        p_flags: flags,
        p_paddr: address,
        p_vaddr: address,
        p_memsz: size,
        ..Elf64_Phdr::default()
    };
    let at = 64 + 56;
    image[at..at + 56].copy_from_slice(second.as_mut_slice());
    image
}

fn permissions(image: &[u8]) -> Result<Box<ImagePermissions>, LoadError> {
    let ram = GuestRam::new(guest_abi::layout::Shape::COPYING).unwrap();
    load(ram.image(), image).map(|loaded| loaded.permissions)
}

#[test]
fn a_segment_allows_what_it_says_on_each_page_that_it_touches_and_on_no_other() {
    let [first, third] = [IMAGE + PAGE_SIZE, IMAGE + 3 * PAGE_SIZE];
    for (start, size, pages) in [
        (first, PAGE_SIZE, 1..2),
        (first, PAGE_SIZE + 1, 1..3),
        (third - 1, 2, 2..4),
        (IMAGE + IMAGE_SIZE - 1, 1, IMAGE_PAGES - 1..IMAGE_PAGES),
    ] {
        let found = permissions(&with_segment(start, size, PF_R | PF_W)).unwrap();
        for (index, page) in found.iter().enumerate().skip(1) {
            assert_eq!(page.write && page.read, pages.contains(&index), "{index}");
            assert!(!page.execute);
        }
        assert!(found[0].execute && found[0].read && !found[0].write);
    }
}

#[test]
fn a_segment_that_may_not_be_read_allows_no_reading() {
    for (flags, write) in [(0, false), (PF_W, true)] {
        let found = permissions(&with_segment(IMAGE + PAGE_SIZE, 1, flags)).unwrap();
        assert_eq!((found[1].read, found[1].write), (false, write));
    }
}

#[test]
fn a_segment_lies_wholly_within_the_image() {
    let end = IMAGE + IMAGE_SIZE;
    for (start, size) in [(IMAGE - 1, 2), (end - 1, 2), (end, 1), (u64::MAX, 1)] {
        let refused = permissions(&with_segment(start, size, PF_R));
        assert!(
            matches!(refused, Err(LoadError::Outside { .. })),
            "{start:#x}"
        );
    }
}

#[test]
fn code_and_data_in_one_page_are_refused() {
    let refused = permissions(&with_segment(IMAGE + 64, 1, PF_W));
    assert!(matches!(refused, Err(LoadError::Elf(reason)) if reason.contains("apart")));
}

#[test]
fn an_entry_point_outside_of_code_is_refused() {
    for entry in [
        0,
        IMAGE - 1,
        IMAGE + PAGE_SIZE,
        IMAGE + IMAGE_SIZE,
        u64::MAX,
    ] {
        let mut image = executable(0, 0);
        image[24..32].copy_from_slice(&entry.to_le_bytes());
        let refused = try_load(&image);
        assert!(
            matches!(refused, Err(LoadError::Elf(reason)) if reason.contains("entry point")),
            "{entry:#x}"
        );
    }
}

/// Offset and length of a field, a value that is wrong, and what is said of it.
#[test]
fn a_header_that_is_of_another_kind_of_file_is_refused() {
    let cases: [(usize, usize, u64, &str); 8] = [
        (4, 1, 1, "not for x86-64"),
        (5, 1, 2, "not for x86-64"),
        (18, 2, 183, "not for x86-64"),
        (16, 2, 3, "fixed addresses"),
        (54, 2, 32, "unknown size"),
        (32, 8, u64::MAX, "cut off"),
        (32, 8, 64 + 56, "cut off"),
        (64 + 8, 8, 1 << 40, "cut off"),
    ];
    for (at, len, value, told) in cases {
        let mut image = executable(0, 0);
        image[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
        let refused = try_load(&image);
        assert!(
            matches!(refused, Err(LoadError::Elf(reason)) if reason.contains(told)),
            "{at}"
        );
    }
    for len in [4, 63, 64, 119] {
        let refused = try_load(&executable(0, 0)[..len]);
        assert!(matches!(refused, Err(LoadError::Elf(reason)) if reason.contains("cut off")));
    }
}

#[test]
fn an_ordinary_number_of_segments_and_notes_is_loaded() {
    assert_eq!(try_load(&executable(10, 4092)).unwrap(), IMAGE);
}

#[test]
fn a_segment_that_is_elsewhere_is_refused_with_how_to_link_it() {
    let mut image = executable(0, 0);
    // Its physical address.
    image[64 + 24..64 + 32].copy_from_slice(&0x40_0000_u64.to_le_bytes());
    let told = try_load(&image).unwrap_err().to_string();
    assert!(told.contains("at 0x400000, 64 bytes long"), "{told}");
    assert!(told.contains("-Wl,-Ttext-segment=0x10000"), "{told}");
}

#[test]
fn a_segment_with_bytes_in_the_file_alone_is_refused() {
    let mut image = executable(0, 0);
    // Its size in memory.
    image[64 + 40..64 + 48].fill(0);
    let refused = try_load(&image);
    assert!(matches!(refused, Err(LoadError::Elf(reason)) if reason.contains("than in memory")));
}

#[test]
fn more_segments_than_any_linker_makes_are_refused() {
    assert_eq!(try_load(&executable(MAX_SEGMENTS - 1, 12)).unwrap(), IMAGE);
    for notes in [MAX_SEGMENTS, u16::MAX - 1] {
        let refused = try_load(&executable(notes, 12));
        assert!(matches!(refused, Err(LoadError::Elf(reason)) if reason.contains("too many")));
    }
}

#[test]
fn notes_that_would_take_long_to_walk_through_are_refused() {
    // Of zeros, notes have 12 bytes each: these are the most that fit, and then a broken one.
    assert_eq!(try_load(&executable(1, 65_532)).unwrap(), IMAGE);
    let broken = try_load(&executable(1, 64 << 10));
    assert!(matches!(broken, Err(LoadError::Loader(_))));
    let refused = try_load(&executable(1, (64 << 10) + 1));
    assert!(matches!(refused, Err(LoadError::Elf(reason)) if reason.contains("too long")));
    let refused = try_load(&executable(1, 12 << 20));
    assert!(matches!(refused, Err(LoadError::Elf(reason)) if reason.contains("too long")));
}
