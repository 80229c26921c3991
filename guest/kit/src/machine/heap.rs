//! The heap of a program, in its image: for the few messages that Protocol Buffers allocates, and
//! for whatever else the program does not size at compile time.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;

use linked_list_allocator::LockedHeap;

/// Bytes of a heap whose program does not say. The longest configuration would take three quarters
/// of it, were it all empty device entries.
pub const USUAL_SIZE: usize = 128 * 1024;

/// A global allocator with `SIZE` bytes of its own.
pub struct Heap<const SIZE: usize> {
    space: UnsafeCell<[u8; SIZE]>,
    allocator: LockedHeap,
}

// SAFETY: only the allocator reaches the space, and only behind its lock.
unsafe impl<const SIZE: usize> Sync for Heap<SIZE> {}

impl<const SIZE: usize> Heap<SIZE> {
    /// A heap without memory: every allocation fails until `init`.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            space: UnsafeCell::new([0; SIZE]),
            allocator: LockedHeap::empty(),
        }
    }

    /// Gives the heap its memory.
    ///
    /// # Safety
    ///
    /// Called once, before anything is allocated.
    pub(super) unsafe fn init(&'static self) {
        // SAFETY: the space lives for ever and nothing else refers to it; the allocator aligns it.
        // The caller vouches for this being the only call.
        unsafe { self.allocator.lock().init(self.space.get().cast(), SIZE) };
    }
}

// SAFETY: every call is handed on as it is to an allocator that keeps the contract.
unsafe impl<const SIZE: usize> GlobalAlloc for Heap<SIZE> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is the same.
        unsafe { self.allocator.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the same.
        unsafe { self.allocator.dealloc(pointer, layout) }
    }
}
