//! How a guest's run ends, and who may end it: the vCPU itself, a device, or another thread. Only
//! the first end counts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use super::Fault;
use crate::lock::lock;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VcpuEnd {
    /// The guest wrote this status to the exit port.
    Exited(u8),
    /// [`Ender::stop`] was called.
    Stopped,
    /// The guest did what it must not do.
    Fault(Fault),
    /// The guest waits, and no device has anything to do.
    NothingInFlight,
    /// The guest did something that this machine has no answer to.
    Unexpected(String),
    /// The wait for the machine's devices failed, for this reason of the system's.
    Wait(Errno),
    /// KVM failed.
    Kvm(kvm_ioctls::Error),
}

#[derive(Debug, Default)]
struct Shared {
    /// Set after `end`, so that whoever only wants to know whether the run has ended need not take
    /// the lock.
    ended: AtomicBool,
    end: Mutex<Option<VcpuEnd>>,
}

/// Ends the run of a machine. A vCPU looks whether it has been called after each exit and each
/// nudge; one that is in the guest has to be nudged.
#[derive(Clone, Debug, Default)]
pub struct Ender(Arc<Shared>);

impl Ender {
    /// Ends the run like this, unless it has ended already.
    pub fn end(&self, end: VcpuEnd) {
        let mut first = lock(&self.0.end);
        first.get_or_insert(end);
        self.0.ended.store(true, Ordering::SeqCst);
    }

    /// Ends the run from outside.
    pub fn stop(&self) {
        self.end(VcpuEnd::Stopped);
    }

    /// Whether the run has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.0.ended.load(Ordering::SeqCst)
    }

    /// How it has ended, once it has.
    pub(super) fn take(&self) -> Option<VcpuEnd> {
        if !self.has_ended() {
            return None;
        }
        let first = lock(&self.0.end);
        first.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_end_is_the_one_that_counts() {
        let ender = Ender::default();
        assert!(!ender.has_ended());
        ender.clone().end(VcpuEnd::Exited(7));
        ender.stop();
        assert_eq!(ender.take(), Some(VcpuEnd::Exited(7)));
    }

    #[test]
    fn a_run_that_is_stopped_from_outside_has_ended() {
        let ender = Ender::default();
        assert_eq!(ender.take(), None);
        ender.stop();
        assert_eq!(ender.take(), Some(VcpuEnd::Stopped));
    }
}
