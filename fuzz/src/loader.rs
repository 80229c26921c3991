//! Guest images that nobody checked (ELF-64 file format): arbitrary bytes, and ELF files with a
//! sound header whose fields are then bent. Whatever the file: loading ends, what is accepted can
//! be entered and has no page that is writable and executable, and other memory stays as it was.

use arbitrary::{Result, Unstructured};
use guest_abi::layout::{IMAGE, IMAGE_SIZE, INPUT_QUEUE, PAGE_SIZE};
use linux_loader::elf::{
    ELFCLASS64, ELFDATA2LSB, EM_X86_64, ET_EXEC, Elf64_Ehdr, Elf64_Phdr, PT_LOAD, PT_NOTE,
};
use vm_memory::{ByteValued, Bytes, GuestAddress};
use vmm::machine::{GuestRam, LoadedImage, load};

const ELF_MAGIC: &[u8] = b"\x7fELF";
const HEADER_SIZE: usize = size_of::<Elf64_Ehdr>();
const SEGMENT_SIZE: usize = size_of::<Elf64_Phdr>();
/// A note that linux-loader looks for: a PVH entry point of a Xen guest.
const XEN_NOTE: &[u8] = b"\x04\0\0\0\x04\0\0\0\x12\0\0\0Xen\0\0\0\x01\0";

/// Loads the image that `bytes` describe.
///
/// # Panics
///
/// When an invariant does not hold.
pub fn run(bytes: &[u8]) {
    let image = match bytes.split_first() {
        Some((first, rest)) if first & 1 == 0 => elf(&mut Unstructured::new(rest)),
        Some((_, rest)) => Ok(rest.to_vec()),
        None => Ok(Vec::new()),
    };
    // Running out of bytes is no more than the end of the input.
    if let Ok(image) = image {
        check(&image);
    }
}

/// Loads `image` and checks what must hold of any.
///
/// # Panics
///
/// When an invariant does not hold.
pub fn check(image: &[u8]) {
    let ram = GuestRam::new(guest_abi::layout::Shape::COPYING).unwrap();
    match load(ram.image(), image) {
        Ok(loaded) if image.starts_with(ELF_MAGIC) => check_elf(image, &loaded),
        Ok(loaded) => check_flat(image, &loaded, &ram),
        // The message is made of what the file says.
        Err(error) => assert!(error.to_string().len() < 500, "a long message"),
    }
    for guard in [IMAGE - PAGE_SIZE, INPUT_QUEUE] {
        let mut page = [0xff; PAGE_SIZE as usize];
        ram.all()
            .read_slice(&mut page, GuestAddress(guard))
            .unwrap();
        assert_eq!(
            page, [0; PAGE_SIZE as usize],
            "memory outside the image has changed"
        );
    }
}

fn check_elf(image: &[u8], loaded: &LoadedImage) {
    let mut header = Elf64_Ehdr::default();
    header.as_mut_slice().copy_from_slice(&image[..HEADER_SIZE]);
    assert_eq!(loaded.entry, header.e_entry);
    let page = (loaded.entry - IMAGE) / PAGE_SIZE;
    let page = loaded.permissions[usize::try_from(page).unwrap()];
    assert!(page.execute, "the entry point cannot be executed");
    let both = |page: &vmm::machine::PagePermissions| page.write && page.execute;
    assert!(
        !loaded.permissions.iter().any(both),
        "a page is writable and executable"
    );
}

/// A flat binary cannot say what is code: all its pages allow everything.
fn check_flat(image: &[u8], loaded: &LoadedImage, ram: &GuestRam) {
    assert!(!image.is_empty() && image.len() as u64 <= IMAGE_SIZE);
    assert_eq!(loaded.entry, IMAGE);
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
