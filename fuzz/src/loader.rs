//! Guest images that nobody checked (ELF-64 file format): arbitrary bytes, and ELF files with a
//! sound header whose fields are then bent. Whatever the file: loading ends, what is accepted can
//! be entered and has no page that is writable and executable, and other memory stays as it was.

use std::cell::Cell;

use arbitrary::{Result, Unstructured};
use guest_abi::layout::{IMAGE, IMAGE_SIZE, INPUT_QUEUE, PAGE_SIZE, Shape};
use linux_loader::elf::{
    ELFCLASS64, ELFDATA2LSB, EM_X86_64, ET_EXEC, Elf64_Ehdr, Elf64_Phdr, PF_R, PF_W, PF_X, PT_LOAD,
    PT_NOTE,
};
use vm_memory::{ByteValued, Bytes, GuestAddress};
use vmm::machine::{GuestRam, LoadedImage, PagePermissions, load};

use super::{Kept, Seed, with_rig};

/// After each so many inputs all of the image's memory is looked at.
const LOOK_INPUTS: u32 = 64;
const ELF_MAGIC: &[u8] = b"\x7fELF";
const HEADER_SIZE: usize = size_of::<Elf64_Ehdr>();
const SEGMENT_SIZE: usize = size_of::<Elf64_Phdr>();
/// A note that linux-loader looks for: a PVH entry point of a Xen guest.
const XEN_NOTE: &[u8] = b"\x04\0\0\0\x04\0\0\0\x12\0\0\0Xen\0\0\0\x01\0";

thread_local! {
    static RIG: Cell<Option<Kept<GuestRam>>> = const { Cell::new(None) };
    static INPUTS: Cell<u32> = const { Cell::new(0) };
}

/// Loads the image that `bytes` describe.
///
/// # Panics
///
/// When an invariant does not hold.
pub fn run(bytes: &[u8]) {
    is_loaded(bytes);
}

/// The same, and says whether the loader took it.
///
/// # Panics
///
/// When an invariant does not hold.
pub fn is_loaded(bytes: &[u8]) -> bool {
    let image = match bytes.split_first() {
        Some((first, rest)) if first & 1 == 0 => elf(&mut Unstructured::new(rest)),
        Some((_, rest)) => Ok(rest.to_vec()),
        None => Ok(Vec::new()),
    };
    // Running out of bytes is no more than the end of the input.
    image.is_ok_and(|image| check(&image))
}

/// Loads `image` and checks what must hold of any; returns whether the loader took it.
///
/// # Panics
///
/// When an invariant does not hold.
pub fn check(image: &[u8]) -> bool {
    with_rig(
        &RIG,
        || GuestRam::new(Shape::COPYING).unwrap(),
        |ram| {
            let result = load(ram.image(), image);
            match &result {
                Ok(loaded) if image.starts_with(ELF_MAGIC) => check_elf(image, loaded, ram),
                Ok(loaded) => check_flat(image, loaded, ram),
                // The message is made of what the file says.
                Err(error) => assert!(error.to_string().len() < 500, "a long message"),
            }
            clear(image, ram);
            result.is_ok()
        },
    )
}

/// Clears what `image` may have put into memory, and looks whether that was all: each time at the
/// pages beside the image's room, now and then at all of that room.
fn clear(image: &[u8], ram: &GuestRam) {
    let mut places = vec![(0, image.len() as u64)];
    places.extend(segments(image).map(|segment| {
        let start = segment.p_paddr.wrapping_sub(IMAGE);
        (start, segment.p_filesz.min(image.len() as u64))
    }));
    for (start, len) in places {
        let start = start.min(IMAGE_SIZE);
        let len = len.min(IMAGE_SIZE - start);
        let zeros = vec![0; usize::try_from(len).unwrap()];
        let at = GuestAddress(IMAGE + start);
        ram.image().write_slice(&zeros, at).unwrap();
    }
    for guard in [IMAGE - PAGE_SIZE, INPUT_QUEUE] {
        assert!(is_zero(ram, guard, PAGE_SIZE), "a page beside the image");
    }
    INPUTS.set(INPUTS.get().wrapping_add(1));
    if INPUTS.get().is_multiple_of(LOOK_INPUTS) {
        assert!(
            is_zero(ram, IMAGE, IMAGE_SIZE),
            "memory that no segment has"
        );
    }
}

fn is_zero(ram: &GuestRam, address: u64, len: u64) -> bool {
    let mut bytes = vec![0xff; usize::try_from(len).unwrap()];
    let at = GuestAddress(address);
    ram.all().read_slice(&mut bytes, at).unwrap();
    // Compared as a whole, since byte by byte it would take longer than all the rest.
    bytes == vec![0; bytes.len()]
}

/// The program headers of a file, as far as they are there.
fn segments(image: &[u8]) -> impl Iterator<Item = Elf64_Phdr> {
    let header: Elf64_Ehdr = read(image, 0).unwrap_or_default();
    let table = usize::try_from(header.e_phoff).unwrap();
    let count = image.starts_with(ELF_MAGIC).then_some(header.e_phnum);
    (0..usize::from(count.unwrap_or(0))).map_while(move |index| {
        let at = table.checked_add(index * SEGMENT_SIZE)?;
        read(image, at)
    })
}

fn read<T: ByteValued + Default>(image: &[u8], at: usize) -> Option<T> {
    let mut value = T::default();
    let bytes = image.get(at..at.checked_add(size_of::<T>())?)?;
    value.as_mut_slice().copy_from_slice(bytes);
    Some(value)
}

fn check_elf(image: &[u8], loaded: &LoadedImage, ram: &GuestRam) {
    let header: Elf64_Ehdr = read(image, 0).unwrap();
    assert_eq!(loaded.entry, header.e_entry);
    let page = (loaded.entry - IMAGE) / PAGE_SIZE;
    let page = loaded.permissions[usize::try_from(page).unwrap()];
    assert!(page.execute, "the entry point cannot be executed");
    let both = |page: &PagePermissions| page.write && page.execute;
    assert!(
        !loaded.permissions.iter().any(both),
        "a page is writable and executable"
    );
    let segments: Vec<_> = segments(image)
        .filter(|segment| segment.p_type == PT_LOAD)
        .collect();
    check_permissions(&segments, loaded);
    // Where segments overlap, the last one is there.
    let mut with_bytes = segments.iter().filter(|segment| segment.p_filesz > 0);
    if let Some(last) = with_bytes.next_back() {
        let [start, len] = [last.p_offset, last.p_filesz].map(|at| usize::try_from(at).unwrap());
        let mut there = vec![0; len];
        let at = GuestAddress(last.p_paddr);
        ram.image().read_slice(&mut there, at).unwrap();
        assert!(there == image[start..start + len], "a segment is not there");
    }
}

/// A page allows what the segments say that have a byte in it, and nothing where there is none.
fn check_permissions(segments: &[Elf64_Phdr], loaded: &LoadedImage) {
    for (start, page) in (IMAGE..)
        .step_by(PAGE_SIZE as usize)
        .zip(&*loaded.permissions)
    {
        let touch = |segment: &&Elf64_Phdr| {
            let end = segment.p_paddr + segment.p_memsz;
            segment.p_memsz > 0 && segment.p_paddr < start + PAGE_SIZE && end > start
        };
        let here = segments.iter().filter(touch);
        let flags = here.fold(0, |flags, segment| flags | segment.p_flags);
        let said = [PF_R, PF_W, PF_X].map(|flag| flags & flag != 0);
        let found = [page.read, page.write, page.execute];
        assert_eq!(found, said, "read, write and execute at {start:#x}");
    }
}

/// A flat binary cannot say what is code: all its pages allow everything.
fn check_flat(image: &[u8], loaded: &LoadedImage, ram: &GuestRam) {
    assert!(!image.is_empty() && image.len() as u64 <= IMAGE_SIZE);
    assert_eq!(loaded.entry, IMAGE);
    let restricts = |page: &PagePermissions| *page != PagePermissions::ALL;
    assert!(
        !loaded.permissions.iter().any(restricts),
        "a page does not allow everything"
    );
    let mut copy = vec![0; image.len()];
    ram.image()
        .read_slice(&mut copy, GuestAddress(IMAGE))
        .unwrap();
    assert!(copy == image, "the image was not copied as it is");
}

/// A small ELF file that is mostly right.
fn elf(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let segments = u.int_in_range(0..=5usize)?;
    let body: usize = u.int_in_range(0..=0x3000)?;
    let mut image = header(u, segments)?.as_slice().to_vec();
    let file_size = HEADER_SIZE + segments * SEGMENT_SIZE + body;
    for index in 0..segments {
        image.extend_from_slice(segment(u, index, file_size)?.as_slice());
    }
    image.resize(file_size, 0x90);
    fill(u, &mut image)?;
    Ok(image)
}

fn header(u: &mut Unstructured<'_>, segments: usize) -> Result<Elf64_Ehdr> {
    let mut header = Elf64_Ehdr::default();
    header.e_ident[..4].copy_from_slice(ELF_MAGIC);
    header.e_ident[4] = ELFCLASS64;
    header.e_ident[5] = ELFDATA2LSB;
    header.e_ident[6] = 1;
    header.e_type = bent(u, ET_EXEC)?;
    header.e_machine = bent(u, EM_X86_64)?;
    let entry = IMAGE + u.int_in_range(0..=0x2000u64)?;
    header.e_entry = bent(u, entry)?;
    header.e_phoff = bent(u, HEADER_SIZE as u64)?;
    header.e_ehsize = bent(u, HEADER_SIZE as u16)?;
    header.e_phentsize = bent(u, SEGMENT_SIZE as u16)?;
    header.e_phnum = bent(u, segments as u16)?;
    Ok(header)
}

fn segment(u: &mut Unstructured<'_>, index: usize, file_size: usize) -> Result<Elf64_Phdr> {
    let file_size = file_size as u64;
    let offset = u.int_in_range(0..=file_size)?;
    let in_file = u.int_in_range(0..=file_size - offset)?;
    let address = IMAGE + index as u64 * 0x1000 + u.int_in_range(0..=2u64)? * 0x800;
    let more = *u.choose(&[0, 0, 1, 0x1000, IMAGE_SIZE])?;
    let mut segment = Elf64_Phdr::default();
    let kind = *u.choose(&[PT_LOAD, PT_LOAD, PT_LOAD, PT_NOTE])?;
    segment.p_type = bent(u, kind)?;
    let flags = *u.choose(&[5, 5, 5, 4, 6, 6, 3, 7])?;
    segment.p_flags = bent(u, flags)?;
    segment.p_offset = bent(u, offset)?;
    segment.p_filesz = bent(u, in_file)?;
    segment.p_memsz = bent(u, in_file + more)?;
    segment.p_paddr = bent(u, address)?;
    segment.p_vaddr = bent(u, segment.p_paddr)?;
    Ok(segment)
}

/// `right`, or now and then anything.
fn bent<'a, T: arbitrary::Arbitrary<'a>>(u: &mut Unstructured<'a>, right: T) -> Result<T> {
    if u.arbitrary::<u8>()? >= 250 {
        u.arbitrary()
    } else {
        Ok(right)
    }
}

/// Writes notes, or bytes as they come, over the file, its headers included.
fn fill(u: &mut Unstructured<'_>, image: &mut [u8]) -> Result<()> {
    for _ in 0..u.int_in_range(0..=8u8)? {
        let at = u.int_in_range(0..=image.len() - 1)?;
        let bytes = if u.arbitrary::<bool>()? {
            XEN_NOTE
        } else {
            let len = u.int_in_range(0..=24)?.min(u.len());
            u.bytes(len)?
        };
        let end = image.len().min(at + bytes.len());
        image[at..end].copy_from_slice(&bytes[..end - at]);
    }
    Ok(())
}

/// Images that a linker could have made, as inputs.
///
/// # Panics
///
/// Never.
pub fn seeds() -> Vec<Seed> {
    let code = (5, IMAGE, b"\xb0\0\xe6\xf4\xf4".as_slice(), 0);
    let constants = (4, IMAGE + 0x1000, b"constants".as_slice(), 0);
    let data = (6, IMAGE + 0x2000, b"data".as_slice(), 0x800);
    let notes = (PT_NOTE << 8 | 4, IMAGE + 0x1000, XEN_NOTE, 0);
    let seed = |segments: &[_]| {
        let mut input = vec![1];
        input.extend(honest_elf(segments));
        input
    };
    vec![
        ("flat", b"\x01\xb0\0\xe6\xf4\xf4".to_vec()),
        ("code", seed(&[code])),
        ("code-and-data", seed(&[code, constants, data])),
        ("with-notes", seed(&[code, notes])),
    ]
}

/// Of each segment: its permissions, with its type above them if it is not to be loaded; its
/// address, its bytes, and how many zeros follow them in memory.
fn honest_elf(segments: &[(u32, u64, &[u8], u64)]) -> Vec<u8> {
    let mut header = Elf64_Ehdr::default();
    header.e_ident[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    header.e_type = ET_EXEC;
    header.e_machine = EM_X86_64;
    header.e_entry = IMAGE;
    header.e_phoff = HEADER_SIZE as u64;
    header.e_ehsize = HEADER_SIZE as u16;
    header.e_phentsize = SEGMENT_SIZE as u16;
    header.e_phnum = segments.len() as u16;
    let mut image = header.as_slice().to_vec();
    let mut offset = (HEADER_SIZE + segments.len() * SEGMENT_SIZE) as u64;
    for &(flags, address, bytes, zeros) in segments {
        let len = bytes.len() as u64;
        let segment = Elf64_Phdr {
            p_type: if flags >> 8 == 0 { PT_LOAD } else { flags >> 8 },
            p_flags: flags & 7,
            p_offset: offset,
            p_vaddr: address,
            p_paddr: address,
            p_filesz: len,
            p_memsz: len + zeros,
            ..Elf64_Phdr::default()
        };
        offset += len;
        image.extend_from_slice(segment.as_slice());
    }
    segments
        .iter()
        .for_each(|(_, _, bytes, _)| image.extend_from_slice(bytes));
    image
}
