//! The block device (virtio 1.2, section 5.2): a request is parsed in `request`, joined with its
//! neighbours and carried out in `execute`, for whatever lies behind a [`Storage`](crate::storage::Storage).

mod batch;
mod config;
mod device;
mod disk;
mod execute;
mod failures;
mod refusal;
mod request;
mod stats;
mod zeroes;

pub use config::{BlockConfig, BlockConfigError, ID_BYTES, MAX_QUEUE_SIZE, SEG_MAX, SIZE_MAX};
pub use device::{Block, BlockService, NewBlockError};
pub use disk::{BlockIoError, IoOperation};
pub use request::RequestFault;
pub use stats::BlockCounters;
use stats::BlockStats;
pub use zeroes::MAX_ZERO_SEGMENTS;

#[cfg(test)]
mod tests;
