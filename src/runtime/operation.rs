//! What a run is for, as the runtime sees it: something that listens to the guest, judges what it
//! did, and then makes the result final.

use std::fmt::{self, Display, Formatter};
use std::io;

use super::{Pulse, RunError};
use crate::machine::{Fault, VcpuEnd, kvm_hint};
use crate::reason::reason;
use crate::report::Console;

/// Where the guest said something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportSource {
    /// The first serial port.
    Serial,
    /// The virtio console.
    Console,
}

/// How a guest ended by itself.
#[derive(Clone, Copy, Debug)]
pub enum GuestEnd<'a> {
    /// It wrote this status to the exit port.
    Exited(u8),
    /// It did what it must not do.
    Fault(&'a Fault),
    /// It waits, and no device has anything to do.
    NothingInFlight,
    /// It did something that the machine has no answer to.
    Unexpected(&'a str),
}

impl<'a> GuestEnd<'a> {
    /// The part of `end` that is the guest's; the rest is the host's.
    pub(super) fn of(end: &'a VcpuEnd) -> Result<Self, RunError> {
        match end {
            VcpuEnd::Exited(status) => Ok(Self::Exited(*status)),
            VcpuEnd::Fault(fault) => Ok(Self::Fault(fault)),
            VcpuEnd::NothingInFlight => Ok(Self::NothingInFlight),
            VcpuEnd::Unexpected(what) => Ok(Self::Unexpected(what)),
            VcpuEnd::Wait(errno) => Err(RunError::Host {
                what: "wait for the machine's devices",
                source: (*errno).into(),
            }),
            VcpuEnd::Kvm(error) => Err(RunError::Host {
                what: "run the guest",
                source: io::Error::other(format!("{}{}", reason(error), kvm_hint(*error))),
            }),
            VcpuEnd::Stopped => Err(RunError::Guest("the run was stopped".to_owned())),
        }
    }

    /// Fails unless the guest exited with status 0.
    ///
    /// # Errors
    ///
    /// What it did instead.
    pub fn check(self) -> Result<(), RunError> {
        match self {
            Self::Exited(0) => Ok(()),
            _ => Err(RunError::Guest(self.to_string())),
        }
    }
}

impl Display for GuestEnd<'_> {
    fn fmt(&self, to: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(to, "the guest ended with exit status {status}"),
            Self::Fault(fault) => write!(to, "the guest faulted {fault}"),
            Self::NothingInFlight => {
                to.write_str("the guest waits for a device, and no device has anything to do")
            }
            Self::Unexpected(what) => to.write_str(what),
        }
    }
}

/// What a run is for. Only [`judge`](Self::judge) is needed: a run without anything that listens or
/// has to be put in place judges its guest and is done.
pub trait Operation {
    /// Takes what the guest said, and shows of it what is to be shown.
    ///
    /// # Errors
    ///
    /// What the guest may not say; it ends the run.
    fn receive(
        &mut self,
        _source: ReportSource,
        _bytes: &[u8],
        _console: &mut Console,
    ) -> Result<(), RunError> {
        Ok(())
    }

    /// How much is done, in bytes, for a progress bar. It never falls.
    fn progress(&self) -> u64 {
        0
    }

    /// Called when the run is to end, so that nothing may be waited for any more: interrupted
    /// transfers are given up from now on.
    fn cancel(&self) {}

    /// Whether the result of a guest that ended like this is good. To a [`RunError::Guest`] the run adds
    /// what the guest's drivers did wrong with devices, if the text does not have it.
    ///
    /// # Errors
    ///
    /// Why it is not.
    fn judge(&mut self, end: GuestEnd<'_>) -> Result<(), RunError>;

    /// What is to be read of a good result, in lines for standard output. The run waits for its
    /// reader, and fails if it cannot be written.
    fn answer(&self) -> String {
        String::new()
    }

    /// Makes a good result final: the last thing that can fail. Returns warnings for the user. What
    /// takes long before anything is changed is done in steps, with a beat of `_pulse` before each.
    ///
    /// # Errors
    ///
    /// Why it could not be done; then nothing has changed.
    fn commit(&mut self, _pulse: &Pulse<'_>) -> Result<Vec<String>, RunError> {
        Ok(Vec::new())
    }

    /// Waits until the final result would also be there after a power cut, if that was asked for.
    /// Nothing can make the run a failure any more. Returns warnings for the user.
    fn make_durable(&mut self) -> Vec<String> {
        Vec::new()
    }
}

/// An operation that asks for nothing but exit status 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct JustRun;

impl Operation for JustRun {
    fn judge(&mut self, end: GuestEnd<'_>) -> Result<(), RunError> {
        end.check()
    }
}
