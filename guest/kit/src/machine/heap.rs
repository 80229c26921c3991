//! The heap of a program: for the few messages that Protocol Buffers allocates, and for whatever
//! else the program does not size at compile time. It lies in the program's image, or for a program
//! that needs more in the machine's heap region.

use core::cell::UnsafeCell;
use core::ptr;

use guest_abi::layout;
pub use linked_list_allocator::LockedHeap;

/// The size of a heap in bytes, if the program does not say it. The longest configuration takes
/// three quarters of it, if it consists of empty device entries.
pub const USUAL_SIZE: usize = 128 * 1024;

/// `SIZE` bytes for a heap, in the program's image.
pub struct ImageMemory<const SIZE: usize>(UnsafeCell<[u8; SIZE]>);

// SAFETY: the bytes are reached by the pointer to them alone, and whoever has that answers for it.
unsafe impl<const SIZE: usize> Sync for ImageMemory<SIZE> {}

impl<const SIZE: usize> ImageMemory<SIZE> {
    /// Bytes that are zero.
    #[must_use]
    #[allow(clippy::new_without_default)] // A static needs a constant.
    pub const fn new() -> Self {
        Self(UnsafeCell::new([0; SIZE]))
    }

    /// All of the bytes.
    pub const fn bytes(&'static self) -> *mut [u8] {
        self.0.get()
    }
}

/// All of [`layout::HEAP`], for a heap. In a machine that was made without that memory the program
/// ends here with a page fault.
///
/// # Safety
///
/// Called once, before anything refers to this memory: a byte of it is written.
#[must_use]
pub unsafe fn region() -> *mut [u8] {
    // The guest is a 64-bit program, so neither conversion loses anything.
    let start = usize::try_from(layout::HEAP).unwrap_or(0);
    let size = usize::try_from(layout::HEAP_SIZE).unwrap_or(0);
    let memory: *mut u8 = ptr::with_exposed_provenance_mut(start);
    // SAFETY: the last byte of the region is at this distance.
    let last = unsafe { memory.add(size - 1) };
    // SAFETY: the address map has these pages mapped to themselves, readable and writable. Where the
    // last one is not mapped, the write ends the program. The caller vouches that nothing else refers
    // to the byte.
    unsafe { last.write_volatile(0) };
    ptr::slice_from_raw_parts_mut(memory, size)
}
