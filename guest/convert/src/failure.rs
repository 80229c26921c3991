//! Whatever ends a conversion, in the terms of the message that says so.

use alloc::string::{String, ToString};
use core::fmt;

use guest_formats::{Class, Error, Finding};
use guest_protocol::NO_STATUS;

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Taking the configuration.
    Config,
    /// Setting up a disk.
    Init,
    /// Reading a disk.
    Read,
    /// Writing the output.
    Write,
    /// Making it durable.
    Flush,
    /// Using an image that is not safe: it is refused.
    Refused,
    /// Using an image that contradicts itself.
    Broken,
    /// Reporting all this by the console.
    Report,
}

impl Op {
    /// Its name in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Init => "init",
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
            Self::Refused => "refused",
            Self::Broken => "broken",
            Self::Report => "report",
        }
    }
}

/// Something that ends the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was being done.
    pub op: Op,
    /// Name of the device that it was done to.
    pub device: &'static str,
    /// Where, in sectors of 512 bytes.
    pub sector: u64,
    /// The request's status byte, or [`NO_STATUS`].
    pub status: u32,
    /// Why, for a person; may be empty.
    pub detail: String,
}

impl Failure {
    /// A failure that no request was answered with.
    #[must_use]
    pub fn new(op: Op, device: &'static str, detail: &dyn fmt::Display) -> Self {
        Self {
            op,
            device,
            sector: 0,
            status: NO_STATUS,
            detail: detail.to_string(),
        }
    }

    /// What was found in the image on `device` speaks against using it.
    #[must_use]
    pub fn refused(device: &'static str, finding: &Finding) -> Self {
        let op = match finding.reason.class() {
            Class::Refused => Op::Refused,
            Class::Broken => Op::Broken,
        };
        Self::new(op, device, finding)
    }

    /// A parser could not go on, for a reason other than that the disk could not be read.
    #[must_use]
    pub fn format(device: &'static str, error: &Error) -> Self {
        match error {
            Error::Refused(finding) => Self::refused(device, finding),
            Error::Read { .. } | Error::Outside { .. } => Self::new(Op::Read, device, error),
        }
    }
}
