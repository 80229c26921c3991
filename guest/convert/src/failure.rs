//! What ends a conversion: a failure as every guest has it, or what speaks against an image. It says
//! on which of the disks that are read it came up, by the number that the disk has here.

use core::fmt;

use guest_formats::{Class, Error, Finding};
use guest_kit::failure::{Failure, Op};

use crate::disks::source_name;

/// The failure of `op` on the disk `source`, for `detail`.
#[must_use]
pub fn failed(op: Op, source: usize, detail: &dyn fmt::Display) -> Failure {
    Failure {
        number: number(source),
        ..Failure::new(op, source_name(source), detail)
    }
}

/// The failure of a request that the disk `source` answered with `status`.
#[must_use]
pub fn answered(op: Op, source: usize, sector: u64, status: u8) -> Failure {
    Failure {
        number: number(source),
        ..Failure::answered(op, source_name(source), sector, status)
    }
}

/// The failure that `finding`, which was found in the image on the disk `source`, makes of the run.
#[must_use]
pub fn refused(source: usize, finding: &Finding) -> Failure {
    let op = match finding.reason.class() {
        Class::Refused => Op::Refused,
        Class::Broken => Op::Broken,
    };
    failed(op, source, finding)
}

/// The failure of a parser that could not go on with the image on the disk `source`, where the disk
/// itself could be read.
#[must_use]
pub fn unreadable(source: usize, error: &Error) -> Failure {
    match error {
        Error::Refused(finding) => refused(source, finding),
        Error::Read { .. } | Error::Outside { .. } => failed(Op::Read, source, error),
    }
}

/// The number of a disk among those of its name: the input is alone, and the backing files follow.
fn number(source: usize) -> u32 {
    u32::try_from(source.saturating_sub(1)).unwrap_or(u32::MAX)
}
