//! The lock of the house: a panic under it ends the run, and until then nobody else is kept from what is
//! locked. No state is left half changed by a panic, so that a poisoned lock is as good as another.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Waits for `mutex` and locks it.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
