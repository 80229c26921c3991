//! A virtio driver (virtio 1.2): the MMIO transport, the split virtqueue, the block device and
//! the console.
//!
//! It knows nothing of what the bytes are for. Each layer takes its memory and registers from
//! outside, so that tests give it a device model in the program's own memory.

pub mod block;
pub mod console;
pub mod mmio;
pub mod requests;
pub mod ring;
