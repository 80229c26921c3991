//! The heap of a program: for the few messages that Protocol Buffers allocates, and for whatever
//! else the program does not size at compile time. It lies in the program's image, or for a program
//! that needs more in the machine's heap region.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr;

use guest_abi::layout;
use linked_list_allocator::LockedHeap;

/// The size of a heap in bytes, if the program does not say it. The longest configuration takes
/// three quarters of it, if it consists of empty device entries.
pub const USUAL_SIZE: usize = 128 * 1024;

/// A global allocator that [`entry!`](crate::entry) defines.
pub trait Heap: GlobalAlloc + Sync {
    /// Gives the heap its memory.
    ///
    /// # Safety
    ///
    /// Called once, before anything is allocated.
    unsafe fn init(&'static self);
}

/// A heap with `SIZE` bytes of its own, in the program's image.
pub struct ImageHeap<const SIZE: usize> {
    space: UnsafeCell<[u8; SIZE]>,
    allocator: LockedHeap,
}

// SAFETY: only the allocator reaches the space, and only behind its lock.
unsafe impl<const SIZE: usize> Sync for ImageHeap<SIZE> {}

impl<const SIZE: usize> ImageHeap<SIZE> {
    /// A heap without memory: every allocation fails until `init`.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            space: UnsafeCell::new([0; SIZE]),
            allocator: LockedHeap::empty(),
        }
    }
}

impl<const SIZE: usize> Heap for ImageHeap<SIZE> {
    unsafe fn init(&'static self) {
        // SAFETY: the space lives for ever and nothing else refers to it; the allocator aligns it.
        // The caller vouches for this being the only call.
        unsafe { self.allocator.lock().init(self.space.get().cast(), SIZE) };
    }
}

/// A heap that is all of [`layout::HEAP`]. In a machine that was made without that memory the
/// program ends with a page fault before its first instruction of its own.
pub struct RegionHeap {
    allocator: LockedHeap,
}

impl RegionHeap {
    /// A heap without memory: every allocation fails until `init`.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            allocator: LockedHeap::empty(),
        }
    }
}

impl Heap for RegionHeap {
    unsafe fn init(&'static self) {
        // The guest is a 64-bit program, so neither conversion loses anything.
        let start = usize::try_from(layout::HEAP).unwrap_or(0);
        let size = usize::try_from(layout::HEAP_SIZE).unwrap_or(0);
        let memory: *mut u8 = ptr::with_exposed_provenance_mut(start);
        // SAFETY: the last byte of the region is at this distance.
        let last = unsafe { memory.add(size - 1) };
        // SAFETY: the address map has these pages mapped to themselves, readable and writable, and
        // nothing else in the program refers to them. Where the last one is not mapped, the write
        // ends the program.
        unsafe { last.write_volatile(0) };
        // SAFETY: as above, and the pages are there for as long as the machine exists. The caller
        // vouches for this being the only call.
        unsafe { self.allocator.lock().init(memory, size) };
    }
}

// SAFETY: every call is handed on as it is to an allocator that keeps the contract.
unsafe impl<const SIZE: usize> GlobalAlloc for ImageHeap<SIZE> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is the same.
        unsafe { self.allocator.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the same.
        unsafe { self.allocator.dealloc(pointer, layout) }
    }
}

// SAFETY: every call is handed on as it is to an allocator that keeps the contract.
unsafe impl GlobalAlloc for RegionHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is the same.
        unsafe { self.allocator.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the same.
        unsafe { self.allocator.dealloc(pointer, layout) }
    }
}
