//! `malloc`, `calloc` and `free` (ISO C11, section 7.22.3) over the program's heap. The codecs in C
//! allocate their state with them, a few times in a run.

use alloc::alloc::{Layout, alloc, alloc_zeroed, dealloc};
use core::ffi::c_void;
use core::ptr;

/// How many bytes lie before each allocation. They hold its size. It is also the alignment of every
/// allocation, which must be that of `max_align_t`.
const HEAD: usize = 16;

fn layout(size: usize) -> Option<Layout> {
    Layout::from_size_align(size.checked_add(HEAD)?, HEAD).ok()
}

fn take(size: usize, allocate: unsafe fn(Layout) -> *mut u8) -> *mut c_void {
    let Some(layout) = layout(size) else {
        return ptr::null_mut();
    };
    // SAFETY: the layout has a size of `HEAD` at least.
    let start = unsafe { allocate(layout) };
    if start.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: the allocation begins with `HEAD` bytes, aligned to as many, for the size.
    unsafe { start.cast::<usize>().write(size) };
    start.wrapping_add(HEAD).cast()
}

#[unsafe(no_mangle)]
extern "C" fn malloc(size: usize) -> *mut c_void {
    take(size, alloc)
}

#[unsafe(no_mangle)]
extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    let all = count.checked_mul(size);
    all.map_or(ptr::null_mut(), |size| take(size, alloc_zeroed))
}

/// # Safety
///
/// `memory` must be null, or come from `malloc` or `calloc` and be freed only once.
#[unsafe(no_mangle)]
unsafe extern "C" fn free(memory: *mut c_void) {
    if memory.is_null() {
        return;
    }
    let start = memory.cast::<u8>().wrapping_sub(HEAD);
    // SAFETY: `take` wrote it there.
    let size = unsafe { start.cast::<usize>().read() };
    if let Some(layout) = layout(size) {
        // SAFETY: it was allocated with this layout, and the caller has no more use for it.
        unsafe { dealloc(start, layout) };
    }
}
