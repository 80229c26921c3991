//! What ends a conversion: a failure as every guest has it, or what speaks against an image.

use guest_formats::{Class, Error, Finding};

pub use guest_kit::failure::{Failure, Op};

/// The failure that `finding`, which was found in the image on `device`, makes of the run.
#[must_use]
pub fn refused(device: &'static str, finding: &Finding) -> Failure {
    let op = match finding.reason.class() {
        Class::Refused => Op::Refused,
        Class::Broken => Op::Broken,
    };
    Failure::new(op, device, finding)
}

/// The failure of a parser that could not go on with the image on `device`, where the disk itself
/// could be read.
#[must_use]
pub fn unreadable(device: &'static str, error: &Error) -> Failure {
    match error {
        Error::Refused(finding) => refused(device, finding),
        Error::Read { .. } | Error::Outside { .. } => Failure::new(Op::Read, device, error),
    }
}
