//! Puts a guest image into memory: an ELF executable by its own segments, with linux-loader, or
//! anything else as a flat binary at the start of the image region.
//!
//! An image is not trusted. linux-loader copies the segments, but it checks neither that they lie
//! in the image region nor what they may be used for. Both are checked here before it sees the
//! file.

use std::io::{Cursor, Read};

use guest_abi::layout::{IMAGE, IMAGE_SIZE, PAGE_SIZE};
use linux_loader::elf::{
    EI_CLASS, EI_DATA, ELFCLASS64, ELFDATA2LSB, EM_X86_64, ET_EXEC, Elf64_Ehdr, Elf64_Phdr, PF_R,
    PF_W, PF_X, PT_LOAD, PT_NOTE,
};
use linux_loader::loader::{Elf, KernelLoader};
use vm_memory::{ByteValued, Bytes, GuestAddress, GuestMemoryMmap};

use super::memory::to_usize;
use super::page_tables::{IMAGE_PAGES, ImagePermissions, PagePermissions};
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

/// Why a guest cannot be loaded: a sentence about "it", the guest.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("it cannot be read: {}", reason(.0))]
    Read(#[source] std::io::Error),
    /// There is nothing in it.
    #[error("it is empty; it must be an ELF executable or a flat binary")]
    Empty,
    /// It does not fit.
    #[error("it is too big: it has {size} bytes, and at most {max} fit")]
    TooBig {
        /// Its size in bytes.
        size: u64,
        /// What fits, in bytes.
        max: u64,
    },
    /// Its file is so long that it is not read to its end.
    #[error("it is too big: it has more than {0} bytes, the most that a guest may have")]
    TooLong(u64),
    /// It says that it is an ELF file, but not one for this machine.
    #[error("it is an ELF file that cannot be loaded: {0}")]
    Elf(&'static str),
    /// A segment lies where no image may be.
    #[error(
        "it is an ELF file that cannot be loaded: a segment at {start:#x}, {size} bytes long, is not within {IMAGE:#x} to {:#x}; link it with -static -no-pie \
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
    #[error("it is an ELF file that cannot be loaded: {0}")]
    Loader(#[from] linux_loader::loader::Error),
    /// Guest memory refused it.
    #[error("it cannot be copied into its memory: {0}")]
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

/// Reads a guest image from `file`.
///
/// # Errors
///
/// [`LoadError::Read`] or, for a file that can never fit, [`LoadError::TooLong`].
pub fn read_image(file: impl Read) -> Result<Vec<u8>, LoadError> {
    let mut image = Vec::new();
    file.take(MAX_FILE_SIZE + 1)
        .read_to_end(&mut image)
        .map_err(LoadError::Read)?;
    match image.len() as u64 {
        ..=MAX_FILE_SIZE => Ok(image),
        _ => Err(LoadError::TooLong(MAX_FILE_SIZE)),
    }
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
mod tests;
