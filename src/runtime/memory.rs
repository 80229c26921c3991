//! What a program needs of its own memory before it can say anything: a heap that tells in one line
//! that nothing is left of it, and a stack that is not too small. The standard library ends a process
//! by SIGABRT in both cases, with words of its own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, Ordering};

use super::RunError;
use super::exit_status;
use crate::limits::limit;
use crate::sandbox;
use crate::stack_line::StackLine;

/// So much stack a run needs, in bytes: what it uses at most without optimisation, and half as much
/// again.
const STACK: u64 = 160 << 10;

/// So much address space, and of it so much data, the smallest run needs, in bytes.
const ADDRESS_SPACE: u64 = 24 << 20;
const DATA: u64 = 12 << 20;

/// The system's allocator, for the whole program: one that ends the process with a line and the
/// status of a failed host where there is no memory.
///
/// ```
/// #[global_allocator]
/// static HEAP: vmm::runtime::Heap = vmm::runtime::Heap;
/// # fn main() {
/// assert_eq!(vec![7; 3], [7, 7, 7]);
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Heap;

// SAFETY: all memory comes from and goes to the system's allocator, and what that returns is passed
// on as it is, unless it is null, and then nothing returns.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        checked(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        checked(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        checked(unsafe { System.realloc(memory, layout, size) }, size)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }
}

fn checked(memory: *mut u8, size: usize) -> *mut u8 {
    if memory.is_null() {
        let mut line = StackLine::new();
        line.add(b"vmm: cannot have ");
        line.add_number(size as u64);
        line.add(b" bytes of memory");
        end_for_want_of_memory(line);
    }
    memory
}

/// Says what could not be had, and ends the process. What has been made so far and has a name, which
/// is only so where files cannot be without one, is left.
pub(super) fn end_for_want_of_memory(mut line: StackLine) -> ! {
    static ENDS: AtomicBool = AtomicBool::new(false);
    while ENDS.swap(true, Ordering::SeqCst) {
        // Another thread says it, and this one ends with the process.
        std::hint::spin_loop();
    }
    line.add(b": raise the limits on it (ulimit -v and -d), or free some on the host\n");
    line.write();
    sandbox::last_act();
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(exit_status::HOST.into()) }
}

/// Fails if the stack of this thread, which is the first one of the process, may not become large
/// enough for a run.
///
/// # Errors
///
/// How large it may become, and what to do.
pub fn check_stack() -> Result<(), RunError> {
    check("the stack", limit(libc::RLIMIT_STACK), STACK, 's')
}

/// Fails if the process may not have as much memory as the smallest run needs. What the C library does
/// where it has none is to end the process in its own way.
///
/// # Errors
///
/// How much it may have, and what to do.
pub(crate) fn check_memory() -> Result<(), RunError> {
    let (space, data) = (limit(libc::RLIMIT_AS), limit(libc::RLIMIT_DATA));
    check("the address space", space, ADDRESS_SPACE, 'v')?;
    check("the data of the process", data, DATA, 'd')
}

fn check(
    what: &'static str,
    limit: Option<u64>,
    needed: u64,
    option: char,
) -> Result<(), RunError> {
    match limit {
        Some(limit) if limit < needed => Err(RunError::Limited {
            what,
            limit: limit >> 10,
            needed: needed >> 10,
            option,
        }),
        _ => Ok(()),
    }
}
