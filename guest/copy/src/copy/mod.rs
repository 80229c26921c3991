//! The copy: the input disk's bytes, whatever its sectors, to the output disk, whatever its own.
//!
//! [`plan`] says which bytes go together, [`engine`] keeps both disks busy with them, [`disks`]
//! waits for the two, and `retry` finds out what exactly failed. [`skip`] says what need not be
//! read, [`zeros`] finds what need not be written, `declare` tells the output of both, and
//! [`digest`] and `verify` show that all came as it was. None of them knows how progress
//! is shown: an [`Observer`] is told.

mod declare;
pub mod digest;
pub mod disks;
pub mod engine;
pub mod plan;
mod retry;
pub mod skip;
mod verify;
pub mod zeros;

use alloc::string::ToString;

use disks::DiskFault;
use guest_protocol::NO_STATUS;

use crate::config::Side;
use crate::report::{Failure, Op};
pub(crate) use verify::hex;

/// Whoever wants to know how the copy gets on.
pub trait Observer {
    /// The first `sectors` input sectors are copied. Called with counts that never fall.
    fn copied(&mut self, sectors: u64);

    /// The first `sectors` input sectors are dealt with, of which the last ones were a hole.
    fn skipped(&mut self, sectors: u64);

    /// There is nothing to do until a disk has done something.
    fn idle(&mut self);
}

/// How a copy ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How many input sectors were copied, from the first on without a gap.
    pub count: u64,
    /// Why there are not more of them, if so.
    pub result: Result<(), Failure>,
    /// The digest of the input, if all went well and one is wanted.
    pub digest: Option<[u8; digest::LEN]>,
    /// How long it was computed, in ticks of the processor.
    pub digest_ticks: u64,
}

/// The failure of a request that a device answered with `status`.
fn request_failure(op: Op, disk: Side, sector: u64, status: u8) -> Failure {
    Failure {
        op,
        device: disk.name(),
        sector,
        status: u32::from(status),
        detail: "".to_string(),
    }
}

/// The failure of a device that answers no more, with `sector` the next one it had to do.
fn device_failure(fault: &DiskFault, sector: u64) -> Failure {
    Failure {
        op: match fault.disk {
            Side::Input => Op::Read,
            Side::Output => Op::Write,
        },
        device: fault.disk.name(),
        sector,
        status: NO_STATUS,
        detail: fault.error.to_string(),
    }
}

#[cfg(test)]
mod tests;
