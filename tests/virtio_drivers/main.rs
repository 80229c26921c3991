//! The drivers of the `virtio-drivers` crate, an independent implementation, drive the devices
//! through their MMIO registers (virtio 1.2, section 4.2). There is no KVM in it: a register access
//! is a call, and the device works on its own thread behind its eventfds.
#![allow(clippy::unwrap_used, clippy::panic)]

mod block;
mod console;
mod entropy;
mod guest;
