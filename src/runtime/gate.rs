//! The gate between building a run and running it.
//!
//! Each thread prepares itself, arrives at the gate and waits. Nothing that is not trusted runs
//! before the gate opens. If a thread cannot be confined, or something else fails, the gate never
//! opens and all threads are sent home.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::RunError;
use crate::lock::lock;

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
    failure: Option<RunError>,
}

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    /// For the gate's owner: one more has arrived.
    arrival: Condvar,
    /// For all that have arrived: the gate is no longer closed.
    decision: Condvar,
}

impl Shared {
    fn set(&self, state: State) {
        let mut inner = lock(&self.inner);
        if inner.state == State::Closed {
            inner.state = state;
        }
        self.decision.notify_all();
    }

    fn arrive(&self, result: Result<(), RunError>) {
        let mut inner = lock(&self.inner);
        inner.arrived += 1;
        if let Err(error) = result {
            inner.failure.get_or_insert(error);
        }
        self.arrival.notify_all();
    }
}

/// The side of whoever opens the gate. Dropping it without that sends the threads home.
#[derive(Debug)]
pub(super) struct Gate(Arc<Shared>);

/// The side of a thread. One that is dropped before it has passed counts as a failure, so that
/// nobody waits for a thread that has died.
#[derive(Debug)]
pub(super) struct Entrance {
    shared: Arc<Shared>,
    passed: bool,
}

impl Gate {
    /// A closed gate.
    pub(super) fn new() -> Self {
        Self(Arc::new(Shared {
            inner: Mutex::new(Inner {
                state: State::Closed,
                arrived: 0,
                failure: None,
            }),
            arrival: Condvar::new(),
            decision: Condvar::new(),
        }))
    }

    /// An entrance for a thread.
    pub(super) fn entrance(&self) -> Entrance {
        Entrance {
            shared: self.0.clone(),
            passed: false,
        }
    }

    /// Waits until `threads` threads have arrived.
    ///
    /// # Errors
    ///
    /// Why one of them cannot go on.
    pub(super) fn wait_for(&self, threads: usize) -> Result<(), RunError> {
        let inner = lock(&self.0.inner);
        let mut inner = self
            .0
            .arrival
            .wait_while(inner, |inner| inner.arrived < threads)
            .unwrap_or_else(PoisonError::into_inner);
        inner.failure.take().map_or(Ok(()), Err)
    }

    /// Lets the threads through.
    pub(super) fn open(&self) {
        self.0.set(State::Open);
    }

    /// Sends home all that have not been let through.
    pub(super) fn abandon(&self) {
        self.0.set(State::Abandoned);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.abandon();
    }
}

impl Entrance {
    /// Arrives, says whether preparing the thread went well, and waits at the gate. Returns whether
    /// the thread may go on.
    pub(super) fn pass(mut self, prepared: Result<(), RunError>) -> bool {
        self.passed = true;
        self.shared.arrive(prepared);
        let inner = self
            .shared
            .decision
            .wait_while(lock(&self.shared.inner), |inner| {
                inner.state == State::Closed
            })
            .unwrap_or_else(PoisonError::into_inner);
        inner.state == State::Open
    }
}

impl Drop for Entrance {
    fn drop(&mut self) {
        if !self.passed {
            self.shared.arrive(Err(RunError::Died(
                "a thread died before it could be confined".to_owned(),
            )));
        }
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

    #[test]
    fn a_thread_that_dies_before_it_arrives_is_not_waited_for() {
        let gate = Gate::new();
        let entrance = gate.entrance();
        drop(thread::spawn(move || drop(entrance)));
        assert!(matches!(gate.wait_for(1), Err(RunError::Died(_))));
    }
}
