//! The heap, for the few messages that Protocol Buffers allocates: the configuration, the stages
//! of initialisation, and one progress message that is used again and again.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;

use linked_list_allocator::LockedHeap;

/// The longest configuration would take three quarters of it, were it all empty device entries.
const SIZE: usize = 128 * 1024;

#[repr(C, align(16))]
struct Space(UnsafeCell<[u8; SIZE]>);

// SAFETY: only the allocator reaches the space, and only behind its lock.
unsafe impl Sync for Space {}

static SPACE: Space = Space(UnsafeCell::new([0; SIZE]));

/// The global allocator.
pub(crate) struct Heap(LockedHeap);

impl Heap {
    /// A heap without memory: every allocation fails until [`Heap::init`].
    pub(crate) const fn empty() -> Self {
        Self(LockedHeap::empty())
    }

    /// Gives the heap its memory. Called once, first of all.
    pub(crate) fn init(&self) {
        // SAFETY: the space is a static that nothing else refers to, and this is the only call.
        unsafe { self.0.lock().init(SPACE.0.get().cast(), SIZE) };
    }
}

// SAFETY: every call is handed on as it is to an allocator that keeps the contract.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is the same.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the same.
        unsafe { self.0.dealloc(pointer, layout) }
    }
}
