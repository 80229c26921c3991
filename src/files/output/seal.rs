//! Whether the output may still be written, and how many writes are under way. A thread that hangs in one
//! is left behind at the end of a run, and its write may come back at any time after that: what has been
//! looked at would then be changed.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Keeps writes from what has been judged.
#[derive(Debug, Default)]
pub(super) struct Seal {
    is_set: AtomicBool,
    writing: AtomicU32,
}

/// A write that is under way until this is dropped.
#[derive(Debug)]
pub(super) struct Writing<'a>(&'a AtomicU32);

impl Seal {
    /// Begins a write; `None` if it comes too late.
    pub(super) fn begin_write(&self) -> Option<Writing<'_>> {
        // In this order: a write that is not counted when the seal is set sees the seal.
        self.writing.fetch_add(1, Ordering::SeqCst);
        let writing = Writing(&self.writing);
        (!self.is_set.load(Ordering::SeqCst)).then_some(writing)
    }

    /// Lets no write begin from now on. Returns whether none is under way.
    pub(super) fn set(&self) -> bool {
        self.is_set.store(true, Ordering::SeqCst);
        self.writing.load(Ordering::SeqCst) == 0
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_write_is_under_way_until_it_ends_and_none_begins_behind_the_seal() {
        let seal = Seal::default();
        let first = seal.begin_write().unwrap();
        let second = seal.begin_write().unwrap();
        drop(first);
        assert!(!seal.set());
        assert!(seal.begin_write().is_none());
        assert!(!seal.set());
        drop(second);
        assert!(seal.set());
        assert!(seal.begin_write().is_none());
    }
}
