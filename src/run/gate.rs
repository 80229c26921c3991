//! The gate between building a run and running it.
//!
//! Threads arrive, confined or not, and wait; nothing untrusted runs before the gate opens. If a
//! thread could not be confined, or something else fails meanwhile, it never does: the threads
//! are sent home.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::sandbox::FilterError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open,
    Abandoned,
}

#[derive(Debug)]
struct Inner {
    state: State,
    arrived: usize,
    failure: Option<FilterError>,
}

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: State) {
        let mut inner = self.lock();
        if inner.state == State::Closed {
            inner.state = state;
        }
        self.changed.notify_all();
    }
}

/// The side of whoever opens the gate. Dropping it without that sends the threads home.
#[derive(Debug)]
pub(super) struct Gate(Arc<Shared>);

/// The side of a thread.
#[derive(Clone, Debug)]
pub(super) struct Entrance(Arc<Shared>);

impl Gate {
    /// A closed gate.
    pub(super) fn new() -> Self {
        Self(Arc::new(Shared {
            inner: Mutex::new(Inner {
                state: State::Closed,
                arrived: 0,
                failure: None,
            }),
            changed: Condvar::new(),
        }))
    }

    /// An entrance for a thread.
    pub(super) fn entrance(&self) -> Entrance {
        Entrance(self.0.clone())
    }

    /// Waits until `threads` threads have arrived.
    ///
    /// # Errors
    ///
    /// Why one of them is not confined.
    pub(super) fn wait_for(&self, threads: usize) -> Result<(), FilterError> {
        let inner = self.0.lock();
        let mut inner = self
            .0
            .changed
            .wait_while(inner, |inner| inner.arrived < threads)
            .unwrap_or_else(PoisonError::into_inner);
        inner.failure.take().map_or(Ok(()), Err)
    }

    /// Lets the threads through.
    pub(super) fn open(self) {
        self.0.set(State::Open);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.0.set(State::Abandoned);
    }
}

impl Entrance {
    /// Arrives with how confining the thread went, and waits; whether the thread may go on.
    pub(super) fn pass(&self, confined: Result<(), FilterError>) -> bool {
        let mut inner = self.0.lock();
        inner.arrived += 1;
        if let Err(error) = confined {
            inner.failure = Some(error);
        }
        self.0.changed.notify_all();
        let inner = self
            .0
            .changed
            .wait_while(inner, |inner| inner.state == State::Closed)
            .unwrap_or_else(PoisonError::into_inner);
        inner.state == State::Open
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::thread;

    use super::*;

    #[test]
    fn threads_pass_only_when_the_gate_opens() {
        let gate = Gate::new();
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let entrance = gate.entrance();
                thread::spawn(move || entrance.pass(Ok(())))
            })
            .collect();
        gate.wait_for(3).unwrap();
        assert!(threads.iter().all(|thread| !thread.is_finished()));
        gate.open();
        for thread in threads {
            assert!(thread.join().unwrap());
        }
    }

    #[test]
    fn a_gate_that_is_dropped_sends_threads_home() {
        let gate = Gate::new();
        let entrance = gate.entrance();
        let thread = thread::spawn(move || entrance.pass(Ok(())));
        gate.wait_for(1).unwrap();
        drop(gate);
        assert!(!thread.join().unwrap());
    }
}
