//! Constructors for the guest's messages, one for each payload, with the level that goes with it.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write as _;

use crate::{
    CapacityMessage, CompleteMessage, ErrorMessage, GuestMessage, InitMessage, Level, Payload,
    ProgressMessage,
};

/// [`ErrorMessage::status`] where no request was answered.
pub const NO_STATUS: u32 = 255;

/// The bytes as hexadecimal digits, as a digest is shown.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

fn message(level: Level, payload: Payload) -> GuestMessage {
    GuestMessage {
        level: level.into(),
        payload: Some(payload),
    }
}

/// Something that is said of an image: one of the payloads that a guest which looks into one sends.
#[must_use]
pub fn info_message(payload: Payload) -> GuestMessage {
    message(Level::Info, payload)
}

/// `device` has passed `stage` of its initialisation.
#[must_use]
pub fn init_message(stage: &str, device: &str, address: u64) -> GuestMessage {
    message(
        Level::Info,
        Payload::Init(InitMessage {
            stage: stage.to_string(),
            device: device.to_string(),
            address,
        }),
    )
}

/// `device` holds `sectors` sectors of its configured size, `bytes` bytes in all.
#[must_use]
pub fn capacity_message(device: &str, sectors: u64, bytes: u64) -> GuestMessage {
    message(
        Level::Info,
        Payload::Capacity(CapacityMessage {
            device: device.to_string(),
            sectors,
            bytes,
        }),
    )
}

/// `current` of `total` input sectors are done.
#[must_use]
pub fn progress_message(op: &str, current: u64, total: u64, percent: u32) -> GuestMessage {
    message(
        Level::Progress,
        Payload::Progress(ProgressMessage {
            op: op.to_string(),
            current,
            total,
            percent,
        }),
    )
}

/// `op` failed on `device` at `sector` with the request status `status`, or [`NO_STATUS`].
#[must_use]
pub fn error_message(
    op: &str,
    device: &str,
    sector: u64,
    status: u32,
    detail: &str,
) -> GuestMessage {
    message(
        Level::Error,
        Payload::Error(ErrorMessage {
            op: op.to_string(),
            device: device.to_string(),
            sector,
            status,
            detail: detail.to_string(),
            ..ErrorMessage::default()
        }),
    )
}

/// `op` has ended after `count` input sectors.
#[must_use]
pub fn complete_message(op: &str, count: u64, success: bool) -> GuestMessage {
    message(
        Level::Complete,
        Payload::Complete(CompleteMessage {
            op: op.to_string(),
            count,
            success,
            digest: Vec::new(),
            digest_ticks: 0,
        }),
    )
}

/// `op` has ended well after `count` input sectors, whose bytes have this digest; to compute it took
/// so many ticks.
#[must_use]
pub fn complete_with_digest(op: &str, count: u64, digest: &[u8], ticks: u64) -> GuestMessage {
    message(
        Level::Complete,
        Payload::Complete(CompleteMessage {
            op: op.to_string(),
            count,
            success: true,
            digest: digest.to_vec(),
            digest_ticks: ticks,
        }),
    )
}
