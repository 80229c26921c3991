//! The messages that the VMM and its guest exchange, and how they are framed.
//!
//! The schema is `guest.proto`; the code generated from it is checked in, and a test fails when
//! the two disagree. The crate needs `alloc` but not `std`: both sides use it.
#![no_std]

extern crate alloc;

mod data_list;
mod frame;
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
#[rustfmt::skip]
mod generated;
mod messages;
mod progress;

pub use data_list::{DATA_UNIT, DataList, MAX_DATA_RANGES};
pub use frame::{FrameDecoder, FrameError, HEADER_LEN, MAX_MESSAGE_LEN, encode_framed};
pub use generated::guest_message::Payload;
pub use generated::{
    CapacityMessage, CheckMessage, CompleteMessage, ConvertConfig, ConvertFormat, DeviceConfig,
    Digest, ErrorMessage, FeatureKind, FeatureMessage, FileData, FindingMessage, GuestMessage,
    ImageMessage, InitMessage, InspectConfig, InspectTask, Level, ProblemMessage, ProgressMessage,
    Protocol, ReferenceMessage, SnapshotMessage, Sparse, Transport, VmmConfig,
};
pub use messages::{
    NO_STATUS, capacity_message, complete_message, complete_with_digest, error_message, hex,
    info_message, init_message, progress_message,
};
pub use progress::encode_progress;
pub use prost::Message;
