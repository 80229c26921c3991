//! A virtio driver (virtio 1.2): the MMIO transport, the split virtqueue and the block device.
//!
//! It knows nothing of what the blocks are for. Each layer takes its memory and registers from
//! outside, so that tests give it a device model in the program's own memory.

pub mod block;
pub mod mmio;
pub mod requests;
pub mod ring;
