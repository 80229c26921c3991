//! Puts a guest image into memory: an ELF executable by its own segments, with linux-loader, or
//! anything else as a flat binary at the start of the image region.
//!
//! An image is not trusted. linux-loader copies the segments, but it checks neither that they lie in
//! the image region nor what they may be used for. Both are checked here before it sees the file.

use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use guest_abi::layout::{IMAGE, IMAGE_SIZE, PAGE_SIZE};
use linux_loader::elf::{
    EI_CLASS, EI_DATA, ELFCLASS64, ELFDATA2LSB, EM_X86_64, ET_EXEC, Elf64_Ehdr, Elf64_Phdr, PF_R,
    PF_W, PF_X, PT_LOAD, PT_NOTE,
};
use linux_loader::loader::{Elf, KernelLoader};
use vm_memory::{ByteValued, Bytes, GuestAddress, GuestMemoryMmap};

use super::memory::to_usize;
use super::page_tables::{IMAGE_PAGES, ImagePermissions, PagePermissions};
use crate::quote::quote_path;
use crate::reason::reason;

const ELF_MAGIC: &[u8] = b"\x7fELF";
/// A larger file is refused before all of it is read. An ELF file may be larger than the image's
/// room, since it may have symbols that are not loaded, but not by so much.
const MAX_FILE_SIZE: u64 = 16 << 20;

/// More segments than any linker makes. A segment takes 56 bytes of the file and may name any part
/// of it: tens of thousands that name the same bytes would keep the loader busy for minutes.
const MAX_SEGMENTS: u16 = 64;
/// linux-loader walks through the notes one by one, as many as there are in each such segment.
const MAX_NOTE_SIZE: u64 = 64 << 10;

/// A guest that cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read the guest {}: {}", quote_path(path), reason(source))]
    Read {
        /// The guest's file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// There is nothing in it.
    #[error("the guest is empty; it must be an ELF executable or a flat binary")]
    Empty,
    /// It does not fit.
    #[error("the guest is too big: it has {size} bytes, and at most {max} fit")]
    TooBig {
        /// Its size in bytes.
        size: u64,
        /// What fits, in bytes.
        max: u64,
    },
    /// It says that it is an ELF file, but not one for this machine.
    #[error("the guest is an ELF file that cannot be loaded: {0}")]
    Elf(&'static str),
    /// A segment lies where no image may be.
    #[error(
        "the guest is an ELF file that cannot be loaded: a segment at {start:#x}, {size} bytes \
         long, is not within {IMAGE:#x} to {:#x}; link it with -static -no-pie \
         -Wl,-Ttext-segment={IMAGE:#x}",
        IMAGE + IMAGE_SIZE
    )]
    Outside {
        /// The segment's address.
        start: u64,
        /// Its size in memory in bytes.
        size: u64,
    },
    /// linux-loader refused it.
    #[error("the guest is an ELF file that cannot be loaded: {0}")]
    Loader(#[from] linux_loader::loader::Error),
    /// Guest memory refused it.
    #[error("cannot copy the guest into its memory: {0}")]
    Memory(#[from] vm_memory::GuestMemoryError),
}

/// Where a loaded image is entered and what its pages allow.
#[derive(Debug)]
pub struct LoadedImage {
    /// Guest-physical address of the first instruction.
    pub entry: u64,
    /// The pages' permissions, from [`IMAGE`] up.
    pub permissions: Box<ImagePermissions>,
}

/// Reads a guest image from `file`, which was opened at `path`.
///
/// # Errors
///
/// [`LoadError::Read`] or, for a file that can never fit, [`LoadError::TooBig`].
pub fn read_image(path: &Path, file: impl Read) -> Result<Vec<u8>, LoadError> {
    let mut image = Vec::new();
    file.take(MAX_FILE_SIZE + 1)
        .read_to_end(&mut image)
        .map_err(|source| LoadError::Read {
            path: path.to_owned(),
            source,
        })?;
    let size = image.len() as u64;
    if size > MAX_FILE_SIZE {
        let max = MAX_FILE_SIZE;
        return Err(LoadError::TooBig { size, max });
    }
    Ok(image)
}

/// Loads `image` into `memory`, which covers the image region alone.
///
/// # Errors
///
/// Why the image is neither a loadable ELF file nor a flat binary that fits.
pub fn load(memory: &GuestMemoryMmap, image: &[u8]) -> Result<LoadedImage, LoadError> {
    if image.is_empty() {
        Err(LoadError::Empty)
    } else if image.starts_with(ELF_MAGIC) {
        load_elf(memory, image)
    } else {
        load_flat(memory, image)
    }
}

/// A flat binary cannot say what is code and what is data: all its pages allow everything.
fn load_flat(memory: &GuestMemoryMmap, image: &[u8]) -> Result<LoadedImage, LoadError> {
    let size = image.len() as u64;
    if size > IMAGE_SIZE {
        let max = IMAGE_SIZE;
        return Err(LoadError::TooBig { size, max });
    }
    memory.write_slice(image, GuestAddress(IMAGE))?;
    Ok(LoadedImage {
        entry: IMAGE,
        permissions: Box::new([PagePermissions::ALL; IMAGE_PAGES]),
    })
}

fn load_elf(memory: &GuestMemoryMmap, image: &[u8]) -> Result<LoadedImage, LoadError> {
    let header: Elf64_Ehdr = read_at(image, 0).ok_or(LoadError::Elf("its header is cut off"))?;
    check_header(&header)?;
    let mut permissions = Box::new([PagePermissions::default(); IMAGE_PAGES]);
    for index in 0..u64::from(header.e_phnum) {
        let segment = segment(image, &header, index)?;
        // This must hold for segments of any type, since linux-loader reads notes as well.
        if !is_within(&segment, image) {
            return Err(LoadError::Elf("a segment of it is cut off"));
        }
        if segment.p_type == PT_NOTE && segment.p_filesz > MAX_NOTE_SIZE {
            return Err(LoadError::Elf("its notes are too long"));
        }
        let is_empty = segment.p_memsz == 0 && segment.p_filesz == 0;
        if segment.p_type == PT_LOAD && !is_empty {
            check_segment(&segment)?;
            allow(&mut permissions, &segment);
        }
    }
    let entry_page = (header.e_entry.wrapping_sub(IMAGE) / PAGE_SIZE)
        .try_into()
        .ok()
        .and_then(|page: usize| permissions.get(page));
    if !entry_page.is_some_and(|page| page.execute) {
        return Err(LoadError::Elf("its entry point is not in executable code"));
    }
    if permissions.iter().any(|page| page.write && page.execute) {
        return Err(LoadError::Elf(
            "a page of it is both writable and executable; keep code and data in pages apart",
        ));
    }
    let loaded = Elf::load(memory, None, &mut Cursor::new(image), None)?;
    Ok(LoadedImage {
        entry: loaded.kernel_load.0,
        permissions,
    })
}

fn check_header(header: &Elf64_Ehdr) -> Result<(), LoadError> {
    let wrong = |what| Err(LoadError::Elf(what));
    if header.e_ident[EI_CLASS] != ELFCLASS64
        || header.e_ident[EI_DATA] != ELFDATA2LSB
        || header.e_machine != EM_X86_64
    {
        return wrong("it is not for x86-64");
    }
    if header.e_type != ET_EXEC {
        return wrong("it is not an executable linked to fixed addresses (-static -no-pie)");
    }
    if usize::from(header.e_phentsize) != size_of::<Elf64_Phdr>() {
        return wrong("its program headers have an unknown size");
    }
    if header.e_phnum > MAX_SEGMENTS {
        return wrong("it has too many program headers");
    }
    Ok(())
}

fn segment(image: &[u8], header: &Elf64_Ehdr, index: u64) -> Result<Elf64_Phdr, LoadError> {
    let size = size_of::<Elf64_Phdr>() as u64;
    header
        .e_phoff
        .checked_add(index * size)
        .and_then(|offset| read_at(image, offset))
        .ok_or(LoadError::Elf("its program headers are cut off"))
}

/// Whether the bytes that `segment` has in the file are all there.
fn is_within(segment: &Elf64_Phdr, image: &[u8]) -> bool {
    segment
        .p_offset
        .checked_add(segment.p_filesz)
        .is_some_and(|end| end <= image.len() as u64)
}

fn check_segment(segment: &Elf64_Phdr) -> Result<(), LoadError> {
    let (start, size) = (segment.p_paddr, segment.p_memsz);
    let within = start >= IMAGE
        && start
            .checked_add(size)
            .is_some_and(|end| end <= IMAGE + IMAGE_SIZE);
    if !within {
        return Err(LoadError::Outside { start, size });
    }
    if segment.p_vaddr != segment.p_paddr {
        return Err(LoadError::Elf(
            "a segment's virtual address is not its physical one",
        ));
    }
    if segment.p_filesz > segment.p_memsz {
        return Err(LoadError::Elf(
            "a segment has more bytes in the file than in memory",
        ));
    }
    Ok(())
}

/// Adds to each page that `segment`, which has been checked, touches what the segment allows.
fn allow(permissions: &mut ImagePermissions, segment: &Elf64_Phdr) {
    let allowed = PagePermissions {
        read: segment.p_flags & PF_R != 0,
        write: segment.p_flags & PF_W != 0,
        execute: segment.p_flags & PF_X != 0,
    };
    let start = segment.p_paddr - IMAGE;
    let first = to_usize(start / PAGE_SIZE);
    let behind = to_usize((start + segment.p_memsz).div_ceil(PAGE_SIZE));
    for page in permissions.iter_mut().take(behind).skip(first) {
        page.join(allowed);
    }
}

/// The header at `offset`, or `None` if the image ends before it does.
fn read_at<T: ByteValued>(image: &[u8], offset: u64) -> Option<T> {
    let offset = usize::try_from(offset).ok()?;
    let bytes = image.get(offset..offset.checked_add(size_of::<T>())?)?;
    let mut header = T::zeroed();
    header.as_mut_slice().copy_from_slice(bytes);
    Some(header)
}

#[cfg(test)]
mod tests {
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
        let path = Path::new("guest");
        let most = 16 << 20;
        let read = |len| read_image(path, std::io::repeat(0x90).take(len));
        assert_eq!(read(3).unwrap(), [0x90; 3]);
        assert_eq!(read(most).unwrap().len() as u64, most);
        let refused = read_image(path, std::io::repeat(0x90));
        assert!(
            matches!(refused, Err(LoadError::TooBig { size, max }) if size > max && max == most)
        );
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                Err(std::io::Error::from_raw_os_error(libc::EIO))
            }
        }
        let error = read_image(Path::new("some/guest"), Broken).unwrap_err();
        assert!(error.to_string().contains("some/guest"), "{error}");
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
        assert!(
            matches!(refused, Err(LoadError::Elf(reason)) if reason.contains("than in memory"))
        );
    }

    #[test]
    fn more_segments_than_any_linker_makes_are_refused() {
        let refused = try_load(&executable(u16::MAX - 1, 4096));
        assert!(matches!(refused, Err(LoadError::Elf(reason)) if reason.contains("too many")));
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
}
