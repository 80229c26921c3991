//! What ends a run before its work is done, in the terms of the message that says so
//! (`ErrorMessage` in proto/guest.proto).

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use guest_protocol::{GuestMessage, NO_STATUS, Payload, error_message};

/// What a program was doing when something failed. Each program uses those that it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// It took the configuration.
    Config,
    /// It set up a device.
    Init,
    /// It read a disk.
    Read,
    /// It wrote a disk.
    Write,
    /// It had a disk flush what was written.
    Flush,
    /// It read back what was written, and compared the digest.
    Verify,
    /// It was to use an image that is not safe to use.
    Refused,
    /// It was to use an image that contradicts itself.
    Broken,
    /// It found that the output has too little room.
    Room,
    /// It reported by the console.
    Report,
}

impl Op {
    /// The name that messages have for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Init => "init",
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
            Self::Verify => "verify",
            Self::Refused => "refused",
            Self::Broken => "broken",
            Self::Room => "room",
            Self::Report => "report",
        }
    }
}

/// Something that ends the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was being done.
    pub op: Op,
    /// The name of the device that it was done to.
    pub device: &'static str,
    /// Which of the devices of that name, counted from 0 up.
    pub number: u32,
    /// The sector at which it failed, in sectors of the size that the program counts in. Of
    /// [`Op::Room`], how many the output needs at the least.
    pub sector: u64,
    /// The status byte of the request (virtio 1.2, section 5.2.6), or [`NO_STATUS`] if no request
    /// was answered.
    pub status: u32,
    /// Why it failed, for a person. It may be empty.
    pub detail: String,
    /// Names of the reasons for which an image was refused, if it is used once all of them are
    /// allowed.
    pub remedies: Vec<&'static str>,
}

impl Failure {
    /// A failure that is no answer to a request.
    #[must_use]
    pub fn new(op: Op, device: &'static str, detail: &dyn fmt::Display) -> Self {
        Self {
            op,
            device,
            number: 0,
            sector: 0,
            status: NO_STATUS,
            detail: detail.to_string(),
            remedies: Vec::new(),
        }
    }

    /// The failure of a request that a device answered with `status`.
    #[must_use]
    pub const fn answered(op: Op, device: &'static str, sector: u64, status: u8) -> Self {
        Self {
            op,
            device,
            number: 0,
            sector,
            status: status as u32,
            detail: String::new(),
            remedies: Vec::new(),
        }
    }

    /// The message that tells the VMM of it.
    #[must_use]
    pub fn message(&self) -> GuestMessage {
        let mut message = error_message(
            self.op.name(),
            self.device,
            self.sector,
            self.status,
            &self.detail,
        );
        if let Some(Payload::Error(error)) = &mut message.payload {
            error.number = self.number;
            error.remedies = self.remedies.iter().map(ToString::to_string).collect();
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_all_that_is_known_of_a_failure() {
        let failure = Failure {
            number: 2,
            remedies: alloc::vec!["marked-dirty", "backing-file"],
            ..Failure::answered(Op::Write, "backing", 77, 2)
        };
        let mut expected = error_message("write", "backing", 77, 2, "");
        if let Some(Payload::Error(error)) = &mut expected.payload {
            error.number = 2;
            error.remedies = ["marked-dirty", "backing-file"].map(Into::into).into();
        }
        assert_eq!(failure.message(), expected);
        let failure = Failure::new(Op::Room, "output", &"it is full");
        let expected = error_message("room", "output", 0, NO_STATUS, "it is full");
        assert_eq!(failure.message(), expected);
    }
}
