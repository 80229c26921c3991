//! Virtio devices (virtio 1.2): the shape that any device has, the MMIO transport, and the block
//! device. Nothing here knows what the guest does with its disks.

pub mod block;
