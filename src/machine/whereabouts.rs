//! On which processor of the host the vCPU's thread was last seen.

use std::sync::atomic::{AtomicI32, Ordering};

/// Nobody knows.
const UNKNOWN: i32 = -1;

/// Where the thread is that runs the guest, for who would rather be elsewhere.
#[derive(Debug)]
pub struct Whereabouts(AtomicI32);

impl Default for Whereabouts {
    fn default() -> Self {
        Self(AtomicI32::new(UNKNOWN))
    }
}

impl Whereabouts {
    /// Notes where this thread is. Cheap enough for each exit: the C library asks a page that the kernel
    /// keeps up to date.
    pub fn note(&self) {
        self.0.store(here(), Ordering::Relaxed);
    }

    /// The processor that was noted last, if it is the one on which this thread is.
    #[must_use]
    pub fn shared(&self) -> Option<usize> {
        let there = usize::try_from(self.0.load(Ordering::Relaxed)).ok()?;
        (usize::try_from(here()) == Ok(there)).then_some(there)
    }
}

/// The processor on which this thread is. rustix asks in another way, which begins with a call that the
/// sandbox forbids.
fn here() -> i32 {
    // SAFETY: the call takes nothing, and -1 says that it failed, which is [`UNKNOWN`].
    unsafe { libc::sched_getcpu() }
}
