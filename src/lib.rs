//! A VMM on rust-vmm crates that copies a disk inside a virtual machine.

pub mod files;
pub mod virtio;
