//! The switch of the changes, which is put into the crate under test. It is set by the environment
//! before anything else runs: `MUTANT` is the number of the change to make, and `MUTANTS_SEEN` a file
//! with a byte for each, in which those are marked that the program has come to.
#![allow(unsafe_code)]

extern crate std;

use core::ffi::{c_int, c_void};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicUsize, Ordering};
use std::os::fd::AsRawFd;

static ACTIVE: AtomicUsize = AtomicUsize::new(usize::MAX);
static SEEN: AtomicPtr<AtomicU8> = AtomicPtr::new(null_mut());

unsafe extern "C" {
    fn mmap(at: *mut c_void, len: usize, prot: c_int, flags: c_int, fd: c_int, offset: i64)
    -> *mut c_void;
}

/// Whether change `id` is to be made.
#[inline(never)]
pub(crate) fn is_on(id: usize) -> bool {
    let seen = SEEN.load(Ordering::Relaxed);
    if !seen.is_null() {
        // SAFETY: the file has a byte for each change, and stays mapped.
        unsafe { (*seen.add(id)).store(1, Ordering::Relaxed) };
    }
    ACTIVE.load(Ordering::Relaxed) == id
}

// Mapped, so that a process that may open and write nothing any more can still say what it has seen.
#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = start;

extern "C" fn start() {
    const READ_AND_WRITE: c_int = 3;
    const SHARED: c_int = 1;
    if let Some(id) = std::env::var("MUTANT").ok().and_then(|id| id.parse().ok()) {
        ACTIVE.store(id, Ordering::Relaxed);
    }
    let Ok(path) = std::env::var("MUTANTS_SEEN") else {
        return;
    };
    let opened = std::fs::OpenOptions::new().read(true).write(true).open(path);
    let file = opened.expect("the file for what is seen");
    let len = file.metadata().expect("its length").len() as usize;
    // SAFETY: a new mapping, of a file that is open.
    let map = unsafe { mmap(null_mut(), len, READ_AND_WRITE, SHARED, file.as_raw_fd(), 0) };
    assert!(map as isize != -1, "cannot map the file for what is seen");
    SEEN.store(map.cast(), Ordering::Relaxed);
}
