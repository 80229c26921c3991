//! The copy: the input disk's bytes, whatever its sectors, to the output disk, whatever its own.
//!
//! [`plan`] says which bytes go together, [`engine`] keeps both disks busy with them, [`disks`]
//! waits for the two, and `retry` finds out what exactly failed. [`skip`] says what need not be
//! read, `declare` tells the output of that and of the zeros that were read, and `verify` shows that
//! all came as it was. None of them knows how progress is shown: an
//! [`Observer`](guest_kit::progress::Observer) is told.

mod declare;
pub mod disks;
pub mod engine;
pub mod plan;
mod retry;
pub mod skip;
mod verify;

use disks::DiskFault;
use guest_kit::digest::LEN as DIGEST_LEN;
use guest_kit::failure::{Failure, Op};

use crate::config::Side;

/// How a copy ended.
#[derive(Debug, PartialEq, Eq)]
pub struct CopyEnd {
    /// How many input sectors were copied, counted from the first one without a gap.
    pub count: u64,
    /// Why the copy is not complete, if it is not.
    pub result: Result<(), Failure>,
    /// The digest of the input, if all went well and one is wanted.
    pub digest: Option<[u8; DIGEST_LEN]>,
    /// How long it took to compute the digest, in ticks of the processor.
    pub digest_ticks: u64,
}

/// The failure of a device that answers no more, with `sector` the next one it had to do.
fn device_failure(fault: &DiskFault, sector: u64) -> Failure {
    let op = match fault.disk {
        Side::Input => Op::Read,
        Side::Output => Op::Write,
    };
    Failure {
        sector,
        ..Failure::new(op, fault.disk.name(), &fault.error)
    }
}

#[cfg(test)]
mod tests;
