//! The block device (virtio 1.2, section 5.2).

mod backend;

pub use backend::BlockBackend;
